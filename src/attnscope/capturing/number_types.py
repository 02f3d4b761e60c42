"""Images in the number type of a network: half, bfloat16, single or double precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from attnscope.capturing.batching import Batch
from attnscope.networks.number_types import number_type


def as_inputs(found: Iterable[Batch], model: nn.Module) -> Iterator[Batch]:
    """Yield batches with images of the network's type. Images of whole numbers stay as they are."""
    wanted = number_type(model)
    for batch in found:
        yield replace(batch, x=of_type(batch.x, wanted))


def of_type(images: Tensor, wanted: torch.dtype) -> Tensor:
    """Return images in a floating point type. Images of whole numbers stay as they are."""
    return images.to(wanted) if images.is_floating_point() else images
