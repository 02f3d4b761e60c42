"""Where a network comes from, so that it can be built again."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from attnscope import layout
from attnscope.data.normalization import Normalization
from attnscope.errors import InputError
from attnscope.files import read_json, sha256_of
from attnscope.networks.build import ModelConfig, build_model
from attnscope.networks.targets import Target, is_run, load_target, scheme_of
from attnscope.networks.weights import load_weights


@dataclass(frozen=True)
class NetworkSource:
    """A run, ``timm:NAME``, ``torchvision:NAME``, ``module:callable``: what `load` needs to know.

    To load a target of the last form is to run its code, as importing it would.
    """

    target: str
    """Of `attnscope.networks.targets.load_target`."""
    weights: Path | None = None
    """Safetensors or a state dict; None: those of the run, or of the user's own code."""
    weights_sha256: str | None = None
    """Of the file that the weights are read from; where it is given, it is checked."""
    image_size: int | None = None
    """Pixels; None: the network's own."""
    normalization: Normalization | None = None
    """None: the network's own, if it says one."""
    num_classes: int | None = None
    """Of a network of a registered scheme; None: its own."""
    untrained: bool = False
    """Of a run: fresh random weights instead of its own, the same ones for each call."""

    @property
    def is_run(self) -> bool:
        """Whether the target is a run folder."""
        return is_run(self.target)

    @property
    def weights_file(self) -> Path | None:
        """The file that the weights are read from; None where they come from code or chance."""
        if self.untrained:
            return None
        return Path(self.target) / layout.WEIGHTS if self.is_run else self.weights

    def load(self) -> Target:
        """The network in eval mode on the CPU, and how it wants its images.

        Raises:
            InputError: there is no such network, its weights do not fit or are no longer those of
                ``weights_sha256``.
        """
        self._check_weights()
        target = load_target(self.target, self.num_classes)
        if self.untrained:
            target = replace(target, model=_with_fresh_weights(target.model, Path(self.target)))
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
            InputError: it is built without weights, and no file is given.
        """
        scheme = scheme_of(self.target)
        if self.weights is None and scheme is not None and not scheme.has_weights:
            raise InputError(f"{self.target} is built with random weights; give --weights FILE")

    def pinned(self) -> NetworkSource:
        """The same with absolute paths, and with the SHA-256 of the weights as they are now."""
        file = self.weights_file
        return replace(
            self,
            target=str(Path(self.target).resolve()) if self.is_run else self.target,
            weights=None if self.weights is None else self.weights.resolve(),
            weights_sha256=None if file is None else sha256_of(file),
        )

    def _check_weights(self) -> None:
        file = self.weights_file
        if self.weights_sha256 is None or file is None:
            return
        if not file.is_file():
            raise InputError(
                f"the weights {file} are not there any more; put them back, or capture again"
            )
        if sha256_of(file) != self.weights_sha256:
            raise InputError(
                f"the weights {file} have changed since they were recorded (SHA-256); put the old "
                "ones back, or capture again"
            )


def _with_fresh_weights(model: nn.Module, run: Path) -> nn.Module:
    """The same architecture as it is built, in eval mode; random numbers go on as if it were not.

    The seed is made from the run's and a word: that of the run alone is the one with which the
    run's own training began. Of a folded network it is the one with all its gates.
    """
    config: ModelConfig = model.attnscope_config  # type: ignore[assignment]
    arguments = asdict(config)
    del arguments["folded"]
    seed = read_json(run / layout.CONFIG).get("seed")
    if not isinstance(seed, int):
        raise InputError(f"{run / layout.CONFIG} is no run's (no seed); train again")
    digest = hashlib.sha256(f"untrained {seed}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        # Of the CPU's generator alone, which is the one that is forked; manual_seed is of all.
        fresh = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        torch.set_rng_state(fresh.get_state())
        return build_model(**arguments).eval()
