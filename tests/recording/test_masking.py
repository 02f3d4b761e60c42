"""Masks of a recording: what is stored, what is counted, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attnscope import report
from attnscope.commands.main import main
from attnscope.data.load import DataSettings
from attnscope.errors import InputError
from attnscope.recording.masking import add_masks
from attnscope.recording.masks import find_masks, has_masks, masks_of, write_masks
from attnscope.recording.places import masks_file
from attnscope.recording.recording import Recording
from tests.making import refused, refused_command

Make = Callable[..., Recording]


def write_mask(folder: Path, name: str, pixels: np.ndarray) -> None:
    file = folder / f"{name}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file)


def left_half(side: int = 16) -> np.ndarray:
    pixels = np.zeros((side, side), np.uint8)
    pixels[:, : side // 2] = 1
    return pixels


def draw_pictures(
    monkeypatch: pytest.MonkeyPatch, recording: Recording, pictures: np.ndarray
) -> None:
    rgb = np.repeat(pictures[..., None].astype(np.uint8), 3, 3)
    monkeypatch.setattr(Recording, "pictures", lambda self, rows=slice(None): rgb[rows])


def test_masks_are_stored_on_the_grid_of_each_map(make_recording: Make, tmp_path: Path) -> None:
    recording = make_recording(count=6)
    paths = [Path(path).with_suffix("") for path in recording.rows["path"]]
    write_mask(tmp_path / "masks", str(paths[0]), left_half(32))  # twice the size of the picture
    write_mask(tmp_path / "masks", str(Path(*paths[1].parts[1:])), left_half())
    write_mask(tmp_path / "masks", paths[2].name, np.zeros((16, 16)))
    write_mask(tmp_path / "masks", paths[3].name, np.ones((16, 16)))
    corner = np.zeros((16, 16))
    corner[0, 0] = 7
    write_mask(tmp_path / "masks", paths[4].name, corner)
    write_mask(tmp_path / "masks", "stranger", corner)
    made = add_masks(recording, tmp_path / "masks")
    facts = made.facts
    counts = (facts.images, facts.used, facts.missing, facts.empty, facts.full, facts.unused)
    assert counts == (6, 3, 1, 1, 1, 1)
    assert any("stranger.png" in note for note in facts.notes)
    stored = masks_of(Recording(recording.folder))
    assert stored.facts == facts
    assert stored.rows.tolist() == [0, 1, 4]
    np.testing.assert_allclose(stored.areas, [0.5, 0.5, 1 / 256])
    for grid in ((8, 8), (4, 4)):
        expected = np.zeros((3, *grid))
        expected[:2, :, : grid[1] // 2] = 1
        expected[2, 0, 0] = grid[0] * grid[1] / 256
        np.testing.assert_array_equal(stored.inside(grid), expected.astype(np.float32))
    np.testing.assert_array_equal(stored.pictures[0], 255 * left_half())
    with refused("AS696", names=("5×5",)):
        stored.inside((5, 5))
    assert masks_file(recording.folder).is_relative_to(recording.folder.parents[1])


def test_images_of_a_folder_say_how_masks_are_cropped(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording(count=3)
    for i, path in enumerate(recording.rows["path"]):
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 32)).save(file)
        mask = np.zeros((32, 64))
        mask[:, 16 : 32 if i < 2 else 48] = 1  # the left half of the central square, or all of it
        write_mask(tmp_path / "masks", Path(path).stem, mask)
    source = SimpleNamespace(
        data=DataSettings(f"folder:{tmp_path / 'images'}"), network=SimpleNamespace(image_size=16)
    )
    monkeypatch.setattr(Recording, "has_source", True)
    monkeypatch.setattr(Recording, "source", lambda self: source)
    made = add_masks(recording, tmp_path / "masks")
    assert (made.facts.used, made.facts.full) == (2, 1)
    np.testing.assert_array_equal(made.pictures, np.stack([255 * left_half()] * 2))
    (tmp_path / "images" / recording.rows["path"][1]).unlink()
    with refused("AS698", names=(recording.rows["path"][1],)):
        add_masks(recording, tmp_path / "masks")


def test_boxes_are_in_pixels_of_the_network_unless_images_are_files(
    make_recording: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording(count=2)
    file = tmp_path / "boxes.csv"
    name = recording.rows["path"][1]
    file.write_text(f"image,x0,y0,x1,y1\n{name},0,0,8,16\n")
    assert add_masks(recording, file).areas.tolist() == [0.5]
    large = np.zeros((2, 128, 128))
    draw_pictures(monkeypatch, recording, large)  # the picture may be smaller than the image
    with refused("AS698", names=(recording.folder,)):
        add_masks(recording, file)


@pytest.mark.parametrize("paper", [0, 250])
def test_ink_is_what_differs_from_the_paper(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch, paper: int
) -> None:
    recording = make_recording(count=12)
    pictures = np.full((12, 16, 16), paper)
    ink = np.zeros(pictures.shape, bool)
    ink[:, 4:12, 6:9] = True
    ink[5] = False  # an empty page
    pictures[ink] = 125 + 90 * (1 if paper < 128 else -1)
    pictures[:, 4:12, 9] = paper + (20 if paper < 128 else -20)  # a gray edge
    draw_pictures(monkeypatch, recording, pictures)
    made = add_masks(recording, "ink")
    assert (made.facts.kind, made.facts.used, made.facts.empty) == ("ink", 11, 1)
    np.testing.assert_array_equal(made.pictures > 0, ink[made.rows])
    stored = masks_of(recording)
    for grid, values in made.shares.items():
        np.testing.assert_array_equal(stored.inside(grid), values)
    np.testing.assert_array_equal(made.inside((8, 8))[0, 2:6], [[0, 0, 0, 1, 0.5, 0, 0, 0]] * 4)


def test_pictures_that_are_no_drawings_have_no_ink(
    make_recording: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = make_recording(count=12)
    with refused("AS695", names=(recording.folder, "colors")):
        add_masks(recording, "ink")  # noise in three channels
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 16))
    draw_pictures(monkeypatch, recording, noise)
    with refused("AS695", names=("of one value",)):
        add_masks(recording, "ink")
    mixed = np.zeros((12, 16, 16))
    mixed[::2] = 255
    mixed[:, 5:9, 5:9] = 128
    draw_pictures(monkeypatch, recording, mixed)
    with refused("AS695", names=("dark",)):
        add_masks(recording, "ink")
    draw_pictures(monkeypatch, recording, np.zeros((12, 16, 16)))
    with refused("AS694", names=(recording.folder,)):
        add_masks(recording, "ink")
    assert not has_masks(recording)


def test_masks_of_which_none_can_be_used_are_refused(make_recording: Make, tmp_path: Path) -> None:
    recording = make_recording(count=2)
    write_mask(tmp_path / "masks", "stranger", left_half())
    with refused("AS694", names=("1 masks", recording.rows["path"][0])):
        add_masks(recording, tmp_path / "masks")
    write_mask(tmp_path / "masks", Path(recording.rows["path"][0]).stem, np.zeros((16, 16)))
    with refused("AS694", names=("1 are missing", "1 are empty")):
        add_masks(recording, tmp_path / "masks")


def test_a_recording_without_maps_is_refused(write_recording: Make, tmp_path: Path) -> None:
    with refused("AS697"):
        add_masks(write_recording(labels=[0, 1]), "ink")


def test_every_flipped_bit_is_found(make_recording: Make, tmp_path: Path) -> None:
    recording = make_recording(count=3)
    for path in recording.rows["path"]:
        write_mask(tmp_path / "masks", Path(path).stem, left_half())
    add_masks(recording, tmp_path / "masks")
    file = masks_file(recording.folder)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*rng.integers(0, header, 100), *rng.integers(header, len(whole), 100)]
    unseen = []
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        with suppress(InputError):
            # None, with a warning: the masks seem to be of another recording.
            unseen += [] if find_masks(recording) is None else [int(place)]
    assert not unseen
    file.write_bytes(whole)
    assert find_masks(recording) is not None


def test_masks_of_an_earlier_recording_are_left_out(
    make_recording: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = make_recording(count=3)
    for path in recording.rows["path"]:
        write_mask(tmp_path / "masks", Path(path).stem, left_half())
    made = add_masks(recording, tmp_path / "masks")
    manifest = recording.folder / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert not has_masks(recording)
    with caplog.at_level(logging.WARNING):
        assert find_masks(recording) is None
    assert str(masks_file(recording.folder)) in caplog.text
    write_masks(recording, made)  # replaces them
    assert has_masks(recording)


@pytest.mark.parametrize("command", ["figures", "report"])
def test_commands_take_masks_and_count_them(
    make_recording: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    recording = make_recording(count=3)
    seen = []
    for name in ("write_figures", "write_report"):  # what they draw is tested elsewhere
        monkeypatch.setattr(
            report, name, lambda *a, **k: seen.append(has_masks(recording)) or [tmp_path / "a.png"]
        )
    for path in recording.rows["path"][:2]:
        write_mask(tmp_path / "masks", Path(path).stem, left_half())
    write_mask(tmp_path / "masks", "stranger", left_half())
    folder = str(recording.folder)
    refused_command(
        capsys, "AS250", command, folder, "--masks", tmp_path / "none", names=(tmp_path / "none",)
    )
    assert not seen
    assert main([command, folder, "--masks", str(tmp_path / "masks")]) == 0
    printed = capsys.readouterr()
    assert "2 of 3 images" in printed.out
    assert "stranger.png" in printed.err
    assert main([command, folder]) == 0
    assert seen == [True, True]  # they stay
