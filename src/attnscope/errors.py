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
        "AS801": "The number of images of an experiment is below 1.",
        "AS802": "The batch size of an experiment or a fold is below 1.",
        "AS803": "The random seed of an experiment is negative.",
        "AS804": "The data has another number of images than the recording.",
        "AS805": "The data has other images or labels than the recording.",
        "AS806": "The recording of an experiment has no gates.",
        "AS807": "The recording of an experiment was not captured in fp32.",
        "AS808": "No class has two images, so that no image can serve as a donor.",
        "AS809": "The network does not give the recorded logits.",
        "AS810": "A folder holds something else than outcomes of interventions.",
        "AS811": "A folder holds outcomes of another recording, other images or another seed.",
        "AS812": "A folder holds outcomes of all experiments that were asked for.",
        "AS813": "An experiment is unknown.",
        "AS814": "The network is not deterministic.",
        "AS815": "The recording has no channel gate with several values.",
        "AS816": "A share of channels is not above 0 and at most 1.",
        "AS817": "The number of random draws is below 1.",
        "AS818": "The number of steps of deletion and insertion is below 1.",
        "AS819": "Fewer than two images are left to estimate BatchNorm statistics on.",
        "AS820": "A recording of another seed is of the same weights.",
        "AS821": "A recording of another seed has another network or other training settings.",
        "AS822": "A recording of another seed lacks a gate.",
        "AS823": "A replacement for a gate is unknown.",
        "AS824": "A recording for interventions has changed or incomplete files.",
        "AS850": "The network to fold was not built by attnscope.build_model.",
        "AS851": "The network to fold is folded already.",
        "AS852": "The network to fold has no gate of this name.",
        "AS853": "The mean of a gate has the wrong shape.",
        "AS854": "The mean of a gate is not finite or is negative.",
        "AS855": "A fold has both a tolerance and the names of gates.",
        "AS856": "The tolerance of a fold is not within 0 to 100 percentage points.",
        "AS857": "The form of a folded spatial gate is unknown.",
        "AS858": "The network to fold has no gates.",
        "AS859": "No gate can be folded within the tolerance.",
        "AS860": "The folded network does not give the logits of the edited network.",
        "AS861": "The remaining gates of a network with stored maps cannot be found.",
        # AS9: plots, reports and the dashboard.
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
