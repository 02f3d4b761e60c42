"""The scripts of analysis/, run on synthetic recordings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from attnscope.commands.main import main
from attnscope.comparison import Comparison
from attnscope.recording.recording import Recording

ANALYSIS = Path(__file__).parents[2] / "analysis"


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ANALYSIS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def expect_refused(
    done: subprocess.CompletedProcess[str],
    code: str = "",
    names: tuple[object, ...] = (),
    warnings: int = 0,
) -> None:
    """Check that a script exits with 2 and prints one line, with the code and the names."""
    *warned, line = done.stderr.strip().splitlines()
    assert len(warned) == warnings
    assert done.returncode == 2
    assert line.endswith(f"[{code}]" if code else "")
    for name in names:
        assert str(name) in line


def test_the_cost_of_a_monitor_is_printed() -> None:
    done = run("monitor_cost.py", "--tiny", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "resnet18-se" in done.stdout
    assert done.stdout.count("%") == 4


def test_the_cost_of_watching_is_printed_for_two_checkouts() -> None:
    given = ["--networks", "resnet18-cbam", "--images", "1", "--pixels", "32"]
    done = run(
        "watch_cost.py", "--before", ANALYSIS.parent, *given, "--rounds", "1", "--seconds", "0.1"
    )
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == ["resnet18-cbam", "1"]
    for cell in cells[2:]:
        low, high = map(float, cell.partition("(")[2].rstrip(")").split(" to "))
        assert 0 < low <= float(cell.split()[0]) <= high


def test_attention_figures_of_every_run(
    make_recording: Callable[..., Recording], tmp_path: Path
) -> None:
    make_recording("a")
    make_recording("b", spatial=False)
    done = run("attention_figures.py", tmp_path, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for name in ("a", "b"):
        assert (tmp_path / "out" / name / "recordings" / "test" / "channel_gates.png").is_file()
    missing = tmp_path / "nothing"
    expect_refused(run("attention_figures.py", missing), names=(missing,))


def test_attention_figures_refuses_a_recording_with_changed_bytes(
    make_recording: Callable[..., Recording], tmp_path: Path
) -> None:
    recording = make_recording("a")
    shard = sorted((recording.folder / "shards").iterdir())[1]
    content = bytearray((shard / "arrays.safetensors").read_bytes())
    content[-1] ^= 1
    (shard / "arrays.safetensors").write_bytes(content)
    done = run("attention_figures.py", tmp_path, "--out", tmp_path / "out")
    expect_refused(done, names=(shard.name,))
    assert not (tmp_path / "out").exists()


def test_se_vs_cbam(make_recording: Callable[..., Recording], tmp_path: Path) -> None:
    a = make_recording("se", spatial=False, accuracy=0.9, count=90)
    b = make_recording("cbam", accuracy=0.3, seed=1, count=90)
    out = tmp_path / "out"
    done = run("se_vs_cbam.py", a.folder, b.folder, "--out", out)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(out / "accuracy.csv")
    pd.testing.assert_frame_equal(written, Comparison(a, b).accuracy, check_dtype=False)
    assert (out / "report.html").is_file()
    assert (out / "per_class_grad_cam.pdf").is_file()
    done = run("se_vs_cbam.py", a.folder, b.folder, "--out", out)
    expect_refused(done, "AS113", names=(out,))


def test_features_svm_classifies_digits_and_refuses_missing_weights(tmp_path: Path) -> None:
    options = ["--data", "digits", "--attention", "none", "--width", "16", "--epochs", "2"]
    options += ["--device", "cpu", "--batch-size", "64", "--out", str(tmp_path / "run")]
    assert main(["train", *options]) == 0
    done = run("features_svm.py", "digits", "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    *tried, last = done.stdout.splitlines()
    assert len(tried) == 4  # one for each penalty
    accuracy = float(last.split("accuracy ")[1].split("%")[0])
    assert accuracy > 80, last
    best = max(tried, key=lambda line: float(line.split("accuracy ")[1].rstrip("%")))
    assert last.split("C = ")[1] == best.split("C = ")[1].split(":")[0]
    missing = tmp_path / "none.pth"
    expect_refused(run("features_svm.py", "digits", "--weights", missing), names=(missing,))


def test_pictures_of_the_architecture_are_drawn_from_the_code(tmp_path: Path) -> None:
    run("architecture_pictures.py", "--out", tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"modules.png", "batch.png"}


def test_digests_compare_names_those_that_differ(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    before.write_text('{"arrays/a": "1", "arrays/b": "2", "weights/c": "3"}')
    after.write_text('{"arrays/a": "1", "arrays/b": "4", "weights/d": "3"}')
    command = [sys.executable, str(ANALYSIS / "digests.py"), "compare"]
    same = subprocess.run([*command, before, before], capture_output=True, text=True)
    assert same.returncode == 0
    other = subprocess.run([*command, before, after], capture_output=True, text=True)
    assert other.returncode == 1
    named = [line.split()[0] for line in other.stdout.splitlines() if line.startswith("  ")]
    assert named == ["arrays/b", "weights/c", "weights/d"]


def test_median_interval_has_the_ends_of_order_statistics() -> None:
    """For nine values they are the second and the eighth: 502 of 512 orders, 96.1%, by hand."""
    script = (
        f"import sys; sys.path.insert(0, {str(ANALYSIS)!r}); import numpy as np\n"
        "from before_after import median_interval\n"
        "values = np.array([9.0, 1, 8, 2, 7, 3, 6, 4, 5])\n"
        "print(median_interval(values), median_interval(values[:5]), median_interval(values[:6]))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    # Five values cannot reach 95%, so the ends are returned. Six can: 62 of 64 orders.
    assert done.stdout.strip() == "(2.0, 8.0) (1.0, 9.0) (1.0, 9.0)", done.stderr
