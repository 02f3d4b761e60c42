"""Class scores are found in what networks return, converted to logits, or refused."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.networks.output_forms import (
    OUTPUT_FORMS,
    OutputForm,
    Sample,
    last_operation_of,
    register_output_form,
)
from attnscope.networks.outputs import OutputAdapter, adapted, find_adapter
from tests.making import refused

N, K = 4, 3


def scores(classes: int = K, seed: int = 0) -> Tensor:
    return 3 * torch.randn(N, classes, generator=torch.Generator().manual_seed(seed))


def maps(channels: int = K) -> Tensor:
    return torch.randn(N, channels, 5, 6, generator=torch.Generator().manual_seed(1))


@dataclass
class Output:
    logits: Tensor
    attentions: Tensor | None = None


Named = namedtuple("Named", ["features", "scores"])
BOXES = [{"boxes": torch.rand(N, 4), "labels": torch.ones(N), "scores": torch.rand(N)}] * N

CONTAINERS: dict[str, tuple[Callable[[], Any], tuple[str | int, ...]]] = {
    "tensor": (scores, ()),
    "tuple": (lambda: (scores(), maps()), (0,)),
    "list": (lambda: [maps(), scores()], (1,)),
    "tuple of one": (lambda: (scores(),), (0,)),
    "dict": (lambda: {"features": maps(), "logits": scores()}, ("logits",)),
    "dict with a loss": (lambda: {"loss": torch.tensor(1.0), "x": scores()}, ("x",)),
    "dataclass": (lambda: Output(scores(), maps()), ("logits",)),
    "named tuple": (lambda: Named(maps(), scores()), ("scores",)),
    "object": (lambda: SimpleNamespace(logits=scores(), name="x"), ("logits",)),
    "nested": (lambda: ({"hidden": [maps()]}, {"head": (scores(), None)}), (1, "head", 0)),
    "preferred by name": (lambda: {"aux": scores(seed=5), "out": scores()}, ("out",)),
    "embedding beside": (lambda: {"z": torch.randn(N, 16), "y": scores()}, ("y",)),
    "whole numbers beside": (lambda: (torch.ones(N, K, dtype=torch.int64), scores()), (1,)),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_scores_are_found_in_containers(kind: str) -> None:
    make, path = CONTAINERS[kind]
    adapter = find_adapter(make(), Sample(N, K))
    assert adapter.path == path
    assert adapter.form == "logits"
    assert adapter.is_plain == (path == ())
    assert torch.equal(adapter(make()), scores())
    assert bool(adapter.explain()) == (path != ())
    assert OutputAdapter.from_dict(adapter.to_dict()) == adapter


def two_classes(z: Tensor) -> Tensor:
    return torch.stack([1 - z.sigmoid(), z.sigmoid()], 1)


def number() -> Tensor:
    return scores(1)[:, 0]


FORMS: dict[str, tuple[str, Callable[[], Tensor], Callable[[], Tensor]]] = {
    "probabilities": ("probabilities", lambda: scores().softmax(1), lambda: scores().softmax(1)),
    "certain": (
        "probabilities",
        lambda: torch.eye(K)[[0, 1, 2, 0]],
        lambda: torch.eye(K)[[0, 1, 2, 0]],
    ),
    "log-probabilities": (
        "log_probabilities",
        lambda: scores().log_softmax(1),
        lambda: scores().softmax(1),
    ),
    "sigmoids": (
        "class_probabilities",
        lambda: scores().requires_grad_().sigmoid(),
        lambda: scores().softmax(1),
    ),
    "map": ("logits", maps, lambda: maps().mean((2, 3)).softmax(1)),
    "map of probabilities": (
        "probabilities",
        lambda: maps().softmax(1),
        lambda: maps().softmax(1).mean((2, 3)),
    ),
    "sequence": ("logits", lambda: maps().flatten(2), lambda: maps().mean((2, 3)).softmax(1)),
    "one position": ("logits", lambda: scores()[..., None, None], lambda: scores().softmax(1)),
}


@pytest.mark.parametrize("kind", FORMS)
def test_the_softmax_of_the_logits_is_what_the_network_means(kind: str) -> None:
    form, make, wanted = FORMS[kind]
    adapter = find_adapter(make(), Sample(N, K), again=make)
    assert adapter.form == form
    assert adapter.explain()
    torch.testing.assert_close(adapter(make()).softmax(1), wanted(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, 1, 1, 1)])
@pytest.mark.parametrize("classes", [2, None])
def test_one_number_is_two_classes(shape: tuple[int, ...], classes: int | None) -> None:
    z = number().reshape(shape)
    adapter = find_adapter(z, Sample(N, classes))
    assert adapter.form == "one_logit"
    logits = adapter(z)
    torch.testing.assert_close(logits.softmax(1), two_classes(number()))
    assert torch.equal(logits[:, 0], -logits[:, 1])  # both classes can be explained


@pytest.mark.parametrize("shape", [(N,), (N, 1)])
def test_one_probability_is_told_by_the_operation_that_made_it(shape: tuple[int, ...]) -> None:
    def run() -> Tensor:
        return number().requires_grad_().sigmoid().reshape(shape)

    adapter = find_adapter(run(), Sample(N, 2), again=run)
    assert adapter.form == "one_probability"
    torch.testing.assert_close(adapter(run()).softmax(1), two_classes(number()))
    sure = torch.tensor([0.0, 1.0, 0.5, 0.25]).reshape(shape)
    found = adapter(sure)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found.softmax(1)[:, 1], sure.reshape(N))


def test_one_number_from_0_to_1_of_a_linear_layer_is_a_logit() -> None:
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, 0.1)
    nn.init.zeros_(layer.bias)

    def run() -> Tensor:
        return layer(torch.ones(N, 2))

    assert 0 < run().min() <= run().max() < 1
    assert find_adapter(run(), Sample(N, 2), again=run).form == "one_logit"


def test_one_number_from_0_to_1_of_unknown_origin_is_not_guessed() -> None:
    def run() -> Tensor:
        return 1 / (1 + (-number().requires_grad_()).exp())

    with refused("AS361", names=("--output one_probability", "--output one_logit")):
        find_adapter(run(), Sample(N, 2), again=run)
    for form, wanted in (("one_probability", run()), ("one_logit", run().sigmoid())):
        adapter = find_adapter(run(), Sample(N, 2), form)
        torch.testing.assert_close(adapter(run()).softmax(1)[:, 1], wanted)


def test_a_number_to_predict_is_no_score() -> None:
    assert not find_adapter(number(), Sample(N, None, class_labels=False)).has_scores


NO_SCORES: dict[str, Callable[[], Any]] = {
    "boxes": lambda: BOXES,
    "nothing": lambda: None,
    "text": lambda: "cat",
    "features of unknown classes": lambda: torch.rand(N, 512, 7, 7),
    "a picture": lambda: torch.rand(N, 3, 8, 8),
    "features in a list": lambda: [torch.rand(N, 8, 7, 7), torch.rand(N, 16, 3, 3)],
}


@pytest.mark.parametrize("kind", NO_SCORES)
def test_other_outputs_have_no_scores(kind: str) -> None:
    adapter = find_adapter(NO_SCORES[kind](), Sample(N))
    assert not adapter.has_scores
    assert OutputAdapter.from_dict(adapter.to_dict()) == adapter


def test_boxes_have_no_scores_whatever_the_classes_and_images_are() -> None:
    for classes in (None, 2, 4):
        assert not find_adapter(BOXES, Sample(N, classes)).has_scores
        assert not find_adapter(BOXES[:1], Sample(1, classes)).has_scores


def test_names_of_classes_are_no_remedy_for_too_few_outputs() -> None:
    with pytest.raises(InputError) as caught:
        find_adapter(torch.rand(N, 3), Sample(N, 16))
    assert caught.value.code == "AS661"
    assert "--classes" not in str(caught.value)


def test_scores_of_another_number_of_classes_are_refused() -> None:
    with refused("AS661", names=("16", "3", "--output", "--classes")):
        find_adapter(torch.rand(N, 16), Sample(N, 3))
    with refused("AS661", names=("16", "3")):
        find_adapter((torch.rand(N, 16), maps(8)), Sample(N, 3))
    with refused("AS662", names=("(4, 16, 5, 6)", "--output")):
        find_adapter(maps(16), Sample(N, 3))
    with refused("AS662", names=("(12, 3)",)):
        find_adapter(torch.rand(3 * N, 3), Sample(N, 3))


def test_one_of_several_outputs_is_not_guessed() -> None:
    with refused("AS361", names=("--output 0", "--output 1", "(4, 3)")):
        find_adapter((scores(), -scores()), Sample(N, K))
    with refused("AS361", names=("--output a.x", "--output b")):
        find_adapter({"a": {"x": scores()}, "b": scores()}, Sample(N))


TWO = {
    "a": {"x": (maps(), scores(), -scores())},
    "b.c": -scores(),
    3: 2 * scores(),
    "n": [scores()],
}


@pytest.mark.parametrize(
    ("chosen", "path", "factor"),
    [
        ("a.x.1", ("a", "x", 1), 1),
        ("a.x.-1", ("a", "x", -1), -1),
        ("b.c", ("b.c",), -1),
        (3, (3,), 2),
        ("3", (3,), 2),
        ("n", ("n", 0), 1),
    ],
)
def test_an_output_is_chosen_by_key_and_index(
    chosen: str | int, path: tuple[str | int, ...], factor: int
) -> None:
    adapter = find_adapter(TWO, Sample(N, K), chosen)
    assert adapter.path == path
    assert torch.equal(adapter(TWO), factor * scores())
    assert OutputAdapter.from_dict(adapter.to_dict()) == adapter


def test_a_map_of_unknown_classes_is_taken_if_it_is_chosen() -> None:
    adapter = find_adapter({"out": maps()}, Sample(N), "out")
    torch.testing.assert_close(adapter({"out": maps()}), maps().mean((2, 3)))
    assert find_adapter(maps(), Sample(N), "logits").over_positions


def test_a_chosen_form_is_not_told_by_looking() -> None:
    p = scores().softmax(1)
    adapter = find_adapter(p, Sample(N, K), "logits")
    assert torch.equal(adapter(p), p)
    assert not find_adapter(p, Sample(N, K), "none").has_scores


@pytest.mark.parametrize(
    ("output", "chosen", "names"),
    [
        (scores(), "logit", ("logit", "one_probability")),
        ({"a": scores()}, "b", ("'b'", "a: (4, 3)")),
        ((scores(),), "1", ("'1'",)),
        (scores(), "one_logit", ("(4, 3)", "one_logit")),
        (number(), "probabilities", ("(4,)",)),
        (scores(), "attnscope.nowhere:f", ("attnscope.nowhere:f",)),
        (scores(), "math:pi", ("math:pi",)),
        (scores(), "math:sqrt", ("math:sqrt", "failed")),
        (None, "logits", ("NoneType",)),
    ],
)
def test_a_choice_that_does_not_exist_is_refused(
    output: object, chosen: str, names: tuple[str, ...]
) -> None:
    with refused("AS362", names=names):
        find_adapter(output, Sample(N, 2 if chosen == "probabilities" else K), chosen)


def second(output: Any) -> Tensor:
    return output[1]  # type: ignore[no-any-return]


def test_a_function_is_applied_and_found_again_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_output.py").write_text("def take(output):\n    return output[1]\n")
    monkeypatch.chdir(tmp_path)
    output = (scores(), -scores())
    for chosen in ("own_output:take", second):
        adapter = find_adapter(output, Sample(N, K), chosen)
        assert torch.equal(adapter(output), -scores())
        again = OutputAdapter.from_dict(adapter.to_dict())
        assert torch.equal(again(output), -scores())


def test_an_output_that_changes_its_form_is_refused() -> None:
    p = scores().softmax(1)
    adapter = find_adapter(p, Sample(N, K))
    with refused("AS360", names=("probabilities", "--output")):
        adapter(2 * p)
    in_dict = find_adapter({"a": scores()}, Sample(N, K))
    for other in ({"b": scores()}, {"a": None}, scores()):
        with refused("AS360"):
            in_dict(other)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("form", ["probabilities", "log_probabilities", "class_probabilities"])
def test_values_that_are_not_finite_stay_so(form: str, value: float) -> None:
    """They are refused as such, and not clamped."""
    p = scores().log_softmax(1) if form == "log_probabilities" else scores().softmax(1)
    p[2, 1] = value
    assert not torch.isfinite(OutputAdapter(form=form)(p)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_probabilities_of_other_number_types_are_told(dtype: torch.dtype) -> None:
    p = scores(100).to(dtype).softmax(1)
    adapter = find_adapter(p, Sample(N, 100))
    assert adapter.form == "probabilities"
    torch.testing.assert_close(
        adapter(p).softmax(1).double(),
        p.double(),
        atol=0.01 if dtype != torch.float64 else 1e-9,
        rtol=0,
    )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, K)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"p": self.fc(x).softmax(1)}


def test_an_adapted_network_returns_logits_inside_the_block_only() -> None:
    torch.manual_seed(0)
    net, x = Net(), torch.randn(N, 5)
    names = [name for name, _ in net.named_modules()]
    adapter = find_adapter(net(x), Sample(N, K))
    with adapted(net, adapter):
        torch.testing.assert_close(net(x).softmax(1), net.fc(x).softmax(1))
        assert [name for name, _ in net.named_modules()] == names
    assert isinstance(net(x), dict)
    assert not net._forward_hooks
    with adapted(net, OutputAdapter(form="none")):
        assert isinstance(net(x), dict)


def test_the_last_operation_is_read_through_views_and_means() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    assert last_operation_of(x.sigmoid().mean((2, 3))[:, :1].squeeze(1)) == "Sigmoid"
    assert last_operation_of(x.softmax(1).flatten(2).mean(2)) == "Softmax"
    assert last_operation_of(x * 2) == "Mul"
    assert last_operation_of(x.detach()) == ""


@pytest.fixture
def energies() -> Iterator[None]:
    register_output_form(
        OutputForm(
            "energies",
            "energies; their negatives are logits",
            lambda values, sample, last_operation: values.ndim == 2 and bool((values > 100).all()),
            torch.neg,
        )
    )
    yield
    OUTPUT_FORMS._known.pop("energies")


@pytest.mark.usefixtures("energies")
def test_a_form_that_was_registered_is_told_and_chosen() -> None:
    high = scores() + 200
    assert torch.equal(find_adapter(high, Sample(N, K))(high), -high)
    assert find_adapter(scores(), Sample(N, K)).is_plain
    assert torch.equal(find_adapter(scores(), Sample(N, K), "energies")(scores()), -scores())


def test_an_incomplete_form_is_not_registered() -> None:
    with refused("AS123", names=("about",)):
        register_output_form(OutputForm("x", " ", lambda *_: False, None))
    with refused("AS123", names=("functions",)):
        register_output_form(OutputForm("x", "x", None, None))  # type: ignore[arg-type]
