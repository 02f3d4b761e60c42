"""Numbers and names in words."""

from __future__ import annotations

import pytest

from attnscope.plots import text


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["layer1.0.attention.channel", "layer1.1.attention.channel"], ["0", "1"]),
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
