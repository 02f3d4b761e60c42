"""Batches of training images: selected, augmented and resized."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.augment import augment
from attnscope.data.images import Rows
from attnscope.data.load import Data
from attnscope.data.streamed import StreamedImages
from attnscope.training.devices import place_images
from attnscope.training.randomness import derive_seed
from attnscope.training.recipe import Recipe

_SMALL = 32  # pixels; smaller images are never scaled down


class TrainingImages:
    """The training images of a data set, and the way they become batches."""

    def __init__(self, data: Data, recipe: Recipe, seed: int, device: torch.device) -> None:
        """Store the images on the device if it has enough memory, unless they are streamed.

        Args:
            data: its training split and normalization.
            recipe: its augmentation.
            seed: the seed of the run, from which that of the augmentation is derived.
            device: where the network is.
        """
        self.data, self.recipe, self.seed, self.device = data, recipe, seed, device
        self.images: Tensor | None = None
        if not isinstance(data.train, StreamedImages):
            self.images = place_images(data.train.images, device)
        self._coming: deque[Tensor] = deque()
        self._decoded: Iterator[Tensor] = iter(())
        self.labels = data.train.labels.to(device)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels of some images, int64 ``(n,)`` on the device."""
        return self.labels[rows.to(self.device)]

    def expect(self, batches: Iterable[Tensor]) -> None:
        """Announce the rows of the next batches, so that streamed images are decoded ahead.

        Args:
            batches: the rows of each call of `batch` that follows, in order, until the next call of
                this method.
        """
        if self.images is not None:
            return
        self._coming.clear()

        def noted() -> Iterator[Rows]:
            for rows in batches:
                self._coming.append(rows)
                yield rows.numpy()

        self._decoded = self.data.train.read(noted())

    def batch(
        self, rows: Tensor, epoch: int, step: int, total: int, position: slice, scale: float
    ) -> Tensor:
        """Return augmented and normalized images, float32 ``(n, 3, H, W)``, channels-last.

        Args:
            rows: the rows of the images in the training split, int64 ``(n,)``.
            epoch: the epoch, from 0.
            step: the step, from 0 over all epochs.
            total: number of images of the whole step.
            position: the positions of ``rows`` in the whole step. Augmentation is drawn for the
                whole step, so it does not depend on how the step is split.
            scale: scale of the side of the images, 0 to 1. Images smaller than 32 pixels are not
                scaled.
        """
        images = self._pixels(rows).to(self.device)
        generator = torch.Generator().manual_seed(derive_seed("augment", self.seed, epoch, step))
        x = augment(
            images,
            self.data.normalization,
            self.recipe.augmentation,
            generator,
            size=self.data.image_size,
            may_flip=self.data.may_flip,
            total=total,
            rows=position,
        )
        if scale != 1 and x.shape[-1] >= _SMALL:
            side = round(x.shape[-1] * scale / 8) * 8  # divisible by the strides of the network
            x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def _pixels(self, rows: Tensor) -> Tensor:
        """Return the images of some rows, uint8 ``(n, C, H, W)``, on any device."""
        if self.images is not None:
            return self.images[rows.to(self.images.device)]
        images = next(self._decoded)
        if not torch.equal(self._coming.popleft(), rows):
            raise RuntimeError("batches are not taken in the order in which they were announced")
        return images
