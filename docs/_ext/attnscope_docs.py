"""Directives that write the reference from the package itself, and checks of the built pages.

- ``public-names MODULE``: autodoc of every name in ``MODULE.__all__``, each name on one page only.
- ``registered MODULE REGISTRY``: a table of what a registry holds.
- ``command-options``: every command with its options, from the parsers of the commands.
- ``error-codes``: the codes of ``attnscope.errors.ERRORS``, linked to their pages.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from html import escape
from importlib import import_module
from inspect import isclass, isroutine
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

PACKAGES = (
    "attnscope",
    "attnscope.gates",
    "attnscope.kinds",
    "attnscope.recording",
    "attnscope.statistics",
    "attnscope.interventions",
    "attnscope.folding",
    "attnscope.plots",
    "attnscope.report",
    "attnscope.attribution",
    "attnscope.training",
    "attnscope.networks.attention",
    "attnscope.networks.targets",
    "attnscope.data.sources",
    "attnscope.registry",
)
"""Packages with public names. A name that several of them have is documented with the first one.

Other modules are documented name by name, with the option ``:names:``."""


def public_names(module: ModuleType) -> list[str]:
    """The public names of a module: ``__all__``, else what it defines without an underscore."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__, key=str.lower)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def home_of(value: Any, name: str) -> str | None:
    """The first of `PACKAGES` under which an object is public."""
    for package in PACKAGES:
        module = import_module(package)
        if name in public_names(module) and getattr(module, name) is value:
            return package
    return None


class Generated(SphinxDirective):
    """A directive that writes MyST, with reStructuredText inside where autodoc needs it."""

    def lines(self) -> Iterator[str]:
        """The lines of MyST."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The parsed nodes, with sections where there are headings."""
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)


def rst(lines: Iterable[str]) -> Iterator[str]:
    """Lines of reStructuredText as MyST."""
    yield from ["", "`````{eval-rst}", *lines, "`````", ""]


class PublicNames(Generated):
    """Autodoc of the public names of a package."""

    required_arguments = 1
    option_spec = {"names": str.split}  # noqa: RUF012, as in docutils

    def lines(self) -> Iterator[str]:
        """One autodoc directive for each name."""
        package = self.arguments[0]
        names = self.options.get("names")
        if (package in PACKAGES) == bool(names):
            raise ExtensionError(f"{package}: give :names: unless it is one of PACKAGES")
        module = import_module(package)
        elsewhere, found = [], [f".. currentmodule:: {package}", ""]
        for name in names or public_names(module):
            value = getattr(module, name)
            full = f"{package}.{name}"
            home = None if isinstance(value, ModuleType) else home_of(value, name)
            home = package if names else home
            if isinstance(value, ModuleType):
                elsewhere.append(f"{{doc}}`{full} </reference/api/{name}>`")
            elif home != package:
                elsewhere.append(f"{{py:obj}}`{home}.{name}`")
            elif isclass(value):
                kind = "exception" if issubclass(value, BaseException) else "class"
                found += [f".. auto{kind}:: {full}", "   :members:"]
                found += ["   :exclude-members: set", ""]  # of matplotlib's artists
            elif isroutine(value):
                found += [f".. autofunction:: {full}", ""]
            else:
                found += [f".. autodata:: {full}", "   :no-value:", ""]
        yield from rst(found)
        if elsewhere:
            yield f"`{package}` also has " + ", ".join(elsewhere) + "."


class CommandOptions(Generated):
    """The help of every command."""

    def lines(self) -> Iterator[str]:
        """A section for each command."""
        for name, text in command_helps():
            title = f"attnscope {name}"
            yield from [f"## {title}", ""]
            yield from rst(help_as_rst(title, text))


def command_helps() -> Iterator[tuple[str, str]]:
    """Name and help text of each command, as ``--help`` prints it."""
    from attnscope.commands import help_text
    from attnscope.commands.main import find_commands

    for name, command in find_commands():
        yield name, help_text.command_help(command, f"attnscope {name}")


def help_as_rst(title: str, text: str) -> Iterator[str]:
    """A help text as paragraphs, headings and ``option`` directives."""
    yield from [f".. program:: {title}", ""]
    for section in text.split("\n\n"):
        first, *rows = section.splitlines()
        heading = first.endswith(":") and all(row.startswith("  ") for row in rows)
        if first.startswith("Usage: "):
            yield from ["::", "", *(f"   {row}" for row in [first[len("Usage: ") :], *rows]), ""]
        elif not heading or not rows:
            yield from [escape_rst(" ".join([first, *rows])), ""]
        else:
            yield from [f".. rubric:: {first[:-1]}", ""]
            yield from option_directives(rows)


def option_directives(rows: Iterable[str]) -> Iterator[str]:
    """The rows of a section: a name after two spaces, and its text after more."""
    found: list[tuple[str, list[str]]] = []
    for row in rows:
        if row[2] != " ":
            name, _, words = row.strip().partition("  ")
            found.append((name, [words.strip()] if words else []))
        else:
            found[-1][1].append(row.strip())
    for name, words in found:
        if name != "-h, --help":
            yield from [f".. option:: {name}", "", f"   {escape_rst(' '.join(words))}", ""]


