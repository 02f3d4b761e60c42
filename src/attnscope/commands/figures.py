"""``attnscope figures``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunArgument, announce_files, verify_folder


@dataclass(frozen=True)
class Figures:
    """Write every figure of a recording, and of interventions on it, as PNG and PDF."""

    run: RunArgument
    """A run folder with a recording, or a recording."""
    out: Path | None = None
    """Default: RUN/figures, of another split than test RUN/figures/SPLIT; of a recording without a
    run, figures within it."""

    def __call__(self) -> None:
        from attnscope.report import write_figures

        verify_folder(self.run)
        announce_files(write_figures(self.run, self.out))
