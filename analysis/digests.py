"""Record a SHA-256 of everything that attnscope computes, to check a change of the code.

    python analysis/digests.py record before.json --package OLD/src --images data/cifar10-jpeg
    python analysis/digests.py record after.json --images data/cifar10-jpeg
    python analysis/digests.py compare before.json after.json

Digests depend on the machine and on the versions of its libraries, so record both files on one
machine. The script compares the weights after a short float32 run of each recipe, every array and
row of several recordings, every table of `attnscope.statistics`, interventions, folded networks,
the gates found in some networks of timm, and the pixels and caption of each figure.

It has more than 400 lines because it calls every command and every statistic, with arguments.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro

_RECIPES = {
    "fast": [],
    "staged": [],
    "cnn": [],
    "finetune": ["--image-size", "64", "--batch-size", "64", "--attention", "se"],
    "features": ["--image-size", "64", "--batch-size", "64"],
    "se-sgd": [],
}
_NETWORKS = ("seresnet18", "efficientnet_b0", "skresnet18", "resnest14d", "ecaresnet26t")
_SPEED = re.compile(
    r"[\d.,]+ minutes at [\d.,]+ images per second|\d\.\d+\.\d+(\+\w+)?|[0-9a-f]{64}"
)
"""Parts of a caption that differ from run to run: speeds, versions and hashes."""
_PERMUTATIONS = 50
_TRAIN_IMAGES, _TEST_IMAGES = 20, 10
"""Number of images of each of the ten classes: 300 images in total."""
_VOLATILE = frozenset(
    """
    seconds seconds_per_step images_per_second torch attnscope data data_root device
    speed threads run weights_sha256 folded_from source id format
    """.split()  # noqa: SIM905
)
"""Keys of JSON files and columns of tables that differ from run to run, or contain paths."""
_OWN_NETWORK = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Linear(channels, channels)
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        x = x * self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None]
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(pooled))

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), Scale(8), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        Scale(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""


@dataclass(frozen=True)
class Record:
    """Write the digests of everything that one copy of the package computes."""

    out: Annotated[Path, tyro.conf.Positional]
    """JSON file to write."""
    package: Path = Path(__file__).parents[1] / "src"
    """Folder that contains the package ``attnscope``."""
    images: Path | None = None
    """Image folder with train/CLASS/ and test/CLASS/, of which 300 images are used. Default: the
    digests that need it are left out."""

    def __call__(self) -> int:
        with tempfile.TemporaryDirectory() as work:
            if self.images is not None:
                copy_some(self.images, Path(work) / "images")
            environment = {**os.environ, "PYTHONPATH": str(self.package.resolve())}
            began = time.perf_counter()
            worker = [
                sys.executable,
                str(Path(__file__).resolve()),
                "work",
                str(self.out.resolve()),
            ]
            code = subprocess.run(worker, cwd=work, env=environment, check=False).returncode
            if code == 0:
                print(f"{self.out}, {time.perf_counter() - began:.0f} s")
            return code


@dataclass(frozen=True)
class Compare:
    """Print which digests of two files differ; the exit code is 1 if any do."""

    before: Annotated[Path, tyro.conf.Positional]
    after: Annotated[Path, tyro.conf.Positional]

    def __call__(self) -> int:
        before, after = (json.loads(file.read_text()) for file in (self.before, self.after))
        subjects = sorted({name.partition("/")[0] for name in {*before, *after}})
        for subject in subjects:
            names = sorted(n for n in {*before, *after} if n.partition("/")[0] == subject)
            equal = sum(before.get(name) == after.get(name) for name in names)
            print(f"{subject:12} {equal:5} of {len(names):5} equal")
        different = sorted(n for n in {*before, *after} if before.get(n) != after.get(n))
        for name in different:
            change = "differs" if name in before and name in after else "is new"
            print(f"  {name} {'is missing' if name not in after else change}")
        return int(bool(different))


@dataclass(frozen=True)
class Work:
    """Compute the digests with the package on the Python path, in the working directory."""

    out: Annotated[Path, tyro.conf.Positional]

    def __call__(self) -> int:
        digests: dict[str, str] = {}
        for stage in (recipes, jpeg_copy, own_network, found_gates, dashboard_pages):
            began = time.perf_counter()
            count = len(digests)
            for name, value in stage():
                assert name not in digests, name
                digests[name] = value
            seconds = time.perf_counter() - began
            print(f"{stage.__name__}: {len(digests) - count} digests, {seconds:.0f} s", flush=True)
        self.out.write_text(json.dumps(digests, indent=1, sort_keys=True) + "\n")
        return 0


def copy_some(images: Path, to: Path) -> None:
    """Copy the first images of each class: 20 of train/ and 10 of test/."""
    for split, count in (("train", _TRAIN_IMAGES), ("test", _TEST_IMAGES)):
        for folder in sorted((images / split).iterdir()):
            (to / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, to / split / folder.name)


def recipes() -> Iterator[tuple[str, str]]:
    """Yield the weights after one epoch of each recipe on digits, in float32."""
    for name, options in _RECIPES.items():
        run = Path("runs") / name
        width = [] if name == "cnn" else ["--width", "16"]
        attnscope(
            *("train", "--recipe", name, "--weights", "none", "--epochs", "1", "--seed", "1"),
            *("--precision", "fp32", "--device", "cpu", "--out", run, *width, *options),
        )
        yield from tensors(f"weights/{name}", run / "model.safetensors")
        for file in ("config.json", "result.json", "metrics.csv", "model.json"):
            yield f"runs/{name}/{file}", of_file(run / file)


def jpeg_copy() -> Iterator[tuple[str, str]]:
    """Yield everything that is computed for runs on 300 images, with interventions."""
    if not Path("images").is_dir():
        return
    runs = {name: Path("runs") / name for name in ("cbam-0", "cbam-1", "se-0", "se-1")}
    for name, run in runs.items():
        attention, seed = name.split("-")
        attnscope(
            *("train", "--data", "folder:images", "--attention", attention, "--seed", seed),
            *("--width", "16", "--epochs", "3", "--batch-size", "20", "--precision", "fp32"),
            *("--device", "cpu", "--out", run),
        )
        attnscope("capture", run, "--device", "cpu", "--pooled-inputs", "--shard-images", "40")
        yield from recording_digests(name, run / "recordings" / "test")
    run = runs["cbam-0"]
    attnscope("capture", run, "--device", "cpu", "--untrained")
    yield from recording_digests("cbam-0-untrained", run / "untrained" / "test")
    attnscope("capture", run, "--device", "cpu", "--moments", "--batch-size", "50")
    yield from recording_digests("cbam-0-moments", run / "moments" / "test")
    for name in ("cbam-0", "se-0"):
        # Versions differ in their defaults.
        every = ("decode", "replace", "ablate", "erase", "randomize")
        seeds = ("--seed-runs", runs[name[:-1] + "1"])
        attnscope("intervene", runs[name], "--images", "40", *seeds, "--experiments", *every)
        folder = runs[name] / "interventions" / "test"
        for file in sorted(folder.iterdir()):
            yield f"outcomes/{name}/{file.name}", of_file(file)
    yield from frames(*(runs[name] for name in ("cbam-0", "cbam-1", "se-0", "se-1")))
    for name, options in (
        ("cbam-map", ["--tolerance", "40"]),
        ("cbam-number", ["--spatial", "number", "--tolerance", "40"]),
    ):
        out = Path("folded") / name
        attnscope("fold", run, "--out", out, "--batch-size", "50", *options)
        yield from tensors(f"fold/{name}", out / "model.safetensors")
        yield f"fold/{name}/fold.json", of_file(out / "fold.json")
    for name in ("cbam-0", "se-0"):
        attnscope("figures", runs[name])
        yield from pixels(f"figures/{name}", runs[name] / "figures")
    attnscope("compare", runs["se-0"], run, "--out", "comparison")
    yield from pixels("figures/comparison", Path("comparison"))
    attnscope("compare", *(runs[n] for n in ("se-0", "se-1", "cbam-0", "cbam-1")), "--out", "seeds")
    yield from pixels("figures/seeds", Path("seeds"))
    attnscope("report", *runs.values(), "--out", "report.html")
    page = Path("report.html").read_text(encoding="utf-8")
    # Figures are compared above. Titles, captions and tables remain.
    page = re.sub(r"base64,[^\"]+", "", page).replace(str(Path.cwd()), "")
    page = _SPEED.sub("", page)
    yield "report/page", of_bytes(page.encode())
    for number, line in enumerate(re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)):
        yield f"captions/{number:02d}", of_bytes(line.encode())


def own_network() -> Iterator[tuple[str, str]]:
    """Yield the recording of a network that the package did not build."""
    Path("own.py").write_text(_OWN_NETWORK)
    data = "folder:images" if Path("images").is_dir() else "digits"
    attnscope("capture", "--model", "own:network", "--data", data, "--out", "own-recording")
    yield from recording_digests("own", Path("own-recording"))
    yield (
        "inspect/own",
        of_text(attnscope("inspect", "own:network", "--image-size", "32", "--json")),
    )


def found_gates() -> Iterator[tuple[str, str]]:
    """Yield the gates of some networks of timm, and why other activations are not gates."""
    makers = (
        f"def {name}():\n    torch.manual_seed(0)\n    return timm.create_model('{name}')\n"
        for name in _NETWORKS
    )
    Path("theirs.py").write_text("import timm, torch\n" + "".join(makers))
    for name in _NETWORKS:
        found = attnscope(
            "inspect", f"theirs:{name}", "--image-size", "64", "--json", "--all-kinds"
        )
        yield f"inspect/{name}", of_text(found)


def dashboard_pages() -> Iterator[tuple[str, str]]:
    """Yield the titles of the dashboard's pages."""
    import attnscope

    root = Path(attnscope.__file__).parents[2]
    app = (root / "streamlit_app" / "app.py").read_text(encoding="utf-8")
    for title in re.findall(r"title=\"([^\"]+)\"", app):
        yield f"pages/{title}", ""


