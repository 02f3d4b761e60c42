"""Time and memory of statistics with permutations."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from attnscope.kinds import Gate
from attnscope.recording.recording import Recording, RecordingWriter
from attnscope.statistics import (
    between_class_variance,
    class_selectivity,
    error_position_summary,
    linear_probe,
    permuted_channel_effects,
    state_sweep,
)


def statistics_of_a_recording(
    images: int = 10_000,
    channels: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 512, 512),
    permutations: int = 1000,
    timed_channels: int = 4,
    probe: bool = False,
    classes: int = 10,
    errors: float = 0.0,
) -> None:
    """Compare statistics with permutations with a loop of SciPy calls per channel.

    Args:
        images: number of images with random gates.
        channels: number of channels of each gate.
        permutations: number of permutations of the labels, for both.
        timed_channels: number of channels on which the loop is timed, with a fiftieth of the
            permutations. The time of the whole loop is extrapolated. 0: no loop.
        probe: also measure the linear probe, which has no counterpart in the loop.
        classes: number of classes.
        errors: share of misclassified images, whose positions are measured, too, if it is not 0.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(images) % classes
    predictions = np.where(np.arange(images) < errors * images, (labels + 1) % classes, labels)
    gates = [
        Gate(f"layer{i}.channel", "channel", width, None, "sigmoid", 0, 1, 1)
        for i, width in enumerate(channels)
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "recording"
        with RecordingWriter(
            place,
            gates=gates,
            classes=[f"class {k}" for k in range(classes)],
            grad_cam_layers=[],
            about={},
        ) as writer:
            for start in range(0, images, 2048):
                own, said = (each[start : start + 2048] for each in (labels, predictions))
                arrays = {
                    f"gate/{gate.name}": rng.random((len(own), gate.channels), np.float32)
                    for gate in gates
                }
                arrays["logits"] = np.eye(classes, dtype=np.float32)[said]
                rows = {"path": own.astype(str), "label": own, "prediction": said, "loss": 0.0}
                writer.add_shard(arrays, pd.DataFrame(rows))
        recording = Recording(place)
        names = [gate.name for gate in gates]

        def each(function: Callable[..., pd.DataFrame]) -> Callable[[], object]:
            return lambda: [function(recording, name, permutations) for name in names]

        variants: dict[str, Callable[[], object]] = {
            "class_selectivity": each(class_selectivity),
            "permuted_channel_effects": each(permuted_channel_effects),
            "state_sweep": lambda: state_sweep(recording),
            "between_class_variance": lambda: between_class_variance(recording, permutations),
        }
        if probe:
            variants["linear_probe"] = lambda: linear_probe(recording, permutations)
        if errors:
            variants["error_position_summary"] = lambda: error_position_summary(recording)
        seconds, busy = {}, {}
        for name, run in variants.items():
            began, used = time.perf_counter(), time.process_time()
            run()
            seconds[name] = time.perf_counter() - began
            busy[name] = time.process_time() - used
        values = recording.gate(names[-1])[:, :timed_channels].astype(np.float64)
    print(
        f"{images} images, {sum(channels)} channels, {classes} classes, {permutations} permutations"
    )
    # On a machine with other work, CPU time is more reliable than wall-clock time.
    for name, taken in seconds.items():
        print(f"{name:36} {taken:9.1f} s, CPU time {busy[name]:9.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak resident memory, including torch and all imports: {peak:.0f} MB")
    if not timed_channels:
        return
    tried = max(permutations // 50, 1)
    began, used = time.perf_counter(), time.process_time()
    for _ in range(tried):
        order = rng.permutation(labels)
        for channel in values.T:
            stats.f_oneway(*(channel[order == k] for k in range(classes)))
    times = permutations * sum(channels) / (tried * timed_channels)
    loop = f"a loop over f_oneway, times {times:.0f}"
    seconds[loop] = (time.perf_counter() - began) * times
    busy[loop] = (time.process_time() - used) * times
    print(f"{loop:36} {seconds[loop]:9.1f} s, CPU time {busy[loop]:9.1f} s")
    ratios = [found[loop] / found["permuted_channel_effects"] for found in (seconds, busy)]
    print(
        f"the loop takes {ratios[0]:.0f} times as long as permuted_channel_effects, or "
        f"{ratios[1]:.0f} times by CPU time"
    )
