"""Attack the files and commands of attnscope: python analysis/attack.py --trials 100 --out FILE.md.

A run with a recording and interventions is made. Then, with a seed:

- ``flips``: one bit of a file is flipped, and ``verify`` must find it.
- ``loads``: one bit of a file is flipped, and what reads the file must refuse it.
- ``structure``: a file is removed, cut, or replaced by a folder, a pipe, a device, or a link.
- ``kills``: a command is killed at a file operation or at a random time, and repeated.
- ``disks``: no file may grow beyond a random size, and the command is repeated without that limit.
- ``writers``: two processes run the same command at once.
- ``signals``: a command gets SIGINT, SIGTERM or SIGHUP at a random time, and is repeated.

A command that is repeated must give the same bytes as an undisturbed one, and leave nothing behind.
Commands run in forks of this process, so that no trial waits for imports.

It has more than 400 lines, so that the whole attack is one file.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: forks have no threads

import contextlib
import importlib
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from attnscope.commands.main import main as run_command
from attnscope.errors import InputError
from attnscope.files import write_bytes
from attnscope.recording.masking import add_masks
from attnscope.recording.masks import masks_of
from attnscope.recording.outcomes import read_outcomes
from attnscope.recording.places import masks_file
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.verifying import verify

Generator = np.random.Generator
_UNREAD = ("tensorboard",)
"""Folders of a run that nothing of attnscope reads; their files are not checked."""
_HEAVY = (
    *(
        "torch",
        "captum",
        "pyarrow.parquet",
        "attnscope.training.run",
        "attnscope.capturing.capture",
    ),
    *("attnscope.interventions.run", "attnscope.folding.run", "attnscope.report.files"),
    "attnscope.report.page",
)
"""What commands import. It is imported once, so that no fork waits for it."""
_MADE = "made"
"""The name of what attacked commands write."""
_TRAIN = (
    *("train", "--data", "folder:photos", "--width", "16", "--attention", "se", "--epochs", "1"),
    *("--precision", "fp32", "--batch-size", "8", "--device", "cpu"),
)
_INTERVENE = ("intervene", "run", "--images", "6", "--experiments", "decode", "replace")


@dataclass(frozen=True)
class Attacked:
    """A command that is attacked."""

    arguments: tuple[str, ...]
    """The command; to repeat it, the same or ``again``."""
    result: str
    """The folder or file that it writes."""
    again: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ("*",)
    """Which files of the result must have the same bytes."""


COMMANDS = {
    "train": Attacked(
        (*_TRAIN, "--out", "made"), "made", ("--resume",), ("*.safetensors", "model.json")
    ),
    "capture": Attacked(("capture", "run", "--out", "made"), "made"),
    "intervene": Attacked((*_INTERVENE, "--out", "made"), "made"),
    "fold": Attacked(
        ("fold", "run", "--out", "made", "--gates", "all"),
        "made",
        (),
        ("*.safetensors", "model.json"),
    ),
    "figures": Attacked(("figures", "run", "--out", "made"), "made"),
    "report": Attacked(("report", "run", "--out", "made.html"), "made.html"),
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code; minus the number of the signal that killed it."""
    error: str


@dataclass(frozen=True)
class Trial:
    """One attack."""

    kind: str
    what: str
    problem: str
    """What went wrong; empty if nothing did."""


def make_base(folder: Path) -> Path:
    """Make images, a run, its recording, interventions and masks in a folder; return the run."""
    for module in _HEAVY:
        importlib.import_module(module)
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for k, name in enumerate(("cat", "dog", "owl")):
            (folder / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (16, 16, 3)).astype(np.uint8)
                pixels[..., k] += 100
                Image.fromarray(pixels).save(folder / "photos" / split / name / f"{i}.png")
    for arguments in ((*_TRAIN, "--out", "run"), ("capture", "run"), _INTERVENE):
        ended = in_fork(folder, arguments)
        if ended.code:
            raise RuntimeError(f"{' '.join(arguments)} ended with {ended.code}: {ended.error}")
    boxes = [f"test/{name}/{i}.png,2,2,9,{8 + i}" for name in ("cat", "dog", "owl") for i in (0, 1)]
    (folder / "boxes.csv").write_text("image,x0,y0,x1,y1\n" + "\n".join(boxes) + "\n")
    add_masks(folder / "run", folder / "boxes.csv")
    return folder / "run"


# --- damaged files -------------------------------------------------------------------------------


