"""``attnscope train``"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar

from attnscope.commands.options import DataArgument, announce_recording, announce_run
from attnscope.commands.parsing import Argument
from attnscope.shell import shell_command
from attnscope.training.config import NetworkSettings, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
    """Train a network and write a run folder.

    To train on several GPUs: torchrun --standalone --nproc-per-node N -m attnscope train ...
    """

    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "Network": tuple(field.name for field in fields(NetworkSettings)),
        "Data": (
            "data",
            "data_root",
            "image_size",
            "channels",
            "class_order",
            "classes",
            "validation_share",
            "skip_unreadable",
        ),
        "Training": (
            "recipe",
            "weights",
            "epochs",
            "batch_size",
            "accumulate",
            "learning_rate",
            "class_weights",
            "keep",
            "monitor",
            "monitor_every",
            "capture",
        ),
    }

    # Narrower types than in TrainConfig, which a command line can hold.
    data: Annotated[str, DataArgument] = "digits"
    """Data source. Default: digits. Choices:"""
    classes: Annotated[Path | None, Argument(metavar="FILE")] = None
    """Text file with the classes in the order of the network's outputs, one per line. It may name
    more classes than the images have."""
    recipe: str | None = None
    weights: str | None = None
    capture: bool = False
    """At the end, record the gates on the test split, as attnscope capture does."""

    def __post_init__(self) -> None:
        """Do nothing: `__call__` checks the settings, so that an error is one line."""

    def __call__(self) -> None:
        settings = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        config = TrainConfig(**settings)

        from attnscope.training.processes import launched_process_group
        from attnscope.training.run import train_run

        run = train_run(config)
        process_group = launched_process_group()
        if process_group.is_main:
            announce_run(run, captured=self.capture)
        if not self.capture:
            return

        from attnscope.capturing.run import capture_source
        from attnscope.capturing.settings import CaptureSettings
        from attnscope.runs import Run
        from attnscope.training.devices import choose_device

        opened = Run(run)
        try:
            recording = capture_source(
                opened.source(),
                opened.recording_folder("test"),
                CaptureSettings(),
                device=choose_device(self.device),
                process_group=process_group,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"interrupted; the training is finished; continue with: "
                f"{shell_command('capture', run)}"
            ) from None
        if process_group.is_main:
            announce_recording(recording)
            print(f"Next: {shell_command('analyze', run)}")
