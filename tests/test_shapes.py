"""The shapes in the annotations of public functions hold while the functions run.

A function is checked by one more entry of `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from attnscope.recording.attributed import Attributions
from attnscope.recording.moments import ClassSums, Moments, MomentsWriter, Spread, Tails
from attnscope.recording.recording import Recording

CHANNEL, SPATIAL = "layer1.attention.channel", "layer1.attention.spatial"


@dataclass(frozen=True)
class Toys:
    """What the checked functions are called with."""

    recording: Recording
    """Of 12 images, 3 classes, channel gates and spatial gates; 5 images have attributions."""
    moments: Moments
    """Of the same images."""


class Check(NamedTuple):
    """A function to run with its annotations checked, and its arguments."""

    function: Callable[..., Any]
    arguments: Callable[[Toys], tuple[Any, ...]]


CHECKS = [
    # Methods and properties of recordings and moments.
    Check(Recording.__getitem__, lambda toys: (toys.recording, CHANNEL)),
    Check(Recording.__getitem__, lambda toys: (toys.recording, (SPATIAL, [3, 1]))),
    Check(Recording.gate, lambda toys: (toys.recording, CHANNEL, toys.recording.labels == 1)),
    Check(Recording.channel, lambda toys: (toys.recording, CHANNEL)),
    Check(Recording.channel, lambda toys: (toys.recording, CHANNEL, 2)),
    Check(Recording.spatial, lambda toys: (toys.recording, SPATIAL, slice(2, 5))),
    Check(Recording.grad_cam, lambda toys: (toys.recording, None, "true", np.array([1, 0]))),
    Check(Recording.attribution, lambda toys: (toys.recording, "occlusion")),
    Check(Recording.attributed_rows, lambda toys: (toys.recording, "occlusion")),
    Check(Recording.image, lambda toys: (toys.recording, 3)),
    Check(Recording.labels.fget, lambda toys: (toys.recording,)),
    Check(Recording.predictions.fget, lambda toys: (toys.recording,)),
    Check(Recording.right.fget, lambda toys: (toys.recording,)),
    Check(Recording.logits.fget, lambda toys: (toys.recording,)),
    Check(Recording.probabilities.fget, lambda toys: (toys.recording,)),
    Check(Attributions.rows, lambda toys: (toys.recording.attributions, 12)),
    Check(Moments.counts.fget, lambda toys: (toys.moments,)),
    Check(Moments.mean_gate, lambda toys: (toys.moments, CHANNEL)),
    Check(Moments.mean_gate, lambda toys: (toys.moments, SPATIAL)),
    Check(Moments.mean_map, lambda toys: (toys.moments, SPATIAL)),
    Check(Moments.mean_grad_cam, lambda toys: (toys.moments,)),
]


@pytest.fixture
def toys(make_recording: Callable[..., Recording], tmp_path: Path) -> Toys:
    recording = make_recording(count=12, shard=5, attributed=5)
    arrays = {f"gate/{gate.name}": recording[gate.name] for gate in recording}
    arrays |= {f"grad_cam/layer2/{t}": recording.grad_cam(target=t) for t in ("predicted", "true")}
    sums = ClassSums(recording.gates)
    sums.add({**arrays, "logits": recording.logits}, recording.labels)
    with MomentsWriter(
        tmp_path / "moments",
        gates=recording.gates,
        classes=recording.classes,
        grad_cam_layers=["layer2"],
        about=recording.about,
    ) as writer:
        writer.add_shard(sums.arrays(), recording.rows)
    return Toys(recording, Moments(tmp_path / "moments"))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which raises where a value does not have the annotated shape or type."""
    return jaxtyped(typechecker=beartype)(function)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.function.__qualname__)
def test_annotated_shapes_hold(check: Check, toys: Toys) -> None:
    assert "return" in check.function.__annotations__
    checked(check.function)(*check.arguments(toys))


@pytest.mark.parametrize("found", ["channels", "image_means", "tails"])
def test_annotated_shapes_of_results_hold(found: str, toys: Toys) -> None:
    values = vars(getattr(toys.moments, found)(CHANNEL))
    annotations = get_type_hints(Tails if found == "tails" else Spread)
    assert values.keys() == annotations.keys()
    with jaxtyped("context"):  # names of axes have one length within it
        for name, value in values.items():
            assert isinstance(value, annotations[name])
        for name, value in values.items():
            assert not isinstance(value[:1], annotations[name])


@pytest.mark.parametrize(
    ("method", "arguments", "wrong"),
    [
        (Recording.channel, (CHANNEL,), np.zeros(12, np.float64)),  # the type
        (Recording.spatial, (SPATIAL,), np.zeros(4, np.float32)),  # the number of axes
        (Recording.image, (3,), np.zeros((1, 16, 16, 4), np.uint8)),  # the length of an axis
    ],
)
def test_wrong_shape_is_caught(
    method: Callable[..., Any],
    arguments: tuple[Any, ...],
    wrong: np.ndarray[Any, Any],
    toys: Toys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Recording, "_array", lambda *_: wrong)
    with pytest.raises(TypeCheckError):
        checked(method)(toys.recording, *arguments)


def test_wrong_argument_is_caught(toys: Toys) -> None:
    with pytest.raises(TypeCheckError):
        checked(Recording.gate)(toys.recording, 3)
