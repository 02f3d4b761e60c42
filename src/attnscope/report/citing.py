"""Sentences with citations, and the paragraph that they make: as text, Markdown and BibTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.report.bibliography import bibliography, references

_OPEN, _CLOSE = "\ue000", "\ue001"
"""Around the keys of a citation: characters that no name has (`named`)."""
_CITED = re.compile(f" ?{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|$~^&@])")


@dataclass(frozen=True)
class Methods:
    """A methods paragraph."""

    sentences: tuple[str, ...]
    """In order; citations are marked by `cite`."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all citations, in the order in which they are first cited."""
        found = [key for text in self.sentences for keys in _CITED.findall(text)
                 for key in keys.split(";")]  # fmt: skip
        return tuple(dict.fromkeys(found))

    def plain(self) -> str:
        """Return the paragraph with authors and years in parentheses."""
        known = references()

        def label(match: re.Match[str]) -> str:
            return f" ({'; '.join(known[key].label for key in match[1].split(';'))})"

        return _CITED.sub(label, " ".join(self.sentences))

    def markdown(self) -> str:
        """Return the paragraph as Markdown with citations as pandoc reads them: ``[@holm1979]``."""
        text, parts, end = " ".join(self.sentences), [], 0
        for match in _CITED.finditer(text):
            keys = "; ".join(f"@{key}" for key in match[1].split(";"))
            parts += [_MARKUP.sub(r"\\\1", text[end : match.start()]), f" [{keys}]"]
            end = match.end()
        return "".join([*parts, _MARKUP.sub(r"\\\1", text[end:])]) + "\n"

    def bibtex(self) -> str:
        """Return the cited references as BibTeX."""
        return bibliography(sorted(self.keys))


def cite(*keys: str) -> str:
    """Return the mark of a citation, for a sentence."""
    return f"{_OPEN}{';'.join(keys)}{_CLOSE}"


def named(text: object) -> str:
    """Return a name without line breaks and without the marks of citations."""
    return " ".join(str(text).replace(_OPEN, "").replace(_CLOSE, "").split())


def listed(parts: Sequence[str]) -> str:
    """Return one or more things as a text lists them: ``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
