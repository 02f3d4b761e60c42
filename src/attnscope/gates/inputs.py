"""The inputs of a network: their batch size, and variants that change one dimension."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SPATIAL = {1: "L", 2: "HW", 3: "DHW"}
"""Number of spatial axes -> their letters."""


@dataclass(frozen=True)
class Inputs:
    """Positional and keyword arguments of one forward.

    A tensor holds one image per entry of its first axis, and a list one image per entry. Tensors,
    lists, tuples, dicts and dataclasses may be nested.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: Any) -> Inputs:
        """Return the inputs that `attnscope.find_gates` takes: a tuple is several arguments."""
        return cls(inputs if isinstance(inputs, tuple) else (inputs,), {})

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, including those in lists."""
        return list(_tensors_in((self.args, dict(self.kwargs))))

    @property
    def main(self) -> Tensor | None:
        """The tensor with the most axes, which is the first of them. None without a tensor."""
        return max(self.tensors, key=lambda tensor: tensor.ndim, default=None)

    @property
    def is_list(self) -> bool:
        """Whether the images are the entries of a list."""
        return any(_lists_in((self.args, dict(self.kwargs))))

    def batch_size(self, batched: bool = True) -> int | None:
        """Return the number of images.

        Args:
            batched: whether the first axis of the main tensor is the batch.

        Returns:
            The length of the list or of the first axis. None if there is no batch axis.
        """
        for images in _lists_in((self.args, dict(self.kwargs))):
            return len(images)
        if self.main is None or not batched or self.main.ndim == 0:
            return None
        return self.main.shape[0]

    def limited(self, count: int) -> Inputs:
        """Return the first images.

        Args:
            count: how many. If there are not more, or the first axis may not be the batch, the
                inputs are returned as they are.
        """
        size, main = self.batch_size(), self.main
        if size is None or size <= count or main is None or (main.ndim < 4 and not self.is_list):
            return self

        def shorten(tensor: Tensor) -> Tensor:
            return tensor[:count] if tensor.ndim and tensor.shape[0] == size else tensor

        return self._map(shorten, lambda images: images[:count])

    def copied(self) -> Inputs:
        """Return copies of the inputs, into which a network may write."""
        return self._map(torch.clone, lambda images: [image.clone() for image in images])

    def placed(self, device: torch.device, dtype: torch.dtype) -> Inputs:
        """Return copies of the inputs on a device; floating-point tensors in one precision."""

        def place(tensor: Tensor) -> Tensor:
            precision = dtype if tensor.is_floating_point() else tensor.dtype
            return tensor.detach().to(device, precision, copy=True)

        return self._map(place, lambda images: [place(image) for image in images])

    def with_one_more(self) -> Inputs:
        """Return the same images and one more, which is noise.

        The noise shows along which axes a gate varies even if the sample is constant.
        """
        count = self.batch_size()
        generator = torch.Generator().manual_seed(0)

        def extend(tensor: Tensor) -> Tensor:
            if tensor.ndim == 0 or tensor.shape[0] != count:
                return tensor
            return torch.cat([tensor, _noise_like(tensor[-1:], generator)])

        def extend_list(images: list[Tensor]) -> list[Tensor]:
            return [*images, _noise_like(images[-1], generator)]

        return self._map(extend, extend_list)

    def doubled(self, axis: int) -> Inputs:
        """Return the inputs with one axis doubled, in all tensors that share it.

        Args:
            axis: axis of the main tensor, counted from the end: -1 is the last one.
        """
        main = self.main
        assert main is not None

        def double(tensor: Tensor) -> Tensor:
            if tensor.ndim != main.ndim or tensor.shape[axis] != main.shape[axis]:
                return tensor
            return tensor.repeat_interleave(2, axis)

        return self._map(double, lambda images: [double(image) for image in images])

    def _map(
        self,
        change: Callable[[Tensor], Tensor],
        change_list: Callable[[list[Tensor]], list[Tensor]],
    ) -> Inputs:
        return Inputs(
            tuple(_map(value, change, change_list) for value in self.args),
            {key: _map(value, change, change_list) for key, value in self.kwargs.items()},
        )


def _map(
    value: Any,
    change: Callable[[Tensor], Tensor],
    change_list: Callable[[list[Tensor]], list[Tensor]],
) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if _is_list_of_images(value):
        return change_list(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(each, change, change_list) for each in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_map(each, change, change_list) for each in value)
    if isinstance(value, dict):
        changed = {key: _map(each, change, change_list) for key, each in value.items()}
        try:
            return type(value)(changed)
        except TypeError:
            return changed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(
            value,
            **{name: _map(getattr(value, name), change, change_list) for name in fields},
        )
    return value


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Mapping):
        return list(value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return []


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for child in _children(value):
        yield from _tensors_in(child)


def _lists_in(value: Any) -> Iterator[list[Tensor]]:
    """Yield the lists that hold one image per entry."""
    if _is_list_of_images(value):
        yield value
        return
    for child in _children(value):
        yield from _lists_in(child)


def _is_list_of_images(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, Tensor) for x in value)


def _noise_like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor.flip(-1) if tensor.ndim > 1 else tensor.clone()
    noise = torch.randn(tensor.shape, generator=generator)
    spread = float(tensor.float().std()) if tensor.numel() > 1 else 0.0
    return (noise * (spread or 1.0) + float(tensor.float().mean())).to(tensor)
