"""Attributions besides Grad-CAM are recorded for some images, and equal the method itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import Recording, capture
from attnscope.attribution import ATTRIBUTIONS
from attnscope.networks.build import build_model
from attnscope.recording.attributed import Attributed, Attributions
from tests.making import refused
from tests.recording.making import found_problems

METHODS = ["integrated_gradients", "layer_integrated_gradients", "occlusion"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model(attention="cbam", width=16, num_classes=3).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(13, 3, 16, 16, generator=torch.Generator().manual_seed(1))


LABELS = torch.arange(13) % 3


@pytest.fixture(scope="module")
def recording(
    model: nn.Module, images: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> Recording:
    found = capture(
        model,
        TensorDataset(images, LABELS),
        tmp_path_factory.mktemp("explained") / "recording",
        batch_size=4,
        shard_images=4,
        attributions=METHODS,
        attribution_images=5,
        progress=False,
    )
    assert isinstance(found, Recording)
    return found


def test_attributed_images_are_evenly_spaced() -> None:
    methods = (Attributed("occlusion", ""),)
    assert Attributions(methods, 5).rows(13).tolist() == [0, 3, 6, 9, 12]
    assert Attributions(methods, 200).rows(3).tolist() == [0, 1, 2]
    assert Attributions(methods, 1).rows(9).tolist() == [0]
    assert Attributions((), 5).rows(13).tolist() == []


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("target", ["predicted", "true"])
def test_recorded_maps_equal_those_of_the_method(
    recording: Recording, model: nn.Module, images: Tensor, name: str, target: str
) -> None:
    rows = recording.attributed_rows(name)
    assert rows.tolist() == [0, 3, 6, 9, 12]
    x = images[rows]
    classes = LABELS[rows]
    if target == "predicted":
        with torch.no_grad():
            classes = model(x).argmax(1)
    method = ATTRIBUTIONS[name]
    layer = recording.grad_cam_layers[-1] if method.grid == "layer" else ""
    maps = method.explain(model, x, classes, layer).numpy()
    recorded = recording.attribution(name, target=target)
    assert recorded.shape == maps.shape
    assert recorded.dtype == np.float32
    np.testing.assert_allclose(recorded, maps, rtol=2e-3, atol=1e-4)  # stored in float16


def test_attributions_do_not_change_the_rest_of_the_recording(
    recording: Recording, model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    plain = capture(
        model, TensorDataset(images, LABELS), tmp_path / "plain",
        batch_size=4, shard_images=4, progress=False,
    )  # fmt: skip
    assert isinstance(plain, Recording)
    for gate in plain.gates:
        assert np.array_equal(recording.gate(gate.name), plain.gate(gate.name))
    assert np.array_equal(recording.grad_cam(), plain.grad_cam())
    assert recording.attribution_methods == ["grad_cam", *METHODS]
    assert plain.attribution_methods == ["grad_cam"]
    assert np.array_equal(plain.attribution(), plain.grad_cam())
    assert plain.attributed_rows().tolist() == list(range(13))
    assert not plain.attributions.methods
    assert recording.verify() == plain.verify() == []


def test_unrecorded_method_layer_and_target_are_refused(recording: Recording) -> None:
    for code, *arguments in (
        ("AS613", "saliency"),
        ("AS614", "occlusion", "layer1"),
        ("AS610", "occlusion", None, "third"),
    ):
        with refused(code, names=(arguments[-1],)):
            recording.attribution(*arguments)
    with refused("AS613", names=("saliency",)):
        recording.attributed_rows("saliency")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"attributions": ["saliency"]}, "AS120"),
        ({"attributions": ["occlusion"], "attribution_images": 0}, "AS671"),
        ({"attributions": ["occlusion"], "moments": True}, "AS673"),
    ],
)
def test_invalid_attributions_are_refused_before_anything_is_written(
    model: nn.Module, images: Tensor, tmp_path: Path, options: dict[str, object], code: str
) -> None:
    with refused(code):
        capture(model, TensorDataset(images, LABELS), tmp_path / "out", progress=False, **options)  # type: ignore[call-overload]
    assert not list(tmp_path.iterdir())


def test_verify_finds_a_changed_map(recording: Recording, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(recording.folder, folder)
    file = folder / "shards" / "00000" / "arrays.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(bytes(content))
    found_problems(Recording(folder).verify(), ("AS681", file))


def test_shards_without_attributed_images_are_skipped(
    model: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    found = capture(
        model, TensorDataset(images, LABELS), tmp_path / "few", batch_size=4, shard_images=4,
        attributions=["occlusion"], attribution_images=2, progress=False,
    )  # fmt: skip
    assert isinstance(found, Recording)
    assert found.attributed_rows("occlusion").tolist() == [0, 12]  # of the first and the last shard
    assert found.attribution("occlusion").shape == (2, 16, 16)
    assert found.verify() == []
