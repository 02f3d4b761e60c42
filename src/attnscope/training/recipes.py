"""Training recipes as data: they say what the training loop does, and hold no code."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnscope.data.augmentation import Augmentation
from attnscope.errors import InputError


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent; under a one-cycle schedule the momentum is the cycle's."""

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decays_all: bool = True
    """Whether norms and biases are decayed too."""


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015, with torch's defaults."""


@dataclass(frozen=True)
class OneCycle:
    """Cosines up to the learning rate and down to nothing, step by step; Smith and Topin 2018."""

    momentum: tuple[float, float] = (0.85, 0.95)
    """At the peak of the cycle, and at its ends: it falls while the learning rate rises."""
    rise: float = 0.25
    """Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class Milestones:
    """The learning rate is multiplied by ``factor`` at each of these shares of the training."""

    at: tuple[float, ...]
    factor: float = 0.1


@dataclass(frozen=True)
class Plateau:
    """Multiplied by ``factor`` when the validation loss has not fallen for ``patience`` epochs."""

    patience: int = 3
    factor: float = 0.5


@dataclass(frozen=True)
class Phase:
    """A stretch of the training in which one set of things holds."""

    share: float = 1.0
    """Share of the epochs."""
    scale: float = 1.0
    """Side of the training images over that of the data's own; smaller images train faster."""
    trains: tuple[str, ...] = ("all",)
    """``all``, or some of ``classifier``, ``attention`` and the names of modules; what is not
    trained keeps its BatchNorm statistics too."""
    learning_rate: float | None = None
    """Of a new optimizer that begins with the phase; None goes on with the one before."""


@dataclass(frozen=True)
class Network:
    """What a recipe is made for; each can be chosen otherwise. None leaves it to the network."""

    model: str = "resnet18"
    attention: str = "cbam"
    placement: str | None = None
    stem: str | None = None
    weights: str | None = None
    """``imagenet``, or None: from a random start."""
    image_size: int | None = None
    """Pixels of the images that the network gets."""
    resize: int | None = None
    """Pixels to which images are resized before; test images are then cropped in the centre."""


@dataclass(frozen=True)
class Recipe:
    """All that a training does."""

    name: str
    about: str
    """One line, for the help."""
    epochs: int
    batch_size: int
    """Images a forward, on each device."""
    learning_rate: float
    """At its highest."""
    optimizer: SGD | Adam
    augmentation: Augmentation
    schedule: OneCycle | Milestones | Plateau | None = None
    """None: the learning rate stays."""
    accumulate: int = 1
    """Forwards and backwards a step of the optimizer; their gradients are averaged."""
    label_smoothing: float = 0.0
    phases: tuple[Phase, ...] = (Phase(),)
    """Shares of one, in order."""
    network: Network = field(default_factory=Network)
    keeps: str = "last"
    """Which weights the run is about: those of the ``last`` step, or the ``best`` on validation."""
    log_steps: int = 20
    """Steps between two values of loss, accuracy and learning rate."""
    histogram_steps: int | None = None
    """Steps between two histograms of weights and gradients in TensorBoard; None is none."""


_JITTER = Augmentation(
    crop_padding=4, flip=True, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1
)
_TURNED = Augmentation(
    crop_padding=4, flip=True, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, rotation=15
)
_PHOTOS = Network(attention="none", stem="imagenet", weights="imagenet", image_size=224, resize=256)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="fast",
            about="SGD with Nesterov momentum, one cycle, smaller images first (the default)",
            epochs=10,
            batch_size=128,
            learning_rate=0.1,
            optimizer=SGD(nesterov=True, weight_decay=5e-4, decays_all=False),
            schedule=OneCycle(),
            label_smoothing=0.1,
            augmentation=Augmentation(crop_padding=4, flip=True),
            phases=(Phase(share=0.6, scale=0.75), Phase(share=0.4)),
        ),
        Recipe(
            name="staged",
            about="ImageNet weights; attention first, then the deep layers, then all; Adam",
            epochs=50,
            batch_size=64,
            learning_rate=1e-3,
            optimizer=Adam(),
            augmentation=_TURNED,
            phases=(
                Phase(share=0.1, trains=("classifier", "attention"), learning_rate=1e-3),
                Phase(
                    share=0.3,
                    trains=("classifier", "attention", "layer3", "layer4"),
                    learning_rate=1e-4,
                ),
                Phase(share=0.6, learning_rate=1e-5),
            ),
            network=Network(placement="stage", stem="cifar", weights="imagenet"),
        ),
        Recipe(
            name="cnn",
            about="the small CBAM CNN; Adam, halved when the validation loss stops falling",
            epochs=50,
            batch_size=64,
            learning_rate=1e-3,
            optimizer=Adam(),
            schedule=Plateau(),
            augmentation=_TURNED,
            network=Network(model="cnn", image_size=32),
            log_steps=100,
            histogram_steps=500,
        ),
        Recipe(
            name="finetune",
            about="ImageNet weights on photographs of 224 pixels, all trained; Adam",
            epochs=10,
            batch_size=6,
            learning_rate=1e-4,
            optimizer=Adam(),
            augmentation=Augmentation(resized_crop=True, flip=True),
            network=_PHOTOS,
            keeps="best",
        ),
        Recipe(
            name="features",
            about="as finetune, with all frozen but a new classifier",
            epochs=10,
            batch_size=6,
            learning_rate=1e-4,
            optimizer=Adam(),
            augmentation=Augmentation(resized_crop=True, flip=True),
            phases=(Phase(trains=("classifier",)),),
            network=_PHOTOS,
            keeps="best",
        ),
        Recipe(
            name="se-sgd",
            about="SE-ResNet18; SGD, divided by 10 after each third, four batches a step",
            epochs=90,
            batch_size=32,
            accumulate=4,
            learning_rate=0.1,
            optimizer=SGD(weight_decay=1e-4),
            schedule=Milestones(at=(1 / 3, 2 / 3)),
            augmentation=_JITTER,
            network=Network(attention="se"),
        ),
    )
}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"recipe '{name}' is not known; take one of {', '.join(RECIPES)}")
    return RECIPES[name]
