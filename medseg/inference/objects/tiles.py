"""Find objects in images of any size: tile by tile, and joined where tiles meet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.inferers import Inferer
from pycocotools import mask as run_lengths

from medseg.errors import UsageError
from medseg.inference.objects.paste import Onto, paste
from medseg.objects import ObjectInstances

SAME = 0.5
"""IoU, where two tiles overlap, from which on two parts are one object; and the share of a part
that is cut off, from which on it belongs to what the other tile sees there.
"""

Places = npt.NDArray[np.int64]

EDGE_PX = 2.0
"""Distance from the edge of a tile within which an object counts as cut off there; pixels of the
network."""

Detect = Callable[[torch.Tensor], list[dict[str, torch.Tensor]]]


@dataclass(frozen=True)
class Tile:
    """A part of an image: rows from `top` to `bottom`, columns from `left` to `right`."""

    top: int
    left: int
    bottom: int
    right: int

    def on(self, onto: Onto) -> "Tile":
        """Return the tile in pixels of another grid."""
        top, left = onto.place(self.top, self.left)
        bottom, right = onto.place(self.bottom, self.right)
        return Tile(round(top), round(left), round(bottom), round(right))

    def shared(self, other: "Tile") -> "Tile | None":
        """Return what both have in common, None where that is nothing."""
        both = Tile(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )
        return both if both.top < both.bottom and both.left < both.right else None


class ObjectInferer(Inferer):  # type: ignore[misc]  # monai is untyped
    """Run a detector over images, the large ones in tiles that overlap.

    An object that lies wholly in one tile is taken from there. What two tiles see of one object
    is known by their overlap, where the parts have to agree (IoU over 0.5, or over half of a part
    that is cut off lies in the other): a part that a tile's edge cuts off gives way to a whole one,
    and parts that are all cut off become one object. So none is counted twice, and none larger
    than the overlap is cut in two.

    Args:
        tile_size: Rows and columns of a tile; an image no larger is taken as a whole.
        overlap: Share of a tile that the next one sees as well, from 0 to below 1; best at least
            the size of most objects.
        batch_size: Tiles at a time.

    Raises:
        UsageError: If an argument is out of range.
    """

    def __init__(
        self, tile_size: Sequence[int], overlap: float = 0.25, batch_size: int = 2
    ) -> None:
        super().__init__()
        rules = (
            ("tile_size must be two sizes above 0", tile_size, _two_sizes(tile_size)),
            ("overlap must be at least 0 and below 1", overlap, 0 <= overlap < 1),
            ("batch_size must be at least 1", batch_size, batch_size >= 1),
        )
        for rule, value, holds in rules:
            if not holds:
                msg = f"{rule}, got {value!r}."
                raise UsageError(msg)
        self.tile_size = (int(tile_size[0]), int(tile_size[1]))
        self.overlap = float(overlap)
        self.batch_size = int(batch_size)

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Detect,
        *_: Any,
        **__: Any,
    ) -> list[ObjectInstances]:
        """Find the objects of each image.

        Args:
            inputs: (B, C, rows, columns).
            network: As `MaskRcnn` in evaluation mode.

        Returns:
            Of each image its objects, the surest first.
        """
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        return [self.find(image, network, Onto(size)) for image in inputs]

    def find(self, image: torch.Tensor, network: Detect, onto: Onto) -> ObjectInstances:
        """Find the objects of one image.

        Args:
            image: (C, rows, columns), on the network's grid.
            network: As `MaskRcnn` in evaluation mode.
            onto: The grid to lay the objects out on.

        Returns:
            The objects, the surest first.
        """
        size = (int(image.shape[-2]), int(image.shape[-1]))
        tiles = tiles_of(size, self.tile_size, self.overlap)
        found = []
        for start in range(0, len(tiles), self.batch_size):
            part = tiles[start : start + self.batch_size]
            batch = torch.stack([image[:, t.top : t.bottom, t.left : t.right] for t in part])
            for tile, detected in zip(part, network(batch), strict=True):
                found.append(paste(detected, onto, origin=(tile.top, tile.left)))
        joined = (
            found[0]
            if len(found) == 1
            else join(
                found,
                [tile.on(onto) for tile in tiles],
                edge=(EDGE_PX * onto.scale[0], EDGE_PX * onto.scale[1]),
            )
        )
        return joined.without_doubles()


def tiles_of(size: tuple[int, int], tile: tuple[int, int], overlap: float) -> list[Tile]:
    """Return the tiles of an image, all of one size, evenly spread and together the whole of it.

    Args:
        size: Rows and columns of the image.
        tile: Of a tile; cut to the image's.
        overlap: Least share that neighbours have in common.

    Returns:
        Row by row.

    Examples:
        >>> [t.left for t in tiles_of((64, 150), (64, 64), 0.25)]
        [0, 43, 86]
    """
    ranges = []
    for length, wanted in zip(size, tile, strict=True):
        edge = min(length, wanted)
        step = max(1, int(edge * (1 - overlap)))
        count = 1 + -(-(length - edge) // step)
        starts = np.linspace(0, length - edge, count).astype(int).tolist()
        ranges.append([(start, start + edge) for start in starts])
    return [Tile(top, left, bottom, right) for (top, bottom), (left, right) in product(*ranges)]


def join(
    found: Sequence[ObjectInstances],
    tiles: Sequence[Tile],
    edge: tuple[float, float] = (EDGE_PX, EDGE_PX),
) -> ObjectInstances:
    """Make one list of objects from those of overlapping tiles.

    What two tiles see alike comes together first, then a part that is cut off and what it lies in,
    the surest before others; no two objects of one tile, which told them apart, become one.

    Args:
        found: Objects of each tile, laid out in the whole image.
        tiles: The tiles.
        edge: Rows and columns from the edge of a tile within which an object is cut off there.

    Returns:
        Objects of the image: none twice, and those whole that a tile cuts off.
    """
    owner = np.concatenate([np.full(len(part), n) for n, part in enumerate(found)])
    every = _together(found)
    cut = _cut_off(every, [tiles[n] for n in owner], edge)
    places = [np.flatnonzero(owner == number) for number in range(len(tiles))]
    pairs: list[tuple[float, float, int, int]] = []
    for a, b in combinations(range(len(tiles)), 2):
        both = tiles[a].shared(tiles[b])
        if both is not None:
            pairs += _same(every, cut, (places[a], places[b]), both)
    group = np.arange(len(every))
    members = {number: {number} for number in range(len(every))}
    for *_, one, other in sorted(pairs, reverse=True):
        ours, theirs = members[group[one]], members[group[other]]
        apart = {int(owner[n]) for n in ours}.isdisjoint(int(owner[n]) for n in theirs)
        if ours is not theirs and apart:
            group[list(theirs)] = group[one]
            ours |= theirs
    return _one_a_group(every, group, cut)


def _two_sizes(sizes: Sequence[int]) -> bool:
    return len(sizes) == 2 and all(int(size) >= 1 for size in sizes)


def _together(found: Sequence[ObjectInstances]) -> ObjectInstances:
    return ObjectInstances(
        found[0].size,
        tuple(mask for part in found for mask in part.masks),
        np.concatenate([part.classes for part in found]),
        np.concatenate([part.scores for part in found]),
        np.concatenate([part.crowd for part in found]),
    )


def _same(
    every: ObjectInstances, cut: npt.NDArray[np.bool_], places: tuple[Places, Places], both: Tile
) -> list[tuple[float, float, int, int]]:
    """Return pairs that may be one object: those that agree where both tiles see it.

    Each has what it counts for: the IoU over one half, else 0, and the lower of the two scores.
    """
    ours, theirs = (_within(every, some, both) for some in places)
    if not ours.size or not theirs.size:
        return []
    a, b = (_clipped(every, some, both) for some in (ours, theirs))
    iou, of_ours, of_theirs = (
        np.asarray(run_lengths.iou(one, other, [crowd] * len(other)))
        for one, other, crowd in ((a, b, 0), (a, b, 1), (b, a, 1))
    )
    same = iou > SAME
    same |= cut[ours][:, None] & (of_ours > SAME)  # COCO's crowds: over the area of the first
    same |= cut[theirs][None] & (of_theirs.T > SAME)
    same &= every.classes[ours][:, None] == every.classes[theirs][None]
    alike = np.where(iou > SAME, np.round(iou, 1), 0.0)
    scores = np.minimum(every.scores[ours][:, None], every.scores[theirs][None])
    return [
        (float(alike[i, j]), float(scores[i, j]), int(ours[i]), int(theirs[j]))
        for i, j in zip(*np.nonzero(same), strict=True)
    ]


def _within(every: ObjectInstances, places: Places, both: Tile) -> Places:
    """Leave out objects whose box does not reach into a region."""
    x0, y0, x1, y1 = every.boxes[places].T
    reach = (x0 < both.right) & (x1 > both.left) & (y0 < both.bottom) & (y1 > both.top)
    return places[np.flatnonzero(reach)]


def _clipped(every: ObjectInstances, places: Places, both: Tile) -> list[dict[str, Any]]:
    box = [[both.left, both.top, both.right - both.left, both.bottom - both.top]]
    [region] = run_lengths.frPyObjects(np.array(box, np.float64), *every.size)
    coco = every.coco
    return [run_lengths.merge([coco[place], region], intersect=True) for place in places]


def _cut_off(
    every: ObjectInstances, tiles: Sequence[Tile], edge: tuple[float, float]
) -> npt.NDArray[np.bool_]:
    """Return which objects reach an edge of their tile that is not the image's."""
    rows, columns = every.size
    edges = np.array([[t.left, t.top, t.right, t.bottom] for t in tiles], float).reshape(-1, 4)
    inner = (edges > 0) & (edges < np.array([np.inf, np.inf, columns, rows]))
    near = np.array([edge[1], edge[0]] * 2)
    return np.asarray((inner & (np.abs(every.boxes - edges) <= near)).any(axis=1))


def _one_a_group(
    every: ObjectInstances, group: npt.NDArray[np.int64], cut: npt.NDArray[np.bool_]
) -> ObjectInstances:
    masks, kept = [], []
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        whole = members[~cut[members]]
        best = members[np.argmax(every.scores[members])]
        if whole.size:
            best = whole[np.argmax(every.scores[whole])]
            masks.append(every.masks[best])
        elif len(members) == 1:
            masks.append(every.masks[best])
        else:
            parts = [every.coco[member] for member in members]
            masks.append(bytes(run_lengths.merge(parts)["counts"]))
        kept.append(best)
    chosen = every.chosen(np.array(kept, np.int64))
    return ObjectInstances(every.size, tuple(masks), chosen.classes, chosen.scores, chosen.crowd)
