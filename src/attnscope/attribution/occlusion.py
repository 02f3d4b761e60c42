"""Occlusion by Captum: the drop of the logit when a window of the image is covered.

Zeiler and Fergus 2014, Visualizing and understanding convolutional networks. The window has a
quarter of the image's height and width, moves by half its size, and is filled with 0, which is the
mean color of normalized images. The attribution of a position is the mean over the windows that
cover it.
"""

from __future__ import annotations

import torch
from captum.attr import Occlusion
from torch import Tensor, nn

from attnscope.attribution.methods import Attribution, register_attribution

_WINDOWS_PER_SIDE = 4  # without overlap


def _explain(model: nn.Module, images: Tensor, target: Tensor, layer: str) -> Tensor:
    channels, high, wide = images.shape[1:]
    window = max(1, high // _WINDOWS_PER_SIDE), max(1, wide // _WINDOWS_PER_SIDE)
    stride = max(1, window[0] // 2), max(1, window[1] // 2)
    with torch.no_grad():
        found: Tensor = Occlusion(model).attribute(
            images,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *stride),
            baselines=0,
            target=target,
        )
    # A window covers all channels, and each channel holds the full difference, so the sum over
    # channels is the difference times the number of channels.
    return found.detach().float().sum(1) / channels


register_attribution(
    Attribution(
        "occlusion",
        "drop of the logit when a window of the image is covered; costs about 50 forward passes",
        "input",
        _explain,
    )
)
