"""Loss and accuracy of a network on a split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from attnscope.data.images import LabeledImages, Normalization, batches
from attnscope.gates.modes import eval_mode
from attnscope.training.devices import autocast_block
from attnscope.training.processes import ProcessGroup

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """What a network does on a part, over all its images."""

    loss: float
    """Mean cross-entropy, in nats, without label smoothing."""
    accuracy: float
    """Share of right predictions, 0 to 1."""


def evaluate(
    model: nn.Module,
    part: LabeledImages,
    normalization: Normalization,
    device: torch.device,
    autocast: bool = False,
    process_group: ProcessGroup | None = None,
) -> Evaluation:
    """Loss and accuracy in eval mode over a whole part; each module gets its mode back.

    In a process_group each process looks at its own images, so that each is counted once.
    """
    loss = right = 0.0
    process_group = process_group or ProcessGroup()
    mine = process_group.share(len(part))
    with eval_mode(model), torch.inference_mode():
        # A part of one process is not cut out: that would copy every image.
        own = part if len(mine) == len(part) else part[mine.start : mine.stop]
        for images, labels in batches(own, _EVALUATION_BATCH):
            x, y = normalization.apply(images.to(device)), labels.to(device)
            with autocast_block(device, autocast):
                logits = model(x)
            loss += F.cross_entropy(logits.float(), y, reduction="sum").item()
            right += (logits.argmax(1) == y).sum().item()
    sums = torch.tensor([loss, right], dtype=torch.float64, device=device)
    loss, right = process_group.total(sums).tolist()
    return Evaluation(loss / len(part), right / len(part))
