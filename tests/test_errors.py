"""The codes of errors, their places in the source, and what their messages name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnscope.commands.main import RENAMED_OPTIONS, find_commands
from attnscope.commands.parsing import options_of
from attnscope.errors import ERRORS, InputError, first_line

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("src/attnscope", "streamlit_app", "analysis")
SUBJECTS = {
    "analyzing.py": "15689",  # it leaves out what interventions refuse
    "attribution": "4",
    "capturing": "6",
    "commands": "9",
    "comparison.py": "9",
    "dashboard": "156789",  # its server, jobs, lists of runs, t-SNE and removed channels
    "data": "26",  # items of data sets that are captured are a subject of AS6
    "files.py": "1",
    "integrity.py": "1",
    "hashes.py": "16",  # files of recordings are checked by it, too
    "folding": "8",
    "gate_history.py": "5",
    "gates": "4",
    "interventions": "8",
    "live": "468",  # it refuses what captures and interventions refuse
    "monitoring.py": "5",
    "networks": "36",  # what an output lacks for a capture is a subject of AS6
    "plots": "9",
    "recording": "68",  # a network that is to run again is a subject of AS8
    "registry.py": "1",
    "report": "19",  # the path of its file is a subject of AS1
    "runs.py": "5",
    "verifying.py": "56",
    "settings.py": "1",
    "run_config.py": "5",
    "sources.py": "5",
    "statistics": "7",
    "training": "15",  # its devices are a subject of AS1
    "streamlit_app": "9",
    "analysis": "189",  # studies refuse what the commands refuse
    "writing.py": "1",
}
"""Folder or module -> first digits of the codes that it raises."""
NOT_OURS = {"--nproc-per-node", "--standalone"}
"""Options of torchrun, which messages and help texts mention."""


def trees() -> Iterator[tuple[str, ast.Module]]:
    """The modules that raise errors: name of the folder or module, and its syntax tree."""
    for source in SOURCES:
        for file in sorted((ROOT / source).rglob("*.py")):
            name = file.relative_to(ROOT / source).parts[0]
            if name != "errors.py":
                tree = ast.parse(file.read_text(encoding="utf-8"))
                yield (name if source == "src/attnscope" else source), tree


def texts(node: ast.AST) -> Iterator[str]:
    """String constants below a node, those of f-strings too, without docstrings."""
    docstrings = {id(n.value) for n in ast.walk(node) if isinstance(n, ast.Expr)}
    for each in ast.walk(node):
        text = each.value if isinstance(each, ast.Constant) else None
        if isinstance(text, str) and id(each) not in docstrings:
            yield text


def raised() -> Iterator[tuple[str, str]]:
    """Code of each place that raises one, and its folder or module."""
    for name, tree in trees():
        for text in texts(tree):
            if re.fullmatch(r"AS\d{3}", text):
                yield text, name


def errors() -> Iterator[ast.Call]:
    """Every call of `InputError` or one of its subclasses."""
    for _, tree in trees():
        for node in ast.walk(tree):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if named and node.func.id in ("InputError", "Unavailable"):
                yield node


def test_every_code_that_is_raised_is_described_and_every_described_code_is_raised() -> None:
    assert {code for code, _ in raised()} == set(ERRORS)


def test_codes_are_sorted_and_each_is_one_sentence() -> None:
    assert list(ERRORS) == sorted(ERRORS)
    for code, sentence in ERRORS.items():
        assert re.fullmatch(r"AS[1-9]\d\d", code)
        assert re.fullmatch(r"[A-Z][^\n]*\.", sentence), code
    assert len(set(ERRORS.values())) == len(ERRORS)


def test_the_first_digit_of_a_code_names_its_subject() -> None:
    for code, name in raised():
        assert code[2] in SUBJECTS[name], f"{name} raises {code}"


def test_the_table_of_subjects_is_that_of_the_source() -> None:
    source = (ROOT / "src/attnscope/errors.py").read_text(encoding="utf-8")
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    subjects = re.findall(r"^ +# (AS\d): (.*)\.$", source, re.M)
    assert re.findall(r"^\| (AS\d) \| (.*) \|$", page, re.M) == subjects
    assert [code for code, _ in subjects] == sorted({code[:3] for code in ERRORS})


def test_every_error_has_a_code_and_a_message_of_one_line() -> None:
    found = list(errors())
    assert len(found) > 250
    for call in found:
        assert len(call.args) == 2, ast.unparse(call)
        code, message = call.args
        literal = isinstance(code, ast.Constant)
        assert not literal or code.value in ERRORS, ast.unparse(call)
        for text in texts(message):
            assert "\n" not in text, ast.unparse(call)
        if isinstance(message, ast.Constant | ast.JoinedStr):
            assert "".join(texts(message)), ast.unparse(call)
            assert not [*texts(message)][-1].endswith("."), "the code follows the message"


def test_messages_name_only_options_and_commands_that_exist() -> None:
    """Those of help texts and notes, too: every string of the package that is no docstring."""
    commands = dict(find_commands())
    options = {
        flag
        for command in commands.values()
        if isinstance(command, type)
        for option in options_of(command)
        for flag in option.flags
    }
    known = {*options, *NOT_OURS, "--help", "--version", "--plugin", "--no"}
    for folder, tree in trees():
        for text in texts(tree) if folder != "analysis" else ():
            named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]", text))
            if text not in RENAMED_OPTIONS:
                assert named <= known, text
            for name in re.findall(r"\battnscope ([a-z]+) (?:RUN|FOLDER|--)", text):
                assert name in commands, text


def test_an_error_reads_as_its_message_and_code() -> None:
    error = InputError("AS113", "runs/x already exists; choose another folder")
    assert str(error) == "runs/x already exists; choose another folder [AS113]"
    assert (error.code, error.message) == error.args
    assert first_line(error) == "runs/x already exists; choose another folder"
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_an_error_needs_a_code_that_is_described() -> None:
    with pytest.raises(LookupError):
        InputError("AS999", "nothing")


PAGES = sorted((ROOT / "docs" / "errors").glob("AS*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_of_an_error_shows_its_message_and_a_remedy(page: Path) -> None:
    """Its title is the sentence of the code, and its commands have options that exist."""
    text = page.read_text(encoding="utf-8")
    title, *rest = text.splitlines()
    assert title == f"# {page.stem}: {ERRORS[page.stem].removesuffix('.')}"
    headings = [line for line in rest if line.startswith("## ")]
    assert [h for h in headings if h != "## Why"] == ["## Example", "## What to do"]
    assert f"[{page.stem}]" in text.partition("## What to do")[0]
    commands = dict(find_commands())
    shell = "".join(
        block for _, block in re.findall(r"^( *)```sh\n(.*?)^\1```$", text, re.M | re.S)
    )
    for name, options in re.findall(r"\battnscope ([a-z]+)( .*)?$", shell, re.M):
        command = commands[name]
        assert isinstance(command, type)
        known = {option.flag for option in options_of(command)} | {"--help", "--plugin"}
        assert set(re.findall(r" (--[a-z-]+)", options)) <= known, f"attnscope {name}{options}"
