"""Networks by name: a run, timm's, torchvision's, or one of the user's own."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.models import get_model, list_models

from attnscope.data.images import Normalization
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.networks.weights import load_model

_IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FORMS = "a run folder, timm:NAME, torchvision:NAME or package.module:callable"


@dataclass(frozen=True)
class Target:
    """A network, and how it wants its images."""

    model: nn.Module
    """In eval mode, on the CPU; of timm and torchvision with random weights."""
    image_size: int
    """Pixels."""
    normalization: Normalization | None
    """None where nobody says: then that of the images."""


def load_target(name: str, num_classes: int | None = None) -> Target:
    """Builds the network that ``name`` names. Nothing is downloaded.

    Args:
        name: a run folder, ``timm:NAME``, ``torchvision:NAME``, or ``package.module:callable``,
            which is imported from the Python path or the current folder and called without
            arguments.
        num_classes: of a network of timm or torchvision; default its own.

    Raises:
        InputError: there is no such network, or it cannot be built.
    """
    source, colon, rest = name.partition(":")
    if not colon or Path(name).is_dir():
        return _run(Path(name))
    if num_classes is not None and num_classes < 1:
        raise InputError(f"the number of classes is {num_classes}; it must be 1 or more")
    chosen: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if source == "timm":
        return _timm(rest, chosen)
    if source == "torchvision":
        if rest not in list_models():
            raise InputError(
                f"torchvision has no network '{rest}'; torchvision.models.list_models() names them"
            )
        return Target(_built(name, lambda: get_model(rest, weights=None, **chosen)), 224, _IMAGENET)
    if num_classes is not None:
        raise InputError(f"{name} is built by its own code; leave the number of classes out")
    return Target(_own(source, rest), 224, None)


def _run(folder: Path) -> Target:
    if not folder.is_dir():
        raise InputError(f"there is no network '{folder}'; take {_FORMS}")
    model, config = load_model(folder), read_json(folder / "config.json")
    try:
        return Target(model, config["image_size"], Normalization(**config["normalization"]))
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'} is no run's ({error}); train again") from None


def _timm(name: str, chosen: dict[str, Any]) -> Target:
    try:
        import timm
    except ImportError:
        raise InputError("timm is not installed; pip install 'attnscope[timm]'") from None
    if not timm.is_model(name):
        raise InputError(f"timm has no network '{name}'; timm.list_models() names them")
    model = _built(f"timm:{name}", lambda: timm.create_model(name, pretrained=False, **chosen))
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    normalization = Normalization(tuple(config["mean"]), tuple(config["std"]))
    return Target(model, config["input_size"][-1], normalization)


def _own(module: str, attribute: str) -> nn.Module:
    """The user's own: their code runs, as it does when they import it themselves."""
    where = str(Path.cwd())
    sys.path.insert(0, where)
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever their module raises
        raise InputError(
            f"the module '{module}' cannot be imported ({type(error).__name__}: "
            f"{first_line(error)}); take {_FORMS}"
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
