"""Networks by name: a run, timm's, torchvision's, one of the user's own, or a registered scheme's.

A scheme is what stands before the colon of ``SCHEME:NAME``. Another one is a function and a call::

    register_target_scheme("hub", TargetScheme(load_from_hub, form="hub:NAME"))
"""

from __future__ import annotations

import importlib
import sys
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
from attnscope.networks.weights import load_model
from attnscope.registry import Registry

_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Target:
    """A network, and how it wants its images."""

    model: nn.Module
    """In eval mode, on the CPU; of timm and torchvision with random weights."""
    image_size: int
    """Pixels."""
    normalization: Normalization | None
    """None where nobody says: then that of the images."""


@dataclass(frozen=True)
class TargetScheme:
    """One way in which a network is named, ``SCHEME:NAME``."""

    load: Callable[[str, int | None], Target]
    """NAME, and the number of classes or None for its own -> a network.

    Raises an InputError where there is no such network."""
    form: str
    """As it is shown in messages: ``timm:NAME``."""
    has_weights: bool = False
    """Whether the network comes with trained weights; otherwise they must be given."""


def _check(scheme: TargetScheme) -> None:
    if not isinstance(scheme, TargetScheme):
        raise TypeError(f"it is {type(scheme).__name__}, not a TargetScheme")
    if not callable(scheme.load):
        raise TypeError("its load is no function")


TARGET_SCHEMES: Registry[TargetScheme] = Registry("target scheme", _check)


def register_target_scheme(name: str, scheme: TargetScheme) -> TargetScheme:
    """Make a scheme known under what stands before its colon.

    Raises:
        InputError: the name is taken, or the scheme is not complete.
    """
    return TARGET_SCHEMES.register(name, scheme)


def is_run(name: str) -> bool:
    """Whether a target names a run folder."""
    return ":" not in name or Path(name).is_dir()


def scheme_of(name: str) -> TargetScheme | None:
    """The registered scheme of a target; None for a run and for the user's own code."""
    return None if is_run(name) else TARGET_SCHEMES.get(name.partition(":")[0])


def load_target(name: str, num_classes: int | None = None) -> Target:
    """Builds the network that ``name`` names. Nothing is downloaded.

    Args:
        name: a run folder, ``timm:NAME``, ``torchvision:NAME`` or another of `TARGET_SCHEMES`, or
            ``package.module:callable``, which is imported from the Python path or the current
            folder and called without arguments.
        num_classes: of a network of a registered scheme; default its own.

    Raises:
        InputError: there is no such network, or it cannot be built.
    """
    if is_run(name):
        return _load_run(Path(name))
    if num_classes is not None and num_classes < 1:
        raise InputError(f"the number of classes is {num_classes}; it must be 1 or more")
    prefix, _, rest = name.partition(":")
    scheme = scheme_of(name)
    if scheme is not None:
        return scheme.load(rest, num_classes)
    if num_classes is not None:
        raise InputError(f"{name} is built by its own code; leave the number of classes out")
    return Target(_own(prefix, rest), 224, None)


def _forms() -> str:
    known = ", ".join(scheme.form for scheme in TARGET_SCHEMES.values())
    return f"a run folder, {known} or package.module:callable"


def _load_run(folder: Path) -> Target:
    if not folder.is_dir():
        raise InputError(f"there is no network '{folder}'; take {_forms()}")
    model, config = load_model(folder), read_json(folder / layout.CONFIG)
    try:
        return Target(model, config["image_size"], Normalization(**config["normalization"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / layout.CONFIG} is no run's ({error}); train again") from None


def _load_timm(name: str, num_classes: int | None) -> Target:
    try:
        import timm
    except ImportError:
        raise InputError("timm is not installed; pip install 'attnscope[timm]'") from None
    if not timm.is_model(name):
        raise InputError(f"timm has no network '{name}'; timm.list_models() names them")
    chosen: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    model = _built(f"timm:{name}", lambda: timm.create_model(name, pretrained=False, **chosen))
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    normalization = Normalization(tuple(config["mean"]), tuple(config["std"]))
    return Target(model, config["input_size"][-1], normalization)


def _load_torchvision(name: str, num_classes: int | None) -> Target:
    if name not in list_models():
        raise InputError(
            f"torchvision has no network '{name}'; torchvision.models.list_models() names them"
        )
    chosen: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    model = _built(f"torchvision:{name}", lambda: get_model(name, weights=None, **chosen))
    return Target(model, 224, _IMAGENET)


register_target_scheme("timm", TargetScheme(_load_timm, form="timm:NAME"))
register_target_scheme("torchvision", TargetScheme(_load_torchvision, form="torchvision:NAME"))


def _own(module: str, attribute: str) -> nn.Module:
    """The user's own: their code runs, as it does when they import it themselves."""
    where = str(Path.cwd())
    sys.path.insert(0, where)
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever their module raises
        raise InputError(
            f"the module '{module}' cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); take {_forms()}"
        ) from None
    finally:
        sys.path.remove(where)
    make = getattr(found, attribute, None)
    if isinstance(make, nn.Module):
        return make.eval()
    if not callable(make):
        raise InputError(f"the module '{module}' has no callable '{attribute}'; check its name")
    return _built(f"{module}:{attribute}", make)


def _built(name: str, make: Any) -> nn.Module:
    try:
        model = make()
    except Exception as error:  # whatever their code raises
        raise InputError(
            f"{name} cannot be built without arguments ({type(error).__name__}: "
            f"{first_line(error)}); name a function that needs none"
        ) from None
    if not isinstance(model, nn.Module):
        raise InputError(f"{name} returned {type(model).__name__}, not a torch.nn.Module")
    return model.eval()
