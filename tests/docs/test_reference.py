"""The reference is about what there is."""

from __future__ import annotations

import re
import sys

import pytest

from attnscope.errors import ERRORS
from tests.docs.pages import DOCS, ROOT


def test_each_page_of_an_error_is_of_a_code_that_exists() -> None:
    pages = sorted(path.stem for path in (DOCS / "errors").glob("*.md"))
    assert set(pages) <= set(ERRORS)
    for code in pages:
        assert (DOCS / "errors" / f"{code}.md").read_text(encoding="utf-8").startswith(f"# {code}")


def test_every_public_name_is_on_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that the extension knows have a page, and no name is documented twice."""
    pytest.importorskip("sphinx")
    monkeypatch.setattr(sys, "path", [str(DOCS / "_ext"), *sys.path])
    import attnscope_docs

    text = "\n".join(p.read_text(encoding="utf-8") for p in (DOCS / "reference/api").glob("*.md"))
    named = re.findall(r"^```\{public-names\} ([\w.]+)\n(?::names: (.*)\n)?", text, re.M)
    assert {package for package, names in named if not names} == set(attnscope_docs.PACKAGES)
    listed = [f"{package}.{name}" for package, names in named for name in names.split()]
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_links_outside_the_site_lead_to_files(page: str) -> None:
    file = ROOT / page
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8")):
        assert (file.parent / link).exists(), f"{page} links to {link}, which is not there"
