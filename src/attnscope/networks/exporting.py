"""Write networks as files that other programs run: ``.pt2`` of torch.export, and ONNX.

attnscope never reads these files, because torch unpickles a ``.pt2``. They are written from an
exported graph (`attnscope.gates.export_gates`), for any number of images of one size.
"""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from attnscope.errors import InputError, first_line
from attnscope.files import refuse_existing, write_bytes
from attnscope.gates.graph import with_gates
from attnscope.gates.graph_network import GraphNetwork
from attnscope.gates.inputs import Inputs
from attnscope.writing import writing

SUFFIXES = (".pt2", ".onnx")
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_BATCHES = (1, 3)  # numbers of images on which a file is compared with the network
_TOLERANCE = 1e-4  # of the largest value of an output


@dataclass(frozen=True)
class ExportedFile:
    """A file that was written."""

    file: Path
    outputs: list[str]
    """Names of its outputs, in order. Those behind the output of the network are gates."""
    difference: float | None
    """Largest difference between its outputs in onnxruntime and those of the network, as a share of
    the largest value. None for a ``.pt2``, which is not read."""


def export_file(network: GraphNetwork, file: Path, *, gates: bool = False) -> ExportedFile:
    """Write a network to a file.

    Args:
        network: A network of `attnscope.gates.export_gates`, folded or not.
        file: The file, whose suffix ``.pt2`` or ``.onnx`` is its format.
        gates: Whether the gates are further outputs, in the shapes in which they multiply.

    Raises:
        InputError: The suffix is another one (AS374), the file exists (AS113), a package for ONNX
            is missing (AS375), another process writes it (AS118), the network cannot be written
            (AS376), or onnxruntime gives other values (AS377).
    """
    if file.suffix not in SUFFIXES:
        raise InputError("AS374", f"{file} has no suffix of a format; use {' or '.join(SUFFIXES)}")
    refuse_existing(file)
    if file.suffix == ".onnx":
        _expect_packages()
    with writing(file):
        return _export(network, file, gates)


def _export(network: GraphNetwork, file: Path, gates: bool) -> ExportedFile:
    names = [gate.name for gate in network.gates] if gates else []
    whole = with_gates(network, names) if gates else network
    inputs = _noise(whole, 2)
    with torch.no_grad():
        count = len(Inputs((network(*inputs),), {}).tensors)
    outputs = ["output"] if count == 1 else [f"output_{number}" for number in range(count)]
    # A gate may have the name of an operation, which must be another one.
    outputs += [f"gate/{name}" for name in names]
    program = _program(whole, inputs, file)
    if file.suffix == ".pt2":
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        write_bytes(file, buffer.getvalue())
        return ExportedFile(file, outputs, None)
    content = _onnx(program, inputs, outputs, file)
    difference = _compare(content, whole)
    if not difference <= _TOLERANCE:
        raise InputError(
            "AS377",
            f"onnxruntime gives outputs that differ from those of the network by {difference:.1e} "
            "of the largest value; write a .pt2 file, or try another version of onnxscript",
        )
    write_bytes(file, content)
    return ExportedFile(file, outputs, difference)


def _expect_packages() -> None:
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            raise InputError(
                "AS375",
                f"{name} is not installed; install it with: pip install 'attnscope[onnx]'",
            ) from None


def _noise(network: GraphNetwork, images: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn([images if n is None else n for n in shape], generator=generator).to(dtype)
        for shape, dtype in network.input_shapes
    )


def _program(network: GraphNetwork, inputs: tuple[Tensor, ...], file: Path) -> ExportedProgram:
    images = Dim("images", min=1, max=1 << 20)
    try:
        with _quiet(), torch.no_grad():
            shapes = tuple({0: images} for _ in inputs)
            return torch.export.export(network.as_graph_module(), inputs, dynamic_shapes=shapes)
    except Exception as error:  # the exporter may raise anything
        raise _cannot(file, error) from None


def _onnx(
    program: ExportedProgram, inputs: tuple[Tensor, ...], outputs: list[str], file: Path
) -> bytes:
    try:
        with _quiet():
            made: Any = torch.onnx.export(
                program, inputs, dynamo=True, verbose=False, output_names=outputs
            )
            content: bytes = made.model_proto.SerializeToString()
        return content
    except Exception as error:  # the exporter may raise anything
        raise _cannot(file, error) from None


def _cannot(file: Path, error: Exception) -> InputError:
    return InputError(
        "AS376",
        f"torch cannot write the network as {file.suffix} ({first_line(error)[:160]}); choose "
        "another format",
    )


def _compare(content: bytes, network: GraphNetwork) -> float:
    """Return the largest difference between onnxruntime and the network."""
    runtime: Any = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    largest = 0.0
    for images in _BATCHES:
        inputs = _noise(network, images)
        with torch.no_grad():
            expected = Inputs((network(*inputs),), {}).tensors
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        for found, value in zip(session.run(None, given), expected, strict=True):
            scale = float(value.abs().max()) or 1.0
            difference = float((torch.from_numpy(found) - value).abs().max()) / scale
            largest = max(largest, difference) if difference == difference else difference
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporters print and warn about."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with redirect_stderr(io.StringIO()):
                yield
    finally:
        logging.disable(disabled)
