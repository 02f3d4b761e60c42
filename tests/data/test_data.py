"""Sources, what is done to odd files, normalisation and augmentation."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

from attnscope.data import images as data_images
from attnscope.data import load as data_load
from attnscope.data.images import LabelledImages, Normalization, batches
from attnscope.data.load import Data, load_data, load_test_part
from attnscope.data.splits import stratified_split
from attnscope.errors import InputError

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, Any]


def refused(action: Callable[[], object], *said: str) -> None:
    with pytest.raises(InputError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    for text in said:
        assert text in message, message


def same(a: LabelledImages, b: LabelledImages) -> bool:
    return (
        a.paths == b.paths and torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    )


# --- digits ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=16)


def test_digits(digits: Data) -> None:
    parts = [digits.train, digits.validation, digits.test]
    assert [len(p) for p in parts] == [1295, 143, 359]
    assert digits.classes == [str(i) for i in range(10)]
    assert not digits.may_flip
    paths = [path for part in parts for path in part.paths]
    assert len(set(paths)) == len(paths) == 1797, "disjoint and whole"
    for part, share in zip(parts, (0.72, 0.08, 0.2), strict=True):
        counts = torch.bincount(part.labels) / (share * 179.7)
        assert ((counts > 0.85) & (counts < 1.15)).all(), "stratified"
        assert part.images.dtype == torch.uint8
        assert part.images.shape == (len(part), 3, 16, 16)


def test_digits_are_scikit_learns(digits: Data) -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    for part in (digits.train, digits.validation, digits.test):
        rows = [int(path.removeprefix("digits/")) for path in part.paths]
        np.testing.assert_array_equal(part.labels.numpy(), source.target[rows])
        # Twice the size: the mean of 2×2 pixels in the middle of four is between the four.
        row = rows[0]
        picture = part.images[0, 0].numpy().astype(float) * 16 / 255
        assert abs(picture.mean() - source.images[row].mean()) < 0.1
        assert (part.images[0, 0] == part.images[0, 2]).all()


def test_the_split_follows_the_seed_and_the_test_part_does_not(digits: Data) -> None:
    again, other = load_data("digits", image_size=16), load_data("digits", image_size=16, seed=1)
    for name in ("train", "validation", "test"):
        assert same(getattr(digits, name), getattr(again, name))
    assert same(digits.test, other.test)
    assert set(digits.validation.paths) != set(other.validation.paths)
    assert len(other.validation) == len(digits.validation)


def test_the_split_holds_out_one_at_least_and_never_all() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    for share, counts in ((0.01, [1, 1]), (0.5, [1, 2]), (0.99, [1, 3])):
        kept, out = stratified_split(labels, ["a", "b"], share, seed=0)
        assert sorted([*kept, *out]) == list(range(6))
        assert np.bincount(labels[out]).tolist() == counts
        assert set(labels[kept]) == {0, 1}


def test_batches_are_in_order(digits: Data) -> None:
    found = list(batches(digits.test, 100))
    assert [len(y) for _, y in found] == [100, 100, 100, 59]
    assert torch.equal(torch.cat([x for x, _ in found]), digits.test.images)
    assert torch.equal(torch.cat([y for _, y in found]), digits.test.labels)


def test_rows_are_chosen(digits: Data) -> None:
    part = digits.test[np.array([5, 2])]
    assert part.paths == [digits.test.paths[5], digits.test.paths[2]]
    assert torch.equal(part.images[1], digits.test.images[2])
    assert digits.test[2:4].paths == digits.test.paths[2:4]


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("mnist", {}, "data source 'mnist' is not known; take one of digits, cifar10, cifar100"),
        ("", {}, "data source '' is not known"),
        ("folder:", {}, "data source 'folder:' is not known"),
        ("digits:x", {}, "data source 'digits:x' is not known"),
        ("digits", {"image_size": 7}, "image size 7 must lie between 8 and 1024"),
        ("digits", {"image_size": 1025}, "image size 1025 must lie"),
        ("digits", {"validation_share": 0.0}, "validation share 0.0 must lie between 0 and 1"),
        ("digits", {"validation_share": float("nan")}, "validation share nan"),
        ("digits", {"seed": -1}, "seed -1 must be 0 or more"),
        ("cifar10", {"image_size": 224}, "60000 images of 224×224 need 8.4 GiB of memory, more"),
        ("folder:/nowhere/at/all", {}, "folder /nowhere/at/all does not exist; check the path"),
    ],
)
def test_bad_arguments_are_one_line(source: str, options: dict[str, Any], said: str) -> None:
    refused(lambda: load_data(source, download=False, **options), said)


# --- cifar ----------------------------------------------------------------------------------------


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Path, Array, list[int]]:
    """A tiny set in the layout of the original; torchvision is told its hashes, and checks them."""
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


def test_cifar(cifar: tuple[str, Path, Array, list[int]]) -> None:
    name, root, pixels, labels = cifar
    data = load_data(name, data_root=root, download=False)
    assert len(data.test) == 6
    assert len(data.train) + len(data.validation) == len(pixels) - 6
    np.testing.assert_array_equal(data.test.images.numpy(), pixels[-6:])
    assert data.test.paths == [f"test/{i}" for i in range(6)]
    assert data.test.labels.tolist() == labels[-6:]
    for part in (data.train, data.validation):
        for image, label, path in zip(part.images, part.labels, part.paths, strict=True):
            row = int(path.removeprefix("train/"))
            np.testing.assert_array_equal(image.numpy(), pixels[row])
            assert label == labels[row]
    assert data.classes == ["class0", "class1", "class2"]
    assert data.may_flip
    assert data.image_size == 32
    known = {"cifar10": 0.4914, "cifar100": 0.5071}
    assert data.normalization.mean[0] == known[name]


def test_cifar_of_another_size(
    cifar: tuple[str, Path, Array, list[int]],
) -> None:
    name, root, pixels, _ = cifar
    data = load_data(name, data_root=root, download=False, image_size=16)
    assert data.test.images.shape == (6, 3, 16, 16)
    means = pixels[-6:].reshape(6, 3, -1).mean(2)
    np.testing.assert_allclose(data.test.images.float().mean((2, 3)), means, atol=4)


def test_nothing_is_unpickled_that_is_not_the_published_file(
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
            refused(
                lambda: load_data(name, data_root=root, download=False),
                f"{name} does not lie whole under {root}",
                "--data-root",
            )
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


def test_a_missing_cifar_is_not_fetched_unasked(tmp_path: Path, no_network: list[object]) -> None:
    root = tmp_path / "data"
    refused(
        lambda: load_data("cifar10", data_root=root, download=False),
        f"cifar10 does not lie whole under {root}",
        "set --data-root to where it lies",
    )
    assert no_network == []
    assert not root.exists()


def test_a_download_that_fails_leaves_nothing(tmp_path: Path, no_network: list[object]) -> None:
    root = tmp_path / "data"
    refused(
        lambda: load_data("cifar100", data_root=root),
        f"cifar100 is neither under {root} nor could it be downloaded",
        "name resolution",
        "set --data-root",
    )
    assert no_network
    assert not root.exists()


# --- folders --------------------------------------------------------------------------------------


def save(file: Path, pixels: Array | int = 0, mode: str | None = None, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(pixels, int):
        pixels = np.full((12, 12, 3), pixels, np.uint8)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, **options)
    return file


def fill(root: Path, parts: tuple[str, ...] = ("train", "test"), count: int = 3) -> Path:
    for p, part in enumerate(parts):
        for c, name in enumerate(("ant", "bee")):
            for i in range(count):
                save(root / part / name / f"{i}.png", 100 * p + 50 * c + i)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fill(tmp_path / "set")


def load(root: Path, **options: Any) -> Data:
    return load_data(f"folder:{root}", **options)


@pytest.mark.parametrize(
    "options", [{}, {"image_size": 8, "resize": 10}, {"image_size": 16, "skip_unreadable": True}]
)
def test_the_test_part_alone(root: Path, options: dict[str, Any]) -> None:
    whole = load(root, **options)
    part, skipped = load_test_part(f"folder:{root}", **options)
    assert torch.equal(part.images, whole.test.images)
    assert torch.equal(part.labels, whole.test.labels)
    assert (part.paths, part.classes, skipped) == (whole.test.paths, whole.classes, [])
    if "image_size" in options:  # else its size is that of all images
        (root / "train" / "ant" / "0.png").write_bytes(b"no picture")
        part, skipped = load_test_part(f"folder:{root}", **options)
        assert torch.equal(part.images, whole.test.images)
        assert skipped == []
    (root / "test" / "ant" / "0.png").write_bytes(b"no picture")
    if options.get("skip_unreadable"):
        part, skipped = load_test_part(f"folder:{root}", **options)
        assert part.paths == whole.test.paths[1:]
        assert len(skipped) == 1
    else:
        refused(lambda: load_test_part(f"folder:{root}", **options), "1 of 6 images")
    refused(lambda: load_test_part("folders"), "data source 'folders' is not known")


def test_the_test_part_of_digits() -> None:
    part, skipped = load_test_part("digits", image_size=16)
    whole = load_data("digits", image_size=16, seed=3)
    assert torch.equal(part.images, whole.test.images)
    assert (part.paths, skipped) == (whole.test.paths, [])


def values(part: LabelledImages) -> list[int]:
    assert (part.images.flatten(1) == part.images.flatten(1)[:, :1]).all()
    return part.images[:, 0, 0, 0].tolist()


def test_a_folder_of_two_parts(root: Path) -> None:
    data = load(root, validation_share=0.3)
    assert data.classes == ["ant", "bee"]
    assert data.image_size == 12, "small images of one size keep it"
    assert data.test.paths == [f"test/{c}/{i}.png" for c in ("ant", "bee") for i in range(3)]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert values(data.test) == [100, 101, 102, 150, 151, 152]
    assert sorted(values(data.train) + values(data.validation)) == [0, 1, 2, 50, 51, 52]
    assert len(data.validation) == 2
    assert data.skipped == []


@pytest.mark.parametrize(
    ("parts", "validation", "test"),
    [
        (("train", "val", "test"), "val", "test"),
        (("train", "eval", "test"), "eval", "test"),
        (("train", "val", "eval"), "val", "eval"),
        (("train", "eval"), "train", "eval"),
        (("train", "val"), "train", "val"),
    ],
)
def test_parts(tmp_path: Path, parts: tuple[str, ...], validation: str, test: str) -> None:
    data = load(fill(tmp_path, parts))
    assert {p.split("/")[0] for p in data.train.paths} == {"train"}
    assert {p.split("/")[0] for p in data.validation.paths} == {validation}
    assert {p.split("/")[0] for p in data.test.paths} == {test}
    assert len(data.train) == (4 if validation == "train" else 6)


def test_folders_that_cannot_be_used(root: Path) -> None:
    shutil.copytree(root / "test", root / "val")
    shutil.copytree(root / "test", root / "eval")
    refused(lambda: load(root), "has val/, eval/ and test/; remove one")
    for name in ("val", "eval"):
        shutil.rmtree(root / name)
    (root / "test").rename(root / "holdout")
    refused(lambda: load(root), "has no folder test/, val/ or eval/ beside train/; make one")
    (root / "holdout").rename(root / "test")
    (root / "train").rename(root / "training")
    refused(lambda: load(root), "has no folder train/; it must hold train/<class>/")


def test_a_folder_without_images(root: Path) -> None:
    for folder in (root / "train/ant", root / "train/bee"):
        shutil.rmtree(folder)
    refused(lambda: load(root), "train holds no image; it needs two folders of images or more")
    save(root / "train/loose.png")
    refused(lambda: load(root), "train holds no image")
    fill(root, ("train",))
    shutil.rmtree(root / "test")
    (root / "test/ant").mkdir(parents=True)
    refused(lambda: load(root), "test holds no image; it needs <class>/<image> files")


def test_a_folder_with_one_class(root: Path) -> None:
    shutil.rmtree(root / "train/bee")
    refused(lambda: load(root), "train holds one class, ant; it needs two")


def test_a_class_that_train_lacks(root: Path) -> None:
    save(root / "test/cow/1.png")
    refused(lambda: load(root), "test has the class cow, which train/ has not")


def test_a_class_without_images_is_not_dropped_quietly(root: Path) -> None:
    (root / "train/cow").mkdir()
    (root / "train/cow/picture.heic").touch()
    refused(lambda: load(root), "train/cow holds no image; add some or remove the folder")


def test_a_class_that_the_test_part_lacks_keeps_its_label(root: Path) -> None:
    shutil.rmtree(root / "test/ant")
    data = load(root)
    assert data.test.labels.tolist() == [1, 1, 1]
    assert data.classes == ["ant", "bee"]


def test_a_class_with_one_image_cannot_be_split(root: Path) -> None:
    save(root / "train/cow/1.png")
    refused(lambda: load(root), "class cow has one training image only")
    assert len(load(fill(root, ("val",))).train) == 7, "nothing is to be split"


# --- files that are odd ---------------------------------------------------------------------------


def test_files_that_cannot_be_read(root: Path) -> None:
    whole = save(root / "whole.jpg", RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)).read_bytes()
    bad = {
        "train/ant/corrupt.png": b"\x89PNG\r\n\x1a\nnot an image",
        "train/bee/empty.jpg": b"",
        "test/ant/cut.jpg": whole[: len(whole) // 2],
        "test/bee/text.gif": b"hello",
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    (root / "test/bee/gone.png").symlink_to("nowhere.png")
    os.mkfifo(root / "test/bee/pipe.png")
    refused(
        lambda: load(root),
        "6 of 18 images cannot be read: train/ant/corrupt.png (cannot identify image file); "
        "train/bee/empty.jpg (empty file); test/ant/cut.jpg (",
        "; ...; mend them, or go on without them with --skip-unreadable",
    )
    data = load(root, skip_unreadable=True)
    assert [line.split(" (")[0] for line in data.skipped] == [
        *["train/ant/corrupt.png", "train/bee/empty.jpg", "test/ant/cut.jpg"],
        *["test/bee/gone.png", "test/bee/pipe.png", "test/bee/text.gif"],
    ]
    assert data.skipped[3].endswith("(no regular file)")
    assert values(data.test) == [100, 101, 102, 150, 151, 152]
    assert len(data.train) + len(data.validation) == 6


def test_a_class_without_a_readable_image(root: Path) -> None:
    for file in (root / "train/bee").iterdir():
        file.write_bytes(b"")
    refused(
        lambda: load(root, skip_unreadable=True), "class bee of", "has no readable image; add some"
    )


def one_image(root: Path, **options: Any) -> Tensor:
    """``test/cow/image.*`` as it is read."""
    fill(root)
    for i in range(2):
        save(root / f"train/cow/{i}.png")
    data = load(root, **options)
    (row,) = (i for i, path in enumerate(data.test.paths) if "/cow/" in path)
    return data.test.images[row]


COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 120, 150]]], np.uint8)
PICTURE = COLOURS.repeat(6, 0).repeat(6, 1)  # 12×12


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".ppm", ".Webp"])
def test_kinds_of_files(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".Webp" else {}
    save(tmp_path / f"test/cow/image{suffix}", PICTURE, **options)
    np.testing.assert_array_equal(one_image(tmp_path).permute(1, 2, 0).numpy(), PICTURE)


def test_jpeg_and_gif(tmp_path: Path) -> None:
    save(tmp_path / "a/test/cow/image.JPEG", PICTURE, quality=95, subsampling=0)
    found = one_image(tmp_path / "a").permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found.astype(int), PICTURE, atol=12)
    first, second = Image.fromarray(PICTURE), Image.new("RGB", (12, 12))
    (tmp_path / "b/test/cow").mkdir(parents=True)
    first.save(tmp_path / "b/test/cow/image.gif", save_all=True, append_images=[second])
    found = one_image(tmp_path / "b").permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, PICTURE, "the first frame")


def test_gray_palette_and_alpha(tmp_path: Path) -> None:
    gray = PICTURE[:, :, 2]
    alpha = np.full((12, 12, 1), 128, np.uint8)
    palette = Image.fromarray(PICTURE).quantize(8)
    cases = {
        "L": (Image.fromarray(gray), gray[:, :, None].repeat(3, 2)),
        "LA": (
            Image.fromarray(np.concatenate([gray[:, :, None], alpha], 2)),
            gray[:, :, None].repeat(3, 2),
        ),
        "1": (Image.fromarray(gray > 100), (gray > 100)[:, :, None].repeat(3, 2) * 255),
        "P": (palette, PICTURE),
        "RGBA": (Image.fromarray(np.concatenate([PICTURE, alpha], 2)), PICTURE),
    }
    for name, (image, expected) in cases.items():
        assert image.mode == name
        file = tmp_path / name / "test/cow/image.png"
        file.parent.mkdir(parents=True)
        image.save(file)
        found = one_image(tmp_path / name).permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found, expected, name)


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255, 3])])
def test_a_palette_with_transparent_colours(tmp_path: Path, transparency: int | bytes) -> None:
    file = tmp_path / "test/cow/image.png"
    file.parent.mkdir(parents=True)
    Image.fromarray(PICTURE).quantize(4).save(file, transparency=transparency)
    with Image.open(file) as written:
        assert "transparency" in written.info
    np.testing.assert_array_equal(one_image(tmp_path).permute(1, 2, 0).numpy(), PICTURE)


def png(file: Path, pixels: Array, colour_type: int) -> None:
    """A PNG of 16 bits a channel, written by hand: Pillow writes gray ones only."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    file.parent.mkdir(parents=True)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


