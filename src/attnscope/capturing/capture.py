"""One pass over a data set: every gate, the logits and Grad-CAM of each image -> a Recording."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from attnscope.attribution import ATTRIBUTIONS, GRAD_CAM, head_graph, last_map_layer
from attnscope.capturing.arrays import ShardArrays, gate_arrays, image_rows
from attnscope.capturing.batching import (
    IN_UNIT_RANGE,
    SAMPLE_IMAGES,
    Batch,
    batches,
    thumbnails,
)
from attnscope.capturing.explaining import Explanations, stored_map
from attnscope.capturing.fingerprints import hash_data
from attnscope.capturing.pooling import pooling_edits
from attnscope.capturing.settings import SHARD_IMAGES, CaptureSettings
from attnscope.data.images import LabeledImages, Normalization
from attnscope.errors import InputError
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import Edit, edit_gates, watch_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate
from attnscope.networks.weights import hash_weights
from attnscope.recording.attributed import Attributed, Attributions
from attnscope.recording.format import TARGETS
from attnscope.recording.moments import ClassSums, Moments, MomentsWriter
from attnscope.recording.recording import Recording, RecordingWriter
from attnscope.sources import Source
from attnscope.training.processes import ProcessGroup

_ALONE = ProcessGroup()


def capture(
    model: nn.Module,
    dataset: LabeledImages | Dataset[tuple[Tensor, int]],
    out: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    normalization: Normalization | None = None,
    grad_cam_layers: Sequence[str] | None = None,
    batch_size: int = 128,
    precision: str = "fp32",
    about: Mapping[str, Any] | None = None,
    source: Source | None = None,
    progress: bool = True,
    moments: bool = False,
    pooled_inputs: bool = False,
    attributions: Sequence[str] = (),
    attribution_images: int = 200,
    shard_images: int = SHARD_IMAGES,
    process_group: ProcessGroup = _ALONE,
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
        source: where the network and the images come from, so that `Recording.network` and
            `Recording.images` can open them again.
        progress: whether to show a bar; of several processes the first one shows it.
        moments: record sums over the images of each class (`Moments`), and no single image.
        pooled_inputs: record also what each gate multiplies, as its mean over the axes that the
            gate has not (`Recording.pooled_input`). A gate that multiplies another gate, as in
            ``x * (gc * gs)``, has none: the recording's ``pooled_inputs`` names those that have.
        attributions: attribution methods to record beside Grad-CAM, names of
            `attnscope.attribution.ATTRIBUTIONS`. They cost many passes each, in float32. Those that
            explain layers take the layers of Grad-CAM.
        attribution_images: of how many images they are recorded, evenly over the data set
            (`Recording.attributed_rows`).
        shard_images: images a shard, rounded up to whole batches. One shard is held in memory.
        process_group: the processes that share the work. Each makes the same call, and all of them
            see the same folder. `attnscope.training.processes.launched_process_group` returns the
            group that torchrun started.

    Raises:
        InputError: an argument cannot be used, a gate that was found does not fire, another
            capture is writing the folder, or what is half-done there is of another network, data
            set or setting.
        OSError: the disk is full, or the like; whole shards stay.
    """
    folder = Path(out)
    if process_group.is_main and folder.exists():
        raise InputError(f"{folder} exists already; take another folder or remove it")
    settings = CaptureSettings(
        grad_cam_layers,
        batch_size,
        precision,
        moments,
        pooled_inputs,
        attributions,
        attribution_images,
        shard_images,
    )
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise InputError("the data set is empty; there is nothing to record")
    size = settings.rows_a_shard
    shards = [range(start, min(start + size, count)) for start in range(0, count, size)]
    with eval_mode(model):
        over = _Pass(
            model,
            dataset,
            normalization=normalization or IN_UNIT_RANGE,
            batch_size=batch_size,
            bf16=precision == "bf16",
            moments=moments,
        )
        names = over.find_gates_and_classes(classes)
        over.choose_layers(grad_cam_layers)
        if pooled_inputs:
            over.pool_inputs()
        chosen = over.choose_attributions(attributions, attribution_images)
        writer = (MomentsWriter if moments else RecordingWriter)(
            folder,
            gates=over.gates,
            classes=names,
            grad_cam_layers=over.layers,
            about={**(about or {}), "precision": precision, "torch": torch.__version__},
            pooled_inputs=[gate.name for gate in over.gates if gate.name in over.inputs],
            attributions=chosen,
            identity={**over.identity(), "images_a_shard": size, "device": over.device.type},
            source=None if source is None else source.to_dict(),
            rank=process_group.rank,
            processes=process_group.size,
        )
        own = process_group.share(len(shards))
        bar = tqdm(
            total=sum(len(shards[index]) for index in own),
            unit="image",
            disable=not (progress and process_group.is_main),
            dynamic_ncols=True,
        )
        explained = Explanations(chosen, count)
        with bar, writer:
            left = [index for index in own if not writer.has(index)]
            bar.update(sum(len(shards[index]) for index in own if index not in left))
            # Before the hooks, under which the many passes of these methods would be read as well.
            over.explain(
                explained, [shards[index] for index in left], progress and process_group.is_main
            )
            with over.hooks():
                for index in left:
                    arrays, rows = over.shard(shards[index], bar.update)
                    writer.add_shard({**arrays, **explained.arrays(shards[index])}, rows, index)
            writer.wait_for(len(shards))
    return Moments(folder) if moments else Recording(folder)


