"""The study trains networks, measures them, and keeps the small results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from analysis import study as module
from analysis.study import Study, main, networks
from attnscope.files import read_json


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
    assert not any(Path("runs").iterdir()), "weights are not kept"
    capsys.readouterr()
    main(small())
    assert capsys.readouterr().out == "se-0: done before\n"
    main(small(seeds=(1,), minutes=-1.0))
    assert not Path("results/se-1").exists()