DEEP = np.linspace(0, 65535, 144).round().astype(np.uint16).reshape(12, 12)


def test_16_bit_gray_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    png(tmp_path / "a/test/cow/image.png", DEEP, 0)
    save(tmp_path / "b/test/cow/image.tif", DEEP)
    expected = (DEEP / 257).round()
    assert (expected < 255).sum() > 140
    for name in "ab":
        for channel in one_image(tmp_path / name).numpy():
            np.testing.assert_array_equal(channel, expected)


def test_16_bit_colour_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    pixels = np.stack([DEEP, DEEP[::-1], DEEP.T], 2)
    png(tmp_path / "test/cow/image.png", pixels, 2)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, pixels / 257, atol=1)


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (DEEP.astype(np.int32) * 3, "pixels of more than 16 bits"),
        (DEEP.astype(np.int32) - 1, "pixels of more than 16 bits"),
        (DEEP.astype(np.float32) / 65535, "floating-point pixels"),
    ],
)
def test_pixels_whose_scale_is_not_known_are_refused(
    root: Path, pixels: Array, reason: str
) -> None:
    save(root / "test/ant/deep.tif", pixels)
    refused(lambda: load(root), "1 of 13 images cannot be read: test/ant/deep.tif", reason)


def test_cmyk(tmp_path: Path) -> None:
    save(tmp_path / "test/cow/image.jpg", PICTURE, "CMYK", quality=95, subsampling=0)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found.astype(int), PICTURE, atol=16)


