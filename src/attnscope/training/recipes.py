"""The built-in recipes. `register_recipe` adds another one."""

from __future__ import annotations

from attnscope.data.augmentation import Augmentation
from attnscope.registry import Registry
from attnscope.training.recipe import (
    SGD,
    Adam,
    Milestones,
    Network,
    OneCycle,
    Phase,
    Plateau,
    Recipe,
)

RECIPES: Registry[Recipe] = Registry("recipe")


def register_recipe(recipe: Recipe) -> Recipe:
    """Add a recipe under its name.

    Returns:
        The recipe.

    Raises:
        InputError: AS121, the name is taken; AS122, it contains other characters than letters,
            digits, underscores and hyphens.
    """
    return RECIPES.register(recipe.name, recipe)


_JITTER = Augmentation(
    crop_padding=4, flip=True, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1
)
_TURNED = Augmentation(
    crop_padding=4, flip=True, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, rotation=15
)
_PHOTOS = Network(attention="none", stem="imagenet", weights="imagenet", image_size=224, resize=256)

register_recipe(
    Recipe(
        name="fast",
        about="SGD with Nesterov momentum, one cycle, smaller images first (the default on a CPU)",
        epochs=10,
        batch_size=128,
        learning_rate=0.1,
        optimizer=SGD(nesterov=True, weight_decay=5e-4, decays_all=False),
        schedule=OneCycle(),
        label_smoothing=0.1,
        augmentation=Augmentation(crop_padding=4, flip=True),
        phases=(Phase(share=0.6, scale=0.75), Phase(share=0.4)),
    )
)
register_recipe(
    Recipe(
        name="fast-gpu",
        about="as fast, with larger batches of one image size and cutout, for a GPU",
        epochs=30,
        batch_size=512,
        learning_rate=0.4,
        optimizer=SGD(nesterov=True, weight_decay=5e-4, decays_all=False),
        schedule=OneCycle(),
        label_smoothing=0.1,
        augmentation=Augmentation(crop_padding=4, flip=True, cutout=8),
        # Reports and logs every 20 steps would be every few hundred milliseconds.
        log_steps=100,
    )
)
register_recipe(
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
    )
)
register_recipe(
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
    )
)
register_recipe(
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
    )
)
register_recipe(
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
    )
)
register_recipe(
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
    )
)
