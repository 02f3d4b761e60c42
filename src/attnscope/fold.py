"""Static gates: where the dependence of a gate on the image is not used, it is only a scale.

A gate that is replaced by its mean over the training images is a number for each channel, or for
each pixel. Numbers for channels are factors of the weight and bias of the BatchNorm before them,
and the gate is gone; other means are stored, and what computed the gate is gone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from attnscope.capturing import batches, expect_parts, hash_file, load_run_data
from attnscope.data import LabelledImages, Normalization
from attnscope.errors import InputError
from attnscope.files import new_folder, read_json, write_json
from attnscope.gate_info import Gate
from attnscope.gates import Edit, as_factor, edit_gates, find_gates, watch_gates
from attnscope.models import (
    AttentionPlace,
    ModelConfig,
    attention_places,
    load_model,
    make_static,
    save_model,
)
from attnscope.statistics.effects import paired_accuracy_change
from attnscope.tracing import eval_mode

SPATIAL_FORMS = ("map", "number")
_SAMPLE = 4  # images on which the gates are found
_SPEED_IMAGES = 256
_SPEED_ROUNDS = 5
_SAME_LOGITS = {"cpu": 1e-4}
"""By the type of the device; rounding in fp32 is about 1e-5 on a CPU ..."""
_SAME_LOGITS_ELSEWHERE = 1e-2
"""... and 1e-3 on a GPU with TF32."""


def fold_gates(model: nn.Module, means: Mapping[str, Tensor]) -> nn.Module:
    """A network in which some gates are the same for every image.

    In eval mode its logits are those of ``model`` under an `attnscope.edit_gates` that puts the
    means in the place of these gates, but for rounding: a BatchNorm ends in ``w * z + b``, and
    ``c * (w * z + b)`` is ``(c * w) * z + c * b``. In ``cnn`` ReLU and max-pooling follow it, and
    commute with factors of 0 or more. A number in the place of a spatial gate becomes such a factor
    only where the channel gate before it is static too: a dynamic one would read scaled features.

    Args:
        model: of `attnscope.build_model`, not folded yet; it stays as it was.
        means: name of each gate that becomes static -> its values: ``(C,)`` of a channel gate;
            ``(H, W)``, a map, or ``()``, a number, of a spatial one. Gates are sigmoids: the values
            are 0 or more.

    Returns:
        A new network, on the device of ``model``. Its ``attnscope_config.folded`` says what each
        static gate has become: ``norm`` (a factor within the BatchNorm before it), ``constant`` or
        ``map`` (stored). Where every gate of an attention module has become ``norm``, the module is
        an `nn.Identity`.

    Raises:
        InputError: ``model`` is no such network, has no such gate, or a mean cannot be its values.
    """
    config = getattr(model, "attnscope_config", None)
    if not isinstance(config, ModelConfig):
        raise InputError("only a network of build_model can be folded; this is another one")
    if config.folded:
        raise InputError("the network is folded already; fold the one that it was folded from")
    folded = copy.deepcopy(model)
    places = attention_places(folded)
    known = [name for place in places for name in place.gates]
    for name in means:
        _expect_known(name, known)
    forms: dict[str, str] = {}
    stored: dict[str, Tensor] = {}
    for place in places:
        # A factor within the norm reaches every gate of the module: none may act after a dynamic
        # one.
        enters, factor = place.norm is not None, torch.ones((), dtype=torch.float64)
        for name in place.gates:
            if name not in means:
                enters = False
                continue
            mean = _checked(means[name], name, place)
            if mean.ndim == 2:
                forms[name], stored[name] = "map", mean[None, None]
            elif enters:
                forms[name], factor = "norm", factor * mean.double().cpu()
            else:
                forms[name], stored[name] = "constant", mean.reshape(1, -1, 1, 1)
        if place.norm is not None and factor.ndim:
            with torch.no_grad():
                for parameter in (place.norm.weight, place.norm.bias):
                    parameter.mul_(factor.to(parameter))
    device = _device(folded)
    values = {name: v.to(device, torch.float32, copy=True) for name, v in stored.items()}
    make_static(folded, forms, values)
    return folded


def mean_gates(
    model: nn.Module,
    images: LabelledImages,
    normalization: Normalization,
    *,
    spatial: str = "map",
    batch_size: int = 128,
) -> dict[str, Tensor]:
    """The mean of each gate of the unedited network over some images, in one pass.

    Sums are float64. The network runs in eval mode where it is, and is left as it was.

    Args:
        model: any network.
        images: usually the training part, un-augmented.
        normalization: which the network was trained with.
        spatial: ``map``, or ``number`` for the mean over the pixels as well.
        batch_size: images a forward.

    Returns:
        Name -> float32 on the CPU, in the order in which the gates act: ``(C,)`` of a channel gate,
        ``(H, W)`` or ``()`` of a spatial one.
    """
    device = _device(model)
    sums: dict[str, Tensor] = {}
    with eval_mode(model), torch.no_grad():
        gates = _find(model, images, normalization)
        rows = range(len(images))
        with watch_gates(model, gates) as seen:
            for batch in batches(images, rows, batch_size, normalization, device):
                model(batch.x)
                for name, values in seen.items():
                    part = values.sum(0, dtype=torch.float64).cpu()
                    sums[name] = sums[name] + part if name in sums else part
    means = {gate.name: sums[gate.name] / len(images) for gate in gates}
    if spatial == "number":
        means.update({g.name: means[g.name].mean() for g in gates if g.kind == "spatial"})
    return {name: mean.float() for name, mean in means.items()}


@dataclass(frozen=True)
class Trial:
    """One gate of a search; losses are point estimates, in points of accuracy."""

    gate: str
    alone: float
    """What accuracy loses when this gate alone is static."""
    joint: float
    """What it loses when those that were kept before are static too."""
    kept: bool


def choose_gates(
    model: nn.Module,
    means: Mapping[str, Tensor],
    right: Callable[[nn.Module], NDArray[np.bool_]],
    tolerance: float,
    progress: bool = True,
) -> list[Trial]:
    """Which gates can be static together: a greedy search.

    Each gate is folded alone first. Then, from the smallest loss to the largest (of equal ones in
    the order of ``means``), each is added to those that were kept, and kept if the loss of all of
    them stays within the tolerance. With G gates ``right`` is called at most ``2 G`` times.

    Args:
        model, means: of `fold_gates`.
        right: which images a network gets right, ``(N,)``, always of the same images.
        tolerance: what accuracy may lose, in points (100 is all of it).
        progress: whether to show a bar.

    Returns:
        One trial a gate, in the order in which they were tried.
    """
    with tqdm(total=2 * len(means), unit="pass", disable=not progress, dynamic_ncols=True) as bar:

        def count(network: nn.Module) -> int:
            bar.update()
            return int(right(network).sum())

        own = right(model)
        images, before = len(own), int(own.sum())
        bar.update()

        def lost(names: Sequence[str]) -> int:
            return before - count(fold_gates(model, {name: means[name] for name in names}))

        alone = {name: lost([name]) for name in means}
        trials: list[Trial] = []
        kept: list[str] = []
        for name in sorted(alone, key=alone.__getitem__):
            joint = lost([*kept, name]) if kept else alone[name]
            # Of counts, so that a tolerance of 0.2 points is ten of 5,000 images.
            within = 100 * joint <= tolerance * images + 1e-9
            if within:
                kept.append(name)
            trials.append(
                Trial(name, 100 * alone[name] / images, 100 * joint / images, name in kept)
            )
    return trials


def right_images(
    model: nn.Module, images: LabelledImages, normalization: Normalization, batch_size: int = 128
) -> NDArray[np.bool_]:
    """Which images a network classifies rightly, in eval mode: ``(N,)``."""
    found = []
    rows = range(len(images))
    with eval_mode(model), torch.no_grad():
        for batch in batches(images, rows, batch_size, normalization, _device(model)):
            found.append(model(batch.x).argmax(1).cpu() == batch.labels)
    right: NDArray[np.bool_] = torch.cat(found).numpy()
    return right


def images_per_second(
    networks: tuple[nn.Module, nn.Module], inputs: Sequence[Tensor], rounds: int = _SPEED_ROUNDS
) -> list[tuple[float, float]]:
    """How fast two networks run in eval mode, in turns, so that a drift of the machine is shared.

    Args:
        networks: on one device.
        inputs: batches as they get them, on that device.
        rounds: how often each runs over all batches, after one batch that is not counted. They take
            turns in being first.

    Returns:
        One pair a round, in the order of the networks.
    """
    count = sum(map(len, inputs))
    found = []
    with eval_mode(networks[0]), eval_mode(networks[1]), torch.no_grad():
        for network in networks:
            network(inputs[0])
        for number in range(rounds):
            pair = [0.0, 0.0]
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                _wait_for(inputs[0].device)
                start = time.perf_counter()
                for x in inputs:
                    networks[which](x)
                _wait_for(inputs[0].device)
                pair[which] = count / (time.perf_counter() - start)
            found.append((pair[0], pair[1]))
    return found


@dataclass(frozen=True)
class PairedAccuracy:
    """Accuracy on a part of the data before and after a fold."""

    images: int
    before: float
    """0 to 1, as ``after``."""
    after: float
    loss: float
    """In points of accuracy (100 is all of it), as its 95 % interval ``low`` to ``high``."""
    low: float
    high: float

    @classmethod
    def of(cls, before: NDArray[np.bool_], after: NDArray[np.bool_]) -> PairedAccuracy:
        """Of the same images, with `attnscope.statistics.effects.paired_accuracy_change`."""
        change, low, high = (100 * value for value in paired_accuracy_change(before, after))
        # 0 - x, since -0.0 would be printed as such.
        losses = 0 - change, 0 - high, 0 - low
        return cls(len(before), float(before.mean()), float(after.mean()), *map(float, losses))

    def __str__(self) -> str:
        return (
            f"{self.before:.2%} -> {self.after:.2%} of {self.images} images (one is "
            f"{100 / self.images:.2f} points), loss {self.loss:.2f} points "
            f"(95 % interval {self.low:.2f} to {self.high:.2f})"
        )


@dataclass(frozen=True)
class FoldReport:
    """What `fold_run` did; written to the new run folder as ``fold.json``."""

    run: str
    weights_sha256: str
    """Of the network before."""
    folded: dict[str, str]
    """Gate -> ``norm``, ``constant`` or ``map``."""
    dynamic: list[str]
    """The gates that are left."""
    spatial: str
    tolerance: float | None
    """In points of accuracy; None where the gates were named."""
    trials: list[Trial]
    """Of the search; empty where the gates were named."""
    validation: PairedAccuracy
    test: PairedAccuracy
    parameters: tuple[int, int]
    """Before and after."""
    stored_values: int
    """Of constants and maps; they are no parameters."""
    logit_difference: float
    """The largest, on a batch of validation images, to the network edited to the same means."""
    speed: list[tuple[float, float]]
    """Images per second before and after, one pair a round."""
    speed_images: int
    """Test images a round."""
    batch_size: int
    device: str
    threads: int

    def __str__(self) -> str:
        forms = list(self.folded.values())
        trials = {trial.gate: trial for trial in self.trials}
        width = max(map(len, [*self.folded, *self.dynamic]))
        losses = "  alone  joint" if trials else ""
        lines = [f"{'gate':{width}}{losses}  becomes"]
        for name in trials or [*self.folded, *self.dynamic]:
            if trials:
                losses = f"  {trials[name].alone:5.2f}  {trials[name].joint:5.2f}"
            lines.append(f"{name:{width}}{losses}  {self.folded.get(name, 'stays as it is')}")
        kinds = {"norm": "in BatchNorms", "constant": "stored constants", "map": "stored maps"}
        told = ", ".join(f"{forms.count(f)} {kind}" for f, kind in kinds.items() if f in forms)
        before, after = self.parameters
        pairs = np.array(self.speed)
        speeds = np.median(pairs, axis=0)
        ratios = pairs[:, 1] / pairs[:, 0]
        return "\n".join(
            [
                *lines,
                f"{len(forms)} of {len(forms) + len(self.dynamic)} gates are static: {told}",
                f"validation: {self.validation}",
                f"test: {self.test}",
                f"parameters: {before:,} -> {after:,}, and {self.stored_values:,} stored values",
                f"images per second: {speeds[0]:.1f} -> {speeds[1]:.1f}, ratio "
                f"{np.median(ratios):.3f} ({ratios.min():.3f} to {ratios.max():.3f}); medians of "
                f"{len(pairs)} rounds in turns, {self.speed_images} images in batches of up to "
                f"{self.batch_size}, {self.device}, {self.threads} threads",
                "largest difference of a logit to the network edited to the same means: "
                f"{self.logit_difference:.1e}",
            ]
        )


def fold_run(
    run: Path,
    out: Path,
    *,
    gates: Sequence[str] = (),
    tolerance: float = 0.2,
    spatial: str = "map",
    data_root: Path | None = None,
    batch_size: int = 128,
    device: torch.device | None = None,
    progress: bool = True,
) -> FoldReport:
    """Folds a run's gates, and writes the network as a run folder of its own.

    Means are those of the training part, the validation part chooses, and the test part is used
    once, at the end.

    Args:
        run: a run folder whose training ended.
        out: the new run folder, which must not exist.
        gates: which become static, whatever is lost. Empty: `choose_gates` chooses.
        tolerance: of `choose_gates`; not asked where gates are named.
        spatial: what a static spatial gate becomes, a ``map`` or a ``number``.
        data_root: of `attnscope.capturing.load_run`.
        batch_size: images a forward.
        device: where it runs; default the CPU.
        progress: whether to show a bar.

    Raises:
        InputError: the run or an argument cannot be used, or no gate stays within the tolerance;
            nothing was written.
    """
    if not 0 <= tolerance <= 100:
        raise InputError(f"tolerance {tolerance} must lie between 0 and 100 points of accuracy")
    if spatial not in SPATIAL_FORMS:
        raise InputError(f"spatial form '{spatial}' is not known; take map or number")
    if batch_size < 1:
        raise InputError(f"batch size is {batch_size}; it must be 1 or more")
    with new_folder(out) as folder:
        model = load_model(run)
        config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
        if config.folded:
            raise InputError(f"{run} is folded already; fold the run that it was folded from")
        known = [name for place in attention_places(model) for name in place.gates]
        if not known:
            raise InputError(f"the network of {run} has no gates; there is nothing to fold")
        for name in gates:
            _expect_known(name, known)
        data, normalization = load_run_data(run, data_root)
        expect_parts(run, data)
        train, validation, test = (
            part.center_crop(data.image_size) for part in (data.train, data.validation, data.test)
        )
        model = model.to(device or "cpu").to(memory_format=torch.channels_last)

        def right(network: nn.Module, part: LabelledImages = validation) -> NDArray[np.bool_]:
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
                _device(model),
            )
        ]
        after: ModelConfig = folded.attnscope_config  # type: ignore[assignment]
        difference = _logit_difference(
            model, folded, static, validation[:batch_size], normalization
        )
        allowed = _SAME_LOGITS.get(_device(model).type, _SAME_LOGITS_ELSEWHERE)
        if not difference <= allowed:  # NaN is no difference either
            raise InputError(
                f"logits of the folded network differ by {difference:.1e} from those of the "
                "network edited to the same means; fold with --device cpu"
            )
        report = FoldReport(
            str(run),
            hash_file(run / "model.safetensors"),
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
            str(_device(model)),
            torch.get_num_threads(),
        )
        _write(folder, folded, report, run)
    return report


def _write(folder: Path, folded: nn.Module, report: FoldReport, run: Path) -> None:
    """A run folder as the other commands expect it, and the report."""
    save_model(folded, folder)
    origin = {"run": report.run, "weights_sha256": report.weights_sha256}
    write_json(folder / "config.json", {**read_json(run / "config.json"), "folded_from": origin})
    write_json(
        folder / "result.json",
        {
            "weights": "folded",
            "validation": {"accuracy": report.validation.after},
            "test": {"accuracy": report.test.after},
            "parameters": report.parameters[1],
            "device": report.device,
        },
    )
    write_json(folder / "fold.json", asdict(report))


def _checked(mean: Tensor, name: str, place: AttentionPlace) -> Tensor:
    if name.endswith(".channel"):
        fits, wanted = tuple(mean.shape) == (place.channels,), f"({place.channels},)"
    else:
        fits, wanted = mean.ndim in (0, 2), "(H, W) or ()"
    if not fits:
        raise InputError(f"the mean of {name} is {tuple(mean.shape)}; it must be {wanted}")
    if not bool(torch.isfinite(mean).all()) or bool((mean < 0).any()):
        raise InputError(f"the mean of {name} must be finite and 0 or more, as gates are")
    return mean.detach()


def _expect_known(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise InputError(f"there is no gate '{name}'; there are {', '.join(known) or 'none'}")


def _expect_found(
    folded: nn.Module, images: LabelledImages, normalization: Normalization, left: Sequence[str]
) -> None:
    """Refuses a network whose gates could not be captured any more.

    Where a map is 1×1, gates are told apart on larger images, and these a stored map refuses.
    """
    try:
        found = [gate.name for gate in _find(folded, images, normalization)]
    except InputError as error:
        raise InputError(
            f"beside stored maps the other gates cannot be found ({error}); take --spatial number"
        ) from None
    if sorted(found) != sorted(left):
        raise RuntimeError(f"gates {found} were found in the folded network, and not {left}")


def _find(model: nn.Module, images: LabelledImages, normalization: Normalization) -> list[Gate]:
    sample = next(
        batches(images, range(min(len(images), _SAMPLE)), _SAMPLE, normalization, _device(model))
    )
    return find_gates(model, sample.x)


def _logit_difference(
    model: nn.Module,
    folded: nn.Module,
    means: Mapping[str, Tensor],
    images: LabelledImages,
    normalization: Normalization,
) -> float:
    batch = next(batches(images, range(len(images)), len(images), normalization, _device(model)))
    gates = _find(model, images, normalization)

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


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
