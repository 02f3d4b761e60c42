"""The ``config.json`` of a run: reading it, and what must be as it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import layout
from attnscope.data.fingerprints import Fingerprints, differences_between, read_fingerprints
from attnscope.errors import InputError, first_line
from attnscope.files import is_there, read_json
from attnscope.hashes import expect_unchanged_file

if TYPE_CHECKING:
    from attnscope.data.images import LabeledImages

_SETTINGS = (
    *("data", "image_size", "resize", "validation_share", "skip_unreadable"),
    *("weights", "recipe", "epochs", "precision"),
)
"""Keys of ``config.json``. Runs that agree in all of them differ only in their seed."""
_IMAGE_SETTINGS: Mapping[str, object] = {
    "channels": None,
    "class_order": "text",
    "listed_classes": False,
}
"""More such keys, which are left out where they have these values, as in version 0.1.

With ``listed_classes``, the order of ``classes`` was given and not derived from the images."""

_UNSAID = ("about", "epochs", "network", "log_steps", "histogram_steps")
"""Keys of a recipe that change no training, or whose value for the run is beside the recipe."""
_NAMES = {"keeps": "kept weights", "weights": "initial weights"}
"""What settings are called, if not by their key."""

_TYPES: Mapping[str, tuple[type, str]] = {
    "data": (str, "a data source"),
    "seed": (int, "a whole number"),
    "image_size": (int, "a whole number"),
    "classes": (list, "a list of names"),
    "normalization": (dict, "an object"),
}
"""Types of settings that commands use, with the words for a message."""


def read_config(run: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a run.

    Args:
        run: a run folder.

    Raises:
        InputError: AS530, the folder does not exist; AS531, its ``config.json`` is not that of a
            run; or the file is missing or cannot be read.
    """
    if not run.is_dir():
        raise InputError(
            "AS530", f"run {run} does not exist; check the path or train it with attnscope train"
        )
    config = read_json(run / layout.CONFIG)
    if not isinstance(config, dict):
        raise bad_config(run, "it is not a JSON object")
    for name, (kind, words) in _TYPES.items():
        value = config.get(name)
        if name in config and (not isinstance(value, kind) or isinstance(value, bool)):
            raise bad_config(run, f"'{name}' is {value!r:.40} and must be {words}")
    return config


def image_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of channels and classes that ``config.json`` stores: the unusual ones.

    Args:
        settings: ``channels``, ``class_order`` and ``listed_classes``; other keys are ignored.
    """
    given = {key: settings.get(key, usual) for key, usual in _IMAGE_SETTINGS.items()}
    return {key: value for key, value in given.items() if value != _IMAGE_SETTINGS[key]}


def bad_config(run: Path, problem: str) -> InputError:
    """Return the error of a ``config.json`` that is not that of a run."""
    return InputError(
        "AS531",
        f"{run / layout.CONFIG} is not the configuration of a run ({problem}); "
        "restore it or train again",
    )


def explain_key(error: Exception) -> str:
    """Return what is wrong with a key of ``config.json``, in words."""
    return f"{error} is missing" if isinstance(error, KeyError) else first_line(error)


def hash_training(config: Mapping[str, Any]) -> str:
    """Return a hash that is equal for runs that differ only in their seed and machine."""
    settings = {key: config.get(key) for key in _SETTINGS}
    settings |= image_settings(config)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def training_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return in words in which settings two runs differ, beside the network and the seed.

    Args:
        a: The ``config.json`` of the first run.
        b: That of the second run.

    Returns:
        One phrase for each setting, such as ``epochs 4 and 60``. Data from two places is the same
        if its images and labels are.
    """
    first, second = (_said(config) for config in (a, b))
    if first["recipe"] != second["recipe"]:  # then everything in it can differ
        for said in (first, second):
            for key in [key for key in said if key.startswith("recipe.")]:
                del said[key]
    if a.get("parts") is not None and a.get("parts") == b.get("parts"):
        first["data"] = second["data"]
    return setting_differences(first, second)


