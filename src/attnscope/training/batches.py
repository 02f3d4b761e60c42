"""Batches of training images: selected, augmented and resized."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.data.augment import augment
from attnscope.data.load import Data
from attnscope.training.devices import place_images
from attnscope.training.randomness import derive_seed
from attnscope.training.recipe import Recipe

_SMALL = 32  # pixels; smaller images are never scaled down


class TrainingImages:
    """The training images of a data set, and the way they become batches."""

    def __init__(self, data: Data, recipe: Recipe, seed: int, device: torch.device) -> None:
        """Store the images on the device if it has enough memory.

        Args:
            data: its training split and normalization.
            recipe: its augmentation.
            seed: the seed of the run, from which that of the augmentation is derived.
            device: where the network is.
        """
        self.data, self.recipe, self.seed, self.device = data, recipe, seed, device
        self.images = place_images(data.train.images, device)
        self.labels = data.train.labels.to(device)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels of some images, int64 ``(n,)`` on the device."""
        return self.labels[rows.to(self.device)]

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
            rows=position,
        )
        if scale != 1 and x.shape[-1] >= _SMALL:
            side = round(x.shape[-1] * scale / 8) * 8  # divisible by the strides of the network
            x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
            x = x.contiguous(memory_format=torch.channels_last)
        return x
