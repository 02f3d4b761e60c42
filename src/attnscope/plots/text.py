"""Numbers and names as captions, titles and tables write them. No matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np


def as_percent(share: float, digits: int = 1) -> str:
    """Write a share of 0 to 1 in percent, ``91.8%``; a dash for NaN."""
    if not np.isfinite(share):
        return "–"
    return with_minus(f"{_rounded(100 * share, digits):.{digits}f}%")


def as_points(difference: float) -> str:
    """Write a difference of two shares in percentage points with its sign; a dash for NaN."""
    return with_minus(f"{_rounded(100 * difference, 1):+.1f}") if np.isfinite(difference) else "–"


def as_plain_points(difference: float) -> str:
    """Write a difference of two shares in percentage points without a plus; a dash for NaN."""
    return with_minus(f"{_rounded(100 * difference, 1):.1f}") if np.isfinite(difference) else "–"


def as_number(value: float) -> str:
    """Write a number with three decimals; a dash for NaN."""
    return with_minus(f"{_rounded(value, 3):.3f}") if np.isfinite(value) else "–"


def as_interval(low: float, high: float, form: Callable[[float], str] = as_number) -> str:
    """Write a confidence interval: ``95% CI −0.2 to 0.5``; ``no 95% CI`` for NaN.

    Args:
        low: the lower end.
        high: the upper end.
        form: writes each end, such as `as_plain_points`.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return "no 95% CI"
    return f"95% CI {form(low)} to {form(high)}"


def as_score(value: float) -> str:
    """Write a number with two decimals; a dash for NaN."""
    return with_minus(f"{_rounded(value, 2):.2f}") if np.isfinite(value) else "–"


def as_plain_nats(value: float) -> str:
    """Write a difference in log loss without a plus; a dash for NaN."""
    return with_minus(f"{_without_sign_of_zero(value):.2g}") if np.isfinite(value) else "–"


def as_p(p: float) -> str:
    """Write a p value: ``p = 0.012``, ``p < 0.001``; ``no test`` for NaN."""
    number = as_p_number(p)
    if not np.isfinite(p):
        return number
    return f"p {number}" if number.startswith("<") else f"p = {number}"


def as_p_number(p: float) -> str:
    """Write a p value without its letter; ``no test`` for NaN."""
    if not np.isfinite(p):
        return "no test"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def as_count(count: int, noun: str, plural: str = "") -> str:
    """Write a number of things: ``1 gate``, ``2,048 gates``.

    Args:
        count: how many.
        noun: what one is called.
        plural: what several are called; default: the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def _rounded(value: float, digits: int) -> float:
    """Round a number; one that is 0 then has no sign."""
    return _without_sign_of_zero(round(float(value), digits))


def _without_sign_of_zero(value: float) -> float:
    """Return the number; 0 for the zero with a minus, which a loss of 0 with its sign turned is."""
    return float(value) + 0.0


def with_minus(number: str) -> str:
    """Replace hyphens by minus signs."""
    return number.replace("-", "\N{MINUS SIGN}")


def shorten(text: object, length: int = 18) -> str:
    """Return a text in one line, cut to a number of characters."""
    clean = " ".join(str(text).split())
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def in_lines(texts: Sequence[str], width: int) -> str:
    """Wrap a title and the sentences below it to lines of at most ``width`` characters."""
    return "\n".join(
        line for text in texts for line in textwrap.wrap(text, width, break_on_hyphens=False)
    )


def short_names(gates: Sequence[str]) -> list[str]:
    """Return the names of gates without the components that all of them share.

    ``layer1.0.attention.channel, layer2.0.attention.channel`` become ``layer1, layer2``. A number
    keeps the name before it: ``features.0.3, features.1.3`` become ``features.0, features.1``. If
    the names have different numbers of components, only shared ones at the start and the end go.
    """
    parts = [name.split(".") for name in dict.fromkeys(gates)]
    if len(parts) < 2:
        return list(gates)
    if len({len(p) for p in parts}) == 1:
        kept = {i for i, shared in enumerate(zip(*parts, strict=True)) if len(set(shared)) > 1}
        for i in range(len(parts[0]) - 1, 0, -1):
            if i in kept and _any_number(parts, i):
                kept.add(i - 1)
        short = {".".join(p): ".".join(p[i] for i in sorted(kept)) for p in parts}
    else:
        shortest = min(len(p) for p in parts)
        end = 0
        while end < shortest - 1 and len({p[-1 - end] for p in parts}) == 1:
            end += 1
        start = 0
        while start < shortest - 1 - end and len({p[start] for p in parts}) == 1:
            start += 1
        while start and _any_number(parts, start):
            start -= 1
        short = {".".join(p): ".".join(p[start : len(p) - end]) for p in parts}
    # The modules of a network may have numbers for names, which no name precedes.
    return list(gates) if any(map(_is_number, short.values())) else [short[name] for name in gates]


def _any_number(parts: Sequence[Sequence[str]], place: int) -> bool:
    """Return whether a component of any name is a number."""
    return any(_is_number(p[place]) for p in parts)


def _is_number(component: str) -> bool:
    """Return whether a component is a number, as in ``features.3``, or one of several: ``3#2``."""
    return component.partition("#")[0].isdecimal()


def method_name(method: str) -> str:
    """Return the name of an attribution method for texts: ``integrated gradients``."""
    return method.replace("grad_cam", "Grad-CAM").replace("_", " ")
