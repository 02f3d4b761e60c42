"""Options that several commands share, and what they print."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from attnscope.errors import InputError
from attnscope.registry import loaded_by_hand

if TYPE_CHECKING:
    from attnscope.recording.reader import ShardReader
    from attnscope.sources import Source

RunArgument = Annotated[Path, tyro.conf.Positional]
NameArgument = Annotated[str, tyro.conf.Positional]
RunsArgument = Annotated[tuple[Path, ...], tyro.conf.Positional]
Split = Literal["train", "validation", "test"]


def _list_sources(default: str) -> str:
    """What --data can be; asked when help is shown, and so after plugins are loaded."""
    from attnscope.data.known import describe_sources

    return f"{describe_sources()}. (default: {default})"


DataArgument = tyro.conf.arg(help_behavior_hint=_list_sources)


def plugin_options() -> list[str]:
    """The options with which a command in another process loads the plugins of this one."""
    return [f"--plugin={module}" for module in loaded_by_hand()]


@dataclass(frozen=True)
class NetworkOptions:
    """A network that attnscope did not train."""

    model: str | None = None
    """timm:NAME, torchvision:NAME, or package.module:callable of your own."""
    weights: Path | None = None
    """Of --model: safetensors, or a state dict."""
    data: Annotated[str | None, DataArgument] = None
    """Data source of --model:"""
    image_size: int | None = None
    """Of --model, in pixels. Default: 32; of a folder the images' own size where all are squares of
    one size up to 96, else 224."""
    mean: tuple[float, float, float] | None = None
    """Of --model: per-channel mean for normalization, of red, green and blue in 0 to 1. Default:
    timm's or torchvision's, else the mean of the training split."""
    std: tuple[float, float, float] | None = None
    """Of --model: per-channel standard deviation for normalization."""

    def expect_none(self) -> None:
        """Refuse all of them, where a run is given.

        Raises:
            InputError: one of them is given.
        """
        for name, value in vars(self).items():
            if value is not None:
                option = name.replace("_", "-")
                raise InputError(f"--{option} is for --model; a run knows its own, leave it out")

    def source(self, split: str, data_root: Path | None, skip_unreadable: bool) -> Source:
        """The network, and a split of the images.

        Raises:
            InputError: an option is missing, or cannot be used.
        """
        if self.model is None or self.data is None:
            raise InputError("--model needs --data (which images) and --out (the recording)")
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean and --std belong together; give both or none")

        from attnscope.data.load import DataSettings
        from attnscope.data.normalization import Normalization
        from attnscope.networks.source import NetworkSource
        from attnscope.sources import Source

        given = Normalization(self.mean, self.std) if self.mean and self.std else None
        data = DataSettings(
            self.data,
            data_root or Path("data"),
            self.image_size,
            skip_unreadable=skip_unreadable,
        )
        return Source(NetworkSource(self.model, self.weights, normalization=given), data, split)


def announce_run(run: Path) -> None:
    """Print the accuracy of a run and the next command."""
    from attnscope.runs import Run

    result = Run(run).result
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
    from attnscope.runs import open_captured

    recording = open_captured(folder)
    expect_whole(recording)
    return f"{recording.folder}: {len(recording)} images, {len(recording.gates)} gates, all well"


def expect_whole(recording: ShardReader) -> None:
    """Refuse a recording whose files are not as they were written.

    Raises:
        InputError: a file is missing or has changed.
    """
    found = recording.verify()
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"{found[0]}{more}; capture again")
