"""Input that cannot be used: one exception, and a stable code for each thing that can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ERRORS: Mapping[str, str] = MappingProxyType(
    {
        # AS0: internal to the move of every message to a code.
        "AS000": "Input cannot be used.",
        # AS1: the command line, settings, files, plugins and devices.
        "AS101": "A setting has a value of the wrong type.",
        "AS102": "A setting has a value that is not allowed.",
        "AS103": "A table of settings has an unknown key.",
        "AS104": "A table of settings lacks a required key.",
        "AS110": "A file does not exist.",
        "AS111": "A file cannot be read.",
        "AS112": "A file is not valid JSON.",
        "AS113": "An output path already exists.",
        "AS114": "An output folder cannot be created.",
        "AS115": "A file cannot be locked.",
        "AS120": "No plot, recipe or other entry is registered under a name.",
        "AS121": "A name is already registered.",
        "AS122": "A name contains characters that registered names cannot have.",
        "AS123": "An object cannot be registered because it is incomplete.",
        "AS124": "A plugin of an installed package cannot be imported.",
        "AS125": "A module given with --plugin cannot be imported.",
        "AS130": "The name of a device is unknown.",
        "AS131": "A device is not available.",
        "AS132": "The name of a precision is unknown.",
        "AS133": "RANK and WORLD_SIZE contradict each other.",
        "AS140": "A port number is out of range.",
        "AS141": "A port cannot be opened.",
        "AS142": "The pages of the dashboard are not installed.",
        # AS2: images and data sources.
        # AS3: networks and weights.
        # AS4: gates and attribution.
        # AS5: training and run folders.
        "AS501": "The shares of a recipe's phases do not sum to 1.",
        "AS502": "A recipe combines a schedule with phases that start a new optimizer.",
        "AS503": "A recipe trains a module that the network does not have.",
        "AS504": "The network does not return one logit for each class.",
        "AS505": "The number of class weights differs from the number of classes.",
        "AS506": "A class without training images cannot be balanced.",
        "AS507": "There are too few training images for the devices and accumulated batches.",
        "AS510": "A recipe file does not exist.",
        "AS511": "A recipe file cannot be read.",
        "AS512": "A recipe file is not valid TOML.",
        "AS513": "The base of a recipe file is not the name of a recipe.",
        "AS514": "A recipe file has another value where a table is expected.",
        "AS515": "A recipe file names an unknown kind of optimizer or schedule.",
        "AS516": "A recipe file gives a constant schedule additional keys.",
        "AS520": "A run cannot be resumed because it has finished.",
        "AS521": "A folder cannot be resumed because it is not a run.",
        "AS522": "A run cannot be resumed with settings that differ from those of its start.",
        "AS523": "A checkpoint is damaged.",
        "AS524": "A checkpoint does not fit the network or the recipe.",
        "AS530": "A run folder does not exist.",
        "AS531": "The configuration of a run is incomplete or invalid.",
        "AS532": "A run has no recording of a split.",
        "AS533": "A run has no moments of a split.",
        "AS534": "A run has no recording of its untrained network.",
        "AS535": "A folder is neither a run nor a recording.",
        "AS536": "The name of a split is unknown.",
        "AS537": "The data has other classes than the run was trained with.",
        "AS538": "The training or validation images are not those that the run was trained with.",
        "AS539": "A run has no result because its training has not finished.",
        # AS6: capture and recordings.
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
