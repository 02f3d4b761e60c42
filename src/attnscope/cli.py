"""The commands. Whatever is slow to import is imported by the command that needs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from attnscope.errors import InputError, first_line
from attnscope.files import DISK_ERRORS, write_json

_Run = Annotated[Path, tyro.conf.Positional]
_Name = Annotated[str, tyro.conf.Positional]
_Runs = Annotated[tuple[Path, ...], tyro.conf.Positional]
_SMALL = 96  # pixels up to which the cifar stem is affordable
_DEMO_BATCH = 64  # twice the steps of the recipe's 128, which so few images need


@dataclass(frozen=True)
class DataOptions:
    """Which images."""

    data: str = "digits"
    """digits (included), cifar10, cifar100, or folder:PATH with train/CLASS/ and test/CLASS/."""
    data_root: Path = Path("data")
    """Where cifar10 and cifar100 lie, or are downloaded to."""
    image_size: int | None = None
    """Pixels. Default: the recipe's, or else 32; of a folder the images' own size where all are
    squares of one size up to 96, else 224."""
    validation_share: float = 0.1
    """Share of the training part that becomes validation, where the source has none."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read; they are named."""


@dataclass(frozen=True)
class ModelOptions:
    """Which network."""

    model: str | None = None
    """resnet18 (default), resnet34, resnet50, resnet101, resnet152 or cnn."""
    attention: str | None = None
    """none, se, eca or cbam. Default: cbam, or the recipe's."""
    placement: str | None = None
    """block (on each residual branch) or stage (after each of layer1 to layer4). Default: block,
    or the recipe's."""
    stem: str | None = None
    """cifar (3×3, for small images) or imagenet (7×7, stride 2). Default: cifar, or the
    recipe's."""
    width: int | None = None
    """Channels of layer1. Default: 64."""
    reduction: int = 16
    """Channels over hidden channels in a channel gate."""
    kernel_size: int = 7
    """Of a spatial gate's convolution, in pixels."""
    gate_start: str | None = None
    """half (gates begin near 0.5) or identity (at 1, so that they change nothing at first).
    Default: identity where gates are put into weights that have none, else half."""


@dataclass(frozen=True)
class Train:
    """Train a network and write a run folder; this is the training script, for GPU and CPU."""

    images: tyro.conf.OmitArgPrefixes[DataOptions] = field(default_factory=DataOptions)
    network: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    recipe: str = "fast"
    """fast, staged, cnn, finetune, features or se-sgd; docs/training.md says what each does."""
    weights: str | None = None
    """What to start from: none, imagenet (torchvision downloads them), or a file of weights.
    Default: the recipe's."""
    epochs: int | None = None
    """Default: the recipe's. Its phases and milestones scale with them."""
    batch_size: int | None = None
    """Images a forward, on each device. Default: the recipe's."""
    accumulate: int | None = None
    """Forwards a step of the optimizer, whose gradients are averaged. Default: the recipe's."""
    keep: str | None = None
    """last or best: the weights that the run is about, and that are tested. Default: the
    recipe's."""
    compile: bool = False
    """Train with torch.compile, which needs a C++ compiler."""
    seed: int = 0
    """Of the split, the initial weights, the order, the augmentation and the dropout."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "auto"
    """auto (bf16 where the hardware multiplies it), fp32 or bf16."""
    out: Path | None = None
    """The run folder, which must not exist. Default: runs/DATA-MODEL-ATTENTION."""
    resume: bool = False
    """Go on with the training in the run folder that was interrupted; from its start if there is
    none. The other options must be those of its start."""

    def __call__(self) -> None:
        from attnscope.distributed import join_team
        from attnscope.train import choose_device

        with join_team(choose_device(self.device)) as team:
            run = _train(self)
            if team.leads:
                _announce_run(run)


@dataclass(frozen=True)
class Summary:
    """Layers, shapes, parameters and multiply-adds of a network, and the shapes at its gates."""

    target: _Name = "resnet18"
    """A run folder, or resnet18, resnet34, resnet50, resnet101, resnet152 or cnn."""
    network: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    num_classes: int = 10
    """Of a network that is no run."""
    image_size: int | None = None
    """Pixels. Default: the run's, or else 32."""

    def __call__(self) -> None:
        from attnscope.files import read_json
        from attnscope.models import build_model, load_model
        from attnscope.summary import summarize

        if Path(self.target).is_dir():
            model = load_model(Path(self.target))
            size = self.image_size or read_json(Path(self.target) / "config.json")["image_size"]
        else:
            network = asdict(self.network)
            if network.pop("model") is not None:
                raise InputError(f"two networks are named; leave --model out, or {self.target}")
            network["attention"] = network["attention"] or "cbam"
            network["gate_start"] = network["gate_start"] or "half"
            model = build_model(self.target, num_classes=self.num_classes, **network)
            size = self.image_size or 32
        if size < 8:
            raise InputError(f"image size is {size}; it must be 8 or more")
        print(summarize(model, size))


