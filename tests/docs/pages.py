"""Runs the code of a page of the documentation as it is written.

The blocks of a page run in order in one temporary folder. Python blocks share their names, as the
cells of a notebook do. An HTML comment on the line before a block says what else happens to it:

- ``<!-- file: NAME -->``: the block is the content of a file, and is written.
- ``<!-- not run: REASON -->``: the block cannot run in a test.

``<!-- starts with: runs photos -->`` at the head of a page names what its folder holds at first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LANGUAGES = ("sh", "bash", "python")
FENCE = re.compile(
    r"(?:^<!-- (?P<marker>file|not run): (?P<value>[^>]+) -->\n)?"
    r"^(?P<fence>`{3,})(?P<language>\{code-cell\}[^\n]*|[a-z]*)\n(?P<text>.*?)^(?P=fence)$",
    re.M | re.S,
)
DRIVER = """\
import json, subprocess, sys
names = {"__name__": "__main__"}
for number, (kind, text) in enumerate(json.load(open(sys.argv[1])), start=1):
    print(f"--- block {number}: {kind}", file=sys.stderr, flush=True)
    if kind == "shell":
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
    else:
        exec(compile(text, f"block {number}", "exec"), names)
"""

SERVER: list[str] = []
"""The folder with the programs of `tests.docs.server`, while it runs."""


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    language: str
    text: str
    marker: str = ""
    """``file`` or ``not run``, if one of them is said."""
    value: str = ""
    """The name of the file, or the reason."""

    @property
    def steps(self) -> list[tuple[str, str]]:
        """What is run: ``("shell", text)`` or ``("python", text)``."""
        if self.marker == "not run":
            return []
        if self.marker == "file":
            return [("python", f"open({self.value!r}, 'w').write({self.text!r})\n")]
        if self.language in ("sh", "bash"):
            return [("shell", self.text)]
        if self.language == "python":
            return [("python", self.text)]
        return list(self._cell()) if self.language.startswith("{code-cell}") else []

    def _cell(self) -> list[tuple[str, str]]:
        """A notebook's cell: its options are left out, ``!`` and ``%%writefile`` are obeyed."""
        lines = [line for line in self.text.splitlines() if not re.match(r":[a-z-]+:", line)]
        if lines[0].startswith("%%writefile "):
            name, mode = lines[0].split()[-1], "a" if "-a" in lines[0].split() else "w"
            text = "\n".join(lines[1:]) + "\n"
            return [("python", f"open({name!r}, {mode!r}).write({text!r})\n")]
        steps: list[tuple[str, str]] = []
        for line in lines:
            kind, text = ("shell", line[1:]) if line.startswith("!") else ("python", line)
            if steps and steps[-1][0] == kind:
                text = f"{steps.pop()[1]}{text}"
            steps.append((kind, f"{text}\n"))
        return steps


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    return [
        Block(m["language"], m["text"], m["marker"] or "", (m["value"] or "").strip())
        for m in FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def starts_with(page: Path) -> list[str]:
    """What the folder of a page holds at first."""
    found = re.search(r"^<!-- starts with: ([a-z ]+) -->$", page.read_text(encoding="utf-8"), re.M)
    return found[1].split() if found else []


def environment(*folders: Path) -> dict[str, str]:
    """The environment with the package under test, and folders in which modules are found."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT / "src", *folders]))}
    programs = [*SERVER, str(Path(sys.executable).parent), env["PATH"]]
    return {**env, "PATH": os.pathsep.join(programs)}


def run_command(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder with the package under test, and expect success."""
    env = environment(folder)
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def run_page(page: Path, folder: Path, after: str = "") -> str:
    """Run every block of a page.

    Args:
        page: Markdown or a notebook in MyST's text form.
        folder: where it runs.
        after: Python that runs last and sees the names of the page.

    Returns:
        What the page prints to stdout.
    """
    import json

    steps = [step for block in blocks(page) for step in block.steps]
    if after:
        steps.append(("python", after))
    (folder / ".steps.json").write_text(json.dumps(steps), encoding="utf-8")
    return run_command([f"{SERVER[0]}/run-code", DRIVER, ".steps.json"], folder).stdout
