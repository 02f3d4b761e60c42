"""What public networks do that the cases do not: each test is a small form of one of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnscope.gates import inspect_gates, watch_gates


class Squeezed(nn.Module):
    """A channel gate, made by `gate` and multiplied by `multiply`."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 4)

    def logits(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))[..., None, None]


def images() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class OwnTensors(Squeezed):
    """Numbers in plain tensors, which are neither parameters nor buffers, as YOLO's strides."""

    def __init__(self) -> None:
        super().__init__()
        self.two = torch.tensor(2.0)
        self.scales = [torch.full((4, 1, 1), 3.0)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x) * self.scales[0]
        return x * (torch.sigmoid(self.logits(x)) * self.two)


def test_a_plain_tensor_of_the_network_does_not_depend_on_the_input() -> None:
    model = OwnTensors().eval()
    found = inspect_gates(model, images())
    assert [(gate.kind, gate.lo, gate.hi) for gate in found.gates] == [("channel", 0.0, 2.0)]
    assert not found.ungated
    model.two = torch.tensor(4.0)  # another tensor under the same name
    with torch.no_grad(), watch_gates(model, inspect_gates(model, images()).gates) as seen:
        model(images())
        model.two = torch.tensor(6.0)
        model(images())
        x = model.conv(images()) * 3.0
        (values,) = seen.values()
        assert torch.equal(values, (torch.sigmoid(model.logits(x)) * 6.0)[..., 0, 0])


class KeepsItsInput(Squeezed):
    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Tensor] | Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        x = self.conv(x)
        return x * torch.sigmoid(self.logits(x))


def test_an_input_that_the_network_keeps_still_is_an_input() -> None:
    model = KeepsItsInput().eval()
    x = images()
    for _ in range(2):
        assert [gate.kind for gate in inspect_gates(model, x).gates] == ["channel"]
    gates = inspect_gates(model, x).gates
    model(x)
    with torch.no_grad(), watch_gates(model, gates) as seen:
        model(x)
        model(x)
        assert len(seen) == 1


class Boxes(Squeezed):
    """Rows that the input chooses, as the boxes of a detection network after suppression."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        edges = rows[:, :2].clamp(0, 8)
        kept = rows.sum(1).argsort()[:32]
        edges, rows = edges[kept], rows[kept]
        return rows * (edges[:, 1:] - edges[:, :1])


def test_rows_that_the_input_chooses_are_no_gate() -> None:
    found = inspect_gates(Boxes().eval(), images())
    assert not found.gates
    assert [(each.code, each.detail) for each in found.ungated] == [("consumed", "getitem")]


class PooledPatches(Squeezed):
    """A softmax pooling over patches, as in MobileViTv2, of which a small image has one only."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.avg_pool2d(self.conv(x), 4)
        patches = nn.functional.unfold(x, 2, stride=2).unflatten(1, (4, 4))
        scores = self.score(x).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        scores = scores.permute(0, 1, 3, 5, 2, 4).flatten(4).flatten(2, 3).softmax(-1)
        context = (patches * scores).sum(-1, keepdim=True)
        return patches.relu() * context


def test_a_pooling_over_one_position_is_no_gate() -> None:
    model = PooledPatches().eval()
    for size in (8, 16, 32):
        x = torch.randn(2, 3, size, size)
        found = inspect_gates(model, x)
        assert not found.gates, (size, found.gates)
        assert [each.code for each in found.ungated] == ["pooling"] + ["unbounded"] * (size > 8)


class OwnBoxes(Squeezed):
    """A bounded box scales features of its own shape, and is read by a logarithm, as in RT-DETR."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        box = torch.sigmoid(x)
        return x * box + box.log()


def test_a_multiplication_is_named_rather_than_what_else_consumes_the_activation() -> None:
    found = inspect_gates(OwnBoxes().eval(), images())
    assert [(each.code, each.detail) for each in found.ungated] == [("other-kind", "activation")]


class LogarithmFirst(OwnBoxes):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        box = torch.sigmoid(x)
        logarithm = box.log()
        return x * box + logarithm


def test_the_order_of_the_two_does_not_matter() -> None:
    found = inspect_gates(LogarithmFirst().eval(), images())
    assert [(each.code, each.detail) for each in found.ungated] == [("other-kind", "activation")]
