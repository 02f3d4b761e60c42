"""Whether each tool can read the gates of twenty families of networks."""

from __future__ import annotations

import json
from pathlib import Path

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
    """Count the gates of each network, and those that a hook on some module can read.

    Captum, timm's feature hooks, torchcam and a hook script read outputs of modules. A gate that no
    module returns cannot be read with them; nnsight can read it from inside a forward, if its user
    names the line of the source. The values are those of attnscope, which
    docs/reference/coverage.md compares with an independent oracle.

    Args:
        only: names of networks; default twenty families.
        out: JSON file for the counts.
    """
    rows = []
    print("| network | gates | read as the output of a module |")
    print("| --- | --- | --- |")
    for name in only or FAMILIES:
        target = load_target(name)
        gates, hooked = count_readable(target.model.eval(), target.image_size or 224)
        rows.append({"network": name, "gates": gates, "outputs": hooked})
        print(f"| {name} | {gates} | {hooked} |", flush=True)
    if out is not None:
        out.write_text(json.dumps(rows, indent=1) + "\n")


def count_readable(model: nn.Module, size: int) -> tuple[int, int]:
    """Return the number of gates, and of those that are the output of some module, bit for bit."""
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    outputs: list[Tensor] = []

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        outputs.extend(leaf.detach() for leaf in tree_leaves(output) if isinstance(leaf, Tensor))

    gates = find_gates(model, x)
    values: dict[str, Tensor] = {}
    handles = [module.register_forward_hook(note) for module in model.modules()]
    with torch.no_grad(), watch_gates(model, gates) as watched:
        model(x)
        values = {name: value.detach().clone() for name, value in watched.items()}
    for handle in handles:
        handle.remove()
    hooked = 0
    for value in values.values():
        flat = value.reshape(-1).sort().values
        hooked += any(
            output.numel() == flat.numel() and torch.equal(output.reshape(-1).sort().values, flat)
            for output in outputs
            if output.is_floating_point()
        )
    return len(values), hooked
