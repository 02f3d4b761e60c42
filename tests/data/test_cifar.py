"""CIFAR, read from small files in the original layout."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision

from attnscope.data.load import load_data
from tests.data.making import RNG, Array
from tests.making import refused


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path, Array, list[int]]:
    """A tiny data set in the original layout, whose hashes torchvision is told and checks."""
    name = request.param
    source = getattr(torchvision.datasets, name.upper())
    key = "labels" if name == "cifar10" else "fine_labels"
    classes = [f"class{i}" for i in range(3)]
    folder = tmp_path / "root" / source.base_folder
    folder.mkdir(parents=True)

    def put(file: str, content: dict[str, object]) -> str:
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    pixels, labels = [], []
    lists: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for which, files in lists.items():
        for file, _ in getattr(source, which):
            rows = RNG.integers(0, 256, (6, 3072), dtype=np.uint8)
            targets = [0, 1, 2, 0, 1, 2]
            files.append([file, put(file, {"data": rows, key: targets})])
            pixels.append(rows)
            labels.extend(targets)
        monkeypatch.setattr(source, which, files)
    meta = {**source.meta, "md5": put(source.meta["filename"], {source.meta["key"]: classes})}
    monkeypatch.setattr(source, "meta", meta)
    return name, tmp_path / "root", np.concatenate(pixels).reshape(-1, 3, 32, 32), labels


def test_splits_labels_and_pixels_are_those_of_the_files(
    cifar: tuple[str, Path, Array, list[int]],
) -> None:
    name, root, pixels, labels = cifar
    data = load_data(name, data_root=root, download=False)
    assert len(data.test) == 6
    assert len(data.train) + len(data.validation) == len(pixels) - 6
    np.testing.assert_array_equal(data.test.images.numpy(), pixels[-6:])
    assert data.test.paths == [f"test/{i}" for i in range(6)]
    assert data.test.labels.tolist() == labels[-6:]
    for split in (data.train, data.validation):
        for image, label, path in zip(split.images, split.labels, split.paths, strict=True):
            row = int(path.removeprefix("train/"))
            np.testing.assert_array_equal(image.numpy(), pixels[row])
            assert label == labels[row]
    assert data.classes == ["class0", "class1", "class2"]
    assert data.may_flip
    assert data.image_size == 32
    known = {"cifar10": 0.4914, "cifar100": 0.5071}
    assert data.normalization.mean[0] == known[name]


def test_images_can_be_resized(
    cifar: tuple[str, Path, Array, list[int]],
) -> None:
    name, root, pixels, _ = cifar
    data = load_data(name, data_root=root, download=False, image_size=16)
    assert data.test.images.shape == (6, 3, 16, 16)
    means = pixels[-6:].reshape(6, 3, -1).mean(2)
    np.testing.assert_allclose(data.test.images.float().mean((2, 3)), means, atol=4)


def test_only_the_published_files_are_unpickled(
    cifar: tuple[str, Path, Array, list[int]], tmp_path: Path
) -> None:
    name, root, _, _ = cifar

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "it ran"),)

    for file in sorted(root.rglob("*")):
        if file.is_file():
            before = file.read_bytes()
            file.write_bytes(pickle.dumps(Evil()))
            with refused("AS202", names=(name, root, "--data-root")):
                load_data(name, data_root=root, download=False)
            file.write_bytes(before)
    assert not (tmp_path / "it ran").exists()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return asked


def test_a_missing_data_set_is_not_downloaded_without_permission(
    tmp_path: Path, no_network: list[object]
) -> None:
    root = tmp_path / "data"
    with refused("AS202", names=("cifar10", root, "--data-root")):
        load_data("cifar10", data_root=root, download=False)
    assert no_network == []
    assert not root.exists()


def test_a_failed_download_leaves_no_folder(tmp_path: Path, no_network: list[object]) -> None:
    root = tmp_path / "data"
    with refused("AS203", names=("cifar100", root, "name resolution", "--data-root")):
        load_data("cifar100", data_root=root)
    assert no_network
    assert not root.exists()
