"""Read the weights in a checkpoint of any origin, without unpickling.

Trainers save weights under different keys, beside optimizers and options, and under names with the
prefixes of wrappers. `read_state` finds the state dict in a file, and `fit_state` gives its tensors
the names of a network. What was chosen or left out is returned as sentences, which the caller says.
"""

from __future__ import annotations

import json
import pickletools
import re
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from attnscope.errors import InputError, first_line
from attnscope.integrity import is_array_file_whole

CONTAINERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights"),
    *("params", "state_dict_ema", "model_ema", "ema_state_dict", "params_ema", "ema"),
)
"""Keys under which trainers save a state dict. The first one that a file has is taken."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""Prefixes that wrappers write before the names of a network, such as DataParallel, torch.compile
and Lightning. They can be nested."""
PROFILER_KEYS = ("total_ops", "total_params")
"""Counters that the profiler thop leaves in every module."""
_COMPILED = "_orig_mod."
_COUNTER = "num_batches_tracked"
_SMALL = 64 * 2**20  # bytes that an archive may take unpacked, whatever its own size
_RATIO = 20  # of the sizes of an archive unpacked and packed; torch.save does not compress
_LARGEST_OUTLINE = 16 * 2**20  # bytes of a pickle that are looked at for a message


@dataclass(frozen=True)
class StateDict:
    """Weights, and what was chosen or left out to get them."""

    tensors: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    """Sentences for the user; empty if the file is a plain state dict."""


def read_state(file: Path) -> StateDict:
    """Read the state dict in a file of safetensors or of ``torch.save``.

    A state dict inside a dict is unpacked: under the first of `CONTAINERS`, or under another key if
    it is the only one.

    Returns:
        The tensors under the names in the file.

    Raises:
        InputError: The file does not exist, is damaged, or contains anything but a state dict.
    """
    if not file.is_file():
        raise InputError("AS342", f"there is no weights file {file}; check the path")
    _expect_whole(file)
    try:
        content: Any
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(
            "AS343",
            f"the safetensors file {file} is incomplete or damaged ({first_line(error)}); "
            "copy it again",
        ) from None
    except OSError as error:
        raise _unreadable(file, error) from None
    except Exception as error:  # torch.load raises exceptions of many types
        if type(error).__name__ == "UnpicklingError":  # torch's message advises to run the code
            raise _needs_unpickling(file, str(error)) from None
        raise InputError(
            "AS348",
            f"the weights file {file} is damaged or has an unknown format ({type(error).__name__}: "
            f"{first_line(error)}); save it again with torch.save(model.state_dict(), FILE) or as "
            "safetensors",
        ) from None
    return _unpack(content, file)


def _expect_whole(file: Path) -> None:
    """Refuse a file that has changed since attnscope wrote it, or is far larger than it looks."""
    try:
        is_whole = is_array_file_whole(file)
    except OSError as error:
        raise _unreadable(file, error) from None
    if is_whole is False:
        raise InputError(
            "AS343",
            f"the weights file {file} has changed since it was written (SHA-256); copy it again",
        )
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except OSError as error:
        raise _unreadable(file, error) from None
    except (ValueError, zipfile.BadZipFile):
        return  # torch says what is wrong with it
    packed = file.stat().st_size
    if unpacked > max(_SMALL, _RATIO * packed):
        raise InputError(
            "AS348",
            f"the weights file {file} is an archive of {packed / 1e6:.1f} MB that takes "
            f"{unpacked / 1e6:,.0f} MB unpacked; save the weights again with "
            "torch.save(model.state_dict(), FILE), which does not compress",
        )


def _unreadable(file: Path, error: OSError) -> InputError:
    return InputError(
        "AS344",
        f"the weights file {file} cannot be read ({error.strerror}); check its permissions",
    )


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        for name, tensor in value.items()
    )


