"""Maps against masks: values by hand, loops over pairs of images, SciPy, and planted objects."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from attnscope.recording.masks import MaskFacts, Masks
from attnscope.statistics import (
    attribution_localization,
    localization,
    localization_summary,
)
from attnscope.statistics.agreement import center_map
from attnscope.statistics.inference import bounded_mean_interval, holm
from attnscope.statistics.localizing import localize, mean_test
from tests.making import refused

FACTS = MaskFacts("masks", "", 0, 0, 0, 0, 0, 0)


def masks_from(inside: dict[tuple[int, int], np.ndarray], rows: np.ndarray) -> Masks:
    """Masks of some images; the area is that of any of the grids."""
    areas = next(iter(inside.values())).mean((1, 2))
    shares = {grid: np.asarray(values, np.float32) for grid, values in inside.items()}
    shares[1, 1] = areas.reshape(-1, 1, 1).astype(np.float32)
    return Masks(rows, shares, np.zeros((len(rows), 4, 4), np.uint8), FACTS)


def planted(n: int, side: int, seed: int, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Masks of 2×2 cells at random places, and maps that are higher there by ``share``."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((n, side, side))
    for i, (y, x) in enumerate(rng.integers(0, side - 1, (n, 2))):
        inside[i, y : y + 2, x : x + 2] = 1
    return inside, 0.5 * rng.random((n, side, side)) + share * inside


def test_scores_of_two_maps_by_hand() -> None:
    inside = np.array([[[1, 0.5], [0, 0]], [[0, 0], [0, 1]]])
    maps = np.array([[[3, 2], [1, 2]], [[0.5, 0.1], [0.1, 0.5]]])
    energy = localize(inside, maps, "energy")
    # Above its lowest value, the first map is 2, 1, 0, 1 and the second 0.4, 0, 0, 0.4.
    np.testing.assert_allclose(energy.value, [(2 + 0.5) / 4, 0.5])
    # The other map under the mask of this image: 0.5 · 1 + 0 · 0.5, and 1 / 4.
    np.testing.assert_allclose(energy.other, [0.5, 0.25])
    pointing = localize(inside, maps, "pointing")
    np.testing.assert_allclose(pointing.value, [1, 0.5])  # two cells tie in the second map
    np.testing.assert_allclose(pointing.other, [0.5, 0])
    assert np.isnan(energy.center).all()  # a grid of 2 × 2 has no center


def test_the_gaussian_is_scored_under_the_mask_of_each_image() -> None:
    inside, maps = planted(5, 5, 0)
    gaussian = center_map((5, 5)) - center_map((5, 5)).min()
    found = localize(inside, maps, "energy")
    expected = [(each * gaussian).sum() / gaussian.sum() for each in inside]
    np.testing.assert_allclose(found.center, expected)
    np.testing.assert_allclose(localize(inside, maps, "pointing").center, inside[:, 2, 2])
    np.testing.assert_allclose(found.over_center, found.value - expected)


@pytest.mark.parametrize("measure", ["energy", "pointing"])
def test_offset_and_scale_of_a_map_do_not_matter(measure: str) -> None:
    inside, maps = planted(20, 4, 1)
    maps = np.round(maps * 64)  # multiples of a power of two, so that sums and ties are exact
    first, second = localize(inside, maps, measure), localize(inside, 3 - maps * -0.25, measure)
    np.testing.assert_allclose(first.value, second.value)


@pytest.mark.parametrize("measure", ["energy", "pointing"])
def test_the_null_is_the_mean_over_all_other_images(measure: str) -> None:
    inside, maps = planted(12, 4, 2, 0.3)
    maps[3] = 0.7  # constant: it is not scored, and no null of another image
    found = localize(inside, maps, measure)
    assert found.scored.tolist() == [i != 3 for i in range(12)]
    rows = np.flatnonzero(found.scored)

    def score(i: int, j: int) -> float:
        values = maps[j] - maps[j].min()
        weights = values / values.sum() if measure == "energy" else maps[j] == maps[j].max()
        return float((inside[i] * weights).sum())

    other = [np.mean([score(i, j) for j in rows if j != i]) for i in rows]
    np.testing.assert_allclose(found.other, other)
    np.testing.assert_allclose(found.value, [score(i, i) for i in rows])
    assert found.over_other.mean() == pytest.approx((found.value - other).mean())


@pytest.mark.parametrize("measure", ["energy", "pointing"])
def test_terms_are_jackknife_pseudovalues(measure: str) -> None:
    inside, maps = planted(9, 4, 3, 0.3)

    def difference(rows: list[int]) -> float:
        found = localize(inside[rows], maps[rows], measure)
        return float((found.value - found.other).mean())

    every = list(range(9))
    without = [difference([j for j in every if j != i]) for i in every]
    expected = 9 * difference(every) - 8 * np.array(without)
    np.testing.assert_allclose(localize(inside, maps, measure).over_other, expected)
    assert np.isnan(localize(inside[:2], maps[:2], measure).over_other).all()


def test_the_mean_test_is_a_t_test_and_refuses_few_images() -> None:
    values = np.random.default_rng(0).normal(0.2, 1, 30)
    tested = mean_test(values)
    expected = stats.ttest_1samp(values, 0)
    assert tested["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (tested["low"], tested["high"]) == pytest.approx((interval.low, interval.high))
    few = np.concatenate([np.zeros(100), np.ones(9)])
    assert np.isnan(mean_test(few)["p"])
    assert mean_test(few)["mean"] == pytest.approx(9 / 109)
    assert np.isfinite(mean_test(np.append(few, 2))["p"])
    assert np.isnan(mean_test(np.zeros(0))["mean"])


def test_tables_of_a_recording(make_recording) -> None:
    recording = make_recording(count=40)
    rows = np.flatnonzero(np.arange(40) % 4)
    inside = {grid: planted(len(rows), grid[0], 3)[0] for grid in ((8, 8), (4, 4))}
    masks = masks_from(inside, rows)
    gate = "layer1.attention.spatial"
    table = localization(recording, gate, masks)
    found = localize(inside[8, 8], recording.spatial(gate, rows), "energy")
    assert table["row"].tolist() == rows.tolist()
    assert table["class"].tolist() == [recording.classes[k] for k in recording.labels[rows]]
    np.testing.assert_allclose(table["energy"], found.value)
    np.testing.assert_allclose(table["other_energy"], found.other)
    np.testing.assert_allclose(table["area"], 4 / 64)
    assert table["scored"].all()
    cams = attribution_localization(recording, target="true", masks=masks)
    found = localize(inside[4, 4], np.maximum(recording.grad_cam(target="true")[rows], 0), "energy")
    np.testing.assert_allclose(cams["energy"][cams["scored"]], found.value)
    summary = localization_summary(recording, masks=masks)
    assert summary["map"].tolist()[::2] == [gate, gate.replace("1", "2"), "grad_cam"]
    assert summary["depth"].tolist()[:4] == [2, 2, 4, 4]
    own = summary.iloc[0]
    test = mean_test(table["energy"].to_numpy() - table["center_energy"].to_numpy())
    assert own["p_center"] == pytest.approx(test["p"])
    assert own["over_center_low"] == pytest.approx(test["low"])
    assert (own["value"], own["images"]) == (pytest.approx(table["energy"].mean()), 30)
    mean, std = table["energy"].agg(["mean", "std"])
    ends = bounded_mean_interval(*map(np.array, ([mean], [std], [30])))
    assert [own["low"], own["high"]] == pytest.approx(np.concatenate(ends))
    for measure in ("energy", "pointing"):
        part = summary[summary["measure"] == measure]
        np.testing.assert_allclose(part["p_other_holm"], holm(part["p_other"].to_numpy()))
    # Found with a power of 80% at 5% / 3 maps: a shift of (z + z) / √30 standard deviations.
    shift = (stats.norm.isf(0.05 / 6) + stats.norm.ppf(0.8)) / np.sqrt(30)
    assert own["detectable_center"] == pytest.approx(shift * test["std"])


def test_a_map_on_the_object_is_told_from_one_at_the_center(write_recording) -> None:
    n, side = 60, 6
    inside, on = planted(n, side, 4)
    noise = np.random.default_rng(5).random((2, n, side, side))
    center = 2 * center_map((side, side)) + 0.1 * noise[0]
    corner = 0.2 * noise[0] + 0.1 * inside
    corner[:, 0, 0] += 20  # most of its energy, but the rest is on the object
    gates = {"on": on, "center": center, "noise": noise[1], "corner": corner}
    gates = {name: 0.3 * np.asarray(values) for name, values in gates.items()}
    recording = write_recording(labels=np.arange(n) % 3, gates=gates)
    masks = masks_from({(side, side): inside}, np.arange(n))
    summary = localization_summary(recording, masks=masks)
    energy = summary[summary["measure"] == "energy"].set_index("map").loc["corner"]
    assert energy["over_other"] > 0 > energy["over_center"]
    assert max(energy["p_other_holm"], energy["p_center_holm"]) < 0.05
    for _, part in summary.groupby("measure"):
        found = part.set_index("map")
        assert found.index[found["on_object"]].tolist() == ["on"]
        assert abs(found.loc["center", "over_other"]) < found.loc["on", "over_other"] / 5
        assert found.loc["on", "over_other_low"] > 0


def test_a_block_has_the_mean_of_its_gates(write_recording) -> None:
    n = 30
    inside, maps = planted(n, 4, 6)
    gates = {"a.one": 0.4 * maps, "a.two": 0.4 * planted(n, 4, 7)[1], "b": 0.4 * maps}
    gates["a.two"][2] = 0.5  # constant
    recording = write_recording(labels=np.zeros(n, int), gates=gates)
    for gate in recording.gates:
        object.__setattr__(gate, "applied_in", gate.name[0])
    masks = masks_from({(4, 4): inside}, np.arange(n))
    summary = localization_summary(recording, masks=masks)
    assert summary["map"].tolist()[::2] == ["a.one", "a.two", "block a", "b"]
    one, two = (localization(recording, f"a.{name}", masks).drop(2) for name in ("one", "two"))
    block = summary[(summary["map"] == "block a") & (summary["measure"] == "energy")].iloc[0]
    assert block["value"] == pytest.approx((one["energy"].mean() + two["energy"].mean()) / 2)
    assert (block["images"], block["constant"]) == (n - 1, 1)
    assert block["over_other"] == pytest.approx(block["value"] - block["other"])


def test_copies_count_once(write_recording) -> None:
    inside, maps = planted(40, 4, 8, 0.2)
    twice = [np.concatenate([values, values]) for values in (inside, 0.5 * maps)]
    recording = write_recording(labels=np.zeros(80, int), gates={"s": twice[1]})
    single = write_recording("single", labels=np.zeros(40, int), gates={"s": 0.5 * maps})
    masks = masks_from({(4, 4): twice[0]}, np.arange(80))
    once = masks_from({(4, 4): inside}, np.arange(40))
    grouped = localization_summary(recording, masks=masks, groups=np.arange(80) % 40)
    expected = localization_summary(single, masks=once)
    np.testing.assert_allclose(grouped["p_other"], expected["p_other"])
    assert (grouped["images"] == 40).all()
    assert (localization_summary(recording, masks=masks)["images"] == 80).all()
    with refused("AS717"):
        localization_summary(recording, masks=masks, groups=[1, 2])


def test_a_recording_without_masks_is_refused(make_recording) -> None:
    recording = make_recording()
    for call in (
        lambda: localization(recording, "layer1.attention.spatial"),
        lambda: attribution_localization(recording),
        lambda: localization_summary(recording),
    ):
        with refused("AS693", names=(recording.folder, "--masks")):
            call()