def files_of(run: Path) -> list[Path]:
    """Return the files of a run that verification must answer for."""
    return sorted(
        path
        for path in run.rglob("*")
        if path.is_file() and not set(_UNREAD) & set(path.relative_to(run).parts)
    )


def is_noticed(run: Path) -> bool:
    """Return whether verification says that something is wrong, or cannot be checked."""
    try:
        return any(each.problems or each.unchecked for each in verify(run))
    except InputError:
        return True


@contextlib.contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    """Give a file another content inside of the block."""
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def flipped(content: bytes, rng: Generator) -> tuple[bytes, int]:
    """Return a content with one flipped bit, and the number of the byte."""
    place, bit = int(rng.integers(len(content))), int(rng.integers(8))
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :], place


def flips(run: Path, trials: int, rng: Generator) -> Iterator[Trial]:
    """Flip bits: equally often in each file."""
    files = [file for file in files_of(run) if file.stat().st_size]
    for i in range(trials):
        file = files[i % len(files)]
        content, place = flipped(file.read_bytes(), rng)
        with changed(file, content):
            problem = "" if is_noticed(run) else "not noticed"
        yield Trial("flips", f"{file.relative_to(run)} at {place}", problem)


def loads(run: Path, trials: int, rng: Generator) -> Iterator[Trial]:
    """Flip bits of files, and read them as commands do."""
    recording = run / "recordings/test"
    outcomes = run / "interventions/test"
    readers: dict[Path, Callable[[], object]] = {
        run / "model.safetensors": lambda: Run(run).model(),
        run / "model.json": lambda: Run(run).model(),
        recording / "manifest.json": lambda: Recording(recording),
        masks_file(recording): lambda: masks_of(Recording(recording)),
        **{file: lambda: read_outcomes(outcomes).logits for file in sorted(outcomes.iterdir())},
    }
    for i in range(trials):
        file = list(readers)[i % len(readers)]
        content, place = flipped(file.read_bytes(), rng)
        with changed(file, content):
            try:
                readers[file]()
                problem = "read as if nothing had happened"
            except InputError:
                problem = ""
            except Exception as error:  # what is looked for
                problem = f"{type(error).__name__}: {error}"[:200]
        yield Trial("loads", f"{file.relative_to(run)} at {place}", problem)


def structure(run: Path, trials: int, rng: Generator) -> Iterator[Trial]:
    """Remove, cut and replace files."""
    outside = run.parent / "outside"

    def remove(file: Path) -> None:
        file.unlink()

    def empty(file: Path) -> None:
        file.write_bytes(b"")

    def cut(file: Path) -> None:
        file.write_bytes(file.read_bytes()[: int(rng.integers(max(file.stat().st_size, 1)))])

    def extend(file: Path) -> None:
        file.write_bytes(file.read_bytes() + b"\n")

    def folder(file: Path) -> None:
        file.unlink()
        file.mkdir()

    def pipe(file: Path) -> None:
        file.unlink()
        os.mkfifo(file)

    def device(file: Path) -> None:
        file.unlink()
        file.symlink_to("/dev/zero")

    def link(file: Path) -> None:
        outside.write_bytes(file.read_bytes())
        file.unlink()
        file.symlink_to(outside)

    def other_json(file: Path) -> None:
        values: tuple[object, ...] = (None, [], {}, 7, {"format": 1}, {"files": {"../x": "0"}})
        file.write_text(json.dumps(values[int(rng.integers(len(values)))]))

    ways = (remove, empty, cut, extend, folder, pipe, device, link, other_json)
    every = [(way, file) for way in ways for file in files_of(run)]
    for i in rng.permutation(len(every))[:trials]:
        way, file = every[i]
        before = file.read_bytes()
        if way is empty and not before:
            continue
        way(file)
        try:
            with time_limit(10):
                problem = "" if is_noticed(run) else "not noticed"
        except Exception as error:  # what is looked for
            problem = f"{type(error).__name__}: {error}"[:200]
        finally:
            if file.is_dir() and not file.is_symlink():
                file.rmdir()
            file.unlink(missing_ok=True)
            file.write_bytes(before)
            outside.unlink(missing_ok=True)
        yield Trial("structure", f"{way.__name__} {file.relative_to(run)}", problem)


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise a TimeoutError if the block takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- disturbed commands --------------------------------------------------------------------------


@dataclass(frozen=True)
class Child:
    """A process that runs a command."""

    number: int
    error: int
    """Descriptor of a pipe with its standard error, which no full disk stops."""


