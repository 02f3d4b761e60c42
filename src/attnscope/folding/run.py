"""Fold a run: what ``attnscope fold`` does.

A little more than 400 lines, because `fold` has two overloads with all arguments.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn

from attnscope import layout
from attnscope.capturing.batching import Batch, batches
from attnscope.data.fingerprints import Fingerprints, write_fingerprints
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.load import Data
from attnscope.errors import InputError, first_line
from attnscope.files import new_folder, refuse_existing, write_json, write_sealed
from attnscope.folding.algebra import (
    SPATIAL_FORMS,
    device_of,
    expect_foldable,
    expect_known,
    find_on_sample,
    fold_gates,
    mean_gates,
    pruned_channels,
    removable_channels,
)
from attnscope.folding.channels import PrunedChannels, expect_pruning, masks_of, zeroed
from attnscope.folding.choosing import TOLERANCE, choose, expect_images, halves_of
from attnscope.folding.graph_report import GraphFoldReport
from attnscope.folding.graph_run import ALL, expect_no_form, fold_recording
from attnscope.folding.opening import (
    expect_known_training,
    open_data,
    open_network,
    open_target,
)
from attnscope.folding.outcomes import Outcome, constant_edit, outcomes_of
from attnscope.folding.report import FoldReport, PairedLosses
from attnscope.folding.speed import images_per_second
from attnscope.gates.hooks import edit_gates
from attnscope.gates.modes import eval_mode
from attnscope.hashes import write_hashes
from attnscope.networks.build import ModelConfig, attention_places
from attnscope.networks.memory import channels_last
from attnscope.networks.weights import save_model
from attnscope.recording.moments import Moments
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.training.devices import choose_device
from attnscope.writing import writing

_SPEED_IMAGES = 256
"""Largest number of test images on which speed is measured."""
_LOGIT_TOLERANCE = {"cpu": 1e-4}
"""Largest accepted logit difference by type of device. Rounding in fp32 is about 1e-5 on a CPU."""
_LOGIT_TOLERANCE_ELSEWHERE = 1e-2
"""Rounding on a GPU with TF32 is about 1e-3."""


@overload
def fold(
    target: Run,
    out: str | os.PathLike[str],
    *,
    gates: Sequence[str] = (),
    tolerance: float | None = None,
    spatial: str = "map",
    data: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    allow_changed_data: bool = False,
    batch_size: int = 128,
    device: str | torch.device = "auto",
    prune: bool = False,
    prune_below: float | None = None,
    progress: bool = True,
) -> FoldReport: ...


@overload
def fold(
    target: Recording | Moments | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    gates: Sequence[str] = (),
    tolerance: float | None = None,
    spatial: str = "map",
    data: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    allow_changed_data: bool = False,
    batch_size: int = 128,
    device: str | torch.device = "auto",
    prune: bool = False,
    prune_below: float | None = None,
    progress: bool = True,
) -> FoldReport | GraphFoldReport: ...


def fold(
    target: Run | Recording | Moments | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    gates: Sequence[str] = (),
    tolerance: float | None = None,
    spatial: str = "map",
    data: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    allow_changed_data: bool = False,
    batch_size: int = 128,
    device: str | torch.device = "auto",
    prune: bool = False,
    prune_below: float | None = None,
    progress: bool = True,
) -> FoldReport | GraphFoldReport:
    """Replace gates by constants where accuracy allows, and write the smaller network.

    The constants are the means of the gates over the training split. One half of the validation
    split orders the gates, and the other half tests how many of them can be folded, so that more
    than the tolerance is lost with a probability of at most 5%
    (`attnscope.folding.search.choose_gates`). The test split is used once, at the end.

    A network that `attnscope.build_model` did not build is folded on its exported graph. ``out``
    then holds ``fold.json`` and ``folded.safetensors``, from which the target ``folded:OUT`` makes
    the network again (`attnscope.networks.folded`).

    Args:
        target: A run whose training has ended, a recording that can be opened again, moments of a
            network of `attnscope.build_model`, or the path of one of these.
        out: The new folder, that of a run for a network of `attnscope.build_model`. It must not
            exist.
        gates: Names of the gates to fold, or ``all``, without a test of the loss. Default: they are
            chosen.
        tolerance: Largest accepted loss of accuracy when all chosen gates are folded, in percentage
            points above 0. Default: 1. Cannot be combined with ``gates``.
        spatial: The form of a folded spatial gate: ``map``, one value for each pixel, for a fixed
            image size; or ``number``, one value for all pixels.
        data: The data source with the place where the images are now, such as ``folder:PATH``, if
            they have moved.
        data_root: Folder of the data sets of torchvision. Default: where they were before.
        allow_changed_data: Go on with images that have changed since the network was trained,
            unless images that trained it would be in another split. Refused where it is not known
            which images trained the network (AS868).
        batch_size: Batch size.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.
        prune: Whether constants of channels that are small enough become 0, within the test of the
            loss, and these channels are removed with the filters that compute them, where that is
            exact. Cannot be combined with ``gates``.
        prune_below: The same for named gates: constants up to this size become 0, without a test.
        progress: Whether to show a progress bar.

    Returns:
        The report, which is also written to ``fold.json`` in the new run folder.

    Raises:
        InputError: The target or an argument cannot be used (AS802, AS850 to AS858, AS862, AS863,
            AS866 to AS868),
            the network has no graph (AS416, AS417), there are too few images for a choice (AS864)
            or none that did not train the network (AS865), no gate can be folded within the
            tolerance (AS859), or the folded network fails a check (AS860, AS861). Nothing is
            written.
        TypeError: The target is neither a run, a recording, moments nor a path.
    """
    if isinstance(gates, str):
        gates = (gates,)
    if gates and tolerance is not None:
        raise InputError(
            "AS855",
            "a tolerance cannot be combined with names of gates; give either --tolerance or "
            "--gates",
        )
    tolerance = TOLERANCE if tolerance is None else tolerance
    if not 0 < tolerance <= 100:
        raise InputError(
            "AS856",
            f"the tolerance is {tolerance}; it must be above 0 and at most 100 percentage points "
            "of accuracy, because no number of images shows that nothing at all is lost",
        )
    if spatial not in SPATIAL_FORMS:
        raise InputError(
            "AS857",
            f"the form '{spatial}' of spatial gates is unknown; choose from "
            f"{', '.join(SPATIAL_FORMS)}",
        )
    if batch_size < 1:
        raise InputError("AS802", f"the batch size is {batch_size}; it must be at least 1")
    expect_pruning(prune, prune_below, gates)
    place = choose_device(str(device))
    refuse_existing(Path(out))
    with writing(Path(out)), new_folder(Path(out)) as folder:
        opened, run = open_target(target)
        expect_known_training(opened, run, allow_changed_data)
        model, weights_sha256 = open_network(opened)
        if isinstance(opened, Recording) and not hasattr(model, "attnscope_config"):
            expect_no_form(spatial)
            return fold_recording(
                opened,
                model,
                folder,
                gates=gates,
                tolerance=tolerance,
                data=data,
                data_root=None if data_root is None else Path(data_root),
                batch_size=batch_size,
                device=place,
                prune=prune or prune_below is not None,
                prune_below=prune_below or 0.0,
                progress=progress,
            )
        expect_foldable(model, f"the network of {run}")
        known = [name for module in attention_places(model) for name in module.gates]
        if not known:
            raise InputError(
                "AS858", f"the network of {run} has no gates; fold a network with attention gates"
            )
        gates = known if list(gates) == [ALL] else gates
        for name in gates:
            expect_known(name, known)
        loaded, settings = open_data(
            opened,
            data,
            None if data_root is None else Path(data_root),
            Path(out),
            allow_changed_data=allow_changed_data,
        )
        normalization = loaded.normalization
        train, validation, test = (
            images.center_crop(loaded.image_size)
            for images in (loaded.train, loaded.validation, loaded.test)
        )
        model = channels_last(model.to(place))

        def read(images: LabeledImages) -> Iterator[Batch]:
            return batches(images, range(len(images)), batch_size, normalization, place)

        labels = validation.labels.numpy()
        if not gates:
            expect_images(labels, tolerance, "validation", run)
        means = mean_gates(model, train, normalization, spatial=spatial, batch_size=batch_size)
        prune = prune or prune_below is not None
        found = removable_channels(model, means) if prune else {}
        removable = masks_of(found, means)
        chosen = None
        if not gates:
            chosen = choose(
                model,
                find_on_sample(model, validation, normalization),
                means,
                labels,
                lambda: read(validation),
                tolerance=tolerance,
                split="validation",
                source=run,
                removable=removable,
                progress=progress,
            )
        kept = chosen.choice.kept if chosen else gates
        constants = {name: mean for name, mean in means.items() if name in kept}
        pruning = None
        if prune:
            below = chosen.choice.below if chosen else prune_below or 0.0
            constants = zeroed(constants, removable, below)
            pruned = pruned_channels(found, constants)
            pruning = PrunedChannels.of(below, chosen is not None, pruned, found, constants)
        folded = fold_gates(model, constants, prune=prune)
        dynamic = [name for name in known if name not in constants]
        _expect_found(folded, validation, normalization, dynamic)
        inputs = [
            batch.x
            for batch in batches(
                test,
                range(min(len(test), _SPEED_IMAGES)),
                batch_size,
                normalization,
                device_of(model),
            )
        ]
        after: ModelConfig = folded.attnscope_config  # type: ignore[assignment]
        difference = _logit_difference(
            model, folded, constants, validation[:batch_size], normalization
        )
        allowed = _LOGIT_TOLERANCE.get(device_of(model).type, _LOGIT_TOLERANCE_ELSEWHERE)
        if not difference <= allowed:  # a NaN must be refused, too
            raise InputError(
                "AS860",
                f"the logits of the folded network differ by {difference:.1e} from those of the "
                f"network with edited gates; it must be at most {allowed:g}, fold with --device "
                "cpu",
            )

        def outcomes(images: LabeledImages) -> list[Outcome]:
            return [outcomes_of(network, read(images)) for network in (model, folded)]

        testing = ~halves_of(labels) if chosen else np.ones(len(labels), bool)
        report = FoldReport(
            run,
            weights_sha256,
            after.folded,
            [name for name in means if name not in constants],
            spatial,
            chosen,
            PairedLosses.between(*(each.rows(testing) for each in outcomes(validation))),
            PairedLosses.between(*outcomes(test)),
            (_parameters(model), _parameters(folded)),
            sum(v.numel() for k, v in folded.named_buffers() if k.endswith(".values")),
            difference,
            images_per_second((model, folded), inputs),
            sum(map(len, inputs)),
            batch_size,
            str(device_of(model)),
            torch.get_num_threads(),
            pruning,
        )
        _write(folder, folded, report, settings, loaded)
    return report


def fold_run(
    run: Path,
    out: Path,
    *,
    gates: Sequence[str] = (),
    tolerance: float | None = None,
    spatial: str = "map",
    data_root: Path | None = None,
    batch_size: int = 128,
    device: torch.device | None = None,
    progress: bool = True,
) -> FoldReport:
    """Fold a run: the old name of `fold`, whose default device is the CPU."""
    warnings.warn(
        "attnscope.folding.fold_run is now attnscope.fold; the old name will be removed in the "
        "next version",
        DeprecationWarning,
        stacklevel=2,
    )
    report = fold(
        run,
        out,
        gates=gates,
        tolerance=tolerance,
        spatial=spatial,
        data_root=data_root,
        batch_size=batch_size,
        device=device or "cpu",
        progress=progress,
    )
    assert isinstance(report, FoldReport)  # of a run
    return report


def _write(
    folder: Path, folded: nn.Module, report: FoldReport, config: dict[str, Any], data: Data
) -> None:
    """Write a run folder as the other commands expect it, with the report."""
    prints = {name: Fingerprints.of(split) for name, split in data.splits().items()}
    write_fingerprints(folder / layout.IMAGES, prints)
    save_model(folded, folder)
    origin = {"run": report.run, "weights_sha256": report.weights_sha256}
    write_json(folder / layout.CONFIG, {**config, "folded_from": origin})
    write_json(
        folder / layout.RESULT,
        {
            "weights": "folded",
            "validation": {"accuracy": report.validation.after},
            "test": {"accuracy": report.test.after},
            "parameters": report.parameters[1],
            "device": report.device,
        },
    )
    write_sealed(folder / layout.FOLD, asdict(report))
    write_hashes(folder)


def _expect_found(
    folded: nn.Module, images: LabeledImages, normalization: Normalization, dynamic: Sequence[str]
) -> None:
    """Raise an `InputError` if the remaining gates of a folded network could not be captured.

    Gates whose maps are 1×1 are found on larger images, which a stored map refuses.
    """
    try:
        found = [gate.name for gate in find_on_sample(folded, images, normalization)]
    except InputError as error:
        raise InputError(
            "AS861",
            f"the remaining gates of the network with stored maps cannot be found "
            f"({first_line(error)}); fold with --spatial number",
        ) from None
    if sorted(found) != sorted(dynamic):
        raise RuntimeError(f"the folded network has the gates {found} instead of {dynamic}")


def _logit_difference(
    model: nn.Module,
    folded: nn.Module,
    means: Mapping[str, Tensor],
    images: LabeledImages,
    normalization: Normalization,
) -> float:
    """Return the largest logit difference between the folded and the edited network."""
    batch = next(batches(images, range(len(images)), len(images), normalization, device_of(model)))
    gates = find_on_sample(model, images, normalization)
    edits = {
        gate.name: constant_edit(gate, means[gate.name]) for gate in gates if gate.name in means
    }
    with eval_mode(model), eval_mode(folded), torch.no_grad():
        with edit_gates(model, edits, gates):
            edited = model(batch.x)
        return float((folded(batch.x) - edited).abs().max())


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
