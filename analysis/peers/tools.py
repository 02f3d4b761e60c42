"""The same work with each tool, as its user would write it.

The work: every gate and map, the prediction and Grad-CAM of the predicted class, for all images of
a ResNet18 with CBAM, in files. Each function takes the network, the images ``(N, 3, H, W)`` as the
network gets them, their labels, and a folder. The number of lines of its body is the number of
lines that a user writes; imports that stand in a function count, too.

No tool but attnscope finds gates: the others are told that the modules of the classes
``CBAMChannelGate`` and ``CBAMSpatialGate`` return them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

BATCH = 128


def attnscope(model: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> None:
    """attnscope's `capture`."""
    from torch.utils.data import TensorDataset

    from attnscope import capture

    capture(model, TensorDataset(images, labels), folder / "recording", progress=False)


def hooks(model: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> None:
    """A script with plain forward hooks."""
    kept: dict[str, list[np.ndarray]] = {}

    def keep(name: str, values: Tensor) -> None:
        kept.setdefault(name, []).append(values.detach().cpu().numpy())

    features: list[Tensor] = []
    for name, module in model.named_modules():
        if type(module).__name__ in ("CBAMChannelGate", "CBAMSpatialGate"):
            module.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out))
    layer = model.get_submodule("layer4")
    layer.register_forward_hook(lambda _m, _i, out: features.append(out))
    for batch in images.split(BATCH):
        features.clear()
        logits = model(batch)
        top = logits.max(1)
        (gradient,) = torch.autograd.grad(top.values.sum(), features[0])
        weights = gradient.mean((2, 3), keepdim=True)
        keep("grad_cam", (weights * features[0]).sum(1).relu())
        keep("logits", logits)
    np.savez(folder / "record.npz", **{name: np.concatenate(v) for name, v in kept.items()})


def captum(model: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> None:
    """Captum's `LayerGradCam` and `LayerActivation`."""
    from captum.attr import LayerActivation, LayerGradCam

    gates = {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__ in ("CBAMChannelGate", "CBAMSpatialGate")
    }
    cam = LayerGradCam(model, model.get_submodule("layer4"))
    reader = LayerActivation(model, list(gates.values()))
    kept: dict[str, list[np.ndarray]] = {name: [] for name in (*gates, "grad_cam", "logits")}
    for batch in images.split(BATCH):
        logits = model(batch).detach()
        maps = cam.attribute(batch, target=logits.argmax(1), relu_attributions=True)
        kept["logits"].append(logits.numpy())
        kept["grad_cam"].append(maps.detach().numpy())
        for name, values in zip(gates, reader.attribute(batch), strict=True):
            kept[name].append(values.detach().numpy())
    np.savez(folder / "record.npz", **{name: np.concatenate(v) for name, v in kept.items()})


def pytorch_grad_cam(model: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> None:
    """pytorch-grad-cam's `GradCAM`, and forward hooks for the gates."""
    from pytorch_grad_cam import GradCAM

    kept: dict[str, list[np.ndarray]] = {}

    def keep(name: str, values: Tensor) -> None:
        kept.setdefault(name, []).append(values.detach().cpu().numpy())

    for name, module in model.named_modules():
        if type(module).__name__ in ("CBAMChannelGate", "CBAMSpatialGate"):
            module.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out))
    with GradCAM(model=model, target_layers=[model.get_submodule("layer4")]) as cam:
        for batch in images.split(BATCH):
            kept.setdefault("grad_cam", []).append(cam(batch, None))
            keep("logits", cam.outputs)
    np.savez(folder / "record.npz", **{name: np.concatenate(v) for name, v in kept.items()})


def torchcam(model: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> None:
    """torchcam's `GradCAM`, and forward hooks for the gates."""
    from torchcam.methods import GradCAM

    kept: dict[str, list[np.ndarray]] = {}

    def keep(name: str, values: Tensor) -> None:
        kept.setdefault(name, []).append(values.detach().cpu().numpy())

    for name, module in model.named_modules():
        if type(module).__name__ in ("CBAMChannelGate", "CBAMSpatialGate"):
            module.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out))
    with GradCAM(model, "layer4") as cam:
        for batch in images.split(BATCH):
            logits = model(batch)
            keep("grad_cam", cam(logits.argmax(1).tolist(), logits, normalized=False)[0])
            keep("logits", logits)
    np.savez(folder / "record.npz", **{name: np.concatenate(v) for name, v in kept.items()})


def timm(model: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> None:
    """timm's `FeatureHooks` for gates, logits and features; Grad-CAM by hand from them."""
    from timm.models._features import FeatureHooks

    names = [
        name
        for name, module in model.named_modules()
        if type(module).__name__ in ("CBAMChannelGate", "CBAMSpatialGate")
    ]
    reader = FeatureHooks([*names, "layer4"], model.named_modules(), default_hook_type="forward")
    kept: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "grad_cam", "logits")}
    for batch in images.split(BATCH):
        logits = model(batch)
        *gates, features = reader.get_output(batch.device).values()
        (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), features)
        weights = gradient.mean((2, 3), keepdim=True)
        kept["grad_cam"].append((weights * features).sum(1).relu().detach().numpy())
        kept["logits"].append(logits.detach().numpy())
        for name, values in zip(names, gates, strict=True):
            kept[name].append(values.detach().numpy())
    np.savez(folder / "record.npz", **{name: np.concatenate(v) for name, v in kept.items()})


def nnsight(model: nn.Module, images: Tensor, labels: Tensor, folder: Path) -> None:
    """nnsight's traces, with its gradients for Grad-CAM."""
    from nnsight import NNsight

    names = [
        name
        for name, module in model.named_modules()
        if type(module).__name__ in ("CBAMChannelGate", "CBAMSpatialGate")
    ]
    wrapped = NNsight(model)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "grad_cam", "logits")}
    for batch in images.split(BATCH):
        values = {}
        with wrapped.trace(batch):
            for name in names:
                values[name] = wrapped.get(name).output.save()
            features = wrapped.layer4.output.save()
            logits = wrapped.output.save()
        (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), features)
        weights = gradient.mean((2, 3), keepdim=True)
        kept["grad_cam"].append((weights * features).sum(1).relu().detach().numpy())
        kept["logits"].append(logits.detach().numpy())
        for name in names:
            kept[name].append(values[name].detach().numpy())
    np.savez(folder / "record.npz", **{name: np.concatenate(v) for name, v in kept.items()})


TOOLS = {
    "attnscope": attnscope,
    "a hook script": hooks,
    "Captum": captum,
    "pytorch-grad-cam": pytorch_grad_cam,
    "torchcam": torchcam,
    "timm": timm,
    "nnsight": nnsight,
}
