"""Recordings whose answers are known, made without a network."""

from __future__ import annotations

import os
import signal
import sys

# A shell starts background jobs with SIGINT ignored, and nohup those with SIGHUP. The processes that
# tests start and interrupt would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if "PYTEST_XDIST_WORKER" in os.environ:
    # Each of several workers with all cores for its threads is slower than one worker alone. Before
    # torch is imported, and for the processes that tests start.
    os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from attnscope.files import read_json, write_sealed
from attnscope.kinds import Gate
from attnscope.recording.attributed import Attributed, Attributions
from attnscope.recording.outcomes import Outcomes, outcomes_folder, write_outcomes
from attnscope.recording.recording import Recording, RecordingWriter
from attnscope.statistics.effects import replacement_effects
from attnscope.statistics.usage import decode_gates

CLASSES = ["cat", "dog", "owl"]


@pytest.fixture(autouse=True)
def restored_python_path() -> Iterator[None]:
    """Importing a module of a user adds its folder to the path of Python for the whole process.

    Other tests have modules of the same name in other folders.
    """
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture
def make_recording(tmp_path: Path) -> Callable[..., Recording]:
    """Makes a recording of two blocks with random gates; arguments plant an effect.

    ``spatial=False`` is an SE network. In ``layer1.attention.channel``, channel 0 differs between
    the classes by ``effect`` and channel 1 is constant. ``names`` are the classes. ``attributed``
    images have maps of two methods beside Grad-CAM.
    """

    def make(
        name: str = "toy",
        *,
        count: int = 60,
        effect: float = 0.3,
        accuracy: float = 0.7,
        spatial: bool = True,
        seed: int = 0,
        names: list[str] = CLASSES,
        shard: int = 25,
        attributed: int = 0,
    ) -> Recording:
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % len(names)
        gates, arrays = [], {}
        for depth, (channels, side) in enumerate([(8, 8), (16, 4)], start=1):
            path = f"layer{depth}.attention"
            values = rng.uniform(0.3, 0.5, (count, channels)).astype(np.float32)
            if depth == 1:
                values[:, 0] += (effect * labels / len(names)).astype(np.float32)
                values[:, 1] = 0.5
            gates.append(Gate(f"{path}.channel", "channel", channels, None, "sigmoid", 0, 1, 1))
            arrays[f"gate/{path}.channel"] = values
            if spatial:
                maps = rng.uniform(0.2, 0.8, (count, side, side)).astype(np.float32)
                grid = (side, side)
                gates.append(Gate(f"{path}.spatial", "spatial", channels, grid, "sigmoid", 0, 1, 1))
                arrays[f"gate/{path}.spatial"] = maps
        logits = rng.normal(size=(count, len(names))).astype(np.float32)
        # The pictures and labels come from a generator of their own: runs of several seeds are of
        # the same data set, and can be compared.
        pictures = np.random.default_rng(99).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
        right = rng.random(count) < accuracy
        logits[right, labels[right]] = 4
        logits[~right, labels[~right]] = -4
        arrays["logits"] = logits
        arrays["images"] = pictures
        for target in ("predicted", "true"):
            cam = rng.normal(size=(count, 4, 4)).astype(np.float16)
            arrays[f"grad_cam/layer2/{target}"] = cam
        known = [Attributed("occlusion", ""), Attributed("layer_integrated_gradients", "layer2")]
        attributions = Attributions(tuple(known), attributed) if attributed else Attributions()
        rows = attributions.rows(count)
        explained = {
            found.key(target): rng.normal(size=(len(rows), side, side)).astype(np.float16)
            for found, side in zip(attributions.methods, (16, 4), strict=False)
            for target in ("predicted", "true")
        }
        exp = np.exp(logits)
        table = pd.DataFrame(
            {
                "path": [f"test/{names[label]}/{i:04d}.png" for i, label in enumerate(labels)],
                "label": labels,
                "prediction": logits.argmax(1),
                "loss": -np.log(exp[np.arange(count), labels] / exp.sum(1)),
            }
        )
        folder = tmp_path / name / "recordings" / "test"
        with RecordingWriter(
            folder,
            gates=gates,
            classes=list(names),
            grad_cam_layers=["layer2"],
            about={"name": name, "split": "test", "source": "made by the test"},
            attributions=attributions,
        ) as writer:
            for start in range(0, count, shard):
                piece = slice(start, start + shard)
                here = (rows >= start) & (rows < start + shard)
                some = {key: maps[here] for key, maps in explained.items() if here.any()}
                writer.add_shard({**{k: v[piece] for k, v in arrays.items()}, **some}, table[piece])
        return Recording(folder)

    return make