def setting_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return in words which of these settings differ, with both values where they are short."""
    found = []
    for key in {**a, **b}:
        values = a.get(key), b.get(key)
        if values[0] == values[1]:
            continue
        name = key.rpartition(".")[2]
        words = [_NAMES.get(name, name.replace("_", " "))]
        if all(value is None or isinstance(value, str | int | float) for value in values):
            words.append(" and ".join(map(_as_word, values)))
        found.append(" ".join(words))
    return found


def _said(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a training by name, those of its recipe with ``recipe.`` before."""
    said = {key: config.get(key) for key in ("epochs", *_SETTINGS)}
    said |= {key: config.get(key, usual) for key, usual in _IMAGE_SETTINGS.items()}
    said["skip_unreadable"] = bool(said["skip_unreadable"])
    said["class_weights"] = config.get("class_weights", "none")
    recipe = config.get("recipe")
    if isinstance(recipe, dict):
        said["recipe"] = recipe.get("name")
        for key, value in recipe.items():
            inner = value if isinstance(value, dict) else {"": value}
            if key not in (*_UNSAID, "name"):
                said |= {f"recipe.{key}.{name}".rstrip("."): each for name, each in inner.items()}
    return said


def _as_word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def expect_classes(run: Path, source: str, classes: list[str]) -> None:
    """Check that the classes of the images are those that a run was trained with.

    Raises:
        InputError: AS537, they differ.
    """
    expected = read_config(run).get("classes")
    if expected is None:
        raise bad_config(run, "'classes' is missing")
    if classes != expected:
        raise InputError(
            "AS537",
            f"data {source} has {len(classes)} classes that are not the {len(expected)} classes "
            f"run {run} was trained with; restore the data or train again",
        )


def expect_unchanged(
    run: Path, source: str, splits: Mapping[str, LabeledImages], *, allowed: bool | None = False
) -> list[str]:
    """Check that images are those that a run was trained with.

    Runs of versions that stored no fingerprints of images have hashes of paths and labels, and the
    first ones have nothing: then as much is compared as is known.

    Args:
        run: the run folder.
        source: the data source, for the message.
        splits: some splits of it, as `attnscope.data.load.Data` has them.
        allowed: whether to go on with other images; None where nothing can allow it.

    Returns:
        What has changed, one phrase for each split; empty unless ``allowed``.

    Raises:
        InputError: AS538, they have changed. Or changes are allowed, and images that trained the
            network would be in another split now. AS119 or AS245, the fingerprints are damaged.
    """
    file = run / layout.IMAGES
    if is_there(file):
        expect_unchanged_file(run, layout.IMAGES)
        before = read_fingerprints(file)
        now = {name: Fingerprints.of(images) for name, images in splits.items()}
        changes = differences_between(before, now)
        unusable = _moved_from_training(before, now) if changes else ""
    else:
        changes, unusable = _changed_summaries(run, splits)
    if not changes:
        return []
    if not allowed or unusable:
        remedy = {True: f"because {unusable}", None: "or train again in another folder"}.get(
            allowed, "or go on with --allow-changed-data"
        )
        raise InputError(
            "AS538",
            f"the data {source} has changed since run {run} was trained: {'; '.join(changes)}; "
            f"restore the images, {remedy}",
        )
    return changes


def _moved_from_training(
    before: Mapping[str, Fingerprints], now: Mapping[str, Fingerprints]
) -> str:
    """Return in words which images that trained the network are in another split now."""
    trained = set(before["train"].paths) if "train" in before else set()
    for name in now:
        moved = [path for path in now[name].paths if path in trained] if name != "train" else []
        if moved:
            return (
                f"{len(moved)} of the {name} images have trained the network (such as {moved[0]})"
            )
    return ""


def _changed_summaries(run: Path, splits: Mapping[str, LabeledImages]) -> tuple[list[str], str]:
    """Return which splits have other paths or labels, and why this cannot be allowed, if so."""
    from attnscope.data.load import summary_of

    stored = read_config(run).get("parts")
    changes, unusable = [], ""
    for name, split in splits.items():
        expected = stored.get(name) if isinstance(stored, dict) else None
        found = summary_of(split)
        if isinstance(expected, dict) and found != expected:
            then, here = expected.get("images"), found["images"]
            changes.append(
                f"the {name} split has {here} images instead of {then}"
                if then != here
                else f"the {name} split has other images or labels"
            )
            if name != "test":
                unusable = f"this run does not say which of the {name} images have trained it"
    return changes, unusable
