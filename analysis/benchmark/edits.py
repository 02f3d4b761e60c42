"""Time of interventions and of their plan."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch

from attnscope.capturing.capture import capture
from attnscope.data.images import LabeledImages
from attnscope.interventions import (
    DEFAULT_EDITS,
    REPLACEMENTS,
    InterventionSetup,
    plan_experiments,
    run_experiments_in,
)
from attnscope.interventions.plan import images_within, time_network
from attnscope.interventions.run import DEFAULT_IMAGES, DEFAULT_MINUTES
from attnscope.networks.build import build_model
from attnscope.recording.recording import Recording
from attnscope.training.devices import choose_device


def interventions(
    images: int = 1000, width: int = 64, batch_size: int = 64, earlier: bool = True
) -> None:
    """Measure ``replace`` as it was by default, and what is now the default, with their plans.

    The network is a ResNet18 with CBAM at 32 pixels, with random weights, which cost the same. As
    it was: seven edits on ``images`` images. Now: ``decode``, and four edits on 250 images or as
    many as three minutes hold.

    Args:
        images: number of images that are scored as it was; twice as many are recorded.
        width: channels of the first stage.
        batch_size: batch size.
        earlier: also measure how it was.
    """
    device = choose_device("auto")
    torch.manual_seed(0)
    model = build_model(attention="cbam", width=width).to(device)
    model = model.to(memory_format=torch.channels_last).eval()
    rng = torch.Generator().manual_seed(0)
    count = 2 * images
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=rng)
    labels = torch.arange(count) % 10
    names = [str(k) for k in range(10)]
    labeled = LabeledImages(pixels, labels, [str(i) for i in range(count)], names)
    print(f"resnet18 of width {width} with CBAM, {count} recorded images of 32 pixels, {device}")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "recording"
        capture(model, labeled, place, grad_cam_layers=[], progress=False)
        recording = Recording(place)

        def measure(what: str, experiments: list[str], edits: tuple[str, ...], n: int) -> None:
            began = time.perf_counter()
            setup = InterventionSetup(model, labeled, recording, images=n, batch_size=batch_size)
            timing = time_network(setup)
            if what == "now":
                held = images_within(setup, timing, edits, 60 * DEFAULT_MINUTES)
                setup = InterventionSetup(
                    model, labeled, recording, images=held, batch_size=batch_size
                )
            plan = plan_experiments(setup, experiments, edits=edits, timing=timing)
            planned = time.perf_counter() - began
            print(plan)
            run_experiments_in(
                Path(folder) / what, setup, experiments=experiments, edits=edits, progress=False
            )
            taken = time.perf_counter() - began
            print(
                f"{what}: {len(setup.scored)} images, {len(edits)} edits: {taken / 60:.2f} minutes "
                f"({planned:.1f} seconds of them to plan); planned were {plan.seconds / 60:.2f}",
                flush=True,
            )

        measure("now", ["decode", "replace"], DEFAULT_EDITS, DEFAULT_IMAGES)
        if earlier:
            seven = tuple(edit for edit in REPLACEMENTS if edit != "swap_any")
            measure("as it was", ["replace"], seven, images)
