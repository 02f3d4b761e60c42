"""Maps and Grad-CAM: scores against SciPy, sets and loops; planted agreement, and controls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from attnscope.recording.recording import Recording
from attnscope.statistics import (
    agreement_summary,
    class_mean_grad_cam,
    class_mean_maps,
    compare_grad_cam,
    map_agreement,
)
from attnscope.statistics.agreement import center_map, score_maps
from tests.making import refused
from tests.statistics.test_agreement import pooled

MAP = "layer1.attention.spatial"  # 8 × 8, where Grad-CAM is 4 × 4
SAME = "layer2.attention.spatial"  # 4 × 4 as well


def test_class_mean_maps_equal_a_loop(make_recording):
    recording = make_recording(count=50)
    cam = recording.grad_cam()
    maps = recording.spatial(MAP)
    for k in range(3):
        rows = [i for i in range(50) if recording.labels[i] == k]
        assert class_mean_maps(recording, MAP)[k] == pytest.approx(
            sum(maps[i].astype(float) for i in rows) / len(rows)
        )
        assert class_mean_grad_cam(recording)[k] == pytest.approx(
            sum(cam[i].astype(float) * (cam[i] > 0) for i in rows) / len(rows)
        )


def test_class_mean_maps_show_a_planted_position(write_recording):
    labels = np.arange(30) % 2
    maps = np.random.default_rng(0).uniform(0.2, 0.3, (30, 4, 6))
    maps[labels == 1, 2, 5] += 0.5
    means = class_mean_maps(write_recording(labels=labels, gates={"s": maps}), "s")
    difference = means[1] - means[0]
    assert np.unravel_index(difference.argmax(), (4, 6)) == (2, 5)
    assert difference[2, 5] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(means[2]).all()  # no owls


def test_class_mean_grad_cam_depends_on_the_target(make_recording):
    recording = make_recording()
    first, second = (class_mean_grad_cam(recording, target) for target in ("predicted", "true"))
    assert first.shape == (3, 4, 4)
    assert (first != second).all()


@pytest.mark.parametrize("gate", [MAP, SAME])
@pytest.mark.parametrize("target", ["predicted", "true"])
def test_map_agreement_equals_scipy_and_sets(make_recording, gate, target):
    recording = make_recording(count=50)
    cam = recording.grad_cam(target=target)
    frame = map_agreement(recording, gate, target)
    assert frame["row"].tolist() == list(range(50))
    assert frame["class"].tolist() == [recording.classes[k] for k in recording.labels]
    assert frame["scored"].all()
    for i in range(50):
        first = pooled(recording.spatial(gate)[i], 4, 4).ravel()
        second = np.maximum(cam[i], 0).ravel()
        assert frame["spearman"][i] == pytest.approx(stats.spearmanr(first, second).statistic)
        # A fifth of 16 pixels is 3. Grad-CAM is positive at more than 3 pixels: there are no ties.
        assert (second > 0).sum() > 3
        top, other = set(np.argsort(-first)[:3]), set(np.argsort(-second)[:3])
        assert frame["iou"][i] == pytest.approx(len(top & other) / len(top | other))


def test_the_null_is_the_grad_cam_of_another_image(make_recording):
    recording = make_recording(count=20)
    frame = map_agreement(recording, SAME)
    maps = recording.spatial(SAME).reshape(20, -1)
    cam = np.maximum(recording.grad_cam(), 0).reshape(20, -1)
    partners = []
    for i in range(20):
        rho = [stats.spearmanr(maps[i], other).statistic for other in cam]
        (partner,) = np.flatnonzero(np.isclose(rho, frame["null_spearman"][i]))
        partners.append(partner)
        top, other = set(np.argsort(-maps[i])[:3]), set(np.argsort(-cam[partner])[:3])
        assert frame["null_iou"][i] == pytest.approx(len(top & other) / len(top | other))
    assert sorted(partners) == list(range(20))
    assert all(partner != i for i, partner in enumerate(partners))


def top(values, places):
    """Return the highest pixels as a set."""
    return set(np.argsort(-values)[:places])


def test_the_same_class_control_uses_another_image_of_the_same_class(make_recording):
    recording = make_recording(count=20)
    frame = map_agreement(recording, SAME)
    maps = recording.spatial(SAME).reshape(20, -1)
    cam = np.maximum(recording.grad_cam(), 0).reshape(20, -1)
    partners = []
    for i in range(20):
        rho = [stats.spearmanr(maps[i], other).statistic for other in cam]
        (partner,) = np.flatnonzero(np.isclose(rho, frame["same_class_spearman"][i]))
        partners.append(partner)
        a, b = top(maps[i], 3), top(cam[partner], 3)
        assert frame["same_class_iou"][i] == pytest.approx(len(a & b) / len(a | b))
    assert sorted(partners) == list(range(20))
    assert all(partner != i for i, partner in enumerate(partners))
    assert (recording.labels[partners] == recording.labels).all()


@pytest.mark.parametrize("grid", [(4, 4), (3, 6), (7, 5)])
def test_the_center_control_is_a_centered_gaussian(write_recording, grid):
    maps = np.random.default_rng(0).uniform(0.2, 0.8, (5, *grid))
    recording = write_recording(labels=[0, 1, 2, 0, 1], gates={"s": maps}, grad_cam=maps)
    frame = map_agreement(recording, "s")
    sides = [
        stats.norm.pdf(np.arange(n), loc=(n - 1) / 2, scale=n / 4) * np.sqrt(2 * np.pi) * n / 4
        for n in grid
    ]
    gaussian = np.outer(*sides)
    assert center_map(grid) == pytest.approx(gaussian)
    gaussian = gaussian.round(9).astype(np.float32)  # cells at equal distance tie
    others = np.tile(gaussian, (5, 1, 1))
    overlap = score_maps(recording.spatial("s"), others, recording.labels, 0)["iou"]
    assert frame["center_iou"].to_numpy() == pytest.approx(overlap.to_numpy())
    for i in range(5):
        own = recording.spatial("s")[i].ravel()
        expected = stats.spearmanr(own, gaussian.ravel()).statistic
        assert frame["center_spearman"][i] == pytest.approx(expected)


def test_controls_separate_agreement_by_center_class_and_image(write_recording):
    """Agreement by class, by center and by image is in the right controls, and in no other."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 3
    gaussian = np.tile(center_map((4, 4)), (240, 1, 1))
    of_class = rng.permuted(np.tile(np.arange(16.0), (3, 1)), axis=1).reshape(3, 4, 4)[labels]
    cam = of_class / 16 + 0.01 * rng.random((240, 4, 4))
    gates = {"center": 0.1 + gaussian / 2, "class": 0.05 * of_class, "own": cam / 2}
    frame = agreement_summary(
        write_recording(labels=labels, gates=gates, grad_cam=cam), resamples=99
    )
    rows = frame[frame["class"] == "all"].set_index("gate")
    assert rows.loc["center", ["center_spearman", "center_iou"]].tolist() == pytest.approx([1, 1])
    assert rows["center_spearman"]["class"] < 0.6
    for gate in ("class", "own"):
        assert rows["same_class_spearman"][gate] > 0.95
        assert rows["null_spearman"][gate] < 0.6
        assert rows["above_null_low"][gate] > 0.2
    # A map that is the same for all images agrees with every Grad-CAM alike.
    assert rows["above_null_low"]["center"] <= 0 <= rows["above_null_high"]["center"]


