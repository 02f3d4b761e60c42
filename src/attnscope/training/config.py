"""`TrainConfig`: the settings of a run, validated, with defaults from a recipe.

Does not import torch before a `TrainConfig` is made, so that ``attnscope train --help`` is fast.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from attnscope.settings import check_types, require
from attnscope.training.recipe import Recipe
from attnscope.training.recipe_file import find_recipe

DEFAULT_RECIPE = "fast"
MONITOR_EVERY = 100
"""Steps between two observations of the gates."""


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The settings of a network."""

    model: str | None = None
    """Network architecture: resnet18, resnet34, resnet50, resnet101, resnet152 or cnn. Default:
    resnet18, unless the recipe sets another."""
    attention: str | None = None
    """Attention module: none, se, eca or cbam. Default: cbam, unless the recipe sets another."""
    placement: Literal["block", "stage"] | None = None
    """Where to insert attention: block (in each residual branch) or stage (after each of layer1 to
    layer4). Default: block, unless the recipe sets another."""
    stem: Literal["cifar", "imagenet"] | None = None
    """First layer: cifar (3×3 convolution, for small images) or imagenet (7×7 convolution with
    stride 2). Default: cifar, unless the recipe sets another."""
    width: int | None = None
    """Number of channels of layer1. Default: 64."""
    reduction: int = 16
    """Reduction ratio of channel gates: channels divided by hidden channels."""
    kernel_size: int = 7
    """Kernel size of the convolution in spatial gates, in pixels."""
    gate_start: Literal["half", "identity"] | None = None
    """Initial value of the gates: half (near 0.5) or identity (1, so that inserting a gate does not
    change the output of the network). Default: identity if pretrained weights have no gates, else
    half."""


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainConfig(NetworkSettings):
    """The settings of a run, one field for each option of ``attnscope train``.

    A setting that is None takes the value of the recipe, or the default of the network or the data.
    Values are validated when the object is created. Names of recipes and data sources are looked up
    by `attnscope.train_run`, before it writes anything.

    >>> from attnscope import TrainConfig, train_run
    >>> run = train_run(TrainConfig(attention="se", epochs=2, learning_rate=0.05))

    Raises:
        InputError: AS101, a value has the wrong type; AS102, a value is not allowed; AS301, the
            network is unknown; AS302, the attention module is unknown.
    """

    data: str = "digits"
    """Data source: digits (included), cifar10, cifar100, or folder:PATH with train/CLASS/ and
    test/CLASS/."""
    data_root: Path = Path("data")
    """Folder for downloaded data sets (cifar10, cifar100)."""
    image_size: int | None = None
    """Image size in pixels, 8 to 1024. Default: set by the recipe, else 32. For folder:PATH, the
    default is the size of the images if all are square and have the same size of at most 96, else
    224."""
    validation_share: float = 0.1
    """Share of the training images that becomes the validation split, if the data source has no
    validation split."""
    channels: int | None = None
    """Channels of the images and of the network: 1 (gray), 3 (RGB) or 4 (RGBA files). Default:
    3."""
    class_order: Literal["text", "natural"] = "text"
    """Order of the class folders: 0, 1, 10, 2 (text) or 0, 1, 2, 10 (natural)."""
    classes: Path | tuple[str, ...] | None = None
    """Classes in the order of the network's outputs: a text file with one name per line, or in
    Python a list of names. It may name more classes than the images have."""
    skip_unreadable: bool = False
    """Skip images that cannot be read, and list them. Default: stop at such an image."""
    recipe: str | Path | Recipe | None = None
    """Training recipe: fast, fast-gpu, staged, cnn, finetune, features, se-sgd, or the path of a
    TOML file. See docs/reference/training.md. Default: fast, or fast-gpu on a GPU with many small
    images."""
    weights: str | Path | None = None
    """Initial weights: none (random), imagenet (downloaded by torchvision), or the path of a file.
    Default: set by the recipe."""
    epochs: int | None = None
    """Number of epochs. The recipe's phases and milestones scale with it. Default: set by the
    recipe."""
    batch_size: int | None = None
    """Batch size on each device. Default: set by the recipe."""
    accumulate: int | None = None
    """Number of batches whose gradients are averaged for one optimizer step. Default: set by the
    recipe."""
    learning_rate: float | None = None
    """Maximum learning rate. The learning rates of the recipe's phases scale with it. Default: set
    by the recipe."""
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"
    """Class weights of the training loss: none, balanced (inversely proportional to the number of
    images of a class), or one number per class, in the order of the class names."""
    keep: Literal["last", "best"] | None = None
    """Weights to keep and to test: last (after the last epoch) or best (highest validation
    accuracy). Default: set by the recipe."""
    monitor: bool = False
    """Observe the gates during training, on up to 64 validation images. The training is the same,
    bit for bit."""
    monitor_every: int | None = None
    """Number of steps between two observations of the gates. Default: 100."""
    compile: bool | None = None
    """Compile the network with torch.compile, which requires a C++ compiler, or do not compile it.
    Default: compile on a GPU, if the training takes longer than compiling."""
    deterministic: bool = False
    """Use deterministic kernels only, so that equal runs on a GPU are equal bit for bit. This may
    be slower."""
    seed: int = 0
    """Random seed for the validation split, initial weights, order of the images, augmentation and
    dropout."""
    device: str = "auto"
    """Device: auto (a GPU if there is one), cpu, cuda or cuda:N."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Floating-point precision: auto (bf16 if the hardware supports it), fp32 or bf16."""
    out: Path | None = None
    """Run folder to create. It must not exist. Default: runs/DATA-MODEL-ATTENTION."""
    resume: bool = False
    """Resume the interrupted run in the run folder, or start a run if the folder does not exist.
    All other settings must be the same as at the start of the run."""

    def __post_init__(self) -> None:
        # In Python, paths may be strings, and class weights and classes lists.
        for name, given, wanted in (
            ("data_root", str, Path),
            ("out", str, Path),
            ("class_weights", list, tuple),
            ("classes", str, Path),
            ("classes", list, tuple),
        ):
            if isinstance(getattr(self, name), given):
                object.__setattr__(self, name, wanted(getattr(self, name)))
        check_types(self)
        for name in ("epochs", "batch_size", "accumulate", "monitor_every", "channels"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "at least 1")
        require(
            self.learning_rate is None or self.learning_rate > 0,
            "learning_rate",
            self.learning_rate,
            "greater than 0",
        )
        every = self.monitor_every
        require(self.monitor or every is None, "monitor_every", every, "given with monitor only")
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        both = self.deterministic and bool(self.compile)
        require(not both, "deterministic", self.deterministic, "given without compile")
        size = self.image_size
        require(size is None or 8 <= size <= 1024, "image_size", size, "8 to 1024 pixels")
        share = self.validation_share
        require(0 < share < 1, "validation_share", share, "between 0 and 1")
        weights = self.class_weights
        if not isinstance(weights, str):
            holds = len(weights) > 0 and min(weights) > 0
            require(holds, "class_weights", weights, "none, balanced or numbers greater than 0")
        if self.model is not None or self.attention is not None:
            from attnscope.networks.build import expect_names  # needs torch

            expect_names(self.model, self.attention)

    def __repr__(self) -> str:
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.default is MISSING or getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def command(self) -> list[str] | None:
        """Return the options of ``attnscope train`` for these settings, without --out and --resume.

        It is None if a setting cannot be written as an option: a recipe or classes from Python.
        """
        words: list[str] = []
        for field in fields(TrainConfig):
            value = getattr(self, field.name)
            if value == field.default or field.name in ("out", "resume"):
                continue
            if isinstance(value, Recipe) or (field.name == "classes" and isinstance(value, tuple)):
                return None
            option = field.name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{option}", *map(str, values)]
        return words

    def resolve(self, default_recipe: str = DEFAULT_RECIPE) -> ResolvedConfig:
        """Look up the recipe and fill in the settings that are None.

        A given setting takes precedence over the recipe, and the recipe over the defaults of the
        network.

        Args:
            default_recipe: the recipe that is used if none is given.

        Raises:
            InputError: AS120, the recipe is unknown; or its file cannot be used.
        """
        recipe = find_recipe(default_recipe if self.recipe is None else self.recipe)
        # The epochs are not replaced: config.json stores those of the run beside the recipe's.
        if self.batch_size is not None:
            recipe = replace(recipe, batch_size=self.batch_size)
        if self.accumulate is not None:
            recipe = replace(recipe, accumulate=self.accumulate)
        if self.keep is not None:
            recipe = replace(recipe, keeps=self.keep)
        if self.learning_rate is not None:
            recipe = recipe.with_learning_rate(self.learning_rate)
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
    """A `TrainConfig` combined with its recipe."""

    recipe: Recipe
    """The recipe, with the settings that replace its own."""
    model: str
    network: dict[str, Any]
    """The other arguments of `attnscope.build_model`, except the number of classes (which depends
    on the data) and the initial value of the gates (which depends on the weights)."""
    image_size: int | None
    """None: the size of the data source."""
    resize: int | None
    weights: str
    """``none``, ``imagenet`` or the path of a file."""
    out: Path
