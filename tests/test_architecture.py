"""The code follows the rules and the table of docs/architecture.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "attnscope"
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = [file.relative_to(PACKAGE).as_posix() for file in FILES]
ENTRY_POINTS = {"__init__", "__main__"}  # they import names from elsewhere and have no row


def read_table() -> dict[str, bool]:
    """Return whether each folder or module works without torch, in the order of the page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## Modules")[1].split("\n## ")[0]
    rows: dict[str, bool] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert len(cells) == 3, f"a row of three cells is expected: {line}"
            assert cells[2] in ("yes", "no"), line
            rows[cells[0].strip("`/")] = cells[2] == "yes"
    return rows


TABLE = read_table()
ORDER = list(TABLE)


def module_of(file: Path) -> str:
    """Return the row to which a file belongs: its own name, or that of its folder."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield the dotted names that a file imports, and whether it does so when it is imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        early = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, early
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = ("attnscope", *file.relative_to(PACKAGE).parts)[: -node.level]
                base = ".".join([*here, *([base] if base else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", early


def own_imports(file: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    found = set()
    for name, _ in imports(file):
        parts = name.split(".")
        # In `from attnscope import x`, x is a module if it exists, otherwise a name of __init__.
        if parts[0] == "attnscope" and len(parts) > 1:
            is_module = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
            found.add(parts[1] if is_module else "__init__")
    return found


def packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name, _ in imports(file)}


def test_table_has_a_row_for_each_folder_and_module() -> None:
    assert set(TABLE) == {module_of(file) for file in FILES} - ENTRY_POINTS
    assert TABLE["statistics"]
    assert not TABLE["gates"]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_modules_import_only_from_the_rows_above(file: Path) -> None:
    module = module_of(file)
    if module in ENTRY_POINTS:
        return
    # A module may import only the version from the package itself.
    own = own_imports(file) - {module}
    if "__init__" in own:
        from_package = {n for n, _ in imports(file) if re.fullmatch(r"attnscope(\.\w+)?", n)}
        assert {n for n in from_package if n.split(".")[-1] not in TABLE} <= {
            "attnscope.__version__"
        }
        own.discard("__init__")
    above = ORDER[: ORDER.index(module)]
    assert own <= set(above), f"{module} imports {sorted(own - set(above))}, which is not above it"


def test_there_are_no_circular_imports() -> None:
    names = {".".join(f.relative_to(PACKAGE).with_suffix("").parts): f for f in FILES}
    remaining: dict[str, set[str]] = {}
    for name, file in names.items():
        if name.split(".")[-1] in ENTRY_POINTS:
            continue
        found = {n.removeprefix("attnscope.") for n, _ in imports(file) if n.startswith("attns")}
        # `attnscope.kinds.Gate` is in the module kinds; `attnscope.data.load` is a module.
        found |= {n.rpartition(".")[0] for n in found}
        remaining[name] = (found & set(names)) - {name}
    while remaining:
        leaves = [name for name, needed in remaining.items() if not needed & set(remaining)]
        assert leaves, f"a circular import among {sorted(remaining)}"
        for leaf in leaves:
            del remaining[leaf]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_libraries_are_imported_only_where_allowed(file: Path) -> None:
    module = module_of(file)
    places = {
        "matplotlib": {"plots", "report"},
        "captum": {"attribution"},
        "streamlit": {"dashboard"},
    }
    for library, allowed in places.items():
        assert library not in packages(file) or module in allowed, f"{module} imports {library}"
    if TABLE.get(module) and module != "commands":  # commands import it when they run
        assert not packages(file) & {"torch", "torchvision"}, f"{module} imports torch"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_heavy_libraries_are_imported_late(file: Path) -> None:
    """The commands and the package itself start fast: they import heavy libraries on first use."""
    if module_of(file) not in {"commands", *ENTRY_POINTS}:
        return
    early = {name.split(".")[0] for name, early in imports(file) if early}
    heavy = {"torch", "torchvision", "captum", "matplotlib", "pandas", "scipy", "sklearn"}
    assert not early & heavy
    own = {name for name, at_once in imports(file) if at_once and name.startswith("attnscope.")}
    light = {"errors", "lazy", "layout", "files", "registry", "commands", "signals"}
    light |= {"__version__", "shell", "writing"}
    own = {name for name in own if not name.startswith("attnscope.training.config.")}  # no torch
    if "TYPE_CHECKING" not in file.read_text(encoding="utf-8"):
        assert {name.split(".")[1] for name in own} <= light


SOURCES = FILES + [
    file
    for folder in ("streamlit_app", "analysis")
    for file in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("file", SOURCES, ids=[str(f.relative_to(ROOT)) for f in SOURCES])
def test_code_unpickles_and_evaluates_nothing(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    banned = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not packages(file) & banned
    for name, _ in imports(file):
        assert "pyplot" not in name
        assert "pylab" not in name
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"eval", "exec", "compile", "__import__"}, f"line {node.lineno}"
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if called.endswith("torch.load"):
            assert options.get("weights_only") == "True", f"line {node.lineno}"
        assert options.get("allow_pickle", "False") == "False", f"line {node.lineno}"
        assert not called.endswith(("read_pickle", "to_pickle")), f"line {node.lineno}"


ALL_FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]


@pytest.mark.parametrize("file", ALL_FILES, ids=[str(file.relative_to(ROOT)) for file in ALL_FILES])
def test_long_files_give_the_reason(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    if len(text.splitlines()) > 400:
        assert "more than 400 lines" in (ast.get_docstring(ast.parse(text)) or "").lower()


@pytest.mark.parametrize("file", SOURCES, ids=[str(f.relative_to(ROOT)) for f in SOURCES])
def test_significance_level_is_defined_once(file: Path) -> None:
    if file.name == "inference.py":
        return
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            numbers = [side.value for side in sides if isinstance(side, ast.Constant)]
            assert 0.05 not in numbers, f"line {node.lineno}: use statistics.inference"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_code_asks_for_traits_of_kinds_and_not_for_names(file: Path) -> None:
    names = {"channel", "spatial", "strip", "branch", "full", "static"}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            is_kind = any(ast.unparse(side).split(".")[-1] == "kind" for side in sides)
            constants = [n.value for s in sides for n in ast.walk(s) if isinstance(n, ast.Constant)]
            assert not (is_kind and names & set(constants)), f"line {node.lineno}"


@pytest.mark.parametrize("folder", ["streamlit_app", "analysis"])
def test_analysis_and_dashboard_do_not_import_each_other(folder: str) -> None:
    other = {"streamlit_app": "analysis", "analysis": "streamlit_app"}[folder]
    for file in sorted((ROOT / folder).rglob("*.py")):
        assert other not in packages(file), file


def test_recordings_are_analyzed_without_torch() -> None:
    """One process imports all modules, because each import takes seconds."""
    modules = ["recording", "statistics", "plots", "report"]
    pages_ask = sorted(file.stem for file in (PACKAGE / "dashboard").glob("[a-z]*.py"))
    modules += [f"dashboard.{name}" for name in pages_ask]
    script = "import sys, attnscope\n"
    for module in modules:
        script += f"import attnscope.{module}\n"
        script += f"assert 'torch' not in sys.modules, '{module} loads torch'\n"
        if module in ("recording", "statistics"):
            script += f"assert 'matplotlib' not in sys.modules, '{module} loads matplotlib'\n"
    script += "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot keeps a global state'\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
