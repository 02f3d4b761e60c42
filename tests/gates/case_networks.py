"""Tiny networks whose gates are known, and a checker that compares attnscope with them.

Each case is a network of a few hundred weights. Every forward keeps what multiplied the features,
under a label and without attnscope: `truth` gives it in the gate's own axes. The checker uses the
public functions alone (find_gates, inspect_gates, watch_gates, edit_gates). `Case` describes what a
case states.

This file has more than 400 lines, because it holds one class for each case.
"""

import copy
import dataclasses
import pickle
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# ---------------------------------------------------------------------------------------------
# The form of a case
# ---------------------------------------------------------------------------------------------


class Noted(dict):
    """Label -> gate. Not a plain dict, so that torch.export does not take it for state."""


class Case(nn.Module):
    """A network and what must be found in it.

    Axes are letters: N images, C channels, H W D L positions, B paths, G groups. "NGC|NC" says
    that both readings are right; the truth then has the axes of the first.
    """

    expected: dict[str, str] = {}
    """Label -> axes of each gate."""
    either: dict[str, tuple[str, str]] = {}
    """Label -> axes and words: it may be a gate, which must then be right, or it is listed as no
    gate, with one of the words."""
    not_gates: dict[str, str] = {}
    """Label -> words: it must be listed as no gate, and the entry must hold one of the words."""
    unreached: tuple[str, ...] = ()
    """Gates which `run` does not reach: they must have no value then."""
    refused = ""
    """Words: to refuse the network, or to list a gate as unreadable, with one of these words is as
    good as to read it."""
    training_mode = False
    """Whether gates are read and edited in training mode."""
    lazy = False
    """Whether parameters have no shape before the first forward."""
    scale: dict[str, float] = {}
    """Label -> factor of the true gate, for the output that an edit must give."""

    def __init__(self) -> None:
        super().__init__()
        self.noted = Noted()

    def inputs(self, batch: int) -> object:
        """Arguments for so many images: a tuple is several arguments, anything else is one."""
        return torch.randn(batch, 3, 8, 8)

    def sample(self) -> object:
        """On what the gates are found."""
        return self.inputs(2)

    def run(self, inputs: object) -> Tensor:
        """How the network is used while gates are read and edited."""
        return self(*inputs) if isinstance(inputs, tuple) else self(inputs)

    def also(self, gates: list) -> str:
        """What else must hold; returns what does not."""
        return ""

    def note(
        self,
        label: str,
        gate: Tensor,
        own: Callable[[Tensor], Tensor] | None = None,
        divides: bool = False,
    ) -> Tensor:
        """Keeps a gate as it multiplies; returns what is to multiply.

        Args:
            own: gives the gate its own axes; by default it loses the axes of size one. It runs
                after the forward, so that attnscope does not see it.
            divides: the gate is one over this tensor.
        """
        self.noted[label] = gate.detach().clone(), own
        if label not in self.scale:
            return gate
        return gate / self.scale[label] if divides else gate * self.scale[label]

    def labels(self) -> dict[str, str]:
        """Label -> axes of all that may be gates."""
        return {**self.expected, **{label: axes for label, (axes, _) in self.either.items()}}

    @property
    def truth(self) -> dict[str, Tensor]:
        """What multiplied the features in the last forward."""
        return {label: (own or squeezed)(gate) for label, (gate, own) in self.noted.items()}


def squeezed(gate: Tensor) -> Tensor:
    """The gate without axes of size one; the images stay."""
    return gate.reshape([n for axis, n in enumerate(gate.shape) if axis == 0 or n > 1])


CASES: dict[str, type[Case]] = {}
"""Every case by its name."""


def case(cls: type[Case], cases: dict[str, type[Case]] = CASES) -> type[Case]:
    """Registers a class; its name becomes the name of the case."""
    name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).strip("_")
    cases[name] = cls
    return cls


