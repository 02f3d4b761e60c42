"""``attnscope train``"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import tyro

from attnscope.commands.options import DataOptions, ModelOptions, announce_run
from attnscope.errors import InputError

_SMALL = 96  # pixels up to which the cifar stem is affordable


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
        from attnscope.training.devices import choose_device
        from attnscope.training.processes import join_team

        with join_team(choose_device(self.device)) as team:
            run = run_training(self)
            if team.leads:
                announce_run(run)


def run_training(options: Train) -> Path:
    """Train as the options say; the run folder."""
    from attnscope.training.recipes import get_recipe

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

    from attnscope.data.load import load_data
    from attnscope.networks.build import build_model
    from attnscope.networks.pretrained import read_pretrained, start_from
    from attnscope.training.processes import current_team
    from attnscope.training.train import train

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


def _load_arguments(images: DataOptions) -> dict[str, Any]:
    arguments = asdict(images)
    del arguments["data"]
    return arguments
