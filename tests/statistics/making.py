"""Checks that the tests of the statistics share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from attnscope.errors import ERRORS, InputError
from tests.making import refused


@contextmanager
def refused_elsewhere(code: str, names: tuple[object, ...] = ()) -> Iterator[None]:
    """As `refused`, for an error of another package whose code may not exist yet."""
    if code in ERRORS:
        with refused(code, names):
            yield
        return
    with pytest.raises(InputError) as caught:
        yield
    for name in names:
        assert str(name) in str(caught.value)