@dataclass(frozen=True)
class Inspect:
    """Say which gates a network has, and what became of every other bounded activation."""

    target: _Name
    """A run folder, timm:NAME, torchvision:NAME, or package.module:callable of your own."""
    image_size: int | None = None
    """Pixels. Default: the network's own."""
    all_kinds: bool = False
    """Also gates of the features' own shape (full) and from parameters alone (static)."""
    json: bool = False
    """Print JSON instead of a table."""

    def __call__(self) -> None:
        import json

        import torch

        from attnscope.gate_info import KINDS, OTHER_KINDS
        from attnscope.summary import describe_gates
        from attnscope.targets import load_target

        target = load_target(self.target)
        size = self.image_size or target.image_size
        if size < 8:
            raise InputError(f"image size is {size}; it must be 8 or more")
        noise = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
        kinds = KINDS + OTHER_KINDS if self.all_kinds else KINDS
        try:
            found = describe_gates(target.model, noise, "4 images of noise", kinds)
        except InputError:
            raise
        except Exception as error:  # whatever somebody's network raises
            raise InputError(
                f"{self.target} does not run on images of 3×{size}×{size} "
                f"({type(error).__name__}: {first_line(error)}); try another --image-size"
            ) from None
        print(json.dumps(found.to_dict(), indent=2) if self.json else found)


@dataclass(frozen=True)
class Capture:
    """Record every gate, the logits and Grad-CAM of a network over a part of its data."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """The run folder. Or name a network that attnscope did not train, with --model and --data."""
    model: str | None = None
    """timm:NAME, torchvision:NAME, or package.module:callable of your own."""
    weights: Path | None = None
    """Of --model: safetensors, or a state dict."""
    data: str | None = None
    """Of --model: digits, cifar10, cifar100, or folder:PATH with train/CLASS/ and test/CLASS/."""
    image_size: int | None = None
    """Of --model, in pixels. Default: 32; of a folder the images' own size where all are squares of
    one size up to 96, else 224."""
    mean: tuple[float, float, float] | None = None
    """Of --model: what was subtracted from red, green and blue in 0 to 1. Default: timm's or
    torchvision's, else the mean of the training part."""
    std: tuple[float, float, float] | None = None
    """Of --model: by what the difference was divided."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read; they are named."""
    part: str = "test"
    """train, validation or test."""
    untrained: bool = False
    """The run's architecture with fresh random weights, as a control. The folder is then
    RUN/untrained/PART, which figures and dashboard do not look into."""
    out: Path | None = None
    """The folder of the recording, which must not exist. Default: RUN/recordings/PART."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay at the training, or data."""
    grad_cam_layer: tuple[str, ...] = ()
    """Paths of modules. Default: the one with the last map larger than 1×1."""
    no_grad_cam: bool = False
    """Record no Grad-CAM."""
    batch_size: int = 128
    """Images a forward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "fp32"
    """fp32 or bf16 (autocast); float32 is stored either way."""
    moments: bool = False
    """Record sums over the images of each class, and no single image. The folder is then
    RUN/moments/PART, or RUN/untrained/moments/PART."""
    pooled_inputs: bool = False
    """Record also what each gate multiplies, pooled to the gate's own axes by the mean."""
    shard_images: int = 2048
    """Images a shard, rounded up to whole batches: what is held in memory, what is kept when a
    capture is killed, and the least that a process of torchrun takes."""

    def __call__(self) -> None:
        if (self.run is None) == (self.model is None):
            raise InputError("capture takes a run folder, or --model with --data and --out")
        foreign = ("weights", "data", "image_size", "mean", "std")
        for name in foreign if self.run is not None else ():
            if getattr(self, name) is not None:
                option = name.replace("_", "-")
                raise InputError(f"--{option} is for --model; a run knows its own, leave it out")
        if self.model is not None and (self.data is None or self.out is None):
            raise InputError("--model needs --data (which images) and --out (the recording)")
        if self.no_grad_cam and self.grad_cam_layer:
            raise InputError("--no-grad-cam and --grad-cam-layer contradict; leave one of them out")
        if self.model is not None and self.untrained:
            raise InputError("--untrained is of a run, whose architecture is known; leave it out")
        if (self.mean is None) != (self.std is None):
            raise InputError("--mean and --std belong together; give both or none")
        if self.std is not None and min(self.std) <= 0:
            raise InputError(f"--std {min(self.std):g} must be above 0")
        if self.moments and self.pooled_inputs:
            raise InputError("--moments holds no --pooled-inputs; leave one of the two out")

        from attnscope.distributed import launched_team
        from attnscope.files import refuse_existing

        team, out = launched_team(), self.out
        if out is None:
            assert self.run is not None  # --model needs --out
            kind = "moments" if self.moments else "" if self.untrained else "recordings"
            out = self.run / ("untrained" if self.untrained else "") / kind / self.part
        if team.leads:
            refuse_existing(out)

        from attnscope.capturing import capture, load_network, load_run
        from attnscope.data import Normalization
        from attnscope.train import choose_device

        if self.run is not None:
            subject = load_run(
                self.run, self.part, self.data_root, self.untrained, self.skip_unreadable
            )
        else:
            assert self.model is not None  # as is --data, as was checked
            assert self.data is not None
            given = Normalization(self.mean, self.std) if self.mean and self.std else None
            subject = load_network(
                self.model,
                self.data,
                weights=self.weights,
                part=self.part,
                normalization=given,
                data_root=self.data_root or Path("data"),
                image_size=self.image_size,
                skip_unreadable=self.skip_unreadable,
            )
        import torch

        recording = capture(
            subject.model.to(choose_device(self.device)).to(memory_format=torch.channels_last),
            subject.images,
            out,
            normalization=subject.normalization,
            grad_cam_layers=() if self.no_grad_cam else self.grad_cam_layer or None,
            batch_size=self.batch_size,
            precision=self.precision,
            about=subject.about,
            moments=self.moments,
            pooled_inputs=self.pooled_inputs,
            shard_images=self.shard_images,
            team=team,
        )
        if team.leads:
            for line in subject.about["skipped"]:
                print(f"skipped {line}", file=sys.stderr)
            for gate in recording.gates if self.pooled_inputs else ():
                if gate.name not in recording.pooled_inputs:
                    print(
                        f"no pooled input of {gate.name}: it multiplies another gate",
                        file=sys.stderr,
                    )
            print(
                f"{len(recording)} images, {len(recording.gates)} gates, "
                f"accuracy {recording.right.mean():.2%}: {recording.folder}"
            )