def test_exif_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90° clockwise to look at it
    save(tmp_path / "test/cow/image.png", PICTURE, exif=exif)
    found = one_image(tmp_path).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, np.rot90(PICTURE, -1))


def test_links(root: Path, tmp_path: Path) -> None:
    inside = root / "test/ant/link.png"
    inside.symlink_to(root / "test/ant/0.png")
    assert values(load(root).test) == [100, 101, 102, 100, 150, 151, 152]
    inside.unlink()
    outside = save(tmp_path / "elsewhere/cow/1.png")
    (root / "test/ant/link.png").symlink_to(outside)
    refused(lambda: load(root), "test/ant/link.png leads outside", "replace the link by the file")
    (root / "test/ant/link.png").unlink()
    (root / "train/cow").symlink_to(outside.parent)
    refused(lambda: load(root), "train/cow/1.png leads outside")
    (root / "train/cow").unlink()
    (root / "train/ant/more").symlink_to(root / "train/bee")
    refused(lambda: load(root), "train/ant/more is a link to a folder; replace it by the folder")
    (root / "train/ant/more").unlink()
    (root / "train/ant/loop.png").symlink_to("loop.png")
    refused(lambda: load(root), "train/ant/loop.png (no regular file)")
    (root / "train/ant/loop.png").unlink()
    (tmp_path / "name").symlink_to(root)
    assert len(load(tmp_path / "name").test) == 6, "the folder itself may be a link"


