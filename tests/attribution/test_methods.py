"""Attribution methods against plain Captum, their axioms, and loops by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from attnscope.attribution import ATTRIBUTIONS, GRAD_CAM, Attribution, register_attribution
from attnscope.networks.build import build_model
from tests.making import refused

TARGET = torch.tensor([0, 3, 9])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(attention="cbam", width=16).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def explain(name: str, model: nn.Module, images: Tensor) -> Tensor:
    return ATTRIBUTIONS[name].explain(model, images, TARGET, "layer3")


def scores(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images).gather(1, TARGET[:, None])[:, 0]


def test_registered_attribution_methods() -> None:
    grids = {name: method.grid for name, method in ATTRIBUTIONS.items()}
    assert grids == {
        "grad_cam": "layer",
        "integrated_gradients": "input",
        "layer_integrated_gradients": "layer",
        "occlusion": "input",
    }


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_each_method_gives_one_map_per_image_and_restores_the_network(
    name: str, model: nn.Module, images: Tensor
) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    maps = explain(name, model, images)
    side = 8 if ATTRIBUTIONS[name].grid == "layer" else 32
    assert maps.shape == (3, side, side)
    assert maps.dtype == torch.float32
    assert not maps.requires_grad
    assert maps.min() < 0 < maps.max()  # signed
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_integrated_gradients_equal_plain_captum(model: nn.Module, images: Tensor) -> None:
    plain = IntegratedGradients(model).attribute(images, target=TARGET, n_steps=32)
    torch.testing.assert_close(
        explain("integrated_gradients", model, images), plain.sum(1).float(), rtol=0, atol=1e-5
    )
    layer = LayerIntegratedGradients(model, model.layer3)
    plain = layer.attribute(images, target=TARGET, n_steps=32).detach()
    torch.testing.assert_close(
        explain("layer_integrated_gradients", model, images), plain.sum(1), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", ["integrated_gradients", "layer_integrated_gradients"])
def test_integrated_gradients_sum_to_the_change_of_the_logit(
    name: str, model: nn.Module, images: Tensor
) -> None:
    change = scores(model, images) - scores(model, torch.zeros_like(images))
    total = explain(name, model, images).sum((1, 2))
    torch.testing.assert_close(total, change, rtol=0.02, atol=0.02)


def test_occlusion_is_the_mean_drop_over_the_windows_that_cover_a_position(
    model: nn.Module, images: Tensor
) -> None:
    own, total = scores(model, images), torch.zeros(3, 32, 32)
    count = torch.zeros(32, 32)
    for top in range(0, 32 - 8 + 1, 4):
        for left in range(0, 32 - 8 + 1, 4):
            covered = images.clone()
            covered[:, :, top : top + 8, left : left + 8] = 0
            fall = own - scores(model, covered)
            total[:, top : top + 8, left : left + 8] += fall[:, None, None]
            count[top : top + 8, left : left + 8] += 1
    torch.testing.assert_close(
        explain("occlusion", model, images), total / count, rtol=0, atol=1e-4
    )


def test_incomplete_methods_are_refused() -> None:
    known = ATTRIBUTIONS[GRAD_CAM]
    with refused("AS121", names=(GRAD_CAM,)):
        register_attribution(known)
    for code, wrong in (
        ("AS123", replace(known, name="toy", about=" ")),
        ("AS123", replace(known, name="toy", grid="pixels")),  # type: ignore[arg-type]
        ("AS123", replace(known, name="toy", explain=None)),  # type: ignore[arg-type]
        ("AS122", Attribution("a name", "about", "input", known.explain)),
    ):
        with refused(code, names=(wrong.name,)):
            register_attribution(wrong)
    assert "toy" not in ATTRIBUTIONS
