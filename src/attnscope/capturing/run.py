"""Capture the network and images of a source: a run, or a network from elsewhere."""

from __future__ import annotations

from pathlib import Path

import torch

from attnscope.capturing.capture import capture
from attnscope.capturing.settings import CaptureSettings
from attnscope.files import StrPath
from attnscope.networks.memory import channels_last
from attnscope.recording.moments import Moments
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
) -> Recording | Moments:
    """Open a network and its images, and record every gate over them.

    Args:
        source: The network and the images.
        out: Folder of the recording. It must not exist.
        settings: What is recorded, and how.
        device: Device of the network; default the CPU.
        progress: Whether to show a progress bar.
        process_group: The processes that share the work.

    Returns:
        The recording, or moments if the settings say so.

    Raises:
        InputError: As `attnscope.sources.Source.open` and `attnscope.capture`.
    """
    subject = source.open()
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
        process_group=process_group,
    )


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
