"""What a forward on the sample shows before a capture begins: failures, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnscope.attribution import Attribution, head_graph
from attnscope.errors import InputError, first_line
from attnscope.gates.detect import Inspection
from attnscope.networks.channels import expect_channels
from attnscope.networks.outputs import OutputAdapter, adapted

_NAMED = 3  # activations that a note names; the others are counted
_EXPLAINED = 2  # images of the sample; finding the gates must be a small part of a capture
_TRIED = 5  # layers; a network that cannot be differentiated fails for each of them


def refuse_network(model: nn.Module, sample: Tensor, error: Exception) -> InputError:
    """Return the refusal of a network whose forward failed on the sample.

    Args:
        model: The network.
        sample: The images on which it failed, ``(N, C, ...)``.
        error: What the forward raised.

    Raises:
        InputError: AS339, the network takes another number of channels.
    """
    expect_channels(model, sample)
    return InputError(
        "AS675",
        f"the network fails on images of shape {tuple(sample.shape)} ({type(error).__name__}: "
        f"{first_line(error)}); it must take one tensor of images as the data set gives them: "
        "correct the data set, or wrap the network in a module whose forward takes such a tensor",
    )


def explainable_layer(
    model: nn.Module, sample: Tensor, adapter: OutputAdapter, layers: Sequence[str]
) -> tuple[str | None, str]:
    """Return the last layer whose Grad-CAM can be computed, and why that of the last one cannot.

    Some networks cannot be differentiated, because they write into their features in place. Other
    layers, such as those of an auxiliary output, have no influence on the class scores.

    Args:
        model: The network, in eval mode.
        sample: Some images.
        adapter: Takes the class scores from what the network returns.
        layers: Paths of layers that return a feature map, in the order in which they run.

    Returns:
        The layer, None if there is none; and the problem, empty if the last layer has none.
    """
    problems: list[str] = []
    # A module that is called twice is one layer.
    for layer in list(dict.fromkeys(reversed(layers)))[:_TRIED]:
        problem = grad_cam_problem(model, sample, adapter, layer)
        if not problem:
            return layer, problems[0] if problems else ""
        problems.append(problem)
    return None, problems[0] if problems else ""


def grad_cam_problem(model: nn.Module, sample: Tensor, adapter: OutputAdapter, layer: str) -> str:
    """Return why Grad-CAM of a layer cannot be computed; empty if it can.

    Raises:
        InputError: The layer does not exist or returns no feature map.
    """
    try:
        # A copy, because the network may write into its input.
        with torch.random.fork_rng(devices=[]), head_graph(model, [layer]) as head:
            logits = adapter(model(sample[:_EXPLAINED].clone()))
            head.grad_cam(layer, logits, logits.argmax(1))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of autograd
        reason = first_line(error).partition(" Hint:")[0].rstrip(".")
        return f"its gradient cannot be computed ({reason})"
    return ""


def expect_attribution(
    model: nn.Module, sample: Tensor, adapter: OutputAdapter, method: Attribution, layer: str
) -> None:
    """Explain one image, so that a network that cannot be explained is refused beforehand.

    Args:
        model: The network, in eval mode.
        sample: Some images.
        adapter: Takes the class scores from what the network returns.
        method: The attribution method.
        layer: The layer that it explains; empty for a method of the input.

    Raises:
        InputError: AS676, the images are sequences or volumes, or the method fails.
    """
    if sample.ndim != 4:
        raise InputError(
            "AS676",
            f"{method.name} needs images (C, H, W), and those of the data set have shape "
            f"{tuple(sample.shape[1:])}; leave --attribution-methods out",
        )
    image = sample[:1].clone()
    target = torch.zeros(1, dtype=torch.int64, device=sample.device)
    try:
        with adapted(model, adapter), torch.random.fork_rng(devices=[]):
            method.explain(model, image, target, layer)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # of autograd
        raise InputError(
            "AS676",
            f"{method.name} cannot be computed for this network ({first_line(error)}); leave "
            "--attribution-methods out",
        ) from error


def notes_on_gates(found: Inspection) -> list[str]:
    """Return notes on gates that are left out: those whose axes are unknown; that there are none.

    Args:
        found: What was found on the sample.
    """
    places = [
        f"{each.activation} in {each.made_in or 'the network'}"
        for each in found.ungated
        if each.code == "size"
    ]
    notes = []
    if places:
        counts = Counter(places)
        named = [f"{place} ({n} times)" if n > 1 else place for place, n in counts.items()]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        notes.append(
            f"not recorded: {', '.join(named[:_NAMED])}{more}; such a product may be a gate, but "
            "its axes cannot be determined"
        )
    if not found.gates:
        notes.append(
            "the network has no gates of the recorded kinds; attnscope inspect lists its "
            "activations, and why each of them is not a gate"
        )
    return notes
