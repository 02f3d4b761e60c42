"""Run several experiments on one network and collect their outcomes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attnscope import layout
from attnscope.errors import InputError
from attnscope.files import StrPath, locked, make_folder
from attnscope.interventions.ablation import ablatable_gates, ablate_channels
from attnscope.interventions.combinations import measure_pairs, measure_sufficiency
from attnscope.interventions.concepts import erasable_gates, erase_class
from attnscope.interventions.donors import DEFAULT_EDITS, expect_edits
from attnscope.interventions.erasing import erase
from attnscope.interventions.merging import add_to, in_order, joined, missing_edits
from attnscope.interventions.plan import Plan, plan_experiments, subsample
from attnscope.interventions.randomization import expect_seeds, randomize_gates
from attnscope.interventions.replacement import replace_and_keep
from attnscope.interventions.setup import InterventionSetup
from attnscope.interventions.work import Work, shown
from attnscope.lazy import renamed_names
from attnscope.recording.outcomes import Outcomes, add_facts, read_outcomes
from attnscope.recording.pieces import Pieces, partial_folder, remove_pieces
from attnscope.recording.recording import Recording
from attnscope.statistics.effects import replacement_effects
from attnscope.statistics.probe_gain import several
from attnscope.statistics.usage import decode_gates

EXPERIMENTS = (
    "decode",
    "replace",
    "concept",
    "sufficiency",
    "pairs",
    "ablate",
    "erase",
    "randomize",
)
"""Names of all experiments, in the order in which they are run."""
DEFAULT_EXPERIMENTS = ("decode", "replace")
"""The experiments that are run unless others are named."""

_COMBINATIONS = {"sufficiency": measure_sufficiency, "pairs": measure_pairs}


@dataclass(frozen=True)
class _Experiment:
    """An experiment with everything that it needs."""

    name: str
    setup: InterventionSetup
    seeds: Sequence[Recording]
    untrained: Sequence[Recording]
    edits: Sequence[str]

    @property
    def controls(self) -> list[str | None]:
        """The ids of the other recordings that the experiment uses."""
        if self.name == "randomize":
            return [recording.id for recording in self.seeds]
        return [each.id for each in self.untrained] if self.name == "decode" else []

    @property
    def plan(self) -> dict[str, Any]:
        """What must be equal for finished pieces of an earlier call to be used."""
        setup = self.setup
        return {
            "experiment": self.name,
            "recording": setup.recording.id,
            "requested_images": setup.images,
            "rows_sha256": hashlib.sha256(setup.scored.astype("<i8").tobytes()).hexdigest(),
            "seed": setup.seed,
            "batch_size": setup.batch_size,
            **({"edits": list(self.edits)} if self.name == "replace" else {}),
            # Pieces of earlier versions do not hold what a probe reads after the erasure.
            **({"probed": True} if self.name == "concept" else {}),
        }

    def run(self, work: Work) -> Outcomes:
        """Run the experiment, but for the pieces that are finished."""
        setup = self.setup
        images = subsample(setup, self.name)
        tables: dict[str, pd.DataFrame] = {}
        replaced = None
        if self.name == "decode":
            tables["decoding"] = decode_gates(
                setup.recording, self.untrained, seed=setup.seed, groups=setup.copies
            )
            work.end()
        elif self.name == "replace":
            replaced = replace_and_keep(setup, edits=self.edits, work=work)
            tables["effects"] = replacement_effects(
                replaced.table, seed=setup.seed, logits=replaced.logits
            )
            if replaced.constants is not None:
                tables["constants"] = replaced.constants
        elif self.name == "concept":
            tables["concept"] = erase_class(setup, images=images, work=work)
        elif self.name in _COMBINATIONS:
            tables[self.name] = _COMBINATIONS[self.name](setup, work=work)
        elif self.name == "ablate" and ablatable_gates(setup):
            tables["ablation"] = ablate_channels(setup, images=images, work=work)
        elif self.name == "erase":
            erased = erase(setup, images=images, work=work)
            tables["erasing_areas"], tables["erasing_curves"] = erased.areas, erased.curves
        elif self.name == "randomize":
            tables["randomization"] = randomize_gates(setup, self.seeds, images=images, work=work)
        about = {**_about(setup), "experiments": [self.name]}
        if replaced is not None:
            about["edits"] = list(self.edits)
            if replaced.matching is not None:
                about["matching"] = dict(replaced.matching)
        if self.name == "concept":
            about["concept_left_out"] = erasable_gates(setup)[1]
        about["controls"] = {self.name: self.controls} if self.controls else {}
        if replaced is None:
            return Outcomes(about, None, tables)
        return Outcomes(about, replaced.table, tables, lambda: replaced.logits)


def run_experiments(
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | Sequence[Recording] | None = None,
    experiments: Sequence[str] = DEFAULT_EXPERIMENTS,
    edits: Sequence[str] = DEFAULT_EDITS,
    progress: bool = True,
) -> Outcomes:
    """Run experiments on one network, each with its default settings.

    ``ablate`` uses a tenth of the scored images, ``erase`` a fifth, ``concept`` and ``randomize``
    half, but at least 50, 100, 100 and 250 if there are that many.

    Args:
        setup: The network and its images.
        seeds: Recordings of other seeds, for `randomize_gates`.
        untrained: The recording of the untrained network, for `decode_gates`, or those of several
            draws of its weights.
        experiments: Some of `EXPERIMENTS`. ``ablate`` is left out for a network that has no
            channel gate with several values.
        edits: The edits of ``replace``, some of `REPLACEMENTS`.
        progress: Whether to show a progress bar.

    Returns:
        The outcomes, which are not written to files.

    Raises:
        InputError: An experiment (AS813) or an edit (AS823) is unknown, or an experiment cannot be
            run.
    """
    _expect(setup, seeds, experiments, edits)
    wanted = [
        _Experiment(name, setup, seeds, several(untrained), in_order(edits)) for name in experiments
    ]
    plan = plan_experiments(setup, experiments, edits=edits) if progress else None
    found = Outcomes({**_about(setup), "experiments": [], "controls": {}}, None, {})
    with shown(progress, _total(plan)) as bar:
        for experiment in wanted:
            bar.describe(experiment.name)
            new = experiment.run(Work(bar, share=_share(plan, experiment.name)))
            found = joined(found, new)
    return found


def run_experiments_in(
    folder: StrPath,
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | Sequence[Recording] | None = None,
    experiments: Sequence[str] = DEFAULT_EXPERIMENTS,
    edits: Sequence[str] = DEFAULT_EDITS,
    plan: Plan | None = None,
    stated: Mapping[str, float] | None = None,
    progress: bool = True,
) -> Outcomes:
    """Run experiments as `run_experiments` does, and write each as soon as it ends.

    What an interrupted call had finished is kept beside the folder, at least every ten seconds of
    work, and the same call continues there: the outcomes are those of an uninterrupted call, bit
    for bit. Experiments and edits whose outcomes are already in the folder are not repeated. An
    experiment is repeated if ``seeds`` or ``untrained`` differ from those with which it was run.

    Args:
        folder: The output folder: new, or with outcomes of the same recording, scored images and
            seed.
        setup: As for `run_experiments`.
        seeds: As for `run_experiments`.
        untrained: As for `run_experiments`.
        experiments: As for `run_experiments`.
        edits: As for `run_experiments`.
        plan: What the remaining experiments cost, for the progress bar. Default: it is measured.
        stated: ``smallest_effect`` (a share) and ``smallest_log_loss`` (in nats), the smallest
            effects of interest, which verdicts and captions use. Default: those of the folder.
        progress: As for `run_experiments`.

    Returns:
        All outcomes in the folder.

    Raises:
        InputError: As `run_experiments`; or the folder holds something else (AS810), outcomes of
            another recording, other images or another seed (AS811), an unfinished experiment was
            started with other settings (AS634), or another process writes to the folder (AS827).
    """
    folder = Path(folder)
    todo = remaining(
        folder, setup, seeds, untrained=untrained, experiments=experiments, edits=edits
    )
    if progress and plan is None and todo:
        of_replace = todo.get("replace", edits)
        plan = plan_experiments(setup, list(todo), edits=of_replace)
    with ExitStack() as stack:
        if todo:
            stack.enter_context(_writing(folder))
        bar = stack.enter_context(shown(progress and bool(todo), _total(plan)))
        for name, missing in todo.items():
            experiment = _Experiment(name, setup, seeds, several(untrained), missing)
            bar.describe(name)
            with Pieces(partial_folder(folder) / name, experiment.plan) as pieces:
                outcomes = experiment.run(Work(bar, pieces, _share(plan, name)))
            add_to(folder, outcomes, setup.seed)
            remove_pieces(folder, name)
    if stated:
        add_facts(folder, stated)
    return read_outcomes(folder)


def remaining(
    folder: Path,
    setup: InterventionSetup,
    seeds: Sequence[Recording] = (),
    *,
    untrained: Recording | Sequence[Recording] | None = None,
    experiments: Sequence[str] = DEFAULT_EXPERIMENTS,
    edits: Sequence[str] = DEFAULT_EDITS,
) -> dict[str, Sequence[str]]:
    """Return the experiments that are not finished: name -> the edits that are missing.

    The arguments and errors are those of `run_experiments_in`.
    """
    _expect(setup, seeds, experiments, edits)
    edits = in_order(edits)
    todo: dict[str, Sequence[str]] = dict.fromkeys(experiments, edits)
    if not os.path.lexists(folder):
        return todo
    if not (folder / layout.ABOUT).is_file():
        raise InputError(
            "AS810",
            f"{folder} exists but has no outcomes of interventions; choose another folder with "
            "--out, or remove it",
        )
    about, outcomes = _about(setup), read_outcomes(folder)
    known = outcomes.about
    if any(known.get(key) != about[key] for key in _IDENTITY):
        raise InputError(
            "AS811",
            f"{folder} has outcomes of another recording, other scored images or another seed; "
            "choose another folder with --out, or remove it",
        )
    made, controls = known.get("experiments", []), known.get("controls", {})
    for name in experiments:
        now = _Experiment(name, setup, seeds, several(untrained), edits).controls
        if name not in made or (now and now != controls.get(name)):
            continue
        missing = missing_edits(outcomes, edits) if name == "replace" else []
        if missing:
            todo[name] = missing
        else:
            del todo[name]
    return todo


_IDENTITY = ("recording", "images", "seed")
"""Keys that must be equal for outcomes to be written into one folder."""


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Lock a folder of outcomes, and say on an interruption what is kept."""
    new_parents = [parent for parent in folder.parents if not parent.exists()]
    if not folder.parent.is_dir():
        make_folder(folder.parent, folder)
    place = partial_folder(folder)
    try:
        with locked(folder.with_name(f".{folder.name}{layout.LOCK_SUFFIX}")):
            yield
    except BlockingIOError as error:
        raise InputError(
            "AS827",
            f"{error.strerror} is writing to {folder}; wait until it has finished, or choose "
            "another folder with --out",
        ) from None
    except KeyboardInterrupt as error:
        if error.args or not place.is_dir():
            raise
        raise KeyboardInterrupt(
            f"interrupted; what is finished is kept in {place}: run the same command to resume"
        ) from None
    finally:
        for parent in new_parents:  # innermost first; one that is not empty stays
            with suppress(OSError):
                parent.rmdir()


