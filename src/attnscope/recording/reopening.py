"""The network and the images of a recording, opened again from where they came.

They are looked for in the run in which the recording lies, else where the manifest says that they
were. What is found is compared with the hashes in the recording's plan, so that it is the same or
refused. Imports torch when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.recording.places import home_run

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages
    from attnscope.sources import Module, Source


def find_source(
    folder: Path, about: Mapping[str, Any], stored: object, data_root: Path | None
) -> Source:
    """Where the network and the images of a recording are now.

    Args:
        folder: the recording.
        about: what it tells of itself.
        stored: what its manifest says of its source; None where it says nothing.
        data_root: where torchvision's sets lie now, if not where they lay.

    Raises:
        InputError: it is not known.
    """
    from attnscope.sources import Source

    skip = bool(about.get("skipped"))  # what could not be read then was left out
    run = home_run(folder)
    if run is not None:
        split = str(about.get("part") or folder.resolve().name)
        source = Source.of_run(
            run,
            split,
            data_root=data_root,
            untrained=bool(about.get("untrained")),
            skip_unreadable=skip,
        )
        network = replace(source.network, weights_sha256=about.get("weights_sha256"))
        return replace(source, network=network)
    if not isinstance(stored, dict):
        raise InputError(
            f"{folder} does not tell where its network and images come from: it was made from "
            "Python, or by attnscope 0.1 and lies in no run; make it again with attnscope capture"
        )
    try:
        source = Source.from_dict(stored)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):  # a source that is not registered here
            raise InputError(f"{folder} cannot be opened again: {error}") from None
        raise InputError(
            f"{folder / layout.MANIFEST} names no network and images ({first_line(error)}); "
            "capture again"
        ) from None
    data = replace(source.data, skip_unreadable=skip or source.data.skip_unreadable)
    if data_root is not None:
        data = replace(data, data_root=data_root)
    return replace(source, data=data)


def open_network(folder: Path, source: Source) -> Module:
    """The network of a recording, in eval mode on the CPU.

    Raises:
        InputError: it is not there any more, or it has other weights.
    """
    from attnscope.networks.weights import hash_weights

    model = source.open_network()
    expected = _planned(folder, "weights")
    if expected is not None and hash_weights(model) != expected:
        raise InputError(
            f"{source.network.target} has other weights now than those that {folder} was captured "
            "from; restore them, or capture again"
        )
    return model


def open_images(folder: Path, source: Source) -> LabeledImages:
    """The images of a recording, in its order.

    Raises:
        InputError: they are not there any more, or they are others.
    """
    images = source.open_images()
    expected = _planned(folder, "data")
    if expected is not None and images.sha256() != expected:
        raise InputError(
            f"{source.data.source} has other images now than those that {folder} was captured "
            "from; restore them, or capture again"
        )
    return images


def _planned(folder: Path, key: str) -> str | None:
    """A hash of the plan; None of a recording of attnscope before there was a plan."""
    if not (folder / layout.PLAN).is_file():
        return None
    plan = read_json(folder / layout.PLAN)
    value = plan.get(key) if isinstance(plan, dict) else None
    return value if isinstance(value, str) else None