class Block(Case):
    """Stem, one gate as `act` spells it, pooled logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 8)
        self.conv = nn.Conv2d(8, 1, 3, padding=1)
        self.head = nn.Linear(8, 4)
        nn.init.normal_(self.fc.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.stem(x).relu()).mean((2, 3)))

    def act(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def channel(self, x: Tensor) -> Tensor:
        """Channel logits, (N, 8, 1, 1)."""
        return self.fc(x.mean((2, 3)))[:, :, None, None]

    def spatial(self, x: Tensor) -> Tensor:
        """Spatial logits, (N, 1, H, W)."""
        return self.conv(x)


def spelling(axes: str = "", cases: dict[str, type[Case]] = CASES, **more):
    """Makes a case of a function of a block and its features: one spelling of one gate."""

    def add(act):
        expected = {"gate": axes} if axes else {}
        body = {"act": act, "expected": expected, "__doc__": act.__doc__, **more}
        cases[act.__name__] = type(act.__name__, (Block,), body)
        return act

    return add


class SE(nn.Module):
    """Squeeze and excitation of (N, C, ...)."""

    def __init__(self, case: Case, label: str = "se", channels: int = 8) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.note, self.label = case.note, label

    def forward(self, x: Tensor, label: str = "") -> Tensor:
        z = self.fc2(self.fc1(x.flatten(2).mean(2)).relu())
        gate = z.sigmoid().reshape(*z.shape, *[1] * (x.ndim - 2))
        return x * self.note(label or self.label, gate)


# ---------------------------------------------------------------------------------------------
# What version 0.1 reads
# ---------------------------------------------------------------------------------------------


@spelling("NC")
def squeeze_excitation(net, x):
    """The plain block, in the forward of the network itself."""
    return x * net.note("gate", net.channel(x).sigmoid())


@spelling("NC")
def one_plus_gate_in_place(net, x):
    x *= net.note("gate", 1 + net.channel(x).tanh())
    return x


@case
class Cbam(Block):
    expected = {"channel": "NC", "spatial": "NHW"}

    def act(self, x):
        z = self.fc(x.mean((2, 3))) + self.fc(x.amax((2, 3)))
        x = x * self.note("channel", z.sigmoid()[:, :, None, None])
        return x * self.note("spatial", self.spatial(x).sigmoid())


@case
class Eca(Case):
    expected = {"gate": "NC"}

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3), nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        x = self.stem(x).relu()
        z = self.conv(x.mean((2, 3))[:, None]).transpose(1, 2)[..., None]
        return (x * self.note("gate", z.sigmoid())).mean((2, 3))


@spelling("NC")
def hardsigmoid_by_hand(net, x):
    return x * net.note("gate", F.relu6(net.channel(x) + 3) / 6)


# ---------------------------------------------------------------------------------------------
# Calls that bypass the call of the network
# ---------------------------------------------------------------------------------------------


class Staged(Case):
    """A stem with an SE block, and a head."""

    expected = {"se": "NC"}

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), SE(self))
        self.head = nn.Linear(8, 4)

    def forward_features(self, x):
        return self.backbone(x)

    def forward(self, x):
        return self.head(self.forward_features(x).mean((2, 3)))


@case
class CallsForwardFeatures(Staged):
    """A second gate lies in the head, which this call does not reach."""

    expected = {"se": "NC", "head": "NC"}
    unreached = ("head",)

    def __init__(self):
        super().__init__()
        self.last = SE(self, "head")

    def forward(self, x):
        return self.head(self.last(self.forward_features(x)).mean((2, 3)))

    def run(self, x):
        return self.forward_features(x)


@case
class CallsBackbone(Staged):
    def run(self, x):
        return self.backbone(x)


@case
class CallsForward(Staged):
    def run(self, x):
        return self.forward(x)


@case
class CallsMethodOfTheNetwork(Block):
    """Both gates are made by the network itself, and only its parts are called."""

    expected = {"channel": "NC", "spatial": "NHW"}
    refused = "__call__|bypass"

    def act(self, x):
        x = x * self.note("channel", self.channel(x).sigmoid())
        return x * self.note("spatial", self.spatial(x).sigmoid())

    def run(self, x):
        return self.act(self.stem(x).relu())


@case
class WatchedAtOnce(Staged):
    """The network and its backbone are watched at the same time, on gates not given."""

    def also(self, gates):
        import attnscope

        x = self.inputs(3)
        with attnscope.watch_gates(self) as outer, attnscope.watch_gates(self.backbone) as inner:
            self(x)
            read = [*outer.values(), *inner.values()]
        right = len(read) == 2 and all(torch.equal(v, self.truth["se"]) for v in read)
        return "" if right else "a network and its submodule cannot be watched at once"


# ---------------------------------------------------------------------------------------------
# Gates that are written out, on features that are bounded, too
# ---------------------------------------------------------------------------------------------


@spelling("NC")
def relu6_features_expanded_gate(net, x):
    gate = net.note("gate", net.channel(x).sigmoid())
    return F.relu6(x) * gate.expand_as(x)


@spelling("NHW")
def tanh_features_repeated_map(net, x):
    gate = net.note("gate", net.spatial(x).sigmoid())
    return x.tanh() * gate.repeat(1, x.shape[1], 1, 1)


@spelling("NC")
def sigmoid_features_interpolated_gate(net, x):
    gate = net.note("gate", net.channel(x).sigmoid())
    return x.sigmoid() * F.interpolate(gate, size=x.shape[2:])


# ---------------------------------------------------------------------------------------------
# Bounded by other means than a known activation
# ---------------------------------------------------------------------------------------------


@spelling("NC")
def divided_by_one_plus_exp(net, x):
    """The multiplier is one over the divisor."""
    divisor = 1 + torch.exp(-net.channel(x))
    return x / net.note("gate", divisor, lambda d: squeezed(1 / d), divides=True)


@spelling("NC")
def relu_clamped_at_one(net, x):
    return x * net.note("gate", (2 * net.channel(x)).relu().clamp(max=1))


@spelling("NC")
def gaussian(net, x):
    z = net.channel(x)
    return x * net.note("gate", torch.exp(-z * z))


@spelling("NC")
def softsign(net, x):
    return x * net.note("gate", F.softsign(net.channel(x)))


@spelling("NC")
def exp_of_logsigmoid(net, x):
    return x * net.note("gate", F.logsigmoid(net.channel(x)).exp())


@spelling(either={"gate": ("NHW", "unbounded")})
def min_max_normalized_map(net, x):
    """Interval arithmetic alone cannot bound it."""
    m = net.spatial(x)
    low, high = m.amin((2, 3), keepdim=True), m.amax((2, 3), keepdim=True)
    return x * net.note("gate", (m - low) / (high - low))


@spelling()
def layer_norm_by_hand(net, x):
    """No gate, though 1 / (std + eps) is bounded and one value for all channels."""
    return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-5)


def _no_false_fate(net, gates):
    import attnscope

    entries = listing(attnscope.inspect_gates(net, net.inputs(2)))
    return "the sigmoid is used by a softmax" if any("no operation" in e for e in entries) else ""


@spelling("NC", also=_no_false_fate)
def softmax_of_a_sigmoid(net, x):
    """The sigmoid is consumed; that it is used by no operation is false."""
    return x * net.note("gate", net.channel(x).sigmoid().softmax(1))


# ---------------------------------------------------------------------------------------------
# Paths that share a softmax
# ---------------------------------------------------------------------------------------------


class Paths(Case):
    """Two convolutions whose outputs are mixed."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        self.squeeze = nn.Linear(8, 8)
        self.fcs = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        a, b = self.one(x).relu(), self.two(x).relu()
        z = self.squeeze((a + b).mean((2, 3))).relu()
        return self.head(self.mix(a, b, [fc(z) for fc in self.fcs]).mean((2, 3)))


