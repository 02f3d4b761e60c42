"""Static gates: where the dependence of a gate on the image is not used, it is only a scale.

A gate that is replaced by its mean over the training images is a number for each channel, or for
each pixel. Numbers for channels are factors of the weight and bias of the BatchNorm before them,
and the gate is gone; other means are stored, and what computed the gate is gone.
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

SPATIAL_FORMS = ("map", "number")
_SAMPLE = 4  # images on which the gates are found


def fold_gates(model: nn.Module, means: Mapping[str, Tensor]) -> nn.Module:
    """A network in which some gates are the same for every image.

    In eval mode its logits are those of ``model`` under an `attnscope.edit_gates` that puts the
    means in the place of these gates, but for rounding: a BatchNorm ends in ``w * z + b``, and
    ``c * (w * z + b)`` is ``(c * w) * z + c * b``. In ``cnn`` ReLU and max-pooling follow it, and
    commute with factors of 0 or more. A number in the place of a spatial gate becomes such a factor
    only where the channel gate before it is static too: a dynamic one would read scaled features.

    Args:
        model: of `attnscope.build_model`, not folded yet; it stays as it was.
        means: name of each gate that becomes static -> its values: ``(C,)`` of a channel gate;
            ``(H, W)``, a map, or ``()``, a number, of a spatial one. Gates are sigmoids: the values
            are 0 or more.

    Returns:
        A new network, on the device of ``model``. Its ``attnscope_config.folded`` says what each
        static gate has become: ``norm`` (a factor within the BatchNorm before it), ``constant`` or
        ``map`` (stored). Where every gate of an attention module has become ``norm``, the module is
        an `nn.Identity`.

    Raises:
        InputError: ``model`` is no such network, has no such gate, or a mean cannot be its values.
    """
    config = getattr(model, "attnscope_config", None)
    if not isinstance(config, ModelConfig):
        raise InputError("only a network of build_model can be folded; this is another one")
    if config.folded:
        raise InputError("the network is folded already; fold the one that it was folded from")
    folded = copy.deepcopy(model)
    places = attention_places(folded)
    known = [name for place in places for name in place.gates]
    for name in means:
        expect_known(name, known)
    forms: dict[str, str] = {}
    stored: dict[str, Tensor] = {}
    for place in places:
        # A factor within the norm reaches every gate of the module: none may act after a dynamic
        # one.
        enters, factor = place.norm is not None, torch.ones((), dtype=torch.float64)
        for name in place.gates:
            if name not in means:
                enters = False
                continue
            mean = _checked(means[name], name, place)
            if mean.ndim == 2:
                forms[name], stored[name] = "map", mean[None, None]
            elif enters:
                forms[name], factor = "norm", factor * mean.double().cpu()
            else:
                forms[name], stored[name] = "constant", mean.reshape(1, -1, 1, 1)
        if place.norm is not None and factor.ndim:
            with torch.no_grad():
                for parameter in (place.norm.weight, place.norm.bias):
                    parameter.mul_(factor.to(parameter))
    device = device_of(folded)
    values = {name: v.to(device, torch.float32, copy=True) for name, v in stored.items()}
    make_static(folded, forms, values)
    return folded


def mean_gates(
    model: nn.Module,
    images: LabeledImages,
    normalization: Normalization,
    *,
    spatial: str = "map",
    batch_size: int = 128,
) -> dict[str, Tensor]:
    """The mean of each gate of the unedited network over some images, in one pass.

    Sums are float64. The network runs in eval mode where it is, and is left as it was.

    Args:
        model: any network.
        images: usually the training split, un-augmented.
        normalization: which the network was trained with.
        spatial: ``map``, or ``number`` for the mean over the pixels as well.
        batch_size: images per forward.

    Returns:
        Name -> float32 on the CPU, in the order in which the gates act: ``(C,)`` of a channel gate,
        ``(H, W)`` or ``()`` of a spatial one.
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
                    part = values.sum(0, dtype=torch.float64).cpu()
                    sums[name] = sums[name] + part if name in sums else part
    means = {gate.name: sums[gate.name] / len(images) for gate in gates}
    if spatial == "number":
        means.update({g.name: means[g.name].mean() for g in gates if g.has(MAP)})
    return {name: mean.float() for name, mean in means.items()}


def _checked(mean: Tensor, name: str, place: AttentionPlace) -> Tensor:
    # A gate's module is called after the gate's kind.
    if PER_CHANNEL in KINDS.find(name.rpartition(".")[2]).traits:
        fits, wanted = tuple(mean.shape) == (place.channels,), f"({place.channels},)"
    else:
        fits, wanted = mean.ndim in (0, 2), "(H, W) or ()"
    if not fits:
        raise InputError(f"the mean of {name} is {tuple(mean.shape)}; it must be {wanted}")
    if not bool(torch.isfinite(mean).all()) or bool((mean < 0).any()):
        raise InputError(f"the mean of {name} must be finite and 0 or more, as gates are")
    return mean.detach()


def expect_known(name: str, known: Sequence[str]) -> None:
    """Raise an InputError unless ``name`` is one of the ``known`` gates."""
    if name not in known:
        raise InputError(f"there is no gate '{name}'; there are {', '.join(known) or 'none'}")


def find_on_sample(
    model: nn.Module, images: LabeledImages, normalization: Normalization
) -> list[Gate]:
    """Find the gates of a network on a few of the images."""
    sample = next(
        batches(images, range(min(len(images), _SAMPLE)), _SAMPLE, normalization, device_of(model))
    )
    return find_gates(model, sample.x)


def device_of(model: nn.Module) -> torch.device:
    """The device on which a network's parameters are."""
    return next(model.parameters()).device
