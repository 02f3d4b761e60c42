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
        "AS201": "A data source is unknown, or written in the wrong form.",
        "AS202": "A data set is missing, incomplete or changed, and must not be downloaded.",
        "AS203": "A data set cannot be downloaded.",
        "AS204": "An image folder does not exist.",
        "AS205": "An image folder has no training split.",
        "AS206": "An image folder has no test or validation split.",
        "AS207": "An image folder has more than two splits beside the training split.",
        "AS208": "A class folder of a training split has no images.",
        "AS209": "A training split has fewer than two classes.",
        "AS210": "A test or validation split has a class that the training split lacks.",
        "AS211": "A test or validation split has no images.",
        "AS212": "Image files cannot be read.",
        "AS213": "No image of a split, or of a class of the training split, can be read.",
        "AS214": "A class folder contains a symbolic link to a folder.",
        "AS215": "A symbolic link leads out of the image folder.",
        "AS216": "The name of an image file is not UTF-8.",
        "AS217": "The decoded images need more memory than the limit.",
        "AS218": "A class has too few images for a validation split.",
        "AS219": "The validation share is not between 0 and 1.",
        "AS220": "The random seed of a split is negative.",
        "AS221": "The image size is out of range.",
        "AS222": "The size to which images are resized before cropping is out of range.",
        "AS223": "A standard deviation for normalization is not positive.",
        # AS3: networks and weights.
        "AS301": "A network name is unknown.",
        "AS302": "An attention module is unknown.",
        "AS303": "A placement of attention modules is unknown.",
        "AS304": "A stem is unknown.",
        "AS305": "A start value of gates is unknown.",
        "AS306": "The number of classes is less than 1.",
        "AS307": "The width of a ResNet is too small.",
        "AS308": "An option does not apply to the network 'cnn'.",
        "AS309": "The reduction leaves a channel gate without hidden channels.",
        "AS310": "The kernel size of a spatial gate is not a positive odd number.",
        "AS311": "The name of an attention module is reserved.",
        "AS312": "A gate of an attention module cannot start at 1.",
        "AS313": "The network 'cnn' does not support this image size.",
        "AS314": "The stored map of a folded gate has another size than the features.",
        "AS320": "A target does not exist.",
        "AS321": "The configuration of a run is incomplete.",
        "AS322": "The package timm is not installed.",
        "AS323": "A library has no network of this name.",
        "AS324": "The Python module of a target cannot be imported.",
        "AS325": "The Python module of a target has no such callable.",
        "AS326": "Building the network of a target failed.",
        "AS327": "The callable of a target did not return a torch.nn.Module.",
        "AS328": "A number of classes is given for a network that takes no arguments.",
        "AS329": "A network would be used with random weights.",
        "AS330": "A weights file that a recording refers to is missing.",
        "AS331": "A weights file has changed since the recording was made.",
        "AS340": "A folder has no saved network.",
        "AS341": "A saved model.json does not describe a network.",
        "AS342": "A weights file does not exist.",
        "AS343": "A safetensors file is incomplete or damaged.",
        "AS344": "A weights file cannot be read.",
        "AS345": "A weights file contains more than tensors.",
        "AS346": "A weights file contains no state dict.",
        "AS347": "Weights do not fit the network.",
        "AS348": "A weights file is damaged or has an unknown format.",
        "AS350": "There are no ImageNet weights for a network.",
        "AS351": "ImageNet weights cannot be downloaded.",
        "AS352": "Weights to start from belong to a folded network.",
        "AS353": "Weights to start from belong to another network.",
        "AS354": "The gates of a network and of its weights start at different values.",
        # AS4: gates and attribution.
        "AS401": "The network has no gate of this name.",
        "AS402": "A gate did not multiply anything during a forward.",
        "AS403": "An edit returned a value of the wrong shape or type.",
        "AS404": "A gate varies along an axis along which it was constant on the sample.",
        "AS405": "A gate runs inside torch.utils.checkpoint.",
        "AS406": "A module is scripted or compiled, so its operations cannot be traced.",
        "AS407": "The kind of a gate cannot be determined from the sample.",
        "AS408": "The name of an operation is not the name of a function.",
        "AS409": "An operation is already registered under this name.",
        "AS410": "No layer returns a feature map for Grad-CAM.",
        "AS411": "The layer chosen for Grad-CAM does not return a feature map.",
        "AS412": "The network has no layer of this name for Grad-CAM.",
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
        "AS701": "A number of permutations or resamples is below 1.",
        "AS702": "The number of calibration bins is below 1.",
        "AS703": "A threshold of the gate states is missing or outside 0 to 0.5.",
        "AS704": "Recorded values are NaN or infinite.",
        "AS705": "The activation of a gate has no known inverse.",
        "AS706": "The input of a linear probe is unknown.",
        "AS707": "A table of outcomes lacks a column.",
        "AS708": "An image has no outcome of the unedited network.",
        "AS709": "An image has several outcomes of the unedited network.",
        "AS710": "An edit is unknown.",
        "AS711": "A table of outcomes lacks a decoded gate.",
        "AS712": "There are no usage tables to summarize.",
        "AS713": "Usage tables are of different gates.",
        "AS720": "Two recordings have different classes.",
        "AS721": "Two recordings have different numbers of images.",
        "AS722": "Two recordings have different image paths.",
        "AS723": "Two recordings have different labels for the same image.",
        "AS724": "Two recordings have attributions of different images.",
        "AS725": "Two recordings have no channel gate with the same name.",
        "AS730": "There are no recordings to compare.",
        "AS731": "Two kinds of network have different numbers of recordings.",
        "AS732": "The two recordings of a pair have different seeds.",
        "AS733": "Two recordings of one kind have the same seed.",
        "AS734": "Two kinds of network have the same name.",
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
