"""What a methods paragraph says of the figures of a page, from their typed results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attnscope.plots.builtin import per_class_gates
from attnscope.plots.text import as_count
from attnscope.report.citing import cite, listed, named
from attnscope.statistics.inference import LEVEL
from attnscope.statistics.questions import ORACLE, QUESTIONS


def _probes(result: Any) -> list[str]:
    """Say how the class was decoded, and how the use of gates was tested."""
    decoding, usage = result.decoding, result.usage
    found = []
    if decoding["balanced_accuracy"].notna().any():
        row = decoding.loc[decoding["balanced_accuracy"].idxmax()]
        found.append(
            "The class was decoded from the logits of each gate by linear discriminant analysis "
            f"{cite('fisher1936')} with a shrunk covariance {cite('friedman1989')}, fitted on "
            f"{as_count(int(row['fitted']), 'image')} and scored by its balanced accuracy on "
            f"{as_count(int(row['scored']), 'other image')}; chance is that of permuted labels, "
            f"corrected over the gates by the highest accuracy {cite('westfall1993')}, and "
            f"intervals combine those of Wilson {cite('wilson1927', 'zou2008')}."
        )
    controls = {
        "control": f"random classes of similar pictures (control task) {cite('hewitt2019')}",
        "input": "the pooled input of the gate",
        "untrained": "the gate of the untrained network",
    }
    made = [
        words
        for name, words in controls.items()
        if f"{name}_accuracy" in decoding and decoding[f"{name}_accuracy"].notna().any()
    ]
    if made:
        found.append(f"Controls of the probe were {listed(made)}.")
    if decoding["omega_squared"].notna().any():
        found.append(
            "The share of the variance of a gate between classes is omega squared, tested by "
            f"permutations of the labels {cite('anderson2001')}."
        )
    asked = [each.name for each in QUESTIONS if usage[f"{each.name}_value"].notna().any()]
    return found + ([_tests(asked)] if asked else [])


_QUESTIONS = {
    "removal": "removal (the best constant instead of the image's own gate)",
    "resample": "resample ablation (the gate of any other image)",
    "misinformation": "misinformation (the gate of another class instead of the same class)",
    "matched": "misinformation with matched donors",
    ORACLE: "the oracle (the mean gate of the true class)",
}


def _tests(asked: Sequence[str]) -> str:
    donors = set(asked) - {"removal", ORACLE}
    shared = (
        f"; the variance includes that images share donors {cite('aronow2015')}" if donors else ""
    )
    measured = f"log loss (at the best temperature of each edit {cite('guo2017')})"
    return (
        f"The effects of {listed([_QUESTIONS[name] for name in asked])} on accuracy and {measured} "
        f"were tested by exact McNemar tests {cite('mcnemar1947')} and paired t tests "
        f"{cite('student1908')}{shared}. Within each question p values were corrected over all "
        f"gates and blocks and over both measures {cite('holm1979')}, and a gate is called used if "
        f"removal costs at p < {LEVEL}. Intervals of accuracy are those of Bonett and Price "
        f"{cite('bonett2012')}, with shared donors where there are some."
        if "removal" in asked
        else f"The effects of {listed([_QUESTIONS[name] for name in asked])} on accuracy and "
        f"{measured} were tested by exact McNemar tests {cite('mcnemar1947')} and paired t tests "
        f"{cite('student1908')}{shared}, corrected over all gates and blocks {cite('holm1979')}."
    )


def _compared(result: Any) -> list[str]:
    count = int(result.comparison.iloc[0]["count"])
    return [
        f"Accuracies of two networks on the same {as_count(count, 'image')} were compared by exact "
        f"McNemar tests {cite('mcnemar1947')}, corrected over the classes {cite('holm1979')}, with "
        f"the intervals of Bonett and Price {cite('bonett2012')}."
    ]


def _over_seeds(result: Any) -> list[str]:
    seeds = int(result.comparison.iloc[0]["seeds"])
    if seeds < 2:
        return []
    return [
        f"Accuracies of {named(result.names[0])} and {named(result.names[1])} were compared over "
        f"{as_count(seeds, 'pair')} of seeds by paired t tests {cite('student1908')}, corrected "
        f"over the classes {cite('holm1979')}."
    ]


def _used_over_seeds(result: Any) -> list[str]:
    return [
        f"The use of gates of {named(result.kind)} was averaged over "
        f"{as_count(len(result.usages), 'seed')}; the variance crosses seeds, images and donors "
        f"{cite('cameron2011', 'aronow2015', 'satterthwaite1946')}, and p values were corrected "
        "over all gates and "
        f"blocks and over both measures {cite('holm1979')}."
    ]


def _maps(result: Any) -> list[str]:
    return [
        "Spatial gates were compared with Grad-CAM image by image at the coarser resolution of "
        "both, by Spearman's correlation, beside the Grad-CAM of another image as a null; 95% "
        f"intervals are percentile bootstraps over images {cite('efron1979')}."
    ]


def _methods_of_maps(result: Any) -> list[str]:
    return [
        f"Spatial gates were compared with {as_count(len(result.summaries), 'attribution method')} "
        "image by image, by Spearman's correlation, beside the attribution of another image as a "
        f"null; 95% intervals are percentile bootstraps over images {cite('efron1979')}."
    ]


def _localized(result: Any) -> list[str]:
    return [
        "Whether maps lie on the objects was measured on "
        f"{as_count(result.masks.used, 'image')} with masks by the pointing game "
        f"{cite('zhang2018')} and by the share of the map's energy inside the mask, and tested "
        "against a Gaussian at the image center and against the maps of all other images, by t "
        f"tests {cite('student1908')}, the latter on jackknife pseudovalues {cite('tukey1958')}, "
        f"corrected over the maps {cite('holm1979')}."
    ]


def _erased(result: Any) -> list[str]:
    draws = int(result.concept["draws"].max())
    count = int(result.concept["images"].max())
    sentences = [
        f"The linear information on the class was erased from single gates {cite('belrose2023')} "
        f"and the loss on {as_count(count, 'image')} compared with {draws} random subspaces of the "
        f"same rank and mean squared change; p values were corrected {cite('holm1979')}."
    ]
    if "probe_after" in result.concept:  # version 0.2.0 did not measure it
        sentences.append(
            "What a linear probe still reads was measured by linear discriminant analysis "
            f"{cite('fisher1936')}, fitted on the images of the erasure and scored on the others."
        )
    return sentences


def _geometry(result: Any) -> list[str]:
    if result.geometry["p"].isna().all():
        return []
    return [
        "Whether the same classes are similar in two networks was tested on a half of the images "
        f"of its own for each network, with unbiased squared distances {cite('walther2016')}, by a "
        f"Mantel test {cite('mantel1967', 'kriegeskorte2008')} with all orders of the classes or "
        f"{per_class_gates.PERMUTATIONS} random ones, corrected over the gates {cite('holm1979')}."
    ]


OF_FIGURES: Mapping[str, Callable[[Any], list[str]]] = {
    "decodable_and_used": _probes,
    "static_gates": lambda result: [
        f"Losses by constants were tested by exact McNemar tests {cite('mcnemar1947')}, corrected "
        f"over gates and blocks, and over accuracy and log loss {cite('holm1979')}."
    ],
    "concept": _erased,
    "sufficiency": lambda result: [
        "All gates but one were replaced by constants, and compared with the unedited network and "
        f"with constants for all gates, with corrected p values {cite('holm1979')}."
    ],
    "pairs": lambda result: [
        "Two gates of a block were replaced by constants, and the loss compared with the sum of "
        f"the losses of either by paired t tests {cite('student1908')}, corrected over the pairs "
        f"{cite('holm1979')}."
    ],
    "seed_usage": _used_over_seeds,
    "seed_differences": _over_seeds,
    "per_class_accuracy": _compared,
    "per_class_gates": _geometry,
    "per_class_agreement": _maps,
    "map_agreement": _maps,
    "attribution_agreement": _methods_of_maps,
    "localization": _localized,
    "per_class_grad_cam": lambda result: [
        "The Grad-CAM of two networks was compared image by image, beside that of another image as "
        f"a null; 95% intervals are percentile bootstraps over images {cite('efron1979')}."
    ],
    "confusion_matrix": lambda result: [
        f"Intervals of accuracies and error rates are Wilson's {cite('wilson1927')}."
    ],
    "channel_gates": lambda result: [
        f"Differences between the class means of channels were tested by Welch's F "
        f"{cite('welch1951')} under {result.permutations} permutations of the labels, "
        f"corrected for the largest statistic of each gate {cite('westfall1993')}."
    ],
    "gate_profiles": lambda result: [
        f"Intervals of mean gates between two bounds are those of Korn and Graubard "
        f"{cite('korn1998')}."
    ],
    "gates_over_training": lambda result: [
        f"During training, gates of {named(result.name)} were observed on "
        f"{as_count(result.images, 'image')} every {as_count(result.every, 'step')}."
    ],
}
"""Name of a plot -> the sentences about its result."""