def test_same_class_scores_are_nan_for_the_only_scored_image_of_a_class(write_recording):
    rng = np.random.default_rng(0)
    maps, cam = rng.random((2, 6, 4, 4)).astype(np.float16)
    cam[4] = 0  # leaves one of the two dogs
    recording = write_recording(labels=[0, 0, 0, 1, 1, 2], gates={"s": maps}, grad_cam=cam)
    frame = map_agreement(recording, "s")
    assert frame["same_class_spearman"].isna().tolist() == 3 * [False] + 3 * [True]
    assert frame["same_class_iou"].isna().tolist() == 3 * [False] + 3 * [True]
    assert frame["center_spearman"].isna().tolist() == 4 * [False] + [True, False]
    summary = agreement_summary(recording).set_index("class")
    assert summary["scored"].tolist() == [5, 3, 1, 1]
    cats = frame["same_class_spearman"][:3].mean()
    assert summary["same_class_spearman"].tolist() == pytest.approx(
        [cats, cats, np.nan, np.nan], nan_ok=True
    )
    assert summary["above_null"].notna().all()
    ends = ["spearman_low", "iou_high", "above_null_low", "above_null_high"]
    assert (summary[ends].isna().all(axis=1) == [False, False, True, True]).all()
    assert summary[ends].isna().any(axis=1).tolist() == [False, False, True, True]


