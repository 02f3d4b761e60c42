"""The loss that a training minimizes: cross-entropy, with or without class weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.errors import InputError


class TrainingLoss:
    """Cross-entropy of one piece of a step."""

    def __init__(self, label_smoothing: float, class_weights: Tensor | None = None) -> None:
        """The loss of a recipe.

        Args:
            label_smoothing: share of the target that is spread over all classes.
            class_weights: float32 ``(K,)`` on the device of the logits, or None.
        """
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights

    @property
    def is_weighted(self) -> bool:
        """Whether there are class weights, and the labels of the whole step are needed."""
        return self.class_weights is not None

    def __call__(self, logits: Tensor, labels: Tensor, step_labels: Tensor | None) -> Tensor:
        """The piece's loss, so that the mean over all images of the step is the step's loss.

        With class weights the step's loss is that of torch: the weighted sum over its images,
        divided by the sum of their weights. The divisor is that of the whole step, so that the
        gradient does not depend on how a step is split into pieces and devices.

        Args:
            logits: float32 ``(n, K)`` of the piece.
            labels: int64 ``(n,)`` of the piece.
            step_labels: int64 ``(N,)`` of the whole step; None will do without class weights.
        """
        if self.class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        assert step_labels is not None
        total = F.cross_entropy(
            logits,
            labels,
            weight=self.class_weights,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        step = total / self.class_weights[step_labels].sum()
        return step * (len(step_labels) / len(labels))


def class_weight_tensor(
    choice: str | tuple[float, ...], labels: Tensor, classes: Sequence[str]
) -> Tensor | None:
    """One weight for each class, float32 ``(K,)``; None where there are no weights.

    Args:
        choice: ``none``, ``balanced`` or the weights themselves. ``balanced`` is N / (K n_k) for N
            training images, of which n_k are of the class: the formula of scikit-learn's
            ``compute_class_weight`` (King and Zeng 2001).
        labels: int64 ``(N,)`` of the training images.
        classes: names by label.

    Raises:
        InputError: there are not as many weights as classes, or a class that is to be balanced has
            no training image.
    """
    if choice == "none":
        return None
    if choice == "balanced":
        counts = torch.bincount(labels.cpu(), minlength=len(classes)).double()
        if not bool(counts.all()):
            empty = classes[int(counts.argmin())]
            raise InputError(
                f"class weights cannot be balanced: no training image is of the class '{empty}'; "
                "give the weights themselves, or take none"
            )
        return (len(labels) / (len(classes) * counts)).float()
    if len(choice) != len(classes):
        raise InputError(
            f"there are {len(choice)} class weights and {len(classes)} classes; give one for each "
            f"of {', '.join(classes):.200}"
        )
    return torch.tensor(choice, dtype=torch.float32)
