"""``attnscope figures``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import (
    MasksOption,
    RunArgument,
    add_masks,
    announce_files,
    verify_folder,
)


@dataclass(frozen=True)
class Figures:
    """Draw every figure of a recording and of its interventions, as PNG and PDF."""

    run: RunArgument
    """Run folder with a recording, or a recording."""
    out: Path | None = None
    """Folder for the figures. Default: RUN/figures for the test split and RUN/figures/SPLIT for
    another one; RECORDING/figures for a recording without a run."""
    masks: MasksOption = None
    """Masks of the objects in the images: a folder of image files named as the images (nonzero
    pixels are inside), a JSON or CSV file of boxes (image, x0, y0, x1, y1), or ink for drawings.
    They are stored beside the recording for later commands."""

    def __call__(self) -> None:
        from attnscope.report import write_figures

        verify_folder(self.run)
        add_masks([self.run], self.masks)
        announce_files(write_figures(self.run, self.out))
