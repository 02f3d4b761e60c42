"""The stages of the measurements, in order of value."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.gpu.counting import Counts, count_capture, count_training
from analysis.gpu.measures import Row, rows_of, times
from analysis.gpu.networks import UNIT, made_data, made_images, network
from analysis.gpu.profiling import host_time, largest
from analysis.gpu.stage import STAGES, Setting, Stage, stage
from attnscope import layout
from attnscope.attribution import last_map_layer
from attnscope.capturing.capture import capture
from attnscope.data.images import LabeledImages
from attnscope.networks.targets import load_target
from attnscope.training.compiling import CUDA_GRAPHS, compile_network
from attnscope.training.fitting import fit
from attnscope.training.logs import read_rows
from attnscope.training.recipes import RECIPES

__all__ = ["STAGES", "Setting", "Stage"]

ROOT = Path(__file__).parents[2]
KINDS = ("none", "se", "eca", "cbam")


@stage("machine", "The machine", 20, {"device": "", "software": ""})
def machine(setting: Setting) -> Iterator[Row]:
    """Say what runs, and which packages are missing."""
    if setting.device.type == "cuda":
        found = torch.cuda.get_device_properties(setting.device)
        device = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
    else:
        device = "CPU, for a trial of the script; its numbers say nothing about a GPU"
    yield Row("device", note=f"{device}; {os.cpu_count()} cores of the host")
    names = ("torch", "torchvision", "timm", "numpy", "pandas", "captum", "triton")
    versions = [f"{name} {_version(name)}" for name in names]
    yield Row("software", note=f"Python {platform.python_version()}, {', '.join(versions)}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "is missing"


@stage("tests", "Tests on the device: `pytest -m cuda`", 120, {"passed": "all"})
def tests(setting: Setting) -> Iterator[Row]:
    """Run the tests that compare the device with the CPU."""
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "tests/cuda", "-rfE"]
    # A warning of another version of torch is no failure here.
    command += ["-W", "default", "-p", "no:cacheprovider", "--tb=short"]
    environment = {**os.environ, "ATTNSCOPE_TEST_DEVICE": setting.device.type}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    (setting.out / "tests.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    print(done.stdout, done.stderr, sep="\n", file=sys.stderr, flush=True)
    number = {
        outcome: int(count)
        for count, outcome in re.findall(r"(\d+) (passed|failed|error)", done.stdout)
    }
    wrong = re.findall(r"^(?:FAILED|ERROR) \S+::(\S+)", done.stdout, re.MULTILINE)
    note = f"failed: {', '.join(wrong)}; see tests.log" if wrong else ""
    if done.returncode not in (0, 1):
        note = f"pytest ended with {done.returncode}; see tests.log"
    yield Row("passed", number.get("passed", 0), f"of {sum(number.values())}", note=note)


Step = Callable[[], None]


def _training_step(model: nn.Module, images: int, setting: Setting, compiled: bool) -> Step:
    device = setting.device
    model = model.to(device).train()
    called = _compile(model, images, setting) if compiled else model
    x, y = _inputs(images, device), torch.arange(images, device=device) % 10
    fused = True if device.type == "cuda" else None  # as in a training
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=fused
    )

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = called(x)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits.float(), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _inference(model: nn.Module, images: int, setting: Setting, compiled: bool) -> Step:
    device = setting.device
    model = model.to(device).eval()
    called = _compile(model, images, setting) if compiled else model
    x = _inputs(images, device)

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            called(x)

    return run


def _compile(model: nn.Module, images: int, setting: Setting) -> nn.Module:
    """Return the network, compiled as in a training: with CUDA graphs, for one size of batches."""
    if setting.tiny:  # without code generation, a trial on a CPU takes seconds
        return torch.compile(model, backend="aot_eager")  # type: ignore[return-value]
    return compile_network(model, CUDA_GRAPHS, setting.device, images)


def _inputs(images: int, device: torch.device) -> Tensor:
    return torch.randn(images, 3, 32, 32, device=device).to(memory_format=torch.channels_last)


def _cost_of_attention(
    make: Callable[[nn.Module, int, Setting, bool], Step],
    what: str,
    kinds: Sequence[str],
    setting: Setting,
    *,
    compiled: bool,
) -> Iterator[Row]:
    """Measure a kind of attention after the other, each beside the network without attention."""
    images, width = setting.pick(512, 4), setting.pick(64, 16)
    plain = make(network("none", width), images, setting, compiled)
    for kind in kinds:
        runs = {"none": plain}
        if kind != "none":
            runs[kind] = make(network(kind, width), images, setting, compiled)
        rounds, calls = setting.pick(7, 1), setting.pick(10, 1)
        seconds = times(runs, setting.device, rounds, calls, warm_ups=3)
        yield from rows_of(seconds, images, {kind: f"{what}, {kind}"}, "none")


_EAGER = "training step, batch 512, bf16, eager"
_EAGER_INFERENCE = "inference, batch 512, bf16, eager"


@stage(
    "attention",
    "Cost of attention: ResNet18 at 32 pixels, relative to no attention",
    60,
    {f"{what}, {kind}": "" for what in (_EAGER, _EAGER_INFERENCE) for kind in KINDS},
)
def attention(setting: Setting) -> Iterator[Row]:
    """Measure training steps and inference without compilation."""
    yield from _cost_of_attention(_training_step, _EAGER, KINDS, setting, compiled=False)
    yield from _cost_of_attention(_inference, _EAGER_INFERENCE, KINDS, setting, compiled=False)


@stage(
    "loop",
    "A training as a whole: CBAM, recipe `fast`, batch 128, eager, relative to the step alone",
    50,
    {"step alone, batch 128": "", "attnscope.fit, batch 128": ""},
)
def loop(setting: Setting) -> Iterator[Row]:
    """Compare the last epoch of `fit`, which has images of full size, with training steps."""
    images, batch = setting.pick(12_800, 8), setting.pick(128, 4)
    width = setting.pick(64, 16)
    data = made_data(images, 32)
    step = _training_step(network("cbam", width), batch, setting, compiled=False)

    def steps() -> None:
        for _ in range(images // batch):
            step()

    names = {"steps": "step alone, batch 128", "fit": "attnscope.fit, batch 128"}
    seconds = times({"steps": steps}, setting.device, setting.pick(3, 1))
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(RECIPES["fast"], batch_size=batch)
        out = Path(folder) / "run"
        options: dict[str, Any] = {"device": str(setting.device), "precision": "bf16"}
        options |= {"compiled": False, "progress": False}
        fit(network("cbam", width), data, recipe, out, epochs=3, **options)
        rate = read_rows(out / layout.METRICS)[-1]["images_per_second"]
    seconds["fit"] = [images / rate] * len(seconds["steps"])
    yield from rows_of(seconds, images, names, "steps")


_FURTHER = 4
"""So many times the images of a capture tell what further images cost."""
_FILES = 4


def _capture(
    model: nn.Module, images: int, size: int, batch: int, setting: Setting, bare: str
) -> Iterator[Row]:
    device = setting.device
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        classes = model(torch.zeros(1, 3, size, size, device=device)).shape[1]
    many = made_images(_FURTHER * images, size, classes)
    few = many[:images]
    last = last_map_layer(model, torch.zeros(1, 3, size, size, device=device))

    def forwards(labeled: LabeledImages) -> None:
        with torch.inference_mode():
            for start in range(0, len(labeled), batch):
                pixels = labeled.images[start : start + batch].to(device)
                model(UNIT.apply(pixels)).cpu()

    def captured(labeled: LabeledImages, layers: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            capture(
                model,
                labeled,
                Path(folder) / "recording",
                normalization=UNIT,
                grad_cam_layers=layers,
                batch_size=batch,
                progress=False,
            )
            files = [file for file in Path(folder).rglob("*") if file.is_file()]
            if not layers:
                bytes_of[len(labeled)] = sum(file.stat().st_size for file in files)

    def write(labeled: LabeledImages) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(_FILES):
                with Path(folder, str(number)).open("wb") as file:
                    file.write(bytes(bytes_of[len(labeled)] // _FILES))
                    file.flush()
                    os.fsync(file.fileno())

    bytes_of: dict[int, int] = {}  # number of images -> of their recording
    works: dict[str, Callable[[LabeledImages], None]] = {
        bare: forwards,
        _WITHOUT: partial(captured, layers=[]),
        _WITH: partial(captured, layers=[last]),
        _DISK: write,
    }
    rounds = setting.pick(2, 1)
    seconds = times({n: partial(w, few) for n, w in works.items()}, device, rounds)
    yield from rows_of(seconds, images, {name: name for name in works}, bare)
    longer = times({n: partial(w, many) for n, w in works.items()}, device, rounds)
    further = {
        name: [max(b - a, 1e-9) for a, b in zip(seconds[name], longer[name], strict=True)]
        for name in works
    }
    names = {name: f"{name}, further images" for name in works}
    yield from rows_of(further, (_FURTHER - 1) * images, names, bare)


_WITHOUT, _WITH = "gates and maps", "with Grad-CAM of both classes"
_DISK = "the disk alone: files of the size of gates and maps"
_SMALL, _LARGE = "ResNet18-CBAM: bare inference", "timm seresnet50: bare inference"


def _capture_goals(bare: str, without: str, with_grad_cam: str) -> dict[str, str]:
    goals = {bare: "", _WITHOUT: without, _WITH: with_grad_cam, _DISK: ""}
    return goals | {f"{name}, further images": "" for name in goals}


@stage(
    "capture",
    "Capture of 8,192 images of 32 pixels, batch 512, fp32, relative to bare inference",
    60,
    _capture_goals(_SMALL, "0.5", ""),
)
def capture_small(setting: Setting) -> Iterator[Row]:
    """Compare captures of small images with inference."""
    model = network("cbam", setting.pick(64, 16))
    images, batch = setting.pick(8192, 16), setting.pick(512, 8)
    yield from _capture(model, images, 32, batch, setting, _SMALL)


@stage(
    "capture224",
    "Capture of 1,024 images of 224 pixels, batch 128, fp32, relative to bare inference",
    60,
    _capture_goals(_LARGE, "0.85", "0.75"),
)
def capture_large(setting: Setting) -> Iterator[Row]:
    """Compare captures of a public network with inference."""
    if importlib.util.find_spec("timm") is None:
        raise ModuleNotFoundError("timm is not installed")
    model = load_target("timm:seresnet18" if setting.tiny else "timm:seresnet50").model
    images, size = setting.pick(1024, 4), setting.pick(224, 32)
    yield from _capture(model, images, size, setting.pick(128, 2), setting, _LARGE)


_COUNTED = ("training step", "report of a training, every 20 steps", "batch of a capture",
            "batch of a capture with Grad-CAM of both classes")  # fmt: skip
_COUNTS = ("operations", "copies to the device", "copies to the host")


@stage(
    "counts",
    "Operations and copies between host and device: ResNet18-CBAM, batch 128",
    40,
    {f"{work}: {what}": "" for work in _COUNTED for what in _COUNTS},
)
def counts(setting: Setting) -> Iterator[Row]:
    """Count what is launched and copied per step and per batch."""
    # Without a GPU the tensors have no values, and autocast is off.
    device = "cuda" if setting.device.type == "cuda" else "meta"
    width, batch = setting.pick(64, 16), setting.pick(128, 4)
    trained = count_training(device, width=width, batch_size=batch)
    yield from _counted(_COUNTED[0], trained.step)
    yield from _counted(_COUNTED[1], trained.report)
    for work, grad_cam in ((_COUNTED[2], False), (_COUNTED[3], True)):
        found = count_capture(device, width=width, batch_size=batch, grad_cam=grad_cam)
        yield from _counted(work, found)


def _counted(work: str, found: Counts) -> Iterator[Row]:
    for what, number in zip(
        _COUNTS, (found.operations, found.to_device, found.to_host), strict=True
    ):
        yield Row(f"{work}: {what}", round(number, 2))


@stage("profile", "What takes most time: ResNet18-CBAM", 60)
def profiled(setting: Setting) -> Iterator[Row]:
    """Profile a training step and a capture."""
    width = setting.pick(64, 16)
    step = _training_step(network("cbam", width), setting.pick(512, 4), setting, compiled=False)
    yield from largest("training step, batch 512", step, setting.device)
    model = network("cbam", width).to(setting.device).eval()
    images = made_images(setting.pick(4096, 8), 32)
    batch = setting.pick(512, 4)

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "recording"
            capture(model, images, out, normalization=UNIT, batch_size=batch, progress=False)

    yield from largest("capture, 4,096 images", run, setting.device)
    many = made_images(setting.pick(32_768, 16), 32)

    def run_many() -> None:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "recording"
            capture(model, many, out, normalization=UNIT, batch_size=batch, progress=False)

    yield from host_time("host during a capture of 32,768 images", run_many, setting.device)


_COMPILED = "training step, batch 512, bf16, compiled"
_COMPILED_INFERENCE = "inference, batch 512, bf16, compiled"
_COMPILED_KINDS = ("none", "cbam", "se", "eca")  # CBAM first, since its cost is the highest


@stage(
    "compiled",
    "Cost of attention with `torch.compile`, relative to no attention, compiled, too",
    200,
    {
        f"{_COMPILED}, none": "",
        f"{_COMPILED}, cbam": "0.80",
        f"{_COMPILED}, se": "0.90",
        f"{_COMPILED}, eca": "0.90",
        f"{_COMPILED_INFERENCE}, none": "",
        f"{_COMPILED_INFERENCE}, cbam": "0.85",
        f"{_COMPILED_INFERENCE}, se": "0.90",
        f"{_COMPILED_INFERENCE}, eca": "",
    },
)
def compiled(setting: Setting) -> Iterator[Row]:
    """Measure training steps and inference of compiled networks."""
    kinds = _COMPILED_KINDS[: setting.pick(4, 2)]
    yield from _cost_of_attention(_training_step, _COMPILED, kinds, setting, compiled=True)
    yield from _cost_of_attention(_inference, _COMPILED_INFERENCE, kinds, setting, compiled=True)


# The last stages, which run after those above.
from analysis.gpu import training_stages as training_stages  # noqa: E402
from analysis.gpu import way_stages as way_stages  # noqa: E402
