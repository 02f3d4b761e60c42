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


@dataclass(frozen=True)
class Demo:
    """Train an SE and a CBAM network on scikit-learn's digits, and record and compare them.

    Nothing is downloaded. The folder then holds two runs, figures, a comparison and a report.
    """

    out: Path = Path("runs/demo")
    """Folder for everything, which must not exist."""
    width: int = 32
    """Channels of layer1 in both ResNet18 networks."""
    epochs: int = 6
    """Number of epochs of each run."""
    seed: int = 0
    """Random seed."""

    def __call__(self) -> None:
        from attnscope.capturing.run import capture_run
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
                    )
                )
                recording = capture_run(run)
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
            _run_in_parallel(
                ["figures", se],
                ["figures", cbam],
                ["compare", se, cbam, "--out", str(self.out / "comparison")],
                ["report", se, cbam, "--out", str(self.out / REPORT)],
            )
            write_json(self.out / "summary.json", summary)
        for attention, values in summary.items():
            print(
                f"{attention.upper()}: {values['test_accuracy']:.1%} of {values['test_images']} "
                f"test images, {values['seconds_per_step']:.2f} s per step"
            )
        print(f"Report:    {self.out / REPORT}")
        print(f"Figures:   {Run(self.out / 'cbam').figures}")
        print(f"Dashboard: {shell_command('dashboard', self.out)}")


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
