"""Capture the network and images of a source: a run, or a network from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attnscope.capturing.capture import capture
from attnscope.capturing.settings import CaptureSettings
from attnscope.errors import InputError
from attnscope.files import StrPath
from attnscope.networks.memory import channels_last
from attnscope.networks.output_forms import LOGITS
from attnscope.networks.output_functions import function_name
from attnscope.networks.outputs import Choice
from attnscope.recording.moments import Moments
from attnscope.recording.places import is_captured
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.sources import Source
from attnscope.training.processes import ProcessGroup

_SINGLE_PROCESS = ProcessGroup()


def capture_source(
    source: Source,
    out: Path,
    settings: CaptureSettings,
    *,
    device: torch.device | None = None,
    progress: bool = True,
    process_group: ProcessGroup = _SINGLE_PROCESS,
    again: bool = False,
) -> Recording | Moments:
    """Open a network and its images, and record every gate over them.

    Args:
        source: The network and the images.
        out: Folder of the recording. It must not exist.
        settings: What is recorded, and how.
        device: Device of the network; default the CPU.
        progress: Whether to show a progress bar.
        process_group: The processes that share the work.
        again: Whether the network is to be opened again later, with the same weights.

    Returns:
        The recording, or moments if the settings say so.

    Raises:
        InputError: As `attnscope.sources.Source.open` and `attnscope.capture`.
    """
    subject = source.open(again)
    return capture(
        channels_last(subject.model.to(device or "cpu")),
        subject.images,
        out,
        normalization=subject.normalization,
        grad_cam_layers=settings.grad_cam_layers,
        batch_size=settings.batch_size,
        precision=settings.precision,
        about=subject.about,
        source=subject.source,
        progress=progress,
        moments=settings.moments,
        pooled_inputs=settings.pooled_inputs,
        attributions=settings.attributions,
        attribution_images=settings.attribution_images,
        shard_images=settings.shard_images,
        kinds=settings.kinds,
        output=settings.output,
        compile=settings.compile,
        process_group=process_group,
    )


def capture_once(
    source: Source,
    out: Path,
    settings: CaptureSettings,
    *,
    device: torch.device | None = None,
    progress: bool = True,
    process_group: ProcessGroup = _SINGLE_PROCESS,
    again: bool = False,
) -> Recording:
    """Capture as `capture_source` does, or open the recording if it was made before.

    What was recorded in addition to the gates, such as pooled inputs, is not compared.

    Args:
        source: As for `capture_source`.
        out: Folder of the recording, which may exist.
        settings: As for `capture_source`; not of moments.
        device: As for `capture_source`.
        progress: As for `capture_source`.
        process_group: As for `capture_source`.
        again: As for `capture_source`.

    Raises:
        InputError: As `capture_source`; AS644, the folder has a recording of another network, other
            images or another output; AS330 or AS331, the weights are missing or have changed since.
    """
    if is_captured(out):
        recording = Recording(out)
        other = source.difference(recording.source()) or _other_output(
            settings.output, recording.output
        )
        if other is not None:
            raise InputError(
                "AS644",
                f"{out} was recorded with {other}; choose another folder with --out, or remove the "
                "recording",
            )
        return recording
    captured = capture_source(
        source,
        out,
        settings,
        device=device,
        progress=progress,
        process_group=process_group,
        again=again,
    )
    assert isinstance(captured, Recording), "moments are no recording"
    return captured


def _other_output(chosen: Choice | None, recorded: Mapping[str, Any]) -> str | None:
    """Return in words which output was recorded instead of the chosen one; None if it was it."""
    if chosen is None:
        return None
    path = ".".join(map(str, recorded.get("path", [])))
    names = {path, recorded.get("function"), recorded.get("form", LOGITS)}
    name = str(chosen) if isinstance(chosen, str | int) else function_name(chosen)
    if name in names:
        return None
    return f"output {path or recorded.get('form', LOGITS)}, not {name}"


def capture_run(
    run: StrPath,
    *,
    split: str = "test",
    out: StrPath | None = None,
    data_root: StrPath | None = None,
    batch_size: int = 128,
    progress: bool = True,
) -> Recording:
    """Record the network of a run on a split of its data, on the CPU.

    Args:
        run: Run folder of a network whose training has finished.
        split: ``train`` (without augmentation), ``validation`` or ``test``.
        out: Folder of the recording; default ``RUN/recordings/SPLIT``.
        data_root: Folder of torchvision's data sets; default: the folder used for training.
        batch_size: Batch size.
        progress: Whether to show a progress bar.

    Raises:
        InputError: As `capture_source`.
    """
    opened = Run(run)
    recording = capture_source(
        opened.source(split, data_root=None if data_root is None else Path(data_root)),
        opened.recording_folder(split) if out is None else Path(out),
        CaptureSettings(batch_size=batch_size),
        progress=progress,
    )
    assert isinstance(recording, Recording)  # the settings ask for no moments
    return recording
