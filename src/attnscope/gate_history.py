"""`GateHistory`: how the gates of a network change while it trains. Needs no torch.

`attnscope.monitoring.GateMonitor` writes one JSON object per line: the gates and the images first,
then one observation per line. A line is appended in one piece, so the file can be read during
training. A last line without its end is still being written, or was cut off, and is ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from attnscope.errors import InputError, first_line
from attnscope.kinds import Gate
from attnscope.notebook import html_page, html_properties, number_of

MEASURES = {
    "mean": "mean",
    "spread": "spread over images",
    "saturated": "saturated",
    "distance": "distance from the start",
    "between_class": "variance between classes",
}
"""What an observation says of each gate, and what plots call it."""
SATURATED = 0.01
"""How close to a bound a value is saturated, as a share of the gate's range."""
_FORMAT = 1
_DIGITS = 7  # of each number: single precision has no more


@dataclass(frozen=True)
class MonitoredGate:
    """A gate in a history."""

    name: str
    """As in `attnscope.Gate.name`."""
    kind: str
    lo: float
    """Lower bound."""
    hi: float
    """Upper bound."""
    shape: tuple[int, ...]
    """The shape of the values that were read per image."""


@dataclass(frozen=True)
class Observation:
    """The gates after a number of training steps.

    A value is NaN if it cannot be computed. Each tuple has one number per gate.
    """

    step: int
    """Number of training steps before it."""
    seconds: float
    """How long the observation took."""
    since: float | None
    """Seconds between the end of the previous observation and this one: training, validation and
    so on. None for the first observation of a process."""
    mean: tuple[float, ...]
    """Mean over the images of the mean per image, as the kind of the gate defines it."""
    spread: tuple[float, ...]
    """Standard deviation over the images, root mean square over the values of an image, as a share
    of the gate's range."""
    saturated: tuple[float, ...]
    """Share of values within 1% of the gate's range from one of its bounds."""
    distance: tuple[float, ...]
    """Root mean square of the difference from the first observation, on the same images, as a share
    of the gate's range."""
    between_class: tuple[float, ...]
    """omega²: the share of the variance that lies between classes, less what chance produces, as in
    `attnscope.statistics.between_class_variance`. NaN without labels."""


@dataclass(frozen=True, repr=False)
class GateHistory:
    """The gates of a network over training, as `attnscope.GateMonitor` observed them.

    >>> history = GateHistory.read("gates.jsonl")
    >>> history.table.query("gate == 'layer1.0.attention.channel'")
    >>> attnscope.plots.gates_over_training(history)
    """

    name: str
    """What titles call it: the name of the run, or of the file."""
    gates: tuple[MonitoredGate, ...]
    """In the order in which they act."""
    images: int
    """Number of images on which the gates are observed."""
    classes: int
    """Number of classes of these images; 0 without labels."""
    every: int
    """Number of steps between two observations."""
    fingerprint: str
    """SHA-256 of the images and labels."""
    observations: tuple[Observation, ...] = ()
    """In the order of their steps."""

    def __repr__(self) -> str:
        return f"<GateHistory '{self.name}': {', '.join(self._words())}>"

    def _repr_html_(self) -> str:
        table = self.table.groupby("step", sort=False)[list(MEASURES)].mean().round(4)
        last = (
            html_properties((name, table[name].iloc[-1]) for name in MEASURES) if len(table) else ""
        )
        facts = html_properties([("contents", ", ".join(self._words()))])
        return html_page(f"Gates over training: {self.name}", facts, last)

    @property
    def steps(self) -> NDArray[np.int64]:
        """The step of each observation, ``(T,)``."""
        return np.array([each.step for each in self.observations], np.int64)

    @property
    def overhead(self) -> float:
        """Share of the time that the observations took, 0 to 1; NaN before the second one."""
        timed = [each for each in self.observations if each.since is not None]
        seconds = sum(each.seconds for each in timed)
        total = seconds + sum(each.since or 0.0 for each in timed)
        return seconds / total if total else math.nan

    @property
    def table(self) -> pd.DataFrame:
        """One row per observation and gate: step, gate, kind, depth, and the `MEASURES`."""
        count = len(self.gates)
        names = [gate.name for gate in self.gates]
        columns: dict[str, Any] = {
            "step": np.repeat(self.steps, count),
            "gate": names * len(self.observations),
            "kind": [gate.kind for gate in self.gates] * len(self.observations),
            "depth": list(range(1, count + 1)) * len(self.observations),
        }
        for measure in MEASURES:
            columns[measure] = self.values(measure).ravel()
        return pd.DataFrame(columns)

    def values(self, measure: str) -> NDArray[np.float64]:
        """Return one of the `MEASURES`, ``(T, G)``: one row per observation, one column per gate.

        Raises:
            KeyError: it is none of them.
        """
        if measure not in MEASURES:
            raise KeyError(measure)
        rows = [getattr(each, measure) for each in self.observations]
        return np.array(rows, np.float64).reshape(len(rows), len(self.gates))

    def before(self, step: int) -> GateHistory:
        """Return the history without the observations after a step."""
        kept = tuple(each for each in self.observations if each.step <= step)
        return replace(self, observations=kept)

    def header(self) -> str:
        """Return the first line of the file, which describes gates and images."""
        return _line(
            {
                "format": _FORMAT,
                "gates": [asdict(gate) for gate in self.gates],
                "images": self.images,
                "classes": self.classes,
                "every": self.every,
                "fingerprint": self.fingerprint,
            }
        )

    def lines(self) -> list[str]:
        """Return the lines of the file."""
        return [self.header(), *map(line_of, self.observations)]

    @classmethod
    def read(cls, file: str | Path, name: str = "") -> GateHistory:
        """Read the file of a monitor. It may still be written.

        Args:
            file: the file.
            name: what titles call the history. Default: the name of the file.

        Raises:
            InputError: AS550, the file does not exist; AS551, it is not the file of a monitor.
        """
        file = Path(file)
        try:
            *lines, rest = file.read_text(encoding="utf-8").split("\n")
            head, *observed = map(_parse, lines or [rest])
            if head["format"] != _FORMAT:
                raise ValueError(f"its format is {head['format']}, not {_FORMAT}")
            gates = tuple(
                MonitoredGate(**{**gate, "shape": tuple(gate["shape"])}) for gate in head["gates"]
            )
            observations = tuple(_observation(each, len(gates)) for each in observed)
            return cls(
                name=name or file.stem,
                gates=gates,
                images=int(head["images"]),
                classes=int(head["classes"]),
                every=int(head["every"]),
                fingerprint=str(head["fingerprint"]),
                observations=observations,
            )
        except FileNotFoundError:
            raise InputError(
                "AS550",
                f"{file} does not exist; train with attnscope train --monitor, or give GateMonitor "
                "a file",
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                "AS551",
                f"{file} is not a history of gates ({first_line(error)}); give a file that "
                "GateMonitor wrote",
            ) from None

    def _words(self) -> list[str]:
        kinds = [gate.kind for gate in self.gates]
        counts = [f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)]
        words = [f"{number_of(len(self.gates), 'gate')} ({', '.join(counts)})"]
        words += [number_of(self.images, "image"), f"every {number_of(self.every, 'step')}"]
        last = f" up to step {self.observations[-1].step:,}" if self.observations else ""
        return [*words, f"{number_of(len(self.observations), 'observation')}{last}"]