class _Pass:
    """One pass over a data set: what all its batches share, and what is made of each."""

    def __init__(
        self,
        model: nn.Module,
        dataset: LabeledImages | Dataset[tuple[Tensor, int]],
        *,
        normalization: Normalization,
        batch_size: int,
        bf16: bool,
        moments: bool,
    ) -> None:
        self.model, self.dataset = model, dataset
        self.normalization, self.batch_size = normalization, batch_size
        self.bf16, self.moments = bf16, moments
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.count = len(dataset)  # type: ignore[arg-type]
        self.sample = next(self._batches(range(min(self.count, SAMPLE_IMAGES)), SAMPLE_IMAGES)).x
        self.gates: list[Gate] = []
        self.layers: list[str] = []
        """Of Grad-CAM."""
        self.inputs: dict[str, Tensor] = {}
        """Filled by each forward: what the gates multiply, pooled."""
        self._edits: Mapping[str, Edit] = {}

    def find_gates_and_classes(self, classes: Sequence[str] | None) -> list[str]:
        """Finds the gates on the sample; returns the names of the classes.

        Raises:
            InputError: the network knows another number of classes, or a class is no name.
        """
        given = classes if classes is not None else getattr(self.dataset, "classes", None) or []
        names = [_class_name(name) for name in given]
        self.gates, outputs = _gates_and_outputs(self.model, self.sample)
        names = names or [str(k) for k in range(outputs)]
        if outputs != len(names):
            raise InputError(f"the network knows {outputs} classes, the data set {len(names)}")
        return names

    def choose_layers(self, given: Sequence[str] | None) -> None:
        """The layers of Grad-CAM: those that are given, else the one with the last map."""
        self.layers = (
            [last_map_layer(self.model, self.sample, self.gates)] if given is None else list(given)
        )

    def choose_attributions(self, names: Sequence[str], images: int) -> Attributions:
        """The methods beside Grad-CAM, each with its layers.

        Raises:
            InputError: a method is not known, or no layer can be explained.
        """
        found: list[Attributed] = []
        for name in dict.fromkeys(names):
            method = ATTRIBUTIONS.find(name)
            if name == GRAD_CAM:
                continue  # it has its own place, and is of all images
            layers = [""]
            if method.grid == "layer":
                layers = self.layers or [last_map_layer(self.model, self.sample, self.gates)]
            found += [Attributed(name, layer) for layer in layers]
        return Attributions(tuple(found), images) if found else Attributions()

    def explain(self, explained: Explanations, shards: Sequence[range], progress: bool) -> None:
        """Computes what the methods beside Grad-CAM say of the images of some shards."""
        explained.compute(
            self.model, self.dataset, shards, self.normalization, self.device, progress
        )

    def pool_inputs(self) -> None:
        """From now on forwards fill ``inputs``; the sample shows which gates have any."""
        self._edits = pooling_edits(self.gates, self.inputs)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            edit_gates(self.model, self._edits, self.gates),
        ):
            self.model(self.sample)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a half-done recording to be gone on with."""
        network = type(self.model)
        return {
            "network": f"{network.__module__}.{network.__qualname__}",
            "weights": hash_weights(self.model),
            "data": hash_data(self.dataset),
            "images": self.count,
            "normalization": [self.normalization.mean, self.normalization.std],
            "batch_size": self.batch_size,
        }

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """What reads the network while `shard` runs it.

        One block for all batches: hooking every module anew for each of them costs a twentieth.
        """
        with (
            head_graph(self.model, self.layers) as self._head,
            watch_gates(self.model, self.gates) as self._seen,
            edit_gates(self.model, self._edits, self.gates),
        ):
            yield

    def shard(
        self, rows: range, progress: Callable[[int], object]
    ) -> tuple[dict[str, NDArray[Any]], pd.DataFrame]:
        """The arrays and the rows of some images, within `hooks`.

        Args:
            rows: which.
            progress: is told the number of images after each batch.

        Raises:
            InputError: a gate does not fire, a label is no class, or logits are not finite.
        """
        gathered = ClassSums(self.gates) if self.moments else ShardArrays(len(rows))
        tables = []
        for batch in self._batches(rows, self.batch_size):
            self.inputs.clear()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                logits = self.model(batch.x)
            _check_labels(batch.labels, logits.shape[1])
            _check_finite(logits, batch.paths)
            arrays = gate_arrays(self._seen, self.inputs, logits)
            if not self.moments:
                arrays["images"] = thumbnails(batch.pictures)
            arrays |= self._grad_cams(logits, batch.labels)
            gathered.add(arrays, batch.labels.numpy())
            tables.append(image_rows(batch, logits.detach()))
            progress(len(batch.labels))
        return gathered.arrays(), pd.concat(tables, ignore_index=True)

    def _grad_cams(self, logits: Tensor, labels: Tensor) -> dict[str, NDArray[Any]]:
        """Grad-CAM of each layer and target for one batch, in float16."""
        arrays = {}
        for layer in self.layers:
            targets = (logits.argmax(1), labels.to(self.device))
            for target, classes in zip(TARGETS, targets, strict=True):
                cam = self._head.grad_cam(layer, logits, classes)
                arrays[f"grad_cam/{layer}/{target}"] = stored_map(cam)
        return arrays

    def _batches(self, rows: range, size: int) -> Iterator[Batch]:
        return batches(self.dataset, rows, size, self.normalization, self.device)


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
