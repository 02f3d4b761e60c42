"""The study trains networks, measures them, and keeps the small results."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import study as module
from analysis import study_page
from analysis.study import Study, main, networks
from attnscope.comparison import Comparison
from attnscope.errors import InputError
from attnscope.files import read_json, write_json
from attnscope.plots.tables import flat
from attnscope.plots.usage import joint_of, usage_of
from attnscope.recording.outcomes import find_outcomes, outcomes_folder
from attnscope.recording.recording import Recording
from attnscope.statistics import (
    calibration_summary,
    compare_geometry,
    compare_seeds,
)


def small(**options: object) -> Study:
    given = {"kinds": ("se",), "seeds": (0,), **options}
    return Study(
        "digits", Path("results"), Path("runs"), width=16, epochs=1, images=12, tolerance=5,
        device="cpu",
        **given,  # type: ignore[arg-type]
    )  # fmt: skip


def texts(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def test_all_kinds_are_trained_with_a_seed_before_the_next_one() -> None:
    found = [network.name for network in networks(Study(kinds=("none", "se"), seeds=(3, 1)))]
    assert found == ["none-3", "se-3", "none-1", "se-1"]


def test_an_interrupted_network_goes_on_and_its_small_results_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command, called = module.command, []

    def failing(arguments: list[str]) -> int:
        called.append(arguments[0])
        if arguments[0] == "intervene" and called.count("intervene") == 1:
            return 2
        return command(arguments)

    monkeypatch.setattr(module, "command", failing)
    with pytest.raises(SystemExit):
        main(small())
    assert not Path("results/se-0").exists(), "nothing half-written"
    main(small())
    assert called == ["train", "capture", "capture", "intervene", "intervene", "fold"]
    results = Path("results/se-0")
    facts = read_json(results / "provenance.json")
    stages = ["train", "capture", "untrained", "interventions", "fold", "statistics"]
    assert list(facts["minutes"]) == stages
    assert facts["commands"]["fold"].startswith("attnscope fold ")
    assert {"config.json", "metrics.csv", "result.json", "fold.json"} <= {
        file.name for file in results.iterdir()
    }
    for name in ("config.json", "result.json", "fold.json"):
        assert not [text for text in texts(read_json(results / name)) if Path(text).is_absolute()]
    predictions = pd.read_csv(results / "statistics-predictions.csv")
    accuracy = (predictions["label"] == predictions["predicted"]).mean()
    assert accuracy == pytest.approx(
        read_json(results / "result.json")["test"]["accuracy"], abs=0.01
    )
    usage = pd.read_csv(results / "statistics-usage.csv")
    states = pd.read_csv(results / "statistics-gate_state.csv")
    assert list(usage["gate"]) == list(dict.fromkeys(states["gate"]))
    assert (results / "interventions-effects.csv").is_file()
    assert {"se-0", "se-0-folded"} <= {path.name for path in Path("runs").iterdir()}
    capsys.readouterr()
    main(small())
    assert capsys.readouterr().out == "se-0: done before\n"
    main(small(seeds=(1,), minutes=-1.0))
    assert not Path("results/se-1").exists()
    monkeypatch.setattr(module, "_commit", lambda: "later")
    predictions.to_csv(results / "an-old-table.csv")
    about = outcomes_folder(Recording("runs/se-0").folder) / "about.json"
    made = about.stat().st_ino, about.stat().st_mtime_ns
    main(small(again=True))
    assert called[6:] == ["intervene"]
    assert (about.stat().st_ino, about.stat().st_mtime_ns) != made, "it was made anew"
    again = read_json(results / "provenance.json")
    assert again["commits"] == {
        **facts["commits"],
        "interventions": "later",
        "statistics": "later",
    }
    assert again["minutes"]["train"] == facts["minutes"]["train"]
    assert not (results / "an-old-table.csv").exists()


@pytest.fixture
def compared(
    make_seeds: Callable[..., list[Recording]],
    add_interventions: Callable[[Recording], Path],
    tmp_path: Path,
) -> dict[str, list[Recording]]:
    """Two kinds with two seeds, whose networks are compared in ``results``."""
    recordings = {kind: make_seeds(kind, spatial=False) for kind in ("none", "se")}
    for recording in recordings["se"]:
        add_interventions(recording)
    facts = {"minutes": {"train": 3.2}, "commands": {"interventions": "x --images 12"}}
    for name in (f"{kind}-{seed}" for kind in recordings for seed in (0, 1)):
        (tmp_path / "results" / name).mkdir(parents=True)
        write_json(tmp_path / "results" / name / "provenance.json", facts)
    runs = recordings["se"][0].folder.parents[2]
    module.compare_networks(Study("digits", tmp_path / "results", runs, seeds=(0, 1)))
    return recordings


def test_networks_are_compared_over_seeds(
    compared: dict[str, list[Recording]], tmp_path: Path
) -> None:
    between = tmp_path / "results" / "between"
    written = pd.read_csv(between / "accuracy-none-se.csv")
    wanted = compare_seeds(compared["none"], compared["se"])
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    written = pd.read_csv(between / "accuracy-none-se-1.csv")
    wanted = Comparison(compared["none"][1], compared["se"][1]).accuracy
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    written = pd.read_csv(between / "geometry-se-0-1.csv")
    wanted = compare_geometry(compared["se"][0], compared["se"][1])
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    usage = pd.read_csv(between / "usage-se.csv")
    assert (usage["seeds"] == 2).all()
    assert list(usage["gate"][:-1]) == [gate.name for gate in compared["se"][0].gates]
    assert not list(between.glob("*cbam*"))


def test_networks_are_paired_by_seed_and_a_kind_without_a_run_is_left_out(
    compared: dict[str, list[Recording]], tmp_path: Path
) -> None:
    results = tmp_path / "results"
    runs = compared["se"][0].folder.parents[2]
    shutil.rmtree(results / "between")
    (results / "none-0" / "provenance.json").unlink()  # not measured yet
    module.compare_networks(Study("digits", results, runs, seeds=(0, 1)))
    assert {file.name for file in (results / "between").glob("accuracy*")} == {
        "accuracy-none-se-1.csv"
    }
    written = pd.read_csv(results / "between" / "accuracy-none-se-1.csv")
    wanted = Comparison(compared["none"][1], compared["se"][1]).accuracy
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    shutil.rmtree(results / "between")
    shutil.rmtree(runs / "se-0")
    module.compare_networks(Study("digits", results, runs, seeds=(0, 1)))
    assert not (results / "between").exists()


def write_results(recording: Recording, folder: Path) -> None:
    """Write those result files of a network that the page reads, without training one."""
    outcomes = find_outcomes(recording)
    tables = {
        "predictions": pd.DataFrame(
            {"label": recording.labels, "predicted": recording.predictions}
        ),
        "calibration_summary": calibration_summary(recording),
    }
    if outcomes is not None:
        tables |= {"usage": usage_of(outcomes), "joint": joint_of(outcomes)}
        outcomes.table("decoding").to_csv(folder / "interventions-decoding.csv", index=False)
        fold = {
            "folded": {"a": "norm"}, "dynamic": ["b"], "parameters": [1200, 1000],
            "speed": [[100, 120], [100, 110], [100, 150]],
            "test": {"before": 0.5, "after": 0.4, "loss": 10.0, "low": 9.0, "high": 11.0},
        }  # fmt: skip
        write_json(folder / "fold.json", fold)
    for name, table in tables.items():
        flat(table).to_csv(folder / f"statistics-{name}.csv", index=False)
    result = {"validation": {"accuracy": 0.25}, "parameters": 1200}
    write_json(folder / "result.json", result)


def test_the_page_shows_the_numbers_of_the_result_files(
    compared: dict[str, list[Recording]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    for kind, recordings in compared.items():
        for seed, recording in enumerate(recordings):
            write_results(recording, results / f"{kind}-{seed}")
    page = tmp_path / "page.md"
    names = ("networks", "differences", "gates se", "folds")
    page.write_text("".join(f"# A\n<!-- study results {n} -->stale\n<!-- end -->\n" for n in names))
    for _ in range(2):  # the second time, it replaces its own tables
        study_page.main((results,), page, tmp_path)
    assert "stale" not in page.read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text().splitlines()
        if line.startswith("|")
    ]
    first = compared["se"][0]
    share = np.mean(first.predictions == first.labels)
    assert ["25.00%", f"{share:.2%}"] in [row[1:3] for row in rows if row[0] == "se-0"]
    accuracies = {k: [np.mean(r.right) for r in of] for k, of in compared.items()}
    gap = 100 * (np.mean(accuracies["se"]) - np.mean(accuracies["none"]))
    (difference,) = (row for row in rows if row[0] == "se − none")
    assert float(difference[2].replace("−", "-")) == pytest.approx(gap, abs=0.06)
    assert [row[1:] for row in rows if row[0] == "se-1"][1][:1] == ["1 of 2"]
    assert [row[6:8] for row in rows if row[0] == "se-1"][1] == ["200", "1.20"]
    usage = pd.read_csv(results / "between" / "usage-se.csv")
    shown = [row for row in rows if row[0] in ("layer1.channel", "layer2.channel", "all")]
    lost = [float(row[4].split()[0].strip("*").replace("−", "-")) for row in shown]
    assert lost == pytest.approx(100 * usage["removal_value"], abs=0.06)
    figures = {Path(line).name for line in capsys.readouterr().out.splitlines()}
    assert figures == {
        "study_results_accuracy.png", "study_results_se.png", "study_decodable_used.png"
    }  # fmt: skip
    page.write_text("<!-- study results nothing --><!-- end -->")
    with pytest.raises(InputError, match="AS944"):
        study_page.main((results,), page, tmp_path)
