"""Train networks with different attention and measure each of them: python -m analysis.study.

    python -m analysis.study --data folder:data/cifar10-jpeg --width 32 --epochs 10
    python -m analysis.study --data folder:data/cifar10-jpeg --seeds 3 4 --kinds none se cbam eca
    python -m analysis.study --data folder:data/omniglot --out docs/results/omniglot --width 32 \\
        --channels 1 --image-size 32 --recipe analysis/characters.toml --tolerance 5

For each seed and each kind of attention: a training, recordings of it and of an untrained network,
tables of all statistics, interventions, and a fold. These are the commands of attnscope, and
``provenance.json`` has them, the minutes that each took, and the commit with which each was made.
The small results go to a folder per network in ``--out``; the runs, with their weights, stay in
``--runs``. A network whose results are there is not repeated, except for what ``--again`` does,
and an interrupted one goes on where it was. At the end, networks whose runs are there are compared
over seeds; these tables go to ``between``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import tyro

import attnscope
from attnscope import layout, statistics
from attnscope.commands.main import main as command
from attnscope.comparison import Comparison
from attnscope.files import new_folder, read_json, write_bytes, write_json
from attnscope.plots.tables import flat
from attnscope.plots.usage import joint_of, usage_of
from attnscope.recording.outcomes import find_outcomes, outcomes_folder
from attnscope.recording.recording import Recording
from attnscope.report import write_tables

NONE = "none"
_LARGEST = 60_000  # bytes; larger tables are of single channels or images and are not kept
_DONE = "provenance.json"
_STAGES = "stages.json"
_AGAIN = ("interventions", "statistics")


@dataclass(frozen=True)
class Study:
    """What is trained, and how it is measured."""

    data: str = "folder:data/cifar10-jpeg"
    """Data source, as for attnscope train."""
    out: Path = Path("docs/results/trained")
    """Folder of the results."""
    runs: Path = Path("runs/study")
    """Folder of the runs."""
    kinds: tuple[str, ...] = (NONE, "se", "cbam")
    """Kinds of attention, all with the same seeds."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds. All kinds are trained with the first seed before the second one begins."""
    width: int = 32
    """Channels of the first stage."""
    recipe: str = "fast"
    """Recipe, as for attnscope train: a name, or the path of a TOML file."""
    channels: int = 3
    """Channels of the images."""
    image_size: int | None = None
    """Image size in pixels. Default: as for attnscope train."""
    epochs: int | None = None
    """Epochs. Default: those of the recipe."""
    images: int = 1000
    """Number of images for interventions."""
    tolerance: float = 1.0
    """Largest accepted loss of accuracy of a fold, in percentage points. Few validation images need
    a larger one."""
    again: bool = False
    """Do interventions and statistics once more on networks that are done and whose runs are there,
    after a change to them."""
    minutes: float = float("inf")
    """No network is begun after so many minutes."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""


@dataclass
class Network:
    """One network of a study: where it is, and what was done."""

    study: Study
    kind: str
    seed: int
    minutes: dict[str, float] = field(default_factory=dict)
    """Stage -> the minutes that it took."""
    commands: dict[str, str] = field(default_factory=dict)
    """Stage -> its command."""
    commits: dict[str, str | None] = field(default_factory=dict)
    """Stage -> the commit with which it was done."""

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"{self.kind}-{self.seed}"

    @property
    def run(self) -> Path:
        """Its run."""
        return self.study.runs / self.name

    @property
    def results(self) -> Path:
        """Folder of its results."""
        return self.study.out / self.name

    @property
    def is_done(self) -> bool:
        """Whether all its results are there."""
        return (self.results / _DONE).is_file()

    def measure(self) -> None:
        """Do all stages that were not done yet, and write the results."""
        self._continue()
        study, run = self.study, str(self.run)
        train = ["train", "--data", study.data, "--attention", self.kind, "--seed", str(self.seed)]
        train += ["--width", str(study.width), "--recipe", study.recipe, "--device", study.device]
        train += [] if study.epochs is None else ["--epochs", str(study.epochs)]
        train += [] if study.channels == 3 else ["--channels", str(study.channels)]
        train += [] if study.image_size is None else ["--image-size", str(study.image_size)]
        on = ["--device", study.device]
        self._command("train", [*train, "--out", run])
        has_gates = self.kind != NONE
        pooled = ["--pooled-inputs"] if has_gates else []
        self._command("capture", ["capture", run, *pooled, *on])
        if has_gates:
            self._command("untrained", ["capture", run, "--untrained", *on])
            options = ["--images", str(study.images)]
            self._command("interventions", ["intervene", run, *options, *on])
            options = ["--out", f"{run}-folded", "--tolerance", f"{study.tolerance:g}"]
            self._command("fold", ["fold", run, *options, *on])
        self._stage("statistics", lambda: self._write_statistics(has_gates))
        self._finish(has_gates)

    def _continue(self) -> None:
        file = self.run.with_name(f"{self.name}-{_STAGES}")
        if file.is_file():
            before = read_json(file)
            self.minutes, self.commands = before["minutes"], before["commands"]
            self.commits = before.get("commits", {})
        if self.study.again and self.is_done:
            # The command does not repeat experiments whose outcomes are there.
            shutil.rmtree(outcomes_folder(Recording(self.run).folder), ignore_errors=True)
            for stage in _AGAIN:
                self.minutes.pop(stage, None)

    def _command(self, stage: str, arguments: list[str]) -> None:
        self.commands[stage] = " ".join(["attnscope", *arguments])
        if stage == "train" and (self.run / layout.CHECKPOINT).is_file():
            arguments = [*arguments, "--resume"]

        def run() -> None:
            if code := command(arguments):
                raise SystemExit(code)

        self._stage(stage, run)

    def _stage(self, stage: str, work: Callable[[], None]) -> None:
        """Do a stage and note that it is done."""
        if stage in self.minutes:
            return
        began = time.perf_counter()
        work()
        self.minutes[stage] = round((time.perf_counter() - began) / 60, 2)
        self.commits[stage] = _commit()
        self.run.parent.mkdir(parents=True, exist_ok=True)
        done = {"minutes": self.minutes, "commands": self.commands, "commits": self.commits}
        write_json(self.run.with_name(f"{self.name}-{_STAGES}"), done)

    def _write_statistics(self, has_gates: bool) -> None:
        recording = Recording(self.run)
        tables = self.run.with_name(f"{self.name}-statistics")
        write_tables(recording, tables)
        predictions = pd.DataFrame({"label": recording.labels, "predicted": recording.predictions})
        write_bytes(tables / "predictions.csv", predictions.to_csv(index=False).encode())
        if has_gates:
            outcomes = find_outcomes(recording)
            assert outcomes is not None  # the stage before wrote them
            for name, table in (("usage", usage_of(outcomes)), ("joint", joint_of(outcomes))):
                write_bytes(tables / f"{name}.csv", table.to_csv(index=False).encode())

    def _finish(self, has_gates: bool) -> None:
        """Copy the small results."""
        files = {name: self.run / name for name in (layout.CONFIG, layout.METRICS, layout.RESULT)}
        tables = self.run.with_name(f"{self.name}-statistics")
        folders = [tables]
        if has_gates:
            folders.append(outcomes_folder(Recording(self.run).folder))
            files["fold.json"] = self.run.with_name(f"{self.name}-folded") / layout.FOLD
        for folder in folders:
            origin = "statistics" if folder == tables else "interventions"
            files |= {f"{origin}-{file.name}": file for file in folder.glob("*.csv")}
        left_out = [name for name, file in files.items() if file.stat().st_size > _LARGEST]
        facts = {
            "commands": self.commands,
            "minutes": self.minutes,
            "commits": self.commits,
            "left_out": left_out,
        }
        self.results.parent.mkdir(parents=True, exist_ok=True)
        if self.study.again and self.is_done:
            shutil.rmtree(self.results)
        with new_folder(self.results) as folder:
            for name in files.keys() - left_out:
                if name.endswith(".json"):
                    write_json(folder / name, _without_places(read_json(files[name])))
                else:
                    write_bytes(folder / name, files[name].read_bytes())
            write_json(folder / _DONE, {**facts, **provenance(self.study.device)})


def _without_places(value: Any) -> Any:
    """Return the content of a JSON file without the places of its data on this machine."""
    if isinstance(value, dict):
        return {name: _without_places(v) for name, v in value.items() if name != "places"}
    if isinstance(value, list):
        return [_without_places(item) for item in value]
    return value


def provenance(device: str) -> dict[str, Any]:
    """Return what the results depend on beside the commands: versions and hardware."""
    on_gpu = device != "cpu" and torch.cuda.is_available()
    return {
        "versions": {
            "attnscope": attnscope.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "hardware": {
            "gpu": torch.cuda.get_device_name() if on_gpu else None,
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
        },
    }


def _commit() -> str | None:
    """Return the commit of the checkout, with a mark if code has changes; None outside of one."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        # Results of a study may lie in the checkout; they do not change those of other networks.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "analysis")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if changed else commit


