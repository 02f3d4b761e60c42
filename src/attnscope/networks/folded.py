"""Networks of any origin with folded gates: written to a folder, and made again from it.

The folder holds which network was folded and with which options, its constants, and the weights
that took them. To load it, the network is loaded and exported again, and folded with the same
constants. Nothing is unpickled, so there is no file of torch.export to trust::

    fold.json             the network, the shapes of its inputs, the gates, and a report; "pruned":
                          the shapes of tensors from which channels were removed, if they were
    folded.safetensors    "constant/GATE": the values of a gate; "weight/NAME": a changed weight

The target ``folded:FOLDER`` names such a network.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from attnscope import layout
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError, first_line
from attnscope.files import read_json, sha256_of, write_bytes, write_sealed
from attnscope.gates.detect import find_gates
from attnscope.gates.graph import export_gates
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.graph_nodes import Shapes
from attnscope.networks.graph_fold import GraphFold, fold_graph
from attnscope.networks.source import NetworkSource
from attnscope.networks.targets import (
    Target,
    TargetScheme,
    register_target_scheme,
    title_of,
)
from attnscope.networks.weights import hash_weights

_SAMPLE = 4  # images on which gates are found
PrunedShapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of each tensor from which channels were removed."""
_TOLERANCE = 1e-4  # of the largest value of a weight, for another version of torch


