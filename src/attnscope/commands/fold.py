"""``attnscope fold``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunArgument
from attnscope.errors import InputError


@dataclass(frozen=True)
class Fold:
    """Make gates static whose dependence on the image is not used: a run without them."""

    run: RunArgument
    """A run folder whose training ended."""
    out: Path
    """The new run folder, which must not exist."""
    gates: tuple[str, ...] = ()
    """These gates, whatever is lost. Default: those that the validation part chooses."""
    tolerance: float | None = None
    """What validation accuracy may lose with all chosen gates, in points. Default: 0.2."""
    spatial: str = "map"
    """What a static spatial gate becomes: map (for one image size) or number."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay at the training."""
    batch_size: int = 128
    """Images a forward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        if self.gates and self.tolerance is not None:
            raise InputError("--tolerance chooses gates and --gates names them; give one of them")

        from attnscope.folding.run import fold_run
        from attnscope.training.devices import choose_device

        report = fold_run(
            self.run,
            self.out,
            gates=self.gates,
            tolerance=0.2 if self.tolerance is None else self.tolerance,
            spatial=self.spatial,
            data_root=self.data_root,
            batch_size=self.batch_size,
            device=choose_device(self.device),
        )
        print(report)
        print(self.out)
        print(f"Next: attnscope capture {self.out}")
