"""Loss and accuracy of a network on a split."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

from attnscope.data.images import LabeledImages, Normalization, batches
from attnscope.data.streamed import StreamedImages
from attnscope.gates.modes import eval_mode
from attnscope.training.devices import autocast_block, place_images, send
from attnscope.training.processes import ProcessGroup

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy over all images of a split."""

    loss: float
    """Mean cross-entropy in nats, without label smoothing and class weights."""
    accuracy: float
    """Share of correct predictions, 0 to 1."""


def evaluate(
    model: nn.Module,
    split: LabeledImages,
    normalization: Normalization,
    device: torch.device,
    autocast: bool = False,
    process_group: ProcessGroup | None = None,
) -> Evaluation:
    """Evaluate a network on a whole split, in eval mode. Afterwards each module has its old mode.

    In a process group, each process evaluates its own share of the images, and all processes get
    the result over all images.

    Args:
        model: the network, on the device.
        split: the images.
        normalization: the normalization that the network was trained with.
        device: where the network is.
        autocast: run under bfloat16 autocast.
        process_group: the processes that evaluate together. Default: this process only.
    """
    process_group = process_group or ProcessGroup()
    own = process_group.share(len(split))
    with eval_mode(model), torch.inference_mode():
        # A single process does not slice the split, which would copy every image.
        images_of_rank = split if len(own) == len(split) else split[own.start : own.stop]
        normalizer = normalization.on(device, split.shape[1])
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        if device.type != "cpu" and not isinstance(split, StreamedImages):
            pixels = place_images(images_of_rank.images, device)
            labels = images_of_rank.labels.to(device)
            images_of_rank = replace(images_of_rank, images=pixels, labels=labels)
        for images, labels in batches(images_of_rank, _EVALUATION_BATCH):
            x, y = normalizer.apply(send(images, device)), send(labels, device)
            with autocast_block(device, autocast):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), y, reduction="sum")
            # Sums stay on the device, since reading them after every batch would stall a GPU.
            sums += torch.stack([loss.double(), (logits.argmax(1) == y).sum().double()])
    loss, right = process_group.sum(sums).tolist()
    return Evaluation(loss / len(split), right / len(split))
