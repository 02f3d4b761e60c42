"""``attnscope analyze``"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from attnscope.commands.options import (
    MasksOption,
    NetworkOptions,
    Split,
    announce_recording,
    expect_own_images,
)
from attnscope.commands.parsing import Argument
from attnscope.errors import InputError
from attnscope.shell import shell_command

if TYPE_CHECKING:
    from attnscope.sources import Source


@dataclass(frozen=True)
class Analyze:
    """Capture a network, and write statistics, interventions, figures and a report.

    Finished stages are not repeated: after an interruption, the same command continues. A stage
    that cannot answer for the network says why, and the others go on.
    """

    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "Network that attnscope did not train": ("network",),
        "Images": ("split", "data_root", "skip_unreadable", "allow_changed_data", "masks"),
    }

    target: Annotated[str | None, Argument(positional=True, metavar="TARGET")] = None
    """Network: timm:NAME, torchvision:NAME, folded:FOLDER or package.module:callable, as for
    --model. Or a run folder or a recording."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    split: Split = "test"
    """Split to analyze."""
    data_root: Path | None = None
    """Folder that contains CIFAR-10 or CIFAR-100. Default: the folder data/; for a run, the folder
    used for training."""
    skip_unreadable: bool = False
    """Skip images that cannot be read, and list them. Default: stop at such an image."""
    allow_changed_data: bool = False
    """Continue with images that have changed since the network was trained. The recording says what
    has changed. Default: stop, and name the images."""
    out: Path | None = None
    """Folder for everything about a network. Results of a run or a recording are written to its own
    folder."""
    skip: Annotated[
        tuple[Literal["statistics", "interventions", "figures", "report"], ...],
        Argument(metavar="STAGE"),
    ] = ()
    """Stages to skip: statistics, interventions, figures, report."""
    images: int | None = None
    """Number of images for interventions. Default: that of attnscope intervene."""
    minutes: float | None = None
    """Time for interventions in minutes, from which the default of --images follows. Default: that
    of attnscope intervene."""
    masks: MasksOption = None
    """Masks of the objects in the images: a folder of image files named as the images (nonzero
    pixels are inside), a JSON or CSV file of boxes (image, x0, y0, x1, y1), or ink for drawings.
    They are stored beside the recording for later commands."""
    batch_size: int | None = None
    """Batch size. Default: those of attnscope capture and attnscope intervene."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""
    compile: bool = False
    """Compile the network for the capture, which takes half a minute and is faster for many images.
    Default: as for attnscope capture."""

    def __call__(self) -> None:
        from attnscope.analyzing import AnalysisSettings, analyze_source
        from attnscope.plots.localization_sentences import describe_masks

        settings = AnalysisSettings(
            self.skip,
            self.images,
            self.minutes,
            self.batch_size,
            self.network.output,
            self.device,
            self.compile,
            self.network.data,
            self.masks,
        )
        source, folder = self._choose()
        try:
            made = analyze_source(source, folder, settings)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command continues") from None
        if made.reused:
            print(f"Finished before: {', '.join(made.reused)}", file=sys.stderr)
        announce_recording(made.recording)
        if made.masks is not None:
            print(f"Masks: {describe_masks(made.masks)}")
        if made.report is not None:
            print(f"Report: {made.report}")
        print(f"Next: {shell_command('dashboard', made.folder)}")

    def _choose(self) -> tuple[Source | None, Path]:
        """Return the network and images, and the folder of the recording."""
        from attnscope.analyzing import find_recorded, names_network, recording_place

        if self.target is not None and self.network.model is not None:
            raise InputError(
                "AS957", "TARGET and --model exclude each other; leave one of them out"
            )
        target = self.target or self.network.model
        if target is None:
            raise InputError(
                "AS955",
                "no network is given; give TARGET with --data and --out, a run or a recording",
            )
        if names_network(target):
            expect_own_images(replace(self.network, model=target), self.allow_changed_data)
            if self.network.data is None or self.out is None:
                missing = "--data" if self.network.data is None else "--out"
                raise InputError("AS958", f"the network {target} needs {missing}; add {missing}")
            network = replace(self.network, model=target)
            source = network.source(self.split, self.data_root, self.skip_unreadable)
            return source, recording_place(self.out, self.split)
        self.network.expect_none("a run or a recording", but=("data",))
        if self.out is not None:
            raise InputError(
                "AS957", "--out cannot be used with a run or a recording; leave it out"
            )
        return find_recorded(
            Path(target),
            self.split,
            data=self.network.data,
            data_root=self.data_root,
            skip_unreadable=self.skip_unreadable,
            allow_changed_data=self.allow_changed_data,
        )
