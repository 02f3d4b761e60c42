"""Give the images of a recording masks: from files, from boxes, or from the ink of drawings.

The masks are transformed as the images were and stored beside the recording. Torch is imported only
to find out where the images of the recording come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attnscope.data.areas import average_areas, even_borders
from attnscope.errors import InputError, first_line
from attnscope.files import StrPath
from attnscope.kinds import MAP
from attnscope.progress import progress_bar
from attnscope.recording.masks import (
    MaskFacts,
    Masks,
    attributions_on_image,
    on_image,
    write_masks,
)
from attnscope.recording.recording import Recording

if TYPE_CHECKING:
    from attnscope.data.masks import Frame, MaskSource
    from attnscope.sources import Source

INK = "ink"
"""In place of a folder: the ink of drawings, such as handwritten digits."""
_CHUNK = 256  # images
_LARGEST_PICTURE = 128  # pixels; larger images have smaller pictures
_LEAST_CONTRAST = 32  # of 255: a picture with less has no ink
_FLAT = 0.1  # of the contrast: how far the median pixel of the margin may be from the paper
_MOST_OTHERS = 0.1  # share of the pictures that may be otherwise, as a scan with a dark edge
Grid = tuple[int, int]


def add_masks(recording: Recording | StrPath, source: StrPath) -> Masks:
    """Give the images of a recording masks, and store them beside it.

    Args:
        recording: a recording, or its folder or run.
        source: a folder of masks (image files whose nonzero pixels are inside, named as the
            images); a JSON or CSV file of boxes (image, x0, y0, x1, y1); or ``ink``, for pictures
            of drawings on plain paper, dark or light.

    Returns:
        The masks. Images whose mask is missing, empty or full are counted in their facts.

    Raises:
        InputError: the masks cannot be read (AS250 to AS254), no image has one that can be used
            (AS694), the pictures are no drawings (AS695), there is no map to compare with (AS697),
            or the size of an image is not known (AS698).
    """
    if not isinstance(recording, Recording):
        recording = Recording(recording)
    grids = _grids(recording)
    if str(source) == INK:
        made = _ink(recording, grids)
    else:
        made = _from_files(recording, Path(source).expanduser(), grids)
    write_masks(recording, made)
    return made


def expect_masks(source: StrPath) -> None:
    """Refuse what `add_masks` would refuse without a look at the recording.

    Raises:
        InputError: there are no masks or boxes in the place (AS250), or they are not valid (AS252).
    """
    from attnscope.data.boxes import open_masks

    if str(source) != INK:
        open_masks(Path(source).expanduser())


def _grids(recording: Recording) -> list[Grid]:
    """Return the grids of all maps, and the whole image as one cell."""
    maps = [
        recording.spatial(gate.name, slice(0, 0)).shape[1:]
        for gate in recording.gates_with(MAP)
        if on_image(gate)
    ]
    for method in attributions_on_image(recording):
        maps.append(recording.attribution(method).shape[1:])
    if not maps:
        raise InputError(
            "AS697",
            f"{recording.folder} has neither gates with rows and columns nor attributions; capture "
            "with Grad-CAM, or a network with spatial gates",
        )
    return list(dict.fromkeys((int(h), int(w)) for h, w in (*maps, (1, 1))))


def _ink(recording: Recording, grids: Sequence[Grid]) -> Masks:
    """Take what differs from the paper by more than half of the contrast of a picture."""
    found: list[dict[Grid, NDArray[np.float64]]] = []
    pictured: list[NDArray[np.uint8]] = []
    papers: list[NDArray[np.float64]] = []
    flat: list[NDArray[np.bool_]] = []
    for start in range(0, len(recording), _CHUNK):
        pictures = recording.pictures(slice(start, start + _CHUNK))
        if (pictures != pictures[..., :1]).any():
            raise _no_drawing(recording, "they have colors")
        gray = pictures[..., 0].astype(np.float64)
        margin = np.concatenate(
            [gray[:, 0], gray[:, -1], gray[:, 1:-1, 0], gray[:, 1:-1, -1]], axis=1
        )
        paper = np.median(margin, 1)
        distance = np.abs(gray - paper[:, None, None])
        contrast = distance.max((1, 2))
        has_ink = contrast >= _LEAST_CONTRAST
        papers.append(paper[has_ink])
        spread = np.median(np.abs(margin - paper[:, None]), 1)
        flat.append(spread[has_ink] <= _FLAT * contrast[has_ink])
        inside = (distance > contrast[:, None, None] / 2) & has_ink[:, None, None]
        pictured.append(np.where(inside, np.uint8(255), np.uint8(0)))
        height, width = inside.shape[1:]
        borders = even_borders(0, height, height), even_borders(0, width, width)
        found.append(
            {
                (h, w): average_areas(
                    inside, borders, (even_borders(0, height, h), even_borders(0, width, w))
                )
                for h, w in grids
            }
        )
    paper, is_flat = np.concatenate(papers), np.concatenate(flat)
    if len(paper):
        if 1 - is_flat.mean() > _MOST_OTHERS:
            raise _no_drawing(recording, "their margins are not of one value")
        dark = float((paper < 128).mean())
        if min(dark, 1 - dark) > _MOST_OTHERS:
            raise _no_drawing(recording, "some have dark and some have light margins")
    shares = {
        grid: np.concatenate([part[grid] for part in found]).astype(np.float32) for grid in grids
    }
    everything = np.arange(len(recording)), shares, np.concatenate(pictured)
    return _collect(recording, *everything, kind=INK, source="", unused=0, notes=())


def _no_drawing(recording: Recording, why: str) -> InputError:
    return InputError(
        "AS695",
        f"the pictures of {recording.folder} are no drawings on plain paper, because {why}; give "
        "masks or boxes with --masks PATH",
    )


def _from_files(recording: Recording, path: Path, grids: Sequence[Grid]) -> Masks:
    """Read masks or boxes, and transform them as the images were."""
    from attnscope.data.boxes import open_masks
    from attnscope.data.masks import shown

    source = open_masks(path)
    paths = recording.rows["path"].tolist()
    keys = source.match(paths)
    rows = sorted(keys)
    if not rows:
        raise InputError(
            "AS694",
            f"none of the {len(source.names)} masks in {path} is of an image of "
            f"{recording.folder}; name them as the images, such as {shown(paths[:1])}",
        )
    frame_of = _frames(recording, source)
    height, width = recording.pictures(slice(0, 1)).shape[1:3]
    turned = 0

    def cover(row: int) -> tuple[dict[Grid, NDArray[np.float64]], bool]:
        frame = frame_of(paths[row])
        region = source.read(keys[row], frame)
        return region.coverage(frame, [*grids, (height, width)]), frame.orientation != 1

    shares = {grid: np.empty((len(rows), *grid), np.float32) for grid in grids}
    pictures = np.empty((len(rows), height, width), np.uint8)
    with progress_bar(len(rows), "mask", alone=False) as bar, ThreadPoolExecutor() as pool:
        for place, (found, is_turned) in enumerate(pool.map(cover, rows)):
            for grid in grids:
                shares[grid][place] = found[grid]
            pictures[place] = np.rint(255 * found[height, width])
            turned += is_turned
            bar.update()
    notes = list(source.passed)
    if turned:
        notes.append(
            f"{turned} images are turned upright by their EXIF orientation; their masks are taken "
            "as masks of the upright images, unless their size says otherwise"
        )
    unused = sorted(set(source.names) - set(keys.values()))
    if unused:
        names = shown([source.names[key] for key in unused])
        notes.append(f"{len(unused)} {source.kind} are of no image of the recording: {names}")
    return _collect(
        recording,
        np.array(rows, np.int64),
        shares,
        pictures,
        kind=source.kind,
        source=str(path.resolve()),
        unused=len(unused),
        notes=tuple(notes),
    )


def _frames(recording: Recording, masks: MaskSource) -> Callable[[str], Frame]:
    """Return a function: path of an image -> the part of it that the network received."""
    from attnscope.data.masks import Frame
    from attnscope.data.sources import find_source

    height, width = recording.pictures(slice(0, 1)).shape[1:3]
    source: Source | None = recording.source() if recording.has_source else None
    size = None if source is None else source.network.image_size or source.data.image_size
    is_folder = False
    if source is not None and not source.data.is_data_set:
        name, _, place = find_source(source.data.source)
        is_folder = name == "folder"
    if is_folder:
        assert source is not None
        root, resize = Path(place).expanduser(), source.data.resize
        known = size or (width if max(height, width) < _LARGEST_PICTURE else None)
        if known is None:
            raise _no_scale(recording)

        def of_file(path: str) -> Frame:
            try:
                return Frame.of_file(root / path, known, resize)
            except (OSError, ValueError) as error:
                raise InputError(
                    "AS698",
                    f"the image {root / path} cannot be opened ({first_line(error)}), and its size "
                    "says how its mask is cropped; restore it",
                ) from None

        return of_file
    if size is not None and height == width:
        height = width = size
    elif max(height, width) >= _LARGEST_PICTURE and masks.kind == "boxes":
        raise _no_scale(recording)
    return lambda path: Frame.whole(height, width)


def _no_scale(recording: Recording) -> InputError:
    return InputError(
        "AS698",
        f"{recording.folder} does not say of which size the images of its network are, and boxes "
        "are in pixels; give a folder of masks",
    )


def _collect(
    recording: Recording,
    rows: NDArray[np.int64],
    shares: Mapping[Grid, NDArray[np.float32]],
    pictures: NDArray[np.uint8],
    *,
    kind: str,
    source: str,
    unused: int,
    notes: tuple[str, ...],
) -> Masks:
    """Count the masks, and keep those that have an inside and an outside.

    Raises:
        InputError: AS694, there are none.
    """
    area = shares[1, 1].reshape(-1)
    empty, full = area <= 0, area >= 1
    kept = ~empty & ~full
    missing = len(recording) - len(rows)
    counts = int(kept.sum()), missing, int(empty.sum()), int(full.sum())
    if not kept.any():
        raise InputError(
            "AS694",
            f"no image of {recording.folder} has a mask that can be used: {missing} are missing, "
            f"{counts[2]} are empty and {counts[3]} cover the whole image; a mask is 0 outside and "
            "another number inside",
        )
    return Masks(
        rows[kept],
        {grid: values[kept] for grid, values in shares.items()},
        pictures[kept],
        MaskFacts(kind, source, len(recording), *counts, unused, notes),
    )
