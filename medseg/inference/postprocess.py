"""What is done to a finished mask: parts that cannot belong to a structure are removed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.errors import BundleError, Problem
from medseg.geometry import voxel_volume_ml
from medseg.volume import Segmentation

LARGEST = "largest_component"


def postprocessed(segmentation: Segmentation, steps: Sequence[Mapping[str, Any]]) -> Segmentation:
    """Apply the steps that a bundle's metadata state, in order.

    A step is `{"label": name, "keep": "largest_component"}` or, of several labels taken together,
    `{"labels": [names], "keep": "largest_component"}`. What is removed is said in a warning of
    the source.

    Args:
        segmentation: The mask; stays as it is.
        steps: The steps; none leave the mask as it is.

    Returns:
        The mask after all steps.

    Raises:
        BundleError: If a step is unknown or names an unknown label (`bad-metadata`).
    """
    array, problems = segmentation.array, []
    for step in steps:
        names, values = _labels_of(step, segmentation)
        array, removed = keep_largest(array, values)
        if removed:
            amount = f"{removed} pixels"
            if array.ndim == 3:
                amount = f"{removed * voxel_volume_ml(segmentation.affine):.3g} ml"
            message = f"{amount} of {names} apart from the largest part were removed"
            problems.append(Problem("removed-parts", message, "warning"))
    source = replace(segmentation.source, problems=(*segmentation.source.problems, *problems))
    return replace(segmentation, array=array, source=source) if problems else segmentation


def keep_largest(array: npt.NDArray[Any], values: Sequence[int]) -> tuple[npt.NDArray[Any], int]:
    """Keep the largest part of what some values, taken together, make up.

    Args:
        array: (I, J, K) or (rows, columns) mask; stays as it is.
        values: Values of the structure.

    Returns:
        The mask with background, 0, in place of the other parts, and their size in voxels.
    """
    inside = np.isin(array, values)
    dropped = inside & ~largest_component(inside)
    removed = int(np.count_nonzero(dropped))
    if not removed:
        return array, 0
    array = array.copy(order="K")
    array[dropped] = 0
    return array, removed


def largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest connected part of a mask.

    Voxels that touch by a face, an edge or a corner are connected. Of parts of one size the first
    in the order of the array is kept.

    Args:
        mask: (I, J, K) or (rows, columns).

    Returns:
        The same shape; empty where the mask is.

    Source:
        nnU-Net v2's choice of post-processing, which connects as widely.

    Examples:
        >>> largest_component(np.array([[True, False, False], [False, False, True],
        ...                             [False, True, False]])).astype(int).tolist()
        [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    """
    parts, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim, np.int8))
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax())


def _labels_of(step: Mapping[str, Any], segmentation: Segmentation) -> tuple[str, list[int]]:
    names = [step["label"]] if "label" in step else list(step.get("labels", ()))
    index_of = {label.name: label.index for label in segmentation.labels}
    unknown = [name for name in names if name not in index_of]
    if step.get("keep") != LARGEST or unknown or not names:
        msg = (
            f"postprocessing must be keep: {LARGEST} of labels among {sorted(index_of)},"
            f" got {dict(step)!r}."
        )
        raise BundleError(msg, code="bad-metadata")
    return " and ".join(names), [index_of[name] for name in names]
