"""Replace gates by constants.

A gate that is replaced by its mean over the training images has one value for each channel or for
each pixel. Values for channels are multiplied into the weight and bias of the preceding BatchNorm.
Other values are stored. In both cases the modules that computed the gate are removed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from attnscope.capturing.batching import batches
from attnscope.data.images import LabeledImages, Normalization
from attnscope.errors import InputError
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import KINDS, MAP, PER_CHANNEL, Gate
from attnscope.networks.build import AttentionPlace, ModelConfig, attention_places, make_static
from attnscope.networks.narrow import narrow, narrowable_gates
from attnscope.networks.pruning import ONE_STAYS, PrunedGate

SPATIAL_FORMS = ("map", "number")
_SAMPLE = 4  # images on which the gates are found


def fold_gates(model: nn.Module, means: Mapping[str, Tensor], *, prune: bool = False) -> nn.Module:
    """Return a copy of a network in which some gates are constant.

    In eval mode, its logits equal those of ``model`` under an `attnscope.edit_gates` that replaces
    these gates by the means, except for rounding: a BatchNorm ends in ``w * z + b``, and
    ``c * (w * z + b)`` is ``(c * w) * z + c * b``. In ``cnn``, ReLU and max-pooling follow the
    BatchNorm and commute with factors of at least 0. A number that replaces a spatial gate becomes
    such a factor only if the channel gate before it is replaced too, because a channel gate that
    still depends on the image would read scaled features.

    Args:
        model: A network of `attnscope.build_model` that is not folded. It is left unchanged.
        means: Name of a gate -> its constant values: ``(C,)`` for a channel gate; ``(H, W)``, a
            map, or ``()``, a number, for a spatial gate. Gates are sigmoids: values are at least 0.
        prune: Whether to remove channels that a channel gate multiplies by 0, with the filters that
            compute them, where that is exact (`attnscope.networks.narrow`).

    Returns:
        A new network on the device of ``model``. Its ``attnscope_config.folded`` states what each
        gate has become: ``norm`` (a factor within the preceding BatchNorm), or ``constant`` or
        ``map`` (stored values). An attention module whose gates have all become ``norm`` is an
        `nn.Identity`.

    Raises:
        InputError: The network was not built by `attnscope.build_model` (AS850), is folded already
            (AS851) or lacks a gate (AS852), or a mean has the wrong shape (AS853) or wrong values
            (AS854).
    """
    expect_foldable(model, "the network")
    folded = copy.deepcopy(model)
    places = attention_places(folded)
    known = [name for place in places for name in place.gates]
    for name in means:
        expect_known(name, known)
    forms: dict[str, str] = {}
    stored: dict[str, Tensor] = {}
    for place in places:
        # A factor within the norm scales the input of every gate of the module. Therefore no gate
        # can become one after a gate that still depends on the image.
        into_norm, factor = place.norm is not None, torch.ones((), dtype=torch.float64)
        for name in place.gates:
            if name not in means:
                into_norm = False
                continue
            mean = _checked(means[name], name, place)
            if mean.ndim == 2:
                forms[name], stored[name] = "map", mean[None, None]
            elif into_norm:
                forms[name], factor = "norm", factor * mean.double().cpu()
            else:
                forms[name], stored[name] = "constant", mean.reshape(1, -1, 1, 1)
        if place.norm is not None and factor.ndim:
            with torch.no_grad():
                for parameter in (place.norm.weight, place.norm.bias):
                    parameter.mul_(factor.to(parameter))
    if prune:
        reasons = narrowable_gates(folded, forms)
        kept = {name: _nonzero(means[name]) for name, reason in reasons.items() if not reason}
        narrow(folded, {n: rows for n, rows in kept.items() if len(rows) < len(means[n])})
    device = device_of(folded)
    values = {name: v.to(device, torch.float32, copy=True) for name, v in stored.items()}
    make_static(folded, forms, values)
    return folded


def removable_channels(model: nn.Module, means: Mapping[str, Tensor]) -> dict[str, PrunedGate]:
    """Return which channels could be removed if channel gates were 0 there.

    Args:
        model: A network of `attnscope.build_model` that is not folded.
        means: As for `fold_gates`; these gates are folded together.

    Returns:
        Name of each channel gate in ``means`` -> what would become of its channels.
    """
    forms = fold_gates(model, means).attnscope_config.folded  # type: ignore[union-attr]
    found = {}
    for name, reason in narrowable_gates(model, forms).items():  # type: ignore[arg-type]
        channels = tuple(range(len(means[name])))
        goes, stays = ((), channels) if reason else (channels, ())
        found[name] = PrunedGate(goes, len(goes), stays, reason)
    return found


def pruned_channels(
    found: Mapping[str, PrunedGate], means: Mapping[str, Tensor]
) -> dict[str, PrunedGate]:
    """Return what `fold_gates` makes of the channels that gates multiply by 0.

    Args:
        found: What could be removed, of `removable_channels`.
        means: The gates that are folded.
    """
    pruned = {}
    for name in found.keys() & means.keys():
        zeros = [channel for channel, value in enumerate(means[name].tolist()) if value == 0]
        reason = found[name].reason
        stays = zeros if reason else zeros[:1] if len(zeros) == len(means[name]) else []
        goes = tuple(channel for channel in zeros if channel not in stays)
        if zeros:
            reason = reason or (ONE_STAYS if stays else "")
            pruned[name] = PrunedGate(goes, len(goes), tuple(stays), reason)
    return pruned


def _nonzero(mean: Tensor) -> Tensor:
    """Return the channels that stay; one must stay."""
    rows = mean.detach().cpu().nonzero().flatten()
    return rows if len(rows) else torch.zeros(1, dtype=torch.int64)


def mean_gates(
    model: nn.Module,
    images: LabeledImages,
    normalization: Normalization,
    *,
    spatial: str = "map",
    batch_size: int = 128,
) -> dict[str, Tensor]:
    """Return the mean of each gate of the unedited network over some images.

    Sums are float64. The network runs in eval mode on its device and is left unchanged.

    Args:
        model: Any network.
        images: The images, usually the training split without augmentation.
        normalization: The normalization with which the network was trained.
        spatial: ``map``, or ``number`` for the mean of spatial gates over pixels as well.
        batch_size: Batch size.

    Returns:
        Name -> float32 on the CPU, in the order in which the gates are applied: ``(C,)`` for a
        channel gate, ``(H, W)`` or ``()`` for a spatial gate.
    """
    device = device_of(model)
    sums: dict[str, Tensor] = {}
    with eval_mode(model), torch.no_grad():
        gates = find_on_sample(model, images, normalization)
        rows = range(len(images))
        with watch_gates(model, gates) as seen:
            for batch in batches(images, rows, batch_size, normalization, device):
                model(batch.x)
                for name, values in seen.items():
                    batch_sum = values.sum(0, dtype=torch.float64).cpu()
                    sums[name] = sums[name] + batch_sum if name in sums else batch_sum
    means = {gate.name: sums[gate.name] / len(images) for gate in gates}
    if spatial == "number":
        means.update({g.name: means[g.name].mean() for g in gates if g.has(MAP)})
    return {name: mean.float() for name, mean in means.items()}


def _checked(mean: Tensor, name: str, place: AttentionPlace) -> Tensor:
    """Return a mean, detached, if it can be the values of the gate of this name."""
    # The module of a gate has the name of the gate's kind.
    if PER_CHANNEL in KINDS.find(name.rpartition(".")[2]).traits:
        fits, expected = tuple(mean.shape) == (place.channels,), f"({place.channels},)"
    else:
        fits, expected = mean.ndim in (0, 2), "(H, W) or ()"
    if not fits:
        raise InputError(
            "AS853", f"the mean of {name} has shape {tuple(mean.shape)}; it must be {expected}"
        )
    if not bool(torch.isfinite(mean).all()) or bool((mean < 0).any()):
        raise InputError(
            "AS854",
            f"the mean of {name} has values that are negative or not finite; pass values of at "
            "least 0",
        )
    return mean.detach()


def expect_foldable(model: nn.Module, description: str) -> None:
    """Raise an `InputError` unless a network can be folded.

    Args:
        model: The network.
        description: How the message names the network.

    Raises:
        InputError: The network was not built by `attnscope.build_model` (AS850), or is folded
            already (AS851).
    """
    config = getattr(model, "attnscope_config", None)
    if not isinstance(config, ModelConfig):
        raise InputError(
            "AS850",
            f"{description} was not built by attnscope.build_model; only such networks "
            "can be folded, pass one of them",
        )
    if config.folded:
        raise InputError(
            "AS851", f"{description} is folded already; fold the network from which it was folded"
        )


def expect_known(name: str, known: Sequence[str]) -> None:
    """Raise an `InputError` unless ``name`` is one of the ``known`` gates."""
    if name not in known:
        raise InputError(
            "AS852", f"there is no gate '{name}'; choose from {', '.join(known) or 'none'}"
        )


def find_on_sample(
    model: nn.Module, images: LabeledImages, normalization: Normalization
) -> list[Gate]:
    """Return the gates of a network, found on a few of the images."""
    sample = next(
        batches(images, range(min(len(images), _SAMPLE)), _SAMPLE, normalization, device_of(model))
    )
    return find_gates(model, sample.x)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a network's parameters."""
    return next(model.parameters()).device
