"""A methods paragraph for a paper, with BibTeX, made from what was run.

Every sentence follows from a fact: a field of a recording, a table of its interventions, or the
typed result of a figure on the page. What was not run is not mentioned.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from attnscope.plots.registry import Note
from attnscope.plots.subjects import gate_counts
from attnscope.plots.text import as_count, as_plain_points
from attnscope.recording.attributed import GRAD_CAM
from attnscope.recording.outcomes import Outcomes
from attnscope.recording.recording import Recording
from attnscope.report.bibliography import SOFTWARE
from attnscope.report.citing import Methods, cite, listed, named
from attnscope.report.figure_methods import OF_FIGURES
from attnscope.statistics.effects import OWN

_ATTENTION = {"se": "hu2018", "cbam": "woo2018", "eca": "wang2020"}
_METHODS = {
    "integrated_gradients": "sundararajan2017",
    "layer_integrated_gradients": "sundararajan2017",
    "occlusion": "zeiler2014",
}
_EDITS = {
    "neutral": "the value that changes nothing",
    "mean": "its mean",
    "median": "its median",
    "constant": "the best of the neutral value, the mean and the median, chosen on images that "
    f"were not scored {cite('li2024')}",
    "predicted": "the mean of the predicted class",
    "true": "the mean of the true class",
    "random": "the mean of a random class",
    "swap_any": "the gate of any other image",
    "swap_same": "the gate of an image of the same class",
    "swap_other": "the gate of an image of another class",
    "matched_same": "the gates of images of the same class, and of images of another class matched "
    f"to them in brightness and contrast {cite('rosenbaum1985')}",
}
"""Edit -> what it puts in place of the gate of an image; ``matched_other`` is said by the last."""


@dataclass(frozen=True)
class Shown:
    """A figure on the page."""

    plot: str
    """Name of the plot."""
    result: object
    """Its typed result, or a `Note`."""


@dataclass(frozen=True)
class Run:
    """One network on the page."""

    name: str
    recording: Recording
    outcomes: Outcomes | None = None
    """The interventions on it; None if there are none."""


def methods_of(runs: Sequence[Run], shown: Sequence[Shown]) -> Methods:
    """Describe in a paragraph what was run.

    Args:
        runs: the networks on the page.
        shown: the figures on the page.
    """
    found = [_software(runs)]
    for run in runs:
        found += _recorded(run)
    if any(run.recording.has_accuracy for run in runs):
        found.append(
            "The calibration error is given without its bias "
            f"{cite('roelofs2022')}, beside the Brier score {cite('brier1950')} and the log loss, "
            "with 95% intervals over images."
        )
    for run in runs:
        if run.outcomes is not None:
            found += _intervened(run.name, run.outcomes)
    for each in shown:
        if each.plot in OF_FIGURES and not isinstance(each.result, Note):
            found += OF_FIGURES[each.plot](each.result)
    return Methods(tuple(dict.fromkeys(text for text in found if text)))


def _software(runs: Sequence[Run]) -> str:
    torch = dict.fromkeys(named(run.recording.about.get("torch", "")) for run in runs)
    torches = [each for each in torch if each]
    used = [f"Python {platform.python_version()}"]
    if torches:
        used.append(f"PyTorch {listed(torches)} {cite('paszke2019')}")
    used += [
        f"NumPy {version('numpy')} {cite('harris2020')}",
        f"SciPy {version('scipy')} {cite('virtanen2020')}",
    ]
    return f"Attention gates were analyzed with attnscope {cite(SOFTWARE)}, with {listed(used)}."


def _recorded(run: Run) -> list[str]:
    """Say which network was recorded, and on which images."""
    recording, about = run.recording, run.recording.about
    model = about.get("model")
    what = f"The network {named(run.name)}"
    if isinstance(model, Mapping) and model.get("attention") is not None:
        attention = str(model["attention"])
        key = _ATTENTION.get(attention)
        marks = [each for each in ("he2016" if _is_resnet(model) else None, key) if each]
        what += f" ({named(model.get('name', 'a network'))} with attention '{named(attention)}'"
        what += f" {cite(*marks)})" if marks else ")"
    elif isinstance(model, Mapping) and "name" in model:
        what += f" ({named(model['name'])})"
    if about.get("seed") is not None:
        what += f", trained with seed {about['seed']},"
    split = f"the {named(about['split'])} split of " if about.get("split") else ""
    source = f" of {split}{named(about['source'])}" if about.get("source") else ""
    gates = listed(gate_counts(recording)) if recording.gates else "no"
    noun = "gate" if len(recording.gates) == 1 else "gates"
    text = (
        f"{what} was run in eval mode on {as_count(len(recording), 'image')}{source} "
        f"({as_count(len(recording.classes), 'class', 'classes')}), and its gates were recorded "
        f"as they multiply the features ({gates} {noun}"
    )
    text += f"; {named(about['precision'])})." if about.get("precision") else ")."
    found = [text]
    if recording.grad_cam_layers:
        layers = listed([named(layer) for layer in recording.grad_cam_layers])
        found.append(f"Grad-CAM {cite('selvaraju2017')} was computed at {layers}.")
    others = [each for each in recording.attribution_methods if each != GRAD_CAM]
    if others:
        methods = listed(
            [
                each.replace("_", " ")
                + (f" {cite(_METHODS[each], 'kokhlikyan2020')}" if each in _METHODS else "")
                for each in others
            ]
        )
        count = as_count(len(recording.attributed_rows(others[0])), "image")
        found.append(f"Attributions of {count} were computed by {methods}.")
    return found


def _is_resnet(model: Mapping[str, Any]) -> bool:
    return str(model.get("name", "")).startswith("resnet")


def _intervened(name: str, outcomes: Outcomes) -> list[str]:
    """Say how gates were replaced, and on which images."""
    about = outcomes.about
    made = set() if outcomes.replacement is None else set(outcomes.replacement["edit"].unique())
    edits = [words for edit, words in _EDITS.items() if edit in made]
    experiments = [each for each in outcomes.experiments if each in _EXPERIMENTS]
    found = []
    if made - {OWN} or experiments:
        seed = f" (seed {about['seed']})" if "seed" in about else ""
        text = f"Interventions on {named(name)} were scored on {as_count(about['images'], 'image')}"
        if "of" in about:
            text += f" of {about['of']:,}, drawn in proportion to the classes{seed}"
        found.append(f"{text}; constants and donors came from the remaining images.")
    if edits:
        found.append(
            "The gate of an image, the gates of a block and all gates were replaced by "
            f"{listed(edits)}."
        )
    matching = about.get("matching")
    if matching and matching.get("distance") is not None:
        found.append(
            f"Each image had {matching['donors']} matched donors of either kind, which differed by "
            f"{matching['distance']:.2g} standard deviations on average (caliper: "
            f"{matching['caliper']:g})."
        )
    stated = []
    if about.get("smallest_effect"):
        stated.append(f"{as_plain_points(about['smallest_effect'])} percentage points of accuracy")
    if about.get("smallest_log_loss"):
        stated.append(f"{about['smallest_log_loss']:g} nats of log loss")
    if stated:
        found.append(
            f"The smallest effect of interest was {listed(stated)}; equivalence was tested by two "
            f"one-sided tests at 5% {cite('schuirmann1987')}."
        )
    return found + [_EXPERIMENTS[each] for each in experiments]


_EXPERIMENTS = {
    "ablate": "Channels of a gate were set to their means and compared with random sets of as many "
    f"channels, drawn until the result was clear {cite('besag1991')}.",
    "erase": "Pixels were deleted and restored in the order of the maps (deletion and insertion) "
    f"{cite('petsiuk2018')}, compared with random orders and with the order from the center.",
    "randomize": f"Learned parameters were reinitialized {cite('adebayo2018')}, and the gates "
    "compared with those of the trained network.",
}
"""Experiments that have no figure -> their sentence."""
