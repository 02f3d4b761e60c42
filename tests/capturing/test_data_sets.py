"""Data sets of users: forms of items, labels that are no classes, and images of any shape."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torch.utils.data import TensorDataset as Tensors

from attnscope.capturing.capture import capture
from attnscope.capturing.pictures import IN_UNIT_RANGE, as_rgb, describe_picture, to_bytes
from attnscope.data.hashing import hash_data
from attnscope.data.images import LabeledImages
from attnscope.data.labels import class_indices, label_kind_of, targets_of
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError
from attnscope.recording.recording import Recording
from tests.capturing.known import COLORS, Bright, Color, colored, gates_of, scores_of
from tests.making import refused


def record(out: Path, dataset: Any, model: Any = None, **options: Any) -> Recording:
    found = capture(model or Color(), dataset, out / "r", progress=False, **options)
    assert isinstance(found, Recording)
    assert found.verify() == []
    return found


def expect_known(found: Recording, images: Tensor) -> None:
    """The gates, scores and predictions are those of `Color`."""
    array = images.numpy()
    (gate,) = found.gates
    np.testing.assert_allclose(found[gate.name], gates_of(array), atol=1e-6)
    np.testing.assert_allclose(found.logits, scores_of(array), atol=1e-4)
    np.testing.assert_array_equal(found.predictions, scores_of(array).argmax(1))


IMAGES, LABELS = colored()
ITEMS = list(zip(IMAGES, LABELS.tolist(), strict=True))


@pytest.mark.parametrize(
    "items",
    [
        [{"image": x, "label": y} for x, y in ITEMS],
        [{"pixel_values": x, "labels": torch.tensor(y)} for x, y in ITEMS],
        [[x, float(y)] for x, y in ITEMS],
        [(x, np.int64(y)) for x, y in ITEMS],
        Tensors(IMAGES, torch.eye(3)[LABELS]),
        [(x, [int(k == y) for k in range(3)]) for x, y in ITEMS],
    ],
    ids=["dict", "huggingface", "float", "numpy", "one-hot", "one-hot list"],
)
def test_items_of_any_usual_form_are_read(tmp_path: Path, items: Any) -> None:
    found = record(tmp_path, items)
    expect_known(found, IMAGES)
    assert found.labels.tolist() == LABELS.tolist()
    assert found.label_kind == "class"


def test_paths_of_items_are_those_of_the_recording(tmp_path: Path) -> None:
    found = record(tmp_path, [(x, y, f"scans/{y}-{n}.dcm") for n, (x, y) in enumerate(ITEMS)])
    assert found.rows["path"].tolist() == [f"scans/{y}-{n}.dcm" for n, (_, y) in enumerate(ITEMS)]
    items = [{"image": x, "label": y, "path": Path("a") / str(y)} for x, y in ITEMS]
    found = record(tmp_path / "dicts", items)
    assert found.rows["path"][1] == "a/1"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_of_an_item_that_is_not_utf8_is_refused(tmp_path: Path, kind: Any) -> None:
    """A table of a recording cannot store it, and would fail after the images of a whole shard."""
    items = [(x, y, kind(f"{n}-café.png")) for n, (x, y) in enumerate(ITEMS)]
    items[4] = (*items[4][:2], kind(os.fsdecode(b"caf\xe9.png")))
    with refused("AS216", names=(r"caf\udce9.png", "item 4")):
        record(tmp_path, items)
    items.pop(4)
    assert record(tmp_path / "others", items).rows["path"][1] == "1-café.png"


def test_parts_of_data_sets_have_the_classes_of_the_whole(tmp_path: Path) -> None:
    parent: Any = Tensors(IMAGES, LABELS)
    parent.classes = list(COLORS)
    rows = [7, 1, 3, 8]
    found = record(tmp_path, Subset(Subset(parent, range(9)), rows))
    assert found.classes == list(COLORS)
    assert found.labels.tolist() == [1, 1, 0, 2]
    expect_known(found, IMAGES[rows])
    other: Any = Tensors(IMAGES, LABELS)
    other.classes = ["x", "y", "z"]
    joined = ConcatDataset([parent, Subset(parent, rows)])
    assert record(tmp_path / "joined", joined).classes == list(COLORS)
    with refused("AS663", names=("classes=",)):
        record(tmp_path / "other", ConcatDataset([parent, other]))


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (torch.tensor([[1, 0, 0]] * 8 + [[1, 0, 1]]), "multi-label"),
        (torch.tensor([[0.0, 0, 0]] * 9), "multi-label"),
        (torch.linspace(0.05, 0.95, 9), "value"),
        (torch.tensor([1.0] * 8 + [0.5]), "value"),
        (torch.rand(9, 2), "value"),
        (LABELS[:, None, None].expand(-1, 8, 8), "other"),
        (None, "none"),
    ],
)
def test_labels_that_are_no_classes_are_recorded_without_an_accuracy(
    tmp_path: Path, labels: Tensor | None, kind: str
) -> None:
    found = record(tmp_path, Tensors(IMAGES) if labels is None else Tensors(IMAGES, labels))
    expect_known(found, IMAGES)
    assert found.label_kind == kind
    for question in ("labels", "right"):
        with refused("AS648", names=(found.folder,)):
            getattr(found, question)
    with refused("AS648"):
        found.grad_cam(target="true")
    assert found.grad_cam(target="predicted").shape[0] == 9
    assert "accuracy" not in repr(found)
    assert "Accuracy" in found._repr_html_()
    assert list(found.to_pandas())[:3] == ["path", "prediction", "confidence"]
    assert np.isnan(found.rows["loss"]).all()
    if kind in ("multi-label", "value"):
        assert labels is not None
        np.testing.assert_allclose(found.targets, labels.reshape(9, -1).float())
    else:
        with refused("AS649"):
            found.targets  # noqa: B018
    with refused("AS679"):
        capture(Color(), Tensors(IMAGES, labels) if labels is not None else Tensors(IMAGES),
                tmp_path / "m", moments=True, progress=False)  # fmt: skip


def test_one_number_for_each_value_to_predict_is_no_class_score(tmp_path: Path) -> None:
    values = torch.linspace(0.05, 0.95, 9)
    model = Color(classes=1)
    found = record(tmp_path, Tensors(IMAGES, values), model)
    assert (found.has_scores, found.has_accuracy, found.label_kind) == (False, False, "value")
    (gate,) = found.gates
    np.testing.assert_allclose(found[gate.name], gates_of(IMAGES.numpy())[:, :1], atol=1e-6)
    np.testing.assert_allclose(found.targets[:, 0], values)
    for question in ("predictions", "right", "logits"):
        with refused("AS618"):
            getattr(found, question)
    with refused("AS648"):
        found.labels  # noqa: B018
    assert list(found.to_pandas())[:2] == ["path", gate.name]
    assert list(found.rows["label"].unique()) == [-1]
    # With class labels, the number is the logit of the second of two classes.
    binary = record(tmp_path / "two", Tensors(IMAGES, LABELS % 2), model)
    wanted = 1 / (1 + np.exp(-scores_of(IMAGES.numpy())[:, 0]))
    np.testing.assert_allclose(binary.probabilities[:, 1], wanted, atol=1e-4)
    assert binary.has_accuracy


def test_labels_that_are_no_classes_go_with_any_output(tmp_path: Path) -> None:
    class Both(Color):
        def forward(self, x: Tensor) -> Any:
            return {"logits": super().forward(x), "features": x.mean((2, 3), keepdim=True)}

    several = torch.tensor([[1, 0, 0]] * 8 + [[1, 0, 1]])
    options = {"attributions": ["occlusion"], "attribution_images": 3}
    found = record(tmp_path, Tensors(IMAGES, several), Both(), **options)
    expect_known(found, IMAGES)
    assert (found.has_scores, found.has_accuracy) == (True, False)
    assert found.output["path"] == ["logits"]
    plain = record(tmp_path / "plain", Tensors(IMAGES, several), **options)
    for method in ("grad_cam", "occlusion"):
        np.testing.assert_array_equal(found.attribution(method), plain.attribution(method))
    half = record(tmp_path / "half", Tensors(IMAGES, several), Color().half())
    np.testing.assert_allclose(half[half.gates[0].name], gates_of(IMAGES.numpy()), atol=2e-3)
    without = record(tmp_path / "none", Tensors(IMAGES, several), output="none")
    np.testing.assert_array_equal(without.targets, found.targets)
    assert without.no_accuracy
    with refused("AS679"):
        capture(Color(), Tensors(IMAGES, several), tmp_path / "m", moments=True, progress=False)


def test_class_labels_have_no_targets_and_no_new_key(tmp_path: Path) -> None:
    found = record(tmp_path, Tensors(IMAGES, LABELS))
    with refused("AS649"):
        found.targets  # noqa: B018
    for file in ("manifest.json", "plan.json"):
        assert "label_kind" not in (found.folder / file).read_text()


def test_explanations_of_images_without_classes_have_no_true_class(tmp_path: Path) -> None:
    found = record(
        tmp_path, Tensors(IMAGES), attributions=["integrated_gradients"], attribution_images=3
    )
    assert found.attribution("integrated_gradients").shape == (3, 8, 8)
    with refused("AS648"):
        found.attribution("integrated_gradients", target="true")


def test_labels_are_read_once_where_the_first_ones_decide() -> None:
    class Counted(Dataset[Any]):
        def __init__(self, labels: list[Any]) -> None:
            self.labels, self.read = labels, 0

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, i: int) -> tuple[Tensor, Any]:
            self.read += 1
            return IMAGES[0], self.labels[i]

    for labels, kind, read in (
        ([0, 1] * 10, "class", 4),
        ([0.5, 1.0] * 10, "value", 4),
        ([[1, 0], [0, 1]] * 10, "class", 24),
        ([0.0, 1.0] * 10, "class", 24),
        ([[1, 1], [0, 1]] * 10, "multi-label", 4),
    ):
        dataset = Counted(labels)
        assert label_kind_of(dataset) == kind
        assert dataset.read == read


def test_labels_of_several_forms_are_refused() -> None:
    with refused("AS668", names=("index", "other")):
        label_kind_of([(IMAGES[0], 1), (IMAGES[0], torch.zeros(2, 2))])  # type: ignore[arg-type]
    with refused("AS668", names=("[0, 0]",)):
        class_indices([1, [0, 0]], "class")
    with refused("AS668"):
        targets_of([[0.5, 1.5], [0.5]], "value")


def test_the_hash_of_a_data_set_covers_images_and_labels() -> None:
    base = hash_data(Tensors(IMAGES, LABELS))
    assert hash_data(Tensors(IMAGES, LABELS.float())) == base, "the same indices"
    for other in (
        Tensors(IMAGES),
        Tensors(IMAGES, LABELS + 0.5),
        Tensors(IMAGES, torch.eye(3)[LABELS]),
        Tensors(IMAGES, torch.eye(3)[(LABELS + 1) % 3]),
        Tensors(IMAGES * 0.9, LABELS),
    ):
        assert hash_data(other) != base
    one_hot = torch.eye(3)[LABELS]
    assert hash_data(Tensors(IMAGES, one_hot)) != hash_data(Tensors(IMAGES, one_hot.flip(1)))


def test_gray_images_and_bands_are_recorded_with_pictures(tmp_path: Path) -> None:
    gray = torch.tensor([0.2, 0.7, 0.4, 0.9])[:, None, None, None].expand(4, 1, 8, 8)
    found = record(tmp_path / "gray", Tensors(gray, torch.tensor([0, 1, 0, 1])), Bright())
    assert found.right.all()
    np.testing.assert_array_equal(found.image(1), np.full((8, 8, 3), round(0.7 * 255)))
    bands = torch.cat([IMAGES, torch.rand(9, 2, 8, 8)], 1)
    found = record(tmp_path / "bands", Tensors(bands, LABELS), Color(channels=5))
    expect_known(found, IMAGES)
    expected = (IMAGES[2] * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found.image(2), expected)
    assert "5 channels" in found.about["notes"][0]


@pytest.mark.parametrize(("dimensions", "shape"), [(1, (32,)), (3, (4, 8, 8))])
def test_sequences_and_volumes_are_recorded(
    tmp_path: Path, dimensions: int, shape: tuple[int, ...]
) -> None:
    images, labels = colored(shape=shape)
    ramp = torch.linspace(0.2, 1, int(np.prod(shape))).reshape(shape)
    images = images * ramp
    found = record(tmp_path, Tensors(images, labels), Color(dimensions=dimensions))
    expect_known(found, images)
    assert found.right.all()
    assert found.grad_cam_layers == []
    assert len(found.about["notes"]) == 2, "the picture, and Grad-CAM"
    picture = found.image(0)
    assert picture.dtype == np.uint8
    if dimensions == 3:  # the third of four slices
        expected = (images[0, :, 2] * 255).round().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(picture, expected)


def test_a_sequence_is_drawn_as_a_curve_without_gaps() -> None:
    values = torch.zeros(1, 3, 10, dtype=torch.uint8)
    values[0, 0, 5:] = 255
    values[0, 2] = 255
    drawn = as_rgb(values)[0]
    assert drawn.shape == (3, 64, 10)
    red, blue = drawn[0], drawn[2]
    assert (red[63, :5] == 255).all(), "0 is at the bottom"
    assert (red[:, 4] == 255).all(), "the step is a vertical line"
    assert (red[0, 5:] == 255).all()
    assert int((red == 255).sum()) == 10 + 63
    assert (blue[0] == 255).all()
    assert not blue[1:].any()
    long = torch.zeros(1, 1, 5000, dtype=torch.uint8)
    long[0, 0, 2500] = 255
    drawn = as_rgb(long)[0]
    assert drawn.shape == (3, 64, 128)
    assert (drawn[:, 0] == 255).any(), "a single peak is seen"
    assert describe_picture((3, 8, 8), IN_UNIT_RANGE) is None
    assert describe_picture((1, 8, 8), IN_UNIT_RANGE) is None


def test_sequences_may_have_any_values(tmp_path: Path) -> None:
    """A curve fills its own range if it leaves 0 to 1; volumes and images still need a scale."""
    images, labels = colored()
    signals = images[:, :, 0] * 20 - 7
    signals[0] = images[0, :, 0]  # inside
    signals[1, 0] = -3.0  # one channel is constant
    found = record(tmp_path, Tensors(signals, labels), Color(dimensions=1))
    assert any("lowest" in note for note in found.about["notes"])
    np.testing.assert_allclose(found[found.gates[0].name], gates_of(signals.numpy()), atol=1e-6)
    given = to_bytes(signals, IN_UNIT_RANGE)
    assert torch.equal(given[0], (signals[0] * 255).round().byte())
    low, high = signals[2, 1].min(), signals[2, 1].max()
    expected = ((signals[2, 1] - low) / (high - low) * 255).round().byte()
    assert torch.equal(given[2, 1], expected)
    assert not given[1, 0].any()
    stated = Normalization((0.5,) * 3, (0.1,) * 3)
    assert torch.equal(to_bytes(signals, stated), stated.undo(signals))
    with refused("AS667"):
        record(tmp_path / "volumes", Tensors(images[:, :, None] * 20, labels), Color(dimensions=3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("row", [2, 7], ids=["sample", "later"])
def test_values_that_are_not_finite_are_refused_with_their_row(
    tmp_path: Path, value: float, row: int
) -> None:
    """Another normalization, for which values outside 0 to 1 ask, would not help."""
    images = IMAGES.clone()
    images[row, 1, 0, 0] = value
    with refused("AS680", names=(f"item {row} ",)):
        record(tmp_path, Tensors(images, LABELS), batch_size=2)


def test_a_normalization_of_other_pixel_values_is_said_or_refused(tmp_path: Path) -> None:
    """The user's own values cannot be wrong for the network, but pictures are clipped."""
    x = IMAGES / IMAGES.max() * 2 - 1
    wrong, right = (Normalization((m,) * 3, (m,) * 3) for m in (127.5, 0.5))
    notes = record(tmp_path / "a", Tensors(x), Color(), normalization=wrong).about["notes"]
    (note,) = (note for note in notes if "clipped" in note)
    assert f"{127.5 * float(x.max() + 1):.3g}" in note
    assert "0.5 and not 127.5" in note
    about = record(tmp_path / "b", Tensors(x), Color(), normalization=right).about
    assert not any("clipped" in note for note in about.get("notes", []))
    pixels = LabeledImages(
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2), ["a", "b"], ["x", "y", "z"]
    )
    with refused("AS235", names=("127.5",)):
        capture(Color(), pixels, tmp_path / "c", normalization=wrong, progress=False)