@case
class SelectiveKernelCat(Paths):
    expected = {"paths": "NBC"}

    def mix(self, a, b, logits):
        maps = torch.cat([a.unsqueeze(1), b.unsqueeze(1)], 1)
        weights = torch.cat([z.unsqueeze(1) for z in logits], 1).softmax(1)
        return (maps * self.note("paths", weights[..., None, None])).sum(1)


@case
class SelectiveKernelStack(Paths):
    """The axis of the paths comes before the images."""

    expected = {"paths": "NBC"}

    def mix(self, a, b, logits):
        maps = torch.stack([a, b], 0)
        weights = torch.stack([z[:, :, None, None] for z in logits], 0).softmax(0)
        weights = self.note("paths", weights, lambda g: g[..., 0, 0].transpose(0, 1))
        return (maps * weights).sum(0)


@case
class SelectiveKernelChunk(Paths):
    """Each path has a multiplication of its own: two gates."""

    expected = {"one": "NC", "two": "NC"}

    def mix(self, a, b, logits):
        weights = torch.stack(logits, 1).softmax(1)[..., None, None]
        one, two = weights.chunk(2, 1)
        one, two = self.note("one", one.squeeze(1)), self.note("two", two.squeeze(1))
        return a * one + b * two


@case
class SplitAttention(Case):
    """Two splits in two cardinal groups, a softmax over the splits."""

    expected = {"one": "NC", "two": "NC"}

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.fc1, self.fc2 = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 16, 1, groups=2)

    def forward(self, x):
        one, two = self.conv(x).relu().split(8, 1)
        z = self.fc2(self.fc1((one + two).mean((2, 3), keepdim=True)).relu())
        weights = z.view(len(x), 2, 2, 4).transpose(1, 2).softmax(1).reshape(len(x), 16, 1, 1)
        first, second = weights.split(8, 1)
        return one * self.note("one", first) + two * self.note("two", second)


# ---------------------------------------------------------------------------------------------
# Operations between the activation and the product, and other products
# ---------------------------------------------------------------------------------------------


@spelling("NC")
def einsum(net, x):
    gate = net.channel(x).sigmoid()[:, :, 0, 0]
    return torch.einsum("nchw,nc->nchw", x, net.note("gate", gate))


@spelling("NC")
def batched_diagonal_matrix(net, x):
    gate = net.note("gate", net.channel(x).sigmoid()[:, :, 0, 0])
    return torch.bmm(torch.diag_embed(gate), x.flatten(2)).view_as(x)


@spelling("NC")
def index_select(net, x):
    gate = net.channel(x).sigmoid()
    return x * net.note("gate", gate.index_select(1, torch.tensor([3, 1, 0, 2, 7, 5, 6, 4])))


@spelling("NC")
def where(net, x):
    z = net.channel(x)
    return x * net.note("gate", torch.where(z > 0, z.sigmoid(), torch.ones_like(z)))


@spelling("NC")
def dropout2d_in_eval_mode(net, x):
    return x * net.note("gate", F.dropout2d(net.channel(x).sigmoid(), 0.1, net.training))


@spelling("NC")
def masked_fill(net, x):
    gate = net.channel(x).sigmoid()
    return x * net.note("gate", gate.masked_fill(gate < 0.5, 0.0))


@spelling("NHW")
def pad(net, x):
    gate = net.spatial(x).sigmoid()[:, :, 1:-1, 1:-1]
    return x * net.note("gate", F.pad(gate, (1, 1, 1, 1), value=1.0))


@spelling("NHW")
def avg_pool(net, x):
    return x * net.note("gate", F.avg_pool2d(net.spatial(x).sigmoid(), 3, 1, 1))


@spelling("NC")
def maximum(net, x):
    z = net.channel(x)
    return x * net.note("gate", torch.maximum(z.sigmoid(), z.roll(1, 1).sigmoid()))


@spelling("NC")
def mean_of_two(net, x):
    z = net.channel(x)
    return x * net.note("gate", torch.stack([z.sigmoid(), z.roll(1, 1).sigmoid()]).mean(0))


@spelling("NC")
def gate_applied_twice(net, x):
    """One gate, two products."""
    gate = net.note("gate", net.channel(x).sigmoid())
    return x * gate + x.flip(3).relu() * gate


@spelling(expected={"channel": "NC", "spatial": "NHW"})
def gate_of_a_gate(net, x):
    channel = net.note("channel", net.channel(x).sigmoid())
    spatial = net.note("spatial", net.spatial(x).sigmoid())
    return x * (channel * spatial)


@spelling(expected={"channel": "NC", "spatial": "NHW"})
def scse_maximum(net, x):
    channel = net.note("channel", net.channel(x).sigmoid())
    spatial = net.note("spatial", net.spatial(x).sigmoid())
    return torch.maximum(x * channel, x * spatial)


@spelling("N")
def one_value_an_image(net, x):
    return x * net.note("gate", net.channel(x).mean(1, keepdim=True).sigmoid())


# ---------------------------------------------------------------------------------------------
# Sequences, vectors, volumes
# ---------------------------------------------------------------------------------------------


