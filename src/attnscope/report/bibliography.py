"""The literature that a methods paragraph can cite: `bibliography.bib`, and BibTeX of a part."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files as package_files

from attnscope import __version__

SOFTWARE = "attnscope"
"""Key of attnscope itself, whose entry has the installed version."""
_ENTRY = re.compile(r"@(\w+)\{(\w+),\n(.*?)\n\}", re.DOTALL)
_FIELD = re.compile(r"^  (\w+) = \{(.*)\},?$", re.MULTILINE)
_LETTERS = {r"{\'e}": "é", r"{\"o}": "ö", r"\&": "&"}
"""How letters are written in BibTeX -> the letters."""


@dataclass(frozen=True)
class Reference:
    """One entry of a bibliography."""

    bibtex: str
    """The entry, as it stands in the file."""
    label: str
    """Authors and year as a text cites them: ``Holm 1979``, ``Hu et al. 2018``."""


@cache
def references() -> dict[str, Reference]:
    """Return all references by their keys."""
    text = package_files("attnscope.report").joinpath("bibliography.bib").read_text("utf-8")
    found = {
        match[2]: Reference(f"{match[0]}\n", _label(dict(_FIELD.findall(match[3]))))
        for match in _ENTRY.finditer(text)
    }
    software = (
        f"@misc{{{SOFTWARE},\n  author = {{{{The authors of attnscope}}}},\n"
        "  title = {{attnscope: The microscope for attention gates in neural networks}},\n"
        f"  note = {{Version {__version__}}}\n}}\n"
    )
    return {**found, SOFTWARE: Reference(software, f"version {__version__}")}


def bibliography(keys: Iterable[str]) -> str:
    """Return the BibTeX of some references.

    Raises:
        KeyError: a key is unknown.
    """
    known = references()
    return "\n".join(known[key].bibtex for key in keys)


def _label(fields: dict[str, str]) -> str:
    names = [name.partition(",")[0] for name in fields["author"].split(" and ")]
    is_long = len(names) > 2 or names[-1] == "others"
    who = f"{names[0]} et al." if is_long else " and ".join(names)
    for written, letter in _LETTERS.items():
        who = who.replace(written, letter)
    return f"{who} {fields['year']}"
