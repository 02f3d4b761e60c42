"""``attnscope demo``"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnscope.commands.options import plugin_options
from attnscope.files import write_json
from attnscope.layout import REPORT
from attnscope.shell import shell_command
from attnscope.signals import PARENT
from attnscope.training.config import TrainConfig

_DEMO_BATCH_SIZE = 64  # half of the recipe's: so few images need more steps in an epoch
_MONITOR_EVERY = 6  # steps; the demo has 126
_SCORED_IMAGES = 180  # of 359: the other images supply the gates
_EDITS = ("mean", "constant", "swap_any")  # a gate is used if the best constant costs accuracy
_FOLDED = "cbam-folded"


@dataclass(frozen=True)
class Demo:
    """Train an SE and a CBAM network on scikit-learn's digits, look into them, and fold one.

    Nothing is downloaded. The folder then holds two runs with their interventions and figures, a
    comparison, a report, and the CBAM network with constants in place of its gates.
    """

    out: Path = Path("runs/demo")
    """Folder for everything, which must not exist."""
    width: int = 32
    """Channels of layer1 in both ResNet18 networks."""
    epochs: int = 6
    """Number of epochs of each run."""
    seed: int = 0
    """Random seed."""
    open: bool = False
    """Serve the dashboard at the end, and open it in the browser of this machine."""

    def __call__(self) -> int:
        from attnscope.capturing.run import capture_run
        from attnscope.folding.run import fold
        from attnscope.interventions.run import intervene
        from attnscope.runs import Run
        from attnscope.training.run import train_run
        from attnscope.writing import growing_folder

        summary: dict[str, Any] = {}
        with _nothing_kept(self.out), growing_folder(self.out):
            runs = []
            for attention in ("se", "cbam"):
                run = self.out / attention
                runs.append(run)
                print(f"Training ResNet18 with {attention.upper()} on digits", file=sys.stderr)
                train_run(
                    TrainConfig(
                        attention=attention,
                        width=self.width,
                        epochs=self.epochs,
                        batch_size=_DEMO_BATCH_SIZE,
                        seed=self.seed,
                        out=run,
                        monitor=True,
                        monitor_every=_MONITOR_EVERY,
                    )
                )
                recording = capture_run(run)
                print(
                    f"Replacing the gates of {attention.upper()}, to see which of them are used",
                    file=sys.stderr,
                )
                intervene(run, edits=_EDITS, images=_SCORED_IMAGES, seed=self.seed)
                result = Run(run).result
                summary[attention] = {
                    "test_accuracy": float(recording.right.mean()),
                    "test_images": len(recording),
                    "train_images": result["train_images"],
                    "gates": len(recording.gates),
                    "parameters": result["parameters"],
                    "steps": result["steps"],
                    "seconds_per_step": result["seconds_per_step"],
                }
            se, cbam = map(str, runs)
            print("Folding the gates of CBAM into constants", file=sys.stderr)
            folded = fold(Run(cbam), self.out / _FOLDED, gates=("all",))
            print("Drawing the figures, the comparison and the report", file=sys.stderr)
            _run_in_parallel(
                ["figures", se],
                ["figures", cbam],
                ["compare", se, cbam, "--out", str(self.out / "comparison")],
                ["report", se, cbam, "--out", str(self.out / REPORT)],
            )
            summary["fold"] = {
                "gates": len(folded.folded),
                "test_accuracy": folded.test.after,
                "parameters": folded.parameters[1],
            }
            write_json(self.out / "summary.json", summary)
        for attention in ("se", "cbam"):
            values = summary[attention]
            print(
                f"{attention.upper()}: {values['test_accuracy']:.1%} of {values['test_images']} "
                f"test images, {values['seconds_per_step']:.2f} s per step"
            )
        print(
            f"CBAM with constants in place of all {len(folded.folded)} gates: "
            f"{folded.test.after:.1%}; {folded.parameters[0]:,} parameters become "
            f"{folded.parameters[1]:,} (all gates were folded without a test of the loss)"
        )
        print(f"Report:    {self.out / REPORT}")
        print(f"Figures:   {Run(self.out / 'cbam').figures}")
        print(f"Folded:    {self.out / _FOLDED}")
        return _show(self.out) if self.open else _offer(self.out)


def _offer(out: Path) -> int:
    print(f"Dashboard: {shell_command('dashboard', out, '--open')}")
    return 0


def _show(out: Path) -> int:
    """Serve the dashboard and open it, on any port that is free: the demo took minutes."""
    from attnscope.dashboard.serve import free_port, serve

    return serve(out, free_port(), open_browser=True)


@contextmanager
def _nothing_kept(out: Path) -> Iterator[None]:
    """Say on an interrupt that the demo starts anew; its parts would advise to resume."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {out} was not written: run it again") from None


def _run_in_parallel(*commands: list[str]) -> None:
    """Run commands of this program in parallel, because each of them uses one core only."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "attnscope", *plugin_options(), *command],
            stdout=subprocess.DEVNULL,
            env={**os.environ, PARENT: str(os.getpid())},
            start_new_session=True,  # Ctrl-C reaches the demo only, which ends them
        )
        for command in commands
    ]
    try:
        codes = [process.wait() for process in running]
    except BaseException:
        for process in running:
            process.kill()  # what they had begun lies in the demo's folder, which is removed
            process.wait()
        raise
    for command, code in zip(commands, codes, strict=True):
        if code:
            raise RuntimeError(f"{shell_command(*command)} failed with exit code {code}")
