"""Determine the axes of feature maps by probing the input.

The network runs on a sample and on variants of it: one image more, and each spatial dimension
doubled alone. An axis of a feature map that grows with the batch holds images, one that grows with
one spatial dimension is that dimension, and one that never changes holds channels, branches or
groups. Sizes are doubled because many networks refuse or round other changes.

The result is a layout: one token per axis, such as ``N``, ``C``, ``H``. Axes that hold a product
are written in parentheses, the slower index first: ``(HW)`` for flattened positions, ``(NG)`` for
the groups of one image after another, ``(GN)`` for all images of one group after another. ``1``
stands for an axis of length 1, unless it is the only axis that can hold channels: features of a
single channel have the layout ``NCHW`` like any others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache

from torch import Tensor

from attnscope.kinds import AXES

Layout = tuple[str, ...]
"""One token per axis; without parentheses, so that ``HW`` is a flattened pair."""


@cache
def parse_layout(layout: str) -> Layout:
    """Return the tokens of a layout: ``N(HW)C`` -> ``("N", "HW", "C")``."""
    return tuple(a or b for a, b in re.findall(r"\((\w+)\)|(\w)", layout))


def format_layout(tokens: Sequence[str]) -> str:
    """Return the layout of some tokens: ``("N", "HW", "C")`` -> ``N(HW)C``."""
    return "".join(token if len(token) == 1 else f"({token})" for token in tokens)


def axes_of(
    shape: Sequence[int],
    probes: Mapping[str, Sequence[int]],
    batch: int | None,
    rows_first: str,
) -> Layout | None:
    """Return a token for each axis of a feature map, ``?`` for one that no probe changes.

    Args:
        shape: shape of the features on the sample.
        probes: letter of the input dimension that was changed -> shape of the features then. ``N``
            is the probe with one image more; the others doubled their dimension.
        batch: number of images of the sample, None without a batch axis.
        rows_first: ``image`` if an axis that holds images and something else has all rows of one
            image after another, ``other`` if it has all images after another.

    Returns:
        None if an axis changes in a way that cannot be named.
    """
    tokens = []
    for axis, size in enumerate(shape):
        if any(len(other) != len(shape) for other in probes.values()):
            return None
        changed = {letter: other[axis] for letter, other in probes.items() if other[axis] != size}
        token = _token(size, changed, batch, rows_first)
        if token is None:
            return None
        tokens.append(token)
    if batch is not None and "N" not in probes and tokens[0] == "?" and shape[0] == batch:
        tokens[0] = "N"  # the network takes one batch size only
    named = [letter for token in tokens for letter in token if letter not in "1?"]
    return tuple(tokens) if len(set(named)) == len(named) else None


def _token(size: int, changed: Mapping[str, int], batch: int | None, rows_first: str) -> str | None:
    spatial = [letter for letter in changed if letter != "N"]
    if "N" in changed:
        if batch is None or size % batch or changed["N"] * batch != size * (batch + 1):
            return None
        if size == batch and not spatial:
            return "N"
        if len(spatial) > 1:
            return None  # windows of an image as rows
        other = spatial[0] if spatial else "G"
        return f"N{other}" if rows_first == "image" else f"{other}N"
    if not spatial:
        return "1" if size == 1 else "?"
    if len(spatial) == 1:
        return spatial[0]
    flattened = all(changed[letter] == 2 * size for letter in spatial)
    return "HW" if flattened and set(spatial) == {"H", "W"} else "L"


def rows_are_image_first(
    sample: Tensor | None, extended: Tensor | None, batch: int | None
) -> bool | None:
    """Return whether rows are sorted by image first, from the values of a gate.

    Args:
        sample: the gate on the sample, its first axis of length ``batch * k``.
        extended: the gate with one image more, its first axis of length ``(batch + 1) * k``.
        batch: number of images of the sample.

    Returns:
        None if the values do not tell.
    """
    if sample is None or extended is None or not batch or sample.shape[0] % batch:
        return None
    count = sample.shape[0] // batch
    if extended.shape[0] != (batch + 1) * count or extended.shape[1:] != sample.shape[1:]:
        return None
    by_image = _close(extended[: len(sample)], sample)
    rest = sample.shape[1:]
    others = extended.reshape(count, batch + 1, *rest)[:, :batch]
    by_other = _close(others, sample.reshape(count, batch, *rest))
    return by_image if by_image != by_other else None


def _close(a: Tensor, b: Tensor) -> bool:
    return bool(((a - b).abs() <= 1e-4 + 1e-3 * b.abs()).all())


def complete(
    tokens: Layout,
    shape: Sequence[int],
    branch: frozenset[int],
) -> Layout | None:
    """Name the axes that no probe changes: channels, and before them branches or groups.

    Channels can be a single one. Their axis has length 1 then, and it is named if it is the only
    axis of that length and no other axis can hold channels.

    Args:
        tokens: from `axes_of`.
        shape: shape of the features.
        branch: axes that hold branches, because the product is summed over them, or because the
            gate is a softmax over them.

    Returns:
        None if there are more such axes than can be named.
    """
    fixed = [axis for axis, token in enumerate(tokens) if token == "?"]
    if len(fixed) > 2:
        return None
    if not fixed and tokens.count("1") == 1:
        fixed = [tokens.index("1")]
    names = dict.fromkeys(fixed, "C")
    if len(fixed) == 2:
        branches = [axis for axis in fixed if axis in branch]
        names[branches[0] if len(branches) == 1 else fixed[0]] = "B" if branches else "G"
    return tuple(names.get(axis, token) for axis, token in enumerate(tokens))


def by_convention(shape: Sequence[int], varies: Sequence[bool], batch: int | None) -> Layout | None:
    """Return the axes that PyTorch's convention gives, if the gate has the shape of one.

    This is used if the network does not accept a larger image.

    Args:
        shape: shape of the features.
        varies: for each axis of the features, whether the gate varies along it.
        batch: number of images of the sample, None without a batch axis.
    """
    if batch is None:
        shape, varies = (1, *shape), (False, *varies)
    if len(shape) != 4 or min(shape[-2:]) == 1:
        return None
    along = tuple(varies[1:])
    if along not in ((True, False, False), (False, True, True), (True, True, True)):
        return None
    return ("N", "C", "H", "W")[batch is None :]


def grid_of(positions: int, aspect: float = 1.0) -> tuple[int, int]:
    """Return rows and columns of flattened positions, else one row.

    Args:
        positions: their number.
        aspect: height of the image over its width.
    """
    rows = round(math.sqrt(positions * aspect))
    if rows and positions % rows == 0 and math.isclose(rows * rows, positions * aspect):
        return rows, positions // rows
    side = math.isqrt(positions)
    return (side, side) if side * side == positions else (1, positions)


def split_axes(values: Tensor, layout: Layout, per_image: int, grid: tuple[int, int]) -> Tensor:
    """Return a tensor with one axis per letter of a layout, in the order of `AXES`.

    Args:
        values: a tensor with one axis per token. An axis may have length 1 instead of its own.
        layout: its tokens.
        per_image: number of rows per image, for an axis that holds images and something else.
        grid: rows and columns of flattened positions ``HW``.
    """
    letters: list[str] = []
    shape: list[int] = []
    for token, size in zip(layout, values.shape, strict=True):
        letters += token
        if len(token) == 1:
            shape.append(size)
        elif size == 1:
            shape += [1, 1]
        elif "N" in token:
            shape += [size // per_image, per_image][:: 1 if token[0] == "N" else -1]
        else:
            shape += grid if math.prod(grid) == size else grid_of(size)
    values = values.reshape(shape)
    kept = [axis for axis, letter in enumerate(letters) if letter != "1"]
    values = values.reshape([shape[axis] for axis in kept])
    own = [letters[axis] for axis in kept]
    return values.permute([own.index(letter) for letter in letters_of(layout)])


def join_axes(values: Tensor, layout: Layout) -> Tensor:
    """Return a tensor with one axis per token of a layout: the inverse of `split_axes`."""
    own = letters_of(layout)
    letters = [letter for token in layout for letter in token if letter != "1"]
    values = values.permute([own.index(letter) for letter in letters])
    sizes = iter(values.shape)
    return values.reshape(
        [math.prod(next(sizes) for letter in token if letter != "1") for token in layout]
    )


def letters_of(layout: Layout) -> list[str]:
    """Return the letters of a layout in the order of `AXES`."""
    present = {letter for token in layout for letter in token}
    return [letter for letter in AXES if letter in present]
