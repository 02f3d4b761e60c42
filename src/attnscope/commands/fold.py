"""``attnscope fold``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from attnscope.commands.options import MovedDataArgument, RunArgument
from attnscope.commands.parsing import Argument
from attnscope.shell import shell_command


@dataclass(frozen=True)
class Fold:
    """Replace gates by constants where accuracy allows, and write the smaller network."""

    run: RunArgument
    """Run folder whose training has finished, or a recording."""
    out: Path
    """New folder, which must not exist: a run, or for other networks a folder of the target
    folded:OUT."""
    gates: Annotated[tuple[str, ...], Argument(metavar="GATE")] = ()
    """Gates to fold, or all, without a test of the loss of accuracy. Default: the gates that are
    chosen on the validation split, within --tolerance."""
    tolerance: float | None = None
    """Largest allowed loss of accuracy when all chosen gates are folded, in percentage points. One
    half of the validation split chooses gates, and the other half tests them. Default: 1."""
    prune: bool = False
    """Also remove channels whose constants are so small that 0 passes the same test, with the
    filters that compute them, where that changes nothing else."""
    prune_below: float | None = None
    """With --gates: remove channels whose constants are at most this, without a test."""
    spatial: Literal["map", "number"] = "map"
    """Constant that replaces a spatial gate: a map, which fixes the image size, or a number."""
    data: MovedDataArgument = None
    """Where the images are now, if they have moved, such as folder:PATH. Default: where they
    were."""
    data_root: Path | None = None
    """Folder that contains CIFAR-10 or CIFAR-100. Default: the folder used for training."""
    allow_changed_data: bool = False
    """Continue with images that have changed since the network was trained, unless training images
    would be used to choose the gates. Default: stop, and name the images."""
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
            data=self.data,
            data_root=self.data_root,
            allow_changed_data=self.allow_changed_data,
            batch_size=self.batch_size,
            device=self.device,
            prune=self.prune,
            prune_below=self.prune_below,
        )
        print(report)
        print(self.out)
        print(f"Next: {self._next()}")

    def _next(self) -> str:
        """Return the command that records the folded network."""
        from attnscope.networks.folded import is_folded
        from attnscope.recording.recording import Recording

        if not is_folded(self.out):
            return shell_command("capture", self.out)
        source = Recording(self.run).source(self.data_root, self.data)
        size = source.network.image_size
        return shell_command(
            *("capture", "--model", f"folded:{self.out}", "--data", source.data.source),
            *(() if size is None else ("--image-size", size)),
            *("--out", f"{self.out}-recording"),
        )
