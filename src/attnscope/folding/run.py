"""Fold a run: what ``attnscope fold`` does."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attnscope import __version__, layout
from attnscope.capturing.batching import batches
from attnscope.data.images import LabeledImages, Normalization
from attnscope.data.load import Data
from attnscope.errors import InputError, first_line
from attnscope.files import new_folder, sha256_of, write_json
from attnscope.folding.algebra import (
    SPATIAL_FORMS,
    device_of,
    expect_foldable,
    expect_known,
    find_on_sample,
    fold_gates,
    mean_gates,
)
from attnscope.folding.report import FoldReport, PairedAccuracy
from attnscope.folding.search import Trial, choose_gates, right_images
from attnscope.folding.speed import images_per_second
from attnscope.gates.hooks import Edit, as_factor, edit_gates
from attnscope.gates.modes import eval_mode
from attnscope.kinds import Gate
from attnscope.networks.build import ModelConfig, attention_places
from attnscope.networks.memory import channels_last
from attnscope.networks.weights import hash_weights, save_model
from attnscope.recording.moments import Moments
from attnscope.recording.places import is_captured
from attnscope.recording.recording import Recording
from attnscope.runs import Run, open_captured
from attnscope.training.devices import choose_device

TOLERANCE = 0.2
"""Default of the largest accepted loss of validation accuracy, in percentage points."""
_SPEED_IMAGES = 256
"""Largest number of test images on which speed is measured."""
_LOGIT_TOLERANCE = {"cpu": 1e-4}
"""Largest accepted logit difference by type of device. Rounding in fp32 is about 1e-5 on a CPU."""
_LOGIT_TOLERANCE_ELSEWHERE = 1e-2
"""Rounding on a GPU with TF32 is about 1e-3."""


def fold(
    target: Run | Recording | Moments | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    gates: Sequence[str] = (),
    tolerance: float | None = None,
    spatial: str = "map",
    data_root: str | os.PathLike[str] | None = None,
    batch_size: int = 128,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> FoldReport:
    """Replace gates by constants where accuracy allows, and write the network as a new run.

    The constants are the means of the gates over the training split. The gates are selected on the
    validation split. The test split is used once, at the end.

    Args:
        target: A run whose training has ended, a recording or moments of a network of
            `attnscope.build_model` that can be opened again, or the path of one of these.
        out: The new run folder. It must not exist.
        gates: Names of the gates to fold, whatever the loss of accuracy. Default: `choose_gates`
            selects them.
        tolerance: Largest accepted loss of validation accuracy when all selected gates are folded,
            in percentage points. Default: 0.2. Cannot be combined with ``gates``.
        spatial: The form of a folded spatial gate: ``map``, one value for each pixel, for a fixed
            image size; or ``number``, one value for all pixels.
        data_root: Folder of the data sets of torchvision. Default: where they were before.
        batch_size: Batch size.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or a torch device.
        progress: Whether to show a progress bar.

    Returns:
        The report, which is also written to ``fold.json`` in the new run folder.

    Raises:
        InputError: The target or an argument cannot be used (AS802, AS850 to AS858), no gate can be
            folded within the tolerance (AS859), or the folded network fails a check (AS860, AS861).
            Nothing is written.
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
    if not 0 <= tolerance <= 100:
        raise InputError(
            "AS856",
            f"the tolerance is {tolerance}; it must be between 0 and 100 percentage points of "
            "accuracy",
        )
    if spatial not in SPATIAL_FORMS:
        raise InputError(
            "AS857",
            f"the form '{spatial}' of spatial gates is unknown; choose from "
            f"{', '.join(SPATIAL_FORMS)}",
        )
    if batch_size < 1:
        raise InputError("AS802", f"the batch size is {batch_size}; it must be at least 1")
    place = choose_device(str(device))
    with new_folder(Path(out)) as folder:
        opened, run = _open(target)
        model, weights_sha256 = _open_network(opened)
        expect_foldable(model, f"the network of {run}")
        known = [name for module in attention_places(model) for name in module.gates]
        if not known:
            raise InputError(
                "AS858", f"the network of {run} has no gates; fold a network with attention gates"
            )
        for name in gates:
            expect_known(name, known)
        data, settings = _open_data(opened, None if data_root is None else Path(data_root))
        normalization = data.normalization
        train, validation, test = (
            images.center_crop(data.image_size)
            for images in (data.train, data.validation, data.test)
        )
        model = channels_last(model.to(place))

        def right(network: nn.Module, images: LabeledImages = validation) -> NDArray[np.bool_]:
            return right_images(network, images, normalization, batch_size)

        means = mean_gates(model, train, normalization, spatial=spatial, batch_size=batch_size)
        trials: list[Trial] = []
        chosen = set(gates)
        if not gates:
            trials = choose_gates(model, means, right, tolerance, progress)
            chosen = {trial.gate for trial in trials if trial.kept}
            if not chosen:
                raise InputError(
                    "AS859",
                    f"no gate of {run} can be folded within {tolerance:g} percentage points of "
                    f"accuracy on {len(validation)} validation images (the smallest loss is "
                    f"{trials[0].alone:.2f}, of {trials[0].gate}); increase --tolerance, or name "
                    "gates with --gates",
                )
        constants = {name: mean for name, mean in means.items() if name in chosen}
        folded = fold_gates(model, constants)
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
        report = FoldReport(
            run,
            weights_sha256,
            after.folded,
            [name for name in means if name not in constants],
            spatial,
            None if gates else float(tolerance),
            trials,
            PairedAccuracy.of(right(model), right(folded)),
            PairedAccuracy.of(right(model, test), right(folded, test)),
            (_parameters(model), _parameters(folded)),
            sum(v.numel() for k, v in folded.named_buffers() if k.endswith(".values")),
            difference,
            images_per_second((model, folded), inputs),
            sum(map(len, inputs)),
            batch_size,
            str(device_of(model)),
            torch.get_num_threads(),
        )
        _write(folder, folded, report, settings)
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
    return fold(
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


def _open(
    target: Run | Recording | Moments | str | os.PathLike[str],
) -> tuple[Run | Recording | Moments, str]:
    """Return a run, a recording or moments, and the path of it."""
    if isinstance(target, (Run, Recording, Moments)):
        return target, str(target.folder)
    if isinstance(target, (str, os.PathLike)):
        path = Path(target)
        return (open_captured(path) if is_captured(path) else Run(path)), str(path)
    raise TypeError(
        f"expected a Run, a Recording or the path of one, but got {type(target).__name__}"
    )


def _open_network(opened: Run | Recording | Moments) -> tuple[nn.Module, str]:
    """Return the network of a run or of a recording, and the SHA-256 of its weights.

    For a network whose weights the user's own code makes, there is no file. The hash is then over
    its tensors.
    """
    if isinstance(opened, Run):
        return opened.model(), sha256_of(opened.weights_file)
    model = opened.network()
    return model, opened.source().network.weights_sha256 or hash_weights(model)


def _open_data(
    opened: Run | Recording | Moments, data_root: Path | None
) -> tuple[Data, dict[str, Any]]:
    """Return all splits with the network's normalization, and the settings of the new run."""
    if isinstance(opened, Run):
        return opened.data(data_root=data_root), opened.config
    source = opened.source(data_root)
    data, network = source.open_data(), source.network
    if network.is_run:
        return data, Run(network.target).config
    settings = asdict(source.data)
    return data, {
        "data": settings.pop("source"),
        **settings,
        "listed_classes": source.data.classes is not None,
        "data_root": str(source.data.data_root),
        "image_size": data.image_size,
        "model": network.target,
        "weights": None if network.weights is None else str(network.weights),
        "attnscope": __version__,
        "torch": torch.__version__,
        "classes": data.classes,
        "normalization": asdict(data.normalization),
        "parts": data.fingerprints(),
    }


def _write(folder: Path, folded: nn.Module, report: FoldReport, config: dict[str, Any]) -> None:
    """Write a run folder as the other commands expect it, with the report."""
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
    write_json(folder / layout.FOLD, asdict(report))


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

    def constant(gate: Gate) -> Edit:
        mean = means[gate.name].to(batch.x)
        factor = as_factor(mean[None], gate) if mean.ndim else mean
        return lambda values, features: factor

    edits = {gate.name: constant(gate) for gate in gates if gate.name in means}
    with eval_mode(model), eval_mode(folded), torch.no_grad():
        with edit_gates(model, edits, gates):
            edited = model(batch.x)
        return float((folded(batch.x) - edited).abs().max())


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