class Sequence(Case):
    """(N, 3, L)."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(2, 1, 3, padding=1)
        self.se, self.head = SE(self), nn.Linear(8, 4)

    def inputs(self, batch):
        return torch.randn(batch, 3, 16)


@case
class SequenceSe(Sequence):
    expected = {"se": "NC"}

    def forward(self, x):
        return self.head(self.se(self.stem(x).relu()).mean(2))


@case
class SequenceCbam(Sequence):
    expected = {"se": "NC", "spatial": "NL"}

    def forward(self, x):
        x = self.se(self.stem(x).relu())
        pooled = torch.stack([x.mean(1), x.amax(1)], 1)
        return self.head((x * self.note("spatial", self.conv(pooled).sigmoid())).mean(2))


@case
class SpeakerNetwork(Case):
    """A squeeze over time, then pooling by a softmax over time, as in ECAPA-TDNN."""

    expected = {"se": "NC"}
    not_gates = {"softmax": "pooling"}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv1d(5, 8, 3, padding=2, dilation=2)
        self.down, self.up = nn.Conv1d(8, 4, 1), nn.Conv1d(4, 8, 1)
        self.attend, self.head = nn.Conv1d(8, 8, 1), nn.Linear(8, 4)

    def inputs(self, batch):
        return torch.randn(batch, 5, 12)

    def forward(self, x):
        x = self.stem(x).relu()
        gate = self.up(self.down(x.mean(2, keepdim=True)).relu()).sigmoid()
        x = x * self.note("se", gate)
        weights = self.attend(x.tanh()).softmax(2)
        return self.head((x * weights).sum(2))


@case
class Vectors(Case):
    """Features without positions: one value an image, then one a channel, of their own shape."""

    expected = {"scalar": "N"}
    either = {"context": ("NC", "activation|own shape")}

    def __init__(self):
        super().__init__()
        self.stem, self.one, self.all = nn.Linear(5, 8), nn.Linear(5, 1), nn.Linear(8, 8)

    def inputs(self, batch):
        return torch.randn(batch, 5)

    def forward(self, x):
        h = self.stem(x) * self.note("scalar", self.one(x).sigmoid())
        return h * self.note("context", self.all(h).sigmoid())


@case
class Volume(Case):
    """Channel and spatial squeeze and excitation in three dimensions."""

    expected = {"channel": "NC", "spatial": "NDHW"}

    def __init__(self):
        super().__init__()
        self.stem, self.map = nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 1, 1)
        self.se = SE(self, "channel")

    def inputs(self, batch):
        return torch.randn(batch, 1, 4, 6, 8)

    def forward(self, x):
        x = self.stem(x).relu()
        return torch.max(self.se(x), x * self.note("spatial", self.map(x).sigmoid())).mean(
            (2, 3, 4)
        )


# ---------------------------------------------------------------------------------------------
# Permuted and grouped features, other layouts
# ---------------------------------------------------------------------------------------------


class Oblong(Case):
    """(N, 3, 6, 10): rows and columns are not alike."""

    def inputs(self, batch):
        return torch.randn(batch, 3, 6, 10)


@case
class TripletAttention(Oblong):
    """Two of three branches swap axes: their gates are strips, only the third is a map."""

    expected = {"cw": "NCW", "hc": "NCH", "hw": "NHW"}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.cw, self.hc, self.hw = [nn.Conv2d(2, 1, 3, padding=1) for _ in range(3)]

    def attend(self, label, x, conv):
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        turn = label == "hc"  # (N, 1, H, C) there
        own = (lambda g: g[:, 0].transpose(1, 2)) if turn else squeezed
        return x * self.note(label, conv(pooled).sigmoid(), own)

    def forward(self, x):
        x = self.stem(x)
        one = self.attend("cw", x.permute(0, 2, 1, 3), self.cw).permute(0, 2, 1, 3)  # (N, H, C, W)
        two = self.attend("hc", x.permute(0, 3, 2, 1), self.hc).permute(0, 3, 2, 1)  # (N, W, H, C)
        return (one + two + self.attend("hw", x, self.hw)) / 3


@case
class CoordinateAttention(Oblong):
    expected = {"rows": "NCH", "columns": "NCW"}

    def __init__(self):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.rows, self.columns = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x):
        x = self.stem(x)
        h, w = x.shape[2:]
        pooled = [x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)]
        rows, columns = F.hardswish(self.mix(torch.cat(pooled, 2))).split([h, w], 2)
        rows = self.rows(rows).sigmoid()
        columns = self.columns(columns.permute(0, 1, 3, 2)).sigmoid()
        return x * self.note("columns", columns) * self.note("rows", rows)


@case
class SpatialGroupwise(Oblong):
    """Groups share an axis with the images: (N*G, C/G, H, W)."""

    expected = {"maps": "NGHW"}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.weight, self.bias = nn.Parameter(torch.ones(1, 2, 1, 1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        n, _, h, w = x.shape
        x = self.stem(x).reshape(n * 2, 4, h, w)
        t = (x * x.mean((2, 3), keepdim=True)).sum(1).flatten(1)
        t = (t - t.mean(1, keepdim=True)) / (t.std(1, keepdim=True) + 1e-5)
        t = t.view(n, 2, h, w) * self.weight + self.bias
        gate = t.view(n * 2, 1, h, w).sigmoid()
        return (x * self.note("maps", gate, lambda g: g.view(n, 2, h, w))).view(n, 8, h, w)


@case
class ShuffleAttention(Oblong):
    """Half of the channels of each group get a channel gate, half one of their own shape."""

    expected = {"channel": "NGC"}
    either = {"spatial": ("NGCHW", "activation|own shape")}

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 2)
        self.weight = nn.Parameter(torch.randn(4, 1, 2, 1, 1))

    def forward(self, x):
        n, _, h, w = x.shape
        one, two = self.stem(x).reshape(n * 2, 4, h, w).chunk(2, 1)
        a, b, c, d = self.weight
        channel = (a * one.mean((2, 3), keepdim=True) + b).sigmoid()
        spatial = (c * self.norm(two) + d).sigmoid()
        one = one * self.note("channel", channel, lambda g: g.view(n, 2, 2))
        two = two * self.note("spatial", spatial, lambda g: g.view(n, 2, 2, h, w))
        return torch.cat([one, two], 1).view(n, 4, 2, h, w).transpose(1, 2).reshape(n, 8, h, w)


@spelling("NGC|NC")
def groups_on_their_own_axis(net, x):
    gate = net.channel(x).sigmoid().view(-1, 2, 4, 1, 1)
    return (x.view(-1, 2, 4, *x.shape[2:]) * net.note("gate", gate)).view_as(x)


@spelling("NC")
def maps_of_one_row(net, x):
    """(N, C, 1, W), whatever the size of the image."""
    x = x.mean(2, keepdim=True)
    return x * net.note("gate", net.channel(x).sigmoid())


@case
class ChannelsLast(Case):
    """(N, H, W, C)."""

    expected = {"channel": "NC", "spatial": "NHW"}

    def __init__(self):
        super().__init__()
        self.stem, self.fc, self.map = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x):
        x = self.stem(x.permute(0, 2, 3, 1))
        x = x * self.note("channel", self.fc(x.mean((1, 2))).sigmoid()[:, None, None])
        return (x * self.note("spatial", self.map(x).sigmoid())).mean((1, 2))


@case
class ChannelsLastOfOneSize(ChannelsLast):
    """With a position embedding the network takes one size, and 8 channels at 8 x 8 are alike."""

    refused = "size"

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(8, 8, 8))

    def forward(self, x):
        x = self.stem(x.permute(0, 2, 3, 1)) + self.position
        x = x * self.note("channel", self.fc(x.mean((1, 2))).sigmoid()[:, None, None])
        return (x * self.note("spatial", self.map(x).sigmoid())).mean((1, 2))


@case
class FlattenedHead(Block):
    """One size only, but the features come from a convolution: version 0.1 is right here."""

    expected = {"gate": "NC", "map": "NHW"}

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8 * 64, 4)

    def forward(self, x):
        x = self.stem(x).relu()
        x = x * self.note("gate", self.channel(x).sigmoid())
        return self.head((x * self.note("map", self.spatial(x).sigmoid())).flatten(1))


@case
class TokensOfOneSize(Staged):
    """What cannot be told of one gate does not keep another from being read."""

    either = {"tokens": ("NLC", "activation|own shape|size")}

    def __init__(self):
        super().__init__()
        self.position, self.gate = nn.Parameter(torch.randn(64, 8)), nn.Linear(8, 8)

    def forward(self, x):
        x = self.backbone(x).flatten(2).transpose(1, 2) + self.position
        return self.head((x * self.note("tokens", self.gate(x).sigmoid())).mean(1))


# ---------------------------------------------------------------------------------------------
# Other inputs
# ---------------------------------------------------------------------------------------------


class Inputs(Staged):
    """A stem with an SE block, of what `images` takes from the input."""

    def forward(self, *inputs):
        return self.head(self.forward_features(self.images(*inputs)).mean((2, 3)))


@case
class DictInput(Inputs):
    def inputs(self, batch):
        return {"age": torch.randn(batch, 2), "image": torch.randn(batch, 3, 8, 8)}

    def images(self, inputs):
        return inputs["image"] + inputs["age"].mean(1)[:, None, None, None]


@case
class ListOfImages(Inputs):
    def inputs(self, batch):
        return [torch.randn(3, 8, 8) for _ in range(batch)]

    def images(self, inputs):
        return torch.stack(inputs)


@case
class TwoTensors(Inputs):
    def inputs(self, batch):
        return torch.randn(batch, 2, 8, 8), torch.randn(batch, 1, 8, 8)

    def images(self, color, depth):
        return torch.cat([color, depth], 1)


@dataclasses.dataclass
class Scan:
    age: Tensor
    image: Tensor


@case
class DataclassInput(DictInput):
    def inputs(self, batch):
        return Scan(**super().inputs(batch))

    def images(self, scan):
        return scan.image + scan.age.mean(1)[:, None, None, None]


@case
class Spectrogram(Case):
    """(N, F, T) becomes (N, 1, F, T)."""

    expected = {"se": "NC", "map": "NHW"}

    def __init__(self):
        super().__init__()
        self.stem, self.map = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 1)
        self.se = SE(self)

    def inputs(self, batch):
        return torch.randn(batch, 8, 9)

    def forward(self, x):
        x = self.se(self.stem(x[:, None]).relu())
        return (x * self.note("map", self.map(x).sigmoid())).mean((2, 3))


@case
class FramesAsImages(Block):
    """(N, T, 3, H, W) becomes N*T rows, those of one video after one another."""

    expected = {"gate": "NGC|NDC|NLC"}

    def inputs(self, batch):
        return torch.randn(batch, 4, 3, 8, 8)

    def forward(self, video):
        n, t = video.shape[:2]
        x = self.stem(video.flatten(0, 1)).relu()
        gate = self.channel(x).sigmoid()
        x = x * self.note("gate", gate, lambda g: g.view(n, t, 8))
        return self.head(x.mean((2, 3)).view(n, t, 8).mean(1))


@case
class TwoViewsInOneCall(Block):
    """2*N rows: all images, then all of them again. The axis is G*N, not N*G."""

    expected = {"gate": "NGC"}

    def forward(self, x):
        x = self.stem(torch.cat([x, x.flip(3)])).relu()
        gate = self.channel(x).sigmoid()
        x = x * self.note("gate", gate, lambda g: g.view(2, -1, 8).transpose(0, 1))
        one, two = self.head(x.mean((2, 3))).chunk(2)
        return one - two


# ---------------------------------------------------------------------------------------------
# Gates of the features' own shape, and activations that are none
# ---------------------------------------------------------------------------------------------


@spelling("NCHW")
def bottleneck_attention(net, x):
    """BAM: x * (1 + M)."""
    return x * net.note("gate", 1 + (net.channel(x) + net.spatial(x)).sigmoid())


@case
class ResidualAttention(Case):
    """(1 + M) * T, M from a branch that looks at a wider field."""

    expected = {"mask": "NCHW"}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.trunk, self.low = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.stem(x).relu()
        low = self.low(F.max_pool2d(x, 3, 2, 1)).relu()
        up = F.interpolate(low, size=x.shape[2:], mode="bilinear", align_corners=False)
        return (self.note("mask", 1 + self.out(up).sigmoid()) * self.trunk(x)).mean((2, 3))


@case
class ActivationsByHand(Case):
    """SiLU and GLU: the gate is made of the same values, position by position."""

    not_gates = {"silu": "activation|own shape", "glu": "activation|own shape"}

    def __init__(self):
        super().__init__()
        self.stem, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 1)

    def forward(self, x):
        x = self.stem(x)
        x = x * x.sigmoid()
        value, gate = self.wide(x).chunk(2, 1)
        return (value * gate.sigmoid()).mean((2, 3))


@case
class FoundOnZeros(ActivationsByHand):
    """On a black image an activation is constant, and is no channel gate for that."""

    def sample(self):
        return torch.zeros(1, 3, 8, 8)


@case
class AttentionUnet(Case):
    """The gate is made at half the resolution and enlarged."""

    expected = {"psi": "NHW"}

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 2, 2)
        self.theta, self.phi, self.psi = (
            nn.Conv2d(8, 4, 2, 2),
            nn.Conv2d(8, 4, 1),
            nn.Conv2d(4, 1, 1),
        )
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        skip = self.stem(x).relu()
        deep = self.down(skip).relu()
        psi = self.psi((self.theta(skip) + self.phi(deep)).relu()).sigmoid()
        psi = F.interpolate(psi, size=skip.shape[2:], mode="bilinear", align_corners=False)
        deep = F.interpolate(deep, size=skip.shape[2:])
        return self.out(torch.cat([skip * self.note("psi", psi), deep], 1))


# ---------------------------------------------------------------------------------------------
# What is no gate, and must be listed
# ---------------------------------------------------------------------------------------------


@case
class SeparableSelfAttention(Case):
    """Softmax pooling over the patches, for each of four pixels of a patch, as in MobileViTv2.

    Its maps must have even sides.
    """

    not_gates = {"scores": "pooling", "context": "unbounded"}

    def __init__(self):
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 17, 1)

    def forward(self, x):
        n, _, h, w = x.shape
        x = self.stem(x).view(n, 8, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        query, key, value = self.qkv(x.reshape(n, 8, 4, -1)).split([1, 8, 8], 1)
        context = (key * query.softmax(3)).sum(3, keepdim=True)
        return (value.relu() * context).mean((2, 3))


@case
class SelfAttention(Case):
    """Queries, keys and values: the softmax mixes tokens through a matrix product."""

    not_gates = {"softmax": "matmul|bmm|attention|mixes"}

    def __init__(self):
        super().__init__()
        self.stem, self.qkv = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(self.stem(x).flatten(2).transpose(1, 2)).chunk(3, 2)
        return ((q @ k.transpose(1, 2) / 8**0.5).softmax(2) @ v).mean(1)


@spelling(not_gates={"map": "unbounded", "relu": "unbounded", "softplus": "unbounded"})
def unbounded_multipliers(net, x):
    x = x * net.spatial(x)
    x = x * net.channel(x).relu()
    return x * F.softplus(net.channel(x))


@case
class LayerScale(Staged):
    """A gate of parameters alone does not depend on the image."""

    not_gates = {"gamma": "static|parameter"}

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(8, 1, 1))

    def forward(self, x):
        return self.head((self.forward_features(x) * self.gamma.sigmoid()).mean((2, 3)))


@case
class DynamicConvolution(Block):
    """A softmax over kernels mixes weights, not features."""

    not_gates = {"routing": "routing|kernel|weights of a convolution"}

    def __init__(self):
        super().__init__()
        self.route, self.kernels = nn.Linear(8, 3), nn.Parameter(torch.randn(3, 8, 8, 3, 3))

    def act(self, x):
        n, _, h, w = x.shape
        routing = self.route(x.mean((2, 3))).softmax(1)
        kernels = (routing @ self.kernels.flatten(1)).view(n * 8, 8, 3, 3)
        return F.conv2d(x.reshape(1, n * 8, h, w), kernels, padding=1, groups=n).view(n, 8, h, w)


# ---------------------------------------------------------------------------------------------
# What Python cannot see
# ---------------------------------------------------------------------------------------------


def sigmoid_gate(x: Tensor, z: Tensor) -> Tensor:
    return x * torch.sigmoid(z)


class Unseen(Block):
    """The product runs in a function whose operations Python does not see."""

    expected = {"gate": "NC"}

    def act(self, x):
        z = self.channel(x)
        self.note("gate", z, lambda z: squeezed(z.sigmoid()))
        x = self.gate(x, z)
        return x * self.scale["gate"] if self.scale else x


@case
class ScriptedFunction(Unseen):
    refused = "script"

    def __init__(self):
        super().__init__()
        self.gate = torch.jit.script(sigmoid_gate)


@case
class CompiledFunction(Unseen):
    refused = "compil"

    def __init__(self):
        super().__init__()
        self.gate = torch.compile(sigmoid_gate, backend="eager")


# ---------------------------------------------------------------------------------------------
# The state of the network
# ---------------------------------------------------------------------------------------------


@case
class ExtraGateInTraining(Case):
    """In training another gate of the same module runs first."""

    expected = {"main": "NC"}
    training_mode = True

    def __init__(self):
        super().__init__()
        self.stem, self.aux, self.main = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.stem(x).relu()
        z = x.mean((2, 3))
        extra = (x * self.aux(z).sigmoid()[:, :, None, None]).mean() if self.training else 0
        return (x * self.note("main", self.main(z).sigmoid()[:, :, None, None])).mean(
            (2, 3)
        ) + extra


@case
class AttributeCalledModule(Case):
    """Names keep an attribute `module` of the network's own."""

    expected = {"one": "NC", "two": "NC"}

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.module, self.se = SE(self, "one"), SE(self, "two")

    def forward(self, x):
        x = self.stem(x).relu()
        return self.module(x) + self.se(x).tanh()

    def also(self, gates):
        names = [gate.name for gate in gates]
        return "" if any(n.startswith("module") for n in names) else f"names are {names}"


