"""The settings of a training: what can be chosen, held to what is possible, filled by a recipe.

Needs no torch, so that a command line can list the settings quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from attnscope.settings import check_types, require
from attnscope.training.recipe import Recipe
from attnscope.training.recipe_file import find_recipe


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """Which network."""

    model: str | None = None
    """resnet18 (default), resnet34, resnet50, resnet101, resnet152 or cnn."""
    attention: str | None = None
    """none, se, eca or cbam. Default: cbam, or the recipe's."""
    placement: Literal["block", "stage"] | None = None
    """block (on each residual branch) or stage (after each of layer1 to layer4). Default: block,
    or the recipe's."""
    stem: Literal["cifar", "imagenet"] | None = None
    """cifar (3×3, for small images) or imagenet (7×7, stride 2). Default: cifar, or the
    recipe's."""
    width: int | None = None
    """Channels of layer1. Default: 64."""
    reduction: int = 16
    """Channels over hidden channels in a channel gate."""
    kernel_size: int = 7
    """Side of the kernel of a spatial gate's convolution, in pixels."""
    gate_start: Literal["half", "identity"] | None = None
    """half (gates begin near 0.5) or identity (at 1, so that they change nothing at first).
    Default: identity where gates are put into weights that have none, else half."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(NetworkSettings):
    """Every setting of a training.

    ``None`` leaves a setting to the recipe, and what the recipe leaves open to the network or the
    data. A value that no training could use is refused here, when the settings are made; names of
    recipes, networks and data sources are looked up by `train_run`, before it writes anything.

    >>> from attnscope import TrainConfig, train_run
    >>> run = train_run(TrainConfig(attention="se", epochs=2, learning_rate=0.05))

    Raises:
        InputError: a value cannot be used; the message names the setting and says what is expected.
    """

    data: str = "digits"
    """digits (included), cifar10, cifar100, or folder:PATH with train/CLASS/ and test/CLASS/."""
    data_root: Path = Path("data")
    """Where cifar10 and cifar100 lie, or are downloaded to."""
    image_size: int | None = None
    """Pixels. Default: the recipe's, or else 32; of a folder the images' own size where all are
    squares of one size up to 96, else 224."""
    validation_share: float = 0.1
    """Share of the training split that becomes validation, where the source has none."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read; they are named."""
    recipe: str | Path | Recipe = "fast"
    """fast, staged, cnn, finetune, features, se-sgd, or a TOML file of your own;
    docs/training.md says what each does and what a file can say."""
    weights: str | Path | None = None
    """What to start from: none, imagenet (torchvision downloads them), or a file of weights.
    Default: the recipe's."""
    epochs: int | None = None
    """Number of epochs, with which the recipe's phases and milestones scale. Default: the
    recipe's."""
    batch_size: int | None = None
    """Images in a batch, on each device. Default: the recipe's."""
    accumulate: int | None = None
    """Batches in a step of the optimizer, whose gradients are averaged. Default: the recipe's."""
    learning_rate: float | None = None
    """Highest learning rate. Those of the recipe's phases change in proportion. Default: the
    recipe's."""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """none, balanced (each class counts the same, however many images it has), or one weight for
    each class in the order of their names. For the training loss alone."""
    keep: Literal["last", "best"] | None = None
    """last or best: the weights that the run is about, and that are tested. Default: the
    recipe's."""
    compile: bool = False
    """Train with torch.compile, which needs a C++ compiler."""
    seed: int = 0
    """Random seed of the split, the initial weights, the order, the augmentation and the
    dropout."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto (bf16 where the hardware multiplies it), fp32 or bf16."""
    out: Path | None = None
    """The run folder, which must not exist. Default: runs/DATA-MODEL-ATTENTION."""
    resume: bool = False
    """Go on with the training in the run folder that was interrupted; from its start if there is
    none. The other settings must be those of its start."""

    def __post_init__(self) -> None:
        # From Python a path may be a text, and weights a list.
        kinds = {"data_root": (str, Path), "out": (str, Path), "class_weights": (list, tuple)}
        for name, (given, wanted) in kinds.items():
            if isinstance(getattr(self, name), given):
                object.__setattr__(self, name, wanted(getattr(self, name)))
        check_types(self)
        for name in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        require(
            self.learning_rate is None or self.learning_rate > 0,
            "learning_rate",
            self.learning_rate,
            "above 0",
        )
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        size = self.image_size
        require(size is None or 8 <= size <= 1024, "image_size", size, "8 to 1024 pixels")
        share = self.validation_share
        require(0 < share < 1, "validation_share", share, "between 0 and 1")
        weights = self.class_weights
        if not isinstance(weights, str):
            holds = len(weights) > 0 and min(weights) > 0
            require(holds, "class_weights", weights, "none, balanced or numbers above 0")

    def resolve(self) -> ResolvedConfig:
        """The settings with what was left open filled in, and their recipe looked up.

        A setting that is given goes before the recipe's, the recipe's before the network's own.

        Raises:
            InputError: there is no such recipe, or its file cannot be used.
        """
        recipe = find_recipe(self.recipe)
        # Not the epochs: config.json has those of the run beside those of the recipe.
        if self.batch_size is not None:
            recipe = replace(recipe, batch_size=self.batch_size)
        if self.accumulate is not None:
            recipe = replace(recipe, accumulate=self.accumulate)
        if self.keep is not None:
            recipe = replace(recipe, keeps=self.keep)
        if self.learning_rate is not None:
            recipe = recipe.at_rate(self.learning_rate)
        default = recipe.network
        model = self.model or default.model
        attention = self.attention or default.attention
        size = self.image_size or default.image_size
        resize = default.resize
        if resize is not None and default.image_size is not None and size is not None:
            resize = round(size * resize / default.image_size)
        source = self.data.removeprefix("folder:").rstrip("/").rpartition("/")[2]
        return ResolvedConfig(
            recipe=recipe,
            model=model,
            network={
                "attention": attention,
                "placement": self.placement or default.placement,
                "stem": self.stem or default.stem,
                "width": self.width,
                "reduction": self.reduction,
                "kernel_size": self.kernel_size,
            },
            image_size=size,
            resize=resize,
            weights=str(self.weights or default.weights or "none"),
            out=self.out or Path("runs") / f"{source}-{model}-{attention}",
        )


@dataclass(frozen=True)
class ResolvedConfig:
    """What a `TrainConfig` and its recipe come to together."""

    recipe: Recipe
    """With the settings that replace its own."""
    model: str
    network: dict[str, Any]
    """Other arguments of `attnscope.build_model`, but for the classes and the start of gates, which
    the data and the weights tell."""
    image_size: int | None
    """None: the data's own."""
    resize: int | None
    weights: str
    """``none``, ``imagenet`` or a file."""
    out: Path
