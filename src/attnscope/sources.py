"""The source of a recording: a network and a split of a data source, which can be opened again.

A `Source` consists of settings only, so a recording can store it. Runs, commands and recordings
open networks and images through this module. It has more than 400 lines because a source, opening
it, and its form as JSON belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch.nn import Module as Module
from torch.utils.data import Dataset as Dataset

from attnscope import layout
from attnscope.data.classes import advise_order
from attnscope.data.datasets import names_data_set
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.items import class_names_of, parse_item
from attnscope.data.load import Data, DataSettings
from attnscope.data.places import (
    expect_place,
    find_data,
    find_data_root,
    pinned_source,
    places_of,
)
from attnscope.data.sources import LoadedSplits
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.networks.known import NetworkSource
from attnscope.networks.norms import estimate_norms_on
from attnscope.networks.targets import scheme_of, title_of
from attnscope.run_config import (
    bad_config,
    expect_classes,
    expect_unchanged,
    explain_key,
    hash_training,
    read_config,
)


@dataclass(frozen=True)
class Subject:
    """A network and the images on which its gates are captured."""

    model: Module
    """In eval mode, on the CPU."""
    images: LabeledImages | Dataset[Any]
    normalization: Normalization | None
    """The normalization of the network. For a data set of the user: the one that was applied; None
    if its values are in 0 to 1."""
    about: dict[str, Any]
    """The metadata that a recording stores: name, source, split, seed, hashes."""
    source: Source
    """Where both come from, with hashes. A recording stores it."""


@dataclass(frozen=True)
class Source:
    """A network and a split of a data source.

    Raises:
        InputError: AS536, the split is unknown.
    """

    network: NetworkSource
    data: DataSettings
    split: str = "test"
    """``train`` (without augmentation), ``validation`` or ``test``."""
    allow_changed_data: bool = False
    """Whether to go on with images that are not those that the run was trained with. It is not part
    of what a recording stores about its source."""
    white: int | None = None
    """The value of white in images with 16 bits per channel, once the images were opened: another
    image is scaled like them. None if it is not known, or no image has 16 bits."""

    def __post_init__(self) -> None:
        _check_split(self.split)

    @classmethod
    def of_run(
        cls,
        run: Path,
        split: str = "test",
        *,
        data: str | None = None,
        data_root: Path | None = None,
        untrained: bool = False,
        draw: int = 0,
        skip_unreadable: bool = False,
        allow_changed_data: bool = False,
    ) -> Source:
        """Return the source of a run: its network and a split of the data it was trained with.

        Args:
            run: a run folder.
            split: ``train`` (without augmentation), ``validation`` or ``test``.
            data: the data source with the place where the images are now, such as ``folder:PATH``.
                Default: where they were, or at the same place relative to the run.
            data_root: the folder that holds torchvision's data sets. Default: the folder that the
                run was trained with.
            untrained: use the architecture of the run with fresh random weights, neither trained
                nor pretrained. Their BatchNorm statistics are estimated on training images.
            draw: which random weights, 0 or more.
            skip_unreadable: skip files that cannot be read, even if training did not.
            allow_changed_data: go on with images that are not those of the training.

        Raises:
            InputError: AS530, the folder does not exist; AS531, it is not a run folder; AS536, the
                split is unknown.
        """
        _check_split(split)  # before anything is read
        config = read_config(run)
        if data is not None and names_data_set(data):
            raise InputError(
                "AS540",
                f"{data} is a data set of tensors, and run {run} was trained on images of files; "
                "name their place with --data folder:PATH",
            )
        try:
            places = config.get("places")
            settings = DataSettings(
                find_data(config["data"], places, run) if data is None else data,
                data_root or find_data_root(config["data_root"], places, run),
                config["image_size"],
                config.get("resize"),
                config["validation_share"],
                config["seed"],
                skip_unreadable or config.get("skip_unreadable", False),
                channels=config.get("channels"),
                class_order=config.get("class_order", "text"),
                classes=tuple(config["classes"]) if config.get("listed_classes") else None,
            )
            normalization = Normalization(**config["normalization"])
        except (KeyError, TypeError) as error:
            raise bad_config(run, explain_key(error)) from None
        network = NetworkSource(
            str(run),
            image_size=settings.image_size,
            normalization=normalization,
            untrained=untrained,
            draw=draw,
            estimated_norms=untrained,
        )
        return cls(network, settings, split, allow_changed_data)

    def open(self, again: bool = False) -> Subject:
        """Open the network and its images.

        Args:
            again: whether the network must have the same weights when it is opened again.

        Raises:
            InputError: one of them cannot be opened or the weights do not fit; AS329, they are
                other ones each time; AS537, the data has other classes than the run was trained
                with; AS538, its images have changed since the run was trained; AS244, they are
                gone; AS235, the normalization is not for pixel values from 0 to 1.
        """
        network = self.network
        network.expect_weights()
        if network.normalization is not None and not self.data.is_data_set:
            network.normalization.expect_unit_scale()
        has_scheme = scheme_of(network.target) is not None
        # The network comes first, because a wrong name then fails quickly. The number of classes,
        # and so which weights fit, is known only from the images.
        if has_scheme:
            network = replace(network, channels=self.data.channels)
        target = (replace(network, weights=None) if has_scheme else network).load()
        drawn = network.draws_weights(target.model)
        if drawn and again:
            raise network.random_weights()
        drawn_note = [_drawn_note(network.target)] if drawn else []
        if self.data.is_data_set:
            subject = self._open_with_data_set(target.model)
            subject.about["notes"] += drawn_note
            return subject
        images, loaded, normalization, changes = self._open_images(target.normalization)
        if has_scheme:
            network = replace(network, num_classes=len(images.classes))
            target = network.load()
        if network.estimated_norms:
            self._estimate_norms(target.model, normalization)
        size = images.shape[-1]
        pinned = replace(network.pinned(), image_size=size, normalization=normalization)
        source = replace(self, network=pinned, data=_pinned(self.data), white=loaded.white)
        about = source.describe(loaded.skipped)
        notes = list(loaded.notes)
        if isinstance(loaded, Data):
            notes = list(loaded.split_notes[self.split])
        if not network.is_run and self.data.classes is None and self.data.class_order == "text":
            notes += filter(None, [advise_order(images.classes)])
        if changes:
            about["changed_data"] = changes
            notes.append(
                f"the data has changed since the network was trained: {'; '.join(changes)}"
            )
        notes += drawn_note
        if notes:  # else the plan is equal to that of a version without notes
            about["notes"] = notes
        return Subject(target.model, images, normalization, about, source)

    def _open_with_data_set(self, model: Module) -> Subject:
        """Open the data set of a user; ``model`` may still have another number of classes."""
        network = self.network
        dataset = self.data.open_data_set(self.split)
        classes = class_names_of(dataset)
        scheme = scheme_of(network.target)
        if scheme is not None:
            network = replace(network, num_classes=len(classes) or None)
            if scheme.takes_channels and len(dataset):  # type: ignore[arg-type]
                channels = parse_item(dataset[0], 0).image.shape[0]
                network = replace(network, channels=None if channels == 3 else channels)
            model = network.load().model
        source = replace(self, network=network.pinned())
        about = source.describe([])
        about["notes"] = [
            f"the data set {self.data.source} gives images as the network gets them; attnscope "
            "does not normalize them"
        ]
        return Subject(model, dataset, network.normalization, about, source)

    def open_network(self) -> Module:
        """Open the network only, in eval mode on the CPU.

        Raises:
            InputError: see `open`.
        """
        self.network.expect_weights()
        target = self.network.load()
        if self.network.estimated_norms:
            self._estimate_norms(target.model, target.normalization)
        return target.model

    def _estimate_norms(self, model: Module, normalization: Normalization | None) -> None:
        """Estimate the BatchNorm statistics of random weights on training images.

        Without it, the BatchNorms of a new network are the identity in eval mode, so that features
        grow with depth.
        """
        data = self.open_data()
        images = data.train.center_crop(data.image_size)
        estimate_norms_on(model, images, normalization or data.normalization)

    def open_images(self) -> LabeledImages | Dataset[Any]:
        """Open the images only, in the size that the network receives.

        Raises:
            InputError: see `open`.
        """
        if self.data.is_data_set:
            return self.data.open_data_set(self.split)
        return self._open_images(self.network.normalization)[0]

    def open_data(self) -> Data:
        """Open all splits of the data, with the normalization that the network was trained with.

        Training images may be larger than the network's input; crop them at the center.

        Raises:
            InputError: see `open`.
        """
        run = Path(self.network.target)
        if self.network.is_run:
            expect_place(self.data.source, run)
        data = self.data.load()
        changed: list[str] = []
        if self.network.is_run:
            expect_classes(run, data.source, data.classes)
            changed = expect_unchanged(
                run, data.source, data.splits(), allowed=self.allow_changed_data
            )
        normalization = self.network.normalization or data.normalization
        return replace(data, normalization=normalization, changed=changed)

    def difference(self, recorded: Source) -> str | None:
        """Return in which setting a recording was made otherwise, or None if in none.

        Settings that are not given here agree with every value.

        Args:
            recorded: the source that the recording stores.

        Returns:
            The setting with both values, such as ``image size 32, not 64``.

        Raises:
            InputError: AS330, the weights file does not exist; AS331, it has changed since.
        """
        mine, theirs = self.network.pinned_paths(), recorded.network
        if mine.is_run:
            replace(mine, weights_sha256=theirs.weights_sha256).check_weights()
        elif mine.target != theirs.target:
            return f"network {theirs.target}, not {mine.target}"
        elif mine.weights != theirs.weights:
            old, new = (v or "of its own" for v in (theirs.weights, mine.weights))
            return f"weights {old}, not {new}"
        else:
            replace(mine, weights_sha256=theirs.weights_sha256).check_weights()
        if self.split != recorded.split:
            return f"split {recorded.split}, not {self.split}"
        if mine.normalization not in (None, theirs.normalization):
            return f"normalization {theirs.normalization}, not {mine.normalization}"
        here, there = asdict(_pinned(self.data)), asdict(_pinned(recorded.data))
        # Data sets may have moved, and images of a run are skipped as its training did. Those of a
        # run may have moved, too, because they are compared with its fingerprints.
        free = {"data_root", "skip_unreadable", *(["source"] if mine.is_run else [])}
        for name in here:
            if name not in free and here[name] != there[name]:
                old, new = ("the default" if v is None else v for v in (there[name], here[name]))
                return f"{name.replace('_', ' ')} {old}, not {new}"
        return None

    def describe(self, skipped: list[str]) -> dict[str, Any]:
        """Return the metadata that a recording stores.

        Args:
            skipped: the files that could not be read, each with the reason.
        """
        network = self.network
        if not network.is_run:
            return {
                "name": title_of(network.target),
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
            "training_sha256": hash_training(config),
            "skipped": skipped,
        }
        if network.untrained:
            name = f"{about['name']} (untrained)"
            about |= {"name": name, "untrained": True, "training_sha256": None}
            if network.estimated_norms:
                about["estimated_norms"] = True
            if network.draw:
                about |= {
                    "draw": network.draw,
                    "name": f"{run.resolve().name} (untrained, draw {network.draw})",
                }
        return about

    def to_dict(self, folder: Path | None = None) -> dict[str, Any]:
        """Return the settings as JSON values.

        Args:
            folder: the recording that stores them. With it, they say where the images are from
                there, too.
        """
        network, data = asdict(self.network), asdict(self.data)
        if self.network.channels is None:  # as versions without it wrote
            del network["channels"]
        if not self.network.untrained:
            del network["draw"], network["estimated_norms"]
        weights = self.network.weights
        network["weights"] = None if weights is None else str(weights)
        places = None
        if folder is not None and not self.data.is_data_set:
            places = places_of(self.data.source, self.data.data_root, folder)
        return {
            "network": network,
            "data": {**data, "data_root": str(self.data.data_root)},
            "split": self.split,
            **({} if places is None else {"places": places}),
            **({} if self.white is None else {"white": self.white}),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Source:
        """Build a source from the value of `to_dict`.

        Raises:
            TypeError, ValueError, KeyError: the value is not from `to_dict`.
        """
        network, data = dict(value["network"]), dict(value["data"])
        if network["weights"] is not None:
            network["weights"] = Path(network["weights"])
        if network["normalization"] is not None:
            network["normalization"] = Normalization(**network["normalization"])
        data["data_root"] = Path(data["data_root"])
        return cls(
            NetworkSource(**network), DataSettings(**data), value["split"], white=white_of(value)
        )

    def _open_images(
        self, normalization: Normalization | None
    ) -> tuple[LabeledImages, LoadedSplits | Data, Normalization, list[str]]:
        """Open the images of the split; also return what has changed, if that is allowed."""
        run = Path(self.network.target)
        if self.split == "test" and normalization is not None:
            if self.network.is_run:
                expect_place(self.data.source, run)
            found = self.data.load_test()
            images = found.splits[-1]
            changes: list[str] = []
            if self.network.is_run:
                expect_classes(run, self.data.source, images.classes)
                changes = expect_unchanged(
                    run, self.data.source, {"test": images}, allowed=self.allow_changed_data
                )
            return images, found, normalization, changes
        data = self.open_data()
        images = getattr(data, self.split).center_crop(data.image_size)
        return images, data, normalization or data.normalization, data.changed


def _check_split(split: str) -> None:
    if split not in layout.SPLITS:
        raise InputError(
            "AS536", f"split '{split}' is unknown; choose one of {', '.join(layout.SPLITS)}"
        )


def white_of(stored: object) -> int | None:
    """Return the white in what `Source.to_dict` returned; None in that of earlier versions."""
    white = stored.get("white") if isinstance(stored, Mapping) else None
    return white if isinstance(white, int) and white > 0 else None


def _drawn_note(target: str) -> str:
    return (
        f"the network {target} has other weights each time it is built, so that attnscope "
        "intervene, fold and analyze cannot open it again; to use them, capture again with "
        "--weights FILE"
    )


def _pinned(data: DataSettings) -> DataSettings:
    """The same settings with absolute paths."""
    if data.is_data_set:
        return data
    return replace(data, source=pinned_source(data.source), data_root=data.data_root.resolve())
