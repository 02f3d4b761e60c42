"""Directives that write the reference from the package itself, and checks of the built pages.

- ``public-names MODULE``: autodoc of every name in ``MODULE.__all__``, each name on one page only.
- ``registered MODULE REGISTRY``: a table of what a registry holds.
- ``command-options``: every command with its options, from the parsers of the commands.
- ``error-codes``: the codes of ``attnscope.errors.ERRORS``, linked to their pages.
"""

from __future__ import annotations

import re
import shutil
import warnings
from argparse import Action, ArgumentParser
from collections.abc import Iterable, Iterator
from html import escape
from importlib import import_module
from inspect import isclass, isroutine
from pathlib import Path
from types import ModuleType
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
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
    "attnscope.data.load",
    "attnscope.data.images",
    "attnscope.data.normalization",
    "attnscope.registry",
)
"""Packages with public names. A name that several of them have is documented with the first one."""


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

    def lines(self) -> Iterator[str]:
        """One autodoc directive for each name."""
        package = self.arguments[0]
        if package not in PACKAGES:
            raise ExtensionError(f"add {package} to PACKAGES in docs/_ext/attnscope_docs.py")
        module = import_module(package)
        elsewhere, found = [], [f".. currentmodule:: {package}", ""]
        for name in public_names(module):
            value = getattr(module, name)
            full = f"{package}.{name}"
            home = None if isinstance(value, ModuleType) else home_of(value, name)
            if isinstance(value, ModuleType):
                elsewhere.append(f"{{doc}}`{full} </reference/api/{name}>`")
            elif home != package:
                elsewhere.append(f"{{py:obj}}`{home}.{name}`")
            elif isclass(value):
                kind = "exception" if issubclass(value, BaseException) else "class"
                found += [f".. auto{kind}:: {full}", "   :members:", ""]
            elif isroutine(value):
                found += [f".. autofunction:: {full}", ""]
            else:
                found += [f".. autodata:: {full}", "   :no-value:", ""]
        yield from rst(found)
        if elsewhere:
            yield f"`{package}` also has " + ", ".join(elsewhere) + "."


class CommandOptions(Generated):
    """Every command, its arguments and options."""

    def lines(self) -> Iterator[str]:
        """A section for each command."""
        for name, parser in command_parsers():
            title = f"attnscope {name}"
            yield from [f"## {title}", ""]
            yield from rst([f".. program:: {title}", "", *(parser.description or "").splitlines()])
            for group in parser._action_groups:
                actions = [a for a in group._group_actions if "--help" not in a.option_strings]
                if not actions:
                    continue
                if group.description:
                    yield from ["", f"*{group.description}*", ""]
                yield from rst(line for action in actions for line in option_lines(action))


def option_lines(action: Action) -> Iterator[str]:
    """One argument or option as an ``option`` directive."""
    metavar = re.sub(r"\{None\}\|", "", str(action.metavar or ""))
    options = [option for option in action.option_strings if not option.startswith("--no-no-")]
    forms = [f"{option} {metavar}".strip() for option in options]
    text = (action.help or "").replace("\n", " ")
    text = re.sub(r"\(default: (None)?\)|\(required\)", "", text).strip()
    yield from [f".. option:: {', '.join(forms or [metavar.strip('[]')])}", ""]
    yield from ["   " + re.sub(r"([*`|\\])", r"\\\1", text), ""]


def command_parsers() -> Iterator[tuple[str, ArgumentParser]]:
    """Name and parser of each command."""
    import tyro

    from attnscope.commands.main import find_commands

    for name, command in find_commands():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield name, tyro.extras.get_parser(command, prog=f"attnscope {name}")


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


def link_folder(app: Sphinx, env: Any, node: Any, contnode: Any) -> nodes.Node | None:
    """Link to a folder of results, which `copy_results` puts beside the pages."""
    target = node.get("reftarget", "")
    source = (Path(env.srcdir) / Path(node.get("refdoc", "")).parent / target).resolve()
    results = Path(env.srcdir) / "results"
    if not source.is_dir() or not source.is_relative_to(results):
        return None
    depth = node.get("refdoc", "").count("/")
    uri = "../" * depth + f"results/{source.relative_to(results).as_posix()}/index.html"
    return nodes.reference("", "", contnode, refuri=uri, internal=True)


def copy_results(app: Sphinx, error: Exception | None) -> None:
    """Copy the tables of the studies, and write a list of files for each folder."""
    if error is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "results"
    shutil.copytree(Path(app.srcdir) / "results", target, dirs_exist_ok=True)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir() if p.name != "index.html")
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


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and checks."""
    app.add_directive("public-names", PublicNames)
    app.add_directive("command-options", CommandOptions)
    app.add_directive("error-codes", ErrorCodes)
    app.add_directive("registered", Registered)
    app.connect("missing-reference", link_folder)
    app.connect("build-finished", copy_results)
    app.connect("build-finished", expect_no_other_hosts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
