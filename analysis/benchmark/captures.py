"""Speed and memory of a capture."""

from __future__ import annotations

import importlib
import importlib.util
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from analysis.benchmark.ratios import interleave
from attnscope.attribution import last_map_layer
from attnscope.capturing.capture import capture
from attnscope.data.images import LabeledImages, Normalization
from attnscope.networks.build import build_model
from attnscope.networks.targets import load_target
from attnscope.training.devices import choose_device


def record(
    network: str = "cbam",
    images: int = 512,
    batch_size: int = 128,
    rounds: int = 5,
    others: bool = True,
    stages: bool = True,
    warm_up: bool = True,
) -> None:
    """Compare capture with bare inference of the same network, in fp32.

    Args:
        network: ``cbam`` or ``se`` (resnet18/cifar at 32 pixels), or a target such as
            ``timm:seresnet50``, at its own image size.
        images: number of images, of random pixels.
        batch_size: batch size.
        rounds: number of rounds.
        others: also measure Grad-CAM of both classes by pytorch-grad-cam and torchcam, if they are
            installed (``pip install grad-cam torchcam``). They record nothing else.
        stages: also measure Grad-CAM of the last two stages.
        warm_up: run everything once before.
    """
    device = choose_device("auto")
    if ":" in network:
        target = load_target(network)
        model, size = target.model, target.image_size
    else:
        model, size = build_model(attention=network), 32
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    pixels = torch.randint(0, 256, (images, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        classes = model(torch.zeros(1, 3, size, size, device=device)).shape[1]
    labeled = LabeledImages(
        pixels,
        torch.arange(images) % classes,
        [str(i) for i in range(images)],
        [str(k) for k in range(classes)],
    )
    unit = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    last = last_map_layer(model, torch.zeros(1, 3, size, size, device=device))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, images, batch_size):
            rows = slice(start, start + batch_size)
            yield unit.apply(pixels[rows].to(device)), labeled.labels[rows].to(device)

    def bare() -> None:
        with torch.inference_mode():
            for x, _ in batches():
                model(x).cpu()

    def captured(layers: list[str]) -> Callable[[], None]:
        def run() -> None:
            with tempfile.TemporaryDirectory() as folder:
                capture(
                    model,
                    labeled,
                    Path(folder) / "recording",
                    grad_cam_layers=layers,
                    batch_size=batch_size,
                    progress=False,
                )

        return run

    variants = {
        "bare inference": bare,
        "gates and maps": captured([]),
        "and Grad-CAM of both classes": captured([last]),
    }
    if stages:
        names = [name for name, _ in model.named_children() if name in ("layer3", "layer4")]
        variants[f"and of {len(names)} layers"] = captured(names)
    if others:
        variants |= _other_grad_cams(model, model.get_submodule(last), batches)
    print(f"capture of {network}, {images} images of {size}, batch {batch_size}, fp32, {device}")
    interleave(variants, images, rounds, warm_up)


def _other_grad_cams(
    model: nn.Module, layer: nn.Module, batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
) -> dict[str, Callable[[], None]]:
    """Return functions that compute Grad-CAM of both classes with other tools, batch by batch."""
    found: dict[str, Callable[[], None]] = {}
    if importlib.util.find_spec("pytorch_grad_cam"):
        theirs = importlib.import_module("pytorch_grad_cam")
        output = importlib.import_module("pytorch_grad_cam.utils.model_targets")

        def with_pytorch_grad_cam() -> None:
            with theirs.GradCAM(model=model, target_layers=[layer]) as cam:
                for x, labels in batches():
                    cam(x, None)  # for the predicted class
                    cam(x, [output.ClassifierOutputTarget(int(label)) for label in labels])

        found["pytorch-grad-cam, both classes"] = with_pytorch_grad_cam
    if importlib.util.find_spec("torchcam"):
        methods = importlib.import_module("torchcam.methods")

        def with_torchcam() -> None:
            with methods.GradCAM(model, layer) as cam:
                for x, labels in batches():
                    scores = model(x)
                    cam(scores.argmax(1).tolist(), scores, retain_graph=True)
                    cam(labels.tolist(), scores)

        found["torchcam, both classes"] = with_torchcam
    return found


def memory(images: tuple[int, ...] = (10_000, 50_000), moments: bool = False) -> None:
    """Measure the peak resident memory of a capture, without the data set's own array, in MiB.

    The network is resnet18 with SE, the 7×7 stem and 16 channels, on random images of 32 pixels.
    Each number of images is measured in a process of its own, since the peak never decreases.

    Args:
        images: numbers of images.
        moments: whether to capture moments.
    """
    if len(images) > 1:
        for count in images:
            command = [sys.executable, "-m", "analysis.benchmark", "memory", "--images", str(count)]
            subprocess.run([*command, *(["--moments"] if moments else [])], check=True)
        return
    pixels = torch.randint(0, 256, (images[0], 3, 32, 32), dtype=torch.uint8)
    paths, classes = [str(i) for i in range(images[0])], [str(k) for k in range(10)]
    labeled = LabeledImages(pixels, torch.arange(images[0]) % 10, paths, classes)
    model = build_model(attention="se", width=16, stem="imagenet")
    with tempfile.TemporaryDirectory() as folder:
        capture(model, labeled, Path(folder) / "recording", moments=moments, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{images[0]:7} images: {(peak - pixels.nbytes) / 2**20:.1f} MiB", flush=True)
