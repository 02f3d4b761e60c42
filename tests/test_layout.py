"""The names of files and folders are defined in one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnscope import layout

PACKAGE = Path(__file__).parents[1] / "src" / "attnscope"
NAMES = {value for key, value in vars(layout).items() if key.isupper() and isinstance(value, str)}
FILES = {name for name in NAMES if "." in name[1:]}
FOLDERS = NAMES - FILES
PATHS = {"joinpath", "glob", "rglob", "with_name"}
SOURCES = [file for file in sorted(PACKAGE.rglob("*.py")) if file.name != "layout.py"]


def literals(tree: ast.AST) -> Iterator[tuple[ast.Constant, bool]]:
    """Yield every string that is not a docstring, and whether it is part of a path."""
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    docs |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    in_paths = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            in_paths |= {id(node.left), id(node.right)}
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in PATHS
        ):
            in_paths |= {id(argument) for argument in node.args}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node, id(node) in in_paths


@pytest.mark.parametrize("file", SOURCES, ids=[str(f.relative_to(PACKAGE)) for f in SOURCES])
def test_no_other_module_contains_a_file_name(file: Path) -> None:
    for node, in_path in literals(ast.parse(file.read_text(encoding="utf-8"))):
        for name in FILES:
            assert name not in node.value, f"line {node.lineno} spells {name}"
        if in_path:
            assert not set(node.value.split("/")) & FOLDERS, f"line {node.lineno} spells a folder"


def test_layout_imports_nothing_and_documents_every_name() -> None:
    tree = ast.parse((PACKAGE / "layout.py").read_text(encoding="utf-8"))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    page = ast.get_docstring(tree) or ""
    assert [name for name in NAMES if name not in page] == []
