"""Interventions on networks whose answers are known, and by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope import InputError, Recording, capture, edit_gates, find_gates
from attnscope.gates.hooks import watch_gates
from attnscope.interventions import (
    Bench,
    Erasing,
    ablate_channels,
    intervene,
    intervene_in,
    randomization,
    randomize_gates,
    replace_gates,
    study,
)
from attnscope.interventions.randomization import _drawn_anew, _modules_of, _up_to, expect_seeds
from attnscope.interventions.replay import plan_of
from attnscope.plots import Unavailable, plots_of
from attnscope.plots.decodable_and_used import usage_sentence
from attnscope.plots.runs import find_outcomes
from attnscope.plots.static_gates import static_sentence
from attnscope.plots.subjects import Intervened
from attnscope.plots.usage import usage_of
from attnscope.recording.outcomes import Outcomes, read_outcomes, write_outcomes
from attnscope.statistics import compare_gates, gate_usage, sampling
from attnscope.statistics.effects import (
    edit_contrast,
    margins,
    paired_accuracy_change,
    replacement_effects,
)
from attnscope.statistics.geometry import linear_cka
from attnscope.statistics.usage import (
    CONSTANT,
    HARMS,
    MEAN,
    MEAN_KNOWN,
    MOVES,
    NOTHING,
    UNUSED,
    USED,
)

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


def test_the_page_tells_the_three_apart(tmp_path: Path) -> None:
    verdicts, captions = {}, {}
    for mode in ("used", "ignored", "constant"):
        bench = toy_bench(mode, tmp_path)
        outcomes = intervene(bench, experiments=["decode", "replace"], progress=False)
        assert set(outcomes.tables) == {"decoding", "effects"}
        folder = tmp_path / f"{mode}-interventions"
        write_outcomes(folder, outcomes)
        again = read_outcomes(folder)
        pd.testing.assert_frame_equal(
            usage_of(again), usage_of(outcomes), check_exact=False, rtol=1e-12
        )
        verdicts[mode] = usage_of(again).loc[0, "verdict"]
        made = Intervened(bench.recording, again)
        drawings = {plot.name: plot.make(made) for plot in plots_of(Intervened)}
        captions[mode] = drawings["decodable_and_used"].caption
        assert all(len(drawing.figures) == 1 for drawing in drawings.values())
        assert find_outcomes(bench.recording) is not None
    assert verdicts == {"used": USED, "ignored": UNUSED, "constant": CONSTANT}
    assert "It is used at 1, most at gate" in captions["used"]
    assert "costs 100.0 points" in captions["used"]
    assert "can be read from 1 of 1 gates" in captions["ignored"]
    assert "No use of it in accuracy seen" in captions["ignored"]
    assert "in the gates is not seen to move the margins" in captions["ignored"]
    assert "The class in the gates moves the margins at 1" in captions["used"]
    assert "own seen to be better" in captions["ignored"]
    assert "No linear probe is seen to read the class from any of the 1" in captions["constant"]
    assert "No use of it in accuracy seen" in captions["constant"]


def test_what_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, folder = toy_bench("used", tmp_path), tmp_path / "out"
    made: list[str] = []

    def counted(*args: Any, **kwargs: Any) -> pd.DataFrame:
        made.append("replace")
        return replace_gates(*args, **kwargs)

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    wanted = ["replace", "decode", "erase"]
    monkeypatch.setattr(study, "replace_gates", counted)
    with monkeypatch.context() as patch:
        patch.setattr(study, "erase", killed)
        with pytest.raises(KeyboardInterrupt):
            intervene_in(folder, bench, experiments=wanted, progress=False)
    kept = read_outcomes(folder)
    assert kept.about["experiments"] == ["replace", "decode"]
    assert set(kept.tables) == {"effects", "decoding"}
    found = intervene_in(folder, bench, experiments=wanted, progress=False)
    assert made == ["replace"]
    assert found.about["experiments"] == wanted
    whole = intervene(bench, experiments=wanted, progress=False)
    assert found.about == whole.about
    pd.testing.assert_frame_equal(found.replacement, whole.replacement)
    assert set(found.tables) == set(whole.tables)
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(found.tables[name], table, check_exact=False, rtol=1e-12)
    with pytest.raises(InputError, match="holds these experiments already"):
        intervene_in(folder, bench, experiments=["erase"], progress=False)
    other = toy_bench("constant", tmp_path)
    with pytest.raises(InputError, match="is of another recording"):
        intervene_in(folder, other, experiments=["ablate"], progress=False)


def test_what_was_made_with_other_controls_is_made_again(tmp_path: Path) -> None:
    bench, folder = toy_bench("used", tmp_path), tmp_path / "out"
    other = toy_bench("constant", tmp_path).recording
    wanted = ["decode", "randomize"]
    found = intervene_in(folder, bench, experiments=wanted, progress=False)
    assert "seed" not in set(found.table("randomization")["randomized"])
    assert found.table("decoding")["untrained_accuracy"].isna().all()
    with pytest.raises(InputError, match="holds these experiments already"):
        intervene_in(folder, bench, experiments=wanted, progress=False)
    found = intervene_in(folder, bench, [other], experiments=wanted, progress=False)
    assert "seed" in set(found.table("randomization")["randomized"])
    assert found.about["experiments"] == wanted
    assert found.about["controls"] == {"randomize": [other.id]}
    with pytest.raises(InputError, match="holds these experiments already"):
        intervene_in(folder, bench, [other], experiments=wanted, progress=False)
    found = intervene_in(folder, bench, untrained=other, experiments=wanted, progress=False)
    assert found.table("decoding")["untrained_accuracy"].notna().all()
    assert found.about["controls"] == {"randomize": [other.id], "decode": [other.id]}
    assert "seed" in set(found.table("randomization")["randomized"])  # it was not made again
    with pytest.raises(InputError, match="is no folder of interventions"):
        intervene_in(tmp_path, bench, progress=False)


@pytest.mark.parametrize(
    ("scored", "taken"), [(1000, (100, 200, 500)), (400, (50, 100, 250)), (3000, (300, 600, 1500))]
)
def test_how_many_images_each_experiment_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scored: int, taken: tuple[int, int, int]
) -> None:
    bench = toy_bench("used", tmp_path)
    bench.scored = np.arange(scored)
    asked: dict[str, int] = {}

    def remember(name: str, answer: Any) -> Callable[..., Any]:
        def experiment(*_: Any, images: int, **__: Any) -> Any:
            asked[name] = images
            return answer

        return experiment

    table = pd.DataFrame()
    monkeypatch.setattr(study, "ablate_channels", remember("ablate", table))
    monkeypatch.setattr(study, "erase", remember("erase", Erasing(table, table)))
    monkeypatch.setattr(study, "randomize_gates", remember("randomize", table))
    experiments = ["ablate", "erase", "randomize"]
    study.intervene(bench, experiments=experiments, progress=False)
    assert asked == dict(zip(experiments, taken, strict=True))


def test_outcomes_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    bench = toy_bench("used", tmp_path)
    assert find_outcomes(bench.recording) is None
    with pytest.raises(InputError, match="make them with attnscope intervene"):
        read_outcomes(tmp_path / "none")
    outcomes = intervene(bench, experiments=["decode"], progress=False)
    with pytest.raises(Unavailable, match="replaced no gate"):
        usage_of(outcomes)
    with pytest.raises(InputError, match="have no effects"):
        outcomes.table("effects")
    with pytest.raises(InputError, match="experiment 'cut' is not known"):
        intervene(bench, experiments=["cut"])


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


def test_bench_refuses_what_does_not_belong_together(tmp_path: Path) -> None:
    bench = toy_bench("used", tmp_path)
    images, labels = toy_images().tensors
    with pytest.raises(InputError, match="is of 90 images"):
        Bench(bench.model, TensorDataset(images[:50], labels[:50]), bench.recording)
    with pytest.raises(InputError, match="other images"):
        Bench(bench.model, TensorDataset(images, labels.roll(1)), bench.recording)
    with pytest.raises(InputError, match="another network"):
        Bench(Toy("ignored").eval(), toy_images(), bench.recording)
    bench.recording.about["precision"] = "bf16"
    with pytest.raises(InputError, match="was captured in bf16; capture with --precision fp32"):
        Bench(bench.model, toy_images(), bench.recording)
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


def test_the_mean_of_the_predicted_class_is_not_that_of_the_true_one(tmp_path: Path) -> None:
    """A network that is always wrong, in one way: it takes each class for the next one."""

    class Shifted(Toy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).roll(1, dims=1)

    model, images = Shifted("used").eval(), toy_images()
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    bench = Bench(model, images, recording, images=30)
    found = replace_gates(bench, edits=["predicted", "true"], progress=False)
    means = bench.class_mean_gates("gate")
    for edit, ahead in (("predicted", 1), ("true", 0)):
        rows = found[found["edit"] == edit]
        labels = rows["label"].to_numpy()
        gates = torch.from_numpy(means[(labels + ahead) % CLASSES])
        x = images.tensors[0][rows["row"].tolist()]
        edits = {"gate": lambda g, f, gates=gates: gates[:, :, None, None]}
        with torch.no_grad(), edit_gates(model, edits):
            wanted = margins(model(x).numpy(), labels)
        np.testing.assert_allclose(rows["margin"], wanted, atol=1e-5)


def test_gates_of_rows_in_any_order_over_many_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = toy_bench("used", tmp_path)
    monkeypatch.setattr(sampling, "_STRETCH", 16)
    rows = np.random.default_rng(0).permutation(90)[:40]
    whole = bench.recording.gate("gate")
    np.testing.assert_array_equal(bench.gates_of("gate", rows), whole[rows])
    np.testing.assert_allclose(bench.mean_gate("gate"), whole[bench.others].mean(0), rtol=1e-6)


def test_never_more_than_half_of_a_class_is_scored() -> None:
    labels = np.repeat([0, 1, 2], [3, 7, 1])
    rows = sampling.stratified_sample(labels, 100, np.random.default_rng(0))
    assert np.bincount(labels[rows], minlength=3).tolist() == [1, 3, 0]


def test_a_sample_has_of_each_class_its_share(tmp_path: Path) -> None:
    images, labels = toy_images(400).tensors
    labels = torch.where(torch.arange(400) < 320, 0, 1 + torch.arange(400) % 2)
    model, data = Toy("used").eval(), TensorDataset(images, labels)
    recording = capture(
        model, data, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    bench = Bench(model, data, recording, images=200)
    assert np.bincount(recording.labels[bench.scored]).tolist() == [160, 20, 20]
    for count in (10, 50):
        rows = bench.sample(count)
        assert len(set(rows)) == count
        assert set(rows) <= set(bench.scored)
        found = np.bincount(recording.labels[rows], minlength=3)
        np.testing.assert_allclose(found, np.array([0.8, 0.1, 0.1]) * count, atol=1)


def test_verdicts_of_many_gates() -> None:
    """Sixteen gates that know the class: no number of gates hides it."""
    rng = np.random.default_rng(0)
    gates = [f"g{i:02d}" for i in range(16)]
    probe = pd.DataFrame(
        {
            "gate": gates, "kind": "channel", "depth": range(1, 17),
            "balanced_accuracy": 0.9, "null": 0.1, "p": 1 / 201, "p_max": 1 / 201,
            "constant": False,
        }
    )  # fmt: skip
    probe.loc[3, ["p_max", "balanced_accuracy"]] = 0.7, 0.1
    probe.loc[5, ["p_max", "balanced_accuracy"]] = 0.7, 0.1
    probe.loc[8, ["p_max", "balanced_accuracy"]] = 0.7, 0.1
    wrong = {
        "swap_other": ("g00", "g03"), "swap_same": ("g06",), "mean": ("g01", "g05"),
    }  # fmt: skip
    rows = [("", "own", i, i % 10, i % 10, 1.0) for i in range(100)]
    for gate in gates:
        for edit in ("mean", "swap_same", "swap_other"):
            for i in range(100):
                said = (i + 1) % 10 if i < 60 and gate in wrong[edit] else i % 10
                moved = 2 * (gate == "g07" and edit == "swap_other")
                rows.append((gate, edit, i, i % 10, said, rng.normal() - moved))
    outcomes = pd.DataFrame(
        rows, columns=["target", "edit", "row", "label", "prediction", "margin"]
    )
    verdicts = gate_usage(probe, outcomes).set_index("gate")["verdict"]
    wanted = {"g00": USED, "g01": MEAN_KNOWN, "g02": UNUSED, "g03": USED, "g05": MEAN}
    wanted |= {"g06": HARMS, "g07": MOVES, "g08": NOTHING}
    assert verdicts[list(wanted)].to_dict() == wanted
    sentence = usage_sentence(gate_usage(probe, outcomes))
    assert "read from 13 of 16 gates" in sentence
    assert "It is used at 2" in sentence
    assert "At 1 the gate of another class does better, most at g06: by 60.0 points" in sentence
    assert "in the gates moves the margins at 1, most at g07: by +" in sentence
    assert "better than the mean at 2" in sentence
    with pytest.raises(InputError, match="say nothing of the gate 'g99'"):
        gate_usage(probe.assign(gate=[*gates[:-1], "g99"]), outcomes)


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    names = ["2", "0.1", "null", ""]
    table = pd.DataFrame({"gate": names, "kind": "channel", "p": [0.1, np.nan, 1, 2]})
    write_outcomes(tmp_path / "o", Outcomes({"name": "n"}, None, {"decoding": table}))
    pd.testing.assert_frame_equal(read_outcomes(tmp_path / "o").table("decoding"), table)


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


def test_the_interval_of_flips_is_wilsons(make_outcomes: Callable[[], pd.DataFrame]) -> None:
    outcomes = make_outcomes()
    own = outcomes[outcomes["edit"] == "own"]
    still = own.assign(target="a", edit="still")  # an edit after which no image says another class
    found = replacement_effects(pd.concat([outcomes, still])).set_index(["target", "edit"])
    said = own["prediction"].to_numpy()
    for (target, edit), row in found.drop(("a", "still")).iterrows():
        part = outcomes[(outcomes["target"] == target) & (outcomes["edit"] == edit)]
        flips = sum(a != b for a, b in zip(part["prediction"], said, strict=True))
        assert 0 < flips < 40
        wanted = stats.binomtest(flips, 40).proportion_ci(0.95, method="wilson")
        assert (row["flips_low"], row["flips_high"]) == pytest.approx((wanted.low, wanted.high))
    # By hand: without a flip the upper end is z² / (n + z²), z² = 3.8414588.
    ends = tuple(found.loc[("a", "still"), ["flips", "flips_low", "flips_high"]])
    assert ends == pytest.approx((0, 0, 3.8414588 / 43.8414588), abs=1e-8)


def test_the_interval_of_a_paired_change_by_hand() -> None:
    """98 images: 50 right twice, 30 wrong twice, 4 gained, 14 lost; one is added to each flip.

    With 5 and 15 of 100 the change is -0.1 and its variance (0.05 + 0.15 - 0.1²) / 100 = 0.0019,
    whose root 0.04358899 times 1.95996398 is 0.08543285.
    """
    counts = [50, 30, 4, 14]
    before = np.repeat([True, False, False, True], counts)
    after = np.repeat([True, False, True, False], counts)
    wanted = (-10 / 98, -0.18543285, -0.01456715)
    assert paired_accuracy_change(before, after) == pytest.approx(wanted, abs=1e-8)
    # Of one image, lost: 1/3 - 2/3 ± 1.95996398 √((1 - 1/9) / 3), no further than -1.
    found = paired_accuracy_change(np.array([True]), np.array([False]))
    assert found == pytest.approx((-1, -1, -1 / 3 + 1.95996398 * np.sqrt(8 / 27)), abs=1e-8)
    assert np.isnan(paired_accuracy_change(before[:0], after[:0])).all()


def test_the_p_of_a_contrast_is_scipys(make_outcomes: Callable[[], pd.DataFrame]) -> None:
    """On the images that both edits have, in whatever order they come."""
    outcomes = make_outcomes()
    lacks = (outcomes["edit"] == "neutral") & (outcomes["row"] % 8 == 5)
    mixed = outcomes[~lacks].sample(frac=1, random_state=0)
    said = {(o.edit, o.row): o for o in outcomes[outcomes["target"] != "all"].itertuples()}
    for first, second in (("neutral", "mean"), ("mean", "own")):
        rows = [row for row in range(40) if "neutral" not in (first, second) or row % 8 != 5]
        pairs = [(said[first, row], said[second, row]) for row in rows]
        right = [(a.prediction == a.label, b.prediction == b.label) for a, b in pairs]
        alone = right.count((True, False)), right.count((False, True))
        found = edit_contrast(mixed, first, second).set_index("target").loc["a"]
        assert found["images"] == len(rows)
        assert found["p"] == pytest.approx(stats.binomtest(alone[1], sum(alone), 0.5).pvalue)
        margin = np.array([(a.margin, b.margin) for a, b in pairs])
        assert found["p_margin"] == pytest.approx(
            stats.ttest_rel(margin[:, 1], margin[:, 0]).pvalue
        )
        assert found["change"] == pytest.approx((alone[1] - alone[0]) / len(rows))
        assert found["margin_change"] == pytest.approx((margin[:, 1] - margin[:, 0]).mean())


def test_margins_by_hand() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 4.0], [0.0, -1.0, -5.0]])
    assert margins(logits, np.array([1, 0, 2])).tolist() == [1.0, 0.0, -5.0]


class Weighted(nn.Module):
    """Logit k is the sum over the channels of class k of gate times a weight known by hand.

    Twelve channels, four a class; the gate of a channel grows with its number within the class, and
    so does its part in the logit.
    """

    def __init__(self, invert: bool = False) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(3, 12), nn.Sigmoid())
        strength = torch.arange(1.0, 5.0).repeat(3)
        part = strength.flip(0) if invert else strength
        with torch.no_grad():
            of_class = torch.eye(3).repeat_interleave(4, 0)
            self.gate[0].weight.copy_(of_class * strength[:, None])
            self.gate[0].bias.fill_(-1)
        self.register_buffer("part", of_class * part[:, None])

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x.mean((2, 3)))[:, :, None, None]
        blank = (x * 0 + 1).mean(1, keepdim=True).repeat(1, 12, 1, 1)
        return (blank * gate).mean((2, 3)) @ self.part


@pytest.mark.parametrize("invert", [False, True])
def test_ablation_tells_whether_the_highest_gates_matter(tmp_path: Path, invert: bool) -> None:
    model, images = Weighted(invert).eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    bench = Bench(model, images, recording)
    found = ablate_channels(bench, shares=(1 / 12, 0.5), draws=60, images=20, progress=False)
    assert len(found) == 10
    assert set(found["channels"]) == {1, 6}
    few = found[found["channels"] == 1].set_index("order")
    # By hand: of each image the channel with the highest gate is the fourth of its class.
    mean, values = bench.mean_gate("gate"), recording.gate("gate")
    rows = bench.sample(20)
    labels = recording.labels[rows]
    assert np.bincount(labels).min() >= 6
    wanted = []
    for row, label in zip(rows, labels, strict=True):
        gate = values[row].astype(np.float64)
        edited = gate.copy()
        edited[gate.argmax()] = mean[gate.argmax()]
        part = model.part.numpy()
        both = margins(np.stack([edited, gate]) @ part, np.array([label, label]))
        wanted.append(both[0] - both[1])
    assert few.loc["top gate", "margin_change"] == pytest.approx(np.mean(wanted), abs=1e-5)
    assert few.loc["random", "margin_change"] == pytest.approx(few.loc["random", "null"])
    assert np.isnan(few.loc["random", "p"])
    if invert:  # the highest gates are worth least
        assert few.loc["top gate", "p"] > 0.5
    else:
        assert few.loc["top gate", "p"] == pytest.approx(1 / 61)
        assert few.loc["top gate", "margin_change"] < few.loc["top gate", "null_low"]
        assert few.loc["bottom gate", "p"] > 0.9
    # All channels are equally large, so that both rankings are one.
    for column in ("margin_change", "p"):
        assert few.loc["top gate", column] == few.loc["top gate x norm", column]


def test_ablation_of_one_number_for_all_channels(tmp_path: Path) -> None:
    class One(Toy):
        def __init__(self) -> None:
            super().__init__("used")
            self.one = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.one(x.mean((2, 3)))[:, :, None, None])

    torch.manual_seed(0)
    model, images = One().eval(), toy_images(30)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    assert recording.gate("one").shape == (30, 1)
    bench = Bench(model, images, recording)
    found = ablate_channels(bench, shares=(0.5,), draws=5, images=9, progress=False)
    assert set(found["gate"]) == {"gate"}
    assert set(found["channels"]) == {2}


def test_ablation_by_gate_and_norm(tmp_path: Path) -> None:
    class Loud(Weighted):
        def forward(self, x: Tensor) -> Tensor:
            gate = self.gate(x.mean((2, 3)))[:, :, None, None]
            blank = (x * 0 + 1).mean(1, keepdim=True).repeat(1, 12, 1, 1)
            loud = torch.where(torch.arange(12) % 4 == 0, 100.0, 1.0)[:, None, None]
            return (blank * loud * gate).mean((2, 3)) @ self.part

    model, images = Loud().eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    bench = Bench(model, images, recording)
    found = ablate_channels(bench, shares=(1 / 12,), draws=40, images=20, progress=False)
    found = found.set_index("order")
    # The loudest channel makes the logit, though its gate is the lowest of its class.
    assert (
        found.loc["top gate x norm", "margin_change"] < 5 * found.loc["top gate", "margin_change"]
    )
    assert found.loc["top gate x norm", "p"] == pytest.approx(1 / 41)


def test_randomization_tells_what_was_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gate whose module passes on what comes in, after a layer that makes what it reads."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 1, bias=False)
            self.norm = nn.BatchNorm2d(6)
            self.first = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
            self.constant = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid())
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            x = x * self.first(x.mean((2, 3)))[:, :, None, None]
            x = x * self.constant(x.mean((2, 3)))[:, :, None, None]
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model, images = Net().eval(), toy_images(60)
    with torch.no_grad():
        model.constant[0].weight.zero_()
        model.constant[0].bias.fill_(0.3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    bench = Bench(model, images, recording)
    drawn: list[set[str]] = []

    def noted(bench: Bench, gate: Any, paths: set[str], *rest: Any) -> nn.Module | None:
        drawn.append(paths)
        return _drawn_anew(bench, gate, paths, *rest)

    monkeypatch.setattr(randomization, "_drawn_anew", noted)
    torch.manual_seed(5)
    seed = Recording(recording.folder)
    seed.id = "of another training"
    found = randomize_gates(bench, [seed], draws=2, progress=False)
    following = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(following, torch.rand(1))  # nobody else's random numbers are touched
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert ["stem" in paths for paths in drawn[:4]] == [False, False, True, True]
    assert all("first.0" in paths for paths in drawn[:4])
    table = found.set_index(["gate", "randomized", "draw"])["similarity"]
    assert table["first", "seed", 0] == pytest.approx(1)
    assert (table["first"][["own", "upstream"]] < 0.999).all()
    # What is drawn: the gate's own layer, and with what had run before nothing after it.
    gate = recording.gates[0]
    lenders = np.flatnonzero(bench.others)
    for paths, wanted_names in (
        (_modules_of(model, gate), {"first"}),
        (
            _modules_of(model, gate) | plan_of(model, images.tensors[0]).ran_before(gate),
            {"first", "stem", "norm"},
        ),
    ):
        other = _drawn_anew(bench, gate, paths, lenders, 0)
        assert other is not None
        changed = {
            name.split(".")[0]
            for name, value in other.state_dict().items()
            if not torch.equal(value, state[name])
        }
        assert changed == wanted_names
    # Its BatchNorm knows the new features.
    with torch.no_grad():
        features = other.stem(images.tensors[0][lenders])
    wanted = features.mean((0, 2, 3))
    torch.testing.assert_close(other.norm.running_mean, wanted, atol=1e-3, rtol=1e-3)
    assert _drawn_anew(bench, gate, {"first.1"}, lenders, 0) is None  # a sigmoid has no parameters
    assert table["constant"].isna().all()  # a constant gate is like nothing, itself included
    assert len(found) == 2 * (2 * 2 + 1)


def test_seeds_are_other_trainings_of_the_same_network(tmp_path: Path) -> None:
    bench = toy_bench("used", tmp_path)
    with pytest.raises(InputError, match="is the network itself"):
        randomize_gates(bench, [bench.recording], progress=False)
    other = Recording(bench.recording.folder)
    other.id = "of another training"
    bench.recording.about["model"] = {"width": 16}
    expect_seeds(bench, [other])  # what is not known cannot differ
    other.about["model"] = {"width": 32}
    with pytest.raises(InputError, match="is of another network or training"):
        expect_seeds(bench, [other])
    other.about["model"] = {"width": 16}
    # The same weights captured again, in other batches.
    bench.recording.about["weights_sha256"] = other.about["weights_sha256"] = "abc"
    with pytest.raises(InputError, match="is the network itself"):
        expect_seeds(bench, [other])
    other.about["weights_sha256"] = "def"
    other.gates = []
    with pytest.raises(InputError, match="has no gate gate; take another seed"):
        expect_seeds(bench, [other])


def test_norms_of_pooled_features_are_estimated_on_several_images(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.gate(x.mean((2, 3)))[:, :, None, None]).mean((2, 3))

    torch.manual_seed(0)
    model, images = Net().eval(), toy_images(60)
    recording = capture(
        model, images, tmp_path / "r", classes=list("abc"), grad_cam_layers=(), progress=False
    )
    assert isinstance(recording, Recording)
    bench = Bench(model, images, recording, batch_size=29)  # thirty lenders: one is left over
    assert bench.others.sum() == 30
    found = randomize_gates(bench, draws=1, progress=False)
    assert found["similarity"].notna().all()
    one = Bench(model, images, recording, batch_size=1)
    drawn = _drawn_anew(one, one.gates[0], {"gate.1"}, np.flatnonzero(one.others), 0)
    assert drawn is not None
    assert (drawn.get_submodule("gate.1").running_var < 0.5).all()  # as at the start it were 1
    one.others[:] = False
    with pytest.raises(InputError, match="has 0 images that are not scored"):
        randomize_gates(one, draws=1, progress=False)


def test_which_gates_could_be_their_mean_in_words() -> None:
    targets = ["a", "b", "block x", "block y", "all"]
    mean = pd.DataFrame(
        {
            "target": targets, "change": [-0.01, 0.0, -0.02, -0.3, -0.4],
            "low": -0.5, "high": 0.1, "accuracy": 0.5,
        }
    )  # fmt: skip
    said = static_sentence(mean, np.array([False, False, False, True, True]))
    assert said == (
        "No gate alone is seen to need its images: none of 2. Of 2 blocks with all their gates as "
        "means 1 is seen to lose; the lowest is block y, −30.0 points. All gates as their means: "
        "−40.0 points (95 % −50.0 to +10.0), 50.0 %: a loss."
    )
    said = static_sentence(mean, np.array([True, False, False, False, False]))
    assert "At 1 of 2 gates the mean alone costs accuracy, most at a: −1.0 points" in said
    assert "means none is seen to lose" in said
    assert said.endswith("50.0 %: no loss seen.")


def test_a_forward_as_far_as_a_gate() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())

        def forward(self, x: Tensor, gated: bool = True) -> Tensor:
            return x * self.gate(x.mean((2, 3)))[:, :, None, None] if gated else x + 1

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.calls = Block(), Block(), 0

        def forward(self, x: Tensor) -> Tensor:
            x = self.second(self.first(self.second(x, gated=False)))
            self.calls += 1
            return x.mean((2, 3))

    torch.manual_seed(0)
    model, x = Net().eval(), torch.rand(2, 3, 4, 4)
    gates = find_gates(model, x)
    with watch_gates(model, gates) as seen:
        model(x)
        wanted = dict(seen)
    for gate in gates:
        model.calls = 0
        with _up_to(model, gate) as run:
            for _ in range(2):
                assert torch.equal(run(x), wanted[gate.name])
        assert model.calls == 0
    model(x)
    assert model.calls == 1


def test_cka_by_hand_and_its_invariances() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8)), rng.normal(size=(30, 5))
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    assert linear_cka(x, 3 * x @ rotation + 1) == pytest.approx(1)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x))
    assert np.isnan(linear_cka(x, np.full((30, 4), 0.1, np.float32)))
    # HSIC as the sum over all four different images that it estimates (Song et al. 2012, eq. 3).
    small, other = x[:7], y[:7]
    k, m = (v - v.mean(0) for v in (small, other))
    k, m = k @ k.T, m @ m.T

    def loop(k: np.ndarray, m: np.ndarray) -> float:
        total, count = 0.0, 0
        for i, j, q, r in itertools.permutations(range(7), 4):
            total += k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
            count += 1
        return total / count

    wanted = loop(k, m) / np.sqrt(loop(k, k) * loop(m, m))
    assert linear_cka(small, other) == pytest.approx(wanted)
    # Unrelated gates are about 0 apart however many channels there are.
    wide = [linear_cka(rng.normal(size=(40, 500)), rng.normal(size=(40, 500))) for _ in range(20)]
    assert abs(np.mean(wide)) < 0.02


def test_similarity_of_maps_is_spearmans(write_recording: Callable[..., Recording]) -> None:
    rng = np.random.default_rng(1)
    maps = rng.random((9, 4, 4)), rng.random((9, 4, 4))
    maps[0][3] = 0.5
    labels = np.arange(9) % 3
    a, b = (
        write_recording(name, labels=labels, gates={"s": values})
        for name, values in zip("ab", maps, strict=True)
    )
    row = compare_gates(a, b).iloc[0]
    wanted = [
        stats.spearmanr(first.ravel(), second.ravel()).statistic
        for i, (first, second) in enumerate(zip(*maps, strict=True))
        if i != 3
    ]
    assert row["images"] == 8
    assert row["similarity"] == pytest.approx(np.mean(wanted))
