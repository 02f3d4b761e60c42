"""What a folder of runs contains: whole, growing and damaged recordings, and runs without one.

Manifests and settings are read, nothing else, so that hundreds of recordings are listed at once.
What was read is kept until the size or the modification time of its file changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from attnscope import layout
from attnscope.data.label_kinds import CLASS
from attnscope.errors import InputError
from attnscope.files import is_locked, read_json
from attnscope.integrity import open_regular
from attnscope.kinds import KINDS
from attnscope.recording.format import (
    FORMAT,
    Shard,
    expect_own_file,
    parse_items,
    parse_shard,
    shard_file,
    with_current_keys,
)
from attnscope.recording.places import capture_again, list_recordings
from attnscope.recording.recording import Recording
from attnscope.unfinished import how_to_continue

WHOLE: State = "whole"
GROWING: State = "growing"
INTERRUPTED: State = "interrupted"
DAMAGED: State = "damaged"
NOT_RECORDED: State = "not recorded"
TRAINING: State = "training"

State = Literal["whole", "growing", "interrupted", "damaged", "not recorded", "training"]


@dataclass(frozen=True)
class Entry:
    """A recording, or a run without one, as its files describe it."""

    label: str
    """Its path in the folder, without ``recordings``: ``cifar10-cbam/test``."""
    folder: Path
    """The recording, which may not be there yet; of a run without a recording, the run."""
    run: Path | None
    """The run folder that contains it, or that it is; None outside a run."""
    state: State
    note: str = ""
    """What is wrong or what is missing, in one line; empty for a whole recording."""
    network: str = ""
    data: str = ""
    split: str = ""
    images: int | None = None
    classes: int | None = None
    gates: int | None = None
    seed: int | None = None
    changed: float | None = None
    """When it was written, in seconds since 1970."""
    size: int | None = None
    """Bytes on disk."""

    @property
    def can_be_opened(self) -> bool:
        """Whether there is a manifest that says what was recorded."""
        return self.images is not None and self.state in (WHOLE, DAMAGED)


def label_of(root: Path, folder: Path) -> str:
    """Return the name of a recording or a run: its path in a folder, without ``recordings``.

    Args:
        root: the folder of all runs.
        folder: the recording or the run, a path that begins with ``root``.
    """
    place = folder.relative_to(root).parts
    parts = [part for part in place if part != layout.RECORDINGS]
    if not parts or place[0] == layout.RECORDINGS:
        parts = [root.resolve().name, *parts]
    return "/".join(parts)


def list_entries(root: Path) -> list[Entry]:
    """Return every recording in a folder, and every run that has none, sorted by their labels.

    Args:
        root: a folder of runs, a run, or a recording. It may be empty.

    Raises:
        InputError: AS620, the folder does not exist.
    """
    try:
        places, problems = list_recordings(root)
    except InputError as error:
        if error.code != "AS601":  # there is no recording yet
            raise
        places, problems = [], []
    found = [_recorded(root, place) for place in places]
    found += [_problem(root, error) for error in problems]
    runs = list(_runs(root))
    found += [entry for run in runs for entry in _unfinished(root, run)]
    found += [entry for entry in _unfinished(root, root, "") if entry not in found]
    with_recording = {entry.run for entry in found if entry.run is not None}
    found += [_unrecorded(root, run) for run in runs if run not in with_recording]
    return sorted(found, key=lambda entry: entry.label)


def folders_of_runs(root: Path) -> list[Path]:
    """Return the folders directly in a folder that have runs or recordings, sorted by name."""
    inner = (each for each in _folders(root) if not each.is_symlink() and each.name[0] != ".")
    return [folder for folder in inner if list_entries(folder)]


def read_accuracy(folder: Path) -> float:
    """Return the accuracy of a recording, 0 to 1, from two columns of its rows.

    It is NaN if the network gave no class scores, or the images have no class labels.

    Args:
        folder: a recording.

    Raises:
        InputError: it cannot be read.
    """
    from pyarrow import parquet  # imported here because the import takes time

    facts = _facts(folder)
    if not facts.has_accuracy:
        return float("nan")
    right = total = 0
    for shard in facts.shards:
        file = shard_file(folder, shard, layout.ROWS)
        try:
            with open_regular(file) as stream:
                table = parquet.read_table(stream, columns=["label", "prediction"])
            right += int(np.sum(table["label"].to_numpy() == table["prediction"].to_numpy()))
            total += table.num_rows
        except Exception as error:  # pyarrow raises OSError, ArrowInvalid and others
            raise _unreadable(folder, file, error) from None
    return right / total


@dataclass(frozen=True)
class _Facts:
    """What a manifest says."""

    described: dict[str, Any]
    """Fields of `Entry`."""
    has_accuracy: bool
    shards: tuple[Shard, ...]


def _facts(folder: Path) -> _Facts:
    file = expect_own_file(folder, folder / layout.MANIFEST)
    state = file.stat()
    return _read_facts(folder, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=4096)
def _read_facts(folder: Path, size: int, changed: int, number: int) -> _Facts:
    """Read a manifest; the other arguments change when the file changes."""
    manifest = read_json(folder / layout.MANIFEST)
    try:
        known = parse_items(manifest["gates"], dict)
        shards = tuple(parse_shard(shard) for shard in parse_items(manifest["shards"], dict))
        about = with_current_keys(dict(manifest["about"]))
        sound = (
            manifest["format"] == FORMAT
            and manifest.get("kind", "recording") == "recording"
            and all(gate["kind"] in KINDS for gate in known)
            and 0 < manifest["count"] == sum(shard.count for shard in shards)
        )
        described = {
            **_of_network(about.get("model")),
            "data": str(about.get("source") or ""),
            "split": str(about.get("split") or ""),
            "seed": _whole(about.get("seed")),
            "images": manifest["count"],
            "classes": len(parse_items(manifest["classes"], str)),
            "gates": len(known),
        }
        has_scores = bool(dict(manifest.get("output") or {}).get("scores", True))
        has_labels = manifest.get("label_kind", CLASS) == CLASS
    except (KeyError, TypeError, ValueError, AttributeError):
        sound = False
    if not sound:
        Recording(folder, read_rows=False)  # which says what is wrong
        raise InputError(
            "AS604",
            f"{folder / layout.MANIFEST} is not a valid manifest; {capture_again(folder)}",
        )
    return _Facts(described, has_scores and has_labels, shards)


def _of_network(model: object) -> dict[str, str]:
    if not isinstance(model, dict):
        return {"network": str(model or "")}
    attention = str(model.get("attention") or "")
    name = str(model.get("name") or model.get("target") or "")
    folded = model.get("folded")
    words = [name, *([attention] if attention not in ("", "none") else [])]
    return {"network": " ".join([*words, *(["folded"] if folded else [])])}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _recorded(root: Path, folder: Path) -> Entry:
    entry = Entry(label_of(root, folder), folder, _own_run(root, folder), WHOLE)
    try:
        changed = (folder / layout.MANIFEST).stat().st_mtime
        facts = _facts(folder)
        entry = replace(entry, changed=changed, **facts.described)
        return replace(entry, size=_size_of_shards(folder, facts.shards))
    except InputError as error:
        return replace(entry, state=DAMAGED, note=str(error))
    except OSError as error:
        problem = _unreadable(folder, folder / layout.MANIFEST, error)
        return replace(entry, state=DAMAGED, note=str(problem))


def _size_of_shards(folder: Path, shards: tuple[Shard, ...]) -> int:
    """Return the bytes of a recording.

    Raises:
        InputError: AS606, a file is missing or empty.
    """
    total = (folder / layout.MANIFEST).stat().st_size
    for shard in shards:
        for name in shard.sha256:
            file = folder / layout.SHARDS / shard.name / name
            try:
                size = file.stat().st_size
            except OSError as error:
                raise _unreadable(folder, file, error) from None
            if not size:
                raise _unreadable(folder, file, OSError(0, "it is empty"))
            total += size
    return total


def _unreadable(folder: Path, file: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0]
    return InputError(
        "AS606", f"{file} cannot be read ({reason}); restore it, or {capture_again(folder)}"
    )


def _problem(root: Path, error: InputError) -> Entry:
    """Describe a recording that `list_recordings` refuses; its message names it first."""
    words = error.message.split()[0]
    place = Path(words)
    try:
        label = label_of(root, place)
    except ValueError:
        label = words
    return Entry(label.removesuffix(f"/{layout.MANIFEST}"), place, None, DAMAGED, str(error))


def _own_run(root: Path, folder: Path) -> Path | None:
    """Return the run of a recording if it lies in the folder of all runs, too."""
    run = folder.parent.parent
    inside = folder.parent.name == layout.RECORDINGS and run.is_relative_to(root)
    return run if inside else None


def _runs(root: Path) -> Iterator[Path]:
    """Yield the run folders: the folder itself, or those directly in it."""
    inside = root.resolve()
    for place in (root, *_folders(root)):
        is_run = not place.name.startswith(".") and (place / layout.CONFIG).is_file()
        if is_run and place.resolve().is_relative_to(inside):
            yield place


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:  # what cannot be read is named by `list_recordings`
        return []


def _unfinished(root: Path, folder: Path, place: str = layout.RECORDINGS) -> Iterator[Entry]:
    """Yield the recordings that are being written in a folder, or were interrupted."""
    for partial in _folders(folder / place):
        name = partial.name
        if not (name.startswith(".") and name.endswith(layout.PARTIAL_SUFFIX)):
            continue
        if partial.is_symlink():  # nothing outside the folder is read
            continue
        try:
            plan = read_json(partial / layout.PLAN)
            about = with_current_keys(dict(plan["about"]))
        except (InputError, OSError, KeyError, TypeError, ValueError):
            continue  # another output, or not begun
        target = partial.with_name(name[1 : -len(layout.PARTIAL_SUFFIX)])
        if (target / layout.MANIFEST).is_file():
            continue
        wanted, each = _whole(plan.get("images")), _whole(plan.get("images_a_shard"))
        shards = sum(1 for shard in _folders(partial / layout.SHARDS) if shard.name[0] != ".")
        done = shards * each if each else None
        if done is not None and wanted is not None:
            done = min(done, wanted)
        share = f"{done or 0:,} of {wanted:,} images" if wanted else f"{shards} shards"
        is_growing = is_locked(target.with_name(f".{target.name}{layout.LOCK_SUFFIX}"))
        run = folder if place else None
        network = _of_network(about.get("model"))
        yield Entry(
            label_of(root, target),
            target,
            run,
            GROWING if is_growing else INTERRUPTED,
            f"{share} are recorded" + ("" if is_growing else "; the same command continues"),
            network=network["network"],
            data=str(about.get("source") or ""),
            split=str(about.get("split") or ""),
            seed=_whole(about.get("seed")),
            changed=partial.stat().st_mtime,
        )


def _unrecorded(root: Path, run: Path) -> Entry:
    """Describe a run without a recording."""
    entry = Entry(label_of(root, run), run, run, NOT_RECORDED, "it has no recording")
    try:
        state = (run / layout.CONFIG).stat()
        described = _read_run(run, state.st_size, state.st_mtime_ns)
        entry = replace(entry, changed=state.st_mtime, size=_size_of_files(run), **described)
    except (InputError, OSError, TypeError) as error:
        return replace(entry, state=DAMAGED, note=str(error))
    ended = any((run / name).is_file() for name in (layout.RESULT, layout.FOLD))
    if ended and (run / layout.WEIGHTS).is_file():
        return entry
    if is_locked(run.with_name(f".{run.resolve().name}{layout.LOCK_SUFFIX}")):
        return replace(entry, state=TRAINING, note="it is being trained")
    note = f"its training has not finished; {how_to_continue(run)}"
    return replace(entry, state=INTERRUPTED, note=note)


@lru_cache(maxsize=4096)
def _read_run(run: Path, size: int, changed: int) -> dict[str, Any]:
    """Read the settings of a run; the other arguments change when they change."""
    config = read_json(expect_own_file(run, run / layout.CONFIG))
    if not isinstance(config, dict):
        raise InputError("AS531", f"{run / layout.CONFIG} is not that of a run; train it again")
    file = run / layout.MODEL
    model = read_json(expect_own_file(run, file)) if file.is_file() else None
    classes = config.get("classes")
    return {
        **_of_network(model),
        "data": str(config.get("data") or ""),
        "seed": _whole(config.get("seed")),
        "classes": len(classes) if isinstance(classes, list) else None,
    }


def _size_of_files(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
