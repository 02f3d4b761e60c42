"""`Run`: read everything in a run folder through one class.

>>> run = Run("runs/digits-resnet18-cbam")
>>> model, images = run.model(), run.split("test")
>>> recording, outcomes = run.recording("test"), run.interventions("test")

Files are read when they are asked for. Neither importing this module nor reading recordings imports
torch. More than 400 lines, because one class describes everything in a run folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from attnscope import layout
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.gate_history import GateHistory
from attnscope.notebook import html_page, html_properties
from attnscope.recording.moments import Moments
from attnscope.recording.outcomes import Outcomes
from attnscope.recording.places import is_captured, run_of
from attnscope.recording.reader import ShardReader, captured_kind
from attnscope.recording.recording import Recording
from attnscope.run_config import bad_config, read_config
from attnscope.shell import shell_command
from attnscope.unfinished import how_to_continue

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages
    from attnscope.data.load import Data
    from attnscope.sources import Module, Source


class Run:
    """A run folder: a trained or folded network with its settings, recordings and outcomes.

    Args:
        folder: a folder written by `attnscope.train_run` or `attnscope.fold`. Its files are read
            when they are asked for.

    Raises:
        InputError: AS530, the folder does not exist.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(
                "AS530",
                f"run {self.folder} does not exist; "
                "check the path or train it with attnscope train",
            )

    def __repr__(self) -> str:
        words = [
            value if label in ("network", "state") else f"{label} {value}"
            for label, value in self._describe().items()
        ]
        return f"<Run '{self.name}': {', '.join(words)}>"

    def _repr_html_(self) -> str:
        rows = {"folder": str(self.folder), **self._describe()}
        return html_page(f"Run {self.name}", html_properties(rows.items()))

    @classmethod
    def holding(cls, recording: ShardReader) -> Run | None:
        """Return the run that contains a recording, or None if it is outside a run."""
        folder = run_of(recording.folder)
        return None if folder is None else cls(folder)

    @property
    def name(self) -> str:
        """The name of the folder, which figures and tables show."""
        return self.folder.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """All settings of the run: data source, recipe, seed, normalization, classes and so on.

        Raises:
            InputError: AS531, ``config.json`` is not that of a run; or it cannot be read.
        """
        return read_config(self.folder)

    @property
    def result(self) -> dict[str, Any]:
        """Steps, seconds, losses and accuracies at the end of training.

        Raises:
            InputError: AS539, training has not finished; or the file cannot be read.
        """
        file = self.folder / layout.RESULT
        if not file.exists():
            raise InputError(
                "AS539",
                f"run {self.folder} has no {layout.RESULT}, because its training has not finished; "
                f"{how_to_continue(self.folder)}",
            )
        result: dict[str, Any] = read_json(file)
        return result

    @property
    def normalization(self) -> Normalization:
        """The normalization of the images that the network was trained with.

        Raises:
            InputError: AS531, the run does not store it.
        """
        return Normalization(**self._setting("normalization"))

    @property
    def image_size(self) -> int:
        """Height and width of the network's input, in pixels.

        Raises:
            InputError: AS531, the run does not store it.
        """
        size: int = self._setting("image_size")
        return size

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of their labels.

        Raises:
            InputError: AS531, the run does not store them.
        """
        classes: list[str] = self._setting("classes")
        return classes

    def model(self) -> Module:
        """Load the network, in eval mode on the CPU.

        Raises:
            InputError: the run has no weights, or they do not fit its architecture.
        """
        from attnscope.networks.weights import load_model

        return load_model(self.folder)

    def untrained_model(self, draw: int = 0) -> Module:
        """Build the same architecture with random weights, which are the same for every call.

        Its BatchNorm statistics are estimated on training images.

        Args:
            draw: which random weights, 0 or more.

        Raises:
            InputError: see `model`.
        """
        return self.source(untrained=True, draw=draw).open_network()

    def split(
        self,
        name: str = "test",
        *,
        data: str | None = None,
        data_root: Path | None = None,
        skip_unreadable: bool = False,
        allow_changed_data: bool = False,
    ) -> LabeledImages:
        """Load the images of a split in the size of the network's input, not normalized.

        Args:
            name: ``train`` (without augmentation), ``validation`` or ``test``.
            data: the data source with the place where the images are now, such as ``folder:PATH``.
                Default: where they were, or at the same place relative to the run.
            data_root: the folder that holds torchvision's data sets. Default: the folder that the
                run was trained with.
            skip_unreadable: skip files that cannot be read.
            allow_changed_data: go on with images that are not those of the training.

        Raises:
            InputError: AS536, the split is unknown; AS244, the images are gone; AS537, the data has
                other classes than the run was trained with; AS538, images have changed since; or
                they cannot be read.
        """
        source = self.source(
            name,
            data=data,
            data_root=data_root,
            skip_unreadable=skip_unreadable,
            allow_changed_data=allow_changed_data,
        )
        return cast("LabeledImages", source.open_images())  # a run has no other data sets

    def data(
        self,
        *,
        data: str | None = None,
        data_root: Path | None = None,
        skip_unreadable: bool = False,
        allow_changed_data: bool = False,
    ) -> Data:
        """Load all splits, with the normalization of the run.

        Training images may be larger than the network's input; crop them at the center.

        Args:
            data: see `split`.
            data_root: see `split`.
            skip_unreadable: see `split`.
            allow_changed_data: see `split`.

        Raises:
            InputError: see `split`.
        """
        return self.source(
            data=data,
            data_root=data_root,
            skip_unreadable=skip_unreadable,
            allow_changed_data=allow_changed_data,
        ).open_data()

    def source(
        self,
        split: str = "test",
        *,
        data: str | None = None,
        data_root: Path | None = None,
        untrained: bool = False,
        draw: int = 0,
        skip_unreadable: bool = False,
        allow_changed_data: bool = False,
    ) -> Source:
        """Return the network and split to capture; see `attnscope.sources.Source.of_run`.

        Raises:
            InputError: AS531, the folder is not a run folder; AS536, the split is unknown.
        """
        from attnscope.sources import Source

        return Source.of_run(
            self.folder,
            split,
            data=data,
            data_root=data_root,
            untrained=untrained,
            draw=draw,
            skip_unreadable=skip_unreadable,
            allow_changed_data=allow_changed_data,
        )

    def recording(self, split: str = "test") -> Recording:
        """Open the recording of a split.

        Raises:
            InputError: AS532, there is none; or it cannot be opened.
        """
        folder = self.recording_folder(split)
        return Recording(self._expect("AS532", folder, f"recording of the {split} split", split))

    def moments(self, split: str = "test") -> Moments:
        """Open the moments of a split: sums of the gates over the images of each class.

        Raises:
            InputError: AS533, there are none; or they cannot be opened.
        """
        folder = self.moments_folder(split)
        what = f"moments of the {split} split"
        return Moments(self._expect("AS533", folder, what, split, "--moments"))

    def untrained_recording(self, split: str = "test") -> Recording:
        """Open the recording of the same architecture with random weights.

        Raises:
            InputError: AS534, there is none; or it cannot be opened.
        """
        folder = self.untrained_folder(split)
        what = f"recording of its untrained network on the {split} split"
        return Recording(self._expect("AS534", folder, what, split, "--untrained"))

    def interventions(self, split: str = "test") -> Outcomes | None:
        """Return the outcomes of interventions on the current recording of a split, or None.

        Raises:
            InputError: AS532, there is no recording; or a file cannot be read.
        """
        return self.recording(split).interventions()

    def gate_history(self) -> GateHistory:
        """Open the gates over training, which ``attnscope train --monitor`` observed.

        Raises:
            InputError: AS550, the run has none; AS551, the file cannot be read.
        """
        return GateHistory.read(self.gate_history_file, self.name)

    @property
    def weights_file(self) -> Path:
        """The file of the weights that `model` loads."""
        return self.folder / layout.WEIGHTS

    @property
    def metrics_file(self) -> Path:
        """The CSV file with one row per epoch."""
        return self.folder / layout.METRICS

    @property
    def steps_file(self) -> Path:
        """The CSV file with one row per logged step."""
        return self.folder / layout.STEPS

    @property
    def gate_history_file(self) -> Path:
        """The file of the gates over training, one line per observation."""
        return self.folder / layout.GATE_HISTORY

    @property
    def training_images_file(self) -> Path:
        """The file of some augmented training images, not normalized."""
        return self.folder / layout.TRAINING_IMAGES

    @property
    def figures(self) -> Path:
        """The folder of the figures of the test split."""
        return self.figures_folder("test")

    def figures_folder(self, split: str) -> Path:
        """Return the folder of the figures of a split."""
        folder = self.folder / layout.FIGURES
        return folder if split == "test" else folder / split

    def recording_folder(self, split: str) -> Path:
        """Return the folder of the recording of a split, which may not exist yet."""
        return self.folder / layout.RECORDINGS / split

    def moments_folder(self, split: str) -> Path:
        """Return the folder of the moments of a split, which may not exist yet."""
        return self.folder / layout.MOMENTS / split

    def untrained_folder(self, split: str, moments: bool = False, draw: int = 0) -> Path:
        """Return the folder of the untrained network's recording or moments; it may not exist.

        Args:
            split: the split.
            moments: whether it is the folder of moments.
            draw: which random weights, 0 or more.
        """
        folder = self.folder / layout.UNTRAINED
        if draw:
            folder /= f"{layout.DRAW_PREFIX}{draw}"
        return folder / layout.MOMENTS / split if moments else folder / split

    def captured_folder(
        self, split: str, *, untrained: bool = False, moments: bool = False, draw: int = 0
    ) -> Path:
        """Return the folder to which `attnscope.capture` with these options writes."""
        if untrained:
            return self.untrained_folder(split, moments, draw)
        return self.moments_folder(split) if moments else self.recording_folder(split)

    def interventions_folder(self, split: str) -> Path:
        """Return the folder of the outcomes of interventions on the recording of a split."""
        return self.folder / layout.INTERVENTIONS / split

    def _setting(self, name: str) -> Any:
        if name not in self.config:
            raise bad_config(self.folder, f"'{name}' is missing")
        return self.config[name]

    def _expect(self, code: str, folder: Path, what: str, split: str, *options: str) -> Path:
        """Check that something was captured, or name the command that captures it."""
        if not folder.is_dir():
            of_split = [] if split == "test" else ["--split", split]
            command = shell_command("capture", self.folder, *of_split, *options)
            raise InputError(code, f"run {self.folder} has no {what}; record it with: {command}")
        return folder

    def _describe(self) -> dict[str, str]:
        """The facts that `repr` shows. It never raises, even if files are missing or damaged."""
        shown: dict[str, str] = {}
        model = _read_table(self.folder / layout.MODEL)
        if model:
            attention = model.get("attention")
            gates = "no attention" if attention in (None, "none") else f"{attention} attention"
            shown["network"] = f"{model.get('name')} with {gates}"
            folded = model.get("folded")
            if isinstance(folded, dict) and folded:
                shown["folded gates"] = str(len(folded))
        config = _read_table(self.folder / layout.CONFIG)
        if not config:
            return shown | {"state": f"no readable {layout.CONFIG}"}
        classes = config.get("classes")
        count = f" ({len(classes)} classes)" if isinstance(classes, list) else ""
        shown["data"] = f"{config.get('data')}{count}"
        shown["seed"] = str(config.get("seed"))
        result = _read_table(self.folder / layout.RESULT)
        test = result.get("test")
        if isinstance(test, dict) and isinstance(test.get("accuracy"), int | float):
            shown["test accuracy"] = f"{test['accuracy']:.1%}"
        elif not self.weights_file.is_file():
            shown["state"] = "training not finished"
        shown["recordings"] = " and ".join(self._captured_splits()) or "none"
        return shown

    def _captured_splits(self) -> Iterator[str]:
        for split in layout.SPLITS:
            if is_captured(self.recording_folder(split)):
                yield split


def _read_table(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one if the file is missing or damaged."""
    try:
        value = read_json(file)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}


