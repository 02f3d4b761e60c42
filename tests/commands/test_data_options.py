"""Options of ``attnscope capture`` about images, and what it says about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnscope.commands.main import main
from attnscope.recording.recording import Recording
from tests.capturing.known import COLORS, colored, gates_of
from tests.making import refused, refused_command

KNOWN = "tests.capturing.known"
UNCHANGED = ("--mean", "0", "0", "0", "--std", "1", "1", "1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(root: Path, classes: dict[str, tuple[int, int, int]], count: int = 3) -> Path:
    """``root/train/CLASS`` and ``root/test/CLASS`` with images of one color each."""
    for s, split in enumerate(("train", "test")):
        for name, color in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.full((8, 8, 3), color, np.uint8)
                pixels[0, 0] = 3 * s + i  # no two images are equal
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


FRUIT = dict(zip(COLORS, ((250, 0, 0), (0, 250, 0), (0, 0, 250)), strict=True))


def run(model: str, *options: object, data: object = "folder:data") -> Recording:
    given = ["capture", "--model", f"{KNOWN}:{model}", "--data", data, "--out", "out", *options]
    assert main(list(map(str, given))) == 0
    return Recording("out")


def test_a_list_of_classes_orders_the_outputs(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "data", FRUIT, count=2)
    names = ["lime", "plum", "apple", "quince", "rose hip"]
    (place / "names.txt").write_text("\n".join(names))
    found = run("five", *UNCHANGED, "--classes", "names.txt")
    assert found.classes == names
    assert [names[k] for k in found.labels] == ["apple"] * 2 + ["lime"] * 2 + ["plum"] * 2
    assert found.source().data.classes == tuple(names)
    assert found.images().classes == names, "the images are opened again in the same order"
    (place / "names.txt").write_text("lime\nplum\n")
    refused_command(
        capsys, "AS226", "capture", "--model", f"{KNOWN}:color", "--data", "folder:data",
        "--out", "other", "--classes", "names.txt", names=("apple", "--classes"),
    )  # fmt: skip


def test_numbers_as_text_are_named_and_natural_order_is_an_option(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "data", {str(k): (20 * k,) * 3 for k in range(12)})
    found = run("numbered", *UNCHANGED)
    assert found.classes[:3] == ["0", "1", "10"]
    said = capsys.readouterr().err.splitlines()
    assert sum("--class-order natural" in line for line in said) == 1
    assert found.right.mean() < 0.5
    assert any("100%" in line and "--classes" in line for line in said), "another order is right"
    (place / "out").rename(place / "text")
    found = run("numbered", *UNCHANGED, "--class-order", "natural")
    assert found.right.all()
    assert "class-order" not in capsys.readouterr().err


def test_one_channel_is_an_option(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(place / "data", {"dark": (250, 0, 0), "light": (0, 250, 0)})
    given = ["--model", f"{KNOWN}:bright", "--data", "folder:data", "--out", "out"]
    refused_command(capsys, "AS339", "capture", *given, names=("--channels 1",))
    found = run("bright", "--channels", 1, "--mean", 0, "--std", 1)
    assert found.right.all(), "red is darker than green"
    red, green = (found.image(row)[7, 7].tolist() for row in (0, 5))
    assert (red, green) == ([75] * 3, [147] * 3), "0.299 and 0.587 of 250"
    assert found.images().images.shape == (6, 1, 8, 8)
    assert main(["inspect", f"{KNOWN}:bright", "--image-size", "16", "--channels", "1"]) == 0
    assert "sigmoid" in capsys.readouterr().out
    refused_command(
        capsys, "AS339", "inspect", f"{KNOWN}:bright", "--image-size", 16, names=("--channels 1",)
    )


def test_the_normalization_of_gray_images_is_measured(place: Path) -> None:
    write(place / "data", {"dark": (50,) * 3, "light": (150,) * 3})
    normalization = run("bright", "--channels", 1).source().network.normalization
    assert normalization is not None
    values = np.asarray([0] * 0 + [50] * 63 * 3 + [150] * 63 * 3)
    np.testing.assert_allclose(normalization.mean, values.mean() / 255, atol=0.02)
    assert len(normalization.std) == 1


def test_the_size_and_the_normalization_of_the_images_are_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "data", FRUIT)
    run("color", "--mean", "0.1", "0.2", "0.3", "--std", "0.4", "0.5", "0.6")
    said = capsys.readouterr().err
    for value in ("8×8", "0.1, 0.2, 0.3", "0.4, 0.5, 0.6"):
        assert said.count(value) == 1


def test_what_is_passed_over_is_said_and_recorded(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "data", FRUIT)
    (place / "data/extra").mkdir()
    (place / "data/test/lime/labels.txt").touch()
    found = run("color", *UNCHANGED)
    said = capsys.readouterr().err
    for name in ("extra", "test/lime/labels.txt"):
        assert name in said
        assert sum(name in note for note in found.about["notes"]) == 1
    (place / "data/extra").rmdir()
    (place / "data/test/lime/labels.txt").unlink()
    (place / "out").rename(place / "first")
    assert "notes" not in run("color", *UNCHANGED).about


def test_only_changes_of_the_recorded_images_are_said(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --mean and --std all splits are read, for the normalization."""
    write(place / "data", FRUIT)
    wide = Image.new("RGB", (9, 8), "red")
    for split, count in (("train", 3), ("test", 2)):
        for i in range(count):
            wide.save(place / f"data/{split}/apple/wide{i}.png")
    for split in ("test", "train"):
        found = run("color", "--image-size", 8, "--split", split)
        count = sum("wide" in path for path in found.rows["path"])
        (note,) = found.about["notes"]
        assert 0 < count < 5
        assert note.split()[1] == str(count)
        (place / "out").rename(place / split)
        assert sum("not square" in line for line in capsys.readouterr().err.splitlines()) == 1