def attnscope(*arguments: object) -> str:
    """Run one command of the package, and return its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "attnscope", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"attnscope {' '.join(map(str, arguments))}\n{done.stderr[-2000:]}")
    return done.stdout


def recording_digests(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield every array of every shard, the rows, and the gates and layers of the manifest."""
    for shard in sorted((folder / "shards").iterdir()):
        yield from tensors(f"arrays/{name}/{shard.name}", shard / "arrays.safetensors")
        rows = pd.read_parquet(shard / "rows.parquet")
        yield f"rows/{name}/{shard.name}", of_frame(rows)
    manifest = json.loads((folder / "manifest.json").read_text())
    for key in ("classes", "gates", "grad_cam_layers", "pooled_inputs", "count", "kind"):
        yield f"manifests/{name}/{key}", of_text(json.dumps(manifest.get(key), sort_keys=True))


def frames(cbam_0: Path, cbam_1: Path, se_0: Path, se_1: Path) -> Iterator[tuple[str, str]]:
    """Yield the result of every function of `attnscope.statistics`, with usual arguments."""
    from attnscope import Moments, Recording, statistics

    a, a2, b, b2 = (Recording(run) for run in (cbam_0, cbam_1, se_0, se_1))
    untrained = Recording(cbam_0 / "untrained" / "test")
    moments = Moments(cbam_0)
    channel, spatial = ([g.name for g in a.gates if g.kind == k] for k in ("channel", "spatial"))
    outcomes = pd.read_parquet(cbam_0 / "interventions" / "test" / "replacement.parquet")
    n = _PERMUTATIONS
    calls: dict[str, list[Callable[[], Any]]] = {
        "agreement_summary": [lambda: statistics.agreement_summary(a, resamples=n)],
        "between_class_variance": [
            lambda: statistics.between_class_variance(a, permutations=n),
            lambda: statistics.between_class_variance(b, permutations=n),
        ],
        "calibration": [lambda: statistics.calibration(a)],
        "calibration_error": [lambda: statistics.calibration_error(a)],
        "channel_effects": [partial(statistics.channel_effects, a, g) for g in channel],
        "channel_states": [partial(statistics.channel_states, a, g) for g in channel[:2]],
        "class_distances": [partial(statistics.class_distances, a, g) for g in channel],
        "class_mean_grad_cam": [
            lambda: statistics.class_mean_grad_cam(a),
            lambda: statistics.class_mean_grad_cam(moments),
        ],
        "class_mean_maps": [
            *(partial(statistics.class_mean_maps, a, g) for g in spatial),
            lambda: statistics.class_mean_maps(moments, spatial[0]),
        ],
        "class_metrics": [lambda: statistics.class_metrics(a)],
        "class_profiles": [
            *(partial(statistics.class_profiles, a, g) for g in channel),
            lambda: statistics.class_profiles(moments, channel[-1]),
        ],
        "class_selectivity": [
            partial(statistics.class_selectivity, a, g, permutations=n) for g in channel[-2:]
        ],
        "compare_accuracy": [lambda: statistics.compare_accuracy(b, a)],
        "compare_class_order": [lambda: statistics.compare_class_order(b, a)],
        "compare_gates": [lambda: statistics.compare_gates(a, a2)],
        "compare_geometry": [
            lambda: statistics.compare_geometry(a, b, permutations=n, resamples=n)
        ],
        "compare_grad_cam": [lambda: statistics.compare_grad_cam(b, a)],
        "compare_profiles": [lambda: statistics.compare_profiles(b, a)],
        "compare_seeds": [lambda: statistics.compare_seeds([a, a2], [b, b2])],
        "confusion_matrix": [lambda: statistics.confusion_matrix(a)],
        "decode_gates": [
            lambda: statistics.decode_gates(
                a, untrained, permutations=n, probe_permutations=n, seed=0
            )
        ],
        "disagreements": [lambda: statistics.disagreements(a, b)],
        "edit_contrast": [lambda: statistics.edit_contrast(outcomes, "mean", "own")],
        "error_position_summary": [lambda: statistics.error_position_summary(a, resamples=n)],
        "error_positions": [
            partial(statistics.error_positions, a, g) for g in (channel[-1], spatial[-1])
        ],
        "gate_logits": [partial(statistics.gate_logits, a, g) for g in (channel[-1], spatial[-1])],
        "gate_profiles": [
            lambda: statistics.gate_profiles(a),
            lambda: statistics.gate_profiles(moments),
        ],
        "gate_state": [lambda: statistics.gate_state(a), lambda: statistics.gate_state(b)],
        "gate_usage": [
            lambda: statistics.gate_usage(
                statistics.decode_gates(a, permutations=n, probe_permutations=n), outcomes
            )
        ],
        "group_by_kind": [
            lambda: {k: [r.name for r in v] for k, v in statistics.group_by_kind([a, b]).items()}
        ],
        "image_states": [partial(statistics.image_states, a, g) for g in channel[:1]],
        "joint_usage": [lambda: statistics.joint_usage(outcomes)],
        "linear_probe": [
            lambda: statistics.linear_probe(a, permutations=n),
            lambda: statistics.linear_probe(a, permutations=n, of="pooled_input"),
        ],
        "map_agreement": [partial(statistics.map_agreement, a, g) for g in spatial],
        "misclassified": [lambda: statistics.misclassified(a)],
        "permuted_channel_effects": [
            partial(statistics.permuted_channel_effects, a, g, permutations=n) for g in channel[-2:]
        ],
        "replacement_effects": [lambda: statistics.replacement_effects(outcomes, n)],
        "state_sweep": [lambda: statistics.state_sweep(a)],
        "usage_over_seeds": [
            lambda: statistics.usage_over_seeds(
                [
                    statistics.gate_usage(
                        statistics.decode_gates(r, permutations=n, probe_permutations=n), outcomes
                    )
                    for r in (a, a)
                ]
            )
        ],
    }
    for name, variants in calls.items():
        for number, call in enumerate(variants):
            yield f"statistics/{name}/{number}", of_value(call())
    # A statistic that this script does not call is not left out silently.
    known = set(statistics.__all__) - {"STATISTICS", "statistic"}  # the registry
    for name in sorted(known - calls.keys()):
        yield f"statistics/{name}", "not called by this script"


