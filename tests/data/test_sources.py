"""Registration of data sources and of target schemes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attnscope import fold, load_data
from attnscope.commands.main import main
from attnscope.data.images import LabeledImages
from attnscope.data.known import DATA_SOURCES
from attnscope.data.places import find_data, is_gone, pinned_source, places_of
from attnscope.data.sources import (
    DataRequest,
    DataSource,
    LoadedSplits,
    describe_sources,
    form_of,
    register_data_source,
)
from attnscope.networks.build import build_model
from attnscope.networks.targets import TARGET_SCHEMES, Target, TargetScheme, load_target
from attnscope.networks.targets import register_target_scheme as register_scheme
from attnscope.networks.weights import save_weights
from attnscope.recording.recording import Recording
from tests.making import refused

TOY = "toy_stripes"


def load_stripes(request: DataRequest) -> LoadedSplits:
    """Horizontal and vertical stripes; PATH is the number of images in each split."""
    size, count = request.image_size or 8, int(request.path)
    splits = []
    for name in ("train", "test"):
        labels = torch.arange(count) % 2
        across = (torch.arange(size) % 2 * 255).to(torch.uint8).expand(3, size, size)
        images = torch.stack([across.transpose(1, 2) if y else across for y in labels])
        paths = [f"{name}/{i}" for i in range(count)]
        splits.append(LabeledImages(images.contiguous(), labels, paths, ["across", "along"]))
    return LoadedSplits(splits, ["broken.png (empty file)"])


@pytest.fixture
def toy() -> Iterator[None]:
    register_data_source(
        TOY,
        DataSource(load_stripes, help="stripes", takes_path=True, image_size=16, may_flip=False),
    )
    yield
    del DATA_SOURCES._known[TOY]


@pytest.mark.usefixtures("toy")
def test_a_registered_source_is_loaded_by_name(tmp_path: Path) -> None:
    data = load_data(f"{TOY}:12", image_size=8)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 2, 12)
    assert data.test.images.shape == (12, 3, 8, 8)
    assert data.normalization.mean == (0.5, 0.5, 0.5)
    assert not data.may_flip
    assert data.skipped == ["broken.png (empty file)"]
    assert load_data(f"{TOY}:4").image_size == 16
    with refused("AS201", names=("toy_stripes:PATH",)):
        load_data(TOY)


@pytest.mark.usefixtures("toy")
def test_a_registered_source_is_listed_trained_on_and_captured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{TOY}:PATH (stripes)" in describe_sources()
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert TOY in capsys.readouterr().out
    run = tmp_path / "run"
    options = ["--width", "16", "--reduction", "4", "--epochs", "1", "--device", "cpu"]
    assert main(["train", "--data", f"{TOY}:12", "--out", str(run), *options]) == 0
    assert main(["capture", str(run), "--device", "cpu"]) == 0
    assert Recording(run).images().paths == [f"test/{i}" for i in range(12)]


@pytest.mark.parametrize("is_place", [True, False])
def test_only_what_is_a_place_is_stored_as_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_place: bool
) -> None:
    """The text after the colon is the number of images, or the name of a file."""
    monkeypatch.chdir(tmp_path)
    source = DataSource(load_stripes, help="", takes_path=True, is_place=is_place)
    register_data_source(TOY, source)
    try:
        assert form_of(TOY) == f"{TOY}:{'PATH' if is_place else 'TEXT'}"
        assert pinned_source(f"{TOY}:7") == f"{TOY}:7"
        assert pinned_source("digits") == "digits"
        assert list(places_of(f"{TOY}:7", tmp_path, tmp_path / "run")) == ["data_root"]
        assert not is_gone(f"{TOY}:/nowhere/7") or is_place
        (tmp_path / "7").touch()
        expected = f"{TOY}:{tmp_path / '7'}" if is_place else f"{TOY}:7"
        assert pinned_source(f"{TOY}:7") == expected
        assert ("data" in places_of(f"{TOY}:7", tmp_path, tmp_path / "run")) is is_place
        stored = {"data": {"absolute": str(tmp_path), "relative": ".."}}
        assert (find_data(f"{TOY}:7", stored, tmp_path) == f"{TOY}:7") is not is_place
    finally:
        del DATA_SOURCES._known[TOY]


@pytest.mark.usefixtures("toy")
def test_a_recording_by_itself_keeps_a_text_that_is_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_weights(toy_network("resnet18", 2).model, tmp_path / "w.safetensors")
    register_scheme("toyhub", TargetScheme(toy_network, form="toyhub:NAME"))
    try:
        given = ["--model", "toyhub:resnet18", "--weights", "w.safetensors", "--data", f"{TOY}:4"]
        given += ["--image-size", "16", "--no-grad-cam"]
        assert main(["capture", *given, "--device", "cpu", "--out", "r"]) == 0
        assert Recording("r").source().data.source == f"{TOY}:4"
        assert len(Recording("r").images()) == 4
        with refused("AS868", names=("--allow-changed-data", "r")):
            fold("r", "out", gates=["all"], allow_changed_data=True)
        assert not Path("out").exists()
    finally:
        del TARGET_SCHEMES._known["toyhub"]


def toy_network(name: str, num_classes: int | None) -> Target:
    model = build_model(name, attention="se", width=16, reduction=4, num_classes=num_classes or 7)
    return Target(model.eval(), 16, None)


def test_a_registered_target_scheme_is_loaded_by_name(tmp_path: Path) -> None:
    register_scheme("toyhub", TargetScheme(toy_network, form="toyhub:NAME"))
    try:
        model = load_target("toyhub:resnet18", 10).model
        save_weights(model, tmp_path / "w.safetensors")
        given = ["--model", "toyhub:resnet18", "--weights", str(tmp_path / "w.safetensors")]
        given += ["--data", "digits", "--image-size", "16", "--no-grad-cam", "--device", "cpu"]
        assert main(["capture", *given, "--out", str(tmp_path / "r")]) == 0
        again = Recording(tmp_path / "r").network().state_dict()
        assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
        with refused("AS320", names=("toyhub:NAME",)):
            load_target("nothing")
    finally:
        del TARGET_SCHEMES._known["toyhub"]


def test_an_incomplete_or_taken_source_is_not_registered() -> None:
    for thing in (3, DataSource(None, help="none")):  # type: ignore[arg-type]
        with refused("AS123", names=("'wrong'",)):
            register_data_source("wrong", thing)  # type: ignore[arg-type]
    with refused("AS121", names=("'digits'",)):
        register_data_source("digits", DATA_SOURCES["digits"])
    assert "wrong" not in DATA_SOURCES
