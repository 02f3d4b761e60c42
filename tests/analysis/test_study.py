"""The study trains networks, measures them, and keeps the small results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from analysis import study as module
from analysis.study import Study, main, networks
from attnscope.files import read_json, write_json, write_sealed
from attnscope.recording.recording import Recording
from attnscope.statistics import compare_accuracy, compare_geometry, compare_seeds


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


def test_networks_are_compared_over_seeds(
    make_recording: Callable[..., Recording],
    add_interventions: Callable[[Recording], Path],
    tmp_path: Path,
) -> None:
    recordings: dict[str, list[Recording]] = {}
    for kind in ("none", "se"):
        for seed in (0, 1):
            recording = make_recording(f"{kind}-{seed}", seed=seed, spatial=False)
            manifest = recording.folder / "manifest.json"
            about = read_json(manifest)
            about["about"] |= {"model": {"attention": kind}, "seed": seed}
            about["id"] = f"{kind}-{seed}"
            write_sealed(manifest, about)
            recordings.setdefault(kind, []).append(Recording(recording.folder))
            if kind == "se":
                add_interventions(recordings[kind][-1])
            (tmp_path / "results" / f"{kind}-{seed}").mkdir(parents=True)
            write_json(tmp_path / "results" / f"{kind}-{seed}" / "provenance.json", {})
    runs = recordings["se"][0].folder.parents[2]
    module.compare_networks(Study("digits", tmp_path / "results", runs, seeds=(0, 1)))
    between = tmp_path / "results" / "between"
    written = pd.read_csv(between / "accuracy-none-se.csv")
    wanted = compare_seeds(recordings["none"], recordings["se"])
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    written = pd.read_csv(between / "accuracy-none-se-1.csv")
    wanted = compare_accuracy(recordings["none"][1], recordings["se"][1])
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    written = pd.read_csv(between / "geometry-se-0-1.csv")
    wanted = compare_geometry(recordings["se"][0], recordings["se"][1])
    pd.testing.assert_frame_equal(written, wanted, check_dtype=False)
    usage = pd.read_csv(between / "usage-se.csv")
    assert (usage["seeds"] == 2).all()
    assert list(usage["gate"][:-1]) == [gate.name for gate in recordings["se"][0].gates]
    assert not list(between.glob("*cbam*"))
