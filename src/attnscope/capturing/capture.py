"""Record every gate, the logits and Grad-CAM of each image of a data set, in one pass.

This file has more than 400 lines, because one pass and its checks belong together.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from attnscope.attribution import (
    ATTRIBUTIONS,
    GRAD_CAM,
    last_map_layer,
    note_map_layers,
)
from attnscope.capturing.batching import Batch, batches, read_sample
from attnscope.capturing.explaining import Explanations
from attnscope.capturing.filling import Shard, shard_line
from attnscope.capturing.forwards import Forwards
from attnscope.capturing.number_types import as_inputs, of_type
from attnscope.capturing.pictures import IN_UNIT_RANGE, describe_clipping, describe_picture
from attnscope.capturing.pooling import pooling_edits
from attnscope.capturing.settings import SHARD_IMAGES, CaptureSettings
from attnscope.capturing.trial import (
    expect_attribution,
    explainable_layer,
    grad_cam_problem,
    notes_on_gates,
    refuse_network,
)
from attnscope.capturing.ways import Subject, Way, choose_way
from attnscope.data.fingerprints import Fingerprints, fingerprint_file
from attnscope.data.hashing import hash_data
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.items import class_names_of, item_count
from attnscope.data.label_kinds import CLASS, describe_labels
from attnscope.data.labels import label_kind_of
from attnscope.data.streamed import StreamedImages
from attnscope.errors import InputError
from attnscope.files import refuse_existing
from attnscope.gates.detect import inspect_gates
from attnscope.gates.hooks import Edit, edit_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate
from attnscope.networks.number_types import number_type
from attnscope.networks.output_forms import Sample
from attnscope.networks.output_parts import describe
from attnscope.networks.outputs import Choice, OutputAdapter, adapted, find_adapter
from attnscope.networks.weights import hash_weights
from attnscope.progress import progress_bar
from attnscope.recording.attributed import Attributed, Attributions
from attnscope.recording.moments import Moments, MomentsWriter
from attnscope.recording.partial import wait_for_plan
from attnscope.recording.recording import Recording, RecordingWriter
from attnscope.sources import Source
from attnscope.training.processes import ProcessGroup

_SINGLE_PROCESS = ProcessGroup()
_log = logging.getLogger(__name__)


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
    kinds: Sequence[str] | None = None,
    output: Choice | None = None,
    compile: bool = False,
    process_group: ProcessGroup = _SINGLE_PROCESS,
) -> Recording | Moments:
    """Record every gate of a network over a data set, with one forward pass per batch.

    The network runs in eval mode on its present device, and its state is restored afterwards. If
    the capture is interrupted, complete shards are kept in the hidden folder ``.NAME.partial``
    beside ``out``. The same call then resumes, and produces the same files as a capture that was
    not interrupted.

    Args:
        model: Any network, of any floating point type; images are converted to that type. It
            returns class scores ``(N, K)``, or contains them in what it returns; see ``output``.
        dataset: Images of `attnscope.data`, or any data set with a length. Its items are an image,
            an image and a label, those two and a path, or a dict of them (`attnscope.data.items`).
            An image is a tensor ``(C, H, W)``, ``(C, L)`` or ``(C, D, H, W)``, as the network gets
            it. Labels are class indices or rows of zeros and a one; other labels are recorded
            without an accuracy (`Recording.label_kind`).
        out: Folder of the recording. It must not exist.
        classes: Names of the classes; default the ``classes`` of the data set or of the data set
            that it is a part of, or else numbers.
        normalization: The normalization of the network. It is applied to images of
            `attnscope.data`. Images of any other data set must be normalized already, and it is
            undone to store the pictures. Default: pixels are in 0 to 1; sequences have any values.
        grad_cam_layers: Paths of the modules whose Grad-CAM is recorded; default: the last module
            whose output is larger than 1×1. An empty sequence records none.
        batch_size: Batch size.
        precision: ``fp32``, or ``bf16`` for autocast. Gates are stored in float32 in both cases.
        about: Facts to store in the recording, as JSON values: name, source, split and others.
        source: Where the network and the images come from, so that `Recording.network` and
            `Recording.images` can open them again.
        progress: Whether to show a progress bar (in the main process only).
        moments: Record sums over the images of each class (`Moments`) instead of single images.
        pooled_inputs: Also record the features that each gate multiplies, averaged over the axes
            that the gate lacks (`Recording.pooled_input`). A gate that multiplies another gate, as
            in ``x * (gc * gs)``, has none; ``Recording.pooled_inputs`` names the others.
        attributions: Names of attribution methods to record besides Grad-CAM, of
            `attnscope.attribution.ATTRIBUTIONS`. Each needs many passes, in float32. Methods that
            explain layers use the layers of Grad-CAM.
        attribution_images: Number of images, evenly spaced over the data set, for which they are
            recorded (`Recording.attributed_rows`).
        shard_images: Images per shard, rounded up to whole batches. One shard is in memory at a
            time.
        kinds: Names of the kinds of gates to record; default: those that `find_gates` looks for.
            Gates of the features' own shape (``full``) are large: they can be left out.
        output: Which output of the network has the class scores: a key, an index, a function or
            ``"module:function"``; or their form, one of
            `attnscope.networks.output_forms.OUTPUT_FORMS`, such as ``"probabilities"``. ``"none"``
            records the gates without class scores. Default: it is told by looking at the output
            for four images, and a line of the log says what was taken, unless the network returns
            logits and nothing else. Without class scores there are no logits, predictions and
            Grad-CAM (`Recording.has_scores`).
        compile: Compile the network (`torch.compile`), which takes half a minute and is faster for
            many images. A line of the log says if it cannot be done. Default: on a GPU the way that
            is expected to end first for this number of images (compiled code, an exported graph, or
            the tracer); on a CPU the tracer. An unfinished capture is resumed in its own way.
        process_group: The processes that share the work. Each of them makes the same call, and all
            see the same folder. `attnscope.training.processes.launched_process_group` returns the
            group that torchrun started.

    Returns:
        The recording, or the moments.

    Raises:
        InputError: An argument cannot be used, it cannot be told which output has the class scores,
            a gate that was found is not used in some batch, another capture writes to the folder,
            or an unfinished capture there was started with another network, data set or setting.
        OSError: The disk is full, or a similar error. Complete shards are kept.
    """
    folder = Path(out)
    if process_group.is_main:
        refuse_existing(folder)
    settings = CaptureSettings(
        grad_cam_layers,
        batch_size,
        precision,
        moments,
        pooled_inputs,
        attributions,
        attribution_images,
        shard_images,
        kinds,
    )
    if normalization is not None and isinstance(dataset, LabeledImages):
        normalization.expect_unit_scale()
    count = item_count(dataset)
    if not count:
        raise InputError(
            "AS660",
            "the data set has no images; it must have at least 1: check where it reads them",
        )
    size = settings.rows_a_shard
    shards = [range(start, min(start + size, count)) for start in range(0, count, size)]
    with eval_mode(model):
        network_pass = _Pass(
            model,
            dataset,
            normalization=normalization or IN_UNIT_RANGE,
            batch_size=batch_size,
            bf16=precision == "bf16",
            moments=moments,
        )
        names = network_pass.find_gates_and_classes(classes, kinds, output)
        if process_group.is_main and network_pass.output_line:
            said = network_pass.output_line
            _log.warning("%s%s", said[:1].upper(), said[1:])
        network_pass.choose_layers(grad_cam_layers)
        if pooled_inputs:
            network_pass.pool_inputs()
        chosen = network_pass.choose_attributions(attributions, attribution_images)
        way = choose_way(
            network_pass.subject(pooled_inputs),
            compile,
            folder,
            None if process_group.is_main else lambda: wait_for_plan(folder),
        )
        if process_group.is_main and way.line:
            _log.warning("%s", way.line)
        writer = (MomentsWriter if moments else RecordingWriter)(
            folder,
            gates=network_pass.gates,
            classes=names,
            grad_cam_layers=network_pass.layers,
            about={
                **with_notes(about or {}, network_pass.notes),
                "precision": precision,
                "torch": torch.__version__,
            },
            label_kind=network_pass.label_kind,
            pooled_inputs=[
                gate.name for gate in network_pass.gates if gate.name in network_pass.inputs
            ],
            attributions=chosen,
            identity={
                **network_pass.identity(),
                "images_a_shard": size,
                "device": network_pass.device.type,
                **way.identity,
            },
            source=None if source is None else source.to_dict(folder),
            fingerprints=None if source is None else _fingerprints(dataset, source.split),
            output=network_pass.adapter.to_dict() if not network_pass.adapter.is_plain else None,
            streamed=isinstance(dataset, StreamedImages),
            rank=process_group.rank,
            processes=process_group.size,
        )
        own_shards = process_group.share(len(shards))
        shown = progress and process_group.is_main
        total = sum(len(shards[index]) for index in own_shards)
        attribution_maps = Explanations(chosen, count)
        with progress_bar(total, "image", enabled=shown) as bar, writer:
            left = [index for index in own_shards if not writer.has(index)]
            bar.update(sum(len(shards[index]) for index in own_shards if index not in left))
            # Before the hooks, which would also record the many passes of these methods.
            network_pass.explain(attribution_maps, [shards[index] for index in left], shown)

            def write(arrays: dict[str, NDArray[Any]], rows: pd.DataFrame, index: int) -> None:
                maps = attribution_maps.arrays(shards[index])
                writer.add_shard({**arrays, **maps}, rows, index)

            forwards = network_pass.forwards(way)
            with (
                forwards.hooks(),
                shard_line(network_pass.device, write, bar.update) as line,
            ):
                for index in left:
                    shard = Shard(index, len(shards[index]), network_pass.gates, moments)
                    for batch in network_pass.batches(shards[index]):
                        line.add(shard, forwards.send(batch))
                    line.close(shard)
            writer.wait_for(len(shards))
    return Moments(folder) if moments else Recording(folder)


class _Pass:
    """The pass over a data set: what all batches share, and the arrays of each."""

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
        self.count = item_count(dataset)
        images, labels = read_sample(dataset, self.normalization, self.device)
        self.sample = of_type(images, number_type(model))
        self.label_kind = label_kind_of(dataset, labels)
        _check_label_kind(self.label_kind, moments)
        picture = describe_picture(tuple(self.sample.shape[1:]), normalization)
        clipped = describe_clipping(self.sample, normalization)
        self.notes = [note for note in (picture, clipped) if note is not None]
        """What a user should know about the pass, one line each."""
        self.gates: list[Gate] = []
        self.adapter = OutputAdapter()
        self.output_line = ""
        """What is taken as class scores, as a sentence; empty for plain logits."""
        self.layers: list[str] = []
        """Layers of Grad-CAM."""
        self.inputs: dict[str, Tensor] = {}
        """Pooled inputs of the gates; each forward pass fills it."""
        self._edits: Mapping[str, Edit] = {}
        self._classes: int | None = None  # of the network
        self._maps: list[str] = []  # layers that return a map, in the order in which they end

    def find_gates_and_classes(
        self,
        classes: Sequence[str] | None,
        kinds: Sequence[str] | None,
        output: Choice | None,
    ) -> list[str]:
        """Find the gates and the class scores on the sample, and return the names of the classes.

        Without class scores and names, there are no names.

        Raises:
            InputError: The network does not run on the images, it has another number of classes, a
                class has no valid name, or the class scores cannot be told.
        """
        names = class_names_of(self.dataset if classes is None else _Named(classes))
        try:
            found = inspect_gates(self.model, self.sample, kinds)
            with note_map_layers(self.model, self.sample, found.gates) as self._maps:
                returned = self._run_sample(with_graph=False)
        except (InputError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a network can raise anything
            raise refuse_network(self.model, self.sample, error) from error
        self.gates = found.gates
        self.notes += notes_on_gates(found)
        sample = Sample(len(self.sample), len(names) or None, class_labels=self.label_kind == CLASS)
        self.adapter = find_adapter(returned, sample, output, self._run_sample)
        if not self.adapter.has_scores:
            self.output_line = (
                f"the network returns {describe(returned)}, which is recorded without class scores "
                "(predictions, confidences and Grad-CAM); if it has some, choose them with --output"
            )
            if self.moments:
                raise InputError(
                    "AS677", f"{self.output_line}: moments need them, so record without moments"
                )
            return names
        self.output_line = self.adapter.explain()
        self._classes = self.adapter(returned).shape[1]
        return names or [str(k) for k in range(self._classes)]

    def _run_sample(self, with_graph: bool = True) -> Any:
        """Return what the network returns for the sample, on request with autograd's graph."""
        with torch.set_grad_enabled(with_graph), torch.random.fork_rng(devices=[]):
            # A copy, because the network may write into its input.
            return self.model(self.sample.clone().requires_grad_(with_graph).clone())

    def choose_layers(self, given: Sequence[str] | None) -> None:
        """Set the layers of Grad-CAM: the given ones, or else the one with the last map, if any.

        Raises:
            InputError: There are no class scores to explain, or a given layer cannot be explained.
        """
        if not self.adapter.has_scores:
            if given:
                raise InputError("AS677", f"{self.output_line}: leave --grad-cam-layers out")
            return
        for layer in given or ():
            if problem := grad_cam_problem(self.model, self.sample, self.adapter, layer):
                raise InputError(
                    "AS676",
                    f"Grad-CAM of the layer {layer} is not possible: {problem}; choose another "
                    "layer, or capture without it: --no-grad-cam, or grad_cam_layers=()",
                )
        if given is not None:
            self.layers = list(given)
            return
        found, problem = explainable_layer(self.model, self.sample, self.adapter, self._maps)
        self.layers = [] if found is None else [found]
        if found is None:
            # The gates can be recorded, as those of sequences and volumes, which have no such map.
            reason = problem or "no layer returns a map (N, C, H, W)"
            self.notes.append(f"Grad-CAM is not recorded, because {reason}")

    def choose_attributions(self, names: Sequence[str], images: int) -> Attributions:
        """Return the attribution methods besides Grad-CAM, each with its layers.

        Raises:
            InputError: A method is unknown, or no layer can be explained.
        """
        found: list[Attributed] = []
        for name in dict.fromkeys(names):
            method = ATTRIBUTIONS.find(name)
            if not self.adapter.has_scores:
                raise InputError("AS677", f"{self.output_line}: leave --attribution-methods out")
            if name == GRAD_CAM:
                continue  # it is recorded for all images, by another setting
            layers = [""]
            if method.grid == "layer":
                layers = self.layers or [last_map_layer(self.model, self.sample, self.gates)]
            for layer in layers:
                expect_attribution(self.model, self.sample, self.adapter, method, layer)
            found += [Attributed(name, layer) for layer in layers]
        return Attributions(tuple(found), images) if found else Attributions()

    def explain(self, maps: Explanations, shards: Sequence[range], progress: bool) -> None:
        """Compute the maps of the methods besides Grad-CAM for the images of some shards."""
        with adapted(self.model, self.adapter):
            maps.compute(
                self.model,
                self.dataset,
                shards,
                self.normalization,
                self.device,
                progress,
                self.label_kind,
            )

    def pool_inputs(self) -> None:
        """Let each forward pass fill ``inputs``, and run the sample to see which gates have any."""
        self._edits = pooling_edits(self.gates, self.inputs)
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            edit_gates(self.model, self._edits, self.gates),
        ):
            self.model(self.sample)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal to resume an unfinished recording."""
        network = type(self.model)
        return {
            "network": f"{network.__module__}.{network.__qualname__}",
            "weights": hash_weights(self.model),
            "data": hash_data(self.dataset),
            "images": self.count,
            "normalization": [self.normalization.mean, self.normalization.std],
            "batch_size": self.batch_size,
        }

    def subject(self, pooled_inputs: bool) -> Subject:
        """Return what the way is chosen for, in which the network runs."""
        return Subject(
            self.model,
            self.sample,
            self.gates,
            self.layers,
            self.count,
            self.batch_size,
            self.bf16,
            "pooled inputs are recorded, which the graph does not return" if pooled_inputs else "",
        )

    def forwards(self, way: Way) -> Forwards:
        """Return what runs the network on batches."""
        return Forwards(
            self.model,
            self.device,
            self.gates,
            self.adapter,
            self.layers,
            self._classes,
            self.label_kind,
            self.bf16,
            way.graph,
            self._edits,
            self.inputs,
        )

    def batches(self, rows: range) -> Iterator[Batch]:
        """Yield the batches of some images."""
        found = batches(
            self.dataset, rows, self.batch_size, self.normalization, self.device, self.label_kind
        )
        return as_inputs(found, self.model)


class _Named:
    """Class names that were given, in place of a data set that has them."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = classes


def with_notes(about: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """Return facts about a capture with more notes; without any notes they have no such key."""
    found = [*about.get("notes", []), *notes]
    return {**about, "notes": found} if found else dict(about)


def _fingerprints(dataset: LabeledImages | Dataset[tuple[Tensor, int]], split: str) -> bytes | None:
    """Return the file of fingerprints; None for a data set of a user, whose items have no names."""
    if not isinstance(dataset, LabeledImages):
        return None
    return fingerprint_file({split: Fingerprints.of(dataset)})


def _check_label_kind(kind: str, moments: bool) -> None:
    if moments and kind != CLASS:
        raise InputError(
            "AS679",
            "moments are sums over the images of each class, and the data set has no class labels "
            f"({describe_labels(kind)}); record single images, or give class labels",
        )
