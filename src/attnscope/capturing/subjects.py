"""A network and the images on which it is captured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attnscope.capturing.capture import capture
from attnscope.capturing.fingerprints import hash_file
from attnscope.data.images import LabelledImages, Normalization
from attnscope.data.load import Data, load_data, load_test_part
from attnscope.errors import InputError
from attnscope.files import read_json
from attnscope.networks.build import ModelConfig, build_model
from attnscope.networks.targets import load_target
from attnscope.networks.weights import load_model, load_weights
from attnscope.recording.recording import Recording

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Subject:
    """A network, and the images on which it is to be captured."""

    model: nn.Module
    images: LabelledImages
    normalization: Normalization
    about: dict[str, Any]
    """What the recording will tell of itself."""


def load_run(
    run: Path,
    part: str = "test",
    data_root: Path | None = None,
    untrained: bool = False,
    skip_unreadable: bool = False,
) -> Subject:
    """A run's network, and a part of the data that it was trained with.

    Args:
        run: a run folder whose training ended.
        part: ``train`` (without augmentation), ``validation`` or ``test``.
        data_root: where torchvision's sets lie now; default where they lay at the training.
        untrained: the run's architecture with fresh random weights, neither trained nor pretrained,
            instead of its network: the same ones for each call, from the run's seed. In eval mode
            its BatchNorm changes nothing, so that features grow with the depth.
        skip_unreadable: go on without files that cannot be read, also where the training did not.

    Raises:
        InputError: the run cannot be used, or the data has other classes; also, for ``train`` and
            ``validation``, where it is no longer what the run was trained with.
    """
    _check_part(part)
    if not run.is_dir():
        raise InputError(f"run {run} does not exist; make it with attnscope train")
    model = load_model(run)
    if part == "test":
        images, skipped, normalization = _load_run_test_part(run, data_root, skip_unreadable)
    else:
        data, normalization = load_run_data(run, data_root, skip_unreadable)
        expect_parts(run, data)
        images, skipped = getattr(data, part).center_crop(data.image_size), data.skipped
    config = read_json(run / "config.json")
    about: dict[str, Any] = {
        "name": run.resolve().name,
        "source": config["data"],
        "part": part,
        "seed": config["seed"],
        "model": read_json(run / "model.json"),
        "weights_sha256": hash_file(run / "model.safetensors"),
        "training_sha256": _hash_training(config),
        "skipped": skipped,
    }
    if untrained:
        model = _with_fresh_weights(model, about["seed"])
        about |= {
            "name": f"{about['name']} (untrained)",
            "untrained": True,
            "weights_sha256": None,
            "training_sha256": None,
        }
    return Subject(model, images, normalization, about)


_SETTINGS = (
    *("data", "image_size", "resize", "validation_share", "skip_unreadable"),
    *("weights", "recipe", "epochs", "precision"),
)


def _hash_training(config: Mapping[str, Any]) -> str:
    """The same for trainings that differ in nothing but the seed and the machine."""
    settings = {key: config.get(key) for key in _SETTINGS}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def load_run_data(
    run: Path, data_root: Path | None = None, skip_unreadable: bool = False
) -> tuple[Data, Normalization]:
    """All parts of the data that a run was trained with, split as then, and its normalization.

    Training images may be larger than the network gets them: crop their centres.

    Args:
        run, data_root, skip_unreadable: of `load_run`.

    Raises:
        InputError: as `load_run`.
    """
    with _config_of(run) as config:
        data = load_data(
            **_source_of(config, data_root, skip_unreadable),
            validation_share=config["validation_share"],
            seed=config["seed"],
        )
        return data, _normalization_of(run, config, data.classes)


def _load_run_test_part(
    run: Path, data_root: Path | None, skip_unreadable: bool
) -> tuple[LabelledImages, list[str], Normalization]:
    """As `load_run_data`, without reading the images of the other parts."""
    with _config_of(run) as config:
        images, skipped = load_test_part(**_source_of(config, data_root, skip_unreadable))
        return images, skipped, _normalization_of(run, config, images.classes)


@contextmanager
def _config_of(run: Path) -> Iterator[dict[str, Any]]:
    config = read_json(run / "config.json")
    try:
        yield config
    except (KeyError, TypeError) as error:
        raise InputError(f"{run / 'config.json'} is no run's ({error}); train again") from None


def _source_of(
    config: Mapping[str, Any], data_root: Path | None, skip_unreadable: bool
) -> dict[str, Any]:
    """What `load_data` and `load_test_part` take."""
    return {
        "source": config["data"],
        "data_root": data_root or Path(config["data_root"]),
        "image_size": config["image_size"],
        "resize": config.get("resize"),
        "skip_unreadable": skip_unreadable or config.get("skip_unreadable", False),
    }


def _normalization_of(run: Path, config: Mapping[str, Any], classes: list[str]) -> Normalization:
    """That of the run, if the data has its classes."""
    if classes != config["classes"]:
        raise InputError(f"{config['data']} has other classes than the run {run} was trained with")
    return Normalization(**config["normalization"])


def expect_parts(run: Path, data: Data) -> None:
    """Refuses data whose training or validation part is not that of the run's training any more.

    Then what was trained on may lie in the validation part, which chooses. Images of the test part
    may be others: nothing was chosen on them.

    Raises:
        InputError: paths or labels differ. (Runs of attnscope before it kept them are not refused.)
    """
    known = read_json(run / "config.json").get("parts", {})
    for name, was in known.items():
        now = data.fingerprints()[name]
        if name != "test" and now != was:
            raise InputError(
                f"the {name} part of {data.source} is not the one that {run} was trained with "
                f"({was['images']} images then, {now['images']} now, or others among them); "
                "restore the images, or train again"
            )


def load_network(
    name: str,
    source: str,
    *,
    weights: Path | None = None,
    part: str = "test",
    normalization: Normalization | None = None,
    data_root: Path = Path("data"),
    image_size: int | None = None,
    skip_unreadable: bool = False,
) -> Subject:
    """A network that attnscope did not train, and a part of any data.

    Args:
        name: of `attnscope.networks.targets.load_target`.
        source: of `attnscope.load_data`, as are ``data_root`` and ``skip_unreadable``.
        weights: safetensors or a state dict; may be left out where the user's own code loads them.
        part: ``train``, ``validation`` or ``test``.
        normalization: which the network was trained with; default that of timm or torchvision, else
            that of the training part of the data.
        image_size: pixels; default the source's.

    Raises:
        InputError: there is no such network or data, or the weights do not fit.
    """
    _check_part(part)
    of_a_library = name.partition(":")[0] in ("timm", "torchvision")
    if weights is None and of_a_library:
        raise InputError(f"{name} is built with random weights; give --weights FILE")
    # The network first: it is quick, and a wrong name shows at once.
    target = load_target(name)
    where = {"data_root": data_root, "image_size": image_size, "skip_unreadable": skip_unreadable}
    normalization = normalization or target.normalization
    if part == "test" and normalization is not None:
        images, skipped = load_test_part(source, **where)  # type: ignore[arg-type]
    else:
        data = load_data(source, **where)  # type: ignore[arg-type]
        images, skipped = getattr(data, part), data.skipped
        normalization = normalization or data.normalization
    if of_a_library:
        target = load_target(name, len(images.classes))
    if weights is not None:
        load_weights(target.model, weights)
    return Subject(
        target.model,
        images,
        normalization,
        {
            "name": name.rpartition(":")[2],
            "source": source,
            "part": part,
            "model": {"name": name},
            "weights_sha256": None if weights is None else hash_file(weights),
            "skipped": skipped,
        },
    )


def capture_run(
    run: Path,
    *,
    part: str = "test",
    out: Path | None = None,
    data_root: Path | None = None,
    batch_size: int = 128,
    progress: bool = True,
) -> Recording:
    """Records a run's network on a part of the data that it was trained with, on the CPU.

    Args:
        run, part, data_root: of `load_run`.
        out: default ``RUN/recordings/PART``.
        batch_size, progress: of `capture`.

    Raises:
        InputError: as `load_run` and `capture`.
    """
    out = run / "recordings" / part if out is None else out
    subject = load_run(run, part, data_root)
    recording = capture(
        subject.model.to(memory_format=torch.channels_last),
        subject.images,
        out,
        normalization=subject.normalization,
        batch_size=batch_size,
        about=subject.about,
        progress=progress,
    )
    assert isinstance(recording, Recording)  # no moments were asked for
    return recording


def _with_fresh_weights(model: nn.Module, seed: int) -> nn.Module:
    """The same architecture as it is built, in eval mode; random numbers go on as if it were not.

    The seed is made from the run's and a word: that of the run alone is the one with which the
    run's own training began. Of a folded network it is the one with all its gates.
    """
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    arguments = asdict(config)
    del arguments["folded"]
    digest = hashlib.sha256(f"untrained {seed}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # Of the CPU's generator alone, which is the one that is forked; manual_seed is of all.
        fresh = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        torch.set_rng_state(fresh.get_state())
        return build_model(**arguments).eval()


def _check_part(part: str) -> None:
    if part not in _PARTS:
        raise InputError(f"part '{part}' is not known; take one of {', '.join(_PARTS)}")
