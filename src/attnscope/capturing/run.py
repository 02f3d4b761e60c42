"""Capture what a source names: a run, or a network that attnscope did not train."""

from __future__ import annotations

from pathlib import Path

import torch

from attnscope.capturing.capture import capture
from attnscope.capturing.settings import CaptureSettings
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.sources import Source
from attnscope.training.processes import ProcessGroup

_ALONE = ProcessGroup()


def capture_source(
    source: Source,
    out: Path,
    settings: CaptureSettings,
    *,
    device: torch.device | None = None,
    progress: bool = True,
    process_group: ProcessGroup = _ALONE,
) -> Recording | Moments:
    """Opens a network and its images, and records what the network does on them.

    Args:
        source: of the two.
        out: the folder of the recording, which must not exist.
        settings: what is recorded.
        device: where the network runs; default the CPU.
        progress: of `capture`, as is ``process_group``.
        process_group: as there.

    Raises:
        InputError: as `attnscope.sources.Source.open` and `capture`.
    """
    subject = source.open()
    return capture(
        subject.model.to(device or "cpu").to(memory_format=torch.channels_last),
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
        process_group=process_group,
    )


def capture_run(
    run: Path,
    *,
    split: str = "test",
    out: Path | None = None,
    data_root: Path | None = None,
    batch_size: int = 128,
    progress: bool = True,
) -> Recording:
    """Records a run's network on a part of the data that it was trained with, on the CPU.

    Args:
        run: a run folder whose training ended.
        split: ``train`` (without augmentation), ``validation`` or ``test``.
        out: default ``RUN/recordings/SPLIT``.
        data_root: where torchvision's sets lie now; default where they lay at the training.
        batch_size: of `capture`, as is ``progress``.
        progress: as there.

    Raises:
        InputError: as `capture_source`.
    """
    of = Run(run)
    recording = capture_source(
        of.source(split, data_root=data_root),
        of.recording_folder(split) if out is None else out,
        CaptureSettings(batch_size=batch_size),
        progress=progress,
    )
    assert isinstance(recording, Recording)  # no moments were asked for
    return recording