def _unpack(content: Any, file: Path) -> StateDict:
    if _is_state(content):
        return StateDict(dict(content))
    found: dict[str, Mapping[str, Tensor]] = {}
    if isinstance(content, Mapping):
        for key, value in content.items():
            if _is_state(value) and value:
                found[str(key)] = value
            elif isinstance(value, Mapping):
                inner = value.get("state_dict")
                if isinstance(inner, Mapping) and _is_state(inner):
                    found[f"{key}.state_dict"] = inner
    known = [key for name in CONTAINERS for key in found if key in (name, f"{name}.state_dict")]
    if not known and len(found) != 1:
        several = f"several state dicts ({', '.join(map(repr, found))})" if found else ""
        raise InputError(
            "AS346",
            f"the weights file {file} contains {several or 'no state dict'}; save "
            f"{'one of them' if found else 'it'} again with torch.save(model.state_dict(), FILE)",
        )
    chosen = (known or list(found))[0]
    notes = []
    if others := [key for key in found if key != chosen]:
        notes.append(
            f"the weights under '{chosen}' of {file} are used, and not those under "
            f"{', '.join(map(repr, others))}"
        )
    elif not known or chosen != "state_dict":
        notes.append(f"the weights under '{chosen}' of {file} are used")
    return StateDict(dict(found[chosen]), notes)


def fit_state(found: StateDict, own: Mapping[str, Tensor], file: Path) -> StateDict:
    """Give the tensors of a checkpoint the names of a network.

    Prefixes of wrappers are cut where the names of the network do not begin with them, counters of
    a profiler are left out, and counts of batches that old versions of torch did not save are
    taken from the network.

    Args:
        found: The weights.
        own: State dict of the network.
        file: Where the weights are from, for messages.

    Returns:
        Tensors for exactly the names of the network.

    Raises:
        InputError: A tensor is missing, superfluous, or of another shape or type (AS347).
    """
    state, notes = dict(found.tensors), list(found.notes)
    counters = [n for n in state if n not in own and n.rpartition(".")[2] in PROFILER_KEYS]
    if counters:
        for name in counters:
            del state[name]
        kinds = " and ".join(dict.fromkeys(name.rpartition(".")[2] for name in counters))
        notes.append(f"{len(counters)} counters of a profiler ({kinds}) in {file} are left out")
    state = without_prefixes(state, own)
    uncounted = [n for n in own if n not in state and n.rpartition(".")[2] == _COUNTER]
    if uncounted and len(uncounted) < len(own):
        state |= {name: own[name] for name in uncounted}
        notes.append(
            f"{_COUNTER} of {len(uncounted)} layers is not in {file}; the network's own is kept "
            "(it has no effect in eval mode)"
        )
    check_fit(state, own, file)
    rounded = [n for n in own if state[n].is_floating_point() and _loses(state[n], own[n])]
    if rounded:
        types = [str(each[rounded[0]].dtype).removeprefix("torch.") for each in (state, own)]
        notes.append(f"{len(rounded)} tensors of {file} are rounded from {types[0]} to {types[1]}")
    return StateDict(state, notes)


def check_fit(state: Mapping[str, Tensor], own: Mapping[str, Tensor], file: Path) -> None:
    """Compare names, shapes and kinds of numbers of some weights with those of a network.

    Raises:
        InputError: A tensor is missing, superfluous, or of another shape or type (AS347).
    """
    problems = {
        "missing": [name for name in own if name not in state],
        "not in the network": [name for name in state if name not in own],
        "other shape": [
            f"{name} ({_shape(state[name])} in the file, {_shape(own[name])} in the network)"
            for name in own
            if name in state and own[name].shape != state[name].shape
        ],
    }
    described = [
        f"{problem}: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for problem, names in problems.items()
        if names
    ]
    if described:
        raise InputError(
            "AS347",
            f"the weights {file} do not fit the network ({'; '.join(described)}); "
            f"{_remedy(state, own)}",
        )
    other = [n for n in own if state[n].is_floating_point() != own[n].is_floating_point()]
    if other:
        types = [str(each[other[0]].dtype).removeprefix("torch.") for each in (state, own)]
        raise InputError(
            "AS347",
            f"the weights {file} do not fit the network ({other[0]} has the type {types[0]}, and "
            f"the network's has {types[1]}); quantized weights lack their scales: save the weights "
            "before they are quantized",
        )


