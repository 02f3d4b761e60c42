"""Load the network that a target names: a run, ``timm:NAME``, or a callable of the user's own.

In ``SCHEME:NAME``, the scheme says where the network comes from. To add a scheme, register a
function that loads a network by name::

    register_target_scheme("hub", TargetScheme(load_from_hub, form="hub:NAME"))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models import get_model, list_models

from attnscope import layout
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.importing import call_imported, import_from_here
from attnscope.networks.weights import load_model
from attnscope.registry import Registry

_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Target:
    """A network and the images that it expects."""

    model: nn.Module
    """The network in eval mode on the CPU; networks of timm and torchvision have random weights."""
    image_size: int
    """Height and width of its images, in pixels."""
    normalization: Normalization | None
    """The normalization of its images; None means that of the data set."""


@dataclass(frozen=True)
class TargetScheme:
    """A scheme of targets that are written ``SCHEME:NAME``."""

    load: Callable[..., Target]
    """A function ``(name, num_classes) -> Target``; ``num_classes`` is None for the default.

    It raises an InputError if there is no network of this name."""
    form: str
    """How such a target is written, for messages: ``timm:NAME``."""
    has_weights: bool = False
    """Whether the networks have trained weights; otherwise a weights file is needed."""
    is_path: bool = False
    """Whether the name is a path."""
    takes_channels: bool = False
    """Whether ``load`` has a third parameter, the number of channels of the images."""
    title: Callable[[str], str] = str
    """A function that gives the name of a network in figures."""


def _check(scheme: TargetScheme) -> None:
    if not isinstance(scheme, TargetScheme):
        raise TypeError(f"it has the type {type(scheme).__name__}; expected a TargetScheme")
    if not callable(scheme.load):
        raise TypeError("its attribute 'load' is not callable")


TARGET_SCHEMES: Registry[TargetScheme] = Registry("target scheme", _check)


def register_target_scheme(name: str, scheme: TargetScheme) -> TargetScheme:
    """Register a scheme of targets, which ``--model`` and `load_target` then accept.

    Args:
        name: The text before the colon.
        scheme: The scheme.

    Returns:
        The scheme.

    Raises:
        InputError: The name is taken, or the scheme is incomplete.
    """
    return TARGET_SCHEMES.register(name, scheme)


def is_run(name: str) -> bool:
    """Return whether a target is a run folder."""
    return ":" not in name or Path(name).is_dir()


def scheme_of(name: str) -> TargetScheme | None:
    """Return the scheme of a target; None for a run folder and for a callable."""
    return None if is_run(name) else TARGET_SCHEMES.get(name.partition(":")[0])


def title_of(name: str) -> str:
    """Return the name of the network of a target in figures."""
    scheme = scheme_of(name)
    last = name.rpartition(":")[2]
    return (
        last if scheme is None else scheme.title(name.partition(":")[2] if scheme.is_path else last)
    )


def load_target(name: str, num_classes: int | None = None, channels: int | None = None) -> Target:
    """Load a network. Nothing is downloaded.

    Args:
        name: A run folder; ``timm:NAME``, ``torchvision:NAME`` or another scheme in
            `TARGET_SCHEMES`; or ``package.module:callable``, which is imported from the Python path
            or the current folder and called without arguments.
        num_classes: Number of classes of a network of a scheme. Default: the network's own.
        channels: Number of channels of the images, for a scheme whose networks can have any, such
            as timm. Default: the network's own; others ignore it.

    Returns:
        The network in eval mode on the CPU, its image size and its normalization.

    Raises:
        InputError: The network does not exist or cannot be built, or the number of classes is less
            than 1 or cannot be set.
    """
    if is_run(name):
        return _load_run(Path(name))
    if num_classes is not None and num_classes < 1:
        raise InputError("AS306", f"the number of classes is {num_classes}; it must be at least 1")
    prefix, _, rest = name.partition(":")
    scheme = scheme_of(name)
    if scheme is not None and scheme.takes_channels:
        return scheme.load(rest, num_classes, channels)
    if scheme is not None:
        return scheme.load(rest, num_classes)
    if num_classes is not None:
        raise InputError(
            "AS328",
            f"the number of classes of {name} cannot be set, because it is called without "
            "arguments; leave the number of classes out",
        )
    return Target(_load_callable(prefix, rest), 224, None)


def no_target(file: Path) -> str:
    """Return in words what a file is that was given as a network, and what to write instead."""
    if file.suffix == ".py":
        return (
            "is a Python file; write its module and the function that returns the network: "
            f"{file.stem}:FUNCTION"
        )
    return (
        "is a file and no network; name the function that returns the network, as "
        "package.module:callable, and give its weights with --weights to capture or analyze"
    )


def _forms() -> str:
    known = ", ".join(scheme.form for scheme in TARGET_SCHEMES.values())
    return f"a run folder, {known} or package.module:callable"


def _load_run(folder: Path) -> Target:
    if folder.is_file():
        raise InputError("AS320", f"the target '{folder}' {no_target(folder)}")
    if not folder.is_dir():
        raise InputError("AS320", f"the target '{folder}' does not exist; choose {_forms()}")
    model, config = load_model(folder), read_json(folder / layout.CONFIG)
    try:
        return Target(model, config["image_size"], Normalization(**config["normalization"]))
    except (KeyError, TypeError) as error:
        raise InputError(
            "AS321",
            f"{folder / layout.CONFIG} has no valid image size and normalization "
            f"({first_line(error)}); restore the file, or train the run again",
        ) from None


def _load_timm(name: str, num_classes: int | None, channels: int | None = None) -> Target:
    try:
        import timm
    except ImportError:
        raise InputError(
            "AS322", "timm is not installed; install it with: pip install 'attnscope[timm]'"
        ) from None
    if not timm.is_model(name):
        raise InputError("AS323", f"timm has no network '{name}'; choose one of timm.list_models()")
    given = {"num_classes": num_classes, "in_chans": channels}
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    model = _build(f"timm:{name}", lambda: timm.create_model(name, pretrained=False, **options))
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    normalization = None
    if channels in (None, len(config["mean"])):
        normalization = Normalization(tuple(config["mean"]), tuple(config["std"]))
    return Target(model, config["input_size"][-1], normalization)


def _load_torchvision(name: str, num_classes: int | None) -> Target:
    if name not in list_models():
        raise InputError(
            "AS323",
            f"torchvision has no network '{name}'; choose one of torchvision.models.list_models()",
        )
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    model = _build(f"torchvision:{name}", lambda: get_model(name, weights=None, **options))
    return Target(model, 224, _IMAGENET)


register_target_scheme("timm", TargetScheme(_load_timm, form="timm:NAME", takes_channels=True))
register_target_scheme("torchvision", TargetScheme(_load_torchvision, form="torchvision:NAME"))


def _load_callable(module: str, attribute: str) -> nn.Module:
    """Import a module of the user's own, which runs its code, and build the network."""
    try:
        imported = import_from_here(module)
    except Exception as error:  # user code raises exceptions of any type
        raise InputError(
            "AS324",
            f"the Python module '{module}' cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); a target is {_forms()}, and a package or module of your own "
            "must be in the current folder or on the Python path",
        ) from None
    build = getattr(imported, attribute, None)
    if isinstance(build, nn.Module):
        return build.eval()
    if not callable(build):
        raise InputError(
            "AS325",
            f"the Python module '{module}' has no function or network '{attribute}'; "
            "check the name after the colon",
        )
    return _build(f"{module}:{attribute}", build)


def _build(name: str, build: Callable[[], Any]) -> nn.Module:
    try:
        model = call_imported(build)
    except Exception as error:  # user code raises exceptions of any type
        raise InputError(
            "AS326",
            f"building the network {name} failed ({type(error).__name__}: {first_line(error)}); "
            "it must be callable without arguments",
        ) from None
    if not isinstance(model, nn.Module):
        raise InputError(
            "AS327",
            f"{name} returned an object of type {type(model).__name__}; "
            "it must return a torch.nn.Module",
        )
    return model.eval()
