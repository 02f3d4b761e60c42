"""The default layer of Grad-CAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.kinds import Gate


def last_map_layer(model: nn.Module, images: Tensor, gates: Sequence[Gate] = ()) -> str:
    """Return the path of the last layer whose output is a feature map larger than 1×1.

    Skipped are modules that return a gate, maps of one channel (spatial gates are computed from
    them), maps whose rows are not the images, such as the frames of videos, and channels-last maps
    ``(N, H, W, C)``, which Grad-CAM cannot weight. Channels-last maps are recognized by the aspect
    ratio of the images.

    Args:
        model: any network, in eval mode.
        images: a small sample ``(N, 3, H, W)``, normalized as the network expects it.
        gates: gates from `attnscope.find_gates`.

    Raises:
        InputError: no layer returns a feature map (AS410).
    """
    found = map_layers(model, images, gates)
    if not found:
        raise InputError(
            "AS410",
            "no layer of the network returns a feature map (N, C, H, W) larger than 1×1, which "
            "Grad-CAM needs; capture without it: --no-grad-cam, or grad_cam_layers=()",
        )
    return found[-1]


def map_layers(model: nn.Module, images: Tensor, gates: Sequence[Gate] = ()) -> list[str]:
    """Return the layers that `last_map_layer` chooses from, in the order in which they end."""
    with torch.no_grad(), note_map_layers(model, images, gates) as found:
        model(images)
    return found


@contextmanager
def note_map_layers(
    model: nn.Module, images: Tensor, gates: Sequence[Gate] = ()
) -> Iterator[list[str]]:
    """Yield a list that a forward inside the block fills with what `map_layers` returns.

    Args:
        model: As for `last_map_layer`.
        images: What the forward gets.
        gates: As for `last_map_layer`.
    """
    found: list[str] = []
    handles = []
    # A module whose gate is applied in another module returns the gate itself.
    makers = {gate.made_in for gate in gates if gate.made_in != gate.applied_in}
    high, wide = images.shape[-2:]

    def see(name: str, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4 or min(output.shape[2:]) == 1:
            return
        rows, first, second, third = output.shape
        if rows != len(images):
            return
        if first == 1 or any(name == maker or name.startswith(f"{maker}.") for maker in makers):
            return
        channels_last = first * wide == second * high and second * wide != third * high
        if not channels_last:
            found.append(name)

    try:
        for name, module in model.named_modules():
            if name:
                handles.append(
                    module.register_forward_hook(
                        lambda module, args, output, name=name: see(name, output)
                    )
                )
        yield found
    finally:
        for handle in handles:
            handle.remove()
