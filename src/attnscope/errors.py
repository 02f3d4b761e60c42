"""Input that cannot be used: one exception, and a stable code for each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ERRORS: Mapping[str, str] = MappingProxyType(
    {
        # AS0: internal to the move of every message to a code.
        "AS000": "Input cannot be used.",
        # AS1: the command line, settings, files, plugins and devices.
        # AS2: images and data sources.
        # AS3: networks and weights.
        # AS4: gates and attribution.
        # AS5: training and run folders.
        # AS6: capture and recordings.
        # AS7: statistics and comparisons.
        # AS8: interventions and folding.
        # AS9: plots, reports and the dashboard.
        "AS940": "A script in analysis/ got no run.",
        "AS941": "Two runs given to a script in analysis/ have the same folder name.",
        "AS942": "Interventions on disk belong to another recording.",
    }
)
"""Code -> what is wrong, as one sentence. A code keeps its meaning in all later versions.

The first digit names the subject. `docs/errors/` has a page for each subject.
"""


class InputError(ValueError):
    """The input cannot be used.

    The message is one line. It names the thing, says what is expected, and ends with the remedy.
    The commands print it with its code and exit with code 2. Any other exception is a bug of
    attnscope and keeps its traceback.

    Attributes:
        code: one of `ERRORS`, such as ``"AS104"``.
        message: the message without the code.
    """

    def __init__(self, code: str, message: str | None = None) -> None:
        if message is None:
            code, message = "AS000", code
        if code not in ERRORS:
            raise LookupError(f"{code} is not in attnscope.errors.ERRORS")
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        if self.code == "AS000":  # a message that has no code yet
            return self.message
        return f"{self.message} [{self.code}]"


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or the name of its type if it has none.

    An `InputError` gives its message without the code.
    """
    text = error.message if isinstance(error, InputError) else str(error)
    return (text.splitlines() or [type(error).__name__])[0]
