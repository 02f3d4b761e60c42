"""The arrays of a capture equal those of plain hooks and plain Captum.

More than 400 lines, because all tests are about the arrays of one small capture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from attnscope.capturing.arrays import ShardArrays
from attnscope.capturing.capture import capture
from attnscope.capturing.run import capture_run
from attnscope.commands.main import main
from attnscope.data.load import Data, load_data
from attnscope.files import write_json
from attnscope.gates.hooks import edit_gates
from attnscope.networks.build import build_model
from attnscope.networks.weights import save_model
from attnscope.recording.recording import Recording, find_recordings
from attnscope.runs import Run
from attnscope.sources import Source
from attnscope.training.fitting import fit
from attnscope.training.recipes import RECIPES
from tests.making import refused


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data("digits")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build_model("resnet18", attention="cbam", width=16, reduction=4).train()


def hooked(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    found = {}
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: found.update({name: out}))
        for name, module in model.named_modules()
        if name.endswith((".channel", ".spatial"))
    ]
    with torch.no_grad():
        logits = model(x)
    for handle in handles:
        handle.remove()
    return logits, found


def test_capture_equals_hooks_and_captum_with_one_forward_per_batch(
    model: nn.Module, data: Data, tmp_path: Path
) -> None:
    part = data.test[slice(0, 40)]
    seen: list[int] = []
    handle = model.conv1.register_forward_hook(lambda m, a, out: seen.append(len(out)))
    recording = capture(
        model, part, tmp_path / "r", normalization=data.normalization, batch_size=16, progress=False
    )
    handle.remove()
    # Small forwards: four that find the gates, and one each for the class scores, the layer of
    # Grad-CAM and its gradient. Then each image once.
    assert max(seen[:-3]) <= 4
    assert seen[-3:] == [16, 16, 8]
    assert len(seen[:-3]) <= 7
    assert model.training
    assert recording.verify() == []

    model.eval()
    x = data.normalization.apply(part.images)
    logits, gates = hooked(model, x)
    np.testing.assert_allclose(recording.logits, logits.numpy(), atol=1e-5)
    assert len(recording.gates) == 16
    for gate in recording.gates:
        value = gates[gate.name]
        wanted = value[:, :, 0, 0] if gate.kind == "channel" else value[:, 0]
        assert recording.gate(gate.name).dtype == np.float32
        np.testing.assert_allclose(recording.gate(gate.name), wanted.numpy(), atol=1e-6)
    assert recording.grad_cam_layers == ["layer4"]
    for target, index in (("predicted", logits.argmax(1)), ("true", part.labels)):
        plain = LayerGradCam(model, model.layer4).attribute(x, index, relu_attributions=False)
        np.testing.assert_allclose(
            recording.grad_cam(target=target), plain[:, 0].detach().numpy(), rtol=2e-3, atol=1e-6
        )
    model.train()
    assert recording.grad_cam(target="true").min() < 0  # signed
    assert (recording.labels == part.labels.numpy()).all()
    assert (recording.predictions == logits.argmax(1).numpy()).all()
    assert list(recording.rows["path"]) == part.paths
    loss = torch.nn.functional.cross_entropy(logits, part.labels, reduction="none")
    np.testing.assert_allclose(recording.rows["loss"], loss, atol=1e-5)
    assert (recording.image(7) == part.images[7].permute(1, 2, 0).numpy()).all()
    assert recording.classes == [str(d) for d in range(10)]


@pytest.mark.parametrize(("attention", "precision"), [("se", "fp32"), ("cbam", "bf16")])
def test_pooled_inputs_equal_means_of_the_features_that_gates_multiply(
    data: Data, tmp_path: Path, attention: str, precision: str
) -> None:
    """A plain hook sees the features, because these gates compute from what they multiply."""
    torch.manual_seed(0)
    model = build_model("resnet18", attention=attention, width=16, reduction=4).eval()
    part = data.test[slice(0, 10)]
    given = {"normalization": data.normalization, "batch_size": 4, "precision": precision}
    given |= {"shard_images": 4, "progress": False}
    state = torch.random.get_rng_state()
    recording = capture(model, part, tmp_path / "pooled", pooled_inputs=True, **given)
    assert torch.equal(torch.random.get_rng_state(), state)
    plain = capture(model, part, tmp_path / "plain", **given)
    assert recording.verify() == []
    assert recording.pooled_inputs == [gate.name for gate in recording.gates]
    assert plain.pooled_inputs == []
    np.testing.assert_array_equal(recording.logits, plain.logits)
    np.testing.assert_array_equal(recording.grad_cam(), plain.grad_cam())

    got: dict[str, list[np.ndarray]] = {gate.name: [] for gate in recording.gates}
    for name, found in got.items():
        model.get_submodule(name).register_forward_pre_hook(
            lambda m, args, found=found: found.append(args[0].double().numpy())
        )
    x = data.normalization.apply(part.images)
    for start in (0, 4, 8):  # convolutions round differently in batches of another size
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            model(x[start : start + 4])
    for gate in recording.gates:
        features = np.concatenate(got[gate.name])
        wanted = features.mean((2, 3) if gate.kind == "channel" else 1)
        found = recording.pooled_input(gate.name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(recording.gate(gate.name), plain.gate(gate.name))


class Gated(nn.Module):
    """A convolution, gates that the test defines, and logits."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.body = body
        self.fc = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.conv(x)).flatten(1)[:, :6])