@spelling("NC", also=lambda net, gates: "a gate has no name" if not gates[0].name else "")
def root_gate_has_a_name(net, x):
    return x * net.note("gate", net.channel(x).sigmoid())


@case
class LazyLayers(Case):
    """Parameters have no shape yet: it is run, or refused with what to do."""

    expected = {"gate": "NC"}
    refused = "lazy|uninitialized"
    lazy = True

    def __init__(self):
        super().__init__()
        self.stem, self.fc = nn.LazyConv2d(8, 3), nn.LazyLinear(8)

    def forward(self, x):
        x = self.stem(x).relu()
        return x * self.note("gate", self.fc(x.mean((2, 3))).sigmoid()[:, :, None, None])


@case
class CopiedWhileWatched(Staged):
    """A copy made inside the block runs on its own, and the network can be pickled there."""

    def also(self, gates):
        import attnscope

        x = self.inputs(2)
        bare = self.run(x)
        with attnscope.watch_gates(self, gates):
            self.run(x)
            twin = copy.deepcopy(self)
            pickle.dumps(self)
        if hooks(twin):
            return "the copy keeps hooks"
        return "" if torch.equal(twin.run(x), bare) else "the copy does not run as before"


@case
class EncoderFastPath(Case):
    """An encoder behind an SE block takes its fast path only while nobody looks."""

    expected = {"se": "NC"}

    def __init__(self):
        super().__init__()
        self.stem, self.se = nn.Conv2d(3, 8, 3, padding=1), SE(self)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, x):
        tokens = self.se(self.stem(x).relu()).flatten(2).transpose(1, 2)
        padding = torch.arange(tokens.shape[1]) >= 40
        return self.encoder(tokens, src_key_padding_mask=padding.expand(len(x), -1))


