"""Options that several commands share, and the lines that several commands print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from attnscope.commands.parsing import Argument
from attnscope.errors import InputError, printable
from attnscope.registry import loaded_by_hand
from attnscope.shell import shell_command

if TYPE_CHECKING:
    from attnscope.recording.moments import Moments
    from attnscope.recording.reader import ShardReader
    from attnscope.recording.recording import Recording
    from attnscope.sources import Source

RunArgument = Annotated[Path, Argument(positional=True, metavar="RUN")]
RunsArgument = Annotated[tuple[Path, ...], Argument(positional=True, metavar="RUN")]
RecordingArgument = Annotated[Path, Argument(positional=True, metavar="RECORDING")]
FolderArgument = Annotated[Path, Argument(positional=True, metavar="FOLDER")]
TargetArgument = Annotated[str, Argument(positional=True, metavar="TARGET")]
MasksOption = Annotated[Path | None, Argument(metavar="PATH")]
MovedDataArgument = Annotated[str | None, Argument(metavar="SOURCE")]
Split = Literal["train", "validation", "test"]


def _list_sources() -> str:
    """The choices of ``--data``; made when the help is shown, after plugins are loaded."""
    from attnscope.data.known import describe_sources

    return f"{describe_sources()}."


DataArgument = Argument(metavar="SOURCE", more_help=_list_sources)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 gate``, ``16 gates``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def plugin_options() -> list[str]:
    """The options with which a command in another process loads the plugins of this process."""
    return [f"--plugin={module}" for module in loaded_by_hand()]


@dataclass(frozen=True)
class NetworkOptions:
    """Network that attnscope did not train."""

    model: Annotated[str | None, Argument(metavar="TARGET")] = None
    """Network: timm:NAME, torchvision:NAME, folded:FOLDER or package.module:callable."""
    weights: Path | None = None
    """Weights of --model: a safetensors file or a PyTorch state dict. Default: the weights that the
    network is built with."""
    data: Annotated[str | None, DataArgument] = None
    """Data source for --model, or package.module:callable, which returns a data set of tensors. For
    a run: where its images are now, if they have moved. Choices:"""
    image_size: int | None = None
    """Height and width of the images in pixels. Default: 32. For folder:PATH, the default is the
    size of the images if all are square and have the same size of at most 96, else 224."""
    channels: int | None = None
    """Channels of the images: 1 (gray), 3 (RGB) or 4 (RGBA files). Default: 3."""
    class_order: Literal["text", "natural"] | None = None
    """Order of the class folders: 0, 1, 10, 2 (text) or 0, 1, 2, 10 (natural). Default: text, as in
    torchvision."""
    classes: Annotated[Path | None, Argument(metavar="FILE")] = None
    """Text file with the classes in the order of the network's outputs, one per line. It may name
    more classes than the images have."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean for normalization (red, green, blue), for pixel values in 0 to 1. Default:
    the values that timm or torchvision give for the network, else the mean of the training
    split."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation for normalization. Default: as for --mean."""
    output: Annotated[str | None, Argument(metavar="OUTPUT")] = None
    """Output of --model that has the class scores: a key, an index, package.module:function, or a
    form of scores, such as probabilities, one_logit, or none to record gates only. Default:
    inferred from the output for four images."""

    def expect_none(self, given: str = "a run folder", but: Sequence[str] = ()) -> None:
        """Refuse these options where no network is given.

        Args:
            given: What is given in its place.
            but: Names of options that can be used with it.

        Raises:
            InputError: one of them is given.
        """
        for name, value in vars(self).items():
            if value is not None and name not in but:
                option = name.replace("_", "-")
                raise InputError("AS957", f"--{option} cannot be used with {given}; leave it out")

    def source(self, split: str, data_root: Path | None, skip_unreadable: bool) -> Source:
        """The network and a split of the images.

        Raises:
            InputError: an option is missing or cannot be used.
        """
        if self.model is None or self.data is None:
            raise InputError("AS958", "--model needs --data; name the data source with --data")
        if (self.mean is None) != (self.std is None):
            given, other = ("--mean", "--std") if self.mean else ("--std", "--mean")
            raise InputError("AS958", f"{given} needs {other}; give both or neither")

        from attnscope.data.classes import read_class_names
        from attnscope.data.load import DataSettings
        from attnscope.data.normalization import Normalization
        from attnscope.networks.known import NetworkSource
        from attnscope.sources import Source

        given_values = Normalization(self.mean, self.std) if self.mean and self.std else None
        data = DataSettings(
            self.data,
            data_root or Path("data"),
            self.image_size,
            skip_unreadable=skip_unreadable,
            channels=self.channels,
            class_order=self.class_order or "text",
            classes=None if self.classes is None else read_class_names(self.classes),
        )
        network = NetworkSource(self.model, self.weights, normalization=given_values)
        return Source(network, data, split)


