"""The description of a network by which it can be loaded again."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from attnscope import layout
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError
from attnscope.files import read_json, sha256_of
from attnscope.networks.build import ModelConfig, build_model
from attnscope.networks.targets import Target, is_run, load_target, scheme_of
from attnscope.networks.weights import hash_weights, load_weights


@dataclass(frozen=True)
class NetworkSource:
    """A target and the options with which `load` builds the network.

    Loading a target of the form ``package.module:callable`` runs its code, as importing it would.
    """

    target: str
    """A run folder, ``timm:NAME``, ``torchvision:NAME`` or ``package.module:callable``; see
    `attnscope.networks.targets.load_target`."""
    weights: Path | None = None
    """A safetensors file or a state dict; None means the weights of the target itself."""
    weights_sha256: str | None = None
    """The expected SHA-256 of the weights file; None means that it is not checked."""
    image_size: int | None = None
    """Height and width of the images, in pixels; None means the network's own."""
    normalization: Normalization | None = None
    """The normalization of the images; None means the network's own, if it has one."""
    num_classes: int | None = None
    """Number of classes of a timm, torchvision or registered target; None means its own."""
    channels: int | None = None
    """Number of channels of the images of a timm target; None means its own."""
    untrained: bool = False
    """Whether to replace the weights of a run by random weights, the same ones in each call."""
    draw: int = 0
    """Which random weights, 0 or more."""
    estimated_norms: bool = False
    """Whether the BatchNorm statistics of random weights are estimated on images. `load` does not
    do it; `attnscope.sources.Source.open` does."""

    @property
    def is_run(self) -> bool:
        """Whether the target is a run folder."""
        return is_run(self.target)

    @property
    def weights_file(self) -> Path | None:
        """The file from which the weights are read; None if they are random or set by code."""
        if self.untrained:
            return None
        return Path(self.target) / layout.WEIGHTS if self.is_run else self.weights

    def load(self) -> Target:
        """Load the network.

        Returns:
            The network in eval mode on the CPU, its image size and its normalization.

        Raises:
            InputError: The target does not exist, its weights do not fit the network, or they no
                longer have the hash ``weights_sha256``.
        """
        self.check_weights()
        target = load_target(self.target, self.num_classes, self.channels)
        if self.untrained:
            target = replace(
                target, model=_with_fresh_weights(target.model, Path(self.target), self.draw)
            )
        elif self.weights is not None and not self.is_run:
            load_weights(target.model, self.weights)
        return Target(
            target.model,
            self.image_size or target.image_size,
            self.normalization or target.normalization,
        )

    def expect_weights(self) -> None:
        """Refuse a network whose weights would be random.

        Raises:
            InputError: The target has no weights of its own, and no weights file is given.
        """
        scheme = scheme_of(self.target)
        if self.weights is None and scheme is not None and not scheme.has_weights:
            raise InputError(
                "AS329",
                f"the network {self.target} would have random weights; add --weights FILE",
            )

    def draws_weights(self, model: nn.Module) -> bool:
        """Return whether a network has other weights each time it is built.

        The random generator of the CPU is as before.

        Args:
            model: The network as `load` built it.
        """
        if self.weights is not None or self.is_run or scheme_of(self.target) is not None:
            return False
        if any(map(is_lazy, model.state_dict().values())):
            return True  # the first forward draws them
        with suppress(InputError), torch.random.fork_rng(devices=[]):
            return hash_weights(self.load().model) != hash_weights(model)
        return False  # it can be built once in a process

    def random_weights(self) -> InputError:
        """Return the error AS329 of a network that cannot be opened again with its weights."""
        return InputError(
            "AS329",
            f"the network {self.target} has other weights each time it is built, and interventions "
            "must open it again; give its trained weights with --weights FILE",
        )

    def pinned_paths(self) -> NetworkSource:
        """Return a copy with absolute paths."""
        target, scheme = self.target, scheme_of(self.target)
        if self.is_run:
            target = str(Path(target).resolve())
        elif scheme is not None and scheme.is_path:
            name, _, path = target.partition(":")
            target = f"{name}:{Path(path).expanduser().resolve()}"
        return replace(
            self,
            target=target,
            weights=None if self.weights is None else self.weights.resolve(),
        )

    def pinned(self) -> NetworkSource:
        """Return a copy with absolute paths and with the current SHA-256 of the weights."""
        file = self.weights_file
        return replace(
            self.pinned_paths(), weights_sha256=None if file is None else sha256_of(file)
        )

    def check_weights(self) -> None:
        """Refuse a weights file that no longer has the hash ``weights_sha256``.

        Raises:
            InputError: AS330, the file does not exist; AS331, it has another hash.
        """
        file = self.weights_file
        if self.weights_sha256 is None or file is None:
            return
        if not file.is_file():
            raise InputError(
                "AS330",
                f"the weights file {file} no longer exists; restore it, or remove the recording "
                "and capture it again",
            )
        if sha256_of(file) != self.weights_sha256:
            raise InputError(
                "AS331",
                f"the weights file {file} has changed since the recording was made (its SHA-256 "
                "differs); restore it, or remove the recording and capture it again",
            )


def _with_fresh_weights(model: nn.Module, run: Path, draw: int) -> nn.Module:
    """Build the network of a run with random weights, without changing torch's random state.

    The seed is derived from the seed of the run, the number of the draw and a constant, because the
    seed of the run itself would give the weights from which its training started. A folded network
    is built with all its gates.
    """
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    arguments = asdict(config)
    del arguments["folded"], arguments["pruned"]
    seed = read_json(run / layout.CONFIG).get("seed")
    if not isinstance(seed, int):
        raise InputError(
            "AS321",
            f"{run / layout.CONFIG} has no seed; restore the file, or train the run again",
        )
    text = f"untrained {seed} {draw}" if draw else f"untrained {seed}"
    digest = hashlib.sha256(text.encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # Only the generator of the CPU is forked, and torch.manual_seed would seed all devices.
        fresh = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        torch.set_rng_state(fresh.get_state())
        return build_model(**arguments).eval()
