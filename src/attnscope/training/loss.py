"""The training loss: cross-entropy with label smoothing and class weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.errors import InputError


class TrainingLoss:
    """Cross-entropy of one piece of an optimizer step."""

    def __init__(self, label_smoothing: float, class_weights: Tensor | None = None) -> None:
        """Set the parameters of the loss.

        Args:
            label_smoothing: share of the target distribution that is spread over all classes.
            class_weights: float32 ``(K,)`` on the device of the logits, or None.
        """
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights

    @property
    def is_weighted(self) -> bool:
        """Whether there are class weights, so that the labels of the whole step are needed."""
        return self.class_weights is not None

    def __call__(self, logits: Tensor, labels: Tensor, step_labels: Tensor | None) -> Tensor:
        """Return the loss of a piece. Its mean over all images of the step is the step's loss.

        With class weights, the loss of the step is that of torch's `CrossEntropyLoss`: the weighted
        sum over its images, divided by the sum of their weights. The divisor is that of the whole
        step, so the gradient does not depend on how the step is split into pieces and devices.

        Args:
            logits: float32 ``(n, K)`` of the piece.
            labels: int64 ``(n,)`` of the piece.
            step_labels: int64 ``(N,)`` of the whole step. Not used without class weights.
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
    """Return one weight per class, float32 ``(K,)``, or None without class weights.

    Args:
        choice: ``none``, ``balanced`` or the weights. ``balanced`` is N / (K n_k) for N training
            images of K classes, n_k of which belong to class k. This is the formula of
            scikit-learn's ``compute_class_weight`` (King and Zeng 2001).
        labels: int64 ``(N,)``, the labels of the training images.
        classes: the names of the classes, in the order of their labels.

    Raises:
        InputError: AS505, the numbers of weights and classes differ; AS506, a class to be balanced
            has no training image.
    """
    if choice == "none":
        return None
    if choice == "balanced":
        counts = torch.bincount(labels.cpu(), minlength=len(classes)).double()
        if not bool(counts.all()):
            empty = classes[int(counts.argmin())]
            raise InputError(
                "AS506",
                f"class '{empty}' has no training image, so class weights cannot be balanced; "
                "give one number per class or choose none",
            )
        return (len(labels) / (len(classes) * counts)).float()
    if len(choice) != len(classes):
        raise InputError(
            "AS505",
            f"{len(choice)} class weights are given for {len(classes)} classes; give one for each "
            f"of {', '.join(classes):.200}",
        )
    return torch.tensor(choice, dtype=torch.float32)