def test_a_normalization_of_other_pixel_values_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "data", FRUIT)
    given = ["--model", f"{KNOWN}:color", "--data", "folder:data", "--out", "out"]
    wrong = ["--mean", *["127.5"] * 3, "--std", *["127.5"] * 3]
    for command in ("capture", "analyze"):
        refused_command(
            capsys, "AS235", command, *given, *wrong, names=("127.5", "--mean 0.5 0.5 0.5")
        )
    assert not (place / "out").exists()


def test_classes_of_different_sizes_have_a_balanced_accuracy(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place / "data", FRUIT, count=4)
    run("color", *UNCHANGED)
    assert "balanced" not in capsys.readouterr().out
    (place / "out").rename(place / "first")
    for i in range(3):  # images of lime that are red
        (place / f"data/test/lime/{i}.png").unlink()
    Image.new("RGB", (8, 8), "red").save(place / "data/test/lime/3.png")
    run("color", *UNCHANGED)
    said = capsys.readouterr().out
    assert "accuracy 88.89%, balanced accuracy 66.67%" in said


@pytest.mark.parametrize("name", ["no_splits", "splits"])
def test_a_data_set_is_named_by_module_and_callable(
    place: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("color", data=f"{KNOWN}:{name}")
    images, labels = colored()
    (gate,) = found.gates
    np.testing.assert_allclose(found[gate.name], gates_of(images.numpy()), atol=1e-6)
    assert found.labels.tolist() == labels.tolist()
    assert found.classes == list(COLORS)
    assert "not normalize" in capsys.readouterr().err
    again = found.images()
    assert [int(again[i][1]) for i in range(9)] == labels.tolist()
    assert main(["intervene", "out", "--experiments", "replace", "--images", "3"]) == 0
    assert (place / "out-interventions" / "replacement.parquet").is_file()


def test_a_data_set_can_import_modules_of_its_folder_when_it_is_read(place: Path) -> None:
    (place / "lazy_reader.py").write_text("from tests.capturing.known import no_splits as read\n")
    (place / "lazy_data_set.py").write_text(
        "class Lazy:\n"
        "    classes = ['apple', 'lime', 'plum']\n"
        "    def __len__(self):\n"
        "        return 9\n"
        "    def __getitem__(self, index):\n"
        "        import lazy_reader\n"
        "        return lazy_reader.read()[index]\n"
    )
    assert len(run("color", data="lazy_data_set:Lazy")) == 9


def test_data_sets_that_cannot_be_opened_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def expect(code: str, data: str, *options: object, names: tuple[object, ...]) -> None:
        given = ["--model", f"{KNOWN}:color", "--data", data, "--out", "out", *options]
        refused_command(capsys, code, "capture", *given, names=names)
        assert not (place / "out").exists()

    expect("AS230", "no_such_module:make", names=("no_such_module", "digits"))
    expect("AS230", f"{KNOWN}:nothing", names=(f"{KNOWN}:nothing",))
    expect("AS231", f"{KNOWN}:gates_of", names=(f"{KNOWN}:gates_of",))
    expect("AS231", f"{KNOWN}:ends", names=(f"{KNOWN}:ends", "ends the program"))
    (place / "ending_data_set.py").write_text("raise SystemExit(0)\n")
    expect("AS230", "ending_data_set:make", names=("ending_data_set", "__name__ == '__main__'"))
    expect("AS674", f"{KNOWN}:five", names=("Color",))
    expect("AS232", f"{KNOWN}:splits", "--split", "validation", names=("'validation'", "'test'"))
    for option, value in (
        ("--image-size", 16),
        ("--channels", 1),
        ("--class-order", "natural"),
    ):
        expect("AS233", f"{KNOWN}:splits", option, value, names=(option,))
    with refused("AS234", names=("splits",)):
        from attnscope import load_data

        load_data(f"{KNOWN}:splits")
