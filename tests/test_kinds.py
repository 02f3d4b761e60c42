"""Kinds of gates: which gate is of which, what a kind must say, and a kind of one's own."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attnscope.capturing.capture import capture
from attnscope.gates import (
    Inspection,
    as_factor,
    edit_gates,
    find_gates,
    inspect_gates,
    watch_gates,
)
from attnscope.kinds import (
    HAS_NEUTRAL,
    KINDS,
    MAP,
    PER_CHANNEL,
    Gate,
    Kind,
    Ungated,
    Variation,
    kind_of,
    mean_of_all,
    register_kind,
    searched_kinds,
)
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from tests.making import refused

# Axes along which a gate varies -> its kind; and where it is one part of a softmax whose other
# parts gate other paths.
TABLE = {
    "": ("scalar", "branch"),
    "C": ("channel", "branch"),
    "D": ("strip", "strip"),
    "CD": ("strip", "strip"),
    "DHW": ("volume", "branch"),
    "G": ("grouped", "grouped"),
    "CG": ("grouped", "grouped"),
    "GHW": ("grouped", "grouped"),
    "H": ("strip", "strip"),
    "W": ("strip", "strip"),
    "L": ("sequence", "branch"),
    "CH": ("strip", "strip"),
    "CW": ("strip", "strip"),
    "CL": ("strip", "strip"),
    "HW": ("spatial", "branch"),
    "CHW": ("full", "full"),
    "B": ("branch", "branch"),
    "BC": ("branch", "branch"),
    "BH": ("branch", "branch"),
    "BW": ("branch", "branch"),
    "BL": ("branch", "branch"),
    "BCH": ("branch", "branch"),
    "BCW": ("branch", "branch"),
    "BCL": ("branch", "branch"),
    "BHW": ("branch", "branch"),
    "BCHW": ("branch", "branch"),
}
LAYOUTS = ("CHW", "CL", "BCHW", "BCL")
CASES = sorted(
    {
        (layout, "".join(along))
        for layout in LAYOUTS
        for count in range(len(layout) + 1)
        for along in itertools.combinations(layout, count)
    }
)


def seen(along: str, features: str, **given: bool) -> Variation:
    flags = {"own_shape": False, "static": False, "shares_paths": False, **given}
    return Variation(frozenset(along), frozenset(features), **flags)


@pytest.mark.parametrize(("layout", "along"), CASES)
def test_kind_of_each_combination_of_axes(layout: str, along: str) -> None:
    plain, sharing = TABLE[along]
    for shares, expected in ((False, plain), (True, sharing)):
        for own_shape in (False, True):
            given = {"own_shape": own_shape, "shares_paths": shares}
            # Written out to the features' shape and different everywhere, it is a full gate.
            wanted = "full" if own_shape and along == layout else expected
            assert kind_of(seen(along, layout, **given)).name == wanted
            assert kind_of(seen(along, layout, static=True, **given)).name == "static"
            # Of maps of 1×1 only the channels are left, and a gate of them has their shape.
            if along == "C" and own_shape:
                assert kind_of(seen("C", "C", **given)).name == "full"


@pytest.mark.parametrize(("layout", "along"), CASES)
def test_exactly_one_kind_recognizes_a_gate(layout: str, along: str) -> None:
    """So that the order in which they were registered says nothing."""
    for own, static, shares in itertools.product((False, True), repeat=3):
        variation = seen(along, layout, own_shape=own, static=static, shares_paths=shares)
        found = [k.name for k in KINDS.values() if not k.fallback and k.recognizes(variation)]
        assert len(found) <= 1
        assert found == [kind_of(variation).name] or kind_of(variation).fallback


def test_kinds_that_are_searched_by_default() -> None:
    assert searched_kinds() == (
        "channel", "spatial", "scalar", "sequence", "volume", "grouped", "strip", "branch", "full",
    )  # fmt: skip
    assert set(KINDS) == {*searched_kinds(), "activation", "static", "unbounded"}


def test_traits_of_each_kind() -> None:
    traits = {name: set(kind.traits) for name, kind in KINDS.items()}
    assert traits == {
        "static": {HAS_NEUTRAL},
        "channel": {PER_CHANNEL, HAS_NEUTRAL},
        "spatial": {MAP, HAS_NEUTRAL},
        "scalar": {HAS_NEUTRAL},
        "sequence": {HAS_NEUTRAL},
        "volume": {HAS_NEUTRAL},
        "grouped": {HAS_NEUTRAL},
        "strip": {HAS_NEUTRAL},
        "branch": set(),
        "full": {HAS_NEUTRAL},
        "activation": {HAS_NEUTRAL},
        "unbounded": {HAS_NEUTRAL},
    }
    assert [name for name, kind in KINDS.items() if not kind.per_image] == ["static"]


def test_gate_has_the_traits_of_its_kind() -> None:
    gate = Gate("g", "channel", 4, None, "sigmoid", 0.0, 1.0, 1.0)
    assert gate.has(PER_CHANNEL)
    assert not gate.has(MAP)
    with pytest.raises(ValueError, match="per-pixel"):
        gate.has("per-pixel")
    unknown = Gate("g", "per-head", 4, None, "sigmoid", 0.0, 1.0, 1.0)
    with refused("AS120", names=("per-head",)):
        unknown.has(PER_CHANNEL)


def test_image_means_by_hand() -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for kind, axes, wanted in (
        ("strip", "NCH", [5.5, 17.5]),
        ("branch", "NBC", [1.5, 13.5]),  # 0..3 and 12..15, the first path
        ("full", "NCL", [5.5, 17.5]),
    ):
        gate = Gate("g", kind, 3, None, "sigmoid", 0.0, 24.0, 1.0, axes=axes)
        np.testing.assert_array_equal(gate.image_means(values), wanted)


@pytest.fixture
def own_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds that a test registers are gone afterwards."""
    monkeypatch.setattr(KINDS, "_known", dict(KINDS._known))


