"""Open what is folded: the network and the images of a run or of a recording."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnscope import __version__
from attnscope.data.load import Data
from attnscope.data.places import places_of
from attnscope.errors import InputError
from attnscope.files import sha256_of
from attnscope.networks.weights import hash_weights
from attnscope.recording.moments import Moments
from attnscope.recording.places import is_captured
from attnscope.recording.recording import Recording
from attnscope.runs import Run, open_captured


def open_target(
    target: Run | Recording | Moments | str | os.PathLike[str],
) -> tuple[Run | Recording | Moments, str]:
    """Return a run, a recording or moments, and the path of it."""
    if isinstance(target, (Run, Recording, Moments)):
        return target, str(target.folder)
    if isinstance(target, (str, os.PathLike)):
        path = Path(target)
        return (open_captured(path) if is_captured(path) else Run(path)), str(path)
    raise TypeError(
        f"expected a Run, a Recording or the path of one, but got {type(target).__name__}"
    )


def expect_known_training(opened: Run | Recording | Moments, path: str, allowed: bool) -> None:
    """Refuse to allow changed data where the images that trained the network are not known.

    Args:
        opened: The run or the recording.
        path: Its path, for the message.
        allowed: Whether images that have changed are to be allowed.

    Raises:
        InputError: AS868.
    """
    if allowed and not isinstance(opened, Run) and not opened.source().network.is_run:
        raise InputError(
            "AS868",
            f"--allow-changed-data cannot be used with {path}, because nothing is known of the "
            "images that trained its network; leave it out",
        )


def open_network(opened: Run | Recording | Moments) -> tuple[nn.Module, str]:
    """Return the network of a run or of a recording, and the SHA-256 of its weights.

    For a network whose weights the user's own code makes, there is no file. The hash is then over
    its tensors.
    """
    if isinstance(opened, Run):
        return opened.model(), sha256_of(opened.weights_file)
    model = opened.network()
    return model, opened.source().network.weights_sha256 or hash_weights(model)


def open_data(
    opened: Run | Recording | Moments,
    place: str | None,
    data_root: Path | None,
    out: Path,
    *,
    allow_changed_data: bool,
) -> tuple[Data, dict[str, Any]]:
    """Return all splits with the network's normalization, and the settings of the new run.

    Args:
        opened: The run or the recording.
        place: The data source with the place where the images are now; None if they are found.
        data_root: As for `attnscope.fold`.
        out: The new run, which need not exist.
        allow_changed_data: As for `attnscope.fold`.
    """
    if isinstance(opened, Run):
        source = opened.source(
            data=place, data_root=data_root, allow_changed_data=allow_changed_data
        )
    else:
        source = opened.source(data_root, place)
        allowed = allow_changed_data or source.allow_changed_data
        source = replace(source, allow_changed_data=allowed)
    data, network = source.open_data(), source.network
    found: dict[str, Any] = {
        "places": places_of(source.data.source, source.data.data_root, out),
        **({"changed_data": data.changed} if data.changed else {}),
    }
    if network.is_run:
        config = Run(network.target).config
        if "parts" in config:
            found["parts"] = data.fingerprints()
        return data, {**config, **found}
    settings = asdict(source.data)
    return data, {
        "data": settings.pop("source"),
        **settings,
        "listed_classes": source.data.classes is not None,
        "data_root": str(source.data.data_root),
        "image_size": data.image_size,
        "model": network.target,
        "weights": None if network.weights is None else str(network.weights),
        "attnscope": __version__,
        "torch": torch.__version__,
        "classes": data.classes,
        "normalization": asdict(data.normalization),
        "parts": data.fingerprints(),
        **found,
    }
