"""Open the network and the images of a recording again.

They are looked for in the run in which the recording lies, or else where the manifest says that
they were. They are compared with the hashes in the plan of the recording, and refused if they have
changed. Torch is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.recording.places import enclosing_run

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages
    from attnscope.sources import Dataset, Module, Source


def find_source(
    folder: Path, about: Mapping[str, Any], stored: object, data_root: Path | None
) -> Source:
    """Return where the network and the images of a recording are now.

    Args:
        folder: The recording.
        about: Its facts about the capture.
        stored: The source in its manifest; None if there is none.
        data_root: Folder of torchvision's data sets, if they have moved since the capture.

    Raises:
        InputError: It is unknown.
    """
    from attnscope.sources import Source

    skip = bool(about.get("skipped"))  # files that could not be read were left out of the capture
    run = enclosing_run(folder)
    if run is not None:
        split = str(about.get("split") or folder.resolve().name)
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
            "AS640",
            f"{folder} does not say where its network and images come from, because it was made "
            "from Python, or by attnscope 0.1 and lies outside its run; create it again with: "
            f"attnscope capture --model TARGET --weights FILE --data SOURCE --out {folder.name}-2 "
            "(in Python, attnscope.interventions.InterventionSetup takes a model and its images)",
        )
    try:
        source = Source.from_dict(stored)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):  # a scheme or data source is not registered here
            raise InputError(
                "AS641",
                f"the network and images of {folder} cannot be opened: {first_line(error)}",
            ) from None
        raise InputError(
            "AS641",
            f"{folder / layout.MANIFEST} does not name a network and images "
            f"({first_line(error)}); capture again",
        ) from None
    data = replace(source.data, skip_unreadable=skip or source.data.skip_unreadable)
    if data_root is not None:
        data = replace(data, data_root=data_root)
    return replace(source, data=data)


def open_network(folder: Path, source: Source) -> Module:
    """Load the network of a recording, in eval mode on the CPU.

    Raises:
        InputError: It no longer exists, or it has other weights.
    """
    from attnscope.networks.weights import hash_weights

    model = source.open_network()
    expected = _planned_hash(folder, "weights")
    if expected is not None and hash_weights(model) != expected:
        raise InputError(
            "AS642",
            f"the weights of {source.network.target} are not those from which {folder} was "
            "captured; restore them, or capture again",
        )
    return model


def open_images(folder: Path, source: Source) -> LabeledImages | Dataset[Any]:
    """Load the images of a recording, in its order.

    Raises:
        InputError: They no longer exist, or they are other images.
    """
    from attnscope.data.hashing import hash_data

    images = source.open_images()
    expected = _planned_hash(folder, "data")
    if expected is not None and hash_data(images) != expected:
        raise InputError(
            "AS643",
            f"the images of {source.data.source} are not those from which {folder} was captured; "
            "restore them, or capture again",
        )
    return images


def _planned_hash(folder: Path, key: str) -> str | None:
    """Return a hash in the plan; None for recordings of versions that wrote no plan."""
    if not (folder / layout.PLAN).is_file():
        return None
    plan = read_json(folder / layout.PLAN)
    value = plan.get(key) if isinstance(plan, dict) else None
    return value if isinstance(value, str) else None