def _remedy(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return what to do about weights of other names or shapes, as far as the shapes show it."""
    pairs = [
        (state[name].shape, own[name].shape)
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if state.keys() == own.keys() and pairs:
        first, second = pairs[0]
        if (
            len(pairs) == 1
            and len(first) >= 3
            and first[0] == second[0]
            and first[2:] == second[2:]
        ):
            return (
                f"the file is of a network for images with {_channels(first[1])}: with timm:NAME, "
                f"choose --channels {first[1]}; else build the network for them"
            )
        if len(pairs) <= 2 and all(a[1:] == b[1:] for a, b in pairs):
            return (
                f"the file is of a network with {first[0]} classes, and not {second[0]}: build the "
                "network for them; one of timm or torchvision has the classes of the images, or "
                "those that --classes FILE names"
            )
    return "use the network from which they were saved"


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def _shape(tensor: Tensor) -> str:
    """Return a shape in words: ``64×3×7×7``, or ``a single number``."""
    return "×".join(map(str, tensor.shape)) or "a single number"


def _loses(given: Tensor, own: Tensor) -> bool:
    """Whether some value of one floating point type cannot be held by the other."""
    return torch.promote_types(given.dtype, own.dtype) != own.dtype


def without_prefixes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut prefixes that all names have until the names are those of a network.

    A prefix with which names of the network begin is cut only if the names fit without it.

    Args:
        state: The weights.
        own: State dict of the network; if it is empty, all prefixes of `PREFIXES` are cut.
    """
    # Also inside of a name, as of a compiled submodule, unless the network itself is compiled.
    compiled = "" if any(_COMPILED in name for name in own) else _COMPILED
    state = {name.replace(compiled, ""): value for name, value in state.items()}
    wanted = {name for name in own if name.rpartition(".")[2] != _COUNTER}
    cut, shortened = state, state
    while not wanted or not wanted <= shortened.keys():
        prefix = next((p for p in PREFIXES if all(n.startswith(p) for n in shortened)), None)
        if prefix is None or not shortened:
            return cut
        shortened = {name.removeprefix(prefix): value for name, value in shortened.items()}
        if not any(name.startswith(prefix) for name in own):
            cut = shortened
    return shortened


def _needs_unpickling(file: Path, reason: str) -> InputError:
    """Return the refusal of a file whose reading could run code, with the line that converts it."""
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    what = f"{named[1]} besides tensors" if named else "more than tensors"
    target = file.with_name(f"{file.stem}-weights.pth")
    code = (
        f'import torch; c = torch.load({json.dumps(str(file))}, map_location="cpu", '
        f"weights_only=False); torch.save({_expression(file)}, {json.dumps(str(target))})"
    )
    return InputError(
        "AS345",
        f"the weights file {file} contains {what}, and reading that could run code; if you trust "
        f"the file, save its state dict alone with: python -c {shlex.quote(code)}",
    )


def _expression(file: Path) -> str:
    """Return Python code for the state dict in ``c``, the content of a file that is not unpickled.

    The opcodes of the pickle are read, and none is carried out.
    """
    unknown = 'c.get("state_dict", c)'
    try:
        with zipfile.ZipFile(file) as archive:
            (name,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
            if archive.getinfo(name).file_size > _LARGEST_OUTLINE:
                return unknown
            content = _outline(archive.read(name))
    except (OSError, ValueError, IndexError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        return unknown
    if content and _is_object(content[0]):
        return "c.state_dict()"
    for key in CONTAINERS:
        for known, value in pairwise(content):
            if known == ("BINUNICODE", key) and value[0] in ("GLOBAL", "EMPTY_DICT"):
                return f'c["{key}"]' + (".state_dict()" if _is_object(value) else "")
    return "{n: v for n, v in c.items() if torch.is_tensor(v)}"


def _outline(pickled: bytes) -> list[tuple[str, object]]:
    """Return the opcodes of a pickle with their arguments, without those that number its objects.

    A reference to a string by its number is replaced by the string.
    """
    found: list[tuple[str, object]] = []
    numbered: dict[object, tuple[str, object]] = {}
    for opcode, value, _ in pickletools.genops(pickled):
        if opcode.name in ("BINPUT", "LONG_BINPUT"):
            numbered[value] = found[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            found.append(numbered.get(value, ("", None)))
        elif opcode.name not in ("PROTO", "FRAME"):
            found.append((opcode.name, value))
    return found


def _is_object(opcode: tuple[str, object]) -> bool:
    """Whether an opcode begins an object of a class, and not a dict."""
    name, value = opcode
    return name == "GLOBAL" and value != "collections OrderedDict"