def of_pixels(y: Tensor) -> Tensor:
    return torch.sigmoid(y.mean((2, 3), keepdim=True))


def of_places(y: Tensor) -> Tensor:
    return torch.sigmoid(y.mean(1, keepdim=True))


def tokens(y: Tensor) -> Tensor:
    return y.flatten(2).mT


def of_paths(y: Tensor) -> Tensor:
    paths = torch.stack([y, 2 * y.flip(1)], 1)
    share = paths.mean((3, 4)).softmax(1)[..., None, None]
    return (paths * share).sum(1)


POOLED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "strip": (lambda y: y * torch.sigmoid(y.mean(3, keepdim=True)), lambda y: y.mean(3)),
    "expanded": (
        lambda y: y * of_pixels(y).expand_as(y).contiguous(),
        lambda y: y.mean((2, 3)),
    ),
    "in place": (lambda y: y.mul_(of_pixels(y)), lambda y: y.mean((2, 3))),
    "tokens": (lambda y: tokens(y) * tokens(of_places(y)), lambda y: y.mean(1)),
    "paths": (of_paths, lambda y: torch.stack([y, 2 * y.flip(1)], 1).mean((3, 4))),
    "one number per image": (
        lambda y: y * torch.sigmoid(y.mean((1, 2, 3), keepdim=True)),
        lambda y: y.mean((1, 2, 3)),
    ),
}


