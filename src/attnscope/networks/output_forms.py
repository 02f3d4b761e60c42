"""The forms in which networks return class scores, and how each becomes logits.

The softmax of the logits gives the probabilities that the network means, whatever it returns.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attnscope.errors import InputError
from attnscope.registry import Registry

LOGITS = "logits"
NO_SCORES = "none"
"""The form of a network that returns no class scores."""
_MAKE_PROBABILITIES = ("Sigmoid", "Softmax", "Hardsigmoid")
_MAKE_LOGITS = ("Addmm", "Mm", "Bmm", "Addbmm", "Convolution", "Linear", "NativeBatchNorm")
"""Last operations, as autograd calls them."""
_VIEWS = re.compile(
    r"(Squeeze|Unsqueeze|View|UnsafeView|Reshape|ReshapeAlias|Select|Slice|Permute|Transpose|T|"
    r"Clone|ToCopy|Expand|Alias|Split|Unbind|Mean)Backward\d*"
)
"""Autograd nodes that leave values as they are, or average them."""


@dataclass(frozen=True)
class Sample:
    """A few images on which the output of a network is looked at."""

    images: int
    """Their number."""
    classes: int | None = None
    """The number of classes of the data set; None if it is unknown."""
    class_labels: bool = True
    """Whether the labels are classes. If not, one number for each image is no score."""


@dataclass(frozen=True)
class OutputForm:
    """One form of class scores."""

    name: str
    about: str
    """What such a network returns, and what becomes of it; completes "the network returns"."""
    fits: Callable[[Tensor, Sample, Callable[[], str]], bool]
    """``fn(values, sample, last_operation) -> bool``: whether a network returns this form.

    ``values`` are ``(N, K)`` or ``(N,)`` for a few images, and ``last_operation()`` is the
    operation that made them, such as ``Sigmoid``. It may raise an `InputError` if it cannot be
    told."""
    scores: Callable[[Tensor], Tensor] | None
    """Values ``(N, K)`` or ``(N,)`` -> logits ``(N, K)``; None if there are no class scores."""
    holds: Callable[[Tensor], Tensor] = lambda values: torch.ones(len(values), dtype=torch.bool)
    """Values of any batch -> ``(N,)`` bool, whether they can be of this form."""
    is_one_number: bool = False
    """Whether there is one number for each image, instead of one for each class."""

    @property
    def short(self) -> str:
        """What such a network returns, without what becomes of it."""
        return self.about.partition(";")[0]


def last_operation_of(value: Tensor) -> str:
    """Return the operation that made a tensor, such as ``Sigmoid``; empty if it is unknown.

    It is read from the graph of autograd. Views, and means over positions, are passed over.
    """
    node = value.grad_fn
    while node is not None and _VIEWS.fullmatch(node.name()):
        node = node.next_functions[0][0]
    return "" if node is None else re.sub(r"Backward\d*$", "", node.name())


def _check(form: OutputForm) -> None:
    if not form.about.strip():
        raise ValueError("its about must be a non-empty string")
    if not callable(form.fits) or not (form.scores is None or callable(form.scores)):
        raise TypeError("its fits and scores must be functions")


OUTPUT_FORMS: Registry[OutputForm] = Registry("form of outputs", _check)
"""All forms by name."""


def register_output_form(form: OutputForm) -> OutputForm:
    """Register a form of class scores. Forms that are registered later are tried first.

    Returns:
        The form.

    Raises:
        InputError: The name is taken, or the form is incomplete.
    """
    return OUTPUT_FORMS.register(form.name, form)


def _is_one_number(values: Tensor, sample: Sample) -> bool:
    one = values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)
    return one and sample.classes in (None, 2) and sample.class_labels


def _is_vector(values: Tensor, sample: Sample) -> bool:
    if values.ndim != 2:
        return False
    known = sample.classes
    return values.shape[1] == known if known is not None else values.shape[1] > 1


def _in_unit_range(values: Tensor) -> Tensor:
    """Whether all values of each image are in 0 to 1; true for values that are not finite.

    Those are refused as such, whatever their form.
    """
    rows = values.detach().float().reshape(len(values), -1)
    # Rounding may take a probability of half precision above 1, and a mean of probabilities, too.
    inside = ((rows >= 0) & (rows <= 1 + torch.finfo(values.dtype).eps)).all(1)
    return inside | ~torch.isfinite(rows).all(1)


def _sums_to_one(values: Tensor) -> Tensor:
    """Whether the values of each image sum to 1 within the rounding of their type."""
    total = values.detach().double().sum(1)
    tolerance = max(1e-4, 2 * torch.finfo(values.dtype).eps)
    return ((total - 1).abs() <= tolerance) | ~torch.isfinite(total)


def _are_probabilities(values: Tensor) -> Tensor:
    return _in_unit_range(values) & _sums_to_one(values)


def _are_log_probabilities(values: Tensor) -> Tensor:
    negative = (values.detach() <= torch.finfo(values.dtype).eps).all(1)
    finite = torch.isfinite(values.detach()).all(1)
    return (negative & _sums_to_one(values.exp())) | ~finite


def _log(values: Tensor) -> Tensor:
    """The logarithm, at least that of the smallest normal number; a probability of 0 has none."""
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    positive = values.clamp(min=torch.finfo(values.dtype).tiny)
    # A value that is not finite stays so, and is refused.
    return torch.where(torch.isfinite(values), positive, values).log()


def _all(values: Tensor, rows: Tensor) -> bool:
    """Whether all values are finite and all rows are true."""
    return bool(rows.all() and torch.isfinite(values).all())


def _one_number(values: Tensor) -> Tensor:
    return values.reshape(len(values))


def _two_from_logit(values: Tensor) -> Tensor:
    # Half of it for each class: the softmax of both is the sigmoid of the number, and the class
    # that it speaks against has the opposite gradient, where (0, z) would give it none.
    half = _one_number(values) / 2
    return torch.stack([-half, half], 1)


def _two_from_probability(values: Tensor) -> Tensor:
    p = _one_number(values)
    return torch.stack([_log(1 - p), _log(p)], 1)


def _from_sigmoids(values: Tensor) -> Tensor:
    return _log(values) - _log(1 - values)


def _is_one_probability(values: Tensor, sample: Sample, last_operation: Callable[[], str]) -> bool:
    if not _is_one_number(values, sample) or not _all(values, _in_unit_range(values)):
        return False
    operation = last_operation()
    if operation in _MAKE_LOGITS:
        return False
    if operation not in _MAKE_PROBABILITIES:
        raise InputError(
            "AS361",
            "the network returns one number per image, and for the first images all are from 0 to "
            "1, so that they can be probabilities or logits; say which with --output "
            "one_probability or --output one_logit, or output= in Python",
        )
    return True


register_output_form(
    OutputForm(
        NO_SCORES,
        "no class scores; gates are recorded without predictions, confidences and Grad-CAM",
        lambda values, sample, last_operation: False,
        None,
    )
)
register_output_form(
    OutputForm(
        LOGITS,
        "logits",
        lambda values, sample, last_operation: _is_vector(values, sample),
        lambda values: values,
    )
)
register_output_form(
    OutputForm(
        "class_probabilities",
        "one probability per class that do not sum to 1; their logits are recorded, and "
        "confidences are the softmax of these",
        lambda values, sample, last_operation: (
            _is_vector(values, sample)
            and _all(values, _in_unit_range(values))
            and last_operation() in _MAKE_PROBABILITIES
        ),
        _from_sigmoids,
        _in_unit_range,
    )
)
register_output_form(
    OutputForm(
        "log_probabilities",
        "log-probabilities; they are recorded as logits, since their softmax gives the same "
        "probabilities",
        lambda values, sample, last_operation: (
            _is_vector(values, sample) and _all(values, _are_log_probabilities(values))
        ),
        lambda values: values,
        _are_log_probabilities,
    )
)
register_output_form(
    OutputForm(
        "probabilities",
        "probabilities; their logarithms are recorded as logits, and Grad-CAM explains these",
        lambda values, sample, last_operation: (
            _is_vector(values, sample) and _all(values, _are_probabilities(values))
        ),
        _log,
        _are_probabilities,
    )
)
register_output_form(
    OutputForm(
        "one_logit",
        "one number per image; it is the logit of the second of two classes, and minus and plus "
        "half of it are recorded as logits",
        lambda values, sample, last_operation: _is_one_number(values, sample),
        _two_from_logit,
        is_one_number=True,
    )
)
register_output_form(
    OutputForm(
        "one_probability",
        "one probability per image; it is that of the second of two classes, and the logarithms of "
        "both are recorded as logits",
        _is_one_probability,
        _two_from_probability,
        _in_unit_range,
        is_one_number=True,
    )
)