def escape_rst(text: str) -> str:
    """Text without markup."""
    return re.sub(r"([*`|\\_])", r"\\\1", text)


class ErrorCodes(Generated):
    """A table of the error codes, and the pages that there are."""

    def lines(self) -> Iterator[str]:
        """A table of two columns."""
        from attnscope.errors import ERRORS

        pages = {path.stem for path in (Path(self.env.srcdir) / "errors").glob("AS*.md")}
        yield from ["| Code | What is wrong |", "| --- | --- |"]
        for code, sentence in ERRORS.items():
            if code == "AS000":
                continue
            link = f"{{doc}}`{code} </errors/{code}>`" if code in pages else f"`{code}`"
            yield f"| {link} | {sentence} |"
        if pages:
            yield from ["", "```{toctree}", ":hidden:", "", *sorted(f"/errors/{p}" for p in pages)]
            yield "```"


class Registered(Generated):
    """A table of what a registry holds: names and what they say about themselves."""

    required_arguments = 2

    def lines(self) -> Iterator[str]:
        """A table of two columns."""
        module, name = self.arguments
        registry = getattr(import_module(module), name)
        yield from ["| Name | What it is |", "| --- | --- |"]
        for key, thing in registry.items():
            about = getattr(thing, "about", None) or getattr(thing, "help", "")
            yield f"| `{key}` | {about} |"


class LinkResults(SphinxPostTransform):
    """Link to the folders of results, which `copy_results` puts beside the pages."""

    default_priority = 5  # before MyST looks for pages of that name

    def run(self, **options: Any) -> None:
        """Replace each reference to a folder of results."""
        results = Path(self.env.srcdir) / "results"
        here = Path(self.env.srcdir) / self.env.docname
        for node in list(self.document.findall(pending_xref)):
            source = (here.parent / node.get("reftarget", "")).resolve()
            if source.is_dir() and source.is_relative_to(results):
                path = source.relative_to(self.env.srcdir).as_posix()
                uri = "../" * self.env.docname.count("/") + f"{path}/index.html"
                node.replace_self(nodes.reference("", "", *node.children, refuri=uri))


def read_inline_attribute(self: GoogleDocstring) -> tuple[str, list[str]]:
    """The docstring of an attribute, whole.

    Napoleon takes what stands before a colon for a type, as in ``int: number of images``. The types
    of attnscope's attributes are annotations, and a colon is a colon.
    """
    return "", self._dedent(self._consume_to_end())


def read_property(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Read the sections of a property's docstring, such as ``Raises``, as those of a method."""
    if what == "property":
        lines[:] = GoogleDocstring(lines, app.config, app, "method", name, obj, options).lines()


def copy_results(app: Sphinx, error: Exception | None) -> None:
    """Copy the tables of the studies, and write a list of files for each folder."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "results"
    shutil.copytree(Path(app.srcdir) / "results", target, dirs_exist_ok=True)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        names = sorted(
            p.name + "/" * p.is_dir() for p in folder.iterdir() if p.name != "index.html"
        )
        title = escape(str(folder.relative_to(app.outdir)))
        links = "".join(
            f'<li><a href="{escape(n)}{"index.html" * n.endswith("/")}">{escape(n)}</a></li>'
            for n in names
        )
        (folder / "index.html").write_text(
            f'<!doctype html><meta charset="utf-8"><title>{title}</title>'
            f'<body style="font-family: sans-serif"><h1>{title}</h1><ul>{links}</ul>',
            encoding="utf-8",
        )


def expect_no_other_hosts(app: Sphinx, error: Exception | None) -> None:
    """Refuse a page that loads a script, a style, a font or an image from another host."""
    if error is not None or app.builder.format != "html":
        return
    loads = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"'](?:https?:)?//[^\"']+"
        r"|<link\b[^>]*\brel=[\"'](?:stylesheet|preload|preconnect|icon)[\"'][^>]*"
        r"\bhref=[\"'](?:https?:)?//[^\"']+"
    )
    for page in Path(app.outdir).rglob("*.html"):
        found = loads.search(page.read_text(encoding="utf-8"))
        if found:
            raise ExtensionError(f"{page} loads from another host: {found.group()}")


def recording_format(*_: Any) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Return the current format of recordings, as text."""
    from attnscope.recording.format import FORMAT

    return [nodes.Text(str(FORMAT))], []


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and checks."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("command-options", CommandOptions)
    app.add_directive("error-codes", ErrorCodes)
    app.add_directive("registered", Registered)
    app.add_role("recording-format", recording_format)
    app.add_post_transform(LinkResults)
    GoogleDocstring._consume_inline_attribute = read_inline_attribute  # type: ignore[method-assign]
    app.connect("autodoc-process-docstring", read_property, priority=400)  # napoleon's is 500
    app.connect("build-finished", copy_results)
    app.connect("build-finished", expect_no_other_hosts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
