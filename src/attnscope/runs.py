"""The run folder: the one class through which it is reached.

>>> run = Run("runs/digits-resnet18-cbam")
>>> model, images = run.model(), run.split("test")
>>> recording, outcomes = run.recording("test"), run.interventions("test")

Everything is read when it is asked for. Importing this module, and reading what was recorded, needs
no torch.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import layout
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.recording.moments import Moments
from attnscope.recording.outcomes import Outcomes, find_outcomes
from attnscope.recording.places import is_captured, run_of
from attnscope.recording.reader import ShardReader, captured_kind
from attnscope.recording.recording import Recording

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages
    from attnscope.data.load import Data
    from attnscope.sources import Module, Source


class Run:
    """A run folder.

    Args:
        folder: of a training, or of `attnscope fold`.

    Raises:
        InputError: there is no such folder. What it holds is looked at when it is asked for.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"run {self.folder} does not exist; make it with attnscope train")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def holding(cls, recording: ShardReader) -> Run | None:
        """The run in which a recording lies, or None."""
        folder = run_of(recording.folder)
        return None if folder is None else cls(folder)

    @property
    def name(self) -> str:
        """What figures and tables call it."""
        return self.folder.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """All that made the run: source, recipe, seed, normalization, classes ...

        Raises:
            InputError: it cannot be read.
        """
        config = read_json(self.folder / layout.CONFIG)
        if not isinstance(config, dict):
            raise InputError(f"{self.folder / layout.CONFIG} is no run's; train again")
        return config

    @property
    def result(self) -> dict[str, Any]:
        """What the training ended with: steps, seconds, accuracies.

        Raises:
            InputError: it has not ended.
        """
        result: dict[str, Any] = read_json(self.folder / layout.RESULT)
        return result

    @property
    def normalization(self) -> Normalization:
        """The one that the network was trained with.

        Raises:
            InputError: the run does not tell it.
        """
        return Normalization(**self._setting("normalization"))

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the images that the network gets.

        Raises:
            InputError: the run does not tell it.
        """
        size: int = self._setting("image_size")
        return size

    @property
    def classes(self) -> list[str]:
        """Names, by label.

        Raises:
            InputError: the run does not tell them.
        """
        classes: list[str] = self._setting("classes")
        return classes

    def model(self) -> Module:
        """The network, in eval mode on the CPU.

        Raises:
            InputError: the training has not ended, or the files do not fit each other.
        """
        from attnscope.networks.weights import load_model

        return load_model(self.folder)

    def untrained_model(self) -> Module:
        """The same architecture with fresh random weights; the same ones for each call.

        Raises:
            InputError: as `model`.
        """
        return self.source(untrained=True).open_network()

    def split(
        self, name: str = "test", *, data_root: Path | None = None, skip_unreadable: bool = False
    ) -> LabeledImages:
        """The images of a split as the network gets them, but for the normalization.

        Args:
            name: ``train`` (without augmentation), ``validation`` or ``test``.
            data_root: where torchvision's sets lie now; default where they lay at the training.
            skip_unreadable: go on without files that cannot be read.

        Raises:
            InputError: they are not there, or no longer those of the training.
        """
        return self.source(name, data_root=data_root, skip_unreadable=skip_unreadable).open_images()

    def data(self, *, data_root: Path | None = None, skip_unreadable: bool = False) -> Data:
        """All splits, and the run's normalization.

        Training images may be larger than the network gets them: crop their centers.

        Args:
            data_root: of `split`.
            skip_unreadable: of `split`.

        Raises:
            InputError: as `split`.
        """
        return self.source(data_root=data_root, skip_unreadable=skip_unreadable).open_data()

    def source(
        self,
        split: str = "test",
        *,
        data_root: Path | None = None,
        untrained: bool = False,
        skip_unreadable: bool = False,
    ) -> Source:
        """What is captured of this run: `attnscope.sources.Source.of_run`.

        Raises:
            InputError: the split is not known, or the folder is no run.
        """
        from attnscope.sources import Source

        return Source.of_run(
            self.folder,
            split,
            data_root=data_root,
            untrained=untrained,
            skip_unreadable=skip_unreadable,
        )

    def recording(self, split: str = "test") -> Recording:
        """What was recorded of a split.

        Raises:
            InputError: nothing, or it cannot be opened.
        """
        return Recording(self._captured(self.recording_folder(split), split))

    def moments(self, split: str = "test") -> Moments:
        """The sums over the images of each class that were recorded of a split.

        Raises:
            InputError: none, or they cannot be opened.
        """
        return Moments(self._captured(self.moments_folder(split), split, " --moments"))

    def untrained_recording(self, split: str = "test") -> Recording:
        """What was recorded of the same architecture with fresh weights.

        Raises:
            InputError: nothing, or it cannot be opened.
        """
        return Recording(self._captured(self.untrained_folder(split), split, " --untrained"))

    def interventions(self, split: str = "test") -> Outcomes | None:
        """The outcomes of interventions on the recording of a split as it is now, or None.

        Raises:
            InputError: there is no recording, or one of them cannot be read.
        """
        return find_outcomes(self.recording(split))

    @property
    def weights_file(self) -> Path:
        """The weights that the run is about."""
        return self.folder / layout.WEIGHTS

    @property
    def metrics_file(self) -> Path:
        """CSV, one row an epoch."""
        return self.folder / layout.METRICS

    @property
    def steps_file(self) -> Path:
        """CSV, one row for some of the steps."""
        return self.folder / layout.STEPS

    @property
    def training_images_file(self) -> Path:
        """Some training images as the network got them, not normalized."""
        return self.folder / layout.TRAINING_IMAGES

    @property
    def figures(self) -> Path:
        """The folder of the figures of the test split."""
        return self.figures_folder("test")

    def figures_folder(self, split: str) -> Path:
        """The folder of the figures of a split."""
        folder = self.folder / layout.FIGURES
        return folder if split == "test" else folder / split

    def recording_folder(self, split: str) -> Path:
        """Where a recording of a split lies, or will lie."""
        return self.folder / layout.RECORDINGS / split

    def moments_folder(self, split: str) -> Path:
        """Where moments of a split lie, or will lie."""
        return self.folder / layout.MOMENTS / split

    def untrained_folder(self, split: str, moments: bool = False) -> Path:
        """Where a recording, or moments, of the untrained network lie, or will lie."""
        folder = self.folder / layout.UNTRAINED
        return folder / layout.MOMENTS / split if moments else folder / split

    def captured_folder(
        self, split: str, *, untrained: bool = False, moments: bool = False
    ) -> Path:
        """Where one of the three before lies: what a capture with these options writes."""
        if untrained:
            return self.untrained_folder(split, moments)
        return self.moments_folder(split) if moments else self.recording_folder(split)

    def interventions_folder(self, split: str) -> Path:
        """Where outcomes of interventions on the recording of a split lie, or will lie."""
        return self.folder / layout.INTERVENTIONS / split

    def _setting(self, name: str) -> Any:
        if name not in self.config:
            raise InputError(f"{self.folder / layout.CONFIG} is no run's (no {name}); train again")
        return self.config[name]

    def _captured(self, folder: Path, split: str, options: str = "") -> Path:
        if not folder.is_dir():
            raise InputError(
                f"{folder} does not exist; make it with attnscope capture {self.folder} "
                f"--split {split}{options}"
            )
        return folder


def open_recording(folder: Path, split: str = "test") -> Recording:
    """A recording, or that of a split of a run.

    Args:
        folder: a recording, or a run.
        split: of a run.

    Raises:
        InputError: it is neither, or there is no recording.
    """
    if is_captured(folder):
        return Recording(folder)
    run = Run(folder)
    # Recordings can be copied without their network.
    if not run.weights_file.is_file() and not run.recording_folder(split).is_dir():
        raise InputError(f"{folder} is no run with a network, and no recording; check the path")
    return run.recording(split)


def open_captured(folder: Path) -> Recording | Moments:
    """A recording or moments, whichever it is; or the recording of a run's test split.

    Raises:
        InputError: it is neither, or cannot be opened.
    """
    return Moments(folder) if captured_kind(folder) == "moments" else Recording(folder)


def open_untrained(recording: Recording) -> Recording | None:
    """The recording of the untrained network, of the same run and split; None if there is none.

    Raises:
        InputError: it cannot be opened.
    """
    run = Run.holding(recording)
    if run is None:
        return None
    folder = run.untrained_folder(recording.folder.resolve().name)
    return Recording(folder) if is_captured(folder) else None
