"""Exported files give what the network gives."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attnscope import find_gates, watch_gates
from attnscope.commands.main import main
from attnscope.gates import export_gates
from attnscope.networks.exporting import export_file
from attnscope.networks.graph_fold import fold_graph
from tests.making import refused, refused_command


class Net(nn.Module):
    """A channel gate and a spatial gate."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.squeeze, self.where = nn.Linear(8, 8), nn.Conv2d(8, 1, 3, padding=1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        x = x * self.squeeze(x.mean((2, 3))).sigmoid()[:, :, None, None]
        x = x * self.where(x).sigmoid()
        return self.head(x.mean((2, 3)))


TARGET = "tests.networks.test_exporting:Net"


def images(count: int, size: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def needs_onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


def run_onnx(file: Path, x: Tensor) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (name,) = (each.name for each in session.get_inputs())
    return [torch.from_numpy(value) for value in session.run(None, {name: x.numpy()})]


def test_a_pt2_file_with_gates(tmp_path: Path) -> None:
    model = Net().eval()
    written = export_file(export_gates(model, images(2)), tmp_path / "net.pt2", gates=True)
    assert written.outputs == ["output", "gate/sigmoid", "gate/sigmoid#2"]
    program = torch.export.load(written.file)  # a file that this test has written itself
    with torch.no_grad(), watch_gates(model) as gates:
        output = model(images(5))
        found, values = program.module()(images(5))
    assert torch.equal(found, output)
    assert list(values) == list(gates)
    for name, value in gates.items():
        assert torch.equal(values[name].reshape(value.shape), value)


def test_an_onnx_file_with_gates(tmp_path: Path) -> None:
    needs_onnx()
    model = Net().eval()
    written = export_file(export_gates(model, images(2)), tmp_path / "net.onnx", gates=True)
    assert written.outputs == ["output", "gate/sigmoid", "gate/sigmoid#2"]
    assert written.difference is not None
    for count in (1, 4):
        with torch.no_grad(), watch_gates(model) as gates:
            output = model(images(count))
        found = run_onnx(written.file, images(count))
        torch.testing.assert_close(found[0], output, rtol=1e-4, atol=1e-5)
        for value, expected in zip(found[1:], gates.values(), strict=True):
            torch.testing.assert_close(value.reshape(expected.shape), expected)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_050"])
def test_a_folded_network_of_timm_as_onnx(name: str, tmp_path: Path) -> None:
    needs_onnx()
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    x = images(3, 64)
    gates = find_gates(model, x)
    with torch.no_grad(), watch_gates(model, gates) as values:
        model(x)
    constants = {name: torch.rand(value.shape[1:]) + 0.2 for name, value in values.items()}
    fold = fold_graph(export_gates(model, x, gates), constants)
    written = export_file(fold.network, tmp_path / "net.onnx")
    with torch.no_grad():
        expected = fold.network(x)
    (found,) = run_onnx(written.file, x)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


def test_the_command_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "net.pt2"
    arguments = ["export", TARGET, "--out", str(file), "--image-size", "8"]
    assert main([*arguments, "--with-gates"]) == 0
    assert "output, gate/sigmoid, gate/sigmoid#2" in capsys.readouterr().out
    program = torch.export.load(file)
    with torch.no_grad():
        assert torch.equal(program.module()(images(3))[0], Net().eval()(images(3)))
    refused_command(capsys, "AS113", *arguments, names=(file,))


def half() -> nn.Module:
    return Net().bfloat16()


def test_the_command_writes_a_network_of_another_number_type(tmp_path: Path) -> None:
    arguments = ["export", f"{__name__}:half", "--image-size", "8"]
    assert main([*arguments, "--out", str(tmp_path / "net.pt2")]) == 0
    program = torch.export.load(tmp_path / "net.pt2")
    assert program.module()(images(3).bfloat16()).dtype == torch.bfloat16


def test_what_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = export_gates(Net().eval(), images(2))
    with refused("AS374", names=("net.pth", ".onnx")):
        export_file(network, tmp_path / "net.pth")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with refused("AS375", names=("onnx", "attnscope[onnx]")):
        export_file(network, tmp_path / "net.onnx")
    arguments = ("export", TARGET, "--out", tmp_path / "net.pt2", "--image-size", "8")
    refused_command(capsys, "AS339", *arguments, "--channels", "1", names=("--channels 3",))
    refused_command(capsys, "AS329", "export", "timm:resnet18", "--out", tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []
