"""What the network of a recording makes of an image that a visitor sends."""

from __future__ import annotations

from dataclasses import dataclass

import layouts
import numpy as np
from numpy.typing import NDArray

from attnscope.errors import InputError
from cached import live
from cached.caching import statistic
from cached.found import Run


@dataclass(frozen=True)
class Seen:
    """An image as the network received it, and what the network made of it."""

    picture: NDArray[np.uint8]
    """``(size, size, 3)``, as the network received it, without the normalization."""
    about: str
    """What was done to the image, in one sentence or more."""
    logits: NDArray[np.float32] | None
    """``(K,)``; None without class scores."""
    gates: dict[str, NDArray[np.float32]]
    """Each gate, ``(1, ...)``."""
    grad_cam: NDArray[np.float32] | None
    """Signed Grad-CAM for the predicted class, ``(1, h, w)``; None if it cannot be computed."""


@statistic
def look(run: Run, sha256: str, _content: bytes) -> Seen:
    """Decode an image, prepare it as the recorded ones, and run the network on it.

    Args:
        run: the recording.
        sha256: hash of the content, by which results are found again.
        _content: the file.

    Raises:
        InputError: the network is not found, it is not known how images are prepared, or the file
            cannot be used.
    """
    from attnscope.data.uploads import decode_upload  # imports torch, which takes seconds

    network = live.network(run)
    how = network.preparation
    found = decode_upload(
        _content, how.size, resized=how.resized, channels=how.channels, white=how.white
    )
    x = network.prepare(found.pixels)
    gates = network.gates(x)
    logits, cam = None, None
    if run.recording.has_scores:
        logits = network.scores(x)[0]
        try:
            cam = network.attributions(x, [int(logits.argmax())])
        except InputError:  # no layer has a feature map
            cam = None
    pixels = found.pixels.permute(1, 2, 0).numpy()
    picture = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1].repeat(3, 2)
    return Seen(np.ascontiguousarray(picture), _about(found, how), logits, gates, cam)


def shown(seen: Seen) -> bytes:
    """Return the picture as PNG."""
    return layouts.enlarged(seen.picture)


def _about(found: object, how: object) -> str:
    from attnscope.data.uploads import Upload
    from attnscope.live import Preparation

    assert isinstance(found, Upload)
    assert isinstance(how, Preparation)
    color = {1: "gray", 3: "RGB"}.get(how.channels, f"{how.channels} channels")
    resized = f"resized to {how.size}×{how.size} pixels"
    if how.resized != how.size:
        resized = f"resized to {how.resized} pixels and cropped to {how.size}×{how.size}"
    means, stds = (
        ", ".join(f"{value:.3g}" for value in values)
        for values in (how.normalization.mean, how.normalization.std)
    )
    notes = "".join(f" {note[0].upper()}{note[1:]}." for note in found.notes)
    return (
        f"{found.kind} of {found.width}×{found.height} pixels, {resized}, {color}, normalized by "
        f"mean {means} and standard deviation {stds}.{notes}"
    )