def start(place: Path, arguments: Sequence[str], prepare: Callable[[], object] = int) -> Child:
    """Run a command in a fork."""
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return Child(child, reader)
    code = 99
    try:
        os.chdir(place)
        os.dup2(writer, 2)
        os.close(writer)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        prepare()
        code = run_command(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        os._exit(code)


def finish(child: Child) -> Ended:
    """Wait for a command, and return how it ended."""
    with os.fdopen(child.error, errors="replace") as stream:
        error = stream.read()
    _, status = os.waitpid(child.number, 0)
    return Ended(os.waitstatus_to_exitcode(status), error)


def in_fork(place: Path, arguments: Sequence[str], prepare: Callable[[], object] = int) -> Ended:
    """Run a command in a fork until it ends."""
    return finish(start(place, arguments, prepare))


def at_operations(act: Callable[[int], object]) -> Callable[[], object]:
    """Return what prepares a process to act before each file operation, given its number."""
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        is_operation = writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
        if is_operation and _MADE in str(arguments[0]):
            count += 1
            act(count)

    return lambda: sys.addaudithook(hook)


def content_of(place: Path, command: Attacked) -> dict[str, bytes]:
    """Return the bytes of what a command wrote, as far as they must be the same each time."""
    result = place / command.result
    if result.is_file():
        return {"": result.read_bytes()}
    found = {file for pattern in command.patterns for file in result.rglob(pattern)}
    return {str(f.relative_to(result)): f.read_bytes() for f in sorted(found) if f.is_file()}


def disturb(
    base: Path,
    place: Path,
    name: str,
    reference: dict[str, bytes],
    act: Callable[[Path], str],
    kind: str,
) -> Trial:
    """Disturb a command in a copy of the base, repeat it, and compare the result."""
    command = COMMANDS[name]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place)
    what = act(place)
    what, _, problem = what.partition("|")
    if not problem:
        done = in_fork(place, command.arguments)
        if done.code == 2 and command.again and (place / command.result).exists():
            done = in_fork(place, (*command.arguments, *command.again))
        found = content_of(place, command)
        left = [
            str(path.relative_to(place))
            for path in place.rglob("*")
            if path.name.startswith(".") or path.suffix in (".partial", ".lock")
        ]
        # What was finished before the disturbance is refused or taken as it is.
        if done.code not in (0, 2) or "Traceback" in done.error:
            problem = f"repeated: exit {done.code}: {done.error.strip()[-200:]}"
        elif found != reference:
            differ = sorted(k for k in {*found, *reference} if found.get(k) != reference.get(k))
            problem = f"other bytes in {', '.join(differ[:3])} ({done.error.strip()[-200:]})"
        elif left:
            problem = f"{left[0]} is left"
    shutil.rmtree(place, ignore_errors=True)
    return Trial(kind, f"{name}, {what}", problem)


def fault_of(ended: Ended, codes: Sequence[int]) -> str:
    """Return what is wrong with the end of a disturbed command, after a bar; or nothing."""
    if "Traceback" in ended.error:
        return f"|traceback: {ended.error.strip().splitlines()[-1][:200]}"
    return "" if ended.code in codes else f"|exit {ended.code}: {ended.error.strip()[-200:]}"


def disturbances(
    base: Path,
    kinds: Sequence[str],
    commands: Sequence[str],
    trials: int,
    rng: Generator,
    place: Path,
) -> Iterator[Trial]:
    """Disturb each command so often in each way, in copies of the base at ``place``."""
    for name in commands:
        command = COMMANDS[name]
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place)
        reader, writer = os.pipe()
        started = time.monotonic()
        noting = at_operations(lambda _, writer=writer: os.write(writer, b"."))  # type: ignore[misc]
        ended = in_fork(place, command.arguments, noting)
        os.close(writer)
        if ended.code:
            raise RuntimeError(f"{name} ended with {ended.code}: {ended.error}")
        seconds, reference = time.monotonic() - started, content_of(place, command)
        with os.fdopen(reader, "rb") as stream:
            operations = len(stream.read())
        for kind in kinds:
            for _ in range(trials):
                act = _ACTS[kind](command, operations, seconds, rng)
                yield disturb(base, place, name, reference, act, kind)


