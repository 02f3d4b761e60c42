"""``attnscope capture``"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from attnscope.errors import InputError


@dataclass(frozen=True)
class Capture:
    """Record every gate, the logits and Grad-CAM of a network over a part of its data."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run folder. Or name a network that attnscope did not train, with --model and --data."""
    model: str | None = None
    """timm:NAME, torchvision:NAME, or package.module:callable of your own."""
    weights: Path | None = None
    """Of --model: safetensors, or a state dict."""
    data: str | None = None
    """Of --model: digits, cifar10, cifar100, or folder:PATH with train/CLASS/ and test/CLASS/."""
    image_size: int | None = None
    """Of --model, in pixels. Default: 32; of a folder the images' own size where all are squares of
    one size up to 96, else 224."""
    mean: tuple[float, float, float] | None = None
    """Of --model: what was subtracted from red, green and blue in 0 to 1. Default: timm's or
    torchvision's, else the mean of the training part."""
    std: tuple[float, float, float] | None = None
    """Of --model: by what the difference was divided."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read; they are named."""
    part: str = "test"
    """train, validation or test."""
    untrained: bool = False
    """The run's architecture with fresh random weights, as a control. The folder is then
    RUN/untrained/PART, which figures and dashboard do not look into."""
    out: Path | None = None
    """The folder of the recording, which must not exist. Default: RUN/recordings/PART."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay at the training, or data."""
    grad_cam_layer: tuple[str, ...] = ()
    """Paths of modules. Default: the one with the last map larger than 1×1."""
    no_grad_cam: bool = False
    """Record no Grad-CAM."""
    batch_size: int = 128
    """Images a forward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "fp32"
    """fp32 or bf16 (autocast); float32 is stored either way."""
    moments: bool = False
    """Record sums over the images of each class, and no single image. The folder is then
    RUN/moments/PART, or RUN/untrained/moments/PART."""
    pooled_inputs: bool = False
    """Record also what each gate multiplies, pooled to the gate's own axes by the mean."""
    shard_images: int = 2048
    """Images a shard, rounded up to whole batches: what is held in memory, what is kept when a
    capture is killed, and the least that a process of torchrun takes."""

    def __call__(self) -> None:
        if (self.run is None) == (self.model is None):
            raise InputError("capture takes a run folder, or --model with --data and --out")
        foreign = ("weights", "data", "image_size", "mean", "std")
        for name in foreign if self.run is not None else ():
            if getattr(self, name) is not None:
                option = name.replace("_", "-")
                raise InputError(f"--{option} is for --model; a run knows its own, leave it out")
        if self.model is not None and (self.data is None or self.out is None):
            raise InputError("--model needs --data (which images) and --out (the recording)")
        if self.no_grad_cam and self.grad_cam_layer:
            raise InputError("--no-grad-cam and --grad-cam-layer contradict; leave one of them out")
        if self.model is not None and self.untrained:
            raise InputError("--untrained is of a run, whose architecture is known; leave it out")
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean and --std belong together; give both or none")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"--std {min(self.std):g} must be above 0")
        if self.moments and self.pooled_inputs:
            raise InputError("--moments holds no --pooled-inputs; leave one of the two out")

        from attnscope.files import refuse_existing
        from attnscope.training.processes import launched_team

        team, out = launched_team(), self.out
        if out is None:
            assert self.run is not None  # --model needs --out
            kind = "moments" if self.moments else "" if self.untrained else "recordings"
            out = self.run / ("untrained" if self.untrained else "") / kind / self.part
        if team.leads:
            refuse_existing(out)

        from attnscope.capturing.capture import capture
        from attnscope.capturing.subjects import load_network, load_run
        from attnscope.data.images import Normalization
        from attnscope.training.devices import choose_device

        if self.run is not None:
            subject = load_run(
                self.run, self.part, self.data_root, self.untrained, self.skip_unreadable
            )
        else:
            assert self.model is not None  # as is --data, as was checked
            assert self.data is not None
            given = Normalization(self.mean, self.std) if self.mean and self.std else None
            subject = load_network(
                self.model,
                self.data,
                weights=self.weights,
                part=self.part,
                normalization=given,
                data_root=self.data_root or Path("data"),
                image_size=self.image_size,
                skip_unreadable=self.skip_unreadable,
            )
        import torch

        recording = capture(
            subject.model.to(choose_device(self.device)).to(memory_format=torch.channels_last),
            subject.images,
            out,
            normalization=subject.normalization,
            grad_cam_layers=() if self.no_grad_cam else self.grad_cam_layer or None,
            batch_size=self.batch_size,
            precision=self.precision,
            about=subject.about,
            moments=self.moments,
            pooled_inputs=self.pooled_inputs,
            shard_images=self.shard_images,
            team=team,
        )
        if team.leads:
            for line in subject.about["skipped"]:
                print(f"skipped {line}", file=sys.stderr)
            for gate in recording.gates if self.pooled_inputs else ():
                if gate.name not in recording.pooled_inputs:
                    print(
                        f"no pooled input of {gate.name}: it multiplies another gate",
                        file=sys.stderr,
                    )
            print(
                f"{len(recording)} images, {len(recording.gates)} gates, "
                f"accuracy {recording.right.mean():.2%}: {recording.folder}"
            )