def networks(study: Study) -> Iterator[Network]:
    """Yield the networks of a study, in the order in which they are trained."""
    for seed in study.seeds:
        for kind in study.kinds:
            yield Network(study, kind, seed)


def compare_networks(study: Study) -> None:
    """Write the tables of several networks: kinds over their common seeds, and seeds of one kind.

    A kind of which the run of a measured network is gone is left out: its tables would be of fewer
    seeds than its results.
    """
    measured: dict[str, list[Network]] = {}
    for network in networks(study):
        if network.is_done:
            measured.setdefault(network.kind, []).append(network)
    kinds: dict[str, list[Recording]] = {}
    for kind, found in measured.items():
        gone = [network.name for network in found if not network.run.is_dir()]
        if gone:
            print(f"{kind} is not compared, because runs are gone: {', '.join(gone)}")
        else:
            kinds[kind] = [Recording(network.run) for network in found]
    tables: dict[str, pd.DataFrame] = {}
    for name_a, name_b in combinations([kind for kind in study.kinds if kind in kinds], 2):
        of_a, of_b = ({r.about["seed"]: r for r in kinds[name]} for name in (name_a, name_b))
        seeds = sorted(of_a.keys() & of_b.keys())
        a, b = ([of[seed] for seed in seeds] for of in (of_a, of_b))
        if len(seeds) > 1:
            tables[f"accuracy-{name_a}-{name_b}"] = statistics.compare_seeds(a, b)
        for seed, first, second in zip(seeds, a, b, strict=True):
            accuracy = Comparison(first, second).accuracy
            tables[f"accuracy-{name_a}-{name_b}-{seed}"] = accuracy
    for kind, recordings in kinds.items():
        outcomes = [each for r in recordings if (each := find_outcomes(r)) is not None]
        if not len(outcomes) == len(recordings) > 1:
            continue
        usages = [pd.concat([usage_of(o), joint_of(o)], ignore_index=True) for o in outcomes]
        made = [o.replacement for o in outcomes if o.replacement is not None]
        tables[f"usage-{kind}"] = statistics.usage_over_seeds(usages, outcomes=made)
        for first, second in combinations(recordings, 2):
            pair = f"{kind}-{first.about['seed']}-{second.about['seed']}"
            tables[f"geometry-{pair}"] = statistics.compare_geometry(first, second)
            tables[f"gates-{pair}"] = statistics.compare_gates(first, second)
    if tables:
        (study.out / "between").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_bytes(study.out / "between" / f"{name}.csv", flat(table).to_csv(index=False).encode())


def main(study: Study) -> None:
    """Measure all networks whose results are missing, and compare all."""
    began = time.monotonic()
    for network in networks(study):
        if network.is_done and not (study.again and network.run.is_dir()):
            print(f"{network.name}: done before")
            continue
        if time.monotonic() - began > 60 * study.minutes:
            print(f"{network.name}: not begun, because the {study.minutes:g} minutes are over")
            continue
        network.measure()
        accuracy = read_json(network.results / layout.RESULT)["test"]["accuracy"]
        minutes = sum(network.minutes.values())
        print(f"{network.name}: test accuracy {accuracy:.2%}, {minutes:.1f} minutes")
    compare_networks(study)


if __name__ == "__main__":
    try:
        main(tyro.cli(Study, description=__doc__))
    except attnscope.InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
