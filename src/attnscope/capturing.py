"""One pass over a data set: every gate, the logits and Grad-CAM of each image -> a Recording."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from attnscope.attribution import head_graph, last_map_layer
from attnscope.data import LabelledImages, Normalization, batches, load_data
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.gates import find_gates, watch_gates
from attnscope.models import load_model
from attnscope.recording import TARGETS, Recording, RecordingWriter
from attnscope.tracing import eval_mode

_SHARD = 2048  # images; a shard of a ResNet18-CBAM at 32×32 takes about 45 MB
_SAMPLE = 4  # images on which the gates are found
_LARGEST_THUMBNAIL = 128  # pixels
_PARTS = ("train", "validation", "test")
_IN_UNIT_RANGE = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class _Batch:
    x: Tensor
    """As the network gets it."""
    pictures: Tensor
    """uint8, ``(n, 3, H, W)``"""
    labels: Tensor
    paths: list[str]


def capture(
    model: nn.Module,
    dataset: LabelledImages | Dataset[tuple[Tensor, int]],
    out: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    normalization: Normalization | None = None,
    grad_cam_layers: Sequence[str] | None = None,
    batch_size: int = 128,
    precision: str = "fp32",
    about: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Recording:
    """Records what a network does on a data set, with one forward a batch.

    The network runs in eval mode on the device where it is, and is left as it was.

    Args:
        model: any network that returns logits ``(N, K)``.
        dataset: images of `attnscope.data`, or any data set with a length whose items are an image
            ``(3, H, W)`` as the network gets it and a label.
        out: the folder of the recording, which must not exist.
        classes: their names; default the data set's ``classes``, else the numbers.
        normalization: applied to images of `attnscope.data`; of any other data set it says how to
            undo what was done, for the pictures. Default: pixels are in 0 to 1.
        grad_cam_layers: paths of modules; default the one with the last map larger than 1×1. An
            empty sequence records none.
        batch_size: images a forward.
        precision: ``fp32``, or ``bf16`` for autocast; what is stored is float32 either way.
        about: what the recording tells of itself: name, source, part ...

    Raises:
        InputError: an argument cannot be used, or a gate that was found does not fire.
    """
    folder = Path(out)
    if folder.exists():
        raise InputError(f"{folder} exists already; take another folder or remove it")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision '{precision}' is not known; take fp32 or bf16")
    if batch_size < 1:
        raise InputError(f"batch size is {batch_size}; it must be 1 or more")
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise InputError("the data set is empty; there is nothing to record")
    names: list[str] = list(classes if classes is not None else getattr(dataset, "classes", []))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    normalization = normalization or _IN_UNIT_RANGE
    stream = _batches(dataset, batch_size, normalization, device)
    first = next(stream)
    with eval_mode(model):
        gates = find_gates(model, first.x[:_SAMPLE])
        layers = list(grad_cam_layers if grad_cam_layers is not None else ())
        if grad_cam_layers is None:
            layers = [last_map_layer(model, first.x[:_SAMPLE])]
        writer = RecordingWriter(
            folder,
            gates=gates,
            classes=names,
            grad_cam_layers=layers,
            about={**(about or {}), "precision": precision, "torch": torch.__version__},
        )
        bar = tqdm(total=count, unit="image", disable=not progress, dynamic_ncols=True)
        with bar, writer:
            shard = _Shard()
            for batch in chain([first], stream):
                with ExitStack() as stack:
                    head = stack.enter_context(head_graph(model, layers))
                    seen = stack.enter_context(watch_gates(model, gates))
                    autocast = torch.autocast(
                        device.type, torch.bfloat16, enabled=precision == "bf16"
                    )
                    with autocast:
                        logits = model(batch.x)
                    if not isinstance(logits, Tensor) or logits.ndim != 2:
                        raise InputError("the network must return logits (N, K), one row an image")
                    if not names:
                        names.extend(str(k) for k in range(logits.shape[1]))
                    _check_labels(batch.labels, logits.shape[1], names)
                    arrays = _arrays(batch, seen, logits, normalization)
                    for layer in layers:
                        targets = (logits.argmax(1), batch.labels.to(device))
                        for target, index in zip(TARGETS, targets, strict=True):
                            cam = head.grad_cam(layer, logits, index)
                            arrays[f"grad_cam/{layer}/{target}"] = _numpy(cam.half())
                shard.add(arrays, _rows(batch, logits))
                bar.update(len(batch.labels))
                if shard.count >= _SHARD:
                    writer.add_shard(*shard.take())
            if shard.count:
                writer.add_shard(*shard.take())
    return Recording(folder)


def capture_run(
    run: Path,
    *,
    part: str = "test",
    out: Path | None = None,
    data_root: Path | None = None,
    grad_cam_layers: Sequence[str] | None = None,
    batch_size: int = 128,
    device: torch.device | None = None,
    precision: str = "fp32",
    progress: bool = True,
) -> Recording:
    """Records a run's network on a part of the data that it was trained with.

    Args:
        run: a run folder whose training ended.
        part: ``train`` (without augmentation), ``validation`` or ``test``.
        out: default ``RUN/recordings/PART``.
        data_root: where torchvision's sets lie now; default where they lay at the training.
        device: default the CPU.

    The other arguments are those of `capture`.

    Raises:
        InputError: the run cannot be used, or the data is no longer what the run was trained with.
    """
    if part not in _PARTS:
        raise InputError(f"part '{part}' is not known; take one of {', '.join(_PARTS)}")
    out = run / "recordings" / part if out is None else out
    if out.exists():
        raise InputError(f"{out} exists already; take another folder or remove it")
    if not run.is_dir():
        raise InputError(f"run {run} does not exist; make it with attnscope train")
    model = load_model(run)
    config = read_json(run / "config.json")
    try:
        data = load_data(
            config["data"],
            data_root=data_root or Path(config["data_root"]),
            image_size=config["image_size"],
            resize=config.get("resize"),
            validation_share=config["validation_share"],
            seed=config["seed"],
            skip_unreadable=config.get("skip_unreadable", False),
        )
        known, normalization = config["classes"], Normalization(**config["normalization"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{run / 'config.json'} is no run's ({error}); train again") from None
    if data.classes != known:
        raise InputError(f"{config['data']} has other classes than the run {run} was trained with")
    return capture(
        model.to(device or torch.device("cpu")).to(memory_format=torch.channels_last),
        getattr(data, part).center_crop(data.image_size),
        out,
        normalization=normalization,
        grad_cam_layers=grad_cam_layers,
        batch_size=batch_size,
        precision=precision,
        about={
            "name": run.resolve().name,
            "source": config["data"],
            "part": part,
            "model": read_json(run / "model.json"),
            "weights_sha256": hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest(),
            "skipped": data.skipped,
        },
        progress=progress,
    )


class _Shard:
    """Batches gathered until there are enough for a shard."""

    def __init__(self) -> None:
        self.count = 0
        self._arrays: list[dict[str, NDArray[Any]]] = []
        self._rows: list[pd.DataFrame] = []

    def add(self, arrays: dict[str, NDArray[Any]], rows: pd.DataFrame) -> None:
        self._arrays.append(arrays)
        self._rows.append(rows)
        self.count += len(rows)

    def take(self) -> tuple[dict[str, NDArray[Any]], pd.DataFrame]:
        arrays = {
            key: np.concatenate([piece[key] for piece in self._arrays]) for key in self._arrays[0]
        }
        rows = pd.concat(self._rows, ignore_index=True)
        self._arrays, self._rows, self.count = [], [], 0
        return arrays, rows


def _batches(
    dataset: LabelledImages | Dataset[tuple[Tensor, int]],
    batch_size: int,
    normalization: Normalization,
    device: torch.device,
) -> Iterator[_Batch]:
    start = 0
    if isinstance(dataset, LabelledImages):
        for images, labels in batches(dataset, batch_size):
            paths = dataset.paths[start : start + len(labels)]
            yield _Batch(normalization.apply(images.to(device)), images, labels, paths)
            start += len(labels)
        return
    for x, labels in DataLoader(dataset, batch_size):
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != 3:
            raise InputError("each item of the data set must be an image (3, H, W) and a label")
        pictures = normalization.undo(x)
        if normalization is _IN_UNIT_RANGE and not 0 <= x.min() <= x.max() <= 1:
            raise InputError(
                "the images are not within 0 to 1; say with normalization= what was done to them"
            )
        paths = [str(start + i) for i in range(len(x))]
        yield _Batch(x.to(device), pictures, torch.as_tensor(labels), paths)
        start += len(x)


def _arrays(
    batch: _Batch, seen: Mapping[str, Tensor], logits: Tensor, normalization: Normalization
) -> dict[str, NDArray[Any]]:
    arrays = {f"gate/{name}": _numpy(values.float()) for name, values in seen.items()}
    arrays["logits"] = _numpy(logits.float())
    pictures = batch.pictures
    if max(pictures.shape[2:]) > _LARGEST_THUMBNAIL:
        scale = _LARGEST_THUMBNAIL / max(pictures.shape[2:])
        small = F.interpolate(pictures.float(), scale_factor=scale, mode="bilinear", antialias=True)
        pictures = small.round().clamp(0, 255).to(torch.uint8)
    arrays["images"] = _numpy(pictures.permute(0, 2, 3, 1))
    return arrays


def _rows(batch: _Batch, logits: Tensor) -> pd.DataFrame:
    loss = F.cross_entropy(logits.float(), batch.labels.to(logits.device), reduction="none")
    return pd.DataFrame(
        {
            "path": batch.paths,
            "label": batch.labels.numpy(),
            "prediction": _numpy(logits.argmax(1)),
            "loss": _numpy(loss),
        }
    )


def _check_labels(labels: Tensor, outputs: int, names: Sequence[str]) -> None:
    if outputs != len(names):
        raise InputError(f"the network knows {outputs} classes, the data set {len(names)}")
    if not 0 <= labels.min() <= labels.max() < outputs:
        raise InputError(f"labels must lie between 0 and {outputs - 1}, the network's classes")


def _numpy(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
