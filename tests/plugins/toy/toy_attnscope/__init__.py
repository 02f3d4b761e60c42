"""A plugin: it adds a data source, an operation, a gate kind, a statistic and a plot.

attnscope does not mention it. Its metadata declares the entry point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attnscope.data.sources import DataRequest, DataSource, LoadedSplits, register_data_source
from attnscope.gates import bounded_activation, register_operation
from attnscope.kinds import HAS_NEUTRAL, Kind, register_kind
from attnscope.plots import Plot, register_plot
from attnscope.recording.recording import Recording
from attnscope.statistics import statistic

PER_IMAGE = 6


def load_stripes(request: DataRequest) -> LoadedSplits:
    """Return two classes of images, whose upper or lower half is bright."""
    import torch

    from attnscope.data.images import LabeledImages

    size = request.image_size or 16

    def split(name: str) -> LabeledImages:
        labels = torch.arange(2 * PER_IMAGE) % 2
        noise = torch.Generator().manual_seed(len(name))
        shape = (len(labels), 3, size, size)
        images = torch.randint(0, 80, shape, dtype=torch.uint8, generator=noise)
        for row, label in enumerate(labels.tolist()):
            half = slice(0, size // 2) if label == 0 else slice(size // 2, size)
            images[row, :, half] += 120
        paths = [f"{name}/{row}" for row in range(len(labels))]
        return LabeledImages(images, labels, paths, ["upper", "lower"])

    return LoadedSplits([split("train"), split("test")], [])


register_data_source("halves", DataSource(load_stripes, help="toy pictures", image_size=16))

# The normal distribution function lies between 0 and 1. attnscope does not know it.
register_operation("special_ndtr", bounded_activation(0.0, 1.0))

register_kind(
    Kind(
        "row",
        "one value for each row of the image",
        lambda seen: seen.along == {"H"} and not seen.static,
        traits=frozenset({HAS_NEUTRAL}),
    )
)


@statistic("The mean gate of each row of the image.", takes=("recording", "gate"))
def row_means(recording: Recording, gate: str) -> pd.DataFrame:
    """Return one row for each row of the image, with the columns row and mean."""
    means = recording.gate(gate).mean(0, dtype=np.float64)
    return pd.DataFrame({"row": np.arange(len(means)), "mean": means})


@dataclass(frozen=True)
class RowGates:
    """The mean gates of rows."""

    frames: dict[str, pd.DataFrame]


def compute(recording: Recording) -> RowGates:
    """Compute the means of each gate of the kind ``row``."""
    gates = [gate.name for gate in recording.gates if gate.kind == "row"]
    return RowGates({gate: row_means(recording, gate) for gate in gates})


def draw(ax: Axes, shown: RowGates) -> Axes:
    """Draw a line for each gate."""
    for gate, frame in shown.frames.items():
        ax.plot(frame["row"], frame["mean"], label=gate)
    ax.set_xlabel("row of the image")
    ax.set_ylabel("mean gate")
    return ax


def caption(shown: RowGates) -> str:
    """Say how much the rows differ."""
    spread = max(np.ptp(frame["mean"].to_numpy()) for frame in shown.frames.values())
    return f"Mean gate of each row of the image; the rows differ by at most {spread:.3f}."


register_plot(
    Plot(
        name="row_gates",
        title="Row gates of the toy",
        about="Mean gate of each row of the image.",
        subject=Recording,
        compute=compute,
        draw=draw,
        caption=caption,
    )
)
