"""Views: which means a gate of any axes is shown by, and their values."""

from __future__ import annotations

import numpy as np
import pytest

from attnscope.kinds import HAS_NEUTRAL, MAP, PER_CHANNEL, Gate
from attnscope.views import channel_view, map_view
from tests.kinds_making import SIZES

# axes -> the axes over which numpy averages for channels, the shape, and the same for the map.
# Branches are never averaged: for the map the first one is taken.
CASES = {
    "N": (None, None),
    "NC": (((), (6,)), None),
    "NHW": (None, ((), (8, 10))),
    "NL": (None, ((), (1, 20))),
    "NH": (None, ((), (8, 1))),
    "NW": (None, ((), (1, 10))),
    "ND": (None, ((), (1, 4))),
    "NDHW": (None, ((1,), (8, 10))),
    "NG": (((), (3,)), None),
    "NGC": (((), (18,)), None),
    "NGHW": (((2, 3), (3,)), ((1,), (8, 10))),
    "NCH": (((2,), (6,)), ((1,), (8, 1))),
    "NCW": (((2,), (6,)), ((1,), (1, 10))),
    "NB": (((), (2,)), None),
    "NBC": (((), (12,)), None),
    "NCHW": (((2, 3), (6,)), ((1,), (8, 10))),
    "NCL": (((2,), (6,)), ((1,), (1, 20))),
    "NCDHW": (((2, 3, 4), (6,)), ((1, 2), (8, 10))),
    "NGCHW": (((3, 4), (18,)), ((1, 2), (8, 10))),
}


def values_of(axes: str) -> np.ndarray:
    shape = (5, *(SIZES[letter] for letter in axes[1:]))
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize("axes", CASES)
def test_channels_and_maps_are_the_means_over_the_other_axes(axes: str) -> None:
    values = values_of(axes)
    for make, wanted in zip((channel_view, map_view), CASES[axes], strict=True):
        view = make(axes)
        if wanted is None:
            assert view is None
            continue
        over, shape = wanted
        expected = (values.mean(over, dtype=np.float64) if over else values).reshape(5, *shape)
        found = view.reduce(values)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        assert view.reduce(values[:0]).shape == (0, *shape)
        assert bool(view.about) == bool(over)


def test_the_map_of_branches_is_that_of_the_first_one() -> None:
    values = values_of("NBHW")  # of a softmax over branches, the mean would be constant
    np.testing.assert_array_equal(map_view("NBHW").reduce(values), values[:, 0])
    assert map_view("NBHW").first_branch
    assert not channel_view("NBHW").first_branch
    both = channel_view("NBHW").reduce(values)
    np.testing.assert_allclose(both, values.mean((2, 3)), rtol=1e-6)


def test_what_is_averaged_and_counted_is_named() -> None:
    abouts = {axes: (channel_view(axes), map_view(axes)) for axes in (*CASES, "NBCHW")}
    words = {a: tuple(v and v.about for v in views) for a, views in abouts.items()}
    assert words["NCHW"] == ("mean over positions", "mean over channels")
    assert words["NCDHW"] == ("mean over positions", "mean over channels and slices")
    assert words["NCH"] == ("mean over rows", "mean over channels")
    assert words["NBCHW"][1] == "first branch, mean over channels"
    units = {axes: views[0].units for axes, views in abouts.items() if views[0]}
    assert (units["NB"], units["NG"], units["NBC"]) == (
        "branches",
        "groups",
        "channels in branches",
    )


def test_a_gate_needs_no_view_of_a_trait_that_it_has() -> None:
    def gate(kind: str, axes: str) -> Gate:
        return Gate("g", kind, 6, None, "sigmoid", 0.0, 1.0, 1.0, axes=axes)

    assert gate("channel", "NC").view(PER_CHANNEL) is None
    assert gate("channel", "NC").offers(PER_CHANNEL)
    assert not gate("channel", "NC").offers(MAP)
    assert gate("full", "NCHW").view(MAP) is not None
    assert gate("full", "NCHW").view(HAS_NEUTRAL) is None
    assert gate("full", "NCHW").offers(HAS_NEUTRAL)
    assert not gate("full", "").offers(MAP)  # its axes are unknown
    assert not gate("static", "C").offers(PER_CHANNEL)  # it has no images
