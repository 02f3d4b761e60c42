"""Masks and boxes in files: what is inside, for which image, and in which part of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnscope.data.areas import average_areas, even_borders
from attnscope.data.boxes import open_masks
from attnscope.data.decoding import decode
from attnscope.data.masks import Frame, key_of
from tests.making import refused

Array = np.ndarray


def covered(path: Path, name: str, frame: Frame, grid: tuple[int, int]) -> Array:
    source = open_masks(path)
    return source.read(key_of(name), frame).coverage(frame, [grid])[grid]


def save(file: Path, pixels: Array, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


def test_means_over_areas_count_parts_of_pixels() -> None:
    values = np.array([[1.0, 5.0, 9.0]])
    pixels = even_borders(0, 1, 1), even_borders(0, 3, 3)
    halves = even_borders(0, 1, 1), even_borders(0, 3, 2)
    # The middle pixel lies half in each cell: (1 + 2.5) / 1.5 and (2.5 + 9) / 1.5.
    np.testing.assert_allclose(average_areas(values, pixels, halves), [[3.5 / 1.5, 11.5 / 1.5]])
    one = average_areas(values, pixels, (even_borders(0, 1, 1), np.array([0.5, 1.25])))
    np.testing.assert_allclose(one, [[(0.5 * 1 + 0.25 * 5) / 0.75]])
    uneven = average_areas(values, (pixels[0], np.array([0, 1, 1.5, 3])), halves)
    np.testing.assert_allclose(uneven, [[(1 + 2.5) / 1.5, 9]])


def test_means_over_areas_equal_a_mean_over_a_fine_grid() -> None:
    values = np.random.default_rng(0).random((4, 6, 10))
    fine = values.repeat(35, 1).repeat(21, 2)  # 210 rows and columns
    means = average_areas(
        values,
        (even_borders(0, 6, 6), even_borders(0, 10, 10)),
        (even_borders(0, 6, 7), even_borders(0, 10, 5)),
    )
    np.testing.assert_allclose(means, fine.reshape(4, 7, 30, 5, 42).mean((2, 4)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("stored", [False, True])
def test_a_mask_is_turned_and_cropped_as_its_image(
    tmp_path: Path, orientation: int, stored: bool
) -> None:
    """The decoded picture of a white object is the oracle: it is white where the mask is inside."""
    raw = np.zeros((48, 80), np.uint8)
    raw[:24, 20:44] = 255  # reaches two borders of the central square or of the image
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = save(tmp_path / "images" / "a.png", raw, exif=exif)
    frame = Frame.of_file(image, 8, 12)
    assert frame.orientation == orientation
    with Image.open(image) as opened:
        from PIL import ImageOps

        upright = np.asarray(ImageOps.exif_transpose(opened))
    sideways = orientation >= 5
    if stored and not sideways and orientation != 1:
        return  # its size does not tell that it is stored: it counts as upright
    save(tmp_path / "masks" / "a.png", raw if stored else upright)
    pixels = decode(image, 12).pixels
    assert pixels is not None
    seen = pixels[0, 2:10, 2:10].numpy() / 255  # center cropped from 12 to 8
    # 48 pixels become 12, so each pixel is 4 × 4 and the edges of the object are edges of pixels.
    inside = covered(tmp_path / "masks", "a", frame, (8, 8))
    np.testing.assert_array_equal(inside > 0.5, seen > 0.5)
    assert set(np.unique(inside)) <= {0.0, 1.0}
    assert 0 < inside.mean() < 1


@pytest.mark.parametrize(
    ("name", "pixels", "mode"),
    [
        ("a.png", [[0, 1], [2, 0]], "L"),
        ("a.png", [[0, 255], [255, 0]], "1"),
        ("a.tif", [[0, 40000], [1, 0]], "I;16"),
        ("a.bmp", [[0, 7], [7, 0]], "P"),
        ("a.png", [[0, 9], [9, 0]], "RGB"),
    ],
)
def test_nonzero_pixels_of_any_mode_are_inside(
    tmp_path: Path, name: str, pixels: list[list[int]], mode: str
) -> None:
    values = np.array(pixels, np.uint16 if mode == "I;16" else np.uint8)
    image = Image.fromarray(values)
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / name)
    inside = covered(tmp_path, "a", Frame.whole(4, 4), (2, 2))
    np.testing.assert_array_equal(inside, [[0, 1], [1, 0]])


def test_transparent_pixels_of_a_mask_are_outside(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = 255  # opaque white above
    pixels[1, :, 0] = 255  # transparent red below
    save(tmp_path / "a.png", pixels)
    inside = covered(tmp_path, "a", Frame.whole(2, 2), (2, 2))
    np.testing.assert_array_equal(inside, [[1, 1], [0, 0]])


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.webp", "cut.png", "float.tif"])
def test_masks_that_cannot_be_trusted_are_refused(tmp_path: Path, name: str) -> None:
    pixels = np.full((8, 8), 255, np.uint8)
    file = tmp_path / name
    if name == "a.tif":
        save(file, pixels, compression="jpeg")
    elif name == "float.tif":
        Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(file)
    else:
        save(file, pixels)
    if name == "cut.png":
        file.write_bytes(file.read_bytes()[:50])
    with refused("AS251", names=(name, tmp_path)):
        covered(tmp_path, file.stem, Frame.whole(8, 8), (2, 2))


def test_a_mask_of_other_proportions_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.ones((8, 8), np.uint8))
    with refused("AS254", names=("a.png", "8×8", "20×10")):
        covered(tmp_path, "a", Frame.central(10, 20, 8), (2, 2))
    # Half the size, rounded to whole pixels, has the same proportions.
    save(tmp_path / "b.png", np.ones((5, 10), np.uint8))
    assert covered(tmp_path, "b", Frame.central(11, 20, 8), (1, 1)) == 1


def write_boxes(tmp_path: Path, form: str) -> Path:
    boxes = {"cat/a.jpg": [[1, 0, 3, 2], [2, 1, 4, 2]], "b": [[0.5, 0.25, 1, 1]]}
    if form == "csv":
        lines = ["image,label,x0,y0,x1,y1"]
        lines += [f"{n},x,{','.join(map(str, box))}" for n, each in boxes.items() for box in each]
        file = tmp_path / "boxes.csv"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    elif form == "list":
        names = ("x0", "y0", "x1", "y1")
        rows = [
            {"image": n, **dict(zip(names, box, strict=True))}
            for n, each in boxes.items()
            for box in each
        ]
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps(rows))
    else:
        file = tmp_path / "boxes.json"
        file.write_text(json.dumps({"cat/a.jpg": boxes["cat/a.jpg"], "b": boxes["b"][0]}))
    return file


@pytest.mark.parametrize("form", ["csv", "list", "object"])
@pytest.mark.parametrize("of_folder", [False, True])
def test_several_boxes_are_joined(tmp_path: Path, form: str, of_folder: bool) -> None:
    file = write_boxes(tmp_path, form)
    path = tmp_path if of_folder else file
    inside = covered(path, "cat/a.png", Frame.whole(2, 4), (2, 4))
    np.testing.assert_array_equal(inside, [[0, 1, 1, 0], [0, 1, 1, 1]])
    # The box of b covers half of a column and three quarters of a row.
    np.testing.assert_allclose(covered(path, "b.png", Frame.whole(1, 2), (1, 2)), [[0.375, 0]])
    np.testing.assert_allclose(covered(path, "b.png", Frame.whole(1, 2), (1, 1)), [[0.1875]])


def test_a_box_is_cropped_with_its_image(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\na,0,0,6,4\nb,0,0,2,4\nc,-1,0,8.5,4\n")
    frame = Frame.central(4, 8, 4)  # columns 2 to 6
    for name, area in (("a", 1), ("b", 0), ("c", 1)):
        assert covered(tmp_path, name, frame, (1, 1)) == area


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("image,x0,y0,x1\na,1,2,3\n", "y1"),
        ("image,x0,y0,x1,y1\na,1,2,3,two\n", "row 2"),
        ("image,x0,y0,x1,y1\na,1,2,3,nan\n", "row 2"),
        ("image,x0,y0,x1,y1\na,3,2,1,4\n", "row 2"),
        ("image,x0,y0,x1,y1\na,0.1,0.2,0.5,1\n", "pixels"),
        ("image,x0,y0,x1,y1\n", "no boxes"),
        ("image,x0,y0,x1,y1\na,0,0,40,2\n", "8×4"),
    ],
)
def test_boxes_that_are_not_valid_are_refused(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(text)
    with refused("AS252", names=(file, named)):
        covered(file, "a", Frame.whole(4, 8), (1, 1))


def test_a_json_file_of_another_form_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "boxes.json"
    for value in ({"a": [[1, 2, 3]]}, [3], "text", [{"image": "a"}]):
        file.write_text(json.dumps(value))
        with refused("AS252", names=(file,)):
            open_masks(file)


def test_masks_belong_to_the_images_whose_path_they_end(tmp_path: Path) -> None:
    blank = np.zeros((2, 2), np.uint8)
    for name in ("cat/01.png", "03.tif", "cat/09.png"):
        save(tmp_path / name, blank)
    (tmp_path / "notes.txt").write_text("hello")
    source = open_masks(tmp_path)
    paths = ["test/cat/01.jpg", "test/dog/01.jpg", "test/dog/03.v2.jpg", "test/dog/03"]
    assert source.match(paths) == {0: ("cat", "01"), 3: ("03",)}
    assert len(source.passed) == 1
    with refused("AS253", names=("03.tif", "a/03.png", "b/03.png")):
        source.match(["a/03.png", "b/03.png"])
    save(tmp_path / "01.png", blank)
    with refused("AS253", names=("cat/01.png", "test/cat/01.jpg")):
        open_masks(tmp_path).match(paths[:1])
    save(tmp_path / "03.png", blank)
    with refused("AS253", names=("03.tif", "03.png")):
        open_masks(tmp_path)


def test_a_place_without_masks_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing"):
        with refused("AS250", names=(place,)):
            open_masks(place)
    file = tmp_path / "boxes.txt"
    file.write_text("x")
    with refused("AS250", names=(file,)):
        open_masks(file)
