"""``attnscope capture``"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from attnscope.commands.options import NetworkOptions, Split
from attnscope.errors import InputError

if TYPE_CHECKING:
    from attnscope.recording.moments import Moments
    from attnscope.recording.recording import Recording
    from attnscope.sources import Source


@dataclass(frozen=True)
class Capture:
    """Record every gate, the logits and Grad-CAM of a network over a part of its data."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run folder. Or name a network that attnscope did not train, with --model and --data."""
    network: tyro.conf.OmitArgPrefixes[NetworkOptions] = field(default_factory=NetworkOptions)
    skip_unreadable: bool = False
    """Go on without images that cannot be read; they are named."""
    split: Split = "test"
    """Which images."""
    untrained: bool = False
    """The run's architecture with fresh random weights, as a control. The folder is then
    RUN/untrained/SPLIT, which figures and dashboard do not look into."""
    out: Path | None = None
    """The folder of the recording, which must not exist. Default: RUN/recordings/SPLIT."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay at the training, or data."""
    grad_cam_layer: tuple[str, ...] = ()
    """Paths of modules. Default: the one with the last map larger than 1×1."""
    no_grad_cam: bool = False
    """Record no Grad-CAM."""
    batch_size: int = 128
    """Batch size."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast; float32 is stored either way."""
    moments: bool = False
    """Record sums over the images of each class, and no single image. The folder is then
    RUN/moments/SPLIT, or RUN/untrained/moments/SPLIT."""
    pooled_inputs: bool = False
    """Record also what each gate multiplies, pooled to the gate's own axes by the mean."""
    attribution: tuple[str, ...] = ()
    """Attribution methods to record beside Grad-CAM, each at the cost of many passes:
    integrated_gradients, layer_integrated_gradients, occlusion, or one that a plugin registers."""
    attribution_images: int = 200
    """Number of images, evenly over the data, of which --attribution is recorded."""
    shard_images: int = 2048
    """Images a shard, rounded up to whole batches: what is held in memory, what is kept when a
    capture is killed, and the least that a process of torchrun takes."""

    def __call__(self) -> None:
        from attnscope.capturing.settings import CaptureSettings
        from attnscope.files import refuse_existing
        from attnscope.training.processes import launched_process_group

        if self.no_grad_cam and self.grad_cam_layer:
            raise InputError("--no-grad-cam and --grad-cam-layer contradict; leave one of them out")
        settings = CaptureSettings(
            grad_cam_layers=() if self.no_grad_cam else self.grad_cam_layer or None,
            batch_size=self.batch_size,
            precision=self.precision,
            moments=self.moments,
            pooled_inputs=self.pooled_inputs,
            attributions=self.attribution,
            attribution_images=self.attribution_images,
            shard_images=self.shard_images,
        )
        source, out = self._choose()
        process_group = launched_process_group()
        if process_group.is_main:
            refuse_existing(out)

        from attnscope.capturing.run import capture_source
        from attnscope.training.devices import choose_device

        device = choose_device(self.device)
        recording = capture_source(
            source, out, settings, device=device, process_group=process_group
        )
        if process_group.is_main:
            _announce(recording, self.pooled_inputs)

    def _choose(self) -> tuple[Source, Path]:
        """What is captured, and where to."""
        if (self.run is None) == (self.network.model is None):
            raise InputError("capture takes a run folder, or --model with --data and --out")
        if self.run is None:
            if self.untrained:
                raise InputError("--untrained is of a run, whose architecture is known")
            source = self.network.source(self.split, self.data_root, self.skip_unreadable)
            if self.out is None:
                raise InputError("--model needs --data (which images) and --out (the recording)")
            return source, self.out
        self.network.expect_none()

        from attnscope.runs import Run

        run = Run(self.run)
        default = run.captured_folder(self.split, untrained=self.untrained, moments=self.moments)
        source = run.source(
            self.split,
            data_root=self.data_root,
            untrained=self.untrained,
            skip_unreadable=self.skip_unreadable,
        )
        return source, self.out or default


def _announce(recording: Recording | Moments, pooled_inputs: bool) -> None:
    for line in recording.about["skipped"]:
        print(f"skipped {line}", file=sys.stderr)
    for gate in recording.gates if pooled_inputs else ():
        if gate.name not in recording.pooled_inputs:
            print(f"no pooled input of {gate.name}: it multiplies another gate", file=sys.stderr)
    print(
        f"{len(recording)} images, {len(recording.gates)} gates, "
        f"accuracy {recording.right.mean():.2%}: {recording.folder}"
    )
