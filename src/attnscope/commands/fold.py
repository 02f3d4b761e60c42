"""``attnscope fold``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from attnscope.commands.options import RunArgument


@dataclass(frozen=True)
class Fold:
    """Make gates static whose dependence on the image is not used: a run without them."""

    run: RunArgument
    """A run folder whose training ended; or a recording of a network of attnscope.build_model."""
    out: Path
    """The new run folder, which must not exist."""
    gates: tuple[str, ...] = ()
    """These gates, whatever is lost. Default: those that the validation split chooses."""
    tolerance: float | None = None
    """What validation accuracy may lose with all chosen gates, in points. Default: 0.2."""
    spatial: Literal["map", "number"] = "map"
    """What a static spatial gate becomes; a map is for one image size."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay before."""
    batch_size: int = 128
    """Batch size."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

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
