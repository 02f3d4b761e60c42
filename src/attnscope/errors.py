"""The one exception for input that cannot be used."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used; the message is one line that names the thing and the remedy.

    The commands print the message and exit with code 2. Any other exception is a bug of ours and
    keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
