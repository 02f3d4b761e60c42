"""What the first forward of a capture shows: failures, and what is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture
from attnscope.errors import InputError
from tests.making import refused


class Gated(nn.Module):
    """A stem, one SE gate, an auxiliary map, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
        self.aux, self.head = nn.Conv2d(8, 4, 1), nn.Linear(8, 2)

    def gated(self, x: Tensor) -> Tensor:
        gate = self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return x * gate

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        return self.head(self.gated(self.stem(x).relu()).mean((2, 3)))


class InPlace(Gated):
    """The product is written over features that autograd needs."""

    def gated(self, x: Tensor) -> Tensor:
        x *= self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]
        return x


class Auxiliary(Gated):
    """The last map has no influence on the class scores."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.gated(self.stem(x).relu())
        return {"out": self.head(x.mean((2, 3))), "aux": self.aux(x)}


class Frames(Gated):
    """The rows of its maps are two views of each image."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.gated(self.stem(torch.cat([x, x.flip(3)])).relu())
        one, two = self.head(x.mean((2, 3))).chunk(2)
        return one - two


class Failing(Gated):
    def forward(self, x: Tensor) -> Tensor:
        return x["image"]  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(6, 3, 8, 8, generator=generator), torch.arange(6) % 2)


def test_a_network_that_cannot_be_differentiated_is_recorded_without_grad_cam(
    images: TensorDataset, tmp_path: Path
) -> None:
    model = InPlace().eval()
    found = capture(model, images, tmp_path / "r", progress=False)
    assert isinstance(found, Recording)
    assert found.grad_cam_layers == []
    assert any("inplace operation" in note for note in found.about["notes"])
    x = images.tensors[0]
    with torch.no_grad():
        features = model.stem(x).relu()
        gate = model.fc(features.mean((2, 3))).sigmoid()
    np.testing.assert_allclose(found.gate("sigmoid"), gate, atol=1e-6)
    with refused("AS676", names=("stem",)):
        capture(model, images, tmp_path / "s", grad_cam_layers=["stem"], progress=False)
    with refused("AS676", names=("integrated_gradients",)):
        capture(
            model, images, tmp_path / "s", attributions=["integrated_gradients"], progress=False
        )
    assert not (tmp_path / "s").exists()


def test_grad_cam_is_that_of_the_last_map_that_influences_the_scores(
    images: TensorDataset, tmp_path: Path
) -> None:
    model = Auxiliary().eval()
    found = capture(model, images, tmp_path / "r", output="out", progress=False)
    assert isinstance(found, Recording)
    assert found.grad_cam_layers == ["stem"]
    maps = model.stem(images.tensors[0]).detach().requires_grad_()
    scores = model.head(model.gated(maps.relu()).mean((2, 3)))
    (gradient,) = torch.autograd.grad(scores.gather(1, scores.argmax(1)[:, None]).sum(), maps)
    cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1).detach()
    np.testing.assert_allclose(found.grad_cam(), cam, rtol=2e-3, atol=1e-6)


def test_maps_whose_rows_are_not_the_images_have_no_grad_cam(
    images: TensorDataset, tmp_path: Path
) -> None:
    found = capture(Frames().eval(), images, tmp_path / "r", progress=False)
    assert isinstance(found, Recording)
    assert found.grad_cam_layers == []
    assert found.gate("sigmoid").shape == (6, 2, 8)
    with refused("AS411", names=("stem", 4, 2)):
        capture(Frames(), images, tmp_path / "s", grad_cam_layers=["stem"], progress=False)


@pytest.mark.parametrize("method", ["occlusion", "integrated_gradients"])
def test_attributions_of_sequences_are_refused(method: str, tmp_path: Path) -> None:
    sequences = TensorDataset(torch.rand(4, 3, 16), torch.arange(4) % 2)
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with refused("AS676", names=(method, (3, 16))):
        capture(model, sequences, tmp_path / "r", attributions=[method], progress=False)


def test_a_network_that_fails_is_refused_with_its_own_exception(
    images: TensorDataset, tmp_path: Path
) -> None:
    with refused("AS675", names=("IndexError", (4, 3, 8, 8))):
        capture(Failing(), images, tmp_path / "r", progress=False)
    with pytest.raises(InputError) as caught:
        capture(Failing(), images, tmp_path / "r", progress=False)
    assert isinstance(caught.value.__cause__, IndexError)
