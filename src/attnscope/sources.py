"""What a recording is made of: a network, and a split of a data source; opened, and opened again.

A `Source` is described by settings alone, so that a recording can store it. Runs, commands and
recordings open networks and images here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch.nn import Module as Module

from attnscope import layout
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.load import Data, DataSettings
from attnscope.data.sources import find_source
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.networks.source import NetworkSource
from attnscope.networks.targets import scheme_of

_SETTINGS = (
    *("data", "image_size", "resize", "validation_share", "skip_unreadable"),
    *("weights", "recipe", "epochs", "precision"),
)
"""Keys of a run's settings; trainings that have them in common differ in the seed alone."""


@dataclass(frozen=True)
class Subject:
    """A network, and the images on which it is captured."""

    model: Module
    """In eval mode, on the CPU."""
    images: LabeledImages
    normalization: Normalization
    about: dict[str, Any]
    """What a recording tells of itself."""
    source: Source
    """Where both come from, with hashes: what a recording stores."""


@dataclass(frozen=True)
class Source:
    """A network, and a split of a data source.

    Raises:
        InputError: the split is not known.
    """

    network: NetworkSource
    data: DataSettings
    split: str = "test"
    """``train`` (without augmentation), ``validation`` or ``test``."""

    def __post_init__(self) -> None:
        if self.split not in layout.SPLITS:
            known = ", ".join(layout.SPLITS)
            raise InputError(f"split '{self.split}' is not known; take one of {known}")

    @classmethod
    def of_run(
        cls,
        run: Path,
        split: str = "test",
        *,
        data_root: Path | None = None,
        untrained: bool = False,
        skip_unreadable: bool = False,
    ) -> Source:
        """A run's network, and a split of the data that it was trained with.

        Args:
            run: a run folder.
            split: of `Source`.
            data_root: where torchvision's sets lie now; default where they lay at the training.
            untrained: the run's architecture with fresh random weights, neither trained nor
                pretrained. In eval mode its BatchNorm changes nothing, so that features grow with
                the depth.
            skip_unreadable: go on without files that cannot be read, also where the training did
                not.

        Raises:
            InputError: the split is not known, or the folder is no run.
        """
        if split not in layout.SPLITS:  # before anything is read
            raise InputError(
                f"split '{split}' is not known; take one of {', '.join(layout.SPLITS)}"
            )
        config = read_config(run)
        try:
            data = DataSettings(
                config["data"],
                data_root or Path(config["data_root"]),
                config["image_size"],
                config.get("resize"),
                config["validation_share"],
                config["seed"],
                skip_unreadable or config.get("skip_unreadable", False),
            )
            normalization = Normalization(**config["normalization"])
        except (KeyError, TypeError) as error:
            raise _no_run(run, error) from None
        network = NetworkSource(
            str(run),
            image_size=data.image_size,
            normalization=normalization,
            untrained=untrained,
        )
        return cls(network, data, split)

    def open(self) -> Subject:
        """The network and its images.

        Raises:
            InputError: one of them cannot be opened, the weights do not fit, or the data of a run
                has other classes; also, of its ``train`` and ``validation``, where they are no
                longer what the run was trained with.
        """
        network = self.network
        network.expect_weights()
        of_a_scheme = scheme_of(network.target) is not None
        # The network first: it is quick, and a wrong name shows at once. How many classes there
        # are, and so which weights fit, only the images tell.
        target = (replace(network, weights=None) if of_a_scheme else network).load()
        images, skipped, normalization = self._open_images(target.normalization)
        if of_a_scheme:
            network = replace(network, num_classes=len(images.classes))
            target = network.load()
        size = images.images.shape[-1]
        pinned = replace(network.pinned(), image_size=size, normalization=normalization)
        source = replace(self, network=pinned, data=_pinned(self.data))
        return Subject(target.model, images, normalization, source.describe(skipped), source)

    def open_network(self) -> Module:
        """The network alone, in eval mode on the CPU.

        Raises:
            InputError: as `open`.
        """
        self.network.expect_weights()
        return self.network.load().model

    def open_images(self) -> LabeledImages:
        """The images alone, of the size that the network gets.

        Raises:
            InputError: as `open`.
        """
        return self._open_images(self.network.normalization)[0]

    def open_data(self) -> Data:
        """All splits of the data, and the normalization that the network was trained with.

        Training images may be larger than the network gets them: crop their centers.

        Raises:
            InputError: as `open`.
        """
        data = self.data.load()
        if self.network.is_run:
            _expect_classes(Path(self.network.target), data.source, data.classes)
            _expect_splits(Path(self.network.target), data)
        return replace(data, normalization=self.network.normalization or data.normalization)

    def describe(self, skipped: list[str]) -> dict[str, Any]:
        """What a recording tells of itself.

        Args:
            skipped: files that could not be read, each with the reason.
        """
        network = self.network
        if not network.is_run:
            return {
                "name": network.target.rpartition(":")[2],
                "source": self.data.source,
                "split": self.split,
                "model": {"name": network.target},
                "weights_sha256": network.weights_sha256,
                "skipped": skipped,
            }
        run = Path(network.target)
        config = read_config(run)
        about: dict[str, Any] = {
            "name": run.resolve().name,
            "source": config["data"],
            "split": self.split,
            "seed": config["seed"],
            "model": read_json(run / layout.MODEL),
            "weights_sha256": network.weights_sha256,
            "training_sha256": _hash_training(config),
            "skipped": skipped,
        }
        if network.untrained:
            name = f"{about['name']} (untrained)"
            about |= {"name": name, "untrained": True, "training_sha256": None}
        return about

    def to_dict(self) -> dict[str, Any]:
        """The same of JSON values."""
        network, data = asdict(self.network), asdict(self.data)
        weights = self.network.weights
        network["weights"] = None if weights is None else str(weights)
        return {
            "network": network,
            "data": {**data, "data_root": str(self.data.data_root)},
            "split": self.split,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Source:
        """What `to_dict` made.

        Raises:
            TypeError, ValueError, KeyError: it is something else.
        """
        network, data = dict(value["network"]), dict(value["data"])
        if network["weights"] is not None:
            network["weights"] = Path(network["weights"])
        if network["normalization"] is not None:
            network["normalization"] = Normalization(**network["normalization"])
        data["data_root"] = Path(data["data_root"])
        return cls(NetworkSource(**network), DataSettings(**data), value["split"])

    def _open_images(
        self, normalization: Normalization | None
    ) -> tuple[LabeledImages, list[str], Normalization]:
        if self.split == "test" and normalization is not None:
            images, skipped = self.data.load_test()
            if self.network.is_run:
                _expect_classes(Path(self.network.target), self.data.source, images.classes)
            return images, skipped, normalization
        data = self.open_data()
        images = getattr(data, self.split).center_crop(data.image_size)
        return images, data.skipped, normalization or data.normalization


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run.

    Raises:
        InputError: there is no such folder, or it is no run.
    """
    if not run.is_dir():
        raise InputError(f"run {run} does not exist; make it with attnscope train")
    config = read_json(run / layout.CONFIG)
    if not isinstance(config, dict):
        raise _no_run(run, "no settings")
    return config


def _no_run(run: Path, problem: object) -> InputError:
    return InputError(f"{run / layout.CONFIG} is no run's ({problem}); train again")


def _pinned(data: DataSettings) -> DataSettings:
    """The same with absolute paths."""
    name, source, path = find_source(data.source)
    text = f"{name}:{Path(path).expanduser().resolve()}" if source.takes_path else name
    return replace(data, source=text, data_root=data.data_root.resolve())


def _hash_training(config: Mapping[str, Any]) -> str:
    """The same for trainings that differ in nothing but the seed and the machine."""
    settings = {key: config.get(key) for key in _SETTINGS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _expect_classes(run: Path, source: str, classes: list[str]) -> None:
    known = read_config(run).get("classes")
    if known is None:
        raise _no_run(run, "'classes'")
    if classes != known:
        raise InputError(f"{source} has other classes than the run {run} was trained with")


def _expect_splits(run: Path, data: Data) -> None:
    """Refuse data whose training or validation split is not that of the run's training any more.

    Then what was trained on may lie in the validation split, which chooses. Images of the test
    split may be others: nothing was chosen on them.

    Raises:
        InputError: paths or labels differ. (Runs of attnscope before it kept them are not refused.)
    """
    known = read_config(run).get("parts", {})
    fingerprints = data.fingerprints()
    for name, was in known.items():
        now = fingerprints[name]
        if name != "test" and now != was:
            raise InputError(
                f"the {name} part of {data.source} is not the one that {run} was trained with "
                f"({was['images']} images then, {now['images']} now, or others among them); "
                "restore the images, or train again"
            )
