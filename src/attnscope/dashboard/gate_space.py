"""Neighbors among the gates of images, by t-SNE, computed in the background and kept.

``python -m attnscope.dashboard.gate_space RECORDING GATE`` is what the dashboard starts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnscope.errors import InputError
from attnscope.files import refuse_path
from attnscope.recording.explored import read_explored, write_explored
from attnscope.recording.recording import Recording
from attnscope.signals import end_with_parent
from attnscope.statistics.embedding import gate_vectors, neighbor_embedding, sampled_rows

MOST = 2_000
"""Largest number of images that are placed: a random sample if there are more."""
_FEWEST = 4


@dataclass(frozen=True)
class Places:
    """Where t-SNE put the images of a sample."""

    rows: NDArray[np.int64]
    """Rows of the recording, ``(n,)``, sorted."""
    places: NDArray[np.float64]
    """``(n, 2)``, without units."""


def place_images(recording: Recording, gate: str, seed: int = 0) -> Places:
    """Place the gates of at most `MOST` images in the plane, and keep the result.

    Args:
        recording: recording of one network.
        gate: name of a gate.
        seed: seed of the sample and of the method.

    Raises:
        InputError: there is no gate of that name, a value is not finite (AS704), or there are fewer
            than four images (AS743).
    """
    rows = sampled_rows(len(recording), MOST, seed)
    vectors = gate_vectors(recording, gate, rows)
    if len(rows) < _FEWEST:
        raise InputError(
            "AS743",
            f"{recording.folder} has {len(rows)} images, but t-SNE needs at least {_FEWEST}; "
            "capture more images",
        )
    places = neighbor_embedding(vectors, seed)
    # Single precision, as the method computes: half the length of the file.
    shorter = [[float(f"{value:.7g}") for value in place] for place in places]
    write_explored(
        recording, _subject(gate), {"rows": rows.tolist(), "places": shorter, "seed": seed}
    )
    return Places(rows, np.array(shorter))


def placed_images(recording: Recording, gate: str) -> Places | None:
    """Return what `place_images` kept for the present recording, or None.

    Raises:
        InputError: the file cannot be read or has changed.
    """
    known = read_explored(recording, _subject(gate))
    if known is None:
        return None
    return Places(np.array(known["rows"], np.int64), np.array(known["places"], np.float64))


def _subject(gate: str) -> str:
    return f"t-SNE of gate {gate}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Place the images of one gate.

    Args:
        arguments: the path of a recording and the name of a gate. Default: those of this process.

    Returns:
        The exit code: 0, 2 for input that cannot be used, 130 after Ctrl-C.
    """
    end_with_parent()
    folder, gate = sys.argv[1:] if arguments is None else arguments
    try:
        recording = Recording(folder)
        count = min(len(recording), MOST)
        print(f"t-SNE of {count:,} images", flush=True)
        place_images(recording, gate)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, or a folder that may not be written
        print(refuse_path(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