@pytest.mark.parametrize("kind", POOLED)
def test_pooled_inputs_have_the_axes_of_the_gate(tmp_path: Path, kind: str) -> None:
    body, by_hand = POOLED[kind]
    net, x = Gated(body), torch.rand(6, 3, 8, 10, generator=torch.Generator().manual_seed(1))
    if kind == "tokens":
        x = x[..., :8]  # tokens of a square
    images = TensorDataset(x, torch.tensor([0, 1, 0, 1, 1, 0]))
    given = {"batch_size": 4, "pooled_inputs": True, "grad_cam_layers": [], "progress": False}
    recording = capture(net, images, tmp_path / "r", **given)
    (gate,) = recording.gates
    found = recording.pooled_input(gate.name)
    assert found.shape == recording.gate(gate.name).shape
    with torch.no_grad():
        np.testing.assert_allclose(found, by_hand(net.conv(x)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("edited", [False, True])
def test_a_gate_that_multiplies_another_gate_has_no_pooled_input(
    tmp_path: Path, edited: bool
) -> None:
    def body(y: Tensor) -> Tensor:
        z = y * of_pixels(y + 1)
        return z * (of_pixels(z) * of_places(z))

    net, x = Gated(body), torch.rand(4, 3, 8, 8)
    edits = {"sigmoid#2": lambda gate, features: gate / 2} if edited else {}
    with edit_gates(net, edits):
        recording = capture(
            net,
            TensorDataset(x, torch.tensor([0, 1, 1, 0])),
            tmp_path / "r",
            pooled_inputs=True,
            progress=False,
        )
    assert [gate.name for gate in recording.gates] == ["sigmoid", "sigmoid#2", "sigmoid#3"]
    assert recording.pooled_inputs == ["sigmoid"]
    with torch.no_grad():
        np.testing.assert_allclose(
            recording.pooled_input("sigmoid"), net.conv(x).mean((2, 3)), rtol=1e-5, atol=1e-6
        )
    with refused("AS612", names=("'sigmoid#2'",)):
        recording.pooled_input("sigmoid#2")


def test_capture_of_any_network_and_data_set(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.fc((y * torch.sigmoid(y.mean((2, 3), keepdim=True))).mean((2, 3)))

    torch.manual_seed(0)
    net, x = Net(), torch.rand(6, 3, 8, 8)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    recording = capture(net, TensorDataset(x, labels), tmp_path / "r", batch_size=4, progress=False)
    with torch.no_grad():
        wanted = torch.sigmoid(net.conv(x).mean((2, 3)))
    np.testing.assert_allclose(recording.channel(recording.gates[0].name), wanted, atol=1e-6)
    assert recording.classes == ["0", "1"]
    assert (recording.image(2) == (x[2] * 255).round().byte().permute(1, 2, 0).numpy()).all()
    with refused("AS667", names=("normalization=",)):
        capture(net, TensorDataset(x * 2, labels), tmp_path / "s", progress=False)
    with refused("AS665", names=("is 2", "0 to 1")):
        capture(net, TensorDataset(x, labels + 1), tmp_path / "s", progress=False)
    with refused("AS660"):
        capture(net, TensorDataset(x[:0], labels[:0]), tmp_path / "s", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


class Kinds(nn.Module):
    """A channel gate, a gate of the features' own shape, and an activation written by hand."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.mix = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y * torch.sigmoid(y)
        y = y * torch.sigmoid(y.mean((2, 3), keepdim=True))
        self.full = torch.sigmoid(self.mix(y))
        return self.fc((y * self.full).mean((2, 3)))


def test_the_kinds_that_are_recorded_can_be_chosen(tmp_path: Path) -> None:
    net = Kinds().eval()
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = TensorDataset(x, torch.tensor([0, 1, 0, 1, 1, 0]))
    found = {
        kinds: capture(
            net, images, tmp_path / str(i), kinds=kinds, grad_cam_layers=(), progress=False
        )
        for i, kinds in enumerate([None, ("channel",), ("activation", "full")])
    }
    listed = {kinds: [gate.kind for gate in recording] for kinds, recording in found.items()}
    assert listed == {
        None: ["channel", "full"],
        ("channel",): ["channel"],
        ("activation", "full"): ["activation", "full"],
    }
    with torch.no_grad():
        net(x)
    for kinds in (None, ("activation", "full")):
        full = found[kinds].gates[-1].name
        np.testing.assert_allclose(found[kinds][full], net.full, atol=1e-6)
    for code, kind in (("AS120", "chanel"), ("AS678", "static")):
        with refused(code, names=(kind,)):
            capture(net, images, tmp_path / "r", kinds=[kind], progress=False)
    assert not (tmp_path / "r").exists()


def test_a_shard_that_needs_much_memory_is_named_with_its_largest_array(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = {
        "gate/full": np.zeros((4, 8, 5, 5), np.float32), "gate/c": np.zeros((4, 8), np.float32)
    }  # fmt: skip
    size = 10 * 4 * (8 * 25 + 8)  # of ten images
    for limit, warnings in ((size + 1, 0), (size, 1)):
        caplog.clear()
        monkeypatch.setattr("attnscope.capturing.arrays._LARGE", limit)
        arrays = ShardArrays(10)
        arrays.add(batch, np.zeros(4, np.int64))
        arrays.add(batch, np.zeros(4, np.int64))
        assert len(caplog.records) == warnings
    assert caplog.records[0].args[2] == "gate/full"


def volumetric() -> nn.Module:
    """A network whose first step is a 3D convolution over the color channels."""

    class Volumetric(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.fc = nn.Conv3d(1, 4, 3, padding=1), nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x[:, None])
            return self.fc((y * torch.sigmoid(y.mean((2, 3, 4), keepdim=True))).mean((2, 3, 4)))

    return Volumetric()


def test_a_network_with_3d_convolutions_is_captured_by_command(tmp_path: Path) -> None:
    model = f"{__name__}:volumetric"
    given = ["--model", model, "--data", "digits", "--image-size", "8", "--no-grad-cam"]
    out = ["--out", str(tmp_path / "r"), "--device", "cpu"]
    assert main(["capture", *given, "--kinds", "channel", "grouped", *out]) == 0
    recording = Recording(tmp_path / "r")
    (gate,) = recording.gates
    net, images = volumetric().eval(), load_data("digits", image_size=8).test[slice(0, 5)]
    with torch.no_grad():
        x = load_data("digits", image_size=8).normalization.apply(images.images)
        wanted = torch.sigmoid(net.conv(x[:, None]).mean((2, 3, 4)))
    np.testing.assert_allclose(recording.channel(gate.name, slice(0, 5)), wanted, atol=1e-6)


def test_several_shards_have_the_values_of_one(
    model: nn.Module, data: Data, tmp_path: Path
) -> None:
    part = data.test[slice(0, 24)]
    given = {"normalization": data.normalization, "batch_size": 8, "progress": False}
    one = capture(model, part, tmp_path / "1", **given)
    three = capture(model, part, tmp_path / "3", shard_images=7, **given)
    assert len(list((tmp_path / "3" / "shards").iterdir())) == 3
    for gate in one.gates:
        np.testing.assert_array_equal(one.gate(gate.name), three.gate(gate.name))
    np.testing.assert_array_equal(one.grad_cam(), three.grad_cam())
    np.testing.assert_array_equal(one.logits, three.logits)


def test_bf16_is_stored_as_float32_and_named_in_the_facts(
    model: nn.Module, data: Data, tmp_path: Path
) -> None:
    recording = capture(
        model,
        data.test[slice(0, 8)],
        tmp_path / "r",
        normalization=data.normalization,
        precision="bf16",
        progress=False,
    )
    assert recording.about["precision"] == "bf16"
    assert recording.gate(recording.gates[0].name).dtype == np.float32
    assert recording.verify() == []


def test_failing_forward_leaves_no_file_and_no_hook(
    model: nn.Module, data: Data, tmp_path: Path
) -> None:
    def fail(module: nn.Module, args: object) -> None:
        if len(args[0]) > 5:  # more images than the forwards on the sample have
            raise RuntimeError("a batch")

    handle = model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="a batch"):
        capture(model, data.test, tmp_path / "r", normalization=data.normalization, progress=False)
    handle.remove()
    assert list(tmp_path.iterdir()) == []
    assert model.training
    assert torch.is_grad_enabled()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_invalid_arguments_are_refused_before_the_capture(
    model: nn.Module, data: Data, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    for arguments, code, *names in (
        ({"out": tmp_path / "there"}, "AS113", tmp_path / "there"),
        ({"precision": "fp8"}, "AS670", "fp8"),
        ({"batch_size": 0}, "AS671", "batch_size", "0"),
        ({"grad_cam_layers": ["layer9"]}, "AS412", "layer9"),
        ({"classes": ["a", "b"]}, "AS661", "10 classes", "has 2"),
        ({"moments": True, "pooled_inputs": True}, "AS672"),
    ):
        given = {"out": tmp_path / "new", **arguments}
        out = given.pop("out")
        with refused(code, names):
            capture(
                model, data.test, out, normalization=data.normalization, progress=False, **given
            )
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_untrained_network_of_a_run_is_captured_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("dark", "light"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{i}.png")
    run = tmp_path / "runs" / "se"
    run.mkdir(parents=True)
    torch.manual_seed(5)
    own = build_model(attention="se", width=16, reduction=4, num_classes=2)
    save_model(own, run)
    config = {
        "data": f"folder:{tmp_path / 'images'}",
        "data_root": "data",
        "image_size": 16,
        "validation_share": 0.5,
        "seed": 5,
        "classes": ["dark", "light"],
        "normalization": {"mean": [0.5, 0.5, 0.5], "std": [0.3, 0.3, 0.3]},
    }
    write_json(run / "config.json", config)

    state = torch.random.get_rng_state()
    fresh = Source.of_run(run, untrained=True).open()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)  # the state of the global generator does not matter
    again = Source.of_run(run, untrained=True).open().model.state_dict()
    for key, value in fresh.model.state_dict().items():
        assert torch.equal(value, again[key])
        assert value.shape == own.state_dict()[key].shape
        if key.endswith("weight") and value.ndim > 1:
            assert not torch.equal(value, own.state_dict()[key])
    write_json(run / "config.json", {**config, "seed": 6})
    other = Source.of_run(run, untrained=True).open().model.conv1.weight
    assert not torch.equal(other, fresh.model.conv1.weight)
    write_json(run / "config.json", config)

    assert main(["capture", str(run), "--untrained", "--pooled-inputs", "--device", "cpu"]) == 0
    recording = Recording(run / "untrained" / "test")
    assert recording.name == "se (untrained)"
    assert recording.about["untrained"] is True
    assert recording.about["weights_sha256"] is None
    assert len(recording) == 8
    assert recording.verify() == []
    logits, gates = hooked(fresh.model, fresh.normalization.apply(fresh.images.images))
    np.testing.assert_allclose(recording.logits, logits, rtol=1e-4, atol=1e-4)
    for gate in recording.gates:
        np.testing.assert_allclose(
            recording.gate(gate.name), gates[gate.name][:, :, 0, 0], atol=1e-4
        )
    for folder in (tmp_path / "runs", run):  # it does not count as the recording of the run
        with refused("AS601", names=(folder,)):
            find_recordings(folder)
    with refused("AS601", names=(run,)):
        Recording(run)


def test_run_is_captured_with_its_own_data(data: Data, tmp_path: Path) -> None:
    torch.manual_seed(0)
    run = tmp_path / "run"
    small = dataclasses.replace(data, train=data.train[slice(0, 64)])
    config = {"data": "digits", "data_root": "data", "validation_share": 0.1}
    result = fit(
        build_model("resnet18", attention="se", width=16, reduction=4),
        small,
        RECIPES["fast"],
        run,
        epochs=1,
        config=config,
        precision="fp32",
        progress=False,
    )
    recording = capture_run(run, progress=False)
    assert recording.folder == run / "recordings" / "test"
    assert recording.name == "run"
    assert (recording.labels == data.test.labels.numpy()).all()
    accuracy = (recording.labels == recording.predictions).mean()
    assert accuracy == pytest.approx(result.test.accuracy)
    with refused("AS113", names=(run / "recordings" / "test",)):
        capture_run(run, progress=False)
    with refused("AS536", names=("all",)):
        capture_run(run, split="all", progress=False)
    with refused("AS530", names=(tmp_path / "no-run",)):
        capture_run(tmp_path / "no-run", progress=False)


def test_class_names_of_several_words_are_joined_and_numbers_refused(tmp_path: Path) -> None:
    """Classes of torchvision's ImageNet are tuples of words."""
    torch.manual_seed(0)
    model = build_model("resnet18", attention="se", width=16, reduction=4, num_classes=2)
    images = TensorDataset(torch.rand(4, 3, 16, 16), torch.arange(4) % 2)
    images.classes = [("tench", "Tinca tinca"), "owl"]
    recording = capture(model, images, tmp_path / "r", progress=False)
    assert isinstance(recording, Recording)
    assert recording.classes == ["tench, Tinca tinca", "owl"]
    with refused("AS663", names=("0.5", "classes=")):
        capture(model, images, tmp_path / "s", classes=[0.5, "owl"], progress=False)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("items", "code", "names"),
    [
        ([(Image.new("RGB", (8, 8)), 0)], "AS668", ("an image", "type Image")),
        ([(torch.rand(8), 0)], "AS668", ("an image", "(8,)")),
        ([(torch.zeros(3, 8, 8, dtype=torch.uint8), 0)], "AS668", ("uint8", "/ 255")),
        ([(torch.rand(3, 8, 8), 0, 1, 2)], "AS668", ("an item", "tuple of length 4")),
        ([(torch.rand(3, 8, 8), 0, [1])], "AS668", ("the path", "list")),
        ([{"picture": torch.rand(3, 8, 8)}], "AS668", ("'picture'", "image")),
        ([{"image": torch.rand(3, 8, 8), "x": 1}], "AS668", ("'image', 'x'",)),
        ([(torch.rand(3, 8, 8), "cat")], "AS668", ("'cat'",)),
        ([(torch.rand(3, 8, 8), y) for y in (0, None)], "AS668", ("none",)),
        ([(torch.rand(3, 8, n), 0) for n in (8, 9)], "AS669", ("(3, 8, 8)", "(3, 8, 9)")),
    ],
)
def test_items_that_are_not_images_are_refused(
    items: list[object], code: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    with refused(code, names):
        capture(nn.Identity(), items, tmp_path / "r", classes=["a"], progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["a map", "a tuple"])
def test_output_of_another_number_of_classes_is_refused(tmp_path: Path, kind: str) -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor | tuple[Tensor]:
            y = x * of_pixels(x)
            return y if kind == "a map" else (y.mean((2, 3)),)

    images = TensorDataset(torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    code, named = ("AS662", "(4, 3, 8, 8)") if kind == "a map" else ("AS661", "3 classes")
    with refused(code, names=(named, "--output")):
        capture(Other(), images, tmp_path / "r", classes=["a"], progress=False)


def test_arrays_of_different_shapes_in_two_batches_are_refused() -> None:
    filled = ShardArrays(4)
    filled.add({"images": np.zeros((2, 8, 8, 3), np.uint8)}, np.zeros(2, np.int64))
    with refused("AS666", names=("images", "(8, 9, 3)", "(8, 8, 3)")):
        filled.add({"images": np.zeros((2, 8, 9, 3), np.uint8)}, np.zeros(2, np.int64))


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Diverged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate = nn.Sequential(nn.Linear(3, 3), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            gated = x * self.gate(x.mean((2, 3)))[:, :, None, None]
            return gated.mean((2, 3)) / (x.amax((1, 2, 3)) < 0.9)[:, None]

    images = 0.5 * torch.rand(6, 3, 8, 8)
    images[4] = 1.0
    data = TensorDataset(images, torch.zeros(6, dtype=torch.int64))
    with refused("AS664", names=("image 4;",)):
        capture(Diverged(), data, tmp_path / "r", grad_cam_layers=(), progress=False)


def test_changed_training_images_are_refused_for_validation_only(tmp_path: Path) -> None:
    """With one more training image the split differs: training images would be in validation."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for part, count in (("train", 12), ("test", 3)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i:02d}.png")
    run = tmp_path / "run"
    options = ["--attention", "se", "--width", "16", "--reduction", "4", "--epochs", "1"]
    assert main(["train", "--data", f"folder:{root}", "--out", str(run), *options]) == 0
    Run(run).split("validation")
    Image.new("RGB", (16, 16)).save(root / "train" / "a" / "new.png")
    with refused("AS538", names=(f"folder:{root}", "1 image was added (train/a/new.png)")):
        Run(run).split("validation")
    assert len(Run(run).split("test")) == 6


def test_a_data_set_without_items_is_refused(tmp_path: Path) -> None:
    data = TensorDataset(torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
    with refused("AS674", names=("DataLoader",)):
        capture(nn.Identity(), DataLoader(data), tmp_path / "r", progress=False)  # type: ignore[arg-type]
    assert not (tmp_path / "r").exists()
