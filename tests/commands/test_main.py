"""The program: its commands, plugins in every command, and what starting it costs."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import attnscope
from attnscope import registry
from attnscope.commands import main as main_module
from attnscope.commands import options
from attnscope.commands.main import RENAMED_OPTIONS, find_commands, main, split_plugins
from attnscope.commands.parsing import options_of
from attnscope.training.config import TrainConfig
from tests.making import refused, refused_command

FOLDER = Path(__file__).parents[2] / "src" / "attnscope" / "commands"
COMMANDS = dict(find_commands())


def run_program(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "attnscope", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_loaded_by_hand", [])
    yield
    for name in [n for n in sys.modules if n.startswith("toy_plugin")]:
        del sys.modules[name]


def test_every_file_is_a_command_and_the_program_lists_them() -> None:
    files = {file.stem for file in FOLDER.glob("*.py")}
    assert {"demo", "train", "capture", "dashboard", "verify"} <= set(COMMANDS)
    assert set(COMMANDS) <= {name.replace("_", "-") for name in files}
    assert not {"main", "options"} & set(COMMANDS)
    done = run_program("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == ["attnscope", attnscope.__version__]


@pytest.mark.parametrize(
    ("code", "arguments", "names"),
    [
        ("AS950", ["trian"], ("trian", "train")),
        ("AS950", ["zzz"], ("zzz", "attnscope --help")),
        ("AS951", ["--verison"], ("--verison", "--version")),
        ("AS951", ["train", "--epoch", "3"], ("--epoch", "--epochs")),
        ("AS952", ["capture", "run", "--split"], ("--split", "train, validation, test")),
        ("AS952", ["figures", "run", "--plugin"], ("--plugin",)),
        ("AS953", ["train", "--placement", "top"], ("--placement", "top", "block, stage")),
        ("AS953", ["capture", "run", "--split", "all"], ("all", "train, validation, test")),
        ("AS953", ["capture", "run", "--precision", "fp16"], ("fp16", "fp32, bf16")),
        ("AS953", ["fold", "run", "--out", "x", "--spatial", "maps"], ("maps", "map, number")),
        ("AS954", ["train", "--epochs", "many"], ("--epochs", "many")),
        ("AS955", [], ("attnscope --help",)),
        ("AS955", ["fold", "run"], ("--out", "attnscope fold RUN")),
        ("AS956", ["figures", "a", "b"], ("b", "attnscope figures RUN")),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line_with_a_code(
    code: str,
    arguments: list[str],
    names: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused_command(capsys, code, *arguments, names=names)


@pytest.mark.parametrize("old", RENAMED_OPTIONS)
def test_a_renamed_option_works_under_its_old_name_and_warns(
    old: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(
        "attnscope.commands.capture.Capture.__call__", lambda self: made.append(self)
    )
    new, value = RENAMED_OPTIONS[old], "train" if old == "--part" else "x"
    assert main(["capture", "run", new, value]) == 0
    assert capsys.readouterr().err == ""
    for given in ([old, value], [f"{old}={value}"], ["--" + old[2:].replace("-", "_"), value]):
        assert main(["capture", "run", *given]) == 0
        (warning,) = capsys.readouterr().err.splitlines()
        assert old in warning
        assert new in warning
        assert made[-1] == made[0]


def test_renamed_options_are_gone_from_the_commands() -> None:
    flags = {option.flag for command in COMMANDS.values() for option in options_of(command)}
    assert not flags & set(RENAMED_OPTIONS)
    assert set(RENAMED_OPTIONS.values()) <= flags


@pytest.mark.parametrize(
    ("arguments", "plugins", "rest"),
    [
        (["train"], [], ["train"]),
        (["train", "--plugin", "a", "--seed", "1"], ["a"], ["train", "--seed", "1"]),
        (["--plugin=a", "train", "--plugin=b.c"], ["a", "b.c"], ["train"]),
        (["train", "--plugins", "a"], [], ["train", "--plugins", "a"]),
    ],
)
def test_plugin_options_are_found_anywhere_on_the_command_line(
    arguments: list[str], plugins: list[str], rest: list[str]
) -> None:
    assert split_plugins(arguments) == (plugins, rest)


@pytest.mark.parametrize("arguments", [["--plugin"], ["--plugin", "--seed"], ["--plugin="]])
def test_a_plugin_needs_a_name(arguments: list[str]) -> None:
    with refused("AS952", names=("--plugin",)):
        split_plugins(arguments)


@pytest.mark.parametrize("name", ["train", "verify", "figures"])
def test_a_plugin_that_cannot_be_imported_is_one_line(
    name: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "toy_plugin_broken.py").write_text("raise RuntimeError('broken\\non two lines')")
    monkeypatch.chdir(tmp_path)
    for module in ("no_such_plugin", "toy_plugin_broken"):
        assert main([name, "--plugin", module, "run"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("attnscope: ")
        assert module in line
        assert line.endswith("[AS125]")


def test_what_a_plugin_registers_is_known_to_the_command_and_its_child_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_plugin.py").write_text(
        "from dataclasses import replace\n"
        "from attnscope.training import RECIPES, register_recipe\n"
        "register_recipe(replace(RECIPES['cnn'], name='toy', epochs=1, batch_size=512))\n"
    )
    arguments = ["train", "--recipe", "toy", "--device", "cpu", "--out", "run"]
    done = run_program(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "--plugin MODULE" in done.stderr
    done = run_program(*arguments, "--plugin", "toy_plugin", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
    monkeypatch.chdir(tmp_path)
    registry.load_plugin("json")
    registry.load_plugin("json")
    assert options.plugin_options() == ["--plugin=json"]


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--version"], ["attnscope.commands.train", "attnscope.training.config"]),
        (["--help"], []),
        (["trian"], []),
        (["verify", "--hepl"], ["attnscope.commands.train", "attnscope.training.config"]),
        (["train", "--help"], ["attnscope.commands.demo"]),
        (["train", "--epoch", "3"], ["attnscope.commands.demo"]),
    ],
    ids=" ".join,
)
def test_the_program_answers_without_slow_imports(arguments: list[str], absent: list[str]) -> None:
    """Numbers and names of imports, since times depend on what else the machine does."""
    slow = {"torch", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "streamlit", "captum"}
    slow |= {"tomllib"}
    script = (
        "import sys\nfrom attnscope.commands.main import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit:\n    pass\n"
        "sys.stderr = sys.__stderr__\nprint('modules', *sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(done.stderr.rpartition("modules ")[2].split())
    assert "attnscope.commands.main" in loaded
    assert len(loaded) < 300
    assert not loaded & (slow | set(absent))


def test_interrupted_demo_writes_nothing_and_does_not_advise_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(config: TrainConfig) -> Path:
        assert config.out is not None
        config.out.mkdir()
        raise KeyboardInterrupt("continue with the same command and --resume")

    monkeypatch.setattr("attnscope.training.run.train_run", interrupted)
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert str(out) in line
    assert "--resume" not in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "library/r"), 2),
        (FileExistsError(errno.EEXIST, "File exists", "library/r"), 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "library/r"), 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "library/r"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "library/r"), 2),
        (OSError(errno.ENOSPC, "No space left on device", "library/r"), 1),
        (OSError(errno.EIO, "Input/output error", "library/r"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_path_that_cannot_be_used_is_one_line(
    error: OSError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(main_module, "_run", fail)
    assert main(["verify", "x"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert "library/r" in line
    assert str(error.strerror) in line