@dataclass(frozen=True)
class Intervene:
    """Replace, swap, ablate and randomise a run's gates: what they know, and what is used of it.

    Two controls of what they know are taken where they were captured: with --pooled-inputs, and the
    --untrained network.
    """

    run: _Run
    """A run folder with a recording of the part."""
    part: str = "test"
    """train, validation or test."""
    seed_runs: tuple[Path, ...] = ()
    """Runs of the same network with other seeds: the yardstick of the randomisation."""
    experiments: tuple[str, ...] = ()
    """Some of decode, replace, ablate, erase and randomize. Default: all that were not made yet."""
    images: int = 1000
    """About how many are scored, of each class at most half; the others lend their gates. Ablate
    takes a tenth of them, erase a fifth, randomize half, but at least 50, 100 and 250."""
    seed: int = 0
    """Of all that is drawn."""
    out: Path | None = None
    """Where they go, each as it ends; what lies there of the same images is kept. Default:
    RUN/interventions/PART."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay at the training."""
    batch_size: int = 64
    """Images a forward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        from attnscope.outcomes import outcomes_folder

        if not (self.run / "model.safetensors").is_file():
            raise InputError(f"{self.run} is no run with a network; intervene needs one")
        folder = self.run / "recordings" / self.part
        out = outcomes_folder(folder) if self.out is None else self.out
        if not folder.is_dir():
            raise InputError(
                f"{folder} does not exist; make it with attnscope capture {self.run} "
                f"--part {self.part}"
            )

        import torch

        from attnscope.capturing import load_run
        from attnscope.interventions import EXPERIMENTS, Bench, intervene_in
        from attnscope.recording import Recording
        from attnscope.statistics.comparison import expect_same_images
        from attnscope.train import choose_device

        _verify(folder)
        recording = Recording(folder)
        skip = bool(recording.about.get("skipped"))
        subject = load_run(self.run, self.part, self.data_root, skip_unreadable=skip)
        bench = Bench(
            subject.model.to(choose_device(self.device)).to(memory_format=torch.channels_last),
            subject.images,
            recording,
            normalization=subject.normalization,
            images=self.images,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        seeds = [Recording(run / "recordings" / self.part) for run in self.seed_runs]
        untrained, control = None, self.run / "untrained" / self.part
        if control.is_dir():
            _verify(control)
            untrained = Recording(control)
            expect_same_images(bench.recording, untrained)
        outcomes = intervene_in(
            out,
            bench,
            seeds,
            untrained=untrained,
            experiments=self.experiments or EXPERIMENTS,
        )
        if "effects" in outcomes.tables:
            table = outcomes.tables["effects"]
            columns = ["target", "edit", "images", "change", "low", "high", "margin_change"]
            print(table[columns].to_string(index=False, float_format="{:+.4f}".format))
        print(f"{len(bench.scored)} images scored, {len(bench.gates)} gates: {out}")
        print(f"Next: attnscope report {self.run}")


@dataclass(frozen=True)
class Fold:
    """Make gates static whose dependence on the image is not used: a run without them."""

    run: _Run
    """A run folder whose training ended."""
    out: Path
    """The new run folder, which must not exist."""
    gates: tuple[str, ...] = ()
    """These gates, whatever is lost. Default: those that the validation part chooses."""
    tolerance: float | None = None
    """What validation accuracy may lose with all chosen gates, in points. Default: 0.2."""
    spatial: str = "map"
    """What a static spatial gate becomes: map (for one image size) or number."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay at the training."""
    batch_size: int = 128
    """Images a forward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        if self.gates and self.tolerance is not None:
            raise InputError("--tolerance chooses gates and --gates names them; give one of them")

        from attnscope.fold import fold_run
        from attnscope.train import choose_device

        report = fold_run(
            self.run,
            self.out,
            gates=self.gates,
            tolerance=0.2 if self.tolerance is None else self.tolerance,
            spatial=self.spatial,
            data_root=self.data_root,
            batch_size=self.batch_size,
            device=choose_device(self.device),
        )
        print(report)
        print(self.out)
        print(f"Next: attnscope capture {self.out}")


@dataclass(frozen=True)
class Figures:
    """Write every figure of a recording, and of interventions on it, as PNG and PDF."""

    run: _Run
    """A run folder with a recording, or a recording."""
    out: Path | None = None
    """Default: RUN/figures, of another part than test RUN/figures/PART; of a recording without a
    run, figures within it."""

    def __call__(self) -> None:
        from attnscope.report import write_figures

        _verify(self.run)
        _announce_files(write_figures(self.run, self.out))


@dataclass(frozen=True)
class Compare:
    """Compare two networks on the same images, class by class; or two kinds over several seeds."""

    runs: _Runs
    """Two run folders with recordings, or two recordings; or as many of one kind as of another."""
    out: Path = Path("comparison")
    """Where the figures go."""

    def __call__(self) -> None:
        from attnscope.pictures import accuracy_sentence
        from attnscope.recording import Recording
        from attnscope.report import write_comparison
        from attnscope.statistics import compare_accuracy

        if len(self.runs) < 2:
            raise InputError(f"compare takes two runs or more, not {len(self.runs)}")
        for run in self.runs:
            _verify(run)
        if len(self.runs) > 2:
            self._over_seeds()
            return
        first, second = self.runs
        a, b = Recording(first), Recording(second)
        comparison = compare_accuracy(a, b)
        files = write_comparison(first, second, self.out)
        print(comparison.to_string(index=False, float_format="{:.4g}".format))
        print(accuracy_sentence(comparison, a.name, b.name))
        _announce_files(files)

    def _over_seeds(self) -> None:
        from attnscope import figures
        from attnscope.pictures import seed_differences
        from attnscope.recording import Recording
        from attnscope.report import write_pictures
        from attnscope.statistics import compare_seeds, group_by_kind

        kinds = group_by_kind([Recording(run) for run in self.runs])
        if len(kinds) != 2:
            raise InputError(
                f"these are {len(kinds)} kinds of network ({', '.join(kinds)}); compare takes two "
                "runs, or several seeds of two kinds"
            )
        (name_a, a), (name_b, b) = kinds.items()
        table = compare_seeds(a, b)
        with figures.style():
            picture = seed_differences(a, b, (name_a, name_b))
        files = write_pictures({"seed_differences": picture}, self.out)
        print(table.to_string(index=False, float_format="{:.4g}".format))
        print(picture.caption)
        _announce_files(files)


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one run, or about several and how they differ."""

    runs: _Runs
    """Run folders with recordings, or recordings."""
    out: Path = Path("report.html")
    """The page; an older one is replaced."""

    def __call__(self) -> None:
        from attnscope.report import write_report

        if not self.runs:
            raise InputError("report needs a run; give one or more run folders")
        for run in self.runs:
            _verify(run)
        print(write_report(self.runs, self.out))


