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
        "AS601": "A folder holds no recording or moments.",
        "AS602": "A recording has a format that this version cannot read.",
        "AS603": "A folder holds moments instead of a recording, or the reverse.",
        "AS604": "The manifest of a recording is damaged.",
        "AS605": "A recording has a gate of a kind that is not registered.",
        "AS606": "A file of a shard cannot be read.",
        "AS607": "A link leads outside a recording or outside the folder that was searched.",
        "AS608": "A recording has no gate of that name.",
        "AS609": "A gate is of another kind than the one that was asked for.",
        "AS610": "A Grad-CAM target is neither 'predicted' nor 'true'.",
        "AS611": "Grad-CAM of a layer was not recorded.",
        "AS612": "The pooled input of a gate was not recorded.",
        "AS613": "An attribution method was not recorded.",
        "AS614": "An attribution method was not recorded for that layer.",
        "AS615": "xarray is not installed.",
        "AS616": "A label or prediction in a recording is not one of its classes.",
        "AS620": "The folder in which to look for recordings does not exist.",
        "AS630": "A table of interventions does not exist.",
        "AS631": "A folder holds no interventions.",
        "AS632": "The tables of interventions cannot be read.",
        "AS640": "A recording does not say where its network and images come from.",
        "AS641": "The network and images that a recording names cannot be opened.",
        "AS642": "The network of a recording now has other weights.",
        "AS643": "The data set of a recording now has other images.",
        "AS650": "The folder of a recording cannot be created.",
        "AS651": "Another capture is writing to the same folder.",
        "AS652": "An unfinished recording has no plan.",
        "AS653": "An unfinished recording was started with other settings.",
        "AS654": "A shard of an unfinished recording has changed.",
        "AS655": "A folder among the shards of an unfinished recording is not a shard.",
        "AS656": "A shard belongs to another recording.",
        "AS657": "A shard of an unfinished recording is missing.",
        "AS658": "No image was recorded.",
        "AS660": "The data set to capture is empty.",
        "AS661": "The network and the data set have different numbers of classes.",
        "AS662": "The network to capture does not return logits.",
        "AS663": "The name of a class is not a string.",
        "AS664": "The logits of the network are not finite.",
        "AS665": "A label is not one of the classes of the network.",
        "AS666": "An array has different shapes in two batches.",
        "AS667": "Images have values outside 0 to 1, and their normalization is not known.",
        "AS668": "An item of the data set is not an image with a label.",
        "AS669": "Images of the data set have different sizes.",
        "AS670": "The precision of a capture is unknown.",
        "AS671": "A number of a capture's settings is below 1.",
        "AS672": "Moments cannot hold pooled inputs.",
        "AS673": "Moments cannot hold attributions.",
        "AS681": "A file of a recording has changed since it was written.",
        "AS682": "A file of a recording is missing.",
        "AS683": "A recording contains an entry that is not one of its shards.",
        "AS684": "A recording contains a shard of another recording.",
        "AS685": "The manifest of a recording differs from its plan.",
        "AS686": "Labels or predictions in a recording are not classes.",
        "AS687": "An array of a recording has values that are not finite or out of bounds.",
        "AS688": "An array has different shapes in two shards.",
        "AS689": "An array has another number of rows than it should.",
        "AS690": "The counts of moments do not match their rows.",
        "AS691": "A count of moments is impossible.",
        # AS7: statistics and comparisons.
        # AS8: interventions and folding.
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
