"""Options that several commands share, and what they print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from attnscope.errors import InputError

RunArgument = Annotated[Path, tyro.conf.Positional]
NameArgument = Annotated[str, tyro.conf.Positional]
RunsArgument = Annotated[tuple[Path, ...], tyro.conf.Positional]


@dataclass(frozen=True)
class DataOptions:
    """Which images."""

    data: str = "digits"
    """digits (included), cifar10, cifar100, or folder:PATH with train/CLASS/ and test/CLASS/."""
    data_root: Path = Path("data")
    """Where cifar10 and cifar100 lie, or are downloaded to."""
    image_size: int | None = None
    """Pixels. Default: the recipe's, or else 32; of a folder the images' own size where all are
    squares of one size up to 96, else 224."""
    validation_share: float = 0.1
    """Share of the training part that becomes validation, where the source has none."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read; they are named."""


@dataclass(frozen=True)
class ModelOptions:
    """Which network."""

    model: str | None = None
    """resnet18 (default), resnet34, resnet50, resnet101, resnet152 or cnn."""
    attention: str | None = None
    """none, se, eca or cbam. Default: cbam, or the recipe's."""
    placement: str | None = None
    """block (on each residual branch) or stage (after each of layer1 to layer4). Default: block,
    or the recipe's."""
    stem: str | None = None
    """cifar (3×3, for small images) or imagenet (7×7, stride 2). Default: cifar, or the
    recipe's."""
    width: int | None = None
    """Channels of layer1. Default: 64."""
    reduction: int = 16
    """Channels over hidden channels in a channel gate."""
    kernel_size: int = 7
    """Of a spatial gate's convolution, in pixels."""
    gate_start: str | None = None
    """half (gates begin near 0.5) or identity (at 1, so that they change nothing at first).
    Default: identity where gates are put into weights that have none, else half."""


def read_result(run: Path) -> dict[str, Any]:
    """What a training ended with: ``result.json`` of a run folder."""
    from attnscope.files import read_json

    result: dict[str, Any] = read_json(run / "result.json")
    return result


def announce_run(run: Path) -> None:
    """Print the accuracy of a run and the next command."""
    result = read_result(run)
    print(
        f"test accuracy {result['test']['accuracy']:.2%} ({result['weights']} weights), "
        f"{result['seconds_per_step']:.2f} s a step: {run}"
    )
    print(f"Next: attnscope capture {run}")


def announce_files(files: Sequence[Path]) -> None:
    """Print how many files were written where."""
    print(f"{len(files)} files in {files[0].parent}")


def verify_folder(folder: Path) -> str:
    """Verify a recording or moments; one line that says what they hold.

    Raises:
        InputError: a file is missing or has changed.
    """
    from attnscope.recording.moments import Moments
    from attnscope.recording.reader import captured_kind
    from attnscope.recording.recording import Recording

    recording: Moments | Recording
    recording = Moments(folder) if captured_kind(folder) == "moments" else Recording(folder)
    found = recording.verify()
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"{found[0]}{more}; capture again")
    return f"{recording.folder}: {len(recording)} images, {len(recording.gates)} gates, all well"
