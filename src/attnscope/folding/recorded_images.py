"""The images of a recording, and those of other splits that a fold reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from attnscope.capturing.batching import batches
from attnscope.capturing.number_types import as_inputs
from attnscope.capturing.pictures import IN_UNIT_RANGE
from attnscope.data.images import LabeledImages
from attnscope.data.load import DataSettings
from attnscope.errors import InputError
from attnscope.folding.choosing import halves_of
from attnscope.recording.recording import Recording


class RecordedImages:
    """The images of a recording, and those of other splits that a fold reads.

    Attributes:
        source: The source of the recording.
        recorded: Its images.
        training: The images over which constants are means; ``constants`` names their split.
        choosing: The images on which gates are chosen; ``choosing_split`` names their split.
        other: Images that choose nothing, if there are any, else those that choose;
            ``other_split`` names their split.
    """

    def __init__(
        self,
        recording: Recording,
        data: str | None,
        data_root: Path | None,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.source = recording.source(data_root, data)
        self.recorded: Any = recording.images(data_root, data)
        self.training, self.constants = self._split_or_recorded("train")
        self.choosing, self.choosing_split = self._split_or_recorded("validation")
        self.other, self.other_split = self.recorded, self.source.split
        if self.choosing is self.recorded:
            self.other, self.other_split = self._split_or_recorded("test")
        self._label_kind = recording.label_kind
        self._normalization = self.source.network.normalization or IN_UNIT_RANGE
        self._batch_size = batch_size
        self._device = device

    def _split_or_recorded(self, split: str) -> tuple[Any, str]:
        """Return the images of a split, and its name.

        Data sets of a user may have no such split, or a single one that stands for every split.
        Then they are the recorded images.
        """
        data = self.source.data
        if split == self.source.split or (data.is_data_set and _has_one_split(data)):
            return self.recorded, self.source.split
        try:
            return replace(self.source, split=split).open_images(), split
        except InputError:
            if not data.is_data_set:
                raise
            return self.recorded, self.source.split

    def expect_choosing(self, folder: Path) -> None:
        """Refuse to choose on images with which the network was trained.

        Raises:
            InputError: AS865.
        """
        if self.choosing_split == "train":
            raise InputError(
                "AS865",
                f"{self.source.data.source} has no validation split, and {folder} is of training "
                "images, which a network knows; add a split 'validation' to the data set, or name "
                "gates with --gates",
            )

    def mean_rows(self, labels: NDArray[np.int64] | None) -> Sequence[int]:
        """Return the rows of the training images over which means are taken.

        Constants must not come from images that test them. If a choice has the same images only,
        they come from the half that orders the gates.

        Args:
            labels: the classes of the images of the choice; None without a choice.
        """
        if labels is None or self.training is not self.choosing:
            return range(len(self.training))
        return [int(row) for row in np.flatnonzero(halves_of(labels))]

    def batches(self, model: nn.Module, images: Any, rows: Sequence[int] | None = None) -> Any:
        """Yield some rows of images, or all of them, in batches as the network sees them."""
        rows = range(len(images)) if rows is None else rows
        found = batches(
            images, rows, self._batch_size, self._normalization, self._device, self._label_kind
        )
        return as_inputs(found, model)

    def labels(self, model: nn.Module, images: Any, name: str) -> NDArray[np.int64]:
        """Return the class of each image of the split of this name.

        Raises:
            InputError: AS862, an image has none.
        """
        if isinstance(images, LabeledImages):
            return images.labels.numpy()
        found = [batch.labels for batch in self.batches(model, images)]
        labels: NDArray[np.int64] = torch.cat(found).numpy()
        missing = int((labels < 0).sum())
        if missing:
            raise InputError(
                "AS862",
                f"{missing} of {len(labels)} images of the split {name} of "
                f"{self.source.data.source} have no class, by which gates could be chosen; name "
                "them with --gates, or fold all with --gates all",
            )
        return labels


def _has_one_split(data: DataSettings) -> bool:
    """Return whether a data set of a user is no mapping of splits."""
    try:
        data.open_data_set("")
    except InputError:
        return False
    return True