def open_recording(folder: Path, split: str = "test") -> Recording:
    """Open a recording, or the recording of a split of a run.

    Args:
        folder: a recording or a run folder.
        split: which recording of a run. It is ignored for a recording.

    Raises:
        InputError: AS530, the folder does not exist; AS532, the run has no recording of the split;
            AS535, the folder is neither a recording nor a run.
    """
    if is_captured(folder):
        return Recording(folder)
    run = Run(folder)
    # Recordings may have been copied without their network.
    if not run.weights_file.is_file() and not run.recording_folder(split).is_dir():
        raise InputError(
            "AS535",
            f"{folder} is neither a recording nor a run with a network; check the path, or train "
            "the run to the end",
        )
    return run.recording(split)


def open_captured(folder: Path) -> Recording | Moments:
    """Open a recording or moments, or the recording of the test split of a run.

    Raises:
        InputError: the folder is none of these, or cannot be opened.
    """
    return Moments(folder) if captured_kind(folder) == "moments" else Recording(folder)


def open_untrained(recording: Recording) -> list[Recording]:
    """Open the recordings of untrained networks that belong to the same run and split.

    Returns:
        One recording for each draw of the weights, up to the first that is missing.

    Raises:
        InputError: one cannot be opened.
    """
    run = Run.holding(recording)
    found: list[Recording] = []
    while run is not None:
        folder = run.untrained_folder(recording.folder.resolve().name, draw=len(found))
        if not is_captured(folder):
            break
        found.append(Recording(folder))
    return found
