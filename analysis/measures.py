"""Write tables of the statistics that need only recordings: python analysis/measures.py RUN...

docs/metrics.md defines each number. ``attnscope intervene`` writes the results of the linear probe
(decoding.csv) and of everything that needs the network.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from attnscope import statistics
from attnscope.errors import InputError
from attnscope.files import new_folder, write_bytes
from attnscope.kinds import MAP, PER_CHANNEL
from attnscope.recording.recording import Recording
from attnscope.report import expect_own_names
from attnscope.runs import open_recording
from attnscope.statistics.inference import significant


def main(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    out: Path = Path("measures"),
    permutations: int = 1000,
) -> None:
    """Write tables (CSV) of each run and of pairs of runs.

    Args:
        runs: runs with recordings of the same images. Their folder names must differ.
        out: output folder, which must not exist.
        permutations: number of permutations of the labels in permutation tests.
    """
    expect_own_names(runs)
    recordings = {run.name: open_recording(run) for run in runs}
    with new_folder(out) as folder:
        for name, recording in recordings.items():
            for table, frame in of_one(recording, permutations).items():
                write(folder / f"{name}-{table}.csv", frame)
            print(f"{name}: done")
        for table, frame in of_pairs(recordings, permutations).items():
            write(folder / f"{table}.csv", frame)
    print(f"{out}: tables of {len(runs)} runs")


def of_one(recording: Recording, permutations: int) -> dict[str, pd.DataFrame]:
    """Return the tables of one run by name: of its classes and, if it has any, of its gates."""
    classes = statistics.class_metrics(recording)
    classes["calibration_error"] = statistics.calibration_error(recording)  # over all classes
    found = {"classes": classes}
    if not recording.gates:
        return found
    of_gates: dict[str, list[pd.DataFrame]] = {}
    for gate in recording.gates_with(PER_CHANNEL):
        for name, frame in of_channels(recording, gate.name, permutations).items():
            frame.insert(0, "gate", gate.name)
            of_gates.setdefault(name, []).append(frame)
    found |= {name: pd.concat(frames, ignore_index=True) for name, frames in of_gates.items()}
    if of_gates:
        found["channels_summary"] = summary_of(found["channels"])
    found["gate_profiles"] = statistics.gate_profiles(recording)
    found["variance"] = statistics.between_class_variance(recording, permutations)
    found["states"] = statistics.state_sweep(recording)
    found["errors"] = statistics.error_position_summary(recording)
    if recording.gates_with(MAP) and recording.grad_cam_layers:
        found["agreement"] = statistics.agreement_summary(recording)
    return found


def of_channels(recording: Recording, gate: str, permutations: int) -> dict[str, pd.DataFrame]:
    """Return the tables of one channel gate by name: profiles, channels, states, distances."""
    selectivity = statistics.class_selectivity(recording, gate, permutations)
    permuted = statistics.permuted_channel_effects(recording, gate, permutations)
    effects = statistics.channel_effects(recording, gate)
    channels = selectivity.merge(
        permuted[["channel", "p", "p_max"]], on="channel", suffixes=("_selectivity", "_effect")
    ).merge(effects[["channel", "f", "eta_squared", "omega_squared"]], on="channel")
    distances = statistics.class_distances(recording, gate).rename_axis(index="class")
    return {
        "profiles": statistics.class_profiles(recording, gate),
        "channels": channels,
        "channel_states": statistics.channel_states(recording, gate),
        "class_distances": distances.reset_index().melt(
            "class", var_name="other", value_name="distance"
        ),
    }


def summary_of(channels: pd.DataFrame) -> pd.DataFrame:
    """Count the channels of each gate that depend on the class, corrected over its channels."""
    tested = channels.assign(
        selective=significant(channels["p_max_selectivity"]),
        differs=significant(channels["p_max_effect"]),
    )
    return tested.groupby("gate", sort=False, as_index=False).agg(
        channels=("channel", "size"),
        constant=("constant", "sum"),
        selective=("selective", "sum"),
        differs=("differs", "sum"),
        median_selectivity=("selectivity", "median"),
        largest_selectivity=("selectivity", "max"),
        median_eta_squared=("eta_squared", "median"),
        largest_eta_squared=("eta_squared", "max"),
    )


def of_pairs(recordings: dict[str, Recording], permutations: int) -> dict[str, pd.DataFrame]:
    """Return tables by name, over pairs of runs that share gates: their gates and geometry."""
    similarity, geometry = [], []
    for (a, first), (b, second) in combinations(recordings.items(), 2):
        shared = {gate.name for gate in first.gates} & {gate.name for gate in second.gates}
        if not shared:
            continue
        similarity.append(statistics.compare_gates(first, second).assign(first=a, second=b))
        if any(gate.name in shared for gate in first.gates_with(PER_CHANNEL)):
            frame = statistics.compare_geometry(first, second, permutations)
            geometry.append(frame.assign(first=a, second=b))
    tables = {"pairs_gates": similarity, "pairs_geometry": geometry}
    return {name: pd.concat(frames, ignore_index=True) for name, frames in tables.items() if frames}


def write(file: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV."""
    write_bytes(file, table.to_csv(index=False, float_format="%.6g").encode())


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