def test_images_of_other_channels_than_those_of_the_network_are_refused(tmp_path: Path) -> None:
    for channels, network, names in (
        (1, Color(), ("3 channels", "1 channel", "--channels 3")),
        (3, Bright(), ("1 channel", "3 channels", "--channels 1")),
    ):
        with refused("AS339", names=names):
            record(tmp_path, Tensors(torch.rand(4, channels, 8, 8)), network)


def test_an_error_of_the_network_is_named_and_kept_as_the_cause(tmp_path: Path) -> None:
    class Fails(Color):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("an error of its own")

    with pytest.raises(InputError) as caught:
        record(tmp_path, Tensors(IMAGES, LABELS), Fails())
    assert caught.value.code == "AS675"
    assert "RuntimeError: an error of its own" in str(caught.value)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_normalization_of_other_channels_is_refused(tmp_path: Path) -> None:
    three = Normalization((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    with refused("AS229", names=("3 channels", "1", "--mean")):
        record(tmp_path, Tensors(torch.rand(4, 1, 8, 8)), Bright(), normalization=three)
    with refused("AS229", names=("--std",)):
        Normalization((0.5, 0.4), (0.2,))


def test_streams_and_loaders_are_refused(tmp_path: Path) -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(ITEMS)

    for dataset in (Stream(), DataLoader(Tensors(IMAGES, LABELS))):
        with refused("AS674", names=(type(dataset).__name__,)):
            record(tmp_path, dataset)