def kill(
    command: Attacked, operations: int, seconds: float, rng: Generator
) -> Callable[[Path], str]:
    """Kill at a file operation or, one time in three, at a random time."""
    number, delay = int(rng.integers(1, operations + 1)), float(rng.uniform(0, seconds))
    if rng.random() < 1 / 3:
        return lambda place: _signaled(place, command, signal.SIGKILL, delay)

    def act(place: Path) -> str:
        def die(count: int) -> None:
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        ended = in_fork(place, command.arguments, at_operations(die))
        return f"killed at operation {number}{fault_of(ended, (0, -9))}"

    return act


def fill_disk(
    command: Attacked, operations: int, seconds: float, rng: Generator
) -> Callable[[Path], str]:
    """Let no file grow beyond some size."""
    size = int(10 ** rng.uniform(0, 5.5))

    def act(place: Path) -> str:
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
        ended = in_fork(place, command.arguments, limit)
        return f"files of at most {size} bytes{fault_of(ended, (0, 1))}"

    return act


def race(
    command: Attacked, operations: int, seconds: float, rng: Generator
) -> Callable[[Path], str]:
    """Run the command twice at once."""
    delay = float(rng.uniform(0, seconds))

    def act(place: Path) -> str:
        first = start(place, command.arguments)
        time.sleep(delay)
        second = start(place, command.arguments)
        both = [finish(child) for child in (first, second)]
        faults = "".join(fault_of(ended, (0, 2)) for ended in both)
        if not faults and all(ended.code for ended in both):
            faults = "|neither finished"
        return f"again after {delay:.2f} s{faults}"

    return act


def interrupt(
    command: Attacked, operations: int, seconds: float, rng: Generator
) -> Callable[[Path], str]:
    """Send a signal that stops a program."""
    number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[int(rng.integers(3))]
    delay = float(rng.uniform(0, seconds))
    return lambda place: _signaled(place, command, number, delay)


def _signaled(place: Path, command: Attacked, number: signal.Signals, delay: float) -> str:
    child = start(place, command.arguments)
    time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.number, number)
    ended = finish(child)
    # Before the command has set its handlers, the signal ends the process itself.
    return f"{number.name} after {delay:.2f} s{fault_of(ended, (0, -number, 128 + number))}"


_ACTS = {"kills": kill, "disks": fill_disk, "writers": race, "signals": interrupt}
_DAMAGE = {"flips": flips, "loads": loads, "structure": structure}
KINDS = (*_DAMAGE, *_ACTS)


def attack(
    folder: Path,
    trials: int,
    seed: int,
    kinds: Sequence[str] = KINDS,
    commands: Sequence[str] = tuple(COMMANDS),
) -> Iterator[Trial]:
    """Attack a run that is made in a folder.

    Args:
        folder: An empty folder.
        trials: Number of damages of each kind. Each command is disturbed a tenth as often.
        seed: Random seed.
        kinds: Some of `KINDS`.
        commands: Some of `COMMANDS`.
    """
    base = folder / "base"
    base.mkdir()
    run = make_base(base)
    rng = np.random.default_rng(seed)
    for kind in kinds:
        if kind in _DAMAGE:
            yield from _DAMAGE[kind](run, trials, rng)
    disturbed = [kind for kind in kinds if kind in _ACTS]
    yield from disturbances(base, disturbed, commands, max(1, trials // 10), rng, folder / "place")


def table_of(trials: Sequence[Trial]) -> str:
    """Return a table in Markdown: how many attacks of each kind, and how many went wrong."""
    lines = ["| attack | tried | right | wrong |", "| --- | --- | --- | --- |"]
    for kind in KINDS:
        found = [trial for trial in trials if trial.kind == kind]
        wrong = sum(bool(trial.problem) for trial in found)
        if found:
            lines.append(f"| {kind} | {len(found)} | {len(found) - wrong} | {wrong} |")
    return "\n".join(lines) + "\n"


def main(
    trials: int = 100,
    seed: int = 0,
    kinds: tuple[str, ...] = KINDS,
    commands: tuple[str, ...] = tuple(COMMANDS),
    out: Path | None = None,
) -> int:
    """Attack attnscope, and print what went wrong and a table.

    Args:
        trials: Number of damages of each kind. Each command is disturbed a tenth as often.
        seed: Random seed.
        kinds: Kinds of attack.
        commands: Commands to disturb.
        out: File for the table.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for trial in attack(Path(folder).resolve(), trials, seed, kinds, commands):
            found.append(trial)
            if trial.problem:
                print(f"wrong: {trial.kind}: {trial.what}: {trial.problem}", flush=True)
    table = table_of(found)
    print(table)
    if out is not None:
        write_bytes(out, table.encode())
    return int(any(trial.problem for trial in found))


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
