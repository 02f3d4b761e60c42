"""Attention modules of convolutional networks: SE, ECA, CBAM and registered modules.

Each module multiplies a feature map ``x`` of shape ``(N, C, H, W)`` by gates between 0 and 1.
Every gate is the output of a submodule that is named after the kind of the gate, ``channel`` or
``spatial``. A forward hook on this submodule therefore reads the gate.

To add an attention module, register a function that builds it. `build_model` and ``--attention``
then accept its name::

    class Half(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.channel = MyGate(channels)  # a SigmoidGate, so that it can start at 1

        def forward(self, x):
            return x * self.channel(x)

    register_attention("half", lambda channels, reduction, kernel_size: Half(channels))
"""

# Help texts list the modules in the order of these imports.
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
