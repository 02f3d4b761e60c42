"""A map from tensors to values that does not keep the tensors alive.

It does what `torch.utils.weak.WeakTensorKeyDictionary` does, at a tenth of the time for a tensor
that is not in it. Most tensors of a network are not, and each operation asks for several.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any, Generic, TypeVar, overload

from torch import Tensor

Value = TypeVar("Value")
Default = TypeVar("Default")


class TensorMap(Generic[Value]):
    """Maps tensors, by identity, to values. An entry ends with its tensor."""

    __slots__ = ("__weakref__", "_entries")

    def __init__(self) -> None:
        self._entries: dict[int, tuple[weakref.ref[Tensor], Value]] = {}

    def __setitem__(self, tensor: Tensor, value: Value) -> None:
        key, entries = id(tensor), self._entries

        def forget(reference: weakref.ref[Tensor]) -> None:
            # Another tensor may have got the same id in the meantime.
            entry = entries.get(key)
            if entry is not None and entry[0] is reference:
                del entries[key]

        entries[key] = weakref.ref(tensor, forget), value

    @overload
    def get(self, tensor: Any) -> Value | None: ...
    @overload
    def get(self, tensor: Any, default: Default) -> Value | Default: ...
    def get(self, tensor: Any, default: Any = None) -> Any:
        """Return the value of a tensor, or the default."""
        entry = self._entries.get(id(tensor))
        return default if entry is None or entry[0]() is not tensor else entry[1]

    def discard(self, tensor: Any) -> None:
        """Remove a tensor, if it is in the map."""
        self._entries.pop(id(tensor), None)

    def items(self) -> Iterator[tuple[Tensor, Value]]:
        """Yield the tensors that still exist, with their values."""
        for reference, value in list(self._entries.values()):
            tensor = reference()
            if tensor is not None:
                yield tensor, value

    def __contains__(self, tensor: Any) -> bool:
        return self.get(tensor, self) is not self

    def __len__(self) -> int:
        return len(self._entries)
