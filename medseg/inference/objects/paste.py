"""Lay out the masks that a network gives over boxes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medseg.errors import GeometryError, InputError
from medseg.geometry import Affine
from medseg.objects import ObjectInstances
from medseg.run_lengths import Mask

INSIDE = 0.5
"""Probability from which on a pixel belongs to an object."""


@dataclass(frozen=True)
class Onto:
    """The grid that objects are laid out on, and how the network's pixels lie in it.

    Attributes:
        size: Rows and columns of the grid.
        scale: Its pixels for one of the network's, rows and columns; above 0.
        shift: Row and column of its edges where the edge of the network's first pixel lies.
    """

    size: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    shift: tuple[float, float] = (0.0, 0.0)

    def place(self, row: float, column: float) -> tuple[float, float]:
        """Return where a point of the network's grid lies; edges of pixels, not their centres."""
        return row * self.scale[0] + self.shift[0], column * self.scale[1] + self.shift[1]


def paste(
    found: Mapping[str, torch.Tensor], onto: Onto, *, origin: tuple[int, int] = (0, 0)
) -> ObjectInstances:
    """Lay out the objects of an image, one at a time, and keep their run lengths.

    A pixel takes the probability at its centre, linearly between the cells of the mask, whose
    outer edge is the box; outside it there is nothing. (torchvision rounds boxes to pixels first,
    which moves small objects by up to one.)

    Args:
        found: Of one image, as `MaskRcnn` returns it: `boxes` (N, 4), `labels` (N,), `scores`
            (N,), `masks` (N, 1, cells, cells).
        onto: The grid to lay them out on.
        origin: Row and column of the network's grid where the boxes' own image begins.

    Returns:
        The objects in the order given; those without a pixel left out.

    Raises:
        InputError: If a box or a mask is not finite (`non-finite-output`).

    Source:
        He et al., Mask R-CNN, ICCV 2017; Wu et al., Detectron2, on pixels and their centres.
    """
    boxes = found["boxes"].detach().float().cpu().numpy().astype(np.float64)
    boxes += np.array([origin[1], origin[0]] * 2, np.float64)
    boxes = boxes * np.array(onto.scale[::-1] * 2) + np.array(onto.shift[::-1] * 2)
    masks = found["masks"].detach().float().cpu().numpy()[:, 0]
    if not (np.isfinite(boxes).all() and np.isfinite(masks).all()):
        msg = "network must return finite boxes and masks, got some that are not."
        raise InputError(msg, code="non-finite-output")
    objects = ObjectInstances.of_crops(
        _crops(boxes, masks, onto.size),
        found["labels"].cpu().numpy(),
        size=onto.size,
        scores=found["scores"].detach().float().cpu().numpy(),
    )
    return objects.chosen(objects.areas > 0)


def _crops(
    boxes: npt.NDArray[np.float64], masks: npt.NDArray[np.float32], size: tuple[int, int]
) -> Iterator[tuple[Mask, int, int]]:
    for box, mask in zip(boxes, masks, strict=True):
        (top, rows), (left, columns) = (
            _weights(box[1 - axis], box[3 - axis], length, cells)
            for axis, length, cells in zip((0, 1), size, mask.shape, strict=True)
        )
        yield rows @ mask @ columns.T >= INSIDE, top, left


def _weights(
    low: float, high: float, length: int, cells: int
) -> tuple[int, npt.NDArray[np.float32]]:
    """Return the first pixel over an edge of a box, and the weight of each cell in each pixel.

    Args:
        low: Where the box begins; pixels.
        high: Where it ends.
        length: Pixels of the image along this axis.
        cells: Of the mask.

    Returns:
        First pixel within the image, and (pixels, cells).
    """
    first, last = max(0, int(np.floor(low))), min(length, int(np.ceil(high)))
    count = max(0, last - first)
    places = (np.arange(first, first + count) + 0.5 - low) / max(high - low, 1e-6) * cells - 0.5
    lower = np.floor(places).astype(np.int64)
    weights = np.zeros((count, cells), np.float32)
    for cell, share in ((lower, 1 - (places - lower)), (lower + 1, places - lower)):
        there = np.flatnonzero((cell >= 0) & (cell < cells))
        weights[there, cell[there]] += share[there].astype(np.float32)
    return first, weights


def onto_between(network: Affine, source: Affine, size: tuple[int, int]) -> Onto:
    """Return how the network's pixels lie in those of a picture.

    Args:
        network: Affine of the network's grid, (3, 3) of rows and columns, or (4, 4).
        source: Affine of the picture, of the same shape.
        size: Rows and columns of the picture.

    Returns:
        The grid to lay objects out on.

    Raises:
        GeometryError: If the one is turned or flipped against the other.
    """
    matrix = np.linalg.inv(source) @ network
    scale = np.diag(matrix)[:2]
    turned = np.abs(matrix[:2, :2] - np.diag(scale)).max()
    if turned > 1e-4 * scale.max() or (scale <= 0).any():
        msg = (
            "preprocessing must keep rows and columns as they are for objects, got"
            f" {np.round(matrix[:2, :2], 3).tolist()}."
        )
        raise GeometryError(msg, code="unsupported-preprocessing")
    shift = matrix[:2, -1] + 0.5 - 0.5 * scale  # affines speak of centres, boxes of edges
    return Onto(size, (float(scale[0]), float(scale[1])), (float(shift[0]), float(shift[1])))
