"""Integrated gradients of the input and of a layer, by Captum.

Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, eq. 1: the mean gradient
along the straight line from a baseline to the image, times their difference. The baseline is 0 in
the network's input, which is the mean color of normalized images. The sum over all positions equals
the logit of the image minus the logit of the baseline, up to the error of numerical integration.
"""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from attnscope.attribution.methods import Attribution, register_attribution

STEPS = 32
"""Number of Gauss-Legendre points along the line."""
_IMAGES_AT_ONCE = 64  # batch size over the points of all images: 64 images need 32 such passes


def _of_input(model: nn.Module, images: Tensor, target: Tensor, layer: str) -> Tensor:
    with torch.enable_grad():
        found: Tensor = IntegratedGradients(model).attribute(
            images, target=target, n_steps=STEPS, internal_batch_size=_IMAGES_AT_ONCE
        )
    return found.detach().float().sum(1)


def _of_layer(model: nn.Module, images: Tensor, target: Tensor, layer: str) -> Tensor:
    with torch.enable_grad():
        method = LayerIntegratedGradients(model, model.get_submodule(layer))
        found: Tensor = method.attribute(
            images, target=target, n_steps=STEPS, internal_batch_size=_IMAGES_AT_ONCE
        )
    return found.detach().float().sum(1)


register_attribution(
    Attribution(
        "integrated_gradients",
        f"integrated gradients of the input; costs {STEPS} forward and backward passes",
        "input",
        _of_input,
    )
)
register_attribution(
    Attribution(
        "layer_integrated_gradients",
        f"integrated gradients of a layer; costs {STEPS} forward and backward passes",
        "layer",
        _of_layer,
    )
)
