"""Layouts: how axes are named from probes, split and joined, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attnscope.gates import as_factor, edit_gates, find_gates, inspect_gates, watch_gates
from attnscope.gates.axes import (
    axes_of,
    complete,
    format_layout,
    grid_of,
    join_axes,
    parse_layout,
    rows_are_image_first,
    split_axes,
)
from attnscope.gates.inputs import Inputs
from tests.gates.case_networks import CASES


@pytest.mark.parametrize(
    ("shape", "probes", "layout"),
    [
        ((2, 8, 4, 6), {"N": (3, 8, 4, 6), "H": (2, 8, 8, 6), "W": (2, 8, 4, 12)}, "NCHW"),
        ((2, 4, 6, 8), {"N": (3, 4, 6, 8), "H": (2, 8, 6, 8), "W": (2, 4, 12, 8)}, "NHWC"),
        ((2, 24, 8), {"N": (3, 24, 8), "H": (2, 48, 8), "W": (2, 48, 8)}, "N(HW)C"),
        ((2, 25, 8), {"N": (3, 25, 8), "H": (2, 49, 8), "W": (2, 49, 8)}, "NLC"),
        ((6, 8, 4), {"N": (9, 8, 4), "L": (6, 8, 8)}, "(NG)CL"),
        ((8, 5, 4), {"N": (12, 5, 4), "D": (16, 5, 4), "H": (8, 5, 8)}, "(ND)CH"),
        ((2, 8, 1, 6), {"N": (3, 8, 1, 6), "H": (2, 8, 1, 6), "W": (2, 8, 1, 12)}, "NC1W"),
        ((2, 3, 8, 5), {"N": (3, 3, 8, 5), "L": (2, 3, 8, 10)}, "NGCL"),
        ((2, 8, 4), {"L": (2, 8, 8)}, "NCL"),  # one batch size only
        # A single channel is a channel; a row of one pixel beside it leaves open which is which.
        ((2, 1, 4), {"N": (3, 1, 4), "L": (2, 1, 8)}, "NCL"),
        ((2, 4, 4, 1), {"N": (3, 4, 4, 1), "H": (2, 8, 4, 1), "W": (2, 4, 8, 1)}, "NHWC"),
        ((2, 1, 1, 6), {"N": (3, 1, 1, 6), "W": (2, 1, 1, 12)}, "N11W"),
    ],
)
def test_axes_are_named_by_what_changes_them(
    shape: tuple[int, ...], probes: dict[str, tuple[int, ...]], layout: str
) -> None:
    tokens = axes_of(shape, probes, 2, "image")
    assert tokens is not None
    named = complete(tokens, shape, frozenset())
    assert named is not None
    assert format_layout(named) == layout
    assert parse_layout(layout) == named


@pytest.mark.parametrize(
    ("shape", "probes"),
    [
        ((8, 8, 4), {"N": (12, 8, 4), "H": (16, 8, 4), "W": (16, 8, 4)}),  # windows as rows
        ((3, 8), {"N": (4, 8)}),  # 3 rows of 2 images
        ((2, 4, 4), {"N": (3, 4, 4), "H": (2, 8, 8)}),  # H twice: a map of attention
        ((2, 4), {"N": (3, 4, 1)}),  # another number of axes
    ],
)
def test_axes_that_cannot_be_named_are_not_guessed(
    shape: tuple[int, ...], probes: dict[str, tuple[int, ...]]
) -> None:
    assert axes_of(shape, probes, 2, "image") is None


def test_two_fixed_axes_are_branches_if_they_are_summed_and_groups_if_not() -> None:
    tokens = ("N", "?", "?", "H")
    assert complete(tokens, (2, 3, 8, 4), frozenset({1})) == ("N", "B", "C", "H")
    assert complete(tokens, (2, 8, 3, 4), frozenset({2})) == ("N", "C", "B", "H")
    assert complete(tokens, (2, 3, 8, 4), frozenset()) == ("N", "G", "C", "H")
    assert complete(("?", "?", "?"), (2, 3, 4), frozenset()) is None


@pytest.mark.parametrize("layout", ["NCHW", "N(HW)C", "(NG)CHW", "(GN)C1W", "NHWBC", "(DN)CHW"])
def test_splitting_and_joining_axes_are_inverse(layout: str) -> None:
    sizes = {"N": 2, "C": 5, "H": 3, "W": 4, "G": 6, "B": 7, "D": 6, "1": 1}
    tokens = parse_layout(layout)
    shape = [1] * len(tokens)
    for axis, token in enumerate(tokens):
        for letter in token:
            shape[axis] *= sizes[letter]
    values = torch.randn(shape)
    split = split_axes(values, tokens, 6, (3, 4))
    assert tuple(split.shape) == tuple(sizes[a] for a in "NBGCDHW" if a in layout)
    assert torch.equal(join_axes(split, tokens), values)


def test_groups_of_one_image_stay_together_when_axes_are_split() -> None:
    rows = torch.arange(6)
    by_image = split_axes(rows, ("NG",), 3, (0, 0))
    by_group = split_axes(rows, ("GN",), 3, (0, 0))
    assert by_image.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert by_group.tolist() == [[0, 2, 4], [1, 3, 5]]


def test_the_order_of_rows_is_told_by_values_or_not_at_all() -> None:
    a, b, c = 1.0, 2.0, 3.0
    images = torch.tensor([a, 10 * a, b, 10 * b])
    assert rows_are_image_first(images, torch.tensor([a, 10 * a, b, 10 * b, c, 10 * c]), 2)
    groups = torch.tensor([a, b, 10 * a, 10 * b])
    extended = torch.tensor([a, b, c, 10 * a, 10 * b, 10 * c])
    assert rows_are_image_first(groups, extended, 2) is False
    assert rows_are_image_first(torch.ones(4), torch.ones(6), 2) is None


def test_grids_follow_the_aspect_of_the_image() -> None:
    assert grid_of(24, 4 / 6) == (4, 6)
    assert grid_of(16) == (4, 4)
    assert grid_of(17) == (1, 17)


def test_inputs_are_extended_and_doubled_wherever_the_axis_is_shared() -> None:
    image, age = torch.randn(2, 3, 4, 6), torch.randn(2, 5)
    inputs = Inputs.of({"image": image, "age": age})
    more = inputs.with_one_more().args[0]
    assert more["image"].shape == (3, 3, 4, 6)
    assert more["age"].shape == (3, 5)
    assert torch.equal(more["image"][:2], image)
    high = inputs.doubled(-2).args[0]
    assert high["image"].shape == (2, 3, 8, 6)
    assert high["age"].shape == (2, 5)
    assert Inputs.of([image[0], image[1]]).batch_size() == 2
    assert len(Inputs.of([image[0], image[1]]).with_one_more().args[0]) == 3
    assert Inputs.of((image, age)).args[1] is age


@pytest.mark.parametrize("case", ["frames_as_images", "two_views_in_one_call"])
def test_one_value_for_all_images_is_used_for_all_rows_of_each(case: str) -> None:
    torch.manual_seed(0)
    model = CASES[case]().eval()
    x = model.inputs(3)
    (gate,) = find_gates(model, model.inputs(2))
    with torch.no_grad(), watch_gates(model, [gate]) as seen:
        model(x)
    one = seen[gate.name][:1] + torch.rand(1, *seen[gate.name].shape[1:])
    for_each = one.expand(3, *one.shape[1:])
    results = []
    for values in (one, for_each):
        edit = {gate.name: lambda g, features, values=values: as_factor(values, gate)}
        with torch.no_grad(), edit_gates(model, edit, [gate]):
            results.append(model(x))
    assert torch.equal(*results)
    assert not torch.allclose(results[0], model(x))


def test_an_axis_of_which_the_network_takes_one_size_is_not_taken_for_channels() -> None:
    """The network takes any height, but one width: the gate is a map all the same."""

    class OneWidth(nn.Module):
        def __init__(self, strip: bool) -> None:
            super().__init__()
            self.score = nn.Conv2d(3, 1, 3, padding=1)
            self.register_buffer("columns", torch.arange(8.0) / 8)
            self.strip = strip

        def forward(self, x: Tensor) -> Tensor:
            gate = torch.sigmoid(self.score(x)) * self.columns
            gate = gate.mean(3, keepdim=True) if self.strip else gate
            return (x * gate).mean((2, 3))

    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = OneWidth(strip=False).eval()
    (gate,) = find_gates(model, x)
    assert (gate.kind, gate.layout, gate.axes) == ("spatial", "NCHW", "NHW")
    with torch.no_grad(), watch_gates(model, [gate]) as values:
        model(x)
        by_hand = torch.sigmoid(model.score(x))[:, 0] * model.columns
    torch.testing.assert_close(values[gate.name], by_hand)
    refused = inspect_gates(OneWidth(strip=True).eval(), x)
    assert not refused.gates
    assert [each.code for each in refused.ungated] == ["size"]
