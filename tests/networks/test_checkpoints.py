"""Weights of other trainers: containers, prefixes, counters, types, and files that need a pickle."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnscope.errors import InputError
from attnscope.networks.weights import load_weights, read_weights
from tests.making import refused


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)


class Inside(nn.Module):
    """A network whose own attribute has the name of a wrapper's prefix."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, Net())


def with_values(net: nn.Module, start: int = 1) -> nn.Module:
    for index, tensor in enumerate(net.state_dict().values()):
        tensor.fill_(start + index)
    return net


def state_of(prefix: str = "", start: int = 1) -> dict[str, Tensor]:
    return {prefix + n: v for n, v in with_values(Net(), start).state_dict().items()}


def load(net: nn.Module, content: object, folder: Path) -> dict[str, Tensor]:
    torch.save(content, folder / "w.pth")
    load_weights(net, folder / "w.pth")
    return net.state_dict()


def expect(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "model.",
        "net.",
        "module._orig_mod.",
        "model.module.",
        "model.net.",
    ],
)
def test_prefixes_of_wrappers_are_cut(tmp_path: Path, prefix: str) -> None:
    expect(load(Net(), state_of(prefix), tmp_path), state_of())


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod.", "net.module."])
def test_weights_to_start_from_have_no_prefixes(tmp_path: Path, prefix: str) -> None:
    torch.save({"model": state_of(prefix), "epoch": 2}, tmp_path / "w.pth")
    expect(read_weights(tmp_path / "w.pth"), state_of())


@pytest.mark.parametrize("name", ["module", "model", "_orig_mod"])
@pytest.mark.parametrize("wrapper", ["", "module.", "model.", "_orig_mod."])
def test_a_prefix_that_is_the_networks_own_stays(tmp_path: Path, name: str, wrapper: str) -> None:
    found = load(Inside(name), state_of(f"{wrapper}{name}."), tmp_path)
    expect(found, state_of(f"{name}."))


def test_the_prefix_of_a_compiled_submodule_is_cut(tmp_path: Path) -> None:
    state = {n.replace("conv.", "conv._orig_mod."): v for n, v in state_of().items()}
    expect(load(Net(), state, tmp_path), state_of())


