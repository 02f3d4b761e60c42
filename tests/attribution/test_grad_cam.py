"""Grad-CAM of the one pass against plain Captum, ten lines by hand, and torchcam."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from attnscope.attribution import head_graph, last_map_layer
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.networks.build import build_model
from tests.making import refused


def build(name: str = "resnet18", attention: str = "cbam") -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, attention=attention, width=None if name == "cnn" else 16).eval()


def images() -> Tensor:
    return torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


TARGET = torch.tensor([0, 3, 9, 3, 1])


def one_pass(model: nn.Module, layers: list[str], target: Tensor = TARGET) -> dict[str, Tensor]:
    gates = find_gates(model, images())
    with head_graph(model, layers) as head, watch_gates(model, gates):
        logits = model(images())
        return {layer: head.grad_cam(layer, logits, target) for layer in layers}


def by_hand(model: nn.Module, layer: str, target: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: kept.append(out))
    logits = model(images())
    handle.remove()
    score = logits.gather(1, target[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, kept[0])
    weights = gradient.mean((2, 3), keepdim=True)
    return (weights * kept[0]).sum(1).detach()


@pytest.mark.parametrize("name", ["resnet18", "cnn"])
@pytest.mark.parametrize("attention", ["se", "cbam"])
def test_equals_plain_captum_and_ten_lines_by_hand(name: str, attention: str) -> None:
    model = build(name, attention)
    layer = "layer4" if name == "resnet18" else "block3"
    cam = one_pass(model, [layer])[layer]
    plain = LayerGradCam(model, model.get_submodule(layer)).attribute(
        images(), TARGET, relu_attributions=False
    )[:, 0]
    assert torch.equal(cam, plain.detach())
    torch.testing.assert_close(cam, by_hand(model, layer, TARGET), rtol=0, atol=1e-5)
    assert cam.min() < 0 < cam.max()  # signed


def test_several_layers_in_one_pass() -> None:
    model = build()
    layers = ["layer2", "layer3", "layer4"]
    cams = one_pass(model, layers)
    for layer, side in zip(layers, (16, 8, 4), strict=True):
        assert cams[layer].shape == (5, side, side)
        torch.testing.assert_close(cams[layer], by_hand(model, layer, TARGET), rtol=0, atol=1e-5)


def test_equals_torchcam_up_to_its_relu_and_scaling() -> None:
    from torchcam.methods import GradCAM

    model = build()
    cam = one_pass(model, ["layer4"])["layer4"]
    with GradCAM(model, "layer4") as extractor:
        scores = model(images())
        (theirs,) = extractor(TARGET.tolist(), scores)
    ours = cam.relu()
    low, high = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    torch.testing.assert_close((ours - low) / (high - low), theirs, rtol=0, atol=1e-4)


def test_predicted_and_true_class_come_from_one_forward() -> None:
    model, count = build(), []
    handle = model.conv1.register_forward_hook(lambda *_: count.append(1))
    with head_graph(model, ["layer4"]) as head:
        logits = model(images())
        predicted = head.grad_cam("layer4", logits, logits.argmax(1))
        true = head.grad_cam("layer4", logits, TARGET)
    handle.remove()
    assert len(count) == 1
    torch.testing.assert_close(
        predicted, by_hand(model, "layer4", logits.argmax(1)), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(true, by_hand(model, "layer4", TARGET), atol=1e-5, rtol=0)


def test_only_the_head_keeps_a_graph() -> None:
    model = build()
    seen: dict[str, bool] = {}
    for name in ("layer1", "layer3", "fc"):
        model.get_submodule(name).register_forward_hook(
            lambda m, a, out, name=name: seen.update({name: out.requires_grad})
        )
    with head_graph(model, ["layer4"]):
        for _ in range(2):  # the second forward must not find gradients switched on
            model(images())
            assert seen == {"layer1": False, "layer3": False, "fc": True}
    assert all(p.grad is None for p in model.parameters())


def test_an_in_place_operation_after_the_layer_changes_nothing() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    cam = one_pass(model, ["0"])["0"]
    # Without in-place writes the kept output is the convolution's.
    reference = nn.Sequential(model[0], nn.ReLU(), *model[2:])
    torch.testing.assert_close(cam, by_hand(reference, "0", TARGET), rtol=0, atol=1e-6)


def test_logits_are_those_of_a_plain_forward() -> None:
    model = build()
    with torch.inference_mode():
        expected = model(images())
    with head_graph(model, ["layer3", "layer4"]):
        assert torch.equal(model(images()), expected)


@pytest.mark.parametrize("raises", [False, True])
def test_hooks_and_modes_are_restored_also_after_an_exception(raises: bool) -> None:
    model = build()
    with head_graph(model, ["layer4"]) as head:
        model(images())
        if raises:
            with pytest.raises(RuntimeError):
                model(images()[:, :2])
    assert torch.is_grad_enabled()
    assert not head.outputs
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_default_layer_has_the_last_map() -> None:
    assert last_map_layer(build(), images()) == "layer4"
    assert last_map_layer(build("cnn"), images()) == "block3"
    small = build_model("resnet18", stem="imagenet", width=16).eval()
    assert last_map_layer(small, images()) == "layer3"  # layer4 is 1×1 at 32 pixels
    with refused("AS410"):
        last_map_layer(nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), images())


def test_missing_layers_and_layers_without_a_map_are_refused_by_name() -> None:
    model = build()
    with refused("AS412", names=("layer9",)), head_graph(model, ["layer9"]):
        pass
    with head_graph(model, ["fc"]), refused("AS411", names=("fc", "(5, 10)")):
        model(images())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class ChannelsLast(nn.Module):
    """A stem whose maps are (N, C, H, W), and a body whose maps are (N, H, W, C)."""

    def __init__(self, stem: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1) if stem else nn.Identity()
        self.turn = nn.Identity()
        self.body = nn.Linear(12 if stem else 3, 20)
        self.head = nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.turn(self.stem(x).permute(0, 2, 3, 1))
        return self.head(self.body(x).mean((1, 2)))


@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_channels_last_maps_are_skipped(size: tuple[int, int]) -> None:
    assert last_map_layer(ChannelsLast(stem=True).eval(), torch.rand(2, 3, *size)) == "stem"


def test_a_network_without_a_feature_map_is_refused_with_a_remedy() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    with refused("AS410", names=("--no-grad-cam",)):
        last_map_layer(Flat().eval(), torch.rand(2, 3, 8, 8))
