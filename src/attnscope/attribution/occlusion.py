"""Occlusion by Captum: how far the logit falls when a window of the image is gray.

Zeiler and Fergus 2014, Visualizing and understanding convolutional networks. A window is a quarter
of the image high and wide, moves by half of itself, and is filled with 0, which is the mean color
where images are normalized. The attribution of a position is the mean over the windows that cover
it.
"""

from __future__ import annotations

import torch
from captum.attr import Occlusion
from torch import Tensor, nn

from attnscope.attribution.methods import Attribution, register_attribution

_PARTS = 4  # windows beside each other, without overlap


def _explain(model: nn.Module, images: Tensor, target: Tensor, layer: str) -> Tensor:
    channels, high, wide = images.shape[1:]
    window = max(1, high // _PARTS), max(1, wide // _PARTS)
    stride = max(1, window[0] // 2), max(1, window[1] // 2)
    with torch.no_grad():
        found: Tensor = Occlusion(model).attribute(
            images,
            sliding_window_shapes=(channels, *window),
            strides=(channels, *stride),
            baselines=0,
            target=target,
        )
    # A window covers all channels, so that they hold one value each: their sum is what it changes
    # times the channels.
    return found.detach().float().sum(1) / channels


register_attribution(
    Attribution(
        "occlusion",
        "fall of the logit when a window of the image is gray, about 50 forward passes",
        "input",
        _explain,
    )
)
