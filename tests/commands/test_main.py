"""The program: its commands, plugins in every command, and what starting it costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnscope import registry
from attnscope.commands import options
from attnscope.commands.main import find_commands, main, split_plugins
from attnscope.errors import InputError

FOLDER = Path(__file__).parents[2] / "src" / "attnscope" / "commands"
COMMANDS = dict(find_commands())


def attnscope(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
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
    done = attnscope("--help")
    assert done.returncode == 0
    assert all(f" {name} " in done.stdout for name in COMMANDS)


def test_a_command_is_one_new_file(tmp_path: Path) -> None:
    """A file beside the others, found because its folder is on the package's path."""
    (tmp_path / "say_hello.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass SayHello:\n    'Say hello.'\n    to: str = 'you'\n"
        "    def __call__(self):\n        print('hello', self.to)\n"
    )
    script = (
        "import sys\nfrom attnscope import commands\nfrom attnscope.commands.main import main\n"
        f"commands.__path__.append({str(tmp_path)!r})\nsys.exit(main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", script, "say-hello", "--to", "me"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "hello me\n", done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_the_plugin_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert "--plugin MODULE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "plugins", "rest"),
    [
        (["train"], [], ["train"]),
        (["train", "--plugin", "a", "--seed", "1"], ["a"], ["train", "--seed", "1"]),
        (["--plugin=a", "train", "--plugin=b.c"], ["a", "b.c"], ["train"]),
        (["train", "--plugins", "a"], [], ["train", "--plugins", "a"]),
    ],
)
def test_plugins_are_taken_from_wherever_they_stand(
    arguments: list[str], plugins: list[str], rest: list[str]
) -> None:
    assert split_plugins(arguments) == (plugins, rest)


@pytest.mark.parametrize("arguments", [["--plugin"], ["--plugin", "--seed"], ["--plugin="]])
def test_a_plugin_needs_a_name(arguments: list[str]) -> None:
    with pytest.raises(InputError, match="--plugin has no value"):
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
        assert line.startswith(f"attnscope: the plugin '{module}' cannot be imported")


def test_what_a_plugin_registers_is_known_to_the_command_and_to_those_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy_plugin.py").write_text(
        "from dataclasses import replace\n"
        "from attnscope.training import RECIPES, register_recipe\n"
        "register_recipe(replace(RECIPES['cnn'], name='toy', epochs=1, batch_size=512))\n"
    )
    arguments = ["train", "--recipe", "toy", "--device", "cpu", "--out", "run"]
    done = attnscope(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert "--plugin MODULE" in done.stderr
    done = attnscope(*arguments, "--plugin", "toy_plugin", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()
    monkeypatch.chdir(tmp_path)
    registry.load_plugin("json")
    registry.load_plugin("json")
    assert options.plugin_options() == ["--plugin=json"]


def test_the_program_starts_without_what_is_slow() -> None:
    heavy = "{'torch', 'matplotlib', 'pandas', 'scipy', 'sklearn', 'streamlit', 'captum'}"
    script = (
        "import sys\nfrom attnscope.commands.main import find_commands\n"
        f"assert len(list(find_commands())) > 9\nprint({heavy} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
