"""One pass over a data set: every gate, the logits and Grad-CAM of each image -> a Recording."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from attnscope.attribution import head_graph, last_map_layer
from attnscope.data import Data, LabelledImages, Normalization, load_data, load_test_part
from attnscope.distributed import Team
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.gate_info import Gate
from attnscope.gates import Edit, edit_gates, find_gates, watch_gates
from attnscope.models import ModelConfig, build_model, load_model, load_weights
from attnscope.moments import ClassSums, Moments, MomentsWriter
from attnscope.recording import Recording, RecordingWriter
from attnscope.shards import TARGETS
from attnscope.targets import load_target
from attnscope.tracing import eval_mode

SHARD_IMAGES = 2048
"""Images a shard; one of a ResNet18-CBAM at 32×32 takes about 45 MB."""
_ALONE = Team()
_SAMPLE = 4  # images on which the gates are found
_LARGEST_THUMBNAIL = 128  # pixels
_LARGEST_CAM = torch.finfo(torch.float16).max
_PARTS = ("train", "validation", "test")
IN_UNIT_RANGE = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Batch:
    """Images of a data set."""

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
            of them see. `attnscope.distributed.launched_team` tells which torchrun has started.

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
        sample = next(batches(dataset, range(min(count, _SAMPLE)), _SAMPLE, normalization, device))
        gates, outputs = _gates_and_outputs(model, sample.x)
        names = names or [str(k) for k in range(outputs)]
        if outputs != len(names):
            raise InputError(f"the network knows {outputs} classes, the data set {len(names)}")
        layers = list(grad_cam_layers if grad_cam_layers is not None else ())
        if grad_cam_layers is None:
            layers = [last_map_layer(model, sample.x)]
        inputs: dict[str, Tensor] = {}
        edits = _pooling_edits(gates, inputs) if pooled_inputs else {}
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
                "weights": _hash_weights(model),
                "data": _hash_data(dataset),
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
                gathered: ClassSums | _Images = ClassSums(gates) if moments else _Images(len(rows))
                tables = []
                for batch in batches(dataset, rows, batch_size, normalization, device):
                    inputs.clear()
                    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                        logits = model(batch.x)
                    _check_labels(batch.labels, logits.shape[1])
                    _check_finite(logits, batch.paths)
                    arrays = _arrays(seen, inputs, logits)
                    if not moments:
                        arrays["images"] = _thumbnails(batch.pictures)
                    for layer in layers:
                        targets = (logits.argmax(1), batch.labels.to(device))
                        for target, index_of in zip(TARGETS, targets, strict=True):
                            cam = head.grad_cam(layer, logits, index_of)
                            # Beyond what float16 holds a map would be infinite, and no map.
                            cam = cam.clamp(-_LARGEST_CAM, _LARGEST_CAM).half()
                            arrays[f"grad_cam/{layer}/{target}"] = _numpy(cam)
                    gathered.add(arrays, batch.labels.numpy())
                    tables.append(_rows(batch, logits.detach()))
                    bar.update(len(batch.labels))
                writer.add_shard(gathered.arrays(), pd.concat(tables, ignore_index=True), index)
            writer.wait_for(len(shards))
    return Moments(folder) if moments else Recording(folder)


@dataclass(frozen=True)
class Subject:
    """A network, and the images on which it is to be captured."""

    model: nn.Module
    images: LabelledImages
    normalization: Normalization
    about: dict[str, Any]
    """What the recording will tell of itself."""


def load_run(
    run: Path,
    part: str = "test",
    data_root: Path | None = None,
    untrained: bool = False,
    skip_unreadable: bool = False,
) -> Subject:
    """A run's network, and a part of the data that it was trained with.

    Args:
        run: a run folder whose training ended.
        part: ``train`` (without augmentation), ``validation`` or ``test``.
        data_root: where torchvision's sets lie now; default where they lay at the training.
        untrained: the run's architecture with fresh random weights, neither trained nor pretrained,
            instead of its network: the same ones for each call, from the run's seed. In eval mode
            its BatchNorm changes nothing, so that features grow with the depth.
        skip_unreadable: go on without files that cannot be read, also where the training did not.

    Raises:
        InputError: the run cannot be used, or the data has other classes; also, for ``train`` and
            ``validation``, where it is no longer what the run was trained with.
    """
    _check_part(part)
    if not run.is_dir():
        raise InputError(f"run {run} does not exist; make it with attnscope train")
    model = load_model(run)
    if part == "test":
        images, skipped, normalization = _load_run_test_part(run, data_root, skip_unreadable)
    else:
        data, normalization = load_run_data(run, data_root, skip_unreadable)
        expect_parts(run, data)
        images, skipped = getattr(data, part).center_crop(data.image_size), data.skipped
    config = read_json(run / "config.json")
    about: dict[str, Any] = {
        "name": run.resolve().name,
        "source": config["data"],
        "part": part,
        "seed": config["seed"],
        "model": read_json(run / "model.json"),
        "weights_sha256": hash_file(run / "model.safetensors"),
        "training_sha256": _hash_training(config),
        "skipped": skipped,
    }
    if untrained:
        model = _with_fresh_weights(model, about["seed"])
        about |= {
            "name": f"{about['name']} (untrained)",
            "untrained": True,
            "weights_sha256": None,
            "training_sha256": None,
        }
    return Subject(model, images, normalization, about)


_SETTINGS = (
    *("data", "image_size", "resize", "validation_share", "skip_unreadable"),
    *("weights", "recipe", "epochs", "precision"),
)


def _hash_training(config: Mapping[str, Any]) -> str:
    """The same for trainings that differ in nothing but the seed and the machine."""
    settings = {key: config.get(key) for key in _SETTINGS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def load_run_data(
    run: Path, data_root: Path | None = None, skip_unreadable: bool = False
) -> tuple[Data, Normalization]:
    """All parts of the data that a run was trained with, split as then, and its normalization.

    Training images may be larger than the network gets them: crop their centres.

    Args:
        run, data_root, skip_unreadable: of `load_run`.

    Raises:
        InputError: as `load_run`.
    """
    with _config_of(run) as config:
        data = load_data(
            **_source_of(config, data_root, skip_unreadable),
            validation_share=config["validation_share"],
            seed=config["seed"],
        )
        return data, _normalization_of(run, config, data.classes)


def _load_run_test_part(
    run: Path, data_root: Path | None, skip_unreadable: bool
) -> tuple[LabelledImages, list[str], Normalization]:
    """As `load_run_data`, without reading the images of the other parts."""
    with _config_of(run) as config:
        images, skipped = load_test_part(**_source_of(config, data_root, skip_unreadable))
        return images, skipped, _normalization_of(run, config, images.classes)


@contextmanager
def _config_of(run: Path) -> Iterator[dict[str, Any]]:
    config = read_json(run / "config.json")
    try:
        yield config
    except (KeyError, TypeError) as error:
        raise InputError(f"{run / 'config.json'} is no run's ({error}); train again") from None


def _source_of(
    config: Mapping[str, Any], data_root: Path | None, skip_unreadable: bool
) -> dict[str, Any]:
    """What `load_data` and `load_test_part` take."""
    return {
        "source": config["data"],
        "data_root": data_root or Path(config["data_root"]),
        "image_size": config["image_size"],
        "resize": config.get("resize"),
        "skip_unreadable": skip_unreadable or config.get("skip_unreadable", False),
    }


def _normalization_of(run: Path, config: Mapping[str, Any], classes: list[str]) -> Normalization:
    """That of the run, if the data has its classes."""
    if classes != config["classes"]:
        raise InputError(f"{config['data']} has other classes than the run {run} was trained with")
    return Normalization(**config["normalization"])


def expect_parts(run: Path, data: Data) -> None:
    """Refuses data whose training or validation part is not that of the run's training any more.

    Then what was trained on may lie in the validation part, which chooses. Images of the test part
    may be others: nothing was chosen on them.

    Raises:
        InputError: paths or labels differ. (Runs of attnscope before it kept them are not refused.)
    """
    known = read_json(run / "config.json").get("parts", {})
    for name, was in known.items():
        now = data.fingerprints()[name]
        if name != "test" and now != was:
            raise InputError(
                f"the {name} part of {data.source} is not the one that {run} was trained with "
                f"({was['images']} images then, {now['images']} now, or others among them); "
                "restore the images, or train again"
            )


def load_network(
    name: str,
    source: str,
    *,
    weights: Path | None = None,
    part: str = "test",
    normalization: Normalization | None = None,
    data_root: Path = Path("data"),
    image_size: int | None = None,
    skip_unreadable: bool = False,
) -> Subject:
    """A network that attnscope did not train, and a part of any data.

    Args:
        name: of `attnscope.targets.load_target`.
        source: of `attnscope.data.load_data`, as are ``data_root`` and ``skip_unreadable``.
        weights: safetensors or a state dict; may be left out where the user's own code loads them.
        part: ``train``, ``validation`` or ``test``.
        normalization: which the network was trained with; default that of timm or torchvision, else
            that of the training part of the data.
        image_size: pixels; default the source's.

    Raises:
        InputError: there is no such network or data, or the weights do not fit.
    """
    _check_part(part)
    of_a_library = name.partition(":")[0] in ("timm", "torchvision")
    if weights is None and of_a_library:
        raise InputError(f"{name} is built with random weights; give --weights FILE")
    # The network first: it is quick, and a wrong name shows at once.
    target = load_target(name)
    where = {"data_root": data_root, "image_size": image_size, "skip_unreadable": skip_unreadable}
    normalization = normalization or target.normalization
    if part == "test" and normalization is not None:
        images, skipped = load_test_part(source, **where)  # type: ignore[arg-type]
    else:
        data = load_data(source, **where)  # type: ignore[arg-type]
        images, skipped = getattr(data, part), data.skipped
        normalization = normalization or data.normalization
    if of_a_library:
        target = load_target(name, len(images.classes))
    if weights is not None:
        load_weights(target.model, weights)
    return Subject(
        target.model,
        images,
        normalization,
        {
            "name": name.rpartition(":")[2],
            "source": source,
            "part": part,
            "model": {"name": name},
            "weights_sha256": None if weights is None else hash_file(weights),
            "skipped": skipped,
        },
    )


def capture_run(
    run: Path,
    *,
    part: str = "test",
    out: Path | None = None,
    data_root: Path | None = None,
    batch_size: int = 128,
    progress: bool = True,
) -> Recording:
    """Records a run's network on a part of the data that it was trained with, on the CPU.

    Args:
        run, part, data_root: of `load_run`.
        out: default ``RUN/recordings/PART``.
        batch_size, progress: of `capture`.

    Raises:
        InputError: as `load_run` and `capture`.
    """
    out = run / "recordings" / part if out is None else out
    subject = load_run(run, part, data_root)
    recording = capture(
        subject.model.to(memory_format=torch.channels_last),
        subject.images,
        out,
        normalization=subject.normalization,
        batch_size=batch_size,
        about=subject.about,
        progress=progress,
    )
    assert isinstance(recording, Recording)  # no moments were asked for
    return recording


def _with_fresh_weights(model: nn.Module, seed: int) -> nn.Module:
    """The same architecture as it is built, in eval mode; random numbers go on as if it were not.

    The seed is made from the run's and a word: that of the run alone is the one with which the
    run's own training began. Of a folded network it is the one with all its gates.
    """
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    arguments = asdict(config)
    del arguments["folded"]
    digest = hashlib.sha256(f"untrained {seed}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # Of the CPU's generator alone, which is the one that is forked; manual_seed is of all.
        fresh = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        torch.set_rng_state(fresh.get_state())
        return build_model(**arguments).eval()


def _check_part(part: str) -> None:
    if part not in _PARTS:
        raise InputError(f"part '{part}' is not known; take one of {', '.join(_PARTS)}")


def hash_file(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Images:
    """The arrays of a shard, filled batch by batch."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._filled = 0
        self._arrays: dict[str, NDArray[Any]] = {}

    def add(self, arrays: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]) -> None:
        start, self._filled = self._filled, self._filled + len(labels)
        for key, value in arrays.items():
            shape = (self._count, *value.shape[1:])
            # Made once and filled: batches that are joined at the end are held twice.
            if key not in self._arrays:
                self._arrays[key] = np.empty(shape, value.dtype)
            whole = self._arrays[key]
            if whole.shape != shape:
                raise InputError(
                    f"{key} is {value.shape[1:]} in one batch and {whole.shape[1:]} in another; "
                    "images of one recording must have one size"
                )
            whole[start : self._filled] = value

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self._arrays


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


