"""Which layer is explained unless one is named."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.kinds import Gate


def last_map_layer(model: nn.Module, images: Tensor, gates: Sequence[Gate] = ()) -> str:
    """The layer whose output is the last feature map larger than 1×1: Grad-CAM's usual place.

    A gate is no feature map, and neither is a map of one channel, from which spatial gates are
    made: a module that returns one is passed over.

    A map whose channels come last ``(N, H, W, C)`` is none that Grad-CAM can weigh: such an output
    has the proportions of the images along other axes, and is passed over.

    Args:
        model: any network, in eval mode.
        images: a small sample as the network gets it, ``(N, 3, H, W)``.
        gates: of `attnscope.find_gates`.

    Raises:
        InputError: no layer returns such a map.
    """
    found = ""
    handles = []
    # Where a gate multiplies in another module than it is made in, what makes it returns the gate.
    makers = {gate.made_in for gate in gates if gate.made_in != gate.applied_in}
    high, wide = images.shape[-2:]

    def see(name: str, output: object) -> None:
        nonlocal found
        if not isinstance(output, Tensor) or output.ndim != 4 or min(output.shape[2:]) == 1:
            return
        _, first, second, third = output.shape
        if first == 1 or any(name == maker or name.startswith(f"{maker}.") for maker in makers):
            return
        channels_last = first * wide == second * high and second * wide != third * high
        if not channels_last:
            found = name

    try:
        for name, module in model.named_modules():
            if name:
                handles.append(
                    module.register_forward_hook(
                        lambda module, args, output, name=name: see(name, output)
                    )
                )
        with torch.no_grad():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError(
            "no layer of the network returns a map (N, C, H, W) larger than 1×1 for Grad-CAM; "
            "capture without it: --no-grad-cam, or grad_cam_layers=()"
        )
    return found
