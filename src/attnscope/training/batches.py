"""Training images as the network gets them at a step: chosen, augmented, resized."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.augment import augment
from attnscope.data.load import Data
from attnscope.training.devices import place_images
from attnscope.training.randomness import derive_seed
from attnscope.training.recipe import Recipe

_SMALL = 32  # pixels below which images are never made smaller


class TrainingImages:
    """The training images of a data set, and how they become batches."""

    def __init__(self, data: Data, recipe: Recipe, seed: int, device: torch.device) -> None:
        """The images, on the device where it has room for them.

        Args:
            data: its training split, and how it is normalized.
            recipe: its augmentation.
            seed: of the augmentation.
            device: where batches go.
        """
        self.data, self.recipe, self.seed, self.device = data, recipe, seed, device
        self.images = place_images(data.train.images, device)
        self.labels = data.train.labels.to(device)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Labels ``(n,)`` on the device."""
        return self.labels[rows.to(self.device)]

    def batch(
        self, rows: Tensor, epoch: int, step: int, total: int, part: slice, scale: float
    ) -> Tensor:
        """Images as the network gets them, float32 ``(n, 3, H, W)``, channels-last.

        Args:
            rows: which images, int64 ``(n,)``.
            epoch: from 0.
            step: from 0, over all epochs.
            total: images of the whole step.
            part: which of them ``rows`` are.
            scale: side of the images over that of the data's own; images of fewer than 32 pixels
                stay as they are.
        """
        images = self.images[rows.to(self.images.device)].to(self.device)
        generator = torch.Generator().manual_seed(derive_seed("augment", self.seed, epoch, step))
        x = augment(
            images,
            self.data.normalization,
            self.recipe.augmentation,
            generator,
            size=self.data.image_size,
            may_flip=self.data.may_flip,
            total=total,
            rows=part,
        )
        if scale != 1 and x.shape[-1] >= _SMALL:
            side = round(x.shape[-1] * scale / 8) * 8  # as the network's strides want
            x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
        return x
