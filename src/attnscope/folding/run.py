"""Fold a run: choose on validation images, measure on test images, write a new run."""

from __future__ import annotations

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
from attnscope.errors import InputError
from attnscope.files import new_folder, sha256_of, write_json
from attnscope.folding.algebra import (
    SPATIAL_FORMS,
    device_of,
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
from attnscope.networks.weights import hash_weights, save_model
from attnscope.recording.places import is_captured
from attnscope.runs import Run, open_captured

TOLERANCE = 0.2
"""What validation accuracy may lose with all chosen gates, in points, where none is said."""
_SPEED_IMAGES = 256
_SAME_LOGITS = {"cpu": 1e-4}
"""By the type of the device; rounding in fp32 is about 1e-5 on a CPU ..."""
_SAME_LOGITS_ELSEWHERE = 1e-2
"""... and 1e-3 on a GPU with TF32."""


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
    """Folds a run's gates, and writes the network as a run folder of its own.

    Means are those of the training split, the validation split chooses, and the test split is used
    once, at the end.

    Args:
        run: a run folder whose training ended, or a recording that `attnscope capture` made of a
            network of `attnscope.build_model`.
        out: the new run folder, which must not exist.
        gates: which become static, whatever is lost. Empty: `choose_gates` chooses.
        tolerance: of `choose_gates`, default 0.2 points; not asked where gates are named.
        spatial: what a static spatial gate becomes, a ``map`` or a ``number``.
        data_root: where torchvision's sets lie now; default where they lay before.
        batch_size: images a forward.
        device: where it runs; default the CPU.
        progress: whether to show a bar.

    Raises:
        InputError: the run or an argument cannot be used, or no gate stays within the tolerance;
            nothing was written.
    """
    if gates and tolerance is not None:
        raise InputError("--tolerance chooses gates and --gates names them; give one of them")
    tolerance = TOLERANCE if tolerance is None else tolerance
    if not 0 <= tolerance <= 100:
        raise InputError(f"tolerance {tolerance} must lie between 0 and 100 points of accuracy")
    if spatial not in SPATIAL_FORMS:
        raise InputError(f"spatial form '{spatial}' is not known; take map or number")
    if batch_size < 1:
        raise InputError(f"batch size is {batch_size}; it must be 1 or more")
    with new_folder(out) as folder:
        model, weights_sha256 = _open_network(run)
        config = getattr(model, "attnscope_config", None)
        if not isinstance(config, ModelConfig):
            raise InputError(
                f"the network of {run} is none of attnscope.build_model, which are those that can "
                "be folded"
            )
        if config.folded:
            raise InputError(f"{run} is folded already; fold the run that it was folded from")
        known = [name for place in attention_places(model) for name in place.gates]
        if not known:
            raise InputError(f"the network of {run} has no gates; there is nothing to fold")
        for name in gates:
            expect_known(name, known)
        data, settings = _open_data(run, data_root)
        normalization = data.normalization
        train, validation, test = (
            part.center_crop(data.image_size) for part in (data.train, data.validation, data.test)
        )
        model = model.to(device or "cpu").to(memory_format=torch.channels_last)

        def right(network: nn.Module, part: LabeledImages = validation) -> NDArray[np.bool_]:
            return right_images(network, part, normalization, batch_size)

        means = mean_gates(model, train, normalization, spatial=spatial, batch_size=batch_size)
        trials: list[Trial] = []
        chosen = set(gates)
        if not gates:
            trials = choose_gates(model, means, right, tolerance, progress)
            chosen = {trial.gate for trial in trials if trial.kept}
            if not chosen:
                raise InputError(
                    f"no gate of {run} can be folded within {tolerance:g} points of accuracy on "
                    f"{len(validation)} validation images: {trials[0].gate} loses least, "
                    f"{trials[0].alone:.2f}; raise --tolerance, or name --gates"
                )
        static = {name: mean for name, mean in means.items() if name in chosen}
        folded = fold_gates(model, static)
        _expect_found(folded, validation, normalization, [n for n in known if n not in static])
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
            model, folded, static, validation[:batch_size], normalization
        )
        allowed = _SAME_LOGITS.get(device_of(model).type, _SAME_LOGITS_ELSEWHERE)
        if not difference <= allowed:  # NaN is no difference either
            raise InputError(
                f"logits of the folded network differ by {difference:.1e} from those of the "
                "network edited to the same means; fold with --device cpu"
            )
        report = FoldReport(
            str(run),
            weights_sha256,
            after.folded,
            [name for name in means if name not in static],
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


def _open_network(folder: Path) -> tuple[nn.Module, str]:
    """The network of a run or of a recording, and the SHA-256 of its weights.

    Of weights that the user's own code makes there is no file: then it is over their tensors.
    """
    if not is_captured(folder):
        run = Run(folder)
        return run.model(), sha256_of(run.weights_file)
    recording = open_captured(folder)
    model = recording.network()
    return model, recording.source().network.weights_sha256 or hash_weights(model)


def _open_data(folder: Path, data_root: Path | None) -> tuple[Data, dict[str, Any]]:
    """All splits of the data, with the network's normalization; and the settings of the new run."""
    if not is_captured(folder):
        run = Run(folder)
        return run.data(data_root=data_root), run.config
    source = open_captured(folder).source(data_root)
    data, network = source.open_data(), source.network
    if network.is_run:
        return data, Run(network.target).config
    settings = asdict(source.data)
    return data, {
        "data": settings.pop("source"),
        **settings,
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
    """A run folder as the other commands expect it, and the report."""
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
    folded: nn.Module, images: LabeledImages, normalization: Normalization, left: Sequence[str]
) -> None:
    """Refuses a network whose gates could not be captured any more.

    Where a map is 1×1, gates are told apart on larger images, and these a stored map refuses.
    """
    try:
        found = [gate.name for gate in find_on_sample(folded, images, normalization)]
    except InputError as error:
        raise InputError(
            f"beside stored maps the other gates cannot be found ({error}); take --spatial number"
        ) from None
    if sorted(found) != sorted(left):
        raise RuntimeError(f"gates {found} were found in the folded network, and not {left}")


def _logit_difference(
    model: nn.Module,
    folded: nn.Module,
    means: Mapping[str, Tensor],
    images: LabeledImages,
    normalization: Normalization,
) -> float:
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
