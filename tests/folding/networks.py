"""Networks without trivial values, and checks of their folded copies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attnscope.data.images import LabeledImages, Normalization
from attnscope.folding.algebra import fold_gates
from attnscope.gates.detect import find_gates
from attnscope.gates.hooks import edit_gates
from attnscope.kinds import Gate
from attnscope.networks.build import build_model

Means = dict[str, Tensor]


UNIT = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def network(
    name: str = "resnet18",
    attention: str = "cbam",
    placement: str | None = "block",
    gate_start: str = "half",
) -> nn.Module:
    """A network with random BatchNorms, some of their weights negative, and gates that vary."""
    options: dict[str, Any] = {} if name == "cnn" else {"width": 16, "placement": placement}
    torch.manual_seed(0)
    model = build_model(name, attention=attention, reduction=4, gate_start=gate_start, **options)
    for path, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            with torch.no_grad():
                module.weight[::5] *= -1
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif ".attention." in f".{path}" and isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.4)
    model.eval()
    with torch.no_grad():  # logits of the size of a trained network, at most 10
        model.fc.weight.mul_(10 / model(pictures(model)).abs().max())
    return model


def pictures(model: nn.Module, count: int = 3) -> Tensor:
    size = 32 if model.attnscope_config.name == "cnn" else 16
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def random_mean(gate: Gate, number: bool, rng: torch.Generator) -> Tensor:
    shape = (gate.channels,) if gate.kind == "channel" else () if number else gate.grid
    assert shape is not None
    return 0.1 + 0.9 * torch.rand(shape, generator=rng)


def edited_logits(model: nn.Module, x: Tensor, means: Means, gates: list[Gate]) -> Tensor:
    """The logits with edited gates; axes are written out as in the CBAM paper."""

    def factor(mean: Tensor) -> Tensor:
        return mean[None, :, None, None] if mean.ndim == 1 else mean.expand(1, 1, *mean.shape)

    edits = {
        name: lambda g, f, mean=mean: (factor(mean) if mean.ndim else mean).expand(g.shape)
        for name, mean in means.items()
    }
    with torch.no_grad(), edit_gates(model, edits, gates):
        return model(x)


def expected_form(name: str, means: Means, placement: str | None) -> str:
    if means[name].ndim == 2:
        return "map"
    inside = placement != "stage"
    if name.endswith(".spatial"):
        inside = inside and name.replace(".spatial", ".channel") in means
    return "norm" if inside else "constant"


def check(model: nn.Module, x: Tensor, means: Means, gates: list[Gate]) -> nn.Module:
    """Check that the folded network gives the logits of the edited one, and not the original's."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_gates(model, means)
    with torch.no_grad():
        plain, found = model(x), folded(x)
    wanted = edited_logits(model, x, means, gates)
    assert (wanted - plain).abs().max() > 1e-3
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.attnscope_config.folded == {}
    config = folded.attnscope_config
    assert config.folded == {n: expected_form(n, means, config.placement) for n in means}
    assert [g.name for g in find_gates(folded, x)] == [g.name for g in gates if g.name not in means]
    return folded


def toy_images(count: int, size: int = 16) -> LabeledImages:
    rng = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (count, 3, size, size), generator=rng, dtype=torch.uint8)
    images = (images * torch.rand(count, 3, 1, 1, generator=rng)).to(torch.uint8)
    labels = torch.arange(count) % 10
    return LabeledImages(images, labels, list(map(str, range(count))), list("abcdefghij"))
