"""The images of a run and of its recordings: found again, and refused if they have changed."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attnscope import Recording, Run, fold
from attnscope.commands.main import main
from attnscope.data.fingerprints import read_fingerprints
from attnscope.data.places import find_data, find_data_root, is_gone, places_of
from attnscope.files import read_json, write_json, write_sealed
from tests.making import refused, refused_command, write_images

TRAIN = ["train", "--attention", "se", "--width", "16", "--reduction", "4", "--device", "cpu"]
BLACK = np.zeros((16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with images and a run, which was trained with relative paths, and recorded."""
    project = tmp_path_factory.mktemp("trained") / "project"
    write_images(project / "photos", train=4, test=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        options = ["--data", "folder:photos", "--out", "runs/it", "--epochs", "1"]
        assert main([*TRAIN, *options]) == 0
        assert main(["capture", "runs/it"]) == 0
    return project


@pytest.fixture
def project(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in place of it: its absolute places are those of the copy."""
    copy = tmp_path / "project"
    shutil.copytree(trained, copy)
    for name, write in (
        ("runs/it/config.json", write_json),
        ("runs/it/recordings/test/manifest.json", write_sealed),
    ):
        text = json.dumps(read_json(copy / name))
        assert str(trained) in text
        write(copy / name, json.loads(text.replace(str(trained), str(copy))))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return copy


def save(pixels: np.ndarray, file: Path) -> None:
    Image.fromarray(pixels).save(file)


def swap(root: Path) -> None:
    """Let two class folders of the test split change places."""
    (root / "test/dark").rename(root / "aside")
    (root / "test/light").rename(root / "test/dark")
    (root / "aside").rename(root / "test/light")


# --- places ---------------------------------------------------------------------------------------


def test_images_are_found_from_any_working_directory(project: Path) -> None:
    write_images(Path("photos"), train=4, test=2, seed=1)  # others of the same relative name
    source = Run(project / "runs/it").source()
    assert source.data.source == f"folder:{project / 'photos'}"
    assert len(Run(project / "runs/it").split("test")) == 6
    assert len(Run(project / "runs/it").data().train) == 6


def test_images_are_found_when_the_project_was_moved(project: Path, tmp_path: Path) -> None:
    project.rename(tmp_path / "moved")
    run = Run(tmp_path / "moved/runs/it")
    assert run.source().data.source == f"folder:{tmp_path / 'moved/photos'}"
    assert len(run.recording().images()) == 6


def test_images_elsewhere_are_named_anew(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "photos").rename(tmp_path / "archive")
    run, place = project / "runs/it", f"folder:{tmp_path / 'archive'}"
    shutil.rmtree(run / "recordings")
    refused_command(capsys, "AS244", "capture", run, names=(project / "photos", "--data"))
    assert main(["capture", str(run), "--data", place]) == 0
    recording = Recording(run)
    assert len(recording) == 6
    # The recording says where they were when it was made.
    assert recording.source().data.source == place
    assert len(recording.images()) == 6
    (tmp_path / "archive").rename(tmp_path / "second")
    with refused("AS244", names=("--data",)):
        recording.images()
    place = f"folder:{tmp_path / 'second'}"
    assert len(recording.images(data=place)) == 6
    some = ["--images", "4", "--experiments", "decode", "--device", "cpu", "--data", place]
    assert main(["intervene", str(run), *some]) == 0


def test_other_images_at_a_new_place_are_refused(project: Path) -> None:
    write_images(Path("others"), train=4, test=3, seed=1)
    with refused("AS538", names=("6 images have other pixels", "test/dark/0.png")):
        Run(project / "runs/it").split("test", data="folder:others")
    with refused("AS540", names=("some.module:data",)):
        Run(project / "runs/it").split("test", data="some.module:data")


def test_home_is_that_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    places = places_of("folder:~/photos", Path("data"), tmp_path / "runs/it")
    assert places["data"] == {"absolute": str(tmp_path / "photos"), "relative": "../../photos"}
    monkeypatch.setenv("HOME", "/nowhere")
    found = find_data("folder:~/photos", places, tmp_path / "runs/it")
    assert found == f"folder:{tmp_path / 'photos'}"


def test_places_without_an_existing_one_are_the_absolute_ones(tmp_path: Path) -> None:
    places = places_of("digits", tmp_path / "sets", tmp_path / "run")
    assert "data" not in places
    assert find_data("digits", places, tmp_path / "run") == "digits"
    # The data sets of torchvision can be downloaded again, to where they are asked for.
    assert find_data_root("sets", places, tmp_path / "run") == Path("sets")
    (tmp_path / "sets").mkdir()
    assert find_data_root("sets", places, tmp_path / "run") == tmp_path / "sets"
    gone = {"data": {"absolute": "/nowhere/photos", "relative": "../photos"}}
    assert find_data("folder:photos", gone, tmp_path / "run") == "folder:/nowhere/photos"
    assert is_gone("folder:/nowhere/photos")
    # Version 0.1 and others store none, and damaged ones are none.
    for none in (None, {}, {"data": 3}, {"data": {"absolute": 1}}, []):
        assert find_data("folder:photos", none, tmp_path) == "folder:photos"


# --- changes --------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda root: (root / "test/dark/1.png").unlink(), "test/dark/1.png"),
    "replaced": (lambda root: save(BLACK, root / "test/light/2.png"), "test/light/2.png"),
    "added": (lambda root: save(BLACK, root / "test/dark/new.png"), "test/dark/new.png"),
    "swapped": (swap, "6 images have other pixels (test/dark/0.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_test_images_are_refused_with_their_names(
    project: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = project / "runs/it"
    apply, name = CHANGES[change]
    apply(project / "photos")
    with refused("AS643", names=(name, run / "recordings/test")):
        Recording(run).images()
    shutil.rmtree(run / "recordings")
    refused_command(capsys, "AS538", "capture", run, names=(name, "--allow-changed-data"))
    assert not (run / "recordings").exists()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_changed_training_image_is_refused_by_name(project: Path, split: str) -> None:
    before = read_fingerprints(project / "runs/it/images.parquet")[split]
    save(BLACK, project / "photos" / before.paths[0])
    with refused("AS538", names=(f"1 image has other pixels ({before.paths[0]})",)):
        fold(Run(project / "runs/it"), project / "folded", gates="all", progress=False)
    assert not (project / "folded").exists()
    assert len(Run(project / "runs/it").split("test")) == 6


def test_changed_images_that_are_allowed_are_recorded_as_such(project: Path) -> None:
    run = project / "runs/it"
    shutil.rmtree(run / "recordings")
    (project / "photos/test/dark/1.png").unlink()
    assert main(["capture", str(run), "--allow-changed-data"]) == 0
    recording = Recording(run)
    assert len(recording) == 5
    (change,) = recording.about["changed_data"]
    assert "1 image is missing (test/dark/1.png)" in change
    assert any("test/dark/1.png" in note for note in recording.about["notes"])
    assert len(recording.images()) == 5  # they are compared with the recording, not with the run
    save(BLACK, project / "photos/test/dark/2.png")
    with refused("AS643", names=("1 image has other pixels (test/dark/2.png)",)):
        recording.images()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_changes_of_every_split_are_recorded_only_if_they_are_allowed(
    project: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The test split is opened alone, and the other two with all images."""
    run = project / "runs/it"
    name = read_fingerprints(run / "images.parquet")[split].paths[0]
    save(BLACK, project / "photos" / name)
    command = ("capture", run, "--split", split)
    refused_command(capsys, "AS538", *command, names=(name, "--allow-changed-data"))
    assert not (run / "recordings" / split).exists()
    assert main([*map(str, command), "--allow-changed-data"]) == 0
    recording = Recording(run / "recordings" / split)
    (change,) = recording.about["changed_data"]
    assert f"1 image has other pixels ({name})" in change
    assert any(name in note for note in recording.about["notes"])
    # The recording opens its images and its network without being told again.
    assert len(recording.images()) == len(recording)
    assert recording.source().allow_changed_data
    assert not Run(run).recording().source().allow_changed_data  # of the test split


@pytest.mark.parametrize("allowed", [False, True])
def test_a_fold_of_changed_images_says_so(
    project: Path, allowed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = project / "runs/it", project / "folded"
    name = read_fingerprints(run / "images.parquet")["train"].paths[0]
    save(BLACK, project / "photos" / name)
    command = ["fold", str(run), "--out", str(out), "--gates", "all", "--device", "cpu"]
    if not allowed:
        refused_command(capsys, "AS538", *command, names=(name, "--allow-changed-data"))
        # A recording of other images than these does not allow them.
        recording = ["fold", str(run / "recordings/test"), *command[2:]]
        refused_command(capsys, "AS538", *recording, names=(name,))
        assert not out.exists()
        return
    assert main([*command, "--allow-changed-data"]) == 0
    (change,) = Run(out).config["changed_data"]
    assert f"1 image has other pixels ({name})" in change


def test_training_images_in_another_split_are_never_allowed(project: Path) -> None:
    """Adding an image draws the validation split anew, from images that trained the network."""
    for name in ("a", "b", "c", "d"):
        save(BLACK, project / f"photos/train/dark/{name}.png")
    run = Run(project / "runs/it")
    with refused("AS538", names=("4 images were added", "validation images have trained")):
        run.data(allow_changed_data=True)
    assert len(run.split("test", allow_changed_data=True)) == 6


def test_a_folded_run_knows_its_images(project: Path) -> None:
    run, folded = Run(project / "runs/it"), project / "deep/er/folded"
    fold(run, folded, gates="all", progress=False, device="cpu")
    assert Run(folded).source().data.source == f"folder:{project / 'photos'}"
    assert Run(folded).config["places"]["data"]["relative"] == "../../../photos"
    (project / "photos/test/dark/1.png").unlink()
    with refused("AS538", names=("test/dark/1.png",)):
        Run(folded).split("test")


def test_a_run_without_fingerprints_opens_and_is_compared_by_names(project: Path) -> None:
    """As versions wrote them that had neither fingerprints nor places."""
    run = project / "runs/it"
    (run / "images.parquet").unlink()
    config = json.loads((run / "config.json").read_text())
    del config["places"]
    (run / "config.json").write_text(json.dumps(config))
    with refused("AS204", names=("photos", "--data")):
        Run(run).split("test")
    place = f"folder:{project / 'photos'}"
    save(BLACK, project / "photos/test/dark/1.png")  # nothing tells that it has other pixels
    assert len(Run(run).split("test", data=place)) == 6
    (project / "photos/test/dark/1.png").unlink()
    with refused("AS538", names=("5 images instead of 6",)):
        Run(run).split("test", data=place)
    assert len(Run(run).split("test", data=place, allow_changed_data=True)) == 5
    del config["parts"]
    (run / "config.json").write_text(json.dumps(config))
    assert len(Run(run).split("test", data=place)) == 5


def test_a_damaged_file_of_fingerprints_is_refused(project: Path) -> None:
    (project / "runs/it/images.parquet").write_bytes(b"PAR1")
    with refused("AS119", names=("images.parquet",)):
        Run(project / "runs/it").split("test")
    (project / "runs/it/hashes.json").unlink()
    with refused("AS245", names=("images.parquet",)):
        Run(project / "runs/it").split("test")
    recorded = project / "runs/it/recordings/test"
    assert Recording(recorded).verify() == []
    (recorded / "images.parquet").write_bytes(b"PAR1")
    (problem,) = Recording(recorded).verify()
    assert "images.parquet" in problem
    assert problem.endswith("[AS681]")


def test_training_resumes_with_its_images_wherever_they_are(
    project: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = project / "runs/it"
    for name in ("result.json", "model.safetensors", "model.json"):
        (run / name).unlink()
    options = [*TRAIN, "--out", str(run), "--epochs", "1", "--resume"]
    (project / "photos").rename(tmp_path / "archive")
    changed = tmp_path / "archive/train/light/1.png"
    whole = changed.read_bytes()
    save(BLACK, changed)
    place = f"folder:{tmp_path / 'archive'}"
    names = ("1 image has other pixels (train/light/1.png)",)
    refused_command(capsys, "AS538", *options, "--data", place, names=names)
    changed.write_bytes(whole)
    # The place in the settings is found from here, where it does not exist.
    (tmp_path / "archive").rename(project / "photos")
    assert main([*options, "--data", "folder:photos"]) == 0
    assert len(Run(run).split("test")) == 6


def test_the_advised_command_can_be_pasted_into_a_shell(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = project / "cat & dog's run"
    (project / "runs/it").rename(run)
    shutil.rmtree(run / "recordings")
    with pytest.raises(ValueError, match="AS532") as caught:
        Run(run).recording()
    text = str(caught.value)
    words = shlex.split(text[text.index("attnscope capture") :].rpartition(" [")[0])
    assert words == ["attnscope", "capture", str(run)]
