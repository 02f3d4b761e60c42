"""The network of a recording, which answers at once: `LiveNetwork`."""

from attnscope.live.edits import Channels as Channels
from attnscope.live.edits import GateEdit as GateEdit
from attnscope.live.edits import Mean as Mean
from attnscope.live.edits import Neutral as Neutral
from attnscope.live.edits import OfImage as OfImage
from attnscope.live.edits import Values as Values
from attnscope.live.network import Given as Given
from attnscope.live.network import LiveNetwork as LiveNetwork
from attnscope.live.network import Preparation as Preparation
