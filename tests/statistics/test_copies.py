"""Copies of images, made by hand: equal, compressed anew, scaled, and merely similar."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from attnscope.recording.recording import Recording
from attnscope.statistics import image_copies
from attnscope.statistics.copies import describe_copies


def picture(rng, side=32):
    """A smooth random picture, as a photograph is."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def with_pictures(make_recording, monkeypatch):
    def make(pictures):
        recording = make_recording(f"r{len(pictures)}", count=len(pictures))
        every = np.stack(pictures)
        monkeypatch.setattr(
            Recording, "pictures", lambda self, rows=slice(None): every[rows], raising=True
        )
        monkeypatch.setattr(Recording, "image", lambda self, i: every[i])
        return recording

    return make


def test_exact_and_near_copies_are_found_and_others_are_not(with_pictures, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [picture(rng) for _ in range(60)]
    pictures[40] = pictures[3]
    Image.fromarray(pictures[7]).save(tmp_path / "small.jpg", quality=60)
    pictures[41] = np.asarray(Image.open(tmp_path / "small.jpg"))
    pictures[42] = np.clip(pictures[3].astype(int) + rng.integers(-4, 5, (32, 32, 3)), 0, 255)
    pictures[42] = pictures[42].astype(np.uint8)
    pictures[43] = np.roll(pictures[5], 6, 1)  # the same thing, elsewhere
    pictures[44] = 255 - pictures[6]
    frame = image_copies(with_pictures(pictures))
    held = frame[frame["images"] > 1]
    groups = {tuple(rows["row"]) for _, rows in held.groupby("group")}
    assert groups == {(3, 40, 42), (7, 41)}
    assert held.loc[held["exact"], "row"].tolist() == [3, 40]
    assert frame["group"].nunique() == 60 - 3


@pytest.mark.parametrize(("brighter", "images"), [(4, 2), (6, 1)])  # 0.08 and 0.12 of it
def test_near_copies_differ_by_less_than_a_tenth_of_the_contrast(with_pictures, brighter, images):
    """A picture that is brighter by d differs by d in every mean gray value."""
    rng = np.random.default_rng(3)
    blocks = rng.permutation(np.repeat([80, 180], 128)).reshape(16, 16)  # the contrast is 50
    gray = np.repeat(np.repeat(blocks, 2, 0), 2, 1).astype(np.uint8)
    one = np.repeat(gray[..., None], 3, -1)
    others = [picture(rng) for _ in range(10)]
    frame = image_copies(with_pictures([one, one + np.uint8(brighter), *others]))
    assert frame.loc[frame["row"] == 0, "images"].item() == images


def test_a_sentence_names_two_copies(with_pictures):
    rng = np.random.default_rng(1)
    pictures = [picture(rng) for _ in range(20)]
    assert describe_copies(with_pictures(pictures)) is None
    pictures.append(pictures[2])
    recording = with_pictures(pictures)
    paths = recording.rows["path"].tolist()
    said = describe_copies(recording)
    assert paths[2] in said
    assert paths[20] in said
    assert said.startswith("2 of 21 ")


def test_blank_pictures_are_copies_of_each_other_only(with_pictures):
    blank = [np.full((32, 32, 3), value, np.uint8) for value in (0, 0, 9)]
    frame = image_copies(with_pictures([*blank, picture(np.random.default_rng(2))]))
    assert frame["images"].tolist() == [2, 2, 1, 1]
    assert frame["exact"].tolist() == [True, True, False, False]


def test_real_digits_are_not_taken_for_copies(with_pictures):
    from sklearn.datasets import load_digits

    images = (load_digits().images[:600] * 15.9375).astype(np.uint8)
    frame = image_copies(with_pictures(list(np.repeat(images[..., None], 3, 3))))
    assert (frame["images"] == 1).all()
