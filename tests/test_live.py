"""The network of a recording, which answers at once: against the recording and plain hooks."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnscope.commands.main import main
from attnscope.data.uploads import decode_upload
from attnscope.live import Channels, LiveNetwork, Mean, Neutral, OfImage, Values
from attnscope.networks.build import build_model
from attnscope.recording.recording import Recording
from attnscope.runs import Run
from attnscope.sources import Source
from tests.folding.runs import make_run, untrained, write_digits
from tests.making import refused

CHANNEL, SPATIAL = "layer2.0.attention.channel", "layer2.0.attention.spatial"
ROWS = [3, 77, 41, 3]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A captured run whose folder is not changed by the tests."""
    folder = tmp_path_factory.mktemp("runs")
    made = make_run(folder / "cbam", write_digits(folder / "digits"), untrained("cbam"), "layer")
    assert main(["capture", str(made)]) == 0
    return Run(made)


@pytest.fixture(scope="module")
def network(run: Run) -> LiveNetwork:
    return LiveNetwork.open(run.recording())


@contextmanager
def replaced(model: nn.Module, path: str, change: object) -> Iterator[None]:
    """Let a module of the network return something else, by a plain hook."""
    module = dict(model.named_modules())[path]
    handle = module.register_forward_hook(lambda m, a, output: change(output))  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def plain_inputs(run: Run, rows: list[int]) -> Tensor:
    return run.normalization.apply(run.split("test").images[rows])


