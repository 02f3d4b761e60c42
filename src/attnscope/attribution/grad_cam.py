"""Grad-CAM by Captum, from the same forward pass that gives everything else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from attnscope.attribution.methods import Attribution, register_attribution
from attnscope.errors import InputError
from attnscope.recording.attributed import GRAD_CAM


class HeadGraph:
    """What one forward kept of the layers: their outputs, with a graph from the first one on."""

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.outputs: dict[str, Tensor] = {}

    def grad_cam(self, layer: str, logits: Tensor, target: Tensor) -> Tensor:
        """Signed Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2 without the ReLU), by Captum.

        Args:
            layer: one of the layers that were kept.
            logits: ``(N, K)``, what the network returned in that forward.
            target: ``(N,)`` int64, the class to explain for each image.

        Returns:
            ``(N, h, w)`` float32 on the grid of the layer, detached.
        """
        output = self.outputs[layer]
        probe = nn.Identity()
        # Captum runs a forward to reach its layer. The forward has been: this replays its end.
        replay = LayerGradCam(lambda z: (probe(z), logits)[1], probe)
        cam: Tensor = replay.attribute(
            output, target, relu_attributions=False, grad_kwargs={"retain_graph": True}
        )
        return cam[:, 0].detach().float()


@contextmanager
def head_graph(model: nn.Module, layers: Sequence[str]) -> Iterator[HeadGraph]:
    """Makes forwards keep the graph from the earliest of ``layers`` on, and nothing before it.

    Inside the block no gradient is recorded until a layer has run, so that a forward costs hardly
    more than without. (Inside ``torch.inference_mode`` no gradient can be recorded at all.)

    Raises:
        InputError: the network has no such layer; in a forward, when its output is no map.
    """
    modules = dict(model.named_modules())
    head = HeadGraph(layers)
    handles = []

    def keep(name: str, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"layer {name} returns {shape}; Grad-CAM needs a map (N, C, H, W)")
        torch.set_grad_enabled(True)  # until the next forward begins, or the block ends
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        head.outputs[name] = output
        # A copy goes on, since what follows may write into it.
        return output.clone()

    def begin(*_: object) -> None:
        torch.set_grad_enabled(False)
        head.outputs.clear()

    with torch.no_grad():
        try:
            handles.append(model.register_forward_pre_hook(begin))
            for name in layers:
                if name not in modules:
                    raise InputError(f"the network has no layer '{name}' for Grad-CAM")
                handles.append(
                    modules[name].register_forward_hook(
                        lambda module, args, output, name=name: keep(name, output)
                    )
                )
            yield head
        finally:
            for handle in handles:
                handle.remove()
            head.outputs.clear()


def _explain(model: nn.Module, images: Tensor, target: Tensor, layer: str) -> Tensor:
    with head_graph(model, [layer]) as head:
        return head.grad_cam(layer, model(images), target)


register_attribution(
    Attribution(
        GRAD_CAM,
        "Grad-CAM of a layer, from the forward that gives everything else and one backward pass",
        "layer",
        _explain,
    )
)
