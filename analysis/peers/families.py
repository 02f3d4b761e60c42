"""Whether each tool can read the gates of twenty families of networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from attnscope import find_gates, watch_gates
from attnscope.networks.targets import load_target

FAMILIES = (
    "timm:seresnext26d_32x4d",
    "timm:seresnet33ts",
    "timm:skresnet18",
    "timm:resnest14d",
    "timm:ecaresnet26t",
    "timm:eca_nfnet_l0",
    "timm:ese_vovnet19b_dw",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_050",
    "timm:lcnet_050",
    "timm:tinynet_e",
    "timm:mixnet_s",
    "timm:ghostnet_100",
    "timm:repghostnet_050",
    "timm:regnety_002",
    "timm:rexnet_100",
    "timm:fbnetv3_b",
    "timm:semnasnet_075",
    "timm:hardcorenas_a",
    "torchvision:mobilenet_v3_small",
)
"""Networks with gates, one of each family; their weights are random."""


def check_families(only: tuple[str, ...] = (), out: Path | None = None) -> None:
    """Count the gates of each network, and those that hooks on modules can read.

    Captum, timm's feature hooks, torchcam and a hook script read outputs of modules. A gate that no
    module returns cannot be read with them; nnsight can read it from inside a forward, if its user
    names the line of the source. The values are those of attnscope, which
    docs/reference/coverage.md compares with an independent oracle. The third count is what a user
    gets who knows no class of the network and hooks every module with *sigmoid* in its class name.

    Args:
        only: names of networks; default twenty families.
        out: JSON file for the counts.
    """
    rows = []
    print("| network | gates | output of some module | output of a sigmoid module |")
    print("| --- | --- | --- | --- |")
    for name in only or FAMILIES:
        target = load_target(name)
        found = count_readable(target.model.eval(), target.image_size or 224)
        rows.append({"network": name, **found._asdict()})
        print(f"| {name} | {' | '.join(map(str, found))} |", flush=True)
    if out is not None:
        out.write_text(json.dumps(rows, indent=1) + "\n")


class Readable(NamedTuple):
    """How many gates can be read in each way."""

    gates: int
    """By attnscope: all of them."""
    outputs: int
    """As the output of some module, bit for bit."""
    sigmoids: int
    """As the output of a module whose class has *sigmoid* in its name."""


def count_readable(model: nn.Module, size: int) -> Readable:
    """Return how many gates of a network can be read by hooks on its modules.

    Args:
        model: the network.
        size: height and width of its images, in pixels.
    """
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    outputs: list[tuple[bool, Tensor]] = []

    def note(module: nn.Module, _inputs: object, output: object) -> None:
        is_sigmoid = "sigmoid" in type(module).__name__.lower()
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                # Sorted, because a gate can be read in another shape than the module returns.
                outputs.append((is_sigmoid, leaf.detach().reshape(-1).sort().values))

    gates = find_gates(model, x)
    values: dict[str, Tensor] = {}
    handles = [module.register_forward_hook(note) for module in model.modules()]
    with torch.no_grad(), watch_gates(model, gates) as watched:
        model(x)
        values = {name: value.detach().clone() for name, value in watched.items()}
    for handle in handles:
        handle.remove()
    hooked = sigmoids = 0
    for value in values.values():
        flat = value.reshape(-1).sort().values
        equal = [is_sigmoid for is_sigmoid, output in outputs if torch.equal(output, flat)]
        hooked += bool(equal)
        sigmoids += any(equal)
    return Readable(len(values), hooked, sigmoids)
