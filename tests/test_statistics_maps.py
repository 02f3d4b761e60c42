"""Maps against Grad-CAM: scores against SciPy, sets and loops; planted agreement, and its null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from attnscope.errors import InputError
from attnscope.statistics import (
    agreement_summary,
    class_mean_grad_cam,
    class_mean_maps,
    map_agreement,
)
from attnscope.statistics.agreement import derangement, rank_correlation, to_grid, top_overlap

MAP = "layer1.attention.spatial"  # 8 × 8, where Grad-CAM is 4 × 4
SAME = "layer2.attention.spatial"  # 4 × 4 as well


def pooled(image, rows, columns):
    """Adaptive average pooling as PyTorch defines it, cell by cell."""
    height, width = image.shape
    return np.array(
        [
            [
                image[
                    i * height // rows : -(-(i + 1) * height // rows),
                    j * width // columns : -(-(j + 1) * width // columns),
                ].mean(dtype=float)
                for j in range(columns)
            ]
            for i in range(rows)
        ]
    )


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


def test_class_mean_maps_show_a_planted_place(write_recording):
    labels = np.arange(30) % 2
    maps = np.random.default_rng(0).uniform(0.2, 0.3, (30, 4, 6))
    maps[labels == 1, 2, 5] += 0.5
    means = class_mean_maps(write_recording(labels=labels, gates={"s": maps}), "s")
    difference = means[1] - means[0]
    assert np.unravel_index(difference.argmax(), (4, 6)) == (2, 5)
    assert difference[2, 5] == pytest.approx(0.5, abs=0.05)
    assert np.isnan(means[2]).all()  # no owls


def test_class_mean_grad_cam_reads_the_target(make_recording):
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
        # Of 16 pixels a fifth is 3. Grad-CAM is positive at more than 3 here: nothing ties.
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


def test_the_seed_chooses_the_null_and_nothing_else(make_recording):
    recording = make_recording()
    first, again, other = (map_agreement(recording, MAP, seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert first["spearman"].equals(other["spearman"])
    assert not first["null_spearman"].equals(other["null_spearman"])


def test_agreement_with_the_own_image_is_told_from_the_null(write_recording):
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


def test_agreement_that_all_images_share_is_in_the_null_as_well(write_recording):
    centre = np.array([[0.1, 0.2, 0.3], [0.4, 0.9, 0.5], [0.6, 0.7, 0.8]])
    maps = np.tile(centre, (6, 1, 1))
    row = agreement_summary(
        write_recording(labels=[0, 1, 2, 0, 1, 2], gates={"s": maps}, grad_cam=maps)
    ).loc[0]
    assert row["spearman"] == row["null_spearman"] == pytest.approx(1)
    assert row["iou"] == row["null_iou"] == 1


def test_random_maps_agree_no_better_than_the_null(make_recording):
    frame = map_agreement(make_recording(count=400), MAP)
    assert stats.ttest_rel(frame["spearman"], frame["null_spearman"]).pvalue > 0.01
    assert frame["spearman"].mean() == pytest.approx(0, abs=0.05)


def test_what_has_no_ranks_is_not_scored_and_counted(write_recording):
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


def test_one_scored_image_has_no_null(write_recording):
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
    for gate in (MAP, SAME):
        images = map_agreement(recording, gate, "true", seed=3)
        rows = frame[frame["gate"] == gate].set_index("class")
        assert rows.loc["all", columns].tolist() == pytest.approx(images[columns].mean().tolist())
        by_class = images.groupby("class")[columns].mean()
        assert rows.loc[recording.classes, columns].to_numpy() == pytest.approx(
            by_class.loc[recording.classes].to_numpy()
        )
    assert (frame["scored"] == [50, 17, 17, 16] * 2).all()


def test_what_does_not_exist(make_recording, write_recording):
    recording = make_recording()
    with pytest.raises(InputError, match="of kind channel, not spatial"):
        map_agreement(recording, "layer1.attention.channel")
    with pytest.raises(InputError, match="target 'both' is not known"):
        map_agreement(recording, MAP, "both")
    with pytest.raises(InputError, match="has no Grad-CAM"):
        agreement_summary(write_recording(labels=[0], gates={"s": [[[0.1, 0.2]]]}))
    without = agreement_summary(make_recording("se", spatial=False))
    assert len(without) == 0
    assert list(without)[:3] == ["gate", "depth", "class"]


@pytest.mark.parametrize("grid", [(4, 4), (2, 7), (3, 5), (1, 1), (8, 7)])
def test_to_grid_is_adaptive_average_pooling(grid):
    maps = np.random.default_rng(0).random((3, 8, 7)).astype(np.float32)
    for image, small in zip(maps, to_grid(maps, grid), strict=True):
        assert small == pytest.approx(pooled(image, *grid))


def test_a_constant_map_stays_constant_to_the_last_bit():
    constants = np.random.default_rng(0).random((500, 1, 1)).astype(np.float32)
    small = to_grid(np.tile(constants, (1, 7, 11)), (3, 4))
    assert (small == constants).all()


def test_rank_correlation_with_ties_equals_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 50, 16)).astype(np.float32)
    expected = [stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    assert rank_correlation(a, b) == pytest.approx(expected)


def test_pixels_that_tie_share_the_last_places():
    # Of ten pixels two are on top. In b one is, and the nine others share the second place.
    a = np.array([[9, 8, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    b = np.array([[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    assert top_overlap(a, a) == top_overlap(b, b) == 1
    shared = 1 + 1 / 9
    assert top_overlap(a, b) == pytest.approx(shared / (4 - shared))
    # No corner is preferred.
    assert top_overlap(a[:, ::-1], b[:, ::-1]) == pytest.approx(top_overlap(a, b))


@pytest.mark.parametrize(("pixels", "top"), [(2, 1), (4, 1), (16, 3), (49, 10), (64, 13)])
def test_the_top_is_a_fifth_rounded_and_one_at_least(pixels, top):
    # The top of the one is the bottom of the other, but for the pixel that is on top of both.
    a = np.arange(pixels, dtype=np.float32)[None]
    b = -a
    b[0, -1] = 1
    assert top_overlap(a, b) == pytest.approx(1 / (2 * top - 1))


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_derangement_moves_everything(count):
    for seed in range(20):
        order = derangement(count, seed)
        assert sorted(order) == list(range(count))
        assert (order != np.arange(count)).all()


def test_a_derangement_prefers_no_partner():
    partners = [derangement(4, seed)[0] for seed in range(600)]
    assert stats.chisquare(np.bincount(partners)[1:]).pvalue > 0.01
