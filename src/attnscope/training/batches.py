"""Batches of training images: selected, augmented and resized.

On a GPU, images, labels, the order of an epoch and the random numbers of the augmentation are on
the device before they are needed, so that no step waits for a copy. The random numbers are drawn on
the CPU on every device, from seeds of the epoch and the step: a training has the same images
everywhere, and a resumed one needs no state of a generator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.augment import Numbers, augment_with, draw_numbers
from attnscope.data.images import Rows
from attnscope.data.load import Data
from attnscope.data.streamed import StreamedImages
from attnscope.training.devices import place_images, send
from attnscope.training.randomness import derive_seed, derived_generator
from attnscope.training.recipe import Recipe

_SMALL = 32  # pixels; smaller images are never scaled down
_DRAWN_IMAGES = 1 << 18
"""Random numbers for so many images are drawn and copied to a GPU at once."""


@dataclass(frozen=True)
class Step:
    """The images of one optimizer step."""

    number: int
    """The number of the step, from 0 over all epochs."""
    epoch: int
    """The epoch, from 0."""
    rows: Tensor
    """The rows of the images in the training split, int64 ``(n,)`` on the CPU."""
    start: int
    """The position of the first image in the order of the epoch."""

    def __len__(self) -> int:
        return len(self.rows)

    def positions(self, part: slice) -> slice:
        """Return the positions of some images of the step in the order of the epoch."""
        return slice(self.start + part.start, self.start + part.stop)


class TrainingImages:
    """The training images of a data set, and the way they become batches."""

    def __init__(self, data: Data, recipe: Recipe, seed: int, device: torch.device) -> None:
        """Store the images on the device if it has enough memory, unless they are streamed.

        Args:
            data: its training split and normalization.
            recipe: its augmentation.
            seed: the seed of the run, from which those of order and augmentation are derived.
            device: where the network is.
        """
        self.data, self.recipe, self.seed, self.device = data, recipe, seed, device
        self.images: Tensor | None = None
        if not isinstance(data.train, StreamedImages):
            self.images = place_images(data.train.images, device)
        self.normalizer = data.normalization.on(device, data.train.shape[1])
        self.labels = data.train.labels.to(device)
        self._coming: deque[Tensor] = deque()
        self._decoded: Iterator[Tensor] = iter(())
        self._steps: list[Step] = []
        self._drawn: Numbers = {}
        self._drawn_for = range(0)  # positions in the order of the epoch

    def start_epoch(self, epoch: int, sizes: Sequence[int], done: int) -> list[Step]:
        """Draw the order of an epoch, send it to the device, and return the steps that are left.

        Args:
            epoch: the epoch, from 0.
            sizes: the number of images of each step of an epoch.
            done: how many of these steps were made before.
        """
        generator = derived_generator("order", self.seed, epoch)
        order = torch.from_numpy(generator.permutation(len(self.data.train)))
        self._order = send(order, self.device)
        self._epoch_labels = self.labels[self._order]
        first, starts = epoch * len(sizes), accumulate(sizes, initial=0)
        parts = zip(torch.split(order, list(sizes)), starts, strict=False)
        steps = [Step(first + i, epoch, rows, start) for i, (rows, start) in enumerate(parts)]
        self._steps, self._drawn_for = steps[done:], range(0)
        return self._steps

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

    def labels_of(self, step: Step, part: slice) -> Tensor:
        """Return the labels of some images of a step, int64 ``(n,)`` on the device."""
        return self._epoch_labels[step.positions(part)]

    def batch(self, step: Step, part: slice, scale: float) -> Tensor:
        """Return augmented and normalized images, float32 ``(n, C, H, W)``, channels-last.

        Args:
            step: a step that `start_epoch` returned.
            part: which images of the step. Augmentation is drawn for the whole step, so it does not
                depend on how the step is split.
            scale: scale of the side of the images, 0 to 1. Images smaller than 32 pixels are not
                scaled.
        """
        x = augment_with(
            self._pixels(step, part),
            self.normalizer,
            self.recipe.augmentation,
            self._numbers(step, part),
            size=self.data.image_size,
        )
        side = self.side(scale)
        if side != x.shape[-1]:
            x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
        return x

    def side(self, scale: float) -> int:
        """Return the side of the images of a batch, in pixels. The arguments are as in `batch`."""
        size = self.data.image_size
        if scale == 1 or size < _SMALL:
            return size
        return round(size * scale / 8) * 8  # divisible by the strides of the network

    def _pixels(self, step: Step, part: slice) -> Tensor:
        """Return some images of a step, uint8 ``(n, C, H, W)``, on the device."""
        if self.images is None:
            images = next(self._decoded)
            if not torch.equal(self._coming.popleft(), step.rows[part]):
                raise RuntimeError(
                    "batches are not taken in the order in which they were announced"
                )
            return send(images, self.device)
        if self.images.device == self._order.device:
            return self.images[self._order[step.positions(part)]]
        # Too many for the memory of the GPU.
        return send(self.images[step.rows[part]], self.device)

    def _numbers(self, step: Step, part: slice) -> Numbers:
        """Return the random numbers of some images of a step, on the device."""
        if self.device.type == "cpu":
            return {name: values[part] for name, values in self._draw(step).items()}
        if step.start not in self._drawn_for:
            self._draw_ahead(step)
        first = step.start - self._drawn_for.start
        rows = slice(first + part.start, first + part.stop)
        return {name: values[rows] for name, values in self._drawn.items()}

    def _draw(self, step: Step) -> Numbers:
        generator = torch.Generator().manual_seed(
            derive_seed("augment", self.seed, step.epoch, step.number)
        )
        return draw_numbers(
            self.recipe.augmentation,
            generator,
            len(step),
            size=self.data.image_size,
            may_flip=self.data.may_flip,
        )

    def _draw_ahead(self, step: Step) -> None:
        """Draw the random numbers of a step and of the next ones, and send them in one copy."""
        number = step.number - self._steps[0].number
        drawn: list[Numbers] = []
        end = step.start
        for coming in self._steps[number:]:
            if drawn and end + len(coming) - step.start > _DRAWN_IMAGES:
                break
            drawn.append(self._draw(coming))
            end += len(coming)
        self._drawn, self._drawn_for = {}, range(step.start, end)
        if not drawn[0]:
            return
        # Integers are below 2²⁴, so that float32 holds them exactly.
        table = torch.cat([torch.cat([v.float() for v in each.values()], 1) for each in drawn])
        widths = [values.shape[1] for values in drawn[0].values()]
        parts = torch.split(send(table, self.device), widths, 1)
        self._drawn = {
            name: part.to(values.dtype)
            for (name, values), part in zip(drawn[0].items(), parts, strict=True)
        }
