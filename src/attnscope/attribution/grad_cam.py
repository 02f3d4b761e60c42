"""Grad-CAM by Captum, from the forward pass that also gives gates and logits."""

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
    """The layer outputs of one forward, with the autograd graph from the first layer on."""

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.outputs: dict[str, Tensor] = {}

    def grad_cam(self, layer: str, logits: Tensor, target: Tensor) -> Tensor:
        """Return signed Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2 without the ReLU).

        Args:
            layer: one of the layers of `head_graph`.
            logits: ``(N, K)``, the output of the network in this forward.
            target: ``(N,)`` int64, the class to explain for each image.

        Returns:
            Maps ``(N, h, w)`` float32 on the grid of the layer, detached.

        Raises:
            InputError: the layer does not have one row per image (AS411).
        """
        output = self.outputs[layer]
        if len(output) != len(logits):
            raise InputError(
                "AS411",
                f"the layer {layer} returns {len(output)} rows for {len(logits)} images, but "
                "Grad-CAM needs a feature map (N, C, H, W); choose a layer with one row per image",
            )
        probe = nn.Identity()
        # Captum adds the gradients of all rows, and takes each row by itself, in two operations per
        # image. The sum over the batch has the same gradient.
        with torch.enable_grad():
            score = logits.gather(1, target[:, None]).sum().reshape(1)
        # Captum runs a forward to reach its layer. Here the forward has already run, and the
        # function below only returns its result.
        replay = LayerGradCam(lambda z: (probe(z), score)[1], probe)
        cam: Tensor = replay.attribute(
            output, relu_attributions=False, grad_kwargs={"retain_graph": True}
        )
        return cam[:, 0].detach().float()


@contextmanager
def head_graph(model: nn.Module, layers: Sequence[str]) -> Iterator[HeadGraph]:
    """Record the autograd graph only from the first of ``layers`` on.

    Inside the block autograd is off until one of the layers has run, so a forward costs little more
    than one without gradients. It does not work inside ``torch.inference_mode``.

    Args:
        model: any network.
        layers: paths of modules that return a feature map ``(N, C, H, W)``.

    Raises:
        InputError: a layer does not exist (AS412); or during a forward, if its output is not a
            feature map (AS411).
    """
    modules = dict(model.named_modules())
    head = HeadGraph(layers)
    handles = []

    def keep(name: str, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim != 4:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                "AS411",
                f"the layer {name} returns {shape}, but Grad-CAM needs a feature map "
                "(N, C, H, W); choose a convolutional layer",
            )
        torch.set_grad_enabled(True)  # until the next forward, or the end of the block
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        head.outputs[name] = output
        # Return a copy, because the next module may write to it.
        return output.clone()

    def begin(*_: object) -> None:
        torch.set_grad_enabled(False)
        head.outputs.clear()

    with torch.no_grad():
        try:
            handles.append(model.register_forward_pre_hook(begin))
            for name in layers:
                if name not in modules:
                    raise InputError(
                        "AS412",
                        f"the network has no layer '{name}' for Grad-CAM; choose a path from "
                        "model.named_modules()",
                    )
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
        "Grad-CAM of a layer; costs one partial backward pass",
        "layer",
        _explain,
    )
)
