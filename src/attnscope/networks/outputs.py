"""Class scores ``(N, K)`` from what a network returns, whatever it returns.

An `OutputAdapter` says where the scores are (a path of keys and indices, or a function of the
user's own) and in which form (one of `OUTPUT_FORMS`). `find_adapter` tells both by looking at the
output for a few images. It refuses to guess where two readings are possible.

To add a form, register it; forms that are registered later are tried first::

    register_output_form(OutputForm("energies", "energies; their negatives are logits", fit, minus))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attnscope.errors import InputError, first_line
from attnscope.networks.output_forms import (
    LOGITS,
    NO_SCORES,
    OUTPUT_FORMS,
    Sample,
    last_operation_of,
)
from attnscope.networks.output_functions import function_name, import_function
from attnscope.networks.output_parts import (
    describe,
    find_path,
    is_detection,
    part_at,
    path_text,
    tensors_in,
)

Choice = str | int | Callable[[Any], Any]
"""An output that is chosen by hand: an index, a key (``"logits"``, or ``"head.logits"`` in a
container in a container), the name of a form, ``"module:function"``, or a function. The function
gets what the network returns, and returns class scores in one of the forms."""

_NAMES_OF_SCORES = (
    *("logits", "scores", "output", "out", "prediction", "predictions", "pred", "class_logits"),
    *("cls", "y"),
)
"""Keys under which networks return class scores, if several outputs could be."""


@dataclass(frozen=True)
class OutputAdapter:
    """Takes class scores from what a network returns."""

    path: tuple[str | int, ...] = ()
    """Keys, names of attributes and indices that lead to the scores; empty if the network returns
    nothing else."""
    function: str | None = None
    """``module:function`` that is called first."""
    over_positions: bool = False
    """Whether the scores are means over the positions of a map ``(N, K, ...)``."""
    form: str = LOGITS
    """One of `OUTPUT_FORMS`."""
    _called: Callable[[Any], Any] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the network returns logits ``(N, K)`` and nothing else."""
        return self == OutputAdapter()

    @property
    def has_scores(self) -> bool:
        """Whether there are class scores."""
        return self.form != NO_SCORES

    def __call__(self, output: Any) -> Tensor:
        """Return the logits ``(N, K)`` in what the network returned.

        Raises:
            InputError: There are none, or the output has another structure or form than that for
                which the adapter was made (AS360).
        """
        scores, holds = self.unchecked(output)
        if holds is not None and not holds.all():
            raise self.refusal()
        return scores

    def unchecked(self, output: Any) -> tuple[Tensor, Tensor | None]:
        """Return the logits, and for each image whether they can be of the form, bool ``(N,)``.

        The caller checks that, and raises `refusal`. None instead of it if there is nothing to
        check. So the host need not wait for a device. Other errors are raised as in a call.
        """
        if self.is_plain:
            return cast("Tensor", output), None
        form = OUTPUT_FORMS.find(self.form)
        if form.scores is None:
            raise InputError(
                "AS360", "the network returns no class scores; choose them with --output"
            )
        value = self.part(output)
        return form.scores(value), form.holds(value)

    def refusal(self) -> InputError:
        """Return the refusal of an output that is not of the form."""
        return InputError(
            "AS360",
            f"the network returns {OUTPUT_FORMS.find(self.form).short} for the first images, but "
            "not for a later one; choose another form with --output, such as --output logits",
        )

    def part(self, output: Any) -> Tensor:
        """Return the scores in the form in which the network returned them, ``(N, K)`` or ``(N,)``.

        Raises:
            InputError: The output has another structure than that for which the adapter was made.
        """
        if self.function is not None:
            output = (self._called or import_function(self.function))(output)
        for key in self.path:
            output = part_at(output, key)
        if not isinstance(output, Tensor) or not output.ndim:
            raise InputError(
                "AS360",
                f"the network returned {describe(output)} where it returned class scores for the "
                "first images; choose its output with --output",
            )
        is_map = self.over_positions and output.ndim > 2
        return output.flatten(2).mean(2) if is_map else output

    def explain(self) -> str:
        """Return one sentence about what is taken as class scores; empty for plain logits."""
        form = OUTPUT_FORMS.find(self.form)
        where = []
        if self.function is not None:
            where.append(f"the result of {self.function}")
        if self.path:
            where.append(f"output {path_text(self.path)}")
        if self.over_positions:
            where.append("the mean of each class over the positions of a map")
        said = f"class scores are {', '.join(where)} of the network" if where else ""
        about = f"the network returns {form.about}" if self.form != LOGITS else ""
        return "; ".join(filter(None, (said, about)))

    def to_dict(self) -> dict[str, Any]:
        """Return the adapter as JSON values, with ``scores``: whether there are any."""
        return {
            "path": list(self.path),
            "function": self.function,
            "over_positions": self.over_positions,
            "form": self.form,
            "scores": self.has_scores,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> OutputAdapter:
        """Return the adapter of `to_dict`; of an empty dict that of plain logits.

        Raises:
            InputError: The form is not registered (AS120).
        """
        if not value:
            return cls()
        OUTPUT_FORMS.find(value["form"])
        return cls(tuple(value["path"]), value["function"], value["over_positions"], value["form"])


def find_adapter(
    output: Any,
    sample: Sample,
    chosen: Choice | None = None,
    again: Callable[[], Any] | None = None,
) -> OutputAdapter:
    """Tell where the class scores are in what a network returned for a few images.

    Args:
        output: What it returned.
        sample: The images and classes.
        chosen: The output that was chosen by hand.
        again: Runs the network once more and returns its output with the graph of autograd. It is
            used if only the last operation tells a probability from a logit.

    Returns:
        The adapter. Without class scores in the output, as of a detector, its form is `NO_SCORES`.

    Raises:
        InputError: Several outputs could be class scores (AS361), the chosen one does not exist
            (AS362), or there are scores of another number of classes (AS661) or shape (AS662).
    """
    start = OutputAdapter()
    if callable(chosen):
        start = OutputAdapter(function=function_name(chosen), _called=chosen)
    elif isinstance(chosen, str) and ":" in chosen:
        start = OutputAdapter(function=chosen, _called=import_function(chosen))
    elif chosen is not None:
        path = find_path(output, chosen)
        if path is None:
            return _of_form(output, sample, _expect_form(output, chosen))
        start = OutputAdapter(path)
    try:
        part = start._called(output) if start._called else output
    except Exception as error:  # a function of the user's own raises exceptions of any type
        raise InputError(
            "AS362",
            f"the function {start.function} failed on the output of the network "
            f"({type(error).__name__}: {first_line(error)}); correct it",
        ) from None
    for key in start.path:
        part = part_at(part, key)
    path, tensor = _scores_in(part, sample, chosen is not None)
    if tensor is None:
        return OutputAdapter(form=NO_SCORES)
    found = _replace(start, (*start.path, *path), over_positions=tensor.ndim > 2)

    def last_operation() -> str:
        if again is None:
            return ""
        return last_operation_of(found.part(again()))

    value = found.part(output)
    for form in reversed(list(OUTPUT_FORMS.values())):
        if form.fits(value, sample, last_operation):
            return _replace(found, found.path, form=form.name, over_positions=found.over_positions)
    raise _no_scores(tensor, sample)


def _replace(adapter: OutputAdapter, path: tuple[str | int, ...], **changes: Any) -> OutputAdapter:
    return OutputAdapter(path, adapter.function, _called=adapter._called, **changes)


@contextmanager
def adapted(model: nn.Module, adapter: OutputAdapter) -> Iterator[None]:
    """Let a network return its class scores, ``(N, K)``, within the block.

    A hook changes what the network returns; modules keep their names and weights.
    """
    handle: RemovableHandle | None = None
    if not adapter.is_plain and adapter.has_scores:
        handle = model.register_forward_hook(lambda module, args, output: adapter(output))
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()


def _scores_in(
    output: Any, sample: Sample, is_chosen: bool
) -> tuple[tuple[str | int, ...], Tensor | None]:
    """Return the path and the tensor of the class scores; None if the output has none.

    Args:
        output: What the network returned, or the part of it that was chosen by hand.
        sample: The images and classes.
        is_chosen: Whether it was chosen by hand.

    Raises:
        InputError: Several outputs could be class scores, or none has the right number of classes.
    """
    if isinstance(output, Tensor):
        if _rank(output, sample, is_chosen) is not None:
            return (), output
        if is_chosen or sample.classes is not None or len(output) != sample.images:
            raise _no_scores(output, sample)
        return (), None  # features, a picture, or a number to predict
    if is_detection(output):
        return (), None
    tensors = list(tensors_in(output))
    ranked = [
        (rank, path, tensor)
        for path, tensor in tensors
        if (rank := _rank(tensor, sample, is_chosen)) is not None
    ]
    if not ranked:
        vectors = [t for _, t in tensors if t.ndim == 2 and len(t) == sample.images]
        if sample.classes is not None and vectors:
            raise _no_scores(vectors[0], sample)
        return (), None
    best = min(rank for rank, _, _ in ranked)
    found = {path: tensor for rank, path, tensor in ranked if rank == best}
    if len(found) > 1:
        for name in _NAMES_OF_SCORES:
            named = [path for path in found if path[-1] == name]
            if len(named) == 1:
                return named[0], found[named[0]]
        listed = ", ".join(f"{path_text(path)} {tuple(t.shape)}" for path, t in found.items())
        first, second = (path_text(path) for path in list(found)[:2])
        raise InputError(
            "AS361",
            f"several outputs of the network can be class scores ({listed}); choose one with "
            f"--output {first} or --output {second}, or output= in Python",
        )
    ((path, tensor),) = found.items()
    return path, tensor


def _rank(tensor: Tensor, sample: Sample, is_chosen: bool) -> int | None:
    """Return how well a tensor can be class scores, 0 for best; None if it cannot.

    0 is a vector of scores for each image, 1 one number for each image, 2 a map for each class.
    """
    if not tensor.is_floating_point() or not tensor.ndim or len(tensor) != sample.images:
        return None
    count = 1 if tensor.ndim == 1 else tensor.shape[1]
    known = sample.classes
    if tensor.ndim == 2 and (count == known if known is not None else count > 1):
        return 0
    is_one = count == 1 and known in (None, 2) and sample.class_labels
    if is_one and tensor[0].numel() == 1:
        return 1
    # A map of an unknown number of classes cannot be told from features or a picture.
    is_map = tensor.ndim > 2 and (known is not None or is_chosen or tensor[0, 0].numel() == 1)
    return 2 if is_map and (is_one or count == (known or count)) else None


def _no_scores(tensor: Tensor, sample: Sample) -> InputError:
    """Return the refusal of an output whose shape is not that of class scores."""
    remedy = (
        "choose another output with --output (a key, an index or module:function), or --output "
        "none to record the gates without class scores"
    )
    if tensor.ndim == 2 and len(tensor) == sample.images and sample.classes is not None:
        names = f" or, for images in files, name its {tensor.shape[1]} classes with --classes"
        names += " (in Python: classes=)"
        return InputError(
            "AS661",
            f"the network has {tensor.shape[1]} classes and the data set has {sample.classes}; use "
            f"a network with {sample.classes} outputs"
            f"{names if tensor.shape[1] > sample.classes else ''}; if these are no class scores, "
            f"{remedy}",
        )
    classes = "K" if sample.classes is None else sample.classes
    return InputError(
        "AS662",
        f"the output of the network has shape {tuple(tensor.shape)}; class scores have shape "
        f"(N, {classes}), one row per image: {remedy}",
    )


def _expect_form(output: Any, chosen: str | int) -> str:
    """Return the name of a form.

    Raises:
        InputError: There is neither such a form nor such an output (AS362).
    """
    if isinstance(chosen, str) and chosen in OUTPUT_FORMS:
        return chosen
    raise InputError(
        "AS362",
        f"the network returns {describe(output)}, which has no output '{chosen}'; choose one of "
        f"its keys or indices, module:function, or a form: {', '.join(OUTPUT_FORMS)}",
    )


def _of_form(output: Any, sample: Sample, form: str) -> OutputAdapter:
    """Return the adapter of a form that was chosen by hand.

    Raises:
        InputError: The output has no scores, or another shape than the form needs.
    """
    if form == NO_SCORES:
        return OutputAdapter(form=NO_SCORES)
    path, tensor = _scores_in(output, sample, is_chosen=True)
    if tensor is None:
        raise InputError(
            "AS362",
            f"the network returns {describe(output)}, which has no scores that could be {form}; "
            "choose them with --output module:function",
        )
    found = OutputAdapter(path, over_positions=tensor.ndim > 2, form=form)
    value = found.part(output)
    if OUTPUT_FORMS.find(form).is_one_number != (value.ndim == 1 or value.shape[1] == 1):
        raise InputError(
            "AS362",
            f"an output of shape {tuple(tensor.shape)} cannot be {form}; choose another form: "
            f"{', '.join(OUTPUT_FORMS)}",
        )
    return found
