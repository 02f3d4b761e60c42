"""Text from data that is shown as it is, and may break where a reader expects it."""

from __future__ import annotations

import re


def literal(text: str) -> str:
    """Return Markdown that shows ``text`` as code: names and paths must not act as markup."""
    text = " ".join(text.split()) or " "
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def breakable(text: str) -> str:
    """Return text that may break behind ``/``, ``_`` and ``-``, and not in the middle of a word.

    It has a zero-width space at each of these places.
    """
    return re.sub("([/_-])(?=.)", "\\1\u200b", text)