@pytest.fixture
def make_seeds(make_recording: Callable[..., Recording]) -> Callable[..., list[Recording]]:
    """Makes recordings of one kind of network with several seeds, in the order of the seeds given.

    Further arguments are those of ``make_recording``. The runs are called ``KIND-SEED``.
    """

    def make(kind: str, seeds: Sequence[int] = (0, 1), **options: Any) -> list[Recording]:
        recordings = []
        for seed in seeds:
            folder = make_recording(f"{kind}-{seed}", seed=seed, **options).folder
            about = read_json(folder / "manifest.json")
            about["about"] |= {"model": {"attention": kind}, "seed": seed}
            about["id"] = f"{kind}-{seed}"
            write_sealed(folder / "manifest.json", about)
            recordings.append(Recording(folder))
        return recordings

    return make


@pytest.fixture
def add_interventions() -> Callable[..., Path]:
    """Writes interventions beside a recording, as if its network had been run.

    Each edit leaves every image as it was, but for those of the first gate: with a constant, or
    with the gate of another class, every image is wrong.
    """

    def add(recording: Recording) -> Path:
        labels, images = recording.labels, len(recording)
        own = {"row": np.arange(images), "label": labels, "prediction": recording.predictions}
        log_loss = np.where(recording.right, 1.0, 3.0)
        names = [gate.name for gate in recording.gates]
        frames = [pd.DataFrame({"target": "", "edit": "own", **own, "log_loss": log_loss})]
        for target in [*names, "all"]:
            for edit in ("mean", "constant", "swap_same", "swap_other"):
                after = {"target": target, "edit": edit, **own, "log_loss": log_loss}
                if edit != "swap_same" and target == names[0]:
                    wrong = (labels + 1) % len(recording.classes)
                    after |= {"prediction": wrong, "log_loss": 3 * np.ones(images)}
                frames.append(pd.DataFrame(after))
        replacement = pd.concat(frames, ignore_index=True)
        about = {"name": recording.name, "recording": recording.id, "images": images, "seed": 0}
        tables = {
            "decoding": decode_gates(recording, probe_permutations=40, permutations=40),
            "effects": replacement_effects(replacement, 50),
        }
        outcomes = Outcomes({**about, "experiments": ["decode", "replace"]}, replacement, tables)
        folder = outcomes_folder(recording.folder)
        write_outcomes(folder, outcomes)
        return folder

    return add


@pytest.fixture
def write_recording(tmp_path: Path) -> Callable[..., Recording]:
    """Writes a recording of exactly the given values, for answers worked out by hand.

    ``gates`` of two dimensions are channel gates, of three spatial ones, and ``pooled`` the inputs
    of some of them. ``predictions`` are right and ``logits`` follow them, unless given.
    """

    def write(
        name: str = "by-hand",
        *,
        labels: ArrayLike,
        gates: dict[str, ArrayLike] | None = None,
        pooled: dict[str, ArrayLike] | None = None,
        bounds: tuple[float, float] = (0, 1),
        predictions: ArrayLike | None = None,
        logits: ArrayLike | None = None,
        grad_cam: ArrayLike | None = None,
        names: list[str] = CLASSES,
        prefix: str = "test",
    ) -> Recording:
        labels = np.asarray(labels)
        if logits is None:
            logits = 4 * np.eye(len(names))[labels if predictions is None else predictions]
        arrays = {"logits": np.asarray(logits, np.float32)}
        known = []
        for gate, values in (gates or {}).items():
            arrays[f"gate/{gate}"] = values = np.asarray(values, np.float32)
            kind, grid = ("channel", None) if values.ndim == 2 else ("spatial", values.shape[1:])
            known.append(Gate(gate, kind, values.shape[1], grid, "sigmoid", *bounds, 1))
        for gate, values in (pooled or {}).items():
            arrays[f"pooled/{gate}"] = np.asarray(values, np.float32)
        if grad_cam is not None:
            for target in ("predicted", "true"):
                arrays[f"grad_cam/last/{target}"] = np.asarray(grad_cam, np.float16)
        table = pd.DataFrame(
            {
                "path": [f"{prefix}/{i:04d}.png" for i in range(len(labels))],
                "label": labels,
                "prediction": arrays["logits"].argmax(1),
                "loss": 0.0,
            }
        )
        with RecordingWriter(
            tmp_path / name,
            gates=known,
            classes=list(names),
            grad_cam_layers=[] if grad_cam is None else ["last"],
            about={"name": name},
            pooled_inputs=list(pooled or {}),
        ) as writer:
            writer.add_shard(arrays, table)
        return Recording(tmp_path / name)

    return write
