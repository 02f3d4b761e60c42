"""The code keeps to the table in docs/architecture.md."""

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
ENTRANCES = {"__init__", "__main__"}  # they hand on, and have no row


def read_table() -> dict[str, set[str] | None]:
    """Module -> what it may import from the package; None is all of it."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## Modules")[1].split("\n## ")[0]
    rows: dict[str, set[str] | None] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `"):
            continue
        assert len(cells) == 3, f"a row of three cells is expected: {line}"
        names = re.findall(r"`([\w/]+)`", cells[0])
        allowed: set[str] | None = set(re.findall(r"\w+", cells[2]))
        if cells[2] == "nothing":
            allowed = set()
        elif cells[2].startswith("all"):
            allowed = None
        rows.update({name.rstrip("/"): allowed for name in names})
    return rows


TABLE = read_table()


def module_of(file: Path) -> str:
    """The row that a file belongs to: its own name, or that of the package it lies in."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Dotted names of what a file imports, wherever; and whether when it is itself imported."""
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
    """Modules of the package that a file imports."""
    found = set()
    for name, _ in imports(file):
        parts = name.split(".")
        # `from attnscope import x` is a module where there is one, else a name of __init__.
        if parts[0] == "attnscope" and len(parts) > 1:
            is_module = (PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file()
            found.add(parts[1] if is_module else "__init__")
    return found


def packages(file: Path) -> set[str]:
    return {name.split(".")[0] for name, _ in imports(file)}


def test_the_table_is_read() -> None:
    assert TABLE["errors"] == set()
    assert TABLE["models"] == {"attention", "errors", "files"}
    assert TABLE["cli"] is None
    assert TABLE["streamlit_app"] is None
    assert len(TABLE) >= 17


def test_a_row_names_modules_that_have_rows() -> None:
    for module, allowed in TABLE.items():
        assert (allowed or set()) <= set(TABLE), module


def test_the_table_has_no_circle() -> None:
    """Imports run one way: leaf by leaf, all rows can be taken away."""
    left = {module: set(allowed) for module, allowed in TABLE.items() if allowed is not None}
    while left:
        leaves = [module for module, allowed in left.items() if not allowed & set(left)]
        assert leaves, f"a circle among {sorted(left)}"
        for leaf in leaves:
            del left[leaf]


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_module_imports_what_its_row_allows(file: Path) -> None:
    module = module_of(file)
    if module in ENTRANCES:
        return
    assert module in TABLE, f"{module} has no row in docs/architecture.md"
    allowed = TABLE[module]
    if allowed is None:
        return
    # Its version is the only thing that a module may want from the package itself.
    own = own_imports(file) - {module}
    if "__init__" in own:
        from_package = {n for n, _ in imports(file) if re.fullmatch(r"attnscope(\.\w+)?", n)}
        assert {n for n in from_package if n.split(".")[-1] not in TABLE} <= {
            "attnscope.__version__"
        }
        own.discard("__init__")
    assert own <= allowed, f"{module} imports {sorted(own - allowed)}"


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_a_library_has_its_place(file: Path) -> None:
    module = module_of(file)
    places = {
        "matplotlib": {"figures", "pictures", "report"},
        "captum": {"attribution"},
        "streamlit": {"serve", "cli"},
    }
    for library, allowed in places.items():
        assert library not in packages(file) or module in allowed, f"{module} imports {library}"
    without_torch = {
        *("errors", "files", "gate_info", "recipes", "shards", "recording"),
        *("moments", "statistics"),
        *("figures", "pictures", "report", "serve"),
    }
    if module in without_torch:
        assert not packages(file) & {"torch", "torchvision"}, f"{module} imports torch"
    if module in {"statistics"}:
        assert "matplotlib" not in packages(file)


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_what_is_imported_late(file: Path) -> None:
    """The commands and the package itself start quickly: nothing heavy before it is needed."""
    if module_of(file) not in {"cli", *ENTRANCES}:
        return
    early = {name.split(".")[0] for name, early in imports(file) if early}
    heavy = {"torch", "torchvision", "captum", "matplotlib", "pandas", "scipy", "sklearn"}
    assert not early & heavy
    own = {name for name, at_once in imports(file) if at_once and name.startswith("attnscope.")}
    light = {"errors", "recipes", "cli", "files", "gate_info", "serve", "__version__"}
    if module_of(file) != "__init__" or "TYPE_CHECKING" not in file.read_text(encoding="utf-8"):
        assert {name.split(".")[1] for name in own} <= light


SOURCES = FILES + [
    file
    for folder in ("streamlit_app", "analysis")
    for file in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("file", SOURCES, ids=[str(f.relative_to(ROOT)) for f in SOURCES])
def test_nothing_is_unpickled_and_nothing_is_evaluated(file: Path) -> None:
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


@pytest.mark.parametrize("folder", ["streamlit_app", "analysis"])
def test_studies_and_the_dashboard_leave_each_other_alone(folder: str) -> None:
    other = {"streamlit_app": "analysis", "analysis": "streamlit_app"}[folder]
    for file in sorted((ROOT / folder).rglob("*.py")):
        assert other not in packages(file), file


def test_a_recording_is_looked_at_without_torch() -> None:
    """In one process for all, since each import takes seconds."""
    modules = ["recording", "statistics"]
    modules += [name for name in ("figures", "report") if (PACKAGE / f"{name}.py").is_file()]
    script = "import sys, attnscope\n"
    for module in modules:
        script += f"import attnscope.{module}\n"
        script += f"assert 'torch' not in sys.modules, '{module} loads torch'\n"
        if module in ("recording", "statistics"):
            script += f"assert 'matplotlib' not in sys.modules, '{module} loads matplotlib'\n"
    script += "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot keeps a global state'\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