def largest(values: NDArray[Any], gate: Gate) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.reshape(len(values), -1).max(1).astype(np.float64)
    return found


def is_number(variation: Variation) -> bool:
    return not variation.along and not variation.static and not variation.shares_paths


NUMBER = Kind(
    "number",
    "one value for all channels and positions",
    is_number,
    traits=frozenset({PER_CHANNEL, HAS_NEUTRAL}),
    image_means=largest,
    image_mean_about="the largest",
)


@pytest.mark.usefixtures("own_kinds")
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("AS122", {"name": ""}),
        ("AS121", {"name": "channel"}),
        ("AS122", {"name": "two words"}),
        ("AS123", {"about": " "}),
        ("AS123", {"about": None}),
        ("AS123", {"recognizes": "C"}),
        ("AS123", {"image_means": None}),
        ("AS123", {"map_view": "H"}),
        ("AS123", {"traits": frozenset({"per-pixel"})}),
        ("AS123", {"traits": frozenset({PER_CHANNEL, MAP})}),
        ("AS123", {"searched": False}),
    ],
    ids=lambda given: given if isinstance(given, str) else next(iter(given)),
)
def test_an_incomplete_kind_is_refused(code: str, change: dict[str, Any]) -> None:
    given = {"name": "number", "about": "one value", "recognizes": is_number, **change}
    before = dict(KINDS)
    with refused(code, names=(given["name"],)):
        register_kind(Kind(**given))
    assert dict(KINDS) == before


