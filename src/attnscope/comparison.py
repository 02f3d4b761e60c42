"""Two networks compared on the same images, or two configurations compared over several seeds.

>>> import attnscope
>>> attnscope.compare("runs/demo-se", "runs/demo-cbam")  # doctest: +SKIP
<Comparison 'demo-se' and 'demo-cbam': 360 images, accuracy 97.2% and 98.1%, difference ...>

The plots of two networks (`attnscope.plots.per_class_accuracy` and others) take a comparison.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import pandas as pd

from attnscope import statistics
from attnscope.errors import InputError
from attnscope.notebook import html_page, html_paragraph, html_table
from attnscope.recording.places import distinct_names, enclosing_run
from attnscope.recording.recording import Recording
from attnscope.run_config import read_config, setting_differences, training_differences
from attnscope.runs import Run, open_recording
from attnscope.statistics import group_by_kind
from attnscope.statistics.comparison import expect_same_images
from attnscope.statistics.inference import paired_accuracy_change, paired_interval, within
from attnscope.statistics.seeds import expect_pairs

Recorded: TypeAlias = Recording | Run | str | os.PathLike[str]
"""A recording, or where it is found: a run, the path of a run, or the path of a recording."""

_OF_NETWORK = {"name": "network", "width": "width", "stem": "stem"}
"""Settings of a network beside its attention, and what they are called."""
_MOST_ROWS = 31
"""Rows of a table in a notebook: all images, and the first 30 classes."""


@dataclass(frozen=True)
class Comparison:
    """Two recordings of the same images."""

    a: Recording
    b: Recording

    @property
    def names(self) -> tuple[str, str]:
        """The names of the two recordings, which differ: `distinct_names`."""
        a, b = distinct_names([self.a.name, self.b.name], [self.a.folder, self.b.folder])
        return a, b

    @property
    def recordings(self) -> list[Recording]:
        """Both recordings."""
        return [self.a, self.b]

    @cached_property
    def training(self) -> str:
        """How the networks were trained differently, beside attention and seed, as a sentence.

        It is empty if they were not, or if nothing is known of it.
        """
        return _training_sentence(self.a, self.b, "They")

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """The accuracy of both networks, over all images and for each class.

        Returns:
            The table of `attnscope.statistics.compare_accuracy` (b minus a, exact McNemar test,
            Holm's correction over the classes), with the columns low and high: the 95% confidence
            interval of the difference (Bonett and Price 2012, Journal of Educational and Behavioral
            Statistics 37). NaN for a class without images.

        Raises:
            InputError: the recordings are not of the same images.
        """
        table = statistics.compare_accuracy(self.a, self.b)
        right_a, right_b, labels = self.a.right, self.b.right, self.a.labels
        groups = [np.ones(len(labels), bool), *(labels == k for k in range(len(self.a.classes)))]
        ends = [paired_accuracy_change(right_a[rows], right_b[rows])[1:] for rows in groups]
        place = table.columns.get_loc("difference")
        assert isinstance(place, int)
        table.insert(place + 1, "low", [low for low, _ in ends])
        table.insert(place + 2, "high", [high for _, high in ends])
        return table

    def __repr__(self) -> str:
        a, b = self.names
        try:
            expect_same_images(self.a, self.b)
        except InputError:
            return f"<Comparison '{a}' and '{b}': not the same images>"
        change, low, high = paired_accuracy_change(self.a.right, self.b.right)
        return (
            f"<Comparison '{a}' and '{b}': {len(self.a):,} images, accuracy "
            f"{_percent(self.a.right.mean())} and {_percent(self.b.right.mean())}, difference "
            f"{_change(change, low, high)}>"
        )

    def _repr_html_(self) -> str:
        return _html(self, "p (Holm)")


@dataclass(frozen=True)
class SeedComparison:
    """Two configurations, each trained with the same seeds and recorded on the same images.

    Networks have the same configuration if their runs differ only in the seed.
    """

    names: tuple[str, str]
    """The names of the two configurations."""
    a: Sequence[Recording]
    """One recording for each seed of the first configuration."""
    b: Sequence[Recording]
    """One recording for each seed of the second configuration, in the same order of seeds."""

    @property
    def recordings(self) -> list[Recording]:
        """All recordings, those of the first configuration first."""
        return [*self.a, *self.b]

    @cached_property
    def training(self) -> str:
        """As for `Comparison`, of the configurations."""
        if not self.a or not self.b:
            return ""
        return _training_sentence(self.a[0], self.b[0], "The configurations")

    @cached_property
    def accuracy(self) -> pd.DataFrame:
        """The accuracy of both configurations: `attnscope.statistics.compare_seeds`.

        Raises:
            InputError: the seeds do not form pairs, or the images are not the same.
        """
        return statistics.compare_seeds(self.a, self.b)

    def __repr__(self) -> str:
        a, b = self.names
        means = [np.array([r.right.mean() for r in kind]) for kind in (self.a, self.b)]
        text = f"<SeedComparison '{a}' and '{b}': {len(self.a)} and {len(self.b)} seeds"
        if len(self.a) != len(self.b) or not len(self.a):
            return f"{text}>"
        found = within(paired_interval(means[1] - means[0]), -1, 1)
        return (
            f"{text}, {len(self.a[0]):,} images, mean accuracy {_percent(means[0].mean())} and "
            f"{_percent(means[1].mean())}, difference "
            f"{_change(found['difference'], found['low'], found['high'])}>"
        )

    def _repr_html_(self) -> str:
        return _html(self, "p (t test, Holm)")


# A path is a sequence of characters, too; a str is always taken as a path.
@overload
def compare(  # type: ignore[overload-overlap]
    a: Recorded, b: Recorded, *, split: str = "test"
) -> Comparison: ...


@overload
def compare(
    a: Sequence[Recorded], b: Sequence[Recorded], *, split: str = "test"
) -> SeedComparison: ...


def compare(
    a: Recorded | Sequence[Recorded], b: Recorded | Sequence[Recorded], *, split: str = "test"
) -> Comparison | SeedComparison:
    """Compare two networks on the same images, or two configurations over several seeds.

    >>> import attnscope
    >>> pair = attnscope.compare("runs/se", "runs/cbam")  # doctest: +SKIP
    >>> pair.accuracy  # doctest: +SKIP
    >>> attnscope.plots.per_class_accuracy(pair)  # doctest: +SKIP

    Args:
        a: a recording, a run, or the path of either; or a list of them, one for each seed.
        b: the second network, or the same number of seeds of the second configuration.
        split: for a run, the split whose recording is used.

    Returns:
        A `Comparison` of two networks, or a `SeedComparison` if ``a`` and ``b`` are lists.

    Raises:
        InputError: there is no such recording; AS924, both are of the same network; the recordings
            are not of the same images; the seeds do not form pairs; or a list has networks of more
            than one configuration.
    """
    if _is_one(a) and _is_one(b):
        pair = Comparison(open_recorded(a, split), open_recorded(b, split))
        expect_two_networks(pair.a, pair.b)
        expect_same_images(pair.a, pair.b)
        return pair
    if _is_one(a) or _is_one(b):
        raise InputError(
            "AS921",
            "a single network cannot be compared with a list of seeds; give two networks, or two "
            "lists with one network for each seed",
        )
    groups = [open_all(group, split) for group in (a, b)]
    kinds = group_by_kind(groups[0] + groups[1])
    members = {name: {id(recording) for recording in kind} for name, kind in kinds.items()}
    found = [
        [name for name in kinds if members[name] == {id(recording) for recording in group}]
        for group in groups
    ]
    if [len(names) for names in found] != [1, 1]:
        raise InputError(
            "AS922",
            f"the two lists are not two configurations of a network (found: {', '.join(kinds)}); "
            "each list must hold the runs of one configuration, which differ only in the seed",
        )
    (name_a,), (name_b,) = found
    first, *others = recordings = kinds[name_a]
    expect_pairs(recordings, kinds[name_b])  # each kind is in the order of its seeds
    for recording in others + kinds[name_b]:
        expect_same_images(first, recording)
    return SeedComparison((name_a, name_b), recordings, kinds[name_b])


def expect_two_networks(a: Recording, b: Recording) -> None:
    """Refuse two recordings of the same network.

    Raises:
        InputError: AS924, they are the same recording or its copy, or the networks have equal
            weights.
    """
    weights = [(each.about.get("weights_sha256"), each.about.get("model")) for each in (a, b)]
    if a.folder.resolve() == b.folder.resolve():
        how = "is given twice"
    elif a.id is not None and a.id == b.id:
        how = f"is the same recording as {b.folder}"
    elif weights[0] == weights[1] and weights[0][0] is not None:
        how = f"is of the same weights as {b.folder}"
    else:
        return
    raise InputError("AS924", f"{a.folder} {how}; give the recordings of two networks")


def compare_kinds(recordings: Sequence[Recording]) -> SeedComparison:
    """Group recordings by configuration, and compare the two configurations over their seeds.

    Args:
        recordings: recordings of two configurations in any order, with the same seeds.

    Raises:
        InputError: the recordings are of one configuration, or of more than two; or as
            `attnscope.statistics.group_by_kind`.
    """
    kinds = group_by_kind(recordings)
    if len(kinds) != 2:
        raise InputError(
            "AS922",
            f"the {len(recordings)} recordings are of {len(kinds)} "
            f"kind{'' if len(kinds) == 1 else 's'} of network ({', '.join(kinds)}); give two "
            "networks, or several seeds of exactly two kinds",
        )
    (name_a, a), (name_b, b) = kinds.items()
    return SeedComparison((name_a, name_b), a, b)


def open_recorded(target: object, split: str = "test") -> Recording:
    """Return a recording, or open it.

    Args:
        target: a recording, a run, or the path of either.
        split: for a run, the split whose recording is used.

    Raises:
        InputError: it is none of these, or there is no recording.
    """
    if isinstance(target, Recording):
        return target
    if isinstance(target, Run):
        return target.recording(split)
    if isinstance(target, str | os.PathLike):
        return open_recording(Path(target), split)
    raise InputError(
        "AS923",
        f"a {type(target).__name__} is not a recording; give a Recording, a Run, or the path of "
        "either",
    )


def open_all(targets: object, split: str = "test") -> list[Recording]:
    """Return or open several recordings.

    Args:
        targets: recordings, runs, or paths of either.
        split: for runs, the split whose recordings are used.

    Raises:
        InputError: as `open_recorded`.
    """
    if _is_one(targets) or not isinstance(targets, Iterable):
        targets = [targets]
    return [open_recorded(target, split) for target in targets]


def _is_one(target: object) -> bool:
    """Whether this is one recording, and not a sequence of them."""
    return not isinstance(target, list | tuple)


def _training_sentence(a: Recording, b: Recording, subject: str) -> str:
    about = a.about, b.about
    if any(each.get("untrained") for each in about):
        return ""
    models = [dict(each["model"]) for each in about if isinstance(each.get("model"), dict)]
    found = []
    if len(models) == 2 and all("attention" in model for model in models):
        networks = [{name: model.get(key) for key, name in _OF_NETWORK.items()} for model in models]
        found = setting_differences(*networks)
    configs = _config_of(a), _config_of(b)
    if configs[0] is not None and configs[1] is not None:
        found += training_differences(configs[0], configs[1])
    elif "training_sha256" in about[0].keys() & about[1].keys():
        of_training = [(each["training_sha256"], each.get("source")) for each in about]
        # The hash is of the place of the data, too.
        if of_training[0][0] != of_training[1][0] and of_training[0][1] == of_training[1][1]:
            found.append("settings that only their runs name")
    return f"{subject} were also trained differently: {', '.join(found)}." if found else ""


def _config_of(recording: Recording) -> dict[str, Any] | None:
    run = enclosing_run(recording.folder)
    with suppress(InputError):
        return None if run is None else read_config(run)
    return None


def _percent(share: float) -> str:
    return f"{share:.1%}" if np.isfinite(share) else "–"


def _points(difference: float, sign: str = "") -> str:
    if not np.isfinite(difference):
        return "–"
    return f"{100 * difference:{sign}.1f}".replace("-", "\N{MINUS SIGN}")


def _change(difference: float, low: float, high: float) -> str:
    text = f"{_points(difference, '+')} points"
    if np.isfinite(low):
        text += f" (95% CI {_points(low)} to {_points(high)})"
    return text


def _html(comparison: Comparison | SeedComparison, test: str) -> str:
    """The table of accuracies for a notebook."""
    a, b = comparison.names
    title = f"{type(comparison).__name__} of {a} and {b}"
    try:
        table = comparison.accuracy
    except InputError as error:
        return html_page(title, html_paragraph(str(error)))
    head = ["class", "images", a, b, "difference, points", "95% CI", test]
    rows = []
    for _, row in table.head(_MOST_ROWS).iterrows():
        p = row["p_holm"]
        interval = (
            f"{_points(row['low'])} to {_points(row['high'])}" if np.isfinite(row["low"]) else "–"
        )
        cells = [
            row["class"],
            f"{row['count']:,}",
            _percent(row["accuracy_a"]),
            _percent(row["accuracy_b"]),
            _points(row["difference"], "+"),
            interval,
            "–" if not np.isfinite(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
        ]
        rows.append(cells)
    more = len(table) - len(rows)
    rest = html_paragraph(f"{more:,} more classes are in .accuracy.") if more else ""
    return html_page(title, html_table(head, rows), rest)
