"""Attribution methods: which positions of an image contributed to a class score. By Captum.

An attribution is defined by the method (one of `ATTRIBUTIONS`), the layer or the input, and the
target, which is the explained class: ``predicted`` or ``true``.
"""

# These modules register their methods.
from attnscope.attribution import integrated_gradients as _integrated_gradients  # noqa: F401
from attnscope.attribution import occlusion as _occlusion  # noqa: F401
from attnscope.attribution.grad_cam import HeadGraph, head_graph
from attnscope.attribution.layers import last_map_layer, map_layers, note_map_layers
from attnscope.attribution.methods import (
    ATTRIBUTIONS,
    Attribution,
    Explain,
    register_attribution,
)
from attnscope.recording.attributed import GRAD_CAM

__all__ = [
    "ATTRIBUTIONS",
    "GRAD_CAM",
    "Attribution",
    "Explain",
    "HeadGraph",
    "head_graph",
    "last_map_layer",
    "map_layers",
    "note_map_layers",
    "register_attribution",
]