@dataclass(frozen=True)
class Dashboard:
    """Open the dashboard over all recordings in a folder, at 127.0.0.1."""

    folder: _Run = Path("runs")
    """A folder of runs, a run or a recording."""
    port: int = 8501
    """Where it listens."""

    def __call__(self) -> int:
        from attnscope.serve import serve

        return serve(self.folder, self.port)


@dataclass(frozen=True)
class Verify:
    """Check the files of a recording or of moments: hashes, counts and ranges."""

    recording: _Run
    """A recording, moments, or a run folder with a recording."""

    def __call__(self) -> None:
        print(_verify(self.recording))


@dataclass(frozen=True)
class Demo:
    """Train SE and CBAM on scikit-learn's digits, capture, compare and report: no download."""

    out: Path = Path("runs/demo")
    """A folder that must not exist."""
    width: int = 32
    """Channels of layer1 of the two ResNet18."""
    epochs: int = 6
    """Of each training."""
    seed: int = 0
    """Of everything."""

    def __call__(self) -> None:
        from attnscope.capturing import capture_run
        from attnscope.files import new_folder

        summary: dict[str, Any] = {}
        with new_folder(self.out) as folder:
            runs = []
            for attention in ("se", "cbam"):
                run = folder / attention
                runs.append(run)
                print(f"ResNet18 with {attention.upper()} on digits", file=sys.stderr)
                network = ModelOptions(attention=attention, width=self.width)
                _train(
                    Train(
                        network=network,
                        epochs=self.epochs,
                        batch_size=_DEMO_BATCH,
                        seed=self.seed,
                        out=run,
                    )
                )
                recording = capture_run(run)
                result = read_result(run)
                summary[attention] = {
                    "test_accuracy": float(recording.right.mean()),
                    "test_images": len(recording),
                    "train_images": result["train_images"],
                    "gates": len(recording.gates),
                    "parameters": result["parameters"],
                    "steps": result["steps"],
                    "seconds_per_step": result["seconds_per_step"],
                }
            se, cbam = map(str, runs)
            _run_side_by_side(
                ["figures", se],
                ["figures", cbam],
                ["compare", se, cbam, "--out", str(folder / "comparison")],
                ["report", se, cbam, "--out", str(folder / "report.html")],
            )
            write_json(folder / "summary.json", summary)
        for attention, values in summary.items():
            print(
                f"{attention.upper()}: {values['test_accuracy']:.1%} of {values['test_images']} "
                f"test images, {values['seconds_per_step']:.2f} s a step"
            )
        print(f"Report:    {self.out / 'report.html'}")
        print(f"Figures:   {self.out / 'cbam' / 'figures'}")
        print(f"Dashboard: attnscope dashboard {self.out}")


_COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": Demo,
    "train": Train,
    "inspect": Inspect,
    "summary": Summary,
    "capture": Capture,
    "intervene": Intervene,
    "fold": Fold,
    "figures": Figures,
    "compare": Compare,
    "report": Report,
    "dashboard": Dashboard,
    "verify": Verify,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; 0 is well, 2 is input that cannot be used, 130 is an interruption.

    1 is what went wrong on the way: a full disk, a loss that is not finite, a pipe that closed.
    """
    command = tyro.extras.subcommand_cli_from_dict(
        _COMMANDS,
        prog="attnscope",
        description="The microscope for the attention gates of convolutional networks.",
        args=arguments,
    )
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"attnscope: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"attnscope: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as under `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        print(f"attnscope: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"attnscope: {error if error.args else 'interrupted'}", file=sys.stderr)
        return 130


def read_result(run: Path) -> dict[str, Any]:
    """What a training ended with: ``result.json`` of a run folder."""
    from attnscope.files import read_json

    result: dict[str, Any] = read_json(run / "result.json")
    return result


def _train(options: Train) -> Path:
    from attnscope.recipes import get_recipe

    recipe = get_recipe(options.recipe)
    for name in ("batch_size", "accumulate"):
        value = getattr(options, name)
        if value is not None:
            if value < 1:
                raise InputError(f"{name.replace('_', ' ')} is {value}; it must be 1 or more")
            recipe = replace(recipe, **{name: value})
    if options.keep is not None:
        if options.keep not in ("last", "best"):
            raise InputError(f"'{options.keep}' weights cannot be kept; take last or best")
        recipe = replace(recipe, keeps=options.keep)
    default = recipe.network
    images, network = options.images, asdict(options.network)
    for name in ("model", "attention", "placement", "stem"):
        if network[name] is None:
            network[name] = getattr(default, name)
    size = images.image_size or default.image_size
    resize = default.resize
    if resize is not None and default.image_size is not None and size is not None:
        resize = round(size * resize / default.image_size)
    source = images.data.removeprefix("folder:").rstrip("/").rpartition("/")[2]
    out = options.out or Path("runs") / f"{source}-{network['model']}-{network['attention']}"
    if out.exists() and not options.resume:
        raise InputError(f"{out} exists already; take another folder with --out or remove it")

    import torch

    from attnscope.data import load_data
    from attnscope.distributed import current_team
    from attnscope.models import build_model, read_pretrained, start_from
    from attnscope.train import train

    team = current_team()
    name = network.pop("model")
    start, gate_start = options.weights or default.weights or "none", network.pop("gate_start")
    # Before images and weights are read, which may take a while: a wrong name shows at once.
    build_model(name, **network, gate_start=gate_start or "half")
    weights = None
    if start != "none":
        if not team.leads:
            team.wait()  # what is downloaded, is downloaded once
        weights = read_pretrained(start, name)
        if team.leads:
            team.wait()
        gate_start = gate_start or weights.gate_start or "identity"
    load = {**_load_arguments(images), "image_size": size, "resize": resize}
    data = load_data(images.data, **load, seed=options.seed)
    torch.manual_seed(options.seed)
    model = build_model(
        name, num_classes=len(data.classes), **network, gate_start=gate_start or "half"
    )
    report = None if weights is None else start_from(model, weights)
    small = name != "cnn" and network["stem"] in (None, "cifar")
    if team.leads and small and data.image_size > _SMALL:
        print(
            f"images of {data.image_size} pixels, and a stem for small ones: a step takes "
            f"{(data.image_size / 32) ** 2:.0f} times as long as at 32 pixels, and as much more "
            "memory; --stem imagenet or --recipe finetune is for photographs",
            file=sys.stderr,
        )
    if team.leads:
        for line in data.skipped:
            print(f"skipped {line}", file=sys.stderr)
        if report is not None:
            print(f"weights {start}\n{report}", file=sys.stderr)
    train(
        model,
        data,
        recipe,
        out,
        epochs=options.epochs,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        compiled=options.compile,
        resume=options.resume,
        config={
            "data": images.data,
            "data_root": str(images.data_root),
            "resize": resize,
            "validation_share": images.validation_share,
            "skip_unreadable": images.skip_unreadable,
            "weights": start,
            "weights_report": None if report is None else str(report).splitlines(),
        },
    )
    return out


def _run_side_by_side(*commands: list[str]) -> None:
    """Runs commands of this program at once: drawing keeps one core busy, and there are more."""
    running = [
        subprocess.Popen([sys.executable, "-m", "attnscope", *command], stdout=subprocess.DEVNULL)
        for command in commands
    ]
    codes = [process.wait() for process in running]
    for command, code in zip(commands, codes, strict=True):
        if code:
            raise RuntimeError(f"attnscope {' '.join(command)} ended with {code}")


def _load_arguments(images: DataOptions) -> dict[str, Any]:
    arguments = asdict(images)
    del arguments["data"]
    return arguments


def _announce_run(run: Path) -> None:
    result = read_result(run)
    print(
        f"test accuracy {result['test']['accuracy']:.2%} ({result['weights']} weights), "
        f"{result['seconds_per_step']:.2f} s a step: {run}"
    )
    print(f"Next: attnscope capture {run}")


def _announce_files(files: Sequence[Path]) -> None:
    print(f"{len(files)} files in {files[0].parent}")


def _verify(folder: Path) -> str:
    from attnscope.moments import Moments
    from attnscope.recording import Recording
    from attnscope.shards import captured_kind

    recording: Moments | Recording
    recording = Moments(folder) if captured_kind(folder) == "moments" else Recording(folder)
    found = recording.verify()
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"{found[0]}{more}; capture again")
    return f"{recording.folder}: {len(recording)} images, {len(recording.gates)} gates, all well"
