"""Every command meets every kind of failure: one line, a known exit code, and nothing left behind.

The real command line runs in this process. What draws figures or serves pages is replaced, because
only the refusals matter here.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.attack import time_limit
from attnscope.commands.main import find_commands, main
from attnscope.errors import InputError

ARGUMENTS = {
    "analyze": ("--model", "{run}", "--data", "folder:photos", "--out", "{out}"),
    "capture": ("{run}", "--out", "{out}"),
    "compare": ("{run}", "run", "--out", "{out}"),
    "dashboard": ("{run}",),
    "demo": ("--out", "{out}", "--width", "16", "--epochs", "1"),
    "export": ("{run}", "--out", "{out}.pt2"),
    "figures": ("{run}", "--out", "{out}"),
    "fold": ("{run}", "--gates", "all", "--out", "{out}"),
    "inspect": ("{run}",),
    "intervene": ("{run}", "--images", "6", "--experiments", "decode", "--out", "{out}"),
    "report": ("{run}", "--out", "{out}"),
    "summary": ("{run}",),
    "train": ("--data", "folder:{run}/none", "--out", "{out}"),
    "verify": ("{run}",),
}
"""What each command is called with; {run} and {out} are what the failures change."""
RECORDING, INTERVENTIONS = Path("recordings/test"), Path("interventions/test")
MASKS = Path("masks/test/arrays.safetensors")


def manifest_is_a_folder(run: Path) -> Path:
    (run / RECORDING / "manifest.json").unlink()
    (run / RECORDING / "manifest.json").mkdir()
    return run


def manifest_is_a_pipe(run: Path) -> Path:
    (run / RECORDING / "manifest.json").unlink()
    os.mkfifo(run / RECORDING / "manifest.json")
    return run


def manifest_is_a_list(run: Path) -> Path:
    (run / RECORDING / "manifest.json").write_text("[]")
    return run


def endless_plan(run: Path) -> Path:
    (run / RECORDING / "plan.json").unlink()
    (run / RECORDING / "plan.json").symlink_to("/dev/zero")
    return run


def shard_is_cut(run: Path) -> Path:
    file = run / RECORDING / "shards/00000/arrays.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    return run


def rows_are_a_pipe(run: Path) -> Path:
    file = run / RECORDING / "shards/00000/rows.parquet"
    file.unlink()
    os.mkfifo(file)
    return run


def settings_are_other(run: Path) -> Path:
    settings = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**settings, "data": None, "classes": 7}))
    return run


def settings_are_a_list(run: Path) -> Path:
    (run / "config.json").write_text("[1]")
    return run


def settings_are_a_pipe(run: Path) -> Path:
    (run / "config.json").unlink()
    os.mkfifo(run / "config.json")
    return run


def masks_are_a_pipe(run: Path) -> Path:
    (run / MASKS).unlink()
    os.mkfifo(run / MASKS)
    return run


def settings_are_not_utf_8(run: Path) -> Path:
    (run / "config.json").write_bytes(b"\xff\xfe\x00{")
    return run


def weights_are_flipped(run: Path) -> Path:
    content = bytearray((run / "model.safetensors").read_bytes())
    content[len(content) // 2] ^= 4
    (run / "model.safetensors").write_bytes(content)
    return run


def weights_have_a_long_header(run: Path) -> Path:
    header = b'{"a": {"dtype": "' + b"x" * 500_000 + b'", "shape": [1], "data_offsets": [0, 4]}}'
    (run / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return run


def architecture_is_another(run: Path) -> Path:
    model = json.loads((run / "model.json").read_text())
    (run / "model.json").write_text(json.dumps({**model, "width": "wide"}))
    return run


def table_of_words(run: Path) -> Path:
    for file in (run / INTERVENTIONS).glob("*.csv"):
        file.write_text(re.sub(r",\d+\.\d+,", ",abc,", file.read_text()))
    return run


def about_is_a_list(run: Path) -> Path:
    (run / INTERVENTIONS / "about.json").write_text("[]")
    return run


def logs_are_words(run: Path) -> Path:
    (run / "metrics.csv").write_text("epoch,step\none,\x00\n")
    return run


def classes_of_one_name(run: Path) -> Path:
    """As version 0.1 recorded them: without a seal."""
    for name in ("manifest.json", "plan.json"):
        value = json.loads((run / RECORDING / name).read_text())
        value.pop("checksum", None)
        value["classes"] = ["crane", "cat", "crane"]
        (run / RECORDING / name).write_text(json.dumps(value))
    return run


def name_with_codes(run: Path) -> Path:
    return run.rename(run.with_name("r\x1b[31mun\nattnscope: all well"))


def name_is_not_utf_8(run: Path) -> Path:
    return run.rename(run.with_name("r\udcff\udcfe"))


def is_a_file(run: Path) -> Path:
    run.with_name("file").write_text("mine")
    return run.with_name("file")


def is_missing(run: Path) -> Path:
    return run.with_name("missing")


def is_missing_with_codes(run: Path) -> Path:
    return run.with_name("m\x1b[31missing\nattnscope: all well")


READERS = ("compare", "dashboard", "figures", "report", "verify")
"""Commands that read recordings."""
LOADERS = ("capture", "export", "fold", "inspect", "intervene", "verify")
"""Commands that load the network of a run."""
EVERY = tuple(sorted({*ARGUMENTS} - {"demo"}))
INPUTS: dict[Callable[[Path], Path], tuple[str, ...]] = {
    manifest_is_a_folder: READERS,
    manifest_is_a_pipe: READERS,
    manifest_is_a_list: (*READERS, "intervene"),
    endless_plan: ("compare", "figures", "intervene", "report", "verify"),
    shard_is_cut: ("compare", "figures", "report", "verify"),
    rows_are_a_pipe: READERS,
    settings_are_other: ("capture", "fold", "verify"),
    settings_are_a_list: ("capture", "fold", "verify"),
    settings_are_a_pipe: ("capture", "fold", "verify"),
    masks_are_a_pipe: ("verify",),
    settings_are_not_utf_8: ("capture", "fold", "inspect", "verify"),
    weights_are_flipped: LOADERS,
    weights_have_a_long_header: LOADERS,
    architecture_is_another: LOADERS,
    table_of_words: ("report", "verify"),
    about_is_a_list: ("intervene", "report", "verify"),
    logs_are_words: ("report", "verify"),
    classes_of_one_name: ("dashboard", "figures", "report", "verify"),
    name_with_codes: ("dashboard", "figures", "report", "verify"),
    name_is_not_utf_8: ("dashboard", "figures", "report", "verify"),
    is_a_file: EVERY,
    is_missing: EVERY,
    is_missing_with_codes: EVERY,
}
"""Failure -> the commands that meet it. Others would do their whole work."""
HARMLESS = (
    *(table_of_words, about_is_a_list, logs_are_words, classes_of_one_name, name_with_codes),
    name_is_not_utf_8,
)
"""Failures with which some commands do what is left to do, and name what is left out."""


CODES = {settings_are_a_pipe: {"capture": "AS111", "fold": "AS111"}}
"""Failures that could be taken for others: the codes of the lines."""


def onto_a_file(place: Path) -> str:
    (place / "mine").write_text("mine")
    return "mine"


def onto_a_folder(place: Path) -> str:
    (place / "folder").mkdir()
    (place / "folder/mine").write_text("mine")
    return "folder"


def onto_a_pipe(place: Path) -> str:
    os.mkfifo(place / "pipe")
    return "pipe"


def below_a_file(place: Path) -> str:
    (place / "mine").write_text("mine")
    return "mine/made"


def with_a_long_name(place: Path) -> str:
    return "n" * 300


def onto_a_link_that_is_broken(place: Path) -> str:
    (place / "link").symlink_to("nowhere/at/all")
    return "link"


OUTPUTS = (
    *(onto_a_file, onto_a_folder, onto_a_pipe, below_a_file, with_a_long_name),
    onto_a_link_that_is_broken,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("attnscope.report.files", "attnscope.report.page"):
        monkeypatch.setattr(f"{module}.plots_of_recording", lambda recording: [])
    monkeypatch.setattr("attnscope.report.files.plots_of", lambda subject: [])
    monkeypatch.setattr("streamlit.App.run", lambda *a, **k: None)


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The messages of errors, before what prints them escapes anything."""
    found: list[str] = []
    text_of = InputError.__str__

    def noting(self: InputError) -> str:
        found.append(text_of(self))
        return found[-1]

    monkeypatch.setattr(InputError, "__str__", noting)
    return found


