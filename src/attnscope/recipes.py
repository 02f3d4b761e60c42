"""Training recipes as data: they say what the loop in `attnscope.train` does, and hold no code."""

from __future__ import annotations

from dataclasses import dataclass

from attnscope.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, each with its own draw."""

    crop_padding: int
    """Border within which the crop moves, for images of 32 pixels; scaled with the size."""
    flip: bool
    """Mirror half of the images; never done for digits."""
    cutout: int
    """Side of the erased square for images of 32 pixels; scaled with the size; 0 is none."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the training in which one set of things holds."""

    share: float
    """Share of the epochs."""
    scale: float
    """Side of the training images over that of the data's own; smaller images train faster."""


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum under a one-cycle learning rate."""

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    """The peak of the cycle."""
    momentum: tuple[float, float]
    """At the peak of the cycle, and at its ends: it falls while the learning rate rises."""
    weight_decay: float
    """Of convolutions and linear layers; norms and biases have none."""
    warmup_share: float
    """Share of the steps in which the learning rate rises."""
    label_smoothing: float
    augmentation: Augmentation
    phases: tuple[Phase, ...]
    """Shares of one, in order."""


RECIPES = {
    "fast": Recipe(
        name="fast",
        epochs=10,
        batch_size=128,
        learning_rate=0.1,
        momentum=(0.85, 0.95),
        weight_decay=5e-4,
        warmup_share=0.25,
        label_smoothing=0.1,
        augmentation=Augmentation(crop_padding=4, flip=True, cutout=0),
        phases=(Phase(share=0.6, scale=0.75), Phase(share=0.4, scale=1.0)),
    ),
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"recipe '{name}' is not known; take one of {', '.join(RECIPES)}")
    return RECIPES[name]