class Numbered(nn.Module):
    """One gate that is a number for each image, and one of channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.fc = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y * torch.sigmoid(y.mean((1, 2, 3), keepdim=True))
        y = y * torch.sigmoid(self.fc(y.mean((2, 3))))[:, :, None, None]
        return self.head(y.mean((2, 3)))


def images(count: int = 9) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.usefixtures("own_kinds")
def test_a_registered_kind_is_found_recorded_and_averaged(tmp_path: Path) -> None:
    model, x = Numbered().eval(), images()
    labels = torch.arange(9) % 3
    assert [gate.kind for gate in find_gates(model, x)] == ["scalar", "channel"]
    register_kind(NUMBER)
    gates = find_gates(model, x)
    assert [(gate.kind, gate.axes) for gate in gates] == [("number", "NC"), ("channel", "NC")]
    assert [gate.kind for gate in find_gates(model, x, ["channel"])] == ["channel"]
    (ungated,) = inspect_gates(model, x, ["channel"]).ungated
    assert (ungated.code, ungated.detail) == ("other-kind", "number")

    name = gates[0].name
    with torch.no_grad(), watch_gates(model, gates) as read:
        model(x)
    by_hand = torch.sigmoid(model.conv(x).mean((1, 2, 3)))[:, None].detach()
    torch.testing.assert_close(read[name], by_hand)

    data = TensorDataset(x, labels)
    recording = capture(model, data, tmp_path / "r", batch_size=4, progress=False)
    assert isinstance(recording, Recording)
    assert recording.info(name).kind == "number"
    np.testing.assert_allclose(recording.gate(name), by_hand, rtol=1e-6)
    np.testing.assert_allclose(recording.channel(name), by_hand, rtol=1e-6)  # it is per channel
    with refused("AS609", names=(name, "number")):
        recording.spatial(name)
    own = recording.info(name).image_means(recording.gate(name))
    np.testing.assert_allclose(own, by_hand.flatten(), rtol=1e-6)

    moments = capture(model, data, tmp_path / "m", batch_size=4, progress=False, moments=True)
    assert isinstance(moments, Moments)
    for k in range(3):
        wanted = by_hand[labels == k].double().mean()
        np.testing.assert_allclose(moments.channels(name).mean[k], [wanted], rtol=1e-6)
        np.testing.assert_allclose(moments.image_means(name).mean[k], wanted, rtol=1e-6)
    assert moments.tails(name).middle.shape == (3, 1)
    assert moments.verify() == recording.verify() == []


@pytest.mark.usefixtures("own_kinds")
def test_moments_average_a_kind_as_it_defines(tmp_path: Path) -> None:
    register_kind(
        Kind(
            "wide",
            "one value for each channel",
            lambda variation: variation.along == {"C"} and not variation.static,
            image_means=largest,
            channel_view=lambda axes: None,
        )
    )
    model, x = Numbered().eval(), images()
    labels = torch.arange(9) % 3
    moments = capture(model, TensorDataset(x, labels), tmp_path / "m", progress=False, moments=True)
    assert isinstance(moments, Moments)
    (gate,) = [gate for gate in moments.gates if gate.kind == "wide"]
    with torch.no_grad(), watch_gates(model, moments.gates) as read:
        model(x)
    values = read[gate.name]
    for k in range(3):
        wanted = values[labels == k].amax(1).double().mean()
        np.testing.assert_allclose(moments.image_means(gate.name).mean[k], wanted, rtol=1e-6)
    assert moments.tails(gate.name).middle.shape == (3,)  # not per channel: all values together
    np.testing.assert_allclose(
        moments.mean_gate(gate.name)[1], values[labels == 1].double().mean(0), rtol=1e-6
    )
    with refused("AS609", names=(gate.name, gate.kind)):
        moments.channels(gate.name)


@pytest.mark.usefixtures("own_kinds")
def test_only_a_map_over_tokens_is_read_as_a_grid() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patch, self.look = nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patch(x).flatten(2).transpose(1, 2)
            return (tokens * torch.sigmoid(self.look(tokens))).mean(1)

    class Sequence(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Conv1d(3, 6, 2, 2)

    sequence = torch.rand(2, 3, 32, generator=torch.Generator().manual_seed(1))
    for model, x, kind, axes, shape, grid in (
        (Tokens().eval(), images(2), "spatial", "NHW", (2, 4, 4), (4, 4)),
        (Sequence().eval(), sequence, "sequence", "NL", (2, 16), None),
    ):
        (gate,) = find_gates(model, x)
        assert (gate.kind, gate.axes, gate.grid) == (kind, axes, grid)
        with torch.no_grad(), watch_gates(model, [gate]) as read:
            plain = model(x)
        assert read[gate.name].shape == shape
        own = as_factor(read[gate.name], gate)
        with torch.no_grad(), edit_gates(model, {gate.name: lambda g, f, own=own: own}, [gate]):
            assert torch.equal(model(x), plain)


def test_a_recording_of_an_unregistered_kind_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = TensorDataset(images(), torch.arange(9) % 3)
    with monkeypatch.context() as patch:
        patch.setattr(KINDS, "_known", dict(KINDS._known))
        register_kind(NUMBER)
        for moments in (False, True):
            folder = tmp_path / str(moments)
            capture(Numbered().eval(), data, folder, progress=False, moments=moments)
    for opens, folder in ((Recording, "False"), (Moments, "True")):
        with refused("AS605", names=("'number'", tmp_path / folder)):
            opens(tmp_path / folder)


def test_the_default_mean_is_over_all_values() -> None:
    kind = Kind("number", "one value", is_number)
    gate = Gate("g", "channel", 2, None, "sigmoid", 0.0, 1.0, 1.0)
    values = np.array([[0.25, 0.75], [0.5, 1.0]], np.float32)
    np.testing.assert_array_equal(kind.image_means(values, gate), [0.5, 0.75])
    np.testing.assert_array_equal(mean_of_all(values, gate), [0.5, 0.75])


def test_repr_and_html_of_gates_and_inspections_name_them_and_escape_text() -> None:
    channel = Gate("a<b>.se", "channel", 64, None, "sigmoid", 0.0, 1.0, 1.0, made_in="a<b>.se")
    spatial = Gate("s", "spatial", 64, (8, 4), "sigmoid", 0.0, 1.0, 1.0)
    assert repr(channel) == "<Gate 'a<b>.se': channel, 64 channels, sigmoid 0 to 1>"
    assert repr(spatial) == "<Gate 's': spatial, 8×4 positions, sigmoid 0 to 1>"
    assert "a&lt;b&gt;.se" in channel._repr_html_()
    assert "a<b>" not in channel._repr_html_()
    inspection = Inspection([channel, spatial], [Ungated("x<y>", 0, "tanh", "consumed", "mul")])
    assert "2 gates" in repr(inspection)
    assert "1 channel, 1 spatial" in repr(inspection)
    page = inspection._repr_html_()
    assert page.count("<tr>") == 2 + 2 + 1  # two tables with a head each
    assert "x&lt;y&gt;" in page
    assert "x<y>" not in page


def test_the_old_name_of_a_reason_warns() -> None:
    ungated = Ungated("m", 0, "tanh", "other-kind", "static")
    assert "static" in ungated.reason
    with pytest.warns(DeprecationWarning, match="Ungated.reason"):
        assert ungated.fate == ungated.reason
