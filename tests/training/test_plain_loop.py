"""`fit` against a training loop that is written out, with none of its code: equal bit for bit."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.data.augmentation import Augmentation
from attnscope.data.load import Data
from attnscope.training.recipe import Phase
from tests.training.toys import TINY, make_data, rows, run, small, states_equal

SEED, PADDING, EPOCHS, BATCH = 4, 4, 2, 8
RECIPE = replace(
    TINY,
    epochs=EPOCHS,
    batch_size=BATCH,
    augmentation=Augmentation(crop_padding=PADDING, flip=True),
    phases=(Phase(0.5, 0.75), Phase(0.5)),
)


def seed_of(purpose: str, *keys: int) -> int:
    digest = hashlib.sha256(repr((purpose, *keys)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop and mirror image by image. Row, column and mirroring are drawn for all images at once."""
    count, size = len(images), images.shape[-1]
    top, left = (torch.randint(2 * PADDING + 1, (count, 1), generator=generator) for _ in "yx")
    mirrored = torch.randint(2, (count, 1), generator=generator)
    out = []
    for image, y, x, flip in zip(images.numpy(), top, left, mirrored, strict=True):
        padded = np.pad(image, ((0, 0), (PADDING,) * 2, (PADDING,) * 2), mode="reflect")
        crop = padded[:, int(y) : int(y) + size, int(x) : int(x) + size]
        out.append((crop[:, :, ::-1] if flip else crop).copy())
    return torch.from_numpy(np.stack(out))


def train_plainly(model: nn.Module, data: Data, precision: str) -> list[float]:
    """Train a network in place and return the mean loss of each epoch."""
    model.to(memory_format=torch.channels_last).train()
    sizes = [BATCH, BATCH, len(data.train) - 2 * BATCH]
    groups: list[dict[str, object]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 5e-4},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    rate, steps = RECIPE.learning_rate, EPOCHS * len(sizes)
    rise = max(0.25, 2 / steps)  # at least two steps
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=steps, pct_start=rise, base_momentum=0.85, max_momentum=0.95
    )
    mean, std = torch.tensor([0.4] * 3)[:, None, None], torch.tensor([0.2] * 3)[:, None, None]
    losses, step = [], 0
    for epoch in range(EPOCHS):
        order = np.random.default_rng(seed_of("order", SEED, epoch)).permutation(len(data.train))
        total = torch.zeros(())
        for part in np.split(order, np.cumsum(sizes)[:-1]):
            pixels = data.train.images[part].float() * (1 / (255 * std)) - mean / std
            generator = torch.Generator().manual_seed(seed_of("augment", SEED, epoch, step))
            x = augmented(pixels, generator).contiguous(memory_format=torch.channels_last)
            if step < steps / 2:
                x = F.interpolate(x, size=24, mode="bilinear", antialias=True)
                x = x.contiguous(memory_format=torch.channels_last)
            torch.manual_seed(seed_of("dropout", SEED, step, 0))
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = model(x)
            loss = F.cross_entropy(logits.float(), data.train.labels[part], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach() * len(part)
            step += 1
        losses.append(float(total) / len(data.train))
    return losses


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_on_a_cpu_equals_a_plain_loop(precision: str, tmp_path: Path) -> None:
    data = make_data()
    expected = small(attention="cbam", reduction=4)
    losses = train_plainly(expected, data, precision)
    model = small(attention="cbam", reduction=4)
    run(tmp_path / "run", model, data=data, recipe=RECIPE, seed=SEED, precision=precision)
    assert states_equal(model, expected)
    assert not states_equal(model, small(attention="cbam", reduction=4))
    assert [float(row["train_loss"]) for row in rows(tmp_path / "run")] == losses
