"""How the images of a recording were prepared for the network: size and normalization.

A wrong one lowers the accuracy, and nothing else shows it. Nothing is opened, so that a copy of a
recording says it as well. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.recording.places import enclosing_run
from attnscope.run_config import read_config

_UNCHANGED = ({0.0}, {1.0})
"""Means and standard deviations that change nothing, as sets."""


def describe_preparation(folder: Path, stored: object) -> dict[str, str]:
    """Return what is known about the preparation of the images, for people.

    Args:
        folder: The recording.
        stored: The source in its manifest; None if there is none.

    Returns:
        ``image size`` and ``normalization``, as far as they are known, each with its value.
    """
    try:
        known = _of_run(folder) or _of_source(stored) or _of_plan(folder)
        size, normalization = known.get("image_size"), known.get("normalization")
        found = {} if size is None else {"image size": f"{int(size)}×{int(size)} pixels"}
        if normalization is not None:
            found["normalization"] = _words(normalization["mean"], normalization["std"])
    except (InputError, KeyError, TypeError, ValueError):  # other versions, or damaged by hand
        return {}
    return found


def _of_run(folder: Path) -> Mapping[str, Any]:
    run = enclosing_run(folder)
    return {} if run is None else read_config(run)


def _of_source(stored: object) -> Mapping[str, Any]:
    network = stored.get("network") if isinstance(stored, dict) else None
    return network if isinstance(network, dict) else {}


def _of_plan(folder: Path) -> Mapping[str, Any]:
    """Return the normalization of a capture that was made from Python."""
    if not (folder / layout.PLAN).is_file():
        return {}
    mean, std = read_json(folder / layout.PLAN)["normalization"]
    return {} if ({*mean}, {*std}) == _UNCHANGED else {"normalization": {"mean": mean, "std": std}}


def _words(mean: Sequence[float], std: Sequence[float]) -> str:
    if ({*mean}, {*std}) == _UNCHANGED:
        return "none (pixel values from 0 to 1)"
    means, stds = (", ".join(f"{value:.4g}" for value in values) for values in (mean, std))
    return f"mean {means}; standard deviation {stds}"