CONTAINERS = {
    "lightning": lambda s: {"state_dict": s, "epoch": 3, "callbacks": {}, "loops": [1]},
    "tutorial": lambda s: {
        "epoch": 1,
        "model_state_dict": s,
        "optimizer_state_dict": {"state": {}},
    },
    "torchvision": lambda s: {"model": s, "optimizer": {"param_groups": [{"lr": 0.1}]}, "epoch": 9},
    "net": lambda s: {"net": s, "acc": 93.5},
    "nested": lambda s: {"model": {"state_dict": s, "name": "x"}, "epoch": 1},
    "averaged": lambda s: {"state_dict_ema": s},
    "of another name": lambda s: {"student": s, "step": torch.tensor(3)},
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_weights_are_found_in_the_containers_of_trainers(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = CONTAINERS[kind](state_of())
    expect(load(Net(), content, tmp_path), state_of())
    key = next(k for k, v in content.items() if isinstance(v, dict) and v)
    assert any(f"'{key}" in r.message for r in caplog.records) == (key != "state_dict")


@pytest.mark.parametrize("first", ["state_dict", "model"])
@pytest.mark.parametrize("reverse", [False, True])
def test_which_of_two_sets_of_weights_is_taken_is_said(
    tmp_path: Path, first: str, reverse: bool, caplog: pytest.LogCaptureFixture
) -> None:
    content = {first: state_of(), "state_dict_ema": state_of(start=20)}
    if reverse:
        content = dict(reversed(content.items()))
    expect(load(Net(), content, tmp_path), state_of())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"'{first}'" in record.message
    assert "'state_dict_ema'" in record.message


def test_what_is_missing_is_named_as_the_network_names_it(tmp_path: Path) -> None:
    state = state_of("module.")
    del state["module.conv.bias"]
    with refused("AS347", names=("(missing: module.conv.bias)",)):
        load(Inside("module"), state, tmp_path)
    with refused("AS347", names=("(missing: conv.bias)",)):
        load(Net(), state, tmp_path)


def test_one_of_several_unknown_containers_is_not_guessed(tmp_path: Path) -> None:
    with refused("AS346", names=("'teacher'", "'student'")):
        load(Net(), {"teacher": state_of(), "student": state_of()}, tmp_path)


def test_counters_of_a_profiler_are_left_out_and_other_keys_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counters = {
        f"{place}{name}": torch.zeros(1)
        for place in ("", "conv.")
        for name in ("total_ops", "total_params")
    }
    found = load(Net(), {"module." + n: v for n, v in {**state_of(), **counters}.items()}, tmp_path)
    expect(found, state_of())
    assert "4 counters" in caplog.text
    assert "total_ops" in caplog.text
    with refused("AS347", names=("aux.weight",)):
        load(Net(), {**state_of(), "aux.weight": torch.zeros(1)}, tmp_path)


def test_only_the_count_of_batches_may_be_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of()
    del state["norm.num_batches_tracked"]
    found = load(Net(), state, tmp_path)
    expect(found, {**state_of(), "norm.num_batches_tracked": torch.tensor(0)})
    assert "num_batches_tracked" in caplog.text
    del state["norm.running_mean"]
    with refused("AS347", names=("norm.running_mean",)):
        load(Net(), state, tmp_path)


def test_whole_numbers_are_no_weights(tmp_path: Path) -> None:
    state = {**state_of(), "conv.weight": torch.ones(4, 3, 1, 1, dtype=torch.int8)}
    with refused("AS347", names=("conv.weight", "int8", "float32")):
        load(Net(), state, tmp_path)


def test_rounding_of_weights_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exact = {n: v.half() if v.is_floating_point() else v for n, v in state_of().items()}
    expect(load(Net(), exact, tmp_path), state_of())
    assert not caplog.records
    expect(
        load(Net(), {**state_of(), "conv.bias": state_of()["conv.bias"].double()}, tmp_path),
        state_of(),
    )
    assert "float64" in caplog.text
    assert "float32" in caplog.text


UNSAFE: dict[str, tuple[Callable[[], Any], str]] = {
    "number of NumPy": (lambda: {"state_dict": state_of(), "best": np.float64(0.9)}, "numpy"),
    "options": (
        lambda: {"args": argparse.Namespace(model="resnet18"), "model": state_of()},
        "argparse.Namespace",
    ),
    "network": (lambda: with_values(Net()), "test_checkpoints.Net"),
    "network in a dict": (
        lambda: {"epoch": 1, "model": with_values(Net())},
        "test_checkpoints.Net",
    ),
    "network in a known key": (
        lambda: {"net": with_values(Net()), "x": {}},
        "test_checkpoints.Net",
    ),
    "plain with more": (lambda: {**state_of(), "at": Path("here")}, "pathlib"),
}


def refusal(content: object, folder: Path, named: str) -> str:
    """The code in the refusal of a file, as it stands behind ``python -c``."""
    with pytest.raises(InputError) as caught:
        load(Net(), content, folder)
    assert caught.value.code == "AS345"
    assert named in caught.value.message
    assert str(folder / "w.pth") in caught.value.message
    return caught.value.message.partition("python -c ")[2]


@pytest.mark.parametrize("kind", UNSAFE)
@pytest.mark.parametrize("folder", ["plain", 'it\'s "a" $HOME'])
def test_the_line_of_the_refusal_converts_the_file(tmp_path: Path, kind: str, folder: str) -> None:
    """The line is split as a shell does; the file that its code writes is loaded."""
    make, named = UNSAFE[kind]
    place = tmp_path / folder
    place.mkdir()
    line = refusal(make(), place, named)
    words = shlex.split(f"python -c {line}")
    assert len(words) == 3
    assert "\x1b" not in line
    # In this process, because a new one would have to find the class of the network.
    exec(compile(words[2], "line", "exec"), {})
    net = Net()
    load_weights(net, place / "w-weights.pth")
    expect(net.state_dict(), state_of())