def _hash_weights(model: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(_bytes(value))
    return digest.hexdigest()


def _hash_data(dataset: LabelledImages | Dataset[tuple[Tensor, int]]) -> str:
    """SHA-256 over paths, labels and pixels; of a set that is not in memory, over its ends.

    Reading the whole of such a set would take as long as capturing it: of its items the first and
    the last four count, and a change between them is not seen.
    """
    digest = hashlib.sha256()
    count = len(dataset)  # type: ignore[arg-type]
    if isinstance(dataset, LabelledImages):
        digest.update("\n".join(dataset.paths).encode())
        digest.update(_bytes(dataset.labels))
        for start in range(0, count, SHARD_IMAGES):
            digest.update(_bytes(dataset.images[start : start + SHARD_IMAGES]))
        return digest.hexdigest()
    digest.update(f"{type(dataset).__module__}.{type(dataset).__qualname__}".encode())
    for i in sorted({*range(min(count, _SAMPLE)), *range(max(count - _SAMPLE, 0), count)}):
        image, label = dataset[i]
        digest.update(f"{i} {int(label)} {tuple(image.shape)}\n".encode())
        digest.update(_bytes(torch.as_tensor(image)))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def batches(
    dataset: LabelledImages | Dataset[tuple[Tensor, int]],
    rows: Sequence[int],
    batch_size: int,
    normalization: Normalization,
    device: torch.device,
) -> Iterator[Batch]:
    """The images of some rows of a data set, in their order.

    Args:
        dataset, normalization: of `capture`.
        rows: which.
        batch_size: images a batch.
        device: where they are wanted.

    Raises:
        InputError: an item is no image with a label, or its values say that it was normalised
            otherwise.
    """
    if isinstance(dataset, LabelledImages):
        for start in range(0, len(rows), batch_size):
            part = rows[start : start + batch_size]
            # A slice is read where it lies; other rows are copied.
            where = slice(part.start, part.stop) if isinstance(part, range) else list(part)
            images = dataset.images[where]
            x = normalization.apply(images.to(device))
            yield Batch(x, images, dataset.labels[where], [dataset.paths[i] for i in part])
        return
    start = 0
    # A loader draws a number when it starts; not from the generator that all others draw from.
    own = torch.Generator()
    loader = DataLoader(Subset(dataset, rows), batch_size, generator=own, collate_fn=_collated)
    for x, labels in loader:
        pictures = normalization.undo(x)
        if normalization is IN_UNIT_RANGE and not 0 <= x.min() <= x.max() <= 1:
            raise InputError(
                "the images are not within 0 to 1; say with normalization= what was done to them"
            )
        paths = [str(row) for row in rows[start : start + len(x)]]
        yield Batch(x.to(device), pictures, torch.as_tensor(labels), paths)
        start += len(x)


def _pooling_edits(gates: Sequence[Gate], inputs: dict[str, Tensor]) -> dict[str, Edit]:
    """Edits that leave every gate as it is, and put into ``inputs`` what it multiplies, pooled."""

    def edit_of(known: Gate) -> Edit:
        def keep(gate: Tensor, features: Tensor) -> Tensor:
            # A gate that multiplies another gate is handed itself. Of several uses of one gate the
            # first counts, as for the gate's values.
            if features is not gate and known.name not in inputs:
                inputs[known.name] = _pooled(features.detach(), gate.shape, known)
            return gate

        return keep

    return {gate.name: edit_of(gate) for gate in gates}


def _pooled(features: Tensor, shape: torch.Size, gate: Gate) -> Tensor:
    """The mean of the features over the axes along which the gate does not vary.

    Args:
        features: in the shape in which they are multiplied.
        shape: of the gate, which broadcasts to them.
        gate: what the axes are.
    """
    layout = gate.layout
    sizes = (1,) * (features.ndim - len(shape)) + tuple(shape)
    order = [letter for letter in "NBCHWL" if letter in layout]
    values = features.permute([layout.index(letter) for letter in order])
    # One number for all channels is read as a channel gate (N, 1), and its input so as well.
    over = [
        axis
        for axis, letter in enumerate(order)
        if letter not in gate.axes or sizes[layout.index(letter)] == 1
    ]
    own = [
        1 if axis in over else values.shape[axis]
        for axis, letter in enumerate(order)
        if letter in gate.axes
    ]
    if over:  # a sum over no axes would be one over all
        # In single precision whatever the features are in; mean is slow in bfloat16 on a CPU.
        total = values.sum(over, dtype=torch.float32)
        values = total / math.prod(values.shape[axis] for axis in over)
    return values.float().reshape(own)


def _collated(items: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Images and labels of one batch.

    Raises:
        InputError: an item is something else, or the images are of several sizes.
    """
    for item in items:
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise InputError(
                f"an item of the data set is {type(item).__name__}; each must be an image "
                "(3, H, W) and a label"
            )
        image = item[0]
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
            what = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise InputError(
                f"an image of the data set is {what}; each item must be a tensor (3, H, W) and a "
                "label: give the data set a transform"
            )
    sizes = sorted({tuple(image.shape[1:]) for image, _ in items})
    if len(sizes) > 1:
        raise InputError(
            f"images of the data set are {sizes[0]} and {sizes[1]} pixels; resize them to one size"
        )
    return torch.stack([image for image, _ in items]), torch.tensor([int(y) for _, y in items])


def _arrays(
    seen: Mapping[str, Tensor], inputs: Mapping[str, Tensor], logits: Tensor
) -> dict[str, NDArray[Any]]:
    arrays = {f"gate/{name}": _numpy(values.float()) for name, values in seen.items()}
    for name, values in inputs.items():
        # Where pixels stand in one row, the gate that was read has become a grid.
        arrays[f"pooled/{name}"] = _numpy(values.reshape(seen[name].shape))
    return {**arrays, "logits": _numpy(logits.float())}


def _thumbnails(pictures: Tensor) -> NDArray[np.uint8]:
    """uint8 ``(n, 3, H, W)`` -> ``(n, h, w, 3)``, the longer side at most 128 pixels."""
    pictures = pictures.cpu()  # where bytes can be interpolated, and will have to be
    if max(pictures.shape[2:]) > _LARGEST_THUMBNAIL:
        scale = _LARGEST_THUMBNAIL / max(pictures.shape[2:])
        # As bytes, which is several times as fast as in float32.
        pictures = F.interpolate(pictures, scale_factor=scale, mode="bilinear", antialias=True)
    return _numpy(pictures.permute(0, 2, 3, 1))


def _rows(batch: Batch, logits: Tensor) -> pd.DataFrame:
    loss = F.cross_entropy(logits.float(), batch.labels.to(logits.device), reduction="none")
    return pd.DataFrame(
        {
            "path": batch.paths,
            "label": batch.labels.numpy(),
            "prediction": _numpy(logits.argmax(1)),
            "loss": _numpy(loss),
        }
    )


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


def _numpy(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array
