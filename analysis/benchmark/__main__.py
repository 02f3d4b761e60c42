"""Measure ratios of speed: python -m analysis.benchmark NAME; --help lists the names.

The speed of a machine varies, so single times are not reliable. Every round times each variant
once, and the script prints the median over rounds of the ratio to the first variant of the round.
"""

from __future__ import annotations

import tyro

from analysis.benchmark.captures import memory, record
from analysis.benchmark.edits import interventions
from analysis.benchmark.networks import infer, recipe, train
from analysis.benchmark.permutations import statistics_of_a_recording
from analysis.benchmark.streamed import stream, stream_once

if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict(
        {
            "train": train,
            "infer": infer,
            "recipe": recipe,
            "capture": record,
            "memory": memory,
            "stream": stream,
            "stream-once": stream_once,
            "interventions": interventions,
            "statistics": statistics_of_a_recording,
        }
    )
