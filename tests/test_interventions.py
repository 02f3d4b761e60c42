"""Interventions on networks whose answers are known, and against whole forwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import InputError, Recording, build_model, capture, edit_gates, find_gates
from attnscope.gates import as_factor, watch_gates
from attnscope.interventions import Bench, replace_gates
from attnscope.interventions.replay import Tape
from attnscope.statistics.effects import edit_contrast, margins, replacement_effects

CLASSES = 3


class Toy(nn.Module):
    """Channel k of the image is bright where the class is k; the gate sees it, or is constant.

    ``used``: the logits are the gated features, which without the gate know nothing of the class.
    ``ignored``: the gate multiplies, but the logits come from the image alone. ``constant``: the
    gate is the same for all images, and multiplies what the logits are made of.
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.gate = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())
        with torch.no_grad():
            self.gate[0].weight.copy_(8 * torch.eye(3) * (mode != "constant"))
            self.gate[0].bias.fill_(-4 if mode != "constant" else 0.7)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))
        gate = self.gate(pooled)[:, :, None, None]
        blank = x * 0 + 1
        if self.mode == "used":
            return 5 * (blank * gate).mean((2, 3))
        if self.mode == "ignored":
            return 5 * pooled + 0 * (blank * gate).mean((2, 3))
        return 5 * (x * gate).mean((2, 3))


def toy_images(count: int = 90) -> TensorDataset:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    images = 0.2 * torch.rand(count, 3, 6, 6, generator=rng)
    images[torch.arange(count), labels] += 0.7
    return TensorDataset(images, labels)


def toy_bench(mode: str, folder: Path, **options: int) -> Bench:
    model, images = Toy(mode).eval(), toy_images()
    recording = capture(
        model,
        images,
        folder / mode,
        classes=list("abc"),
        grad_cam_layers=(),
        progress=False,
    )
    assert isinstance(recording, Recording)
    return Bench(model, images, recording, **options)


def effects(bench: Bench) -> pd.DataFrame:
    found = replacement_effects(replace_gates(bench, progress=False))
    return found.set_index(["target", "edit"])


def test_a_gate_that_carries_the_class_and_is_used(tmp_path: Path) -> None:
    found = effects(toy_bench("used", tmp_path)).loc["gate"]
    assert len(found) == 7
    # Without the gate of the image all classes are alike, and the first of equal logits wins.
    assert found.loc["mean", "accuracy"] == pytest.approx(1 / 3)
    assert found.loc["neutral", "accuracy"] == pytest.approx(1 / 3)
    assert found.loc["swap_other", "accuracy"] == 0
    assert found.loc[["swap_same", "true", "predicted"], "change"].eq(0).all()
    assert found.loc["swap_other", "flips"] == 1
    assert found.loc["swap_other", "high"] < -0.85
    assert 0.15 < found.loc["random", "accuracy"] < 0.55


def test_a_gate_that_carries_the_class_and_is_ignored(tmp_path: Path) -> None:
    bench = toy_bench("ignored", tmp_path)
    profile = bench.class_mean_gates("gate")
    assert (profile.argmax(1) == np.arange(3)).all()  # the class can be read from it
    found = effects(bench).loc["gate"]
    assert found["change"].eq(0).all()
    assert found["margin_change"].eq(0).all()
    assert (found["low"] < 0).all()  # a change that was not seen may still be there
    assert (found["low"] > -0.15).all()


def test_a_gate_that_is_constant(tmp_path: Path) -> None:
    found = effects(toy_bench("constant", tmp_path)).loc["gate"]
    static = found.drop("neutral")
    assert static["change"].eq(0).all()
    assert static["margin_change"].abs().max() < 1e-5  # means of one value, in float32
    gate = torch.sigmoid(torch.tensor(0.7)).item()
    own = toy_images().tensors[0].mean((2, 3))
    labels = toy_images().tensors[1]
    margin = margins(5 * own.numpy(), labels.numpy()).mean()
    # Neutral is a gate of 1: every logit grows by 1 / gate.
    assert found.loc["neutral", "margin_change"] == pytest.approx(margin * (1 - gate), rel=0.05)


def test_the_contrast_of_swaps_tells_the_three_apart(tmp_path: Path) -> None:
    change = {}
    for mode in ("used", "ignored", "constant"):
        outcomes = replace_gates(toy_bench(mode, tmp_path), progress=False)
        contrast = edit_contrast(outcomes, "swap_other", "swap_same").set_index("target")
        dynamic = edit_contrast(outcomes, "mean", "own").set_index("target")
        change[mode] = (contrast.loc["gate", "change"], dynamic.loc["gate", "change"])
    assert change["used"] == (1, pytest.approx(2 / 3))
    assert change["ignored"] == (0, 0)
    assert change["constant"] == (0, 0)