@case
class HalfPrecision(Block):
    expected = {"gate": "NC"}

    def __init__(self):
        super().__init__()
        self.half()

    def inputs(self, batch):
        return super().inputs(batch).half()

    def act(self, x):
        return x * self.note("gate", self.channel(x).sigmoid())


@case
class SharedModule(Case):
    """One module, called twice: two gates."""

    expected = {"first": "NC", "second": "NC"}

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.se = SE(self)

    def forward(self, x):
        x = self.se(self.stem(x).relu(), "first")
        return self.se(self.conv(x).relu(), "second").mean((2, 3))


# ---------------------------------------------------------------------------------------------
# The checker
# ---------------------------------------------------------------------------------------------


class Fault(Exception):
    """What is wrong, in one line."""


def hooks(net: nn.Module) -> int:
    """How many hooks a network has."""
    return sum(len(v) for m in net.modules() for k, v in vars(m).items() if k.endswith("_hooks"))


def state(net: nn.Module) -> dict[str, object]:
    """What must be the same afterwards."""
    modes = torch.overrides._get_current_function_mode_stack()
    modes += torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    everywhere = vars(torch.nn.modules.module)
    return {
        "hooks": hooks(net),
        "hooks of all modules": [len(everywhere[k]) for k in everywhere if k.endswith("_hooks")],
        "modes": len(modes),
        "training flags": [m.training for m in net.modules()],
        "attributes": [sorted(set(vars(m)) - {"scale"}) for m in net.modules()],
        "classes": [type(m) for m in net.modules()],
        "weights": [(k, v.tolist()) for k, v in net.state_dict().items()],
    }


