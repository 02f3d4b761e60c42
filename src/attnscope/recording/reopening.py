"""Open the network and the images of a recording again.

They are looked for in the run in which the recording lies, or else where the manifest says that
they were. They are compared with the hashes in the plan of the recording, and refused if they have
changed. Torch is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import layout
from attnscope.errors import InputError, first_line
from attnscope.files import read_json
from attnscope.hashes import verify_hash, without_code
from attnscope.recording.format import expect_own_file
from attnscope.recording.places import capture_again, enclosing_run

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages
    from attnscope.sources import Dataset, Module, Source


def find_source(
    folder: Path,
    about: Mapping[str, Any],
    stored: object,
    data_root: Path | None,
    data: str | None = None,
) -> Source:
    """Return where the network and the images of a recording are now.

    Args:
        folder: The recording.
        about: Its facts about the capture.
        stored: The source in its manifest; None if there is none.
        data_root: Folder of torchvision's data sets, if they have moved since the capture.
        data: The data source with the place where the images are now, if they have moved.

    Raises:
        InputError: It is unknown.
    """
    run = enclosing_run(folder)
    if run is None and not isinstance(stored, dict):
        raise InputError(
            "AS640",
            f"{folder} does not say where its network and images come from, because it was made "
            "from Python, or by attnscope 0.1 and lies outside its run; create it again with: "
            f"attnscope capture --model TARGET --weights FILE --data SOURCE --out {folder.name}-2 "
            "(in Python, attnscope.interventions.InterventionSetup takes a model and its images)",
        )
    from attnscope.data.places import find_data, is_gone
    from attnscope.sources import Source, white_of

    skip = bool(about.get("skipped"))  # files that could not be read were left out of the capture
    if run is not None:
        split = str(about.get("split") or folder.resolve().name)
        source = Source.of_run(
            run,
            split,
            data=data,
            data_root=data_root,
            untrained=bool(about.get("untrained")),
            draw=int(about.get("draw", 0)),
            skip_unreadable=skip,
            allow_changed_data=bool(about.get("changed_data")),
        )
        if data is None and is_gone(source.data.source) and isinstance(stored, dict):
            # They may have moved between the training and the capture.
            with suppress(InputError, KeyError, TypeError, ValueError):
                known = find_data(stored["data"]["source"], stored.get("places"), folder)
                if not is_gone(known):
                    source = replace(source, data=replace(source.data, source=known))
        network = replace(
            source.network,
            weights_sha256=about.get("weights_sha256"),
            estimated_norms=bool(about.get("estimated_norms")),  # earlier versions did not
        )
        return replace(source, network=network, white=white_of(stored))
    assert isinstance(stored, dict)
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
            f"({first_line(error)}); {capture_again(folder)}",
        ) from None
    settings = replace(source.data, skip_unreadable=skip or source.data.skip_unreadable)
    if data is not None or not settings.is_data_set:
        place = data or find_data(settings.source, stored.get("places"), folder)
        settings = replace(settings, source=place)
    if data_root is not None:
        settings = replace(settings, data_root=data_root)
    return replace(source, data=settings)


def expect_fp32(folder: Path, about: Mapping[str, Any]) -> None:
    """Refuse a recording in another precision than that in which its network runs again.

    Args:
        folder: The recording.
        about: Its facts about the capture.

    Raises:
        InputError: AS807, it was not captured in fp32.
    """
    precision = about.get("precision", "fp32")
    if precision != "fp32":
        raise InputError(
            "AS807",
            f"{folder} was captured in {precision}, but its network runs again in fp32; "
            f"{capture_again(folder, '--precision', 'fp32')}",
        )


def open_network(folder: Path, source: Source) -> Module:
    """Load the network of a recording, in eval mode on the CPU.

    Raises:
        InputError: It no longer exists, or it has other weights.
    """
    from attnscope.networks.weights import hash_weights

    model = source.open_network()
    expected = _planned_hash(folder, "weights")
    if expected is not None and hash_weights(model) != expected:
        network = source.network
        remedy = f"restore them, or {capture_again(folder)}"
        if network.weights is None and not network.is_run:
            remedy = (
                "restore them; or, if it has other weights each time it is built, "
                f"{capture_again(folder, '--weights', 'FILE')}"
            )
        raise InputError(
            "AS642",
            f"the weights of {network.target} are not those from which {folder} was captured; "
            f"{remedy}",
        )
    return model


def open_images(folder: Path, source: Source) -> LabeledImages | Dataset[Any]:
    """Load the images of a recording, in its order.

    Raises:
        InputError: They no longer exist, or they are other images.
    """
    from attnscope.data.hashing import hash_data
    from attnscope.data.places import expect_place

    expected = _planned_hash(folder, "data")
    if expected is not None:
        # The recording tells whether they are its images, whatever those of the training were.
        source = replace(source, allow_changed_data=True)
    if not source.data.is_data_set:
        expect_place(source.data.source, folder)
    images = source.open_images()
    if expected is not None and hash_data(images) != expected:
        changes = _changes(folder, images)
        raise InputError(
            "AS643",
            f"the images of {source.data.source} are not those from which {folder} was captured"
            f"{changes and f' ({changes})'}; restore them, or {capture_again(folder)}",
        )
    return images


def _changes(folder: Path, images: LabeledImages | Dataset[Any]) -> str:
    """Return in words which images have changed, as far as the recording or its run can tell."""
    from attnscope.data.fingerprints import Fingerprints, differences_between, read_fingerprints
    from attnscope.data.images import LabeledImages

    run, split = enclosing_run(folder), folder.resolve().name
    files = [folder / layout.IMAGES, *([] if run is None else [run / layout.IMAGES])]
    for file in files:
        if file.is_file() and isinstance(images, LabeledImages):
            with suppress(InputError):
                known = read_fingerprints(file)
                if split in known and len(known) > 1:  # those of the run
                    known = {split: known[split]}
                now = {name: Fingerprints.of(images) for name in known}
                return "; ".join(differences_between(known, now))
    return ""


def _planned_hash(folder: Path, key: str) -> str | None:
    """Return a hash in the plan; None for recordings of version 0.1, which wrote no plan.

    Raises:
        InputError: The plan is missing (AS682) or has changed (AS681), although the manifest says
            which it is.
    """
    file = folder / layout.PLAN
    plan_id = read_json(folder / layout.MANIFEST).get("id")
    if isinstance(plan_id, str):
        for found in verify_hash(expect_own_file(folder, file), plan_id):
            code = "AS681" if file.is_file() else "AS682"
            raise InputError(code, f"{without_code(found)}; restore it, or {capture_again(folder)}")
    elif not file.is_file():
        return None
    plan = read_json(file)
    value = plan.get(key) if isinstance(plan, dict) else None
    return value if isinstance(value, str) else None
