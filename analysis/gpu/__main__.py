r"""Measure attnscope on a GPU, in at most nine minutes.

    python -m analysis.gpu --out gpu-results

Run it from the root of the repository, in an environment with attnscope, timm and pytest. Each
stage runs in a process of its own with a limit of time, in order of value, and writes a row when
the row is measured: to ``gpu.jsonl``, and as a table to ``gpu.md``. Stages that ended well are not
repeated by a second call, so a stopped call continues where it was. `--tiny` runs everything on a
CPU in less than two minutes, to try the script.

A machine without a network needs torch 2.11 or later, torchvision, timm, numpy, scipy, pandas,
pyarrow, scikit-learn, matplotlib, safetensors, tensorboard, pillow, tqdm and jinja2. What else is
imported is in pure Python. Download it elsewhere and bring the folder along:

    pip download --no-deps --dest wheels captum jaxtyping wadler-lindig filelock \
        pytest pluggy iniconfig packaging pygments
    python -m analysis.gpu --wheels wheels --out gpu-results

`--wheels` unpacks the wheels into the folder of results, which comes before the packages of the
machine, and installs nothing. The table of a GPU belongs into ``docs/explanation/performance.md``,
and the lines into ``docs/results/gpu/gpu.jsonl``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.gpu.results import append, drop_stage, read

if TYPE_CHECKING:
    from analysis.gpu.stages import Setting, Stage

ROOT = Path(__file__).parents[2]
_ROWS, _TABLE, _PACKAGES = "gpu.jsonl", "gpu.md", "packages"
_SHORTEST = 15.0  # seconds; a stage that would have less does not start


def main(arguments: list[str] | None = None) -> int:
    """Run the stages that have not ended well yet, and return the exit code."""
    given = _parser().parse_args(arguments)
    out: Path = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    if given.wheels is not None:
        _unpack(given.wheels, out / _PACKAGES)
    first = [str(ROOT / "src"), str(ROOT), str(out / _PACKAGES)]
    sys.path[:0] = first
    # For pytest, which a stage starts.
    paths = [*first, os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return _run_stages(given, out)


def _parser() -> argparse.ArgumentParser:
    # argparse, since tyro may come from the wheels.
    parser = argparse.ArgumentParser(
        prog="python -m analysis.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of results")
    parser.add_argument("--tiny", action="store_true", help="run everything on the CPU, as a trial")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all stages")
    parser.add_argument("--only", nargs="+", default=[], metavar="STAGE", help="run these stages")
    parser.add_argument("--again", action="store_true", help="repeat stages that ended well")
    parser.add_argument("--wheels", type=Path, help="folder of wheels in pure Python to use")
    parser.add_argument("--data", default="digits", help="data source of the training to the end")
    parser.add_argument("--recipe", default="", help="its recipe; default: as attnscope train")
    parser.add_argument("--epochs", type=int, help="its epochs; default: those of the recipe")
    return parser


def _unpack(wheels: Path, folder: Path) -> None:
    """Unpack wheels in pure Python."""
    found = sorted(wheels.glob("*.whl"))
    if not found:
        sys.exit(f"{wheels} has no wheels; download them with pip download --dest {wheels} NAME")
    for wheel in found:
        if not wheel.name.endswith("-none-any.whl"):
            print(f"{wheel.name} is not in pure Python and is left out", file=sys.stderr)
            continue
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def _run_stages(given: argparse.Namespace, out: Path) -> int:
    import torch

    from analysis.gpu.page import render
    from analysis.gpu.stages import STAGES, Setting

    if not given.tiny and _limited(_expect_gpu, 60, out / "gpu.log") != "ok":
        print("no CUDA GPU was found; --tiny tries the script on a CPU", file=sys.stderr)
        return 2
    unknown = [name for name in given.only if name not in STAGES]
    if unknown:
        print(f"no stage is called {unknown[0]}; stages are {', '.join(STAGES)}", file=sys.stderr)
        return 2
    device = torch.device("cpu" if given.tiny else "cuda")
    epochs = 1 if given.tiny and given.epochs is None else given.epochs
    setting = Setting(out, device, given.tiny, given.data, given.recipe, epochs)
    file, began, failed = out / _ROWS, time.monotonic(), 0
    for stage in STAGES.values():
        if given.only and stage.name not in given.only:
            continue
        ended = {line["stage"] for line in read(file) if line.get("ended") == "ok"}
        if stage.name in ended and not given.again:
            print(f"{stage.name}: measured already")
            continue
        left = 60 * given.minutes - (time.monotonic() - began)
        if left < _SHORTEST:
            print(f"{stage.name}: not started, because the {given.minutes:g} minutes are over")
            failed += 1
            continue
        drop_stage(file, stage.name)
        started = time.monotonic()
        measure = partial(_measure, stage, setting, file)
        how = _limited(measure, min(stage.seconds, left), out / f"{stage.name}.log")
        seconds = round(time.monotonic() - started, 1)
        append(file, {"stage": stage.name, "ended": how, "seconds": seconds})
        failed += how != "ok"
        (out / _TABLE).write_text(render(read(file)), encoding="utf-8")
        print(f"{stage.name}: {how}, {seconds:g} s", flush=True)
    table = render(read(file))
    (out / _TABLE).write_text(table, encoding="utf-8")
    print(table, end="")
    return 1 if failed else 0


def _limited(run: Callable[[], object], seconds: float, log: Path) -> str:
    """Call a function in a process of its own and return how it ended: ``ok``, or a reason.

    Args:
        run: the function.
        seconds: after so many seconds the process is killed, with all that it started.
        log: a file for what it prints.
    """
    # The packages are imported already, which takes seconds. CUDA is not used in this process,
    # since a forked process could not use it then.
    process = multiprocessing.get_context("fork").Process(target=_work, args=(run, log))
    process.start()
    try:
        process.join(seconds)
        if process.is_alive():
            return f"stopped after {seconds:.0f} s"
    finally:
        if process.is_alive():  # also after Ctrl-C
            with suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
            process.join()
    return "ok" if process.exitcode == 0 else f"failed, see {log.name}"


def _work(run: Callable[[], object], log: Path) -> None:
    os.setsid()  # a group of its own, so that processes that it starts are killed with it
    with log.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1), os.fdopen(2, "w", 1)
    run()


def _expect_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("no CUDA GPU was found")


def _measure(stage: Stage, setting: Setting, file: Path) -> None:
    """Run a stage and write its rows."""
    import torch

    if setting.tiny:
        torch.set_num_threads(1)
    for row in stage.run(setting):
        append(file, {"stage": stage.name, **row.to_dict()})
        print(row, flush=True)


if __name__ == "__main__":
    sys.exit(main())