def call(
    name: str, run: str, out: str, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, list[str]]:
    """Call a command; return its exit code, standard output, and what is wrong with it."""
    before = hidden(Path.cwd())
    arguments = [part.format(run=run, out=out) for part in ARGUMENTS[name]]
    problems = []
    try:
        with time_limit(60):
            code = main([name, *arguments])
    except Exception as error:
        code = -1
        problems.append(f"traceback: {type(error).__name__}: {error}")
    said = capsys.readouterr()
    # A progress bar is wiped out before the line.
    lines = [line for line in re.split(r"[\r\n]", said.err) if line.startswith("attnscope: ")]
    if code not in (-1, 0, 1, 2):
        problems.append(f"exit {code}")
    if code in (1, 2) and len(lines) != 1:
        problems.append(f"{len(lines)} lines: {said.err[-300:]}")
    if any(len(line) > 1500 for line in lines):
        problems.append(f"a line has {max(map(len, lines))} characters")
    # Progress bars move the cursor up.
    if re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", (said.err + said.out).replace("\x1b[A", "")):
        problems.append("a control code is printed")
    if left := sorted(hidden(Path.cwd()) - before):
        problems.append(f"{left[0]} is left")
    return code, said.out, problems


def hidden(folder: Path) -> set[str]:
    return {
        str(path)
        for path in folder.rglob("*")
        if path.name.startswith(".") or path.suffix in (".partial", ".lock")
    }


def test_every_command_is_driven() -> None:
    assert {name for name, _ in find_commands()} == set(ARGUMENTS)


@pytest.mark.parametrize("failure", INPUTS, ids=lambda failure: failure.__name__)
def test_no_command_fails_on_damaged_input(
    place: Path,
    failure: Callable[[Path], Path],
    capsys: pytest.CaptureFixture[str],
    messages: list[str],
) -> None:
    shutil.copytree("run", "hurt")
    run = failure(place / "hurt").name
    problems = {}
    for name in INPUTS[failure]:
        code, _, found = call(name, run, f"out-{name}", capsys)
        # The dashboard names a damaged recording on its pages.
        is_served = name == "dashboard" and failure.__name__.startswith(("manifest_", "rows_"))
        if code != 2 and failure not in HARMLESS and not is_served and not found:
            found = [f"exit {code}: it is not noticed"]
        wanted = CODES.get(failure, {}).get(name, "")
        if not found and wanted and not messages[-1].endswith(f"[{wanted}]"):
            found = [f"another code than {wanted}: {messages[-1]}"]
        found += [f"control codes: {text!r}" for text in messages if not text.isprintable()][:1]
        messages.clear()
        problems |= {name: found} if found else {}
    assert problems == {}


@pytest.mark.parametrize("failure", OUTPUTS, ids=lambda failure: failure.__name__)
def test_no_command_fails_on_its_output(
    place: Path, failure: Callable[[Path], str], capsys: pytest.CaptureFixture[str]
) -> None:
    problems = {}
    for name in sorted(ARGUMENTS):
        if not any("{out}" in part for part in ARGUMENTS[name]) or name == "export":
            continue  # a suffix is part of the name that export is given
        if (name, failure) == ("analyze", onto_a_folder):
            continue  # it goes on in a folder that is there
        inside = place / name
        inside.mkdir()
        out = f"{name}/{failure(inside)}"
        code, _, found = call(name, "run", out, capsys)
        # A report replaces a file, and figures are put into a folder that is there.
        replaces = (name, failure) == ("report", onto_a_file)
        if code != 2 and not replaces and failure is not onto_a_folder:
            found.append(f"exit {code}")
        mine = [path for path in inside.rglob("mine") if path.read_text() != "mine"]
        found += [f"{path} has changed" for path in mine if not replaces]
        problems |= {name: found} if found else {}
    assert problems == {}


@pytest.mark.parametrize("name", ["capture", "fold", "intervene", "report", "train"])
def test_full_disk_is_one_line_that_names_a_file(
    place: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "train":
        monkeypatch.setitem(ARGUMENTS, "train", ("--data", "folder:photos", "--out", "{out}"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        code, _, found = call(name, "run", "made", capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, found) == (1, [])
