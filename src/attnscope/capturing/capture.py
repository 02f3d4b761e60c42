"""One pass over a data set: every gate, the logits and Grad-CAM of each image -> a Recording."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from attnscope.attribution import head_graph, last_map_layer
from attnscope.capturing.arrays import ShardArrays, gate_arrays, image_rows
from attnscope.capturing.batching import (
    IN_UNIT_RANGE,
    SAMPLE_IMAGES,
    SHARD_IMAGES,
    batches,
    thumbnails,
    to_numpy,
)
from attnscope.capturing.fingerprints import hash_data, hash_weights
from attnscope.capturing.pooling import pooling_edits
from attnscope.data.images import LabelledImages, Normalization
from attnscope.errors import InputError
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import edit_gates, watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate
from attnscope.recording.format import TARGETS
from attnscope.recording.moments import ClassSums, Moments, MomentsWriter
from attnscope.recording.recording import Recording, RecordingWriter
from attnscope.training.processes import Team

_ALONE = Team()
_LARGEST_CAM = torch.finfo(torch.float16).max


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
    moments: bool = False,
    pooled_inputs: bool = False,
    shard_images: int = SHARD_IMAGES,
    team: Team = _ALONE,
) -> Recording | Moments:
    """Records what a network does on a data set, with one forward a batch.

    The network runs in eval mode on the device where it is, and is left as it was. Whole shards
    stay whatever stops a capture, in the hidden folder ``.NAME.partial`` beside ``out``; the same
    call goes on with them, and ends with the same files as one that nothing stopped.

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
        progress: whether to show a bar; of several processes the first one shows it.
        moments: record sums over the images of each class (`Moments`), and no single image.
        pooled_inputs: record also what each gate multiplies, as its mean over the axes that the
            gate has not (`Recording.pooled_input`). A gate that multiplies another gate, as in
            ``x * (gc * gs)``, has none: the recording's ``pooled_inputs`` names those that have.
        shard_images: images a shard, rounded up to whole batches. One shard is held in memory.
        team: the processes that share the work, each with the same call, over one folder that all
            of them see. `attnscope.training.processes.launched_team` tells which torchrun has
            started.

    Raises:
        InputError: an argument cannot be used, a gate that was found does not fire, another
            capture is writing the folder, or what is half-done there is of another network, data
            set or setting.
        OSError: the disk is full, or the like; whole shards stay.
    """
    folder = Path(out)
    if team.leads and folder.exists():
        raise InputError(f"{folder} exists already; take another folder or remove it")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision '{precision}' is not known; take fp32 or bf16")
    if batch_size < 1:
        raise InputError(f"batch size is {batch_size}; it must be 1 or more")
    if shard_images < 1:
        raise InputError(f"a shard of {shard_images} images is none; it must be 1 or more")
    if moments and pooled_inputs:
        raise InputError("moments hold no pooled inputs of gates; leave one of the two out")
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise InputError("the data set is empty; there is nothing to record")
    given = classes if classes is not None else getattr(dataset, "classes", None) or []
    names = [_class_name(name) for name in given]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    normalization = normalization or IN_UNIT_RANGE
    # Whole batches, so that what a batch holds does not depend on where a shard ends.
    size = -(-shard_images // batch_size) * batch_size
    shards = range(-(-count // size))
    with eval_mode(model):
        sample = next(
            batches(dataset, range(min(count, SAMPLE_IMAGES)), SAMPLE_IMAGES, normalization, device)
        )
        gates, outputs = _gates_and_outputs(model, sample.x)
        names = names or [str(k) for k in range(outputs)]
        if outputs != len(names):
            raise InputError(f"the network knows {outputs} classes, the data set {len(names)}")
        layers = list(grad_cam_layers if grad_cam_layers is not None else ())
        if grad_cam_layers is None:
            layers = [last_map_layer(model, sample.x, gates)]
        inputs: dict[str, Tensor] = {}
        edits = pooling_edits(gates, inputs) if pooled_inputs else {}
        if pooled_inputs:  # which gates have any must be known before the first shard
            with (
                torch.no_grad(),
                torch.random.fork_rng(devices=[]),
                edit_gates(model, edits, gates),
            ):
                model(sample.x)
        writer = (MomentsWriter if moments else RecordingWriter)(
            folder,
            gates=gates,
            classes=names,
            grad_cam_layers=layers,
            about={**(about or {}), "precision": precision, "torch": torch.__version__},
            pooled_inputs=[gate.name for gate in gates if gate.name in inputs],
            identity={
                "network": f"{type(model).__module__}.{type(model).__qualname__}",
                "weights": hash_weights(model),
                "data": hash_data(dataset),
                "images": count,
                "normalization": [normalization.mean, normalization.std],
                "batch_size": batch_size,
                "images_a_shard": size,
                "device": device.type,
            },
            rank=team.rank,
            processes=team.size,
        )
        own = team.share(len(shards))
        bar = tqdm(
            total=min(own.stop * size, count) - min(own.start * size, count),
            unit="image",
            disable=not (progress and team.leads),
            dynamic_ncols=True,
        )
        # One block for all batches: hooking every module anew for each of them costs a twentieth.
        with (
            bar,
            writer,
            head_graph(model, layers) as head,
            watch_gates(model, gates) as seen,
            edit_gates(model, edits, gates),
        ):
            for index in own:
                rows = range(index * size, min((index + 1) * size, count))
                if writer.has(index):
                    bar.update(len(rows))
                    continue
                gathered: ClassSums | ShardArrays = (
                    ClassSums(gates) if moments else ShardArrays(len(rows))
                )
                tables = []
                for batch in batches(dataset, rows, batch_size, normalization, device):
                    inputs.clear()
                    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                        logits = model(batch.x)
                    _check_labels(batch.labels, logits.shape[1])
                    _check_finite(logits, batch.paths)
                    arrays = gate_arrays(seen, inputs, logits)
                    if not moments:
                        arrays["images"] = thumbnails(batch.pictures)
                    for layer in layers:
                        targets = (logits.argmax(1), batch.labels.to(device))
                        for target, index_of in zip(TARGETS, targets, strict=True):
                            cam = head.grad_cam(layer, logits, index_of)
                            # Beyond what float16 holds a map would be infinite, and no map.
                            cam = cam.clamp(-_LARGEST_CAM, _LARGEST_CAM).half()
                            arrays[f"grad_cam/{layer}/{target}"] = to_numpy(cam)
                    gathered.add(arrays, batch.labels.numpy())
                    tables.append(image_rows(batch, logits.detach()))
                    bar.update(len(batch.labels))
                writer.add_shard(gathered.arrays(), pd.concat(tables, ignore_index=True), index)
            writer.wait_for(len(shards))
    return Moments(folder) if moments else Recording(folder)


def _gates_and_outputs(model: nn.Module, x: Tensor) -> tuple[list[Gate], int]:
    """The gates, and the number of classes that the network knows."""
    outputs: list[object] = []
    handle = model.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        gates = find_gates(model, x)
    finally:
        handle.remove()
    logits = outputs[-1]
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InputError("the network must return logits (N, K), one row an image")
    return gates, logits.shape[1]


def _class_name(name: object) -> str:
    """A class as it is called; torchvision's ImageNet has several words for each."""
    if isinstance(name, (tuple, list)) and all(isinstance(word, str) for word in name):
        return ", ".join(name)
    if isinstance(name, (str, int)):
        return str(name)
    raise InputError(f"the class {name!r:.60} is no name; give classes= as a list of text")


def _check_finite(logits: Tensor, paths: Sequence[str]) -> None:
    finite = torch.isfinite(logits).all(1)
    if not finite.all():
        first = paths[int(finite.logical_not().nonzero()[0])]
        raise InputError(
            f"the network's logits are not finite, first for {first}; capture in fp32, or take "
            "weights of a training that did not diverge"
        )


def _check_labels(labels: Tensor, outputs: int) -> None:
    if not 0 <= labels.min() <= labels.max() < outputs:
        raise InputError(f"labels must lie between 0 and {outputs - 1}, the network's classes")