def test_center_scores_are_nan_on_a_grid_of_two_cells(write_recording):
    maps = np.random.default_rng(0).random((4, 2, 2))
    recording = write_recording(labels=[0, 1, 0, 1], gates={"s": maps}, grad_cam=maps)
    frame = map_agreement(recording, "s")
    assert frame["scored"].all()
    assert frame[["center_spearman", "center_iou"]].isna().all(axis=None)
    assert agreement_summary(recording)["center_spearman"].isna().all()


def test_agreement_intervals_equal_scipys_bootstrap(make_recording):
    recording = make_recording(count=150)
    frame = agreement_summary(recording, seed=2, resamples=4000)
    images = map_agreement(recording, MAP, seed=2)
    images["above_null"] = images["spearman"] - images["null_spearman"]
    for row, name in enumerate(["all", *recording.classes]):
        own = images if name == "all" else images[images["class"] == name]
        for column in ("spearman", "iou", "above_null"):
            theirs = stats.bootstrap(
                (own[column].to_numpy(),), np.mean, method="percentile", n_resamples=4000, rng=1
            ).confidence_interval
            mean, width = own[column].mean(), theirs.high - theirs.low
            assert frame[column][row] == pytest.approx(mean)
            assert frame[f"{column}_low"][row] == pytest.approx(theirs.low, abs=0.06 * width)
            assert frame[f"{column}_high"][row] == pytest.approx(theirs.high, abs=0.06 * width)
    again = agreement_summary(recording, seed=2, resamples=4000)
    assert frame.equals(again)
    with refused("AS701", names=("resamples", 0, 1000)):
        agreement_summary(recording, resamples=0)


def test_intervals_of_all_images_do_not_depend_on_those_of_the_classes(write_recording):
    """Gates with different numbers of scored images have different resamples."""
    maps = np.random.default_rng(0).random((3, 30, 4, 4))
    maps[2, :4] = 0.5  # not scored
    gates = dict(zip(("s", "t", "u"), maps, strict=True))
    cam = np.random.default_rng(1).random((30, 4, 4))
    recording = write_recording(labels=[0, 1] * 15, gates=gates, grad_cam=cam)
    with_classes = agreement_summary(recording, seed=1, resamples=200)
    without = agreement_summary(recording, seed=1, resamples=200, class_intervals=False)
    ends = [column for column in without if column.endswith(("_low", "_high"))]
    assert without["scored"][without["class"] == "all"].tolist() == [30, 30, 26]
    assert without.drop(columns=ends).equals(with_classes.drop(columns=ends))
    of_all = without["class"] == "all"
    assert with_classes[of_all][ends].notna().all(axis=None)
    assert without[of_all].equals(with_classes[of_all])
    assert without[~of_all][ends].isna().all(axis=None)


def test_the_seed_of_map_agreement_affects_only_the_controls(make_recording):
    recording = make_recording()
    first, again, other = (map_agreement(recording, MAP, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert first["spearman"].equals(other["spearman"])
    assert not first["null_spearman"].equals(other["null_spearman"])


def test_agreement_with_the_own_image_is_above_the_null(write_recording):
    rng = np.random.default_rng(0)
    cam = rng.uniform(0.1, 1, (200, 4, 4)).astype(np.float16)
    maps = cam.astype(float).repeat(2, 1).repeat(2, 2)  # the same on an 8 × 8 grid
    frame = agreement_summary(
        write_recording(labels=np.arange(200) % 3, gates={"s": maps}, grad_cam=cam)
    )
    assert frame["spearman"].tolist() == pytest.approx([1] * 4)
    assert frame["iou"].tolist() == pytest.approx([1] * 4)
    assert frame["null_spearman"].abs().max() < 0.1
    assert frame["null_iou"].max() < 0.2


def test_agreement_shared_by_all_images_equals_the_null(write_recording):
    center = np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.5], [0.6, 0.7, 0.8]])
    maps = np.tile(center, (6, 1, 1))
    row = agreement_summary(
        write_recording(labels=[0, 1, 2, 0, 1, 2], gates={"s": maps}, grad_cam=maps)
    ).loc[0]
    assert row["spearman"] == row["null_spearman"] == pytest.approx(1)
    assert row["iou"] == row["null_iou"] == 1


