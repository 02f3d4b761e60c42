"""Numbers and names as text."""

from __future__ import annotations

import pytest

from attnscope.plots import text


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["layer1.0.attention.channel", "layer1.1.attention.channel"], ["layer1.0", "layer1.1"]),
        (["features.0.3", "features.1.3"], ["features.0", "features.1"]),
        (["features.0.3", "features.0.5"], ["features.0.3", "features.0.5"]),
        (["net.blocks.0.gate.2", "net.blocks.1.gate.4"], ["blocks.0.gate.2", "blocks.1.gate.4"]),
        (["net.features.3", "net.features.3#2"], ["features.3", "features.3#2"]),
        (["net.features.0.3", "net.features.1.b.3"], ["features.0", "features.1.b"]),
        (["net.0.3", "net.1.b.3"], ["net.0", "net.1.b"]),
        (["0.gate", "1.gate"], ["0.gate", "1.gate"]),
        (["0", "1"], ["0", "1"]),
        (["layer1.0.attention.channel", "layer2.0.attention.channel"], ["layer1", "layer2"]),
        (
            ["layer1.0.attention.channel", "layer2.0.attention.spatial"],
            ["layer1.channel", "layer2.spatial"],
        ),
        (["a.gate", "a.gate#2"], ["gate", "gate#2"]),
        (["only.one.gate"], ["only.one.gate"]),
        (["gate", "b.gate"], ["gate", "b.gate"]),
        ([], []),
    ],
)
def test_short_names_stay_different(names: list[str], short: list[str]) -> None:
    assert text.short_names(names) == short


def test_nan_is_written_as_a_dash_or_as_no_test() -> None:
    nan = float("nan")
    assert [text.as_percent(nan), text.as_points(nan), text.as_number(nan)] == ["–"] * 3
    assert text.as_p(nan) == text.as_p_number(nan) == "no test"
    assert text.as_interval(nan, 1.0) == text.as_interval(0.0, nan) == "no 95% CI"


def test_intervals_have_the_standard_form() -> None:
    assert text.as_interval(-0.002, 0.005, text.as_plain_points) == "95% CI −0.2 to 0.5"
    assert text.as_interval(0.1, 0.25) == "95% CI 0.100 to 0.250"


def test_numbers_have_a_minus_sign_and_differences_a_plus() -> None:
    assert text.as_points(-0.0123) == "−1.2"
    assert text.as_points(0.0123) == "+1.2"
    assert text.as_number(-0.5) == "−0.500"
    assert text.as_percent(0.9183, 2) == "91.83%"
    assert [text.as_p(0.0123), text.as_p(0.0009)] == ["p = 0.012", "p < 0.001"]


@pytest.mark.parametrize("zero", [-0.0, 0.0])
def test_zero_has_no_minus(zero: float) -> None:
    forms = (
        text.as_percent, text.as_plain_points, text.as_number, text.as_score, text.as_plain_nats,
    )  # fmt: skip
    assert [form(zero) for form in forms] == ["0.0%", "0.0", "0.000", "0.00", "0"]
    assert [text.as_points(zero), text.as_plain_nats(zero)] == ["+0.0", "0"]
    assert text.as_interval(zero, -zero, text.as_plain_nats) == "95% CI 0 to 0"
    rounded = [text.as_percent(-1e-9), text.as_points(-1e-9), text.as_plain_points(-1e-9)]
    assert rounded == ["0.0%", "+0.0", "0.0"]


def test_a_percentage_has_a_minus_sign() -> None:
    assert text.as_percent(-0.051) == "−5.1%"