def pixels(name: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the pixels of each PNG file of a folder; for a PDF file only its name."""
    from PIL import Image

    for file in sorted(folder.iterdir()):
        if file.suffix == ".png":
            with Image.open(file) as image:
                yield f"{name}/{file.name}", of_bytes(np.asarray(image).tobytes())
        else:
            yield f"{name}/{file.name}", ""


def tensors(name: str, file: Path) -> Iterator[tuple[str, str]]:
    """Yield each tensor of a safetensors file, with its type and shape."""
    from safetensors.numpy import load_file

    for key, value in sorted(load_file(file).items()):
        head = f"{value.dtype} {value.shape} ".encode()
        yield f"{name}/{key}", of_bytes(head + np.ascontiguousarray(value).tobytes())


def of_file(file: Path) -> str:
    """Return the digest of a file; parts of tables that differ from run to run are left out."""
    if file.suffix == ".json":
        return of_value(json.loads(file.read_text(encoding="utf-8")))
    if file.suffix == ".csv":
        return of_frame(pd.read_csv(file))
    if file.suffix == ".parquet":
        return of_frame(pd.read_parquet(file))
    return of_bytes(file.read_bytes())


def of_value(value: Any) -> str:
    """Return the digest of a table, an array, a JSON value, or the first item of a tuple."""
    if isinstance(value, tuple):
        return of_value(value[0])
    if isinstance(value, pd.DataFrame):
        return of_frame(value)
    if isinstance(value, np.ndarray):
        return of_bytes(f"{value.dtype} {value.shape} ".encode() + value.tobytes())
    return of_text(json.dumps(_stable(value), sort_keys=True))


def of_frame(frame: pd.DataFrame) -> str:
    """Return the digest of columns, index and values, to the last digit."""
    stable = frame.drop(columns=[c for c in frame.columns if c in _VOLATILE])
    return of_text(stable.to_csv(float_format="%.17g"))


def of_text(text: str) -> str:
    """Return the digest of a text in UTF-8."""
    return of_bytes(text.encode())


def of_bytes(content: bytes) -> str:
    """Return the first sixteen hexadecimal digits of the SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stable(item) for key, item in value.items() if key not in _VOLATILE}
    if isinstance(value, list):
        return [_stable(item) for item in value]
    return value


if __name__ == "__main__":
    sys.exit(
        tyro.extras.subcommand_cli_from_dict(
            {"record": Record, "compare": Compare, "work": Work}, description=__doc__
        )()
    )
