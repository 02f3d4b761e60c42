"""Whether spatial gates and attributions lie on an object: tables of `localizing`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import ArrayLike

from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.kinds import MAP
from attnscope.recording.attributed import GRAD_CAM
from attnscope.recording.masks import Masks, attributions_on_image, has_masks, masks_of, on_image
from attnscope.recording.recording import Recording
from attnscope.shapes import Array
from attnscope.statistics.inference import FEWEST, LEVEL, bounded_mean_interval, holm, significant
from attnscope.statistics.localizing import (
    ENERGY,
    MEASURES,
    NULLS,
    Localization,
    localize,
    mean_test,
)
from attnscope.statistics.paired import detectable_shift
from attnscope.statistics.registry import statistic
from attnscope.statistics.splits import checked_groups

ATTRIBUTION, BLOCK = "attribution", "block"
"""Kinds of the rows of `localization_summary` that are no gates."""


@statistic(
    "Where the map of a gate lies, image by image: on the mask of the image, or beside it.",
    takes=("recording", "gate"),
    trait=MAP,
    concerns=has_masks,
)
def localization(recording: Recording, gate: str, masks: Masks | None = None) -> pd.DataFrame:
    """Score the map of a gate against the mask of each image.

    The mask is averaged down to the grid of the map, and the map is not resized.

    Args:
        recording: recording of one network.
        gate: name of a spatial gate, or of a gate that has a map by a mean (`Gate.view`).
        masks: masks of its images. Default: those that are stored beside the recording.

    Returns:
        One row per image that has a mask:

        - ``row``: row in the recording.
        - ``class``: true class, if the images have class labels.
        - ``area``: share of the image that is inside, which both scores of a map have on average
          that does not depend on the position.
        - ``energy``: share of the map's energy that is inside.
        - ``pointing``: share of the cell with the highest value that is inside.
        - ``center_energy``, ``center_pointing``: the scores of a Gaussian at the image center.
        - ``other_energy``, ``other_pointing``: the mean scores of the maps of all other scored
          images, under the mask of this one.
        - ``scored``: False where the map is constant, which has no energy above its lowest value.
          All scores of the image are NaN.

    Raises:
        InputError: the gate does not exist or has no map; AS719, its map has no rows and columns of
            the image; AS693, the recording has no masks.
    """
    masks = masks_of(recording) if masks is None else masks
    return _per_image(recording, masks, _gate_maps(recording, masks, gate), masks.rows)


@statistic(
    "Where Grad-CAM lies, image by image: on the mask of the image, or beside it.",
    concerns=has_masks,
)
def attribution_localization(
    recording: Recording,
    attribution: str = GRAD_CAM,
    target: str = "predicted",
    masks: Masks | None = None,
) -> pd.DataFrame:
    """Score the map of an attribution method against the mask of each image.

    Negative values count as 0, as in Grad-CAM after its ReLU.

    Args:
        recording: recording of one network.
        attribution: a recorded attribution method.
        target: class that the attribution explains, ``predicted`` or ``true``.
        masks: as for `localization`.

    Returns:
        As `localization`, with one row per image that has a mask and an attribution.

    Raises:
        InputError: the attribution was not recorded, or the target is unknown; AS693, the recording
            has no masks.
    """
    masks = masks_of(recording) if masks is None else masks
    maps, rows = _attribution_maps(recording, masks, attribution, target)
    return _per_image(recording, masks, maps, rows)


@statistic(
    "Whether spatial gates and Grad-CAM lie on the masks of the images, with intervals.",
    concerns=has_masks,
)
def localization_summary(
    recording: Recording,
    target: str = "predicted",
    masks: Masks | None = None,
    groups: ArrayLike | None = None,
) -> pd.DataFrame:
    """Compare where each map lies with two nulls, over all images that have a mask.

    Null hypotheses: the maps of the network have the same mean score as a Gaussian at the image
    center, whose standard deviation is a quarter of each side (`attnscope.statistics.agreement`);
    and as the maps of all other images under the same masks. The second null contains everything
    that all images share, such as a preference of the network for the center.

    Args:
        recording: recording of one network.
        target: class that attributions explain, ``predicted`` or ``true``.
        masks: as for `localization`.
        groups: one number or name per image of the recording, the same for copies of one image
            (`image_copies`). Only the first image of each group is scored.

    Returns:
        Two rows (``energy`` and ``pointing``) for each gate with rows and columns, for each block
        that has several of them (its score of an image is the mean over its gates), and for each
        recorded attribution method:

        - ``map``: the gate, ``block PATH``, or the attribution method.
        - ``kind``: kind of the gate, ``block``, or ``attribution``.
        - ``depth``: position of the gate in the network, from 1; NaN for attributions, and for a
          block that of its last gate.
        - ``measure``: ``energy`` or ``pointing``.
        - ``images``, ``constant``: number of images with a mask that are scored, and that are not
          because the map is constant.
        - ``area``: mean share of the scored images that is inside.
        - ``value``, ``low``, ``high``: mean score with its 95% CI.
        - for each null N of ``center`` and ``other``: ``N``, its mean score; ``over_N``,
          ``over_N_low``, ``over_N_high``, the mean difference with its 95% CI; ``p_N``, and
          ``p_N_holm``, corrected over all maps of the table; ``detectable_N``, the smallest
          difference that would have been found with a power of 80%, given the spread of the
          differences.
        - ``on_object``: whether the score is higher than both nulls, with both ``p_N_holm`` below
          0.05.

        Intervals and p values are NaN if fewer than ten images differ, and those of ``center`` on a
        grid with at most two cells per side.

    Raises:
        InputError: AS693, the recording has no masks; AS717, there is not one group per image.
    """
    masks = masks_of(recording) if masks is None else masks
    kept = _first_of_groups(recording, masks, groups)
    rows: list[dict[str, object]] = []
    for maps in _every_map(recording, masks, target, kept):
        for measure, found in maps.found.items():
            rows.append({**maps.names, "measure": measure, **_summarize(found, maps.area)})
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    for measure in MEASURES:
        of_measure = frame["measure"] == measure
        for null in NULLS:
            p = frame.loc[of_measure, f"p_{null}"].to_numpy(np.float64)
            corrected = holm(p)
            frame.loc[of_measure, f"p_{null}_holm"] = corrected
            tests = max(int(np.isfinite(p).sum()), 1)
            counts = frame.loc[of_measure, "images"]
            shift = [detectable_shift(int(n), LEVEL / tests) for n in counts]
            frame.loc[of_measure, f"detectable_{null}"] *= shift
    higher = [
        significant(frame[f"p_{null}_holm"]) & (frame[f"over_{null}"].to_numpy(float) > 0)
        for null in NULLS
    ]
    frame["on_object"] = higher[0] & higher[1]
    return frame


_COLUMNS = [
    *("map", "kind", "depth", "measure", "images", "constant", "area", "value", "low", "high"),
    *(
        f"{before}{null}{after}"
        for null in NULLS
        for before, after in (
            *(("", ""), ("over_", ""), ("over_", "_low"), ("over_", "_high")),
            *(("p_", ""), ("p_", "_holm"), ("detectable_", "")),
        )
    ),
    "on_object",
]


_Pair = tuple[Float[Array, "images height width"], Float[Array, "images height width"]]
"""Masks and maps on one grid."""


@dataclass(frozen=True)
class _Maps:
    """The scores of one map, for the table."""

    names: dict[str, object]
    area: Float64[Array, " images"]
    found: dict[str, Localization]


def _every_map(
    recording: Recording, masks: Masks, target: str, kept: Bool[Array, " masked"]
) -> Iterator[_Maps]:
    """Yield the scores of each gate, each block after its last gate, and each attribution."""
    area = masks.areas[kept]
    gates = [gate for gate in recording.gates if on_image(gate)]
    depth_of = {gate.name: depth for depth, gate in enumerate(recording.gates, start=1)}
    of_block: dict[str, list[_Pair]] = {}
    for gate in gates:
        maps = _gate_maps(recording, masks, gate.name)[kept]
        inside = masks.inside(maps.shape[1:])[kept]
        found = {measure: localize(inside, maps, measure) for measure in MEASURES}
        depth = depth_of[gate.name]
        yield _Maps({"map": gate.name, "kind": gate.kind, "depth": depth}, area, found)
        size = sum(other.applied_in == gate.applied_in for other in gates)
        if 1 < size < len(gates):
            several = of_block.setdefault(gate.applied_in, [])
            several.append((inside, maps))
            if len(several) == size:
                names = {"map": f"block {gate.applied_in}", "kind": BLOCK, "depth": depth}
                yield _Maps(names, area, _of_block(of_block.pop(gate.applied_in)))
    for method in attributions_on_image(recording):
        maps, rows = _attribution_maps(recording, masks, method, target)
        chosen = np.isin(rows, masks.rows[kept])
        there = np.isin(masks.rows, rows[chosen])
        inside = masks.inside(maps.shape[1:])[there]
        found = {measure: localize(inside, maps[chosen], measure) for measure in MEASURES}
        names = {"map": method, "kind": ATTRIBUTION, "depth": np.nan}
        yield _Maps(names, masks.areas[there], found)


def _of_block(pairs: list[_Pair]) -> dict[str, Localization]:
    """Return the mean over several maps, for the images that are scored for each of them."""
    among = np.logical_and.reduce([maps.min((1, 2)) < maps.max((1, 2)) for _, maps in pairs])
    joined = {}
    for measure in MEASURES:
        each = [localize(inside, maps, measure, among) for inside, maps in pairs]
        names = ("value", "center", "other", "over_center", "over_other")
        means = [np.mean([getattr(one, name) for one in each], axis=0) for name in names]
        joined[measure] = Localization(among, *means)
    return joined


def _summarize(found: Localization, area: Float64[Array, " images"]) -> dict[str, object]:
    n = len(found.value)
    scored_area = area[found.scored]
    row: dict[str, object] = {
        "images": n,
        "constant": len(found.scored) - n,
        "area": float(scored_area.mean()) if n else np.nan,
        "value": float(found.value.mean()) if n else np.nan,
    }
    low, high = np.nan, np.nan
    if n >= FEWEST:
        mean, std = found.value.mean(), found.value.std(ddof=1)
        low, high = (
            float(end[0])
            for end in bounded_mean_interval(np.array([mean]), np.array([std]), np.array([n]))
        )
    row |= {"low": low, "high": high}
    for null in NULLS:
        of_null = getattr(found, null)
        tested = mean_test(getattr(found, f"over_{null}"))
        row |= {
            null: float(of_null.mean()) if n else np.nan,
            f"over_{null}": tested["mean"],
            f"over_{null}_low": tested["low"],
            f"over_{null}_high": tested["high"],
            f"p_{null}": tested["p"],
            f"detectable_{null}": tested["std"],  # times the shift that can be seen, see above
        }
    return row


def _per_image(
    recording: Recording,
    masks: Masks,
    maps: Float[Array, "images height width"],
    rows: Int64[Array, " images"],
) -> pd.DataFrame:
    there = np.isin(masks.rows, rows)
    inside = masks.inside(maps.shape[1:])[there]
    frame = pd.DataFrame({"row": rows})
    if recording.label_kind == CLASS:
        frame["class"] = np.array(recording.classes)[recording.labels[rows]]
    frame["area"] = masks.areas[there]
    found = {measure: localize(inside, maps, measure) for measure in MEASURES}
    for null in ("", *NULLS):
        for measure, scores in found.items():
            column = np.full(len(rows), np.nan)
            column[scores.scored] = getattr(scores, null or "value")
            frame[f"{null}_{measure}" if null else measure] = column
    return frame.assign(scored=found[ENERGY].scored)


def _gate_maps(
    recording: Recording, masks: Masks, gate: str
) -> Float[Array, "masked height width"]:
    info = recording.info(gate)
    if info.offers(MAP) and not on_image(info):
        raise InputError(
            "AS719",
            f"gate '{gate}' varies along a sequence or along slices, and masks have the rows and "
            "columns of an image; choose a gate that varies along these",
        )
    return recording.spatial(gate, masks.rows)


def _attribution_maps(
    recording: Recording, masks: Masks, method: str, target: str
) -> tuple[Float[Array, "images height width"], Int64[Array, " images"]]:
    """Return the maps of the images that have a mask, after the ReLU, and their rows."""
    maps = recording.attribution(method, target=target)
    rows = recording.attributed_rows(method)
    masked = np.isin(rows, masks.rows)
    return np.maximum(maps[masked], 0), rows[masked]


def _first_of_groups(
    recording: Recording, masks: Masks, groups: ArrayLike | None
) -> Bool[Array, " masked"]:
    """Return which masked images are the first of their group."""
    numbers = checked_groups(groups, len(recording))
    kept = np.ones(len(masks.rows), bool)
    if numbers is not None:
        kept[:] = False
        kept[np.unique(numbers[masks.rows], return_index=True)[1]] = True
    return kept
