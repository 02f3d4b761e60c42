"""Agreement of maps: pooling against its definition, and ties by hand."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.statistics.agreement import center_map, score_maps, to_grid


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


def iou(a, b):
    """The overlap of maps of one row of pixels, ``(N, P)``, as the package computes it."""
    labels = np.zeros(len(a), np.int64)
    return score_maps(a[:, None], b[:, None], labels, 0)["iou"].to_numpy()


@pytest.mark.parametrize("grid", [(4, 4), (2, 7), (3, 5), (1, 1), (8, 7)])
def test_to_grid_is_adaptive_average_pooling(grid):
    maps = np.random.default_rng(0).random((3, 8, 7)).astype(np.float32)
    for image, small in zip(maps, to_grid(maps, grid), strict=True):
        assert small == pytest.approx(pooled(image, *grid))


def test_to_grid_keeps_a_constant_map_exactly_constant():
    constants = np.random.default_rng(0).random((500, 1, 1)).astype(np.float32)
    small = to_grid(np.tile(constants, (1, 7, 11)), (3, 4))
    assert (small == constants).all()


def test_the_overlap_shares_the_last_places_between_tied_pixels():
    # The top fifth of ten pixels has two places. In b nine pixels share the second place.
    a = np.array([[9, 8, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    b = np.array([[9, 0, 0, 0, 0, 0, 0, 0, 0, 0]], np.float32)
    assert iou(a, a) == iou(b, b) == 1
    shared = 1 + 1 / 9
    assert iou(a, b) == pytest.approx(shared / (4 - shared))
    # The order of the pixels does not matter.
    assert iou(a[:, ::-1], b[:, ::-1]) == pytest.approx(iou(a, b))


@pytest.mark.parametrize(("pixels", "top"), [(2, 1), (4, 1), (16, 3), (49, 10), (64, 13)])
def test_the_overlap_uses_a_fifth_of_the_pixels_and_at_least_one(pixels, top):
    # The top of a is the bottom of b, except for one pixel that is at the top of both.
    a = np.arange(pixels, dtype=np.float32)[None]
    b = -a
    b[0, -1] = 1
    assert iou(a, b) == pytest.approx(1 / (2 * top - 1))


def test_center_map_ties_cells_at_equal_distance():
    square = center_map((10, 10))
    assert square[5, 8] == square[7, 7] == square[2, 2]  # 1 + 49 = 25 + 25
    assert (square == square[::-1]).all()
    assert (square == square.T).all()
    assert np.ptp(center_map((2, 2))) == 0
