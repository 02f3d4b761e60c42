"""Remove channels of the networks of attnscope whose folded channel gate is 0.

In ``cnn``, features that a gate multiplies go to the next layer only, so that the filters that
compute them and the inputs that read them are removed. In a block of a ResNet they are added to a
skip connection: the filters are removed, and zeros stand for their results
(`attnscope.networks.static.FillingNorm`). After a stage, features are a sum with a skip connection,
which stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from attnscope.kinds import KINDS, PER_CHANNEL
from attnscope.networks.build import AttentionPlace, ModelConfig, attention_places
from attnscope.networks.cnn import ConvBlock, SmallCNN
from attnscope.networks.static import FillingNorm


def narrowable_gates(model: nn.Module, folded: Mapping[str, str]) -> dict[str, str]:
    """Return for each channel gate that is folded why its channels cannot be removed.

    Args:
        model: A network of `attnscope.build_model`, before its gates are replaced.
        folded: The form of each folded gate by name.

    Returns:
        Name of a gate -> the reason, which is empty if its channels can be removed.
    """
    found = {}
    for place in attention_places(model):
        for name in place.gates:
            if name in folded and PER_CHANNEL in KINDS.find(name.rpartition(".")[2]).traits:
                found[name] = _reason(model, place, name, folded)
    return found


def _reason(model: nn.Module, place: AttentionPlace, name: str, folded: Mapping[str, str]) -> str:
    if place.norm is None:
        return "they are a sum with a skip connection"
    if folded[name] != "norm":
        return "a gate before it depends on the image"
    others = [each for each in place.gates if each not in folded]
    if isinstance(model, SmallCNN) and others:
        return f"the gate {others[0]} is computed from all channels"
    return ""


def narrow(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Remove channels from a network of `attnscope.build_model`.

    Args:
        model: The network, before its gates are replaced. It is changed in place, and so is its
            ``attnscope_config``.
        kept: Name of a gate of `narrowable_gates` -> the channels that stay, ``(n,)``, int64 and
            ascending, with ``0 < n < C``.
    """
    for place in attention_places(model):
        for name in kept.keys() & place.gates.keys():
            owner = model.get_submodule(place.path.rpartition(".")[0])
            assert place.norm is not None  # else a gate is not narrowable
            _narrow_block(model, place, owner, kept[name].to(place.norm.weight.device))
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    pruned = {name: len(channels) for name, channels in kept.items()}
    model.attnscope_config = replace(config, pruned=pruned)  # type: ignore[assignment]


def _narrow_block(model: nn.Module, place: AttentionPlace, owner: nn.Module, kept: Tensor) -> None:
    if isinstance(owner, ConvBlock):
        assert isinstance(model, SmallCNN)
        channels = owner.bn.num_features
        owner.conv = _some_filters(owner.conv, kept)
        owner.bn = _some_features(owner.bn, kept)
        blocks = [model.block1, model.block2, model.block3]
        following = blocks.index(owner) + 1
        if following < len(blocks):
            blocks[following].conv = _some_inputs(blocks[following].conv, kept)
        else:
            # The linear layer reads all positions of a channel, one after the other.
            positions = model.hidden.in_features // channels
            offsets = torch.arange(positions, device=kept.device)
            model.hidden = _some_columns(
                model.hidden, (kept[:, None] * positions + offsets).ravel()
            )
        return
    number = 3 if isinstance(owner, Bottleneck) else 2
    setattr(owner, f"conv{number}", _some_filters(owner.get_submodule(f"conv{number}"), kept))
    assert place.norm is not None
    filling = FillingNorm(_some_features(place.norm, kept), kept, place.norm.num_features)
    setattr(owner, f"bn{number}", filling)


def _conv(like: nn.Module, inputs: int, outputs: int) -> nn.Conv2d:
    assert isinstance(like, nn.Conv2d)
    return nn.Conv2d(
        inputs,
        outputs,
        like.kernel_size,  # type: ignore[arg-type]
        stride=like.stride,  # type: ignore[arg-type]
        padding=like.padding,  # type: ignore[arg-type]
        bias=like.bias is not None,
        device=like.weight.device,
    )


def _some_filters(layer: nn.Module, kept: Tensor) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    new = _conv(layer, layer.in_channels, len(kept))
    _set(new, layer, {"weight": 0, "bias": 0}, kept)
    return new


def _some_inputs(layer: nn.Conv2d, kept: Tensor) -> nn.Conv2d:
    new = _conv(layer, len(kept), layer.out_channels)
    _set(new, layer, {"weight": 1, "bias": None}, kept)
    return new


def _some_columns(layer: nn.Linear, kept: Tensor) -> nn.Linear:
    new = nn.Linear(len(kept), layer.out_features, device=layer.weight.device)
    _set(new, layer, {"weight": 1, "bias": None}, kept)
    return new


def _some_features(norm: nn.BatchNorm2d, kept: Tensor) -> nn.BatchNorm2d:
    new = nn.BatchNorm2d(len(kept), norm.eps, norm.momentum, device=norm.weight.device)
    axes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), 0)
    _set(new, norm, {**axes, "num_batches_tracked": None}, kept)
    return new.train(norm.training)


def _set(new: nn.Module, old: nn.Module, axes: Mapping[str, int | None], kept: Tensor) -> None:
    """Copy tensors to a narrower module: those that stay along an axis, or all of them."""
    with torch.no_grad():
        for name, axis in axes.items():
            value = getattr(old, name)
            if value is not None:
                chosen = value if axis is None else value.index_select(axis, kept.to(value.device))
                getattr(new, name).copy_(chosen)