def measure(
    values: NDArray[np.float32],
    start: NDArray[np.float32],
    gate: Gate,
    labels: NDArray[np.int64] | None,
) -> tuple[float, ...]:
    """Return the `MEASURES` of a gate, NaN for all of them if a value is not finite.

    Args:
        values: ``(N, ...)``.
        start: those of the first observation.
        gate: the gate.
        labels: the class of each image, ``(N,)``.
    """
    if not np.isfinite(values).all():
        return (np.nan,) * len(MEASURES)
    width = gate.hi - gate.lo
    flat = values.reshape(len(values), -1)
    centered = flat - flat.mean(0, dtype=np.float64)
    total = float((centered**2).sum())
    margin = SATURATED * width
    is_saturated = (flat <= gate.lo + margin) | (flat >= gate.hi - margin)
    change = (values - start).astype(np.float64)
    return (
        float(gate.image_means(values).mean()),
        float(np.sqrt(total / flat.size)) / width,
        float(is_saturated.mean()),
        float(np.sqrt((change**2).mean())) / width,
        np.nan if labels is None else _between_classes(centered, total, labels),
    )


def _between_classes(
    centered: NDArray[np.float64], total: float, labels: NDArray[np.int64]
) -> float:
    """Return omega²: ``(SSB - (K - 1) MSW) / (SST + MSW)``, summed over the values of an image.

    Args:
        centered: ``(N, U)``, with mean 0 over the images.
        total: its sum of squares, SST.
        labels: the class of each image, ``(N,)``.
    """
    counts = np.bincount(labels)
    within = len(labels) - len(counts)
    if len(counts) < 2 or within < 1 or not total:
        return float("nan")
    members = np.eye(len(counts))[labels]
    sums = members.T @ centered
    between = float((sums**2 / counts[:, None]).sum())
    noise = (total - between) / within
    return (between - (len(counts) - 1) * noise) / (total + noise)


def line_of(observation: Observation) -> str:
    """Return the line of an observation in the file. NaN becomes null, which JSON has."""
    row = {
        key: [None if math.isnan(number) else number for number in value]
        if isinstance(value, tuple)
        else value
        for key, value in vars(observation).items()
    }
    return _line(row)


def rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    """Return the numbers as they are stored: with seven digits, and NaN for what is not finite."""
    return tuple(float(f"{x:.{_DIGITS}g}") if math.isfinite(x) else math.nan for x in numbers)


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n"


def _parse(line: str) -> dict[str, Any]:
    value = json.loads(line)
    if not isinstance(value, dict):
        raise TypeError("a line is not a JSON object")
    return value


def _observation(value: dict[str, Any], gates: int) -> Observation:
    numbers: dict[str, Any] = {}
    for measure in MEASURES:
        row = value[measure]
        if len(row) != gates:
            raise ValueError(f"step {value['step']} has {len(row)} gates, not {gates}")
        numbers[measure] = tuple(math.nan if x is None else float(x) for x in row)
    since = value["since"]
    return Observation(
        step=int(value["step"]),
        seconds=float(value["seconds"]),
        since=None if since is None else float(since),
        **numbers,
    )