def test_without_edits_logits_gates_and_grad_cam_are_the_recorded_ones(
    run: Run, network: LiveNetwork
) -> None:
    recording = run.recording()
    torch.testing.assert_close(network.images(ROWS), plain_inputs(run, ROWS))
    np.testing.assert_allclose(network.scores(ROWS), recording.logits[ROWS], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(recording.logits_of(ROWS), recording.logits[ROWS])
    every = np.arange(len(recording))  # more than one batch
    np.testing.assert_allclose(network.scores(every), recording.logits, rtol=1e-3, atol=1e-3)
    found = network.gates(ROWS)
    assert list(found) == [gate.name for gate in recording.gates]
    for name, values in found.items():
        np.testing.assert_allclose(values, recording.gate(name, ROWS), atol=1e-5)
    for target, classes in (("predicted", recording.predictions), ("true", recording.labels)):
        maps = network.attributions(ROWS, classes[ROWS])
        wanted = recording.grad_cam(target=target, rows=ROWS)
        np.testing.assert_allclose(maps, wanted, rtol=2e-2, atol=2e-3 * np.abs(wanted).max())


def test_each_edit_gives_the_logits_of_a_plain_hook_on_the_module_of_the_gate(
    run: Run, network: LiveNetwork
) -> None:
    recording, model, x = run.recording(), run.model(), plain_inputs(run, ROWS)

    def hooked(path: str, change: object) -> np.ndarray:
        with torch.no_grad(), replaced(model, path, change):
            return model(x).numpy()

    mean = torch.from_numpy(recording.gate(CHANNEL).mean(0))[None, :, None, None]
    other = torch.from_numpy(recording.gate(SPATIAL, [9]))[:, None]
    given = np.random.default_rng(0).random((len(ROWS), mean.shape[1])).astype(np.float32)

    def dragged(gate: Tensor) -> Tensor:
        gate = gate.clone()
        gate[:, 2], gate[:, 5] = 0.25, 1.0
        return gate

    own = network.scores(ROWS)
    for path, edit, change in (
        (CHANNEL, Neutral(), torch.ones_like),
        (CHANNEL, Mean(), lambda gate: mean.expand_as(gate)),
        (SPATIAL, OfImage(9), lambda gate: other.expand_as(gate)),
        (CHANNEL, Channels({2: 0.25, 5: 1.0}), dragged),
        (CHANNEL, Values(given[0]), lambda g: torch.from_numpy(given[:1])[..., None, None] + 0 * g),
        (CHANNEL, Values(given), lambda g: torch.from_numpy(given)[..., None, None]),
    ):
        found = network.scores(ROWS, {path: edit})
        np.testing.assert_allclose(found, hooked(path, change), rtol=1e-4, atol=1e-4)
        assert np.abs(found - own).max() > 1e-3, edit
    np.testing.assert_array_equal(network.scores(ROWS), own)
    np.testing.assert_array_equal(network.scores(network.images(ROWS)), own)


def test_the_neutral_value_of_a_gate_that_is_added_is_zero(tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits")
    own = ["--model", f"{__name__}:added", "--data", f"folder:{digits}", "--image-size", "16"]
    assert main(["capture", *own, "--out", str(tmp_path / "own")]) == 0
    live = LiveNetwork.open(Recording(tmp_path / "own"))
    (gate,) = live.recording.gates
    model, x = added(), live.images(ROWS)
    with torch.no_grad():
        plain = model.fc(model.conv(x).mean((2, 3))).numpy()
    found = live.scores(ROWS, {gate.name: Neutral()})
    np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-4)
    assert np.abs(found - live.scores(ROWS)).max() > 1e-3


class Added(nn.Module):
    """Adds to the features what its gate lets through."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 4), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x + x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


def added() -> Added:
    torch.manual_seed(0)
    return Added().eval()


def test_values_of_each_image_stay_with_it_over_several_batches(network: LiveNetwork) -> None:
    rows = np.arange(40)
    values = np.random.default_rng(1).random((40, *network.mean_gate(CHANNEL).shape))
    together = network.scores(rows, {CHANNEL: Values(values)})
    for row in (0, 31, 32, 39):
        alone = network.scores([row], {CHANNEL: Values(values[row])})
        np.testing.assert_allclose(together[row], alone[0], rtol=1e-4, atol=1e-4)


def test_features_are_those_before_and_after_the_gate(run: Run, network: LiveNetwork) -> None:
    """The spatial gate of CBAM pools the features after the channel gate."""
    recording = run.recording()
    before, after = network.features(ROWS, CHANNEL, 5)
    gates = recording.gate(CHANNEL, ROWS)[:, 5]
    np.testing.assert_allclose(after, before * gates[:, None, None], rtol=1e-4, atol=1e-6)
    seen: list[Tensor] = []
    model = run.model()
    module = dict(model.named_modules())[SPATIAL]
    handle = module.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    with torch.no_grad():
        model(plain_inputs(run, ROWS))
    handle.remove()
    np.testing.assert_allclose(after, seen[0][:, 5].numpy(), rtol=1e-3, atol=1e-5)
    with refused("AS422", names=(CHANNEL, 4000)):
        network.features(ROWS, CHANNEL, 4000)
    with refused("AS608"):
        network.features(ROWS, "nothing", 0)


def test_edits_that_do_not_fit_are_refused(network: LiveNetwork) -> None:
    count = len(network.mean_gate(CHANNEL))
    for code, edit in (
        ("AS422", Channels({count: 0.5})),
        ("AS422", Channels({-1: 0.5})),
        ("AS423", Channels({0: float("nan")})),
        ("AS403", Values(np.zeros(count + 1))),
        ("AS403", Values(np.zeros((3, count)))),
        ("AS423", Values(np.full(count, np.inf))),
    ):
        with refused(code, names=(CHANNEL,)):
            network.scores(ROWS, {CHANNEL: edit})
    with refused("AS422", names=(SPATIAL,)):
        network.scores(ROWS, {SPATIAL: Channels({0: 1.0})})
    with refused("AS608", names=("nothing",)):
        network.scores(ROWS, {"nothing": Neutral()})
    for rows in ([-1], [len(network.recording)]):
        with pytest.raises(IndexError):
            network.images(rows)
        with pytest.raises(IndexError):
            network.scores([0], {CHANNEL: OfImage(rows[0])})


def test_another_image_is_prepared_as_the_recorded_ones(run: Run, network: LiveNetwork) -> None:
    known = network.preparation
    assert (known.size, known.resized, known.channels) == (16, 16, 3)
    assert known.normalization == run.normalization
    pixels = run.split("test").images[7]
    torch.testing.assert_close(network.prepare(pixels), plain_inputs(run, [7]))


def test_another_image_of_16_bits_is_scaled_as_the_recorded_ones(tmp_path: Path) -> None:
    digits = write_digits(tmp_path / "digits", deep=True)
    made = make_run(tmp_path / "se", digits, untrained("se"), "layer")
    own = ["--model", f"{__name__}:bright", "--data", f"folder:{digits}", "--image-size", "16"]
    assert main(["capture", str(made)]) == 0
    assert main(["capture", *own, "--out", str(tmp_path / "own")]) == 0
    for recording in (Run(made).recording(), Recording(tmp_path / "own")):
        live, path = LiveNetwork.open(recording), recording.rows["path"][5]
        known = live.preparation
        assert known.white == 4095
        sent = decode_upload((digits / path).read_bytes(), known.size, white=known.white)
        torch.testing.assert_close(live.prepare(sent.pixels), live.images([5]))
        source = recording.source()
        assert Source.from_dict(source.to_dict()) == source
        earlier = {key: value for key, value in source.to_dict().items() if key != "white"}
        assert Source.from_dict(earlier).white is None
    assert "white" not in replace(source, white=None).to_dict(), "as earlier versions wrote"


def bright() -> nn.Module:
    """A network with a gate, which has no run."""
    torch.manual_seed(0)
    return build_model("resnet18", attention="se", width=16)


def test_threads_get_their_own_answers(network: LiveNetwork) -> None:
    wanted = {row: network.scores([row], {CHANNEL: OfImage(row)}) for row in range(6)}
    found: dict[int, np.ndarray] = {}

    def ask(row: int) -> None:
        for _ in range(5):
            found[row] = network.scores([row], {CHANNEL: OfImage(row)})

    threads = [threading.Thread(target=ask, args=(row,)) for row in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row, logits in wanted.items():
        np.testing.assert_array_equal(found[row], logits)


def test_a_network_or_images_that_are_gone_or_have_changed_are_refused(
    run: Run, tmp_path: Path
) -> None:
    copy = Run(shutil.copytree(run.folder, tmp_path / "copy"))
    config = json.loads((copy.folder / "config.json").read_text())
    images = shutil.copytree(config["data"].removeprefix("folder:"), tmp_path / "images")
    config["data"] = f"folder:{images}"
    (copy.folder / "config.json").write_text(json.dumps(config))
    network = LiveNetwork.open(copy.recording())
    sorted(images.glob("test/0/*.png"))[0].unlink()
    with refused("AS643", names=(images,)):
        network.images([0])
    weights = copy.weights_file.read_bytes()
    copy.weights_file.write_bytes(weights[:-4] + bytes(4))
    with refused("AS331"):
        LiveNetwork.open(copy.recording())
    copy.weights_file.unlink()
    with refused("AS330"):
        LiveNetwork.open(copy.recording())


def test_a_recording_that_does_not_know_its_network_is_refused(
    write_recording: object,
) -> None:
    recording: Recording = write_recording(labels=[0, 1], gates={"a": [[0.1], [0.2]]})  # type: ignore[operator]
    with refused("AS640", names=(recording.folder,)):
        LiveNetwork.open(recording)
