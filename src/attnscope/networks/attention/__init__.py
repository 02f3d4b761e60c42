"""Attention modules of convolutional networks: SE, ECA, CBAM and those of one's own.

Each module multiplies a feature map ``x`` of shape ``(N, C, H, W)`` by gates between 0 and 1.
Every gate is the output of a submodule that is named after its kind, ``channel`` or ``spatial``, so
that a plain forward hook on it reads the gate.

A module of one's own is one file and one call, and `build_model` and ``--attention`` take it::

    class Half(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.channel = MyGate(channels)  # a SigmoidGate, so that it can start at 1

        def forward(self, x):
            return x * self.channel(x)

    register_attention("half", lambda channels, reduction, kernel_size: Half(channels))
"""

# The order of these imports is that of the modules' names in help texts.
from attnscope.networks.attention.se import SEAttention  # isort: skip
from attnscope.networks.attention.eca import ECAAttention  # isort: skip
from attnscope.networks.attention.cbam import CBAMAttention  # isort: skip
from attnscope.networks.attention.gate import SigmoidGate, hidden_channels, start_as_identity
from attnscope.networks.attention.registry import (
    ATTENTIONS,
    attention_names,
    build_attention,
    register_attention,
)

__all__ = [
    "ATTENTIONS",
    "CBAMAttention",
    "ECAAttention",
    "SEAttention",
    "SigmoidGate",
    "attention_names",
    "build_attention",
    "hidden_channels",
    "register_attention",
    "start_as_identity",
]
