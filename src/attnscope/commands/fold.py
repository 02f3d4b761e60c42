"""``attnscope fold``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from attnscope.commands.options import RunArgument
from attnscope.commands.parsing import Argument


@dataclass(frozen=True)
class Fold:
    """Replace gates by constants where accuracy allows, and write the smaller network as a run."""

    run: RunArgument
    """Run folder whose training has finished, or a recording of a network built by
    attnscope.build_model."""
    out: Path
    """New run folder, which must not exist."""
    gates: Annotated[tuple[str, ...], Argument(metavar="GATE")] = ()
    """Gates to fold, whatever the loss of accuracy. Default: the gates that are selected on the
    validation split, within --tolerance."""
    tolerance: float | None = None
    """Largest allowed loss of validation accuracy when all selected gates are folded, in percentage
    points. Default: 0.2."""
    spatial: Literal["map", "number"] = "map"
    """Constant that replaces a spatial gate: a map, which fixes the image size, or a number."""
    data_root: Path | None = None
    """Folder that contains CIFAR-10 or CIFAR-100. Default: the folder used for training."""
    batch_size: int = 128
    """Batch size."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        from attnscope.folding.run import fold

        report = fold(
            self.run,
            self.out,
            gates=self.gates,
            tolerance=self.tolerance,
            spatial=self.spatial,
            data_root=self.data_root,
            batch_size=self.batch_size,
            device=self.device,
        )
        print(report)
        print(self.out)
        print(f"Next: attnscope capture {self.out}")
