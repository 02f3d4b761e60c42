"""Operations of one's own: what each family does to a gate, and which names are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import wrap_torch_function

from attnscope.gates import (
    Operation,
    bounded_activation,
    creates,
    edit_gates,
    find_gates,
    inspect_gates,
    interpolates,
    joins,
    moves,
    multiplies,
    of_one,
    of_two,
    register_operation,
    selects,
    watch_gates,
)
from attnscope.gates.marks import UNBOUNDED, add, divide, multiply, negate, power, subtract
from attnscope.gates.ops import operation as registered
from tests.gates import nets
from tests.making import refused


@pytest.fixture(autouse=True)
def _only_for_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone afterwards."""
    monkeypatch.setattr(registered.OPERATIONS, "_known", dict(registered.OPERATIONS._known))
    monkeypatch.setattr(registered, "_spellings", dict(registered._spellings))
    yield
    registered._known.clear()


def function(name: str, body: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that torch hands to modes as one operation, like those of a compiled extension."""

    def hidden(*args: object) -> Tensor:
        with torch._C.DisableTorchFunction():  # what is within it cannot be seen
            return body(*args)

    hidden.__name__ = name
    return wrap_torch_function(lambda *args: tuple(a for a in args if isinstance(a, Tensor)))(
        hidden
    )


class Net(nn.Module):
    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


X = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


squash = function("my_squash", lambda x: 2 * x / (1 + x.abs()))
shuffle = function("my_shuffle", lambda x: x.flip(1))
double = function("my_double", lambda x: 2 * x)
mean_of = function("my_mean", lambda a, b: (a + b) / 2)
scale = function("my_scale", lambda x, g: x * g)
first_half = function("my_half", lambda x: x[:, :2])
beside = function("my_beside", lambda a, b: torch.cat([a, b], 1))


def test_a_registered_activation_makes_a_gate() -> None:
    model = Net(lambda x: x * squash(pooled(x)))
    assert find_gates(model, X) == []
    register_operation("my_squash", bounded_activation(-2.0, 2.0))
    (gate,) = find_gates(model, X)
    assert (gate.kind, gate.activation, gate.lo, gate.hi) == ("channel", "my_squash", -2.0, 2.0)
    with watch_gates(model, [gate]) as seen:
        plain = model(X)
    assert torch.equal(seen[gate.name], squash(pooled(X))[:, :, 0, 0])
    with edit_gates(model, {gate.name: lambda g, x: 2 * g}, [gate]):
        assert torch.equal(model(X), 2 * plain)


def test_a_registered_activation_can_have_another_name() -> None:
    register_operation("my_squash", bounded_activation(-2.0, 2.0, "softsign"))
    (gate,) = find_gates(Net(lambda x: x * squash(pooled(x))), X)
    assert gate.activation == "softsign"


def test_an_operator_of_torch_library_under_both_of_its_names() -> None:
    @torch.library.custom_op("attnscope_tests::squeeze_in", mutates_args=())
    def squeeze_in(x: Tensor) -> Tensor:
        return x / (1 + x.abs())

    register_operation("squeeze_in", bounded_activation(-1.0, 1.0))
    for call in (squeeze_in, torch.ops.attnscope_tests.squeeze_in):
        (gate,) = find_gates(Net(lambda x, call=call: x * call(pooled(x))), X)
        assert (gate.activation, gate.lo, gate.hi) == ("squeeze_in", -1.0, 1.0)


def test_an_unregistered_operation_ends_a_gate_and_is_named() -> None:
    found = inspect_gates(Net(lambda x: x * shuffle(torch.sigmoid(pooled(x)))), X)
    assert found.gates == []
    assert [(u.code, u.detail) for u in found.ungated] == [
        ("consumed", "my_shuffle"),
        ("unbounded", ""),
    ]
    register_operation("my_shuffle", Operation())  # says the same
    found = inspect_gates(Net(lambda x: x * shuffle(torch.sigmoid(pooled(x)))), X)
    assert [(u.code, u.detail) for u in found.ungated] == [
        ("consumed", "my_shuffle"),
        ("unbounded", ""),
    ]


def test_a_registered_move_carries_a_gate() -> None:
    register_operation("my_shuffle", moves())
    model = Net(lambda x: x * shuffle(torch.sigmoid(pooled(x))))
    (gate,) = find_gates(model, X)
    assert (gate.kind, gate.form) == ("channel", "")
    with watch_gates(model, [gate]) as seen:
        model(X)
    assert torch.equal(seen[gate.name], torch.sigmoid(pooled(X)).flip(1)[:, :, 0, 0])


def test_registered_arithmetic_gives_its_own_bounds() -> None:
    register_operation("my_double", of_one(lambda a: (2 * a[0], 2 * a[1])))
    register_operation("my_mean", of_two(lambda a, b: ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)))
    (gate,) = find_gates(
        Net(lambda x: x * mean_of(double(torch.sigmoid(pooled(x))), torch.tanh(pooled(x)))), X
    )
    assert (gate.activation, gate.lo, gate.hi) == ("sigmoid", -0.5, 1.5)
    assert gate.form.startswith("my_double; my_mean ")


def test_a_gate_acts_in_a_registered_product() -> None:
    model = Net(lambda x: scale(x, torch.sigmoid(pooled(x))))
    assert find_gates(model, X) == []
    register_operation("my_scale", multiplies())
    (gate,) = find_gates(model, X)
    plain = model(X)
    with edit_gates(model, {gate.name: lambda g, x: 2 * g}, [gate]):
        assert torch.equal(model(X), 2 * plain)


@pytest.mark.parametrize("is_product", [False, True])
def test_two_gates_in_a_registered_product(is_product: bool) -> None:
    """They act on what the result multiplies only where the result is nothing but their product."""
    register_operation("my_scale", multiplies(is_product=is_product))

    def body(x: Tensor) -> Tensor:
        return x * scale(torch.sigmoid(pooled(x)), torch.sigmoid(x.mean(1, keepdim=True)))

    assert [g.kind for g in find_gates(Net(body), X)] == (
        ["channel", "spatial"] if is_product else []
    )


def test_an_addend_of_the_product_sets_the_neutral_value_to_zero() -> None:
    register_operation("my_residual", multiplies(0, 1, addend=2))
    residual = function("my_residual", lambda x, g, y: x * g + y)
    (gate,) = find_gates(Net(lambda x: residual(x, torch.sigmoid(pooled(x)), x)), X)
    assert gate.neutral == 0.0
    (gate,) = find_gates(Net(lambda x: residual(x, torch.sigmoid(pooled(x)), -x)), X)
    assert gate.neutral == 1.0


def test_a_selection_is_another_gate_and_a_join_is_one() -> None:
    register_operation("my_half", selects())
    register_operation("my_beside", joins())
    beside_list = function("my_beside", lambda tensors: torch.cat(tensors, 1))
    gates = find_gates(Net(lambda x: first_half(x) * first_half(torch.sigmoid(pooled(x)))), X)
    assert [(g.kind, g.channels, g.form) for g in gates] == [("channel", 2, "my_half()[0]")]
    assert beside_list([X, X]).shape[1] == 8


def test_registered_functions_that_resize_and_that_create() -> None:
    register_operation("my_resize", interpolates())
    register_operation("my_noise", creates())
    resize = function("my_resize", lambda x: x.repeat(1, 1, 2, 2))
    noise = function("my_noise", torch.ones_like)
    (gate,) = find_gates(
        Net(lambda x: x * resize(torch.sigmoid(x.mean(1, keepdim=True)[..., ::2, ::2]))), X
    )
    assert (gate.kind, gate.grid) == ("spatial", (6, 6))
    assert find_gates(Net(lambda x: noise(x) * torch.sigmoid(pooled(x))), X) == []


def test_aliases_are_one_operation() -> None:
    register_operation("my_squash", bounded_activation(0.0, 1.0), "my_squish")
    squish = function("my_squish_", lambda x: x.sigmoid())
    (gate,) = find_gates(Net(lambda x: x * squish(pooled(x))), X)
    assert gate.activation == "my_squash"


@pytest.mark.parametrize("name", ["sigmoid", "expit", "my_op", "clip", "mul_", "_x", "", "a b"])
def test_invalid_and_taken_names_are_refused(name: str) -> None:
    register_operation("my_op", moves())
    code = "AS409" if name in ("sigmoid", "expit", "my_op", "clip") else "AS408"
    for names in ((name,), ("fresh", name)):
        with refused(code, names=(f"'{name}'",)):
            register_operation(names[0], moves(), *names[1:])
    register_operation("fresh", moves())  # nothing was left of the attempt


def test_a_name_that_is_given_twice_is_refused() -> None:
    with refused("AS409", names=("'other'",)):
        register_operation("fresh", moves(), "other", "other")


def test_a_value_that_is_not_an_operation_is_refused() -> None:
    with refused("AS123", names=("fresh",)):
        register_operation("fresh", (0.0, 1.0))  # type: ignore[arg-type]
    with refused("AS123", names=("fresh",)):
        register_operation("fresh", Operation(carries=0.5))  # type: ignore[arg-type]


def test_an_operation_is_known_from_the_next_forward_on() -> None:
    """What was looked up before it was registered is not remembered."""
    model = Net(lambda x: x * squash(pooled(x)))
    assert find_gates(model, X) == []
    register_operation("my_squash", bounded_activation(-2.0, 2.0))
    assert len(find_gates(model, X)) == 1


RANGES = [(0.0, 1.0), (-1.0, 1.0), (-3.0, -1.0), (0.5, 2.0), (2.0, 2.0), (-1.0, -1.0)]


@pytest.mark.parametrize("a", RANGES)
@pytest.mark.parametrize("b", RANGES)
def test_bounds_contain_results_of_random_operands(
    a: tuple[float, float], b: tuple[float, float]
) -> None:
    draw = torch.Generator().manual_seed(0)
    x = a[0] + (a[1] - a[0]) * torch.rand(2000, generator=draw, dtype=torch.float64)
    y = b[0] + (b[1] - b[0]) * torch.rand(2000, generator=draw, dtype=torch.float64)
    x[0], x[1], y[0], y[1] = *a, *b
    for bounds, values in (
        (add(a, b), x + y),
        (subtract(a, b), x - y),
        (multiply(a, b), x * y),
        (divide(a, b), x / y),
        (negate(a), -x),
        (power(a, (2.0, 2.0)), x**2),
        (power(a, (-1.0, -1.0)), 1 / x),
    ):
        values = values[~values.isnan()]  # 0 / 0
        assert bounds[0] - 1e-9 <= values.min()
        assert values.max() <= bounds[1] + 1e-9


def test_bounds_by_hand() -> None:
    assert divide((1.0, 1.0), (1.0, float("inf"))) == (0.0, 1.0)  # 1 / (1 + exp(-z))
    assert divide((0.0, 1.0), (-1.0, 1.0)) == UNBOUNDED
    assert power((-1.0, 1.0), (0.5, 0.5)) == UNBOUNDED
    assert power((-2.0, 1.0), (2.0, 2.0)) == (0.0, 4.0)
    assert power((-2.0, -1.0), (2.0, 2.0)) == (1.0, 4.0)
    assert multiply((0.0, 1.0), (0.0, float("inf"))) == (0.0, float("inf"))


@pytest.mark.parametrize("kind", [list, tuple])
@torch.no_grad()
def test_operands_of_einsum_can_be_one_list(kind: type) -> None:
    def multiply(net: nets.Net, y: Tensor) -> Tensor:
        return torch.einsum("nchw,nc->nchw", kind((y, torch.sigmoid(nets.logits(net, y)))))

    model = nets.Net(multiply).eval()
    y = model.conv(nets.images())
    gate = torch.sigmoid(nets.logits(model, y))
    (found,) = find_gates(model, nets.images())
    assert (found.kind, found.axes) == ("channel", "NC")
    with watch_gates(model, [found]) as seen:
        assert torch.equal(model(nets.images()), torch.einsum("nchw,nc->nchw", y, gate))
    assert torch.equal(seen[found.name], gate)
    with edit_gates(model, {found.name: lambda g, x: g * g}, [found]):
        torch.testing.assert_close(model(nets.images()), y * (gate * gate)[:, :, None, None])