def test_hidden_files_and_nested_folders(root: Path) -> None:
    (root / "test/ant/._0.png").write_bytes(b"left by another system")
    (root / "test/ant/.thumbnails").mkdir()
    (root / "test/ant/.thumbnails/0.png").write_bytes(b"nor this")
    (root / "train/.cache").mkdir()
    (root / "test/ant/notes.txt").write_text("no image")
    save(root / "test/ant/more/deep/9.png", 9)
    data = load(root)
    assert data.test.paths[3] == "test/ant/more/deep/9.png"
    assert len(data.test) == 7
    assert data.skipped == []


@pytest.mark.parametrize("limit", [100, 60])  # an error, and Pillow's mere warning
def test_decompression_bombs(root: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    save(root / "test/ant/bomb.png", np.zeros((16, 16, 3), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", {100: 150, 60: 127}[limit])
    for folder in ("train", "test"):
        for file in (root / folder).rglob("?.png"):
            save(file, np.zeros((8, 8, 3), np.uint8))
    refused(lambda: load(root), "1 of 13 images", "test/ant/bomb.png (Image size (256 pixels)")
    assert len(load(root, skip_unreadable=True).skipped) == 1


def test_images_of_several_sizes_are_centre_crops_of_224(tmp_path: Path) -> None:
    wide = np.zeros((50, 150, 3), np.uint8)
    wide[:, :50], wide[:, 50:100], wide[:, 100:] = 10, 200, 90
    for name, pixels in {"wide": wide, "tall": wide.transpose(1, 0, 2)}.items():
        save(tmp_path / name / "test/cow/image.png", pixels)
        found = one_image(tmp_path / name)
        assert found.shape == (3, 224, 224)
        # The way that reads well and fills the memory: all resized, then the middle cut out.
        whole = Image.fromarray(pixels)
        resized = whole.resize(tuple(round(s * 224 / 50) for s in whole.size), 2)
        left, top = ((s - 224) // 2 for s in resized.size)
        expected = np.array(resized.crop((left, top, left + 224, top + 224)))
        np.testing.assert_allclose(found.permute(1, 2, 0).int(), expected.astype(int), atol=1)


def test_sizes(root: Path) -> None:
    assert load(root, image_size=20).test.images.shape == (6, 3, 20, 20)
    for size, expected in ((96, 96), (97, 224)):
        for file in root.rglob("*.png"):
            save(file, np.zeros((size, size, 3), np.uint8))
        assert load(root).image_size == expected
    for file in root.rglob("*.png"):
        save(file, np.zeros((30, 40, 3), np.uint8))
    assert load(root).image_size == 224


def test_a_very_long_image_takes_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shorter side 2, longer side 20,000: the whole at 224 would have 500 million pixels."""
    save(tmp_path / "test/cow/image.png", np.full((2, 20_000, 3), 5, np.uint8))
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *a, **k: (sizes.append(size), resize(self, size, *a, **k))[1],
    )
    assert (one_image(tmp_path) == 5).all()
    assert set(sizes) == {(224, 224)}


def test_more_than_the_memory_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_images, "_MEMORY_LIMIT", 12 * 3 * 12 * 12 - 1)
    refused(lambda: load(root), "12 images of 12×12 need", "take a smaller --image-size")
    monkeypatch.setattr(data_images, "_MEMORY_LIMIT", 12 * 3 * 12 * 12)
    load(root)


# --- normalisation --------------------------------------------------------------------------------


def test_normalisation_is_measured_on_the_training_part_alone(root: Path) -> None:
    for file in (root / "train").rglob("*.png"):
        save(file, RNG.integers(0, 200, (12, 12, 3), dtype=np.uint8))
    data = load(root)
    pixels = data.train.images.numpy() / 255
    np.testing.assert_allclose(data.normalization.mean, pixels.mean((0, 2, 3)), atol=6e-5)
    np.testing.assert_allclose(data.normalization.std, pixels.std((0, 2, 3)), atol=6e-5)


def every_value() -> Tensor:
    x = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    return torch.cat([x, x.flip(2), x.transpose(2, 3)], 1).repeat(2, 1, 1, 1)


@pytest.mark.parametrize(
    "normalization",
    [
        *data_load._KNOWN_NORMALIZATIONS.values(),
        Normalization((0.0, 0.5, 1.0), (1 / 255, 0.5, 1.0)),
    ],
)
def test_normalisation_is_undone_exactly(normalization: Normalization) -> None:
    images = every_value()
    x = normalization.apply(images)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    mean, std = (np.array(v)[:, None, None] for v in (normalization.mean, normalization.std))
    np.testing.assert_allclose(x, (images.numpy() / 255 - mean) / std, rtol=1e-4, atol=1e-4)
    assert torch.equal(normalization.undo(x), images)
    assert torch.equal(images, every_value()), "not changed in place"


def test_what_was_pushed_outside_is_clipped() -> None:
    x = torch.tensor([-9.0, 9.0]).expand(1, 3, 1, 2)
    assert Normalization((0.5,) * 3, (0.5,) * 3).undo(x)[0, 0, 0].tolist() == [0, 255]


def test_a_set_of_one_colour_has_a_deviation(root: Path) -> None:
    for file in root.rglob("*.png"):
        save(file, 77)
    data = load(root)
    assert min(data.normalization.std) > 0
    assert torch.equal(
        data.normalization.undo(data.normalization.apply(data.test.images)), data.test.images
    )


def test_images_to_crop_from() -> None:
    """Held-out images are the middles of larger ones; training images stay large."""
    data, large = load_data(image_size=24, resize=30), load_data(image_size=30)
    assert data.image_size == 24
    assert torch.equal(data.train.images, large.train.images)
    assert data.normalization == large.normalization
    for part in ("validation", "test"):
        middle = getattr(large, part).images[:, :, 3:27, 3:27]
        assert torch.equal(getattr(data, part).images, middle)
        assert getattr(data, part).paths == getattr(large, part).paths
    assert torch.equal(data.train.center_crop(24).images, data.train.images[:, :, 3:27, 3:27])
    for resize, size in ((20, 24), (40, None), (2000, 24)):
        with pytest.raises(InputError, match=f"resize {resize} must lie between the image size"):
            load_data(image_size=size, resize=resize)


def test_a_name_that_is_no_utf8_is_told(root: Path) -> None:
    """As of a Latin-1 system: it could be trained on, and no recording could name it."""
    name = os.fsencode(min((root / "train").iterdir())) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as stream:
            Image.new("RGB", (8, 8)).save(stream, "PNG")
    except OSError:
        pytest.skip("this file system refuses such names")
    refused(lambda: load_data(f"folder:{root}"), "is not UTF-8", "rename the file")
