"""The scripts of analysis/, run on synthetic recordings."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attnscope.commands.main import main
from attnscope.comparison import Comparison
from attnscope.files import read_json, write_sealed
from attnscope.recording.outcomes import find_outcomes
from attnscope.recording.recording import Recording
from attnscope.statistics import (
    between_class_variance,
    channel_effects,
    class_distances,
    compare_gates,
    compare_seeds,
    permuted_channel_effects,
    usage_over_seeds,
)

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


def test_decodable_vs_used(
    make_recording: Callable[..., Recording],
    add_interventions: Callable[[Recording], Path],
    tmp_path: Path,
) -> None:
    """Two kinds of network with two seeds each, which have interventions."""
    runs = []
    for kind in ("se", "cbam"):
        for seed in (1, 0):  # not in order: runs are ordered by seed
            recording = make_recording(f"{kind}-{seed}", seed=seed, spatial=kind == "cbam")
            manifest = recording.folder / "manifest.json"
            about = read_json(manifest)
            about["about"] |= {"model": {"attention": kind}, "seed": seed}
            about["id"] = f"{kind}-{seed}"
            write_sealed(manifest, about)
            recording = Recording(recording.folder)
            add_interventions(recording)
            runs.append(recording.folder.parents[1])
    out = tmp_path / "out"
    done = run("decodable_vs_used.py", *runs, "--out", out)
    assert done.returncode == 0, done.stderr
    seeds = [[Recording(runs[i]) for i in pair] for pair in ((1, 0), (3, 2))]
    written = pd.read_csv(out / "se-cbam.csv")
    pd.testing.assert_frame_equal(written, compare_seeds(*seeds), check_dtype=False)
    assert (out / "cbam-0-decodable_and_used.png").is_file()
    assert (out / "se-1-static_gates.pdf").is_file()
    over_seeds = pd.read_csv(out / "cbam-usage_over_seeds.csv")
    each = [pd.read_csv(out / f"cbam-{seed}-usage.csv") for seed in (0, 1)]
    made = [find_outcomes(recording).replacement for recording in seeds[1]]
    wanted = usage_over_seeds(each, outcomes=made)
    pd.testing.assert_frame_equal(over_seeds, wanted, check_dtype=False)
    assert (out / "cbam-usage_over_seeds.png").is_file()
    for figure in ("cbam-usage_over_seeds", "se-usage_over_seeds", "se-cbam"):
        assert f"{figure}: " in done.stdout
    page = (out / "report.html").read_text(encoding="utf-8")
    order = ['id="seeds-1"', 'id="kinds-1"', 'id="run-1"']
    places = [page.index(heading) for heading in order]
    assert places == sorted(places)
    done = run("decodable_vs_used.py", *runs[:3], "--out", tmp_path / "other")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1)
    assert "AS731" in done.stderr
    assert not (tmp_path / "other").exists()


def test_measures(make_recording: Callable[..., Recording], tmp_path: Path) -> None:
    recordings = [
        make_recording("a", count=60),
        make_recording("b", spatial=False, count=60, seed=1),
    ]
    done = run(
        "measures.py",
        *(recording.folder for recording in recordings),
        *("--out", tmp_path / "out", "--permutations", "9"),
    )
    expect_refused(done, "AS941", names=("test",))
    folders = [recording.folder.parents[1] for recording in recordings]
    arguments = [*folders, "--out", tmp_path / "out", "--permutations", "9"]
    done = run("measures.py", *arguments)
    assert done.returncode == 0, done.stderr
    a, b = map(Recording, folders)
    for name, recording in (("a", a), ("b", b)):
        written = pd.read_csv(tmp_path / "out" / f"{name}-variance.csv")
        pd.testing.assert_frame_equal(
            written, between_class_variance(recording, 9), check_dtype=False, rtol=1e-5
        )
        channels = pd.read_csv(tmp_path / "out" / f"{name}-channels.csv")
        summary = pd.read_csv(tmp_path / "out" / f"{name}-channels_summary.csv")
        gates = recording.gates_of_kind("channel")
        assert list(summary["gate"]) == [gate.name for gate in gates]
        mine = channels[channels["gate"] == gates[0].name]
        effects = permuted_channel_effects(recording, gates[0].name, 9)
        np.testing.assert_allclose(mine["eta_squared"], effects["eta_squared"], rtol=1e-5)
        np.testing.assert_allclose(mine["p_effect"], effects["p"])
        plain = channel_effects(recording, gates[0].name)
        np.testing.assert_allclose(mine["f"], plain["f"], rtol=1e-5)
        np.testing.assert_allclose(mine["omega_squared"], plain["omega_squared"], rtol=1e-5)
        distances = pd.read_csv(tmp_path / "out" / f"{name}-class_distances.csv")
        first = distances[distances["gate"] == gates[0].name]
        wide = first.pivot_table(index="class", columns="other", values="distance", sort=False)
        wanted = class_distances(recording, gates[0].name)
        np.testing.assert_allclose(wide, wanted, rtol=1e-5, atol=1e-12)
        for table in ("profiles", "gate_profiles", "channel_states", "states", "errors"):
            assert (tmp_path / "out" / f"{name}-{table}.csv").is_file()
        assert summary["differs"][0] == (effects["p_max"] < 0.05).sum()
        assert summary["largest_eta_squared"][0] == pytest.approx(mine["eta_squared"].max())
    assert (tmp_path / "out" / "a-agreement.csv").is_file()
    assert not (tmp_path / "out" / "b-agreement.csv").exists()
    alike = pd.read_csv(tmp_path / "out" / "pairs_gates.csv")
    wanted = compare_gates(a, b)
    np.testing.assert_allclose(alike["similarity"], wanted["similarity"], rtol=1e-5)
    expect_refused(run("measures.py", *arguments), names=(tmp_path / "out",))


@pytest.mark.parametrize("script", ["measures.py", "decodable_vs_used.py"])
def test_a_script_refuses_an_empty_list_of_runs(script: str, tmp_path: Path) -> None:
    expect_refused(run(script, "--out", tmp_path / "out"), "AS940")


def test_decodable_vs_used_refuses_interventions_on_another_recording(
    make_recording: Callable[..., Recording],
    add_interventions: Callable[[Recording], Path],
    tmp_path: Path,
) -> None:
    recording = make_recording("se", spatial=False)
    folder = add_interventions(recording)
    manifest = recording.folder / "manifest.json"
    about = read_json(manifest)
    about["id"] = "another"
    write_sealed(manifest, about)
    run_folder = recording.folder.parents[1]
    done = run("decodable_vs_used.py", run_folder, "--out", tmp_path / "out")
    expect_refused(done, "AS942", names=(folder, recording.folder), warnings=1)


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