def test_random_maps_agree_no_better_than_the_null(make_recording):
    frame = map_agreement(make_recording(count=400), MAP)
    assert stats.ttest_rel(frame["spearman"], frame["null_spearman"]).pvalue > 0.01
    assert frame["spearman"].mean() == pytest.approx(0, abs=0.05)


def test_constant_maps_are_not_scored_but_counted(write_recording):
    rng = np.random.default_rng(0)
    maps = rng.uniform(0.2, 0.8, (7, 4, 4))
    cam = rng.normal(size=(7, 2, 2))
    cam[:, 0, 0], cam[:, 0, 1] = 1, 2
    maps[1] = 0.1  # constant
    maps[2] = np.tile([[0.2, 0.4], [0.4, 0.2]], (2, 2))  # constant at the coarser grid
    cam[3] = -1  # all zero after the ReLU
    cam[4] = 0.5  # positive, and the same everywhere
    recording = write_recording(labels=[0, 0, 0, 1, 1, 0, 0], gates={"s": maps}, grad_cam=cam)
    frame = map_agreement(recording, "s")
    assert frame["scored"].tolist() == [True, False, False, False, False, True, True]
    scores = frame[["spearman", "iou", "null_spearman", "null_iou"]]
    assert (scores.isna().all(axis=1) == ~frame["scored"]).all()
    assert scores[frame["scored"]].notna().all(axis=None)
    summary = agreement_summary(recording)
    assert summary["class"].tolist() == ["all", "cat", "dog", "owl"]
    assert summary["scored"].tolist() == [3, 3, 0, 0]
    assert summary["constant"].tolist() == [4, 2, 2, 0]
    assert summary["spearman"].isna().tolist() == [False, False, True, True]


def test_the_null_is_drawn_among_the_scored_images(write_recording):
    rng = np.random.default_rng(0)
    maps, cam = rng.random((2, 6, 4, 4)).astype(np.float16)
    cam[:3] = 0
    frame = map_agreement(write_recording(labels=[0] * 6, gates={"s": maps}, grad_cam=cam), "s")
    for i in (3, 4, 5):
        others = [j for j in (3, 4, 5) if j != i]
        rho = [stats.spearmanr(maps[i].ravel(), cam[j].ravel()).statistic for j in others]
        assert np.isclose(rho, frame["null_spearman"][i]).any()


def test_null_scores_are_nan_with_one_scored_image(write_recording):
    maps = np.array([[[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.5], [0.5, 0.5]]])
    frame = map_agreement(
        write_recording(labels=[0, 1], gates={"s": maps}, grad_cam=np.ones((2, 2, 2)) * maps), "s"
    )
    assert frame["spearman"][0] == pytest.approx(1)
    assert frame[["null_spearman", "null_iou"]].isna().all(axis=None)


def test_agreement_summary_equals_groupby(make_recording):
    recording = make_recording(count=50)
    frame = agreement_summary(recording, "true", seed=3)
    assert frame["gate"].tolist() == [MAP] * 4 + [SAME] * 4
    assert frame["depth"].tolist() == [2] * 4 + [4] * 4
    assert frame["class"].tolist() == ["all", *recording.classes] * 2
    columns = ["spearman", "iou", "null_spearman", "null_iou"]
    columns += ["same_class_spearman", "same_class_iou", "center_spearman", "center_iou"]
    for gate in (MAP, SAME):
        images = map_agreement(recording, gate, "true", seed=3)
        rows = frame[frame["gate"] == gate].set_index("class")
        assert rows.loc["all", columns].tolist() == pytest.approx(images[columns].mean().tolist())
        by_class = images.groupby("class")[columns].mean()
        assert rows.loc[recording.classes, columns].to_numpy() == pytest.approx(
            by_class.loc[recording.classes].to_numpy()
        )
    assert (frame["scored"] == [50, 17, 17, 16] * 2).all()


