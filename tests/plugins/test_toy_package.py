"""A plugin package extends attnscope, its commands and the dashboard."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

TOY = Path(__file__).parent / "toy"
APP = Path(__file__).parents[2] / "streamlit_app" / "app.py"
SOURCE = Path(__file__).parents[2] / "src"
METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: toy-attnscope\nVersion: 1.0\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "entry_points.txt": "[attnscope.plugins]\ntoy = toy_attnscope\n",
}
DASHBOARD = """
import json, sys
from streamlit.testing.v1 import AppTest
app = AppTest.from_file(sys.argv[2], default_timeout=120)
sys.argv = [sys.argv[2], sys.argv[3]]
app.run()
app.switch_page("views/figures.py").run()
assert not app.exception, app.exception
(chosen,) = [box for box in app.selectbox if "Row gates of the toy" in box.options]
chosen.select("Row gates of the toy").run()
assert not app.exception, app.exception
print(json.dumps([text.value for text in app.text]))
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the toy package."""
    folder = tmp_path_factory.mktemp("plugin")
    wheel = folder / "toy_attnscope-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted((TOY / "toy_attnscope").glob("*.py")):
            archive.write(file, file.relative_to(TOY))
        for name, text in METADATA.items():
            archive.writestr(f"toy_attnscope-1.0.dist-info/{name}", text)
        archive.writestr("toy_attnscope-1.0.dist-info/RECORD", "")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*command, "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def run(site: Path | None, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = [SOURCE, *([site] if site else []), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, paths)))}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def attnscope(site: Path | None, *arguments: object, cwd: Path) -> str:
    done = run(site, "-m", "attnscope", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def recorded(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording of the toy network on the toy images, its figures and report."""
    folder = tmp_path_factory.mktemp("recorded")
    network = ["--model", "toy_attnscope.networks:network", "--data", "halves"]
    attnscope(site, "capture", *network, "--out", "runs/toy", "--device", "cpu", cwd=folder)
    attnscope(site, "figures", "runs/toy", cwd=folder)
    attnscope(site, "report", "runs/toy", "--out", "page.html", cwd=folder)
    return folder


def test_its_data_source_operation_and_kind_are_recorded(recorded: Path) -> None:
    manifest = json.loads((recorded / "runs/toy/manifest.json").read_text())
    gates = [(gate["kind"], gate["activation"], gate["axes"]) for gate in manifest["gates"]]
    assert gates == [("row", "special_ndtr", "NH"), ("channel", "sigmoid", "NC")]
    assert manifest["classes"] == ["upper", "lower"]
    assert manifest["count"] == 12


def test_its_plot_is_in_the_figures_and_in_the_report(recorded: Path) -> None:
    for name in ("row_gates.png", "row_gates.pdf", "gate_state.png"):
        assert (recorded / "runs/toy/figures" / name).stat().st_size > 0
    page = (recorded / "page.html").read_text(encoding="utf-8")
    assert "Row gates of the toy" in page
    assert "the rows differ by at most" in page


def test_its_plot_is_in_the_dashboard(site: Path, recorded: Path) -> None:
    done = run(site, "-c", DASHBOARD, "-", APP, recorded / "runs", cwd=APP.parent)
    assert done.returncode == 0, done.stderr
    assert any("the rows differ by at most" in text for text in json.loads(done.stdout))


def test_its_statistic_is_found_by_name(site: Path, recorded: Path) -> None:
    script = (
        "from attnscope import Recording; from attnscope.statistics import STATISTICS\n"
        "recording = Recording('runs/toy'); name = recording.gates[0].name\n"
        "frame = STATISTICS.find('row_means').function(recording, name)\n"
        "print(abs(frame['mean'] - recording.gate(name).mean(0)).max() < 1e-6, len(frame))\n"
    )
    done = run(site, "-c", script, cwd=recorded)
    assert done.stdout.split() == ["True", "16"], done.stderr


def test_the_commands_accept_its_kind(site: Path, recorded: Path) -> None:
    network = ["--model", "toy_attnscope.networks:network", "--data", "halves"]
    attnscope(site, "capture", *network, "--moments", "--out", "moments", cwd=recorded)
    assert "12 images, 2 gates, " in attnscope(site, "verify", "moments", cwd=recorded)
    attnscope(
        site, "intervene", "runs/toy", "--images", "6", "--experiments", "replace", cwd=recorded
    )
    effects = pd.read_csv(recorded / "runs/toy-interventions/effects.csv", keep_default_na=False)
    assert set(effects["target"]) == {"rows", "channels", "all"}


def test_without_the_package_its_recording_is_refused(recorded: Path) -> None:
    done = run(None, "-m", "attnscope", "figures", "runs/toy", cwd=recorded)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "'row'" in line
    assert "--plugin" in line
    assert line.endswith("[AS605]")


def test_plugin_option_imports_an_undeclared_module(site: Path, recorded: Path) -> None:
    """The same package on the Python path, without its metadata."""
    bare = recorded / "bare"
    bare.mkdir()
    (bare / "toy_attnscope").symlink_to(site / "toy_attnscope")
    arguments = ["report", "runs/toy", "--out", "by-hand.html"]
    done = run(bare, "-m", "attnscope", *arguments, cwd=recorded)
    assert done.returncode == 2
    attnscope(bare, *arguments, "--plugin", "toy_attnscope", cwd=recorded)
    assert "Row gates of the toy" in (recorded / "by-hand.html").read_text(encoding="utf-8")
    done = run(bare, "-m", "attnscope", *arguments, "--plugin", "toy_attnscop", cwd=recorded)
    assert done.returncode == 2
    assert "toy_attnscop" in done.stderr
    assert "Traceback" not in done.stderr
