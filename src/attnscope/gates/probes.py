"""Run a network on a sample and on variants of it that change one input dimension each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from attnscope.gates.axes import Layout, axes_of, by_convention, complete, rows_are_image_first
from attnscope.gates.finder import Finder, Place, Use, look
from attnscope.gates.inputs import SPATIAL, Inputs

_IMAGES = 2  # of the sample; more images show nothing more


@dataclass(frozen=True)
class Probes:
    """The forwards on a sample and on its variants."""

    inputs: Inputs
    """The sample."""
    sample: Finder
    """The forward on the sample."""
    batch: int | None
    """Number of images of the sample. None without a batch axis."""
    variants: Mapping[str, Finder]
    """Letter of the changed dimension -> the forward. ``N`` has one image more."""
    spatial: Mapping[str, int]
    """Letter of a spatial dimension -> its axis in the main input, counted from the end."""
    refused: str = ""
    """Letters of the spatial dimensions of which the network takes one size only, although it takes
    several of another one."""

    @property
    def spatial_letters(self) -> str:
        """Letters of the spatial dimensions of the input, also if the network takes one size."""
        main = self.inputs.main
        if self.spatial or main is None:
            return "".join(self.spatial) + self.refused
        axes = main.ndim - (self.batch is not None and not self.inputs.is_list)
        return SPATIAL.get(axes - 1, "")

    @property
    def aspect(self) -> float:
        """Height of the images over their width, 1 if they have none."""
        main = self.inputs.main
        if main is None or not {"H", "W"} <= set(self.spatial):
            return 1.0
        return main.shape[self.spatial["H"]] / main.shape[self.spatial["W"]]

    def with_unbounded(self) -> Probes:
        """Count multipliers without bounds among the uses of gates, from now on."""
        for finder in (self.sample, *self.variants.values()):
            uses = {**finder.uses, **finder.unbounded}
            finder.uses = dict(sorted(uses.items(), key=lambda item: item[1].number))
        return self

    def uses(self, place: Place) -> list[Use]:
        """Return the uses of a gate in all forwards whose features have the same axes."""
        first = self.sample.uses[place]
        others = [v.uses[place] for v in self.variants.values() if place in v.uses]
        return [first, *(each for each in others if len(each.features) == len(first.features))]

    def varies(self, place: Place) -> tuple[bool, ...]:
        """For each axis of the features, whether the gate varies along it in any forward."""
        each = [use.aligned for use in self.uses(place)]
        return tuple(any(moves) for moves in zip(*each, strict=True))

    def largest(self, place: Place) -> tuple[int, ...]:
        """Return the largest length of each axis of the features over all forwards."""
        each = [use.features for use in self.uses(place)]
        return tuple(max(sizes) for sizes in zip(*each, strict=True))

    def has_own_shape(self, place: Place) -> bool:
        """Return whether the gate has the shape of its features in all forwards."""
        return all(use.gate == use.features for use in self.uses(place))

    def softmax_axes(self, place: Place) -> frozenset[int]:
        """Return the axes of the features over which the gate is a softmax.

        An axis that has length 1 on the sample is judged by the variants in which it is longer.
        """
        first, *others = self.uses(place)
        found = {axis for use in others for axis in use.softmax_axes if first.features[axis] == 1}
        return first.softmax_axes | found

    def are_spatial(self, place: Place) -> bool:
        """Return whether the axes of a softmax grow with the image."""
        use = self.sample.uses[place]
        axes = self.softmax_axes(place)
        for letter, variant in self.variants.items():
            other = variant.uses.get(place)
            if letter == "N" or other is None or len(other.features) != len(use.features):
                continue
            if any(other.features[i] != use.features[i] for i in axes):
                return True
        return False

    def layout(self, place: Place) -> Layout | None:
        """Return the axes of the features at one place, or None if they cannot be determined."""
        use = self.sample.uses.get(place)
        if use is None:
            return None
        shapes = {
            letter: variant.uses[place].features
            for letter, variant in self.variants.items()
            if place in variant.uses
        }
        missing = [letter for letter in self.spatial_letters if letter not in shapes]
        rows = None
        if self.batch is not None and use.features[0] != self.batch and "N" in shapes:
            extended = self.variants["N"].uses[place].rows
            rows = rows_are_image_first(use.rows, extended, self.batch)
            if rows is None and use.rows is not None:
                return None
        order = "other" if rows is False else "image"
        tokens = axes_of(use.features, shapes, self.batch, order)
        if tokens is None:
            return None
        if missing and not set(missing) <= {letter for token in tokens for letter in token}:
            return by_convention(use.features, use.aligned, self.batch)
        branch = use.summed | self.softmax_axes(place)
        return complete(tokens, use.features, branch)

    def is_unclear(self) -> bool:
        """Return whether a larger sample may show more: an axis of length 1 may be spatial."""
        for place in self.sample.uses:
            layout = self.layout(place)
            letters = {letter for token in layout or () for letter in token}
            if not self.spatial or set(self.spatial) <= letters or "L" in letters:
                continue
            if layout is None or "1" in letters or (len(layout) > 2 and not letters & {*"DHW"}):
                return True
        return False


def probe(model: nn.Module, inputs: Inputs) -> Probes:
    """Run the network on the sample and on all variants that it accepts.

    Raises:
        Exception: what the network raises on the sample.
        InputError: a module cannot be traced.
    """
    main = inputs.main
    batched = main is not None
    few = inputs.limited(_IMAGES)
    try:
        sample = look(model, few)
        inputs = few
    except Exception:  # a network may take one batch size only
        if few is inputs:
            raise
        sample = look(model, inputs)
    variants: dict[str, Finder] = {}
    if main is not None:
        extended = look(model, inputs.with_one_more(), whole=False)
        if extended.error and main.ndim == 3 and not inputs.is_list:
            batched = False
            sample = look(model, inputs, batched=False)
        elif not extended.error or extended.uses:
            variants["N"] = extended
    spatial = {}
    probes, refused = _spatial_probes(model, inputs, batched)
    for letter, (axis, finder) in probes.items():
        spatial[letter] = axis
        variants[letter] = finder
    return Probes(inputs, sample, inputs.batch_size(batched), variants, spatial, refused)


def _spatial_probes(
    model: nn.Module, inputs: Inputs, batched: bool
) -> tuple[dict[str, tuple[int, Finder]], str]:
    """Return letter -> axis of the main input, and the forward with this axis doubled.

    The letters of the dimensions that the network refused to double come second.
    """
    main = inputs.main
    if main is None:
        return {}, ""
    axes = main.ndim - (batched and not inputs.is_list)  # of one image
    if axes < 1 or axes > 4 or (axes == 1 and main.is_floating_point()):
        return {}, ""
    accepted: dict[int, Finder] = {}

    def attempt(axis: int) -> bool:
        finder = look(model, inputs.doubled(axis), batched, whole=False)
        if not finder.error or finder.uses:
            accepted[axis] = finder
        return axis in accepted

    usual = range(-max(1, axes - 1), 0)
    answers = [attempt(axis) for axis in usual]
    # Channels come first in PyTorch, but an image may also be (H, W, C), or a video (T, C, H, W).
    if axes == 2 or (axes > 2 and not all(answers)):
        attempt(-axes)
    order, refused = sorted(accepted), ""
    if -axes in accepted or axes <= 2:
        letters = SPATIAL.get(len(order), "")
    else:
        every = SPATIAL[len(usual)]
        letters = "".join(every[axis] for axis in order)  # axes are negative
        refused = "".join(letter for letter in every if letter not in letters)
    probes = {letter: (axis, accepted[axis]) for letter, axis in zip(letters, order, strict=False)}
    return probes, refused