def expect_own_images(options: NetworkOptions, allow_changed_data: bool) -> None:
    """Refuse --allow-changed-data for a network whose training images are not known.

    Raises:
        InputError: AS957.
    """
    if allow_changed_data and options.model is not None:
        raise InputError(
            "AS957",
            "--allow-changed-data cannot be used with --model, because nothing is known of the "
            "images that trained the network; leave it out",
        )


def expect_image_size(size: int) -> None:
    """Refuse an image size that is too small for a network.

    Raises:
        InputError: it is below 8 pixels.
    """
    if size < 8:
        raise InputError("AS960", f"the image size is {size}; it must be at least 8")


def announce_run(run: Path, captured: bool = False) -> None:
    """Print the accuracy of a run and the next command, unless the run is captured now."""
    from attnscope.runs import Run

    result = Run(run).result
    precision = result.get("precision", "fp32")
    print(
        f"Test accuracy: {result['test']['accuracy']:.2%} ({result['weights']} weights"
        f"{'' if precision == 'fp32' else f', in {precision}'}), "
        f"{result['seconds_per_step']:.2f} s per step"
    )
    print(printable(f"Run folder: {run}"))
    if not captured:
        print(printable(f"Next: {shell_command('capture', run)}"))


def announce_recording(recording: Recording | Moments, pooled_inputs: bool = False) -> None:
    """Print what was recorded and where, and on stderr what a user should know about it.

    Args:
        recording: What was captured.
        pooled_inputs: Whether to name the gates without a pooled input.
    """
    from attnscope.capturing.advice import (
        advise_classes,
        describe_accuracy,
        describe_difference,
        describe_input,
    )
    from attnscope.recording.recording import Recording
    from attnscope.statistics.copies import describe_copies

    for line in recording.about["skipped"]:
        print(printable(f"Skipped {line}"), file=sys.stderr)
    for line in recording.about.get("notes", []):
        print(printable(f"{line[:1].upper()}{line[1:]}"), file=sys.stderr)
    if how := describe_input(recording):
        print(how, file=sys.stderr)
    if recording.has_accuracy and (advice := advise_classes(recording)):
        print(advice, file=sys.stderr)
    if recording.has_accuracy and (difference := describe_difference(recording)):
        print(difference, file=sys.stderr)
    if isinstance(recording, Recording) and (copies := describe_copies(recording)):
        print(copies, file=sys.stderr)
    for gate in recording.gates if pooled_inputs else ():
        if gate.name not in recording.pooled_inputs:
            print(
                f"{gate.name} has no pooled input because it multiplies another gate",
                file=sys.stderr,
            )
    accuracy = describe_accuracy(recording) if recording.has_accuracy else recording.no_accuracy
    where = printable(str(recording.folder))
    print(
        f"Recorded {counted(len(recording), 'image')} and {counted(len(recording.gates), 'gate')}, "
        f"{accuracy}: "
        f"{where}"
    )


def add_masks(runs: Sequence[Path], masks: Path | None) -> None:
    """Give the images of recordings masks, and print how many images have one.

    Args:
        runs: Runs or recordings.
        masks: As for `attnscope.recording.masking.add_masks`; None for nothing.

    Raises:
        InputError: The masks cannot be used.
    """
    if masks is None:
        return
    from attnscope.plots.localization_sentences import describe_masks
    from attnscope.recording.masking import add_masks as add

    for run in runs:
        facts = add(run, masks).facts
        print(f"Masks of {run}: {describe_masks(facts)}")
        for note in facts.notes:
            print(note[:1].upper() + note[1:], file=sys.stderr)


def announce_files(files: Sequence[Path]) -> None:
    """Print how many files were written, and where."""
    if not files:
        print("Wrote no file, because no figure could be drawn")
        return
    print(printable(f"Wrote {len(files)} files to {files[0].parent}"))


def verify_folder(folder: Path) -> str:
    """Verify a recording or moments.

    Returns:
        One line that says what they contain.

    Raises:
        InputError: a file is missing or has changed.
    """
    from attnscope.runs import open_captured

    recording = open_captured(folder)
    expect_whole(recording)
    images, gates = counted(len(recording), "image"), counted(len(recording.gates), "gate")
    return f"{recording.folder}: {images}, {gates}, all files are intact"


def expect_whole(recording: ShardReader) -> None:
    """Refuse a recording whose files have changed since they were written.

    Raises:
        InputError: a file is missing or has changed.
    """
    from attnscope.hashes import without_code
    from attnscope.recording.places import capture_again

    problems = recording.verify()
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise InputError(
            "AS962",
            f"{without_code(problems[0])}{more}; {capture_again(recording.folder)}",
        )