def test_means_and_donors_are_not_of_scored_images(tmp_path: Path) -> None:
    bench = toy_bench("used", tmp_path, images=30)
    assert len(bench.scored) == 30
    assert np.bincount(bench.recording.labels[bench.scored]).tolist() == [10, 10, 10]
    values = bench.recording.gate("gate")
    others = np.setdiff1d(np.arange(90), bench.scored)
    np.testing.assert_allclose(bench.mean_gate("gate"), values[others].mean(0), rtol=1e-5)
    labels = bench.recording.labels
    for k in range(3):
        wanted = values[others[labels[others] == k]].mean(0)
        np.testing.assert_allclose(bench.class_mean_gates("gate")[k], wanted, rtol=1e-5)
    rows = np.array([80, 3, 3, 41])
    np.testing.assert_array_equal(bench.gates_of("gate", rows), values[rows])


def make_network(attention: str, placement: str | None = None, name: str = "resnet18") -> nn.Module:
    torch.manual_seed(0)
    options = {"width": 16, "placement": placement} if name != "cnn" else {}
    model = build_model(name, attention=attention, reduction=4, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after a training: no gate's effect is lost
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
    return model


@pytest.mark.parametrize(
    ("attention", "placement", "name"),
    [
        ("se", "block", "resnet18"),
        ("cbam", "block", "resnet18"),
        ("cbam", "stage", "resnet18"),
        ("cbam", None, "cnn"),
    ],
)
def test_the_end_of_a_forward_equals_a_whole_one(
    attention: str, placement: str | None, name: str
) -> None:
    model = make_network(attention, placement, name)
    size = 32 if name == "cnn" else 16
    x, other = torch.rand(2, 5, 3, size, size, generator=torch.Generator().manual_seed(1))
    gates = find_gates(model, x)
    with torch.no_grad(), watch_gates(model, gates) as seen:
        model(other)
    given = {gate.name: as_factor(seen[gate.name], gate) for gate in gates}
    swapped = {name: (lambda g, f, v=value: v) for name, value in given.items()}
    groups = [[gate.name] for gate in gates] + [[gates[1].name, gates[-1].name]]
    tape = Tape(model, gates, groups)
    forwards = {path: module.__dict__.get("forward") for path, module in model.named_modules()}
    plain = tape.forward(x)
    with torch.no_grad():
        assert torch.equal(plain, model(x))
    for group in groups:
        edits = {key: swapped[key] for key in group}
        with torch.no_grad(), edit_gates(model, edits):
            whole = model(x)
        assert torch.equal(tape.again(edits), whole)
        assert not torch.equal(whole, plain)
    # And the next images are theirs.
    plain = tape.forward(other)
    assert torch.equal(tape.again({gates[-1].name: swapped[gates[-1].name]}), plain)
    assert forwards == {p: m.__dict__.get("forward") for p, m in model.named_modules()}


def test_only_what_follows_the_gate_runs_again() -> None:
    model = make_network("se")
    x = torch.rand(2, 3, 16, 16)
    gates = find_gates(model, x)
    ran: Counter[str] = Counter()
    tape = Tape(model, gates, [[gate.name] for gate in gates])
    tape.forward(x)
    same = {gate.name: {gate.name: lambda g, f: g} for gate in gates}
    for edits in same.values():
        tape.again(edits)  # the first time it is tried as well
    convolutions = {p: m for p, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    original = nn.Conv2d.forward

    def counted(self: nn.Conv2d, x: Tensor) -> Tensor:
        ran[next(p for p, m in convolutions.items() if m is self)] += 1
        return original(self, x)

    nn.Conv2d.forward = counted  # a hook would also see what is left out
    try:
        tape.again(same["layer3.1.attention.channel"])
    finally:
        nn.Conv2d.forward = original
    assert sorted(ran) == [
        "layer4.0.conv1",
        "layer4.0.conv2",
        "layer4.0.downsample.0",
        "layer4.1.conv1",
        "layer4.1.conv2",
    ]


class Shared(nn.Module):
    """One module that makes three gates, one in-place operation, and an output that is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.squeeze = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        self.relu(x)  # what it returns is not used: it writes
        for _ in range(3):
            y = self.body(x)
            y = y * self.squeeze(y.mean((2, 3)))[:, :, None, None]
            y += x
            x = y
        return self.head(x.mean((2, 3)))


def test_a_shared_module_and_writing_in_place() -> None:
    torch.manual_seed(3)
    model = Shared().eval()
    x = torch.randn(4, 3, 8, 8)
    gates = find_gates(model, x)
    assert [gate.name for gate in gates] == ["squeeze", "squeeze#2", "squeeze#3"]
    tape = Tape(model, gates, [[gate.name] for gate in gates])
    assert torch.equal(tape.forward(x), model(x))
    for gate in gates:
        edits = {gate.name: lambda g, f: g * 0.3}
        with torch.no_grad(), edit_gates(model, edits):
            whole = model(x)
        assert torch.equal(tape.again(edits), whole)


def test_a_network_that_is_random_is_refused() -> None:
    class Noisy(Shared):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(3)

    model = Noisy().eval()
    x = torch.randn(4, 3, 8, 8)
    tape = Tape(model, find_gates(model, x), [["squeeze"]])
    tape.forward(x)
    with pytest.raises(InputError, match="the same logits twice"):
        tape.again({"squeeze": lambda g, f: g})


def test_swapping_with_itself_changes_nothing() -> None:
    model = make_network("cbam")
    x = torch.rand(3, 3, 16, 16)
    gates = find_gates(model, x)
    tape = Tape(model, gates, [[gate.name for gate in gates]])
    plain = tape.forward(x)
    own = {gate.name: as_factor(tape.seen[gate.name], gate) for gate in gates}
    again = tape.again({name: (lambda g, f, v=v: v) for name, v in own.items()})
    assert torch.equal(again, plain)


def test_bench_refuses_what_does_not_belong_together(tmp_path: Path) -> None:
    bench = toy_bench("used", tmp_path)
    images, labels = toy_images().tensors
    with pytest.raises(InputError, match="is of 90 images"):
        Bench(bench.model, TensorDataset(images[:50], labels[:50]), bench.recording)
    with pytest.raises(InputError, match="other images"):
        Bench(bench.model, TensorDataset(images, labels.roll(1)), bench.recording)
    with pytest.raises(InputError, match="another network"):
        Bench(Toy("ignored").eval(), toy_images(), bench.recording)
    with pytest.raises(InputError, match="edit 'men' is not known"):
        replace_gates(bench, edits=["men"])
    with pytest.raises(InputError, match="0 images"):
        toy_bench("constant", tmp_path, images=0)


def test_classes_without_other_images_have_no_row(tmp_path: Path) -> None:
    images, labels = toy_images(31).tensors
    labels = labels.clone()
    labels[labels == 2] = 1
    labels[30] = 2  # the only image of its class lends its gate, and is not scored
    model = Toy("used").eval()
    data = TensorDataset(images, labels)
    recording = capture(
        model, data, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    bench = Bench(model, data, recording)
    assert 30 not in bench.scored
    outcomes = replace_gates(bench, progress=False)
    counts = outcomes.groupby("edit", observed=True)["row"].count()
    assert counts["mean"] == counts["true"] == len(bench.scored)
    assert np.isnan(bench.class_mean_gates("gate")).sum() == 0


def test_effects_against_a_loop(make_outcomes: Callable[[], pd.DataFrame]) -> None:
    outcomes = make_outcomes()
    found = replacement_effects(outcomes).set_index(["target", "edit"])
    for (target, edit), row in found.iterrows():
        gained = lost = flips = 0
        shifts = []
        part = outcomes[(outcomes["target"] == target) & (outcomes["edit"] == edit)]
        for _, image in part.iterrows():
            own = outcomes[(outcomes["row"] == image["row"]) & (outcomes["edit"] == "own")].iloc[0]
            was, now = own["prediction"] == own["label"], image["prediction"] == image["label"]
            gained += now and not was
            lost += was and not now
            flips += own["prediction"] != image["prediction"]
            shifts.append(image["margin"] - own["margin"])
        assert (row["gained"], row["lost"]) == (gained, lost)
        assert row["change"] == pytest.approx((gained - lost) / len(part))
        assert row["flips"] == pytest.approx(flips / len(part))
        assert row["margin_change"] == pytest.approx(np.mean(shifts))
        assert row["margin_low"] < row["margin_change"] < row["margin_high"]
        assert row["low"] <= row["change"] <= row["high"]


@pytest.fixture
def make_outcomes() -> Callable[[], pd.DataFrame]:
    def make() -> pd.DataFrame:
        rng = np.random.default_rng(4)
        rows = []
        for target, edit in [("", "own"), ("a", "mean"), ("a", "neutral"), ("all", "mean")]:
            for row in range(40):
                rows.append((target, edit, row, row % 3, rng.integers(3), rng.normal()))
        return pd.DataFrame(
            rows, columns=["target", "edit", "row", "label", "prediction", "margin"]
        )

    return make


def test_margins_by_hand() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 4.0], [0.0, -1.0, -5.0]])
    assert margins(logits, np.array([1, 0, 2])).tolist() == [1.0, 0.0, -5.0]
