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
        "AS900": "A plot is called with the wrong number or kind of arguments.",
        "AS901": "A plot has several panels and cannot be drawn on one Axes.",
        "AS902": "A plot has no such page.",
        "AS903": "A plot over the seeds of one kind of network got several kinds.",
        "AS904": "The subject lacks something that a plot needs.",
        "AS905": "A recording has no interventions.",
        "AS906": "A table of interventions is missing.",
        "AS907": "Interventions on several seeds scored different images.",
        "AS908": "A recording has no attributions other than Grad-CAM.",
        "AS909": "A recording is not in a run that has the file a plot needs.",
        "AS910": "The interventions did not replace any gate by its mean.",
        "AS911": "A training log has no epoch yet.",
        "AS912": "A training log cannot be read.",
        "AS913": "The training images of a run cannot be read.",
        "AS914": "A report has no run.",
        "AS921": "A single network is compared with a list of seeds.",
        "AS922": "The recordings are not of exactly two kinds of network.",
        "AS923": "A recording is expected, and the argument is something else.",
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