def _total(plan: Plan | None) -> float:
    return plan.seconds if plan is not None and plan.seconds else 1.0


def _share(plan: Plan | None, experiment: str) -> float:
    """Return what an experiment is worth on the progress bar, in seconds."""
    costs = plan.costs if plan is not None else ()
    return sum(cost.seconds for cost in costs if cost.experiment == experiment)


def _about(setup: InterventionSetup) -> dict[str, Any]:
    recording = setup.recording
    return {
        "name": recording.name,
        "split": recording.split,
        "recording": recording.id,
        "images": len(setup.scored),
        "requested_images": setup.images,
        "of": len(recording),
        "classes": recording.classes,
        "seed": setup.seed,
    }


def _expect(
    setup: InterventionSetup,
    seeds: Sequence[Recording],
    experiments: Sequence[str],
    edits: Sequence[str],
) -> None:
    """Raise an `InputError` now for what would else fail after hours of other experiments."""
    expect_experiments(experiments)
    expect_edits(edits)
    if "randomize" in experiments:
        expect_seeds(setup, seeds)


def expect_experiments(experiments: Sequence[str]) -> None:
    """Raise an `InputError` if an experiment is unknown."""
    unknown = [name for name in experiments if name not in EXPERIMENTS]
    if unknown:
        raise InputError(
            "AS813",
            f"the experiment '{unknown[0]}' is unknown; choose from {', '.join(EXPERIMENTS)}",
        )


__getattr__ = renamed_names(
    __name__, {"intervene": "run_experiments", "intervene_in": "run_experiments_in"}
)