def test_unknown_gates_targets_and_attributions_are_refused(make_recording, write_recording):
    recording = make_recording()
    with refused("AS609", names=("layer1.attention.channel",)):
        map_agreement(recording, "layer1.attention.channel")
    with refused("AS610", names=("both",)):
        map_agreement(recording, MAP, "both")
    with refused("AS611"):
        agreement_summary(write_recording(labels=[0], gates={"s": [[[0.1, 0.2]]]}))
    without = agreement_summary(make_recording("se", spatial=False))
    assert len(without) == 0
    assert list(without)[:3] == ["gate", "depth", "class"]


def test_map_agreement_uses_the_images_of_the_attribution(
    make_recording: Callable[..., Recording],
) -> None:
    """On the same grid the score is Spearman's rho of the two maps of each image."""
    recording = make_recording(attributed=7)
    method, gate = "layer_integrated_gradients", "layer2.attention.spatial"
    found = map_agreement(recording, gate, attribution=method)
    rows = recording.attributed_rows(method)
    assert found["row"].tolist() == rows.tolist()
    names = np.array(recording.classes)[recording.labels[rows]]
    assert found["class"].tolist() == names.tolist()
    explained = np.maximum(recording.attribution(method), 0)
    for place, row in enumerate(rows):
        own = recording.spatial(gate)[row].ravel()
        rho = stats.spearmanr(own, explained[place].ravel()).statistic
        assert found["spearman"][place] == pytest.approx(rho, abs=1e-6)
    summary = agreement_summary(recording, attribution=method).set_index(["gate", "class"])
    assert summary.loc[(gate, "all"), "spearman"] == pytest.approx(found["spearman"].mean())


def test_compare_grad_cam_refuses_attributions_of_different_images(
    make_recording: Callable[..., Recording],
) -> None:
    a, b = make_recording("a", attributed=5), make_recording("b", seed=1, attributed=5)
    frame = compare_grad_cam(a, b, attribution="occlusion")
    labels = a.labels[a.attributed_rows("occlusion")]
    assert frame["scored"][1:].tolist() == np.bincount(labels, minlength=3).tolist()
    found = frame.iloc[0]
    maps = [np.maximum(recording.attribution("occlusion"), 0) for recording in (a, b)]
    rho = [stats.spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(*maps, strict=True)]
    assert found["spearman"] == pytest.approx(np.mean(rho), abs=1e-6)
    assert found["scored"] == 5
    with refused("AS724", names=(a.folder, "occlusion")):
        compare_grad_cam(a, make_recording("c", attributed=6), attribution="occlusion")


def test_gates_that_are_scored_together_have_the_numbers_that_each_has_alone(
    make_recording, write_recording
):
    recording = make_recording(count=50)
    together = agreement_summary(recording, resamples=50)
    for gate in (MAP, SAME):
        alone = agreement_summary(recording, resamples=50, gates=[gate])
        rows = together[together["gate"] == gate].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, rows, check_exact=True)
    # Constant maps leave other images out of one gate than of the other.
    maps = {name: np.random.default_rng(seed).random((30, 4, 4)) for seed, name in enumerate("ab")}
    maps["a"][:5] = 0.5
    uneven = write_recording(labels=np.arange(30) % 3, gates=maps, grad_cam=maps["b"])
    together = agreement_summary(uneven, resamples=50)
    assert together.groupby("gate")["scored"].max().to_dict() == {"a": 25, "b": 30}
    for gate in "ab":
        alone = agreement_summary(uneven, resamples=50, gates=[gate])
        rows = together[together["gate"] == gate].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone, rows, check_exact=True)


def test_a_gate_without_a_map_cannot_be_chosen(make_recording):
    with refused("AS609"):
        agreement_summary(make_recording(), gates=["layer1.attention.channel"])