@dataclass(frozen=True)
class FoldedSource:
    """How a folded network is made."""

    network: NetworkSource
    """The network that was folded, with the hash of its weights file."""
    weights: str
    """`hash_weights` of that network."""
    shapes: Shapes
    """The inputs."""
    kinds: tuple[str, ...]
    """The kinds of gates that it was searched for."""

    def export(self, model: nn.Module) -> GraphNetwork:
        """Export the network on noise, so that its gates have the same names in each call.

        Raises:
            InputError: AS416 or AS417, it has no graph.
        """
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
        sample = _noise(self.shapes, device)
        return export_gates(model, sample, find_gates(model, sample, list(self.kinds)))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        network = asdict(self.network)
        weights = self.network.weights
        network["weights"] = None if weights is None else str(weights)
        return {
            "network": network,
            "weights": self.weights,
            "inputs": [[list(shape), str(dtype)] for shape, dtype in self.shapes],
            "kinds": list(self.kinds),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FoldedSource:
        """Return the settings of `to_dict`.

        Raises:
            TypeError, ValueError, KeyError, AttributeError: They are not from `to_dict`.
        """
        network = dict(value["network"])
        if network["weights"] is not None:
            network["weights"] = Path(network["weights"])
        if network["normalization"] is not None:
            network["normalization"] = Normalization(**network["normalization"])
        shapes = tuple(
            (tuple(None if size is None else int(size) for size in shape), _dtype(dtype))
            for shape, dtype in value["inputs"]
        )
        kinds = tuple(str(kind) for kind in value["kinds"])
        return cls(NetworkSource(**network), str(value["weights"]), shapes, kinds)


def is_folded(folder: Path) -> bool:
    """Return whether a folder holds a folded network that `save_folded` wrote."""
    return (folder / layout.FOLDED).is_file()


def save_folded(
    folder: Path,
    source: FoldedSource,
    fold: GraphFold,
    constants: Mapping[str, Tensor],
    report: Mapping[str, Any],
    *,
    prune: bool = False,
) -> None:
    """Write a folded network.

    Args:
        folder: Where.
        source: How the network is made.
        fold: The folded network.
        constants: The values of its folded gates.
        report: What `fold.json` holds beside it.
        prune: Whether channels whose constants are 0 were to be removed.
    """
    tensors = {f"constant/{name}": value for name, value in constants.items()}
    tensors |= {f"weight/{name}": value for name, value in fold.written.items()}
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_bytes(folder / layout.FOLDED, save(plain))
    settings = {"source": source.to_dict(), "sha256": sha256_of(folder / layout.FOLDED)}
    if prune:
        settings["pruned"] = {name: list(shape) for name, shape in fold.narrowed.items()}
    write_sealed(folder / layout.FOLD, {**report, **settings})


def load_folded(folder: Path) -> Target:
    """Load a folded network.

    Returns:
        The network in eval mode on the CPU: a `GraphNetwork`.

    Raises:
        InputError: The folder holds no folded network (AS340), its files are damaged (AS341,
            AS343), or the network from which it was folded cannot be loaded, or has changed
            (AS373).
    """
    if not is_folded(folder):
        raise InputError(
            "AS340",
            f"{folder} has no {layout.FOLDED}; name a folder that attnscope fold has written",
        )
    settings = read_json(folder / layout.FOLD)
    try:
        source = FoldedSource.from_dict(settings["source"])
        sha256 = str(settings["sha256"])
        pruned = _read_shapes(settings.get("pruned"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "AS341",
            f"{folder / layout.FOLD} does not describe a folded network ({first_line(error)}); "
            "fold again",
        ) from None
    if sha256_of(folder / layout.FOLDED) != sha256:
        raise InputError(
            "AS343",
            f"{folder / layout.FOLDED} is damaged (its SHA-256 is not that in {layout.FOLD}); fold "
            "again",
        )
    model = copy.deepcopy(_made(folder.resolve(), sha256, source, pruned))
    size = source.shapes[0][0][-1]
    return Target(model, size or 224, source.network.normalization)


@lru_cache(maxsize=1)  # exporting takes longer than all the rest, and commands open a network twice
def _made(
    folder: Path, sha256: str, source: FoldedSource, pruned: PrunedShapes | None
) -> GraphNetwork:
    try:
        tensors = load((folder / layout.FOLDED).read_bytes())
    except SafetensorError as error:
        raise InputError(
            "AS343", f"{folder / layout.FOLDED} is damaged ({first_line(error)}); fold again"
        ) from None
    model = source.network.load().model
    if hash_weights(model) != source.weights:
        raise _changed(folder, source, "it has other weights")
    constants = _named(tensors, "constant/")
    exported = source.export(model)
    missing = [name for name in constants if name not in {gate.name for gate in exported.gates}]
    if missing:
        raise _changed(folder, source, f"it has no gate {missing[0]}")
    fold = fold_graph(exported, constants, prune=pruned is not None)
    weights = _named(tensors, "weight/")
    other_shapes = pruned is not None and dict(pruned) != fold.narrowed
    if set(weights) != set(fold.written) or other_shapes:
        raise _changed(folder, source, "torch exports it in another way now")
    for name, value in weights.items():
        found = fold.written[name].detach()
        scale = float(value.abs().max()) or 1.0
        if found.shape != value.shape or not torch.allclose(
            found, value, rtol=0, atol=_TOLERANCE * scale
        ):
            raise _changed(folder, source, "its graph is another one now")
        fold.network.set_tensor(name, nn.Parameter(value, requires_grad=False))
    return fold.network


def _read_shapes(value: Any) -> PrunedShapes | None:
    """Return the shapes of narrowed tensors; None if no channels were to be removed."""
    if value is None:
        return None
    return tuple((str(name), tuple(int(size) for size in shape)) for name, shape in value.items())


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def _changed(folder: Path, source: FoldedSource, how: str) -> InputError:
    return InputError(
        "AS373",
        f"the network {source.network.target}, from which {folder} was folded, has changed "
        f"({how}); restore it, or fold again",
    )


def _noise(shapes: Shapes, device: torch.device) -> Any:
    """Return inputs of noise: a tensor, or a tuple of several."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape, dtype in shapes:
        sizes = [_SAMPLE if size is None else size for size in shape]
        noise = torch.randn(sizes, generator=generator)
        found.append(noise.to(device, dtype))
    return found[0] if len(found) == 1 else tuple(found)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."))
    if not isinstance(dtype, torch.dtype):
        raise TypeError(f"{name} is no precision")
    return dtype


def shapes_of(inputs: Sequence[Tensor]) -> Shapes:
    """Return the shapes of inputs whose first axis is the number of images."""
    return tuple(((None, *tensor.shape[1:]), tensor.dtype) for tensor in inputs)


def _load(name: str, num_classes: int | None) -> Target:
    return load_folded(Path(name).expanduser())


def _title(name: str) -> str:
    """Return the name of the network that was folded, and that it is folded."""
    settings = read_json(Path(name).expanduser() / layout.FOLD)
    try:
        original = title_of(str(settings["source"]["network"]["target"]))
    except (KeyError, TypeError):  # loading it tells what is wrong
        original = Path(name).name
    return f"{original} (folded)"


register_target_scheme(
    "folded",
    TargetScheme(_load, form="folded:FOLDER", has_weights=True, is_path=True, title=_title),
)
