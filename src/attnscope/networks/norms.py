"""BatchNorm statistics that are estimated again, for networks with other weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from attnscope.data.images import LabeledImages, Normalization
from attnscope.gates.modes import eval_mode

_IMAGES, _BATCH = 256, 64
"""Images on which statistics are estimated, and batch size."""


@contextmanager
def estimating(norms: Sequence[nn.modules.batchnorm._BatchNorm]) -> Iterator[None]:
    """Estimate the statistics of BatchNorms from the forwards within the block.

    They are the mean over the batches. A batch needs more than one value per channel.
    """
    before = [(norm.momentum, norm.training) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean over the batches
        norm.train()
    try:
        yield
    finally:
        for norm, (momentum, training) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.train(training)


def estimate_norms(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Estimate the statistics of all BatchNorms of a network from batches of its input."""
    kinds = nn.modules.batchnorm._BatchNorm
    norms = [norm for norm in model.modules() if isinstance(norm, kinds)]
    with eval_mode(model), torch.no_grad(), estimating(norms):
        for batch in batches if norms else ():
            if len(batch) > 1:  # after pooling, the variance over one image is undefined
                model(batch)


def estimate_norms_on(
    model: nn.Module, images: LabeledImages, normalization: Normalization
) -> None:
    """Estimate the statistics of all BatchNorms on a sample of images of all classes.

    Args:
        model: The network, on the CPU.
        images: The images, in the size that the network receives.
        normalization: The normalization of the network.
    """
    places = np.linspace(0, len(images), _IMAGES, endpoint=False).astype(int)
    rows = np.random.default_rng(0).permutation(np.unique(places))  # classes may lie side by side
    batches = [part.tolist() for part in np.split(rows, range(_BATCH, len(rows), _BATCH))]
    estimate_norms(model, (normalization.apply(pixels) for pixels in images.read(batches)))
