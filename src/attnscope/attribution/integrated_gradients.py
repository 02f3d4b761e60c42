"""Integrated gradients, of the input and of a layer, by Captum.

Sundararajan, Taly and Yan 2017, Axiomatic attribution for deep networks, eq. 1: the gradient along
the straight line from a baseline to the image, times their difference. The baseline is 0 in what
the network gets, which is the mean color where images are normalized. The sum over all positions is
the logit of the image minus that of the baseline, up to the error of the sum that stands for the
integral.
"""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from attnscope.attribution.methods import Attribution, register_attribution

STEPS = 32
"""Points of the Gauss-Legendre sum along the line."""
_IMAGES_AT_ONCE = 64  # of the points of all images; a batch of 64 images needs 32 such passes


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
        f"integrated gradients of the image, {STEPS} forward and backward passes",
        "input",
        _of_input,
    )
)
register_attribution(
    Attribution(
        "layer_integrated_gradients",
        f"integrated gradients of a layer's output, {STEPS} forward and backward passes",
        "layer",
        _of_layer,
    )
)
