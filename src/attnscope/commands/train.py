"""``attnscope train``"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

from attnscope.commands.options import DataArgument, announce_run
from attnscope.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
    """Train a network and write a run folder; this is the training script, for GPU and CPU."""

    # A command line gives text alone; what each is for stands beside the settings.
    data: Annotated[str, DataArgument] = "digits"
    """Data source:"""
    recipe: str = "fast"
    weights: str | None = None

    def __post_init__(self) -> None:
        """Nothing: the settings are checked when it is called, so that a refusal is one line."""

    def __call__(self) -> None:
        settings = {field.name: getattr(self, field.name) for field in fields(TrainConfig)}
        config = TrainConfig(**settings)

        from attnscope.training.processes import launched_process_group
        from attnscope.training.run import train_run

        run = train_run(config)
        if launched_process_group().is_main:
            announce_run(run)