def refuse_changes(cause: str, before: dict[str, object], after: dict[str, object]) -> None:
    """Raises a fault where something was left behind."""
    changed = [what for what in before if before[what] != after[what]]
    if changed:
        raise Fault(f"{cause} changes {', '.join(changed)} of the network")


def listing(inspection: object) -> list[str]:
    """What an inspection says of everything that is no gate: one text an entry."""
    entries = []
    for field, values in vars(inspection).items():
        for entry in values if field != "gates" and isinstance(values, (list, tuple)) else ():
            texts = dataclasses.astuple(entry) if dataclasses.is_dataclass(entry) else [entry]
            entries.append(" ".join(map(str, texts)).lower())
    return entries


def holds(text: str, words: str) -> bool:
    """Whether a text holds one of the words in "a|b"."""
    return bool(words) and any(word in text.lower() for word in words.split("|"))


def reads(value: Tensor | None, got: str, truth: Tensor, wanted: str) -> bool:
    """Whether a value with the axes `got` is the truth, bit for bit, in one of the readings."""
    for axes in wanted.split("|"):
        if value is not None and value.ndim == len(got) and sorted(got) == sorted(axes):
            value = value.permute([got.index(letter) for letter in axes])
            if value.numel() == truth.numel() and value.dtype == truth.dtype:
                return torch.equal(value.reshape(truth.shape), truth)
    return False


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs are equal but for rounding."""
    precision = 1e-2 if a.dtype in (torch.half, torch.bfloat16) else 1e-5
    return torch.allclose(a, b, rtol=precision, atol=precision * float(b.abs().max()))


def assert_sound(build: type[Case]) -> None:
    """The case itself, without attnscope: its truth has the stated axes and acts as a factor."""
    net = build().eval()
    net.train(net.training_mode)
    x = net.inputs(3)
    Case.run(net, x)
    labels, truth = net.labels(), net.truth
    assert truth.keys() == labels.keys(), (truth.keys(), labels.keys())
    for label, value in truth.items():
        assert value.ndim == len(labels[label].split("|")[0]), value.shape
        assert len(value) == 3, value.shape
        assert not torch.equal(value[0], value[1]), f"{label} is the same for all images"
    bare = net.run(x)
    assert torch.equal(net.run(x), bare), "two runs differ"
    for label in set(labels) - set(net.unreached):
        net.scale = {label: 1.0}
        assert torch.equal(net.run(x), bare)
        net.scale = {label: 0.5}
        assert not close(net.run(x), bare), f"half of {label} changes nothing"
        del net.scale


def compare(net: Case) -> None:
    """Compares attnscope with the truth of one case; raises `Fault`."""
    gates, entries = found(net)
    net.train(net.training_mode)
    before = state(net)
    batches = [net.inputs(3), net.inputs(1)]
    bare, truths = [], []
    for x in batches:
        bare.append(net.run(x))
        truths.append(net.truth)
    names = check_values(net, gates, entries, batches, bare, truths)
    check_edits(net, gates, names, batches, bare)
    fault = net.also(gates)
    if fault:
        raise Fault(fault)
    refuse_changes("reading or editing", before, state(net))
    if not all(torch.equal(net.run(x), out) for x, out in zip(batches, bare, strict=True)):
        raise Fault("the output is another one afterwards")


def found(net: Case) -> tuple[list, list[str]]:
    """The gates, and what is listed beside them: as many and as much as there must be."""
    import attnscope

    sample = net.sample()
    random = torch.get_rng_state()
    before = None if net.lazy else state(net)
    inspection = attnscope.inspect_gates(net, sample)
    gates = attnscope.find_gates(net, sample)
    if net.lazy:
        net.run(sample)
    else:
        refuse_changes("finding", before, state(net))
        if not torch.equal(torch.get_rng_state(), random):
            raise Fault("finding draws random numbers")
    if [gate.name for gate in gates] != [gate.name for gate in inspection.gates]:
        raise Fault("find_gates and inspect_gates differ")

    entries = listing(inspection)
    listed = "; ".join(entries) or "nothing"
    least, most = 0 if net.refused else len(net.expected), len(net.labels())
    if not least <= len(gates) <= most:
        kinds = ", ".join(f"{gate.kind} {gate.axes}" for gate in gates) or "none"
        raise Fault(f"gates: {kinds}; there are {len(net.expected)}; listed: {listed}")
    missing = dict(net.not_gates)
    for entry in entries:
        label = next((label for label, words in missing.items() if holds(entry, words)), None)
        missing.pop(label, None)
    if missing:
        wanted = ", ".join(f"{label} as {words}" for label, words in missing.items())
        raise Fault(f"not listed: {wanted}; listed: {listed}")
    return gates, entries


def check_values(
    net: Case, gates: list, entries: list[str], batches: list, bare: list, truths: list
) -> dict[str, str]:
    """Reads two other batches of other sizes in one block; returns label -> name of the gate."""
    import attnscope

    seen = []
    with attnscope.watch_gates(net, gates) as values:
        for x, out in zip(batches, bare, strict=True):
            if not torch.equal(net.run(x), out):
                raise Fault("the output changes while gates are read")
            seen.append(dict(values))
    names: dict[str, str] = {}
    for label, axes in net.labels().items():
        if label in net.unreached:
            continue
        for gate in gates:
            right = [
                reads(values.get(gate.name), gate.axes, truth[label], axes)
                for values, truth in zip(seen, truths, strict=True)
            ]
            if all(right) and gate.name not in names.values():
                names[label] = gate.name
                low, high = float(truths[0][label].min()), float(truths[0][label].max())
                if not gate.lo - 1e-3 <= low <= high <= gate.hi + 1e-3:
                    raise Fault(f"{label} is {low:.3g} to {high:.3g}, not {gate.lo} to {gate.hi}")
                break
            if right[0] and not right[1]:
                raise Fault(f"{label} is right in the first forward of a block, then wrong")
        else:
            words = net.either[label][1] if label in net.either else net.refused
            if not any(holds(entry, words) for entry in entries):
                how = explain(gates, seen[0], truths[0][label])
                raise Fault(f"{label} {axes} {how}" + f" or listed as {words}" * bool(words))
    spare = [gate.name for gate in gates if gate.name not in names.values()]
    if len(spare) != len(net.unreached):
        raise Fault(f"no such gates: {spare}")
    if any(name in values for name in spare for values in seen):
        raise Fault("a gate has a value though nothing ran it")
    return names


def check_edits(net: Case, gates: list, names: dict[str, str], batches: list, bare: list) -> None:
    """Half of each gate gives the output of half the truth; the gate itself changes no bit."""
    import attnscope

    for label, name in names.items():
        net.scale = {label: 0.5}
        halved = [net.run(x) for x in batches]
        del net.scale
        with attnscope.edit_gates(net, {name: lambda gate, features: 0.5 * gate}, gates):
            for number, (x, out) in enumerate(zip(batches, halved, strict=True), 1):
                if not close(net.run(x), out):
                    raise Fault(f"half of {label} gives another output in forward {number}")
    same = {name: lambda gate, features: gate for name in names.values()}
    with attnscope.edit_gates(net, same, gates):
        for x, out in zip(batches, bare, strict=True):
            if not torch.equal(net.run(x), out):
                raise Fault("the identity edit changes the output")


def explain(gates: list, values: dict[str, Tensor], truth: Tensor) -> str:
    """How else a gate was read; by its numbers, in any order."""
    for gate in gates:
        value = values.get(gate.name, truth.new_empty(0))
        if torch.equal(value.flatten().sort()[0], truth.flatten().sort()[0]):
            return f"is read as {gate.kind} {gate.axes} {tuple(value.shape)}"
    got = [f"{g.kind} {g.axes} {tuple(values[g.name].shape)}" for g in gates if g.name in values]
    return f"{tuple(truth.shape)} is not read; read: {', '.join(got) or 'nothing'}"


def verdict(build: type[Case]) -> tuple[str, str]:
    """Right, wrong or refused, and what is to be said about it."""
    torch.manual_seed(0)
    assert_sound(build)
    torch.manual_seed(0)
    net = build().eval()
    try:
        compare(net)
    except Fault as fault:
        return "wrong", str(fault)
    except Exception as error:
        text = (str(error).splitlines() or [""])[0][:200]
        if "InputError" not in [cls.__name__ for cls in type(error).__mro__]:
            return "wrong", f"{type(error).__name__}: {text}"
        return ("right" if holds(text, net.refused) else "refused"), text
    return "right", ""
