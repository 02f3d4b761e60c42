"""``attnscope capture``"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from attnscope.commands.options import (
    NetworkOptions,
    Split,
    announce_recording,
    expect_own_images,
)
from attnscope.commands.parsing import Argument
from attnscope.errors import InputError

if TYPE_CHECKING:
    from attnscope.sources import Source


@dataclass(frozen=True)
class Capture:
    """Record every gate of a network over a data set, with logits and Grad-CAM.

    The network is a run folder, or any network with --model, --data and --out.
    """

    option_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "Network that attnscope did not train": ("network",),
        "Images": ("split", "data_root", "skip_unreadable", "allow_changed_data"),
        "What is recorded": (
            "untrained",
            "moments",
            "pooled_inputs",
            "kinds",
            "include",
            "grad_cam",
            "grad_cam_layers",
            "attribution_methods",
            "attribution_images",
        ),
    }

    run: Annotated[Path | None, Argument(positional=True, metavar="RUN")] = None
    """Run folder, or another network as for --model."""
    network: NetworkOptions = field(default_factory=NetworkOptions)
    skip_unreadable: bool = False
    """Skip images that cannot be read, and list them. Default: stop at such an image."""
    allow_changed_data: bool = False
    """Continue with images that have changed since the network was trained. The recording says what
    has changed. Default: stop, and name the images."""
    split: Split = "test"
    """Split to record."""
    untrained: bool = False
    """Record the architecture of the run with random weights, as a control. The recording is
    written to RUN/untrained/SPLIT, which figures and the dashboard do not use."""
    draws: int = 1
    """Number of random networks of --untrained. Each has a recording of its own, from the second on
    in RUN/untrained/draw-1/SPLIT, and so on. Existing recordings are kept."""
    out: Path | None = None
    """Folder for the recording, which must not exist. Default: RUN/recordings/SPLIT."""
    data_root: Path | None = None
    """Folder that contains CIFAR-10 or CIFAR-100. Default: the folder used for training; with
    --model, the folder data/."""
    grad_cam_layers: Annotated[tuple[str, ...], Argument(metavar="MODULE")] = ()
    """Modules for Grad-CAM, by path. Default: the last module whose output is larger than 1×1."""
    grad_cam: bool = True
    """Do not record Grad-CAM."""
    batch_size: int = 128
    """Batch size."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the network; bf16 uses autocast. Values are stored as float32 in both cases."""
    compile: bool = False
    """Compile the network, which takes half a minute and is faster for many images. Default: on a
    GPU, the method that is expected to finish first; on a CPU, no compilation."""
    moments: bool = False
    """Record sums over the images of each class (moments) instead of values for each image. They
    are written to RUN/moments/SPLIT, or RUN/untrained/moments/SPLIT."""
    pooled_inputs: bool = False
    """Also record the features that each gate multiplies, averaged over the axes along which the
    gate does not vary."""
    attribution_methods: Annotated[tuple[str, ...], Argument(metavar="METHOD")] = ()
    """Attribution methods to record in addition to Grad-CAM: integrated_gradients,
    layer_integrated_gradients, occlusion, or one that a plugin registers. These methods are
    slow."""
    attribution_images: int = 200
    """Number of images for --attribution-methods, spread evenly over the data set."""
    kinds: Annotated[tuple[str, ...], Argument(metavar="KIND")] = ()
    """Kinds of gates to record, such as channel and spatial. Default: all kinds except
    activation, static and unbounded. Gates of kind full are as large as the features."""
    include: Annotated[tuple[str, ...], Argument(metavar="KIND")] = ()
    """Kinds of gates to record in addition: activation (such as SiLU written by hand), unbounded (a
    multiplier that broadcasts like a gate and has no bounds, as in x * conv(x))."""
    shard_images: int = 2048
    """Images per shard, rounded up to whole batches. On a CPU one shard is held in memory, on a
    GPU at most three. Finished shards
    are kept after an interruption. With torchrun, each process records whole shards."""

    def __call__(self) -> None:
        from attnscope.capturing.settings import CaptureSettings
        from attnscope.files import refuse_existing
        from attnscope.kinds import with_included
        from attnscope.training.processes import launched_process_group

        if not self.grad_cam and self.grad_cam_layers:
            raise InputError(
                "AS957",
                "--no-grad-cam and --grad-cam-layers exclude each other; leave one of them out",
            )
        settings = CaptureSettings(
            grad_cam_layers=(self.grad_cam_layers or None) if self.grad_cam else (),
            batch_size=self.batch_size,
            precision=self.precision,
            moments=self.moments,
            pooled_inputs=self.pooled_inputs,
            attributions=self.attribution_methods,
            attribution_images=self.attribution_images,
            shard_images=self.shard_images,
            kinds=with_included(self.kinds, self.include),
            compile=self.compile,
            output=self.network.output,
        )
        if self.draws < 1:
            raise InputError("AS957", f"--draws is {self.draws}; it must be at least 1")
        if self.draws > 1 and (not self.untrained or self.out is not None):
            raise InputError("AS957", "--draws needs --untrained, and excludes --out; correct them")
        chosen = [self._choose(draw) for draw in range(self.draws)]
        if self.draws > 1:
            chosen = [(source, out) for source, out in chosen if not out.exists()] or chosen[:1]
        process_group = launched_process_group()
        if process_group.is_main:
            for _, out in chosen:
                refuse_existing(out)

        from attnscope.capturing.run import capture_source
        from attnscope.training.devices import choose_device

        device = choose_device(self.device)
        for source, out in chosen:
            recording = capture_source(
                source, out, settings, device=device, process_group=process_group
            )
            if process_group.is_main:
                announce_recording(recording, self.pooled_inputs)

    def _choose(self, draw: int) -> tuple[Source, Path]:
        """The network and the images to record, and the folder of the recording."""
        if self.run is not None and self.network.model is None:
            from attnscope.networks.targets import is_run

            if not is_run(str(self.run)):
                network = replace(self.network, model=str(self.run))
                return replace(self, run=None, network=network)._choose(draw)
        if self.run is None and self.network.model is None:
            raise InputError(
                "AS955", "no network is given; give a run folder, or --model with --data and --out"
            )
        expect_own_images(self.network, self.allow_changed_data)
        if self.run is None:
            if self.untrained:
                raise InputError("AS957", "--untrained cannot be used with --model; leave it out")
            source = self.network.source(self.split, self.data_root, self.skip_unreadable)
            if self.out is None:
                raise InputError("AS958", "--model needs --out; name the folder of the recording")
            return source, self.out
        self.network.expect_none(but=("data",))

        from attnscope.runs import Run

        run = Run(self.run)
        default = run.captured_folder(
            self.split, untrained=self.untrained, moments=self.moments, draw=draw
        )
        source = run.source(
            self.split,
            data=self.network.data,
            data_root=self.data_root,
            untrained=self.untrained,
            draw=draw,
            skip_unreadable=self.skip_unreadable,
            allow_changed_data=self.allow_changed_data,
        )
        return source, self.out or default
