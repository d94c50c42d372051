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
    `{"labels": [names], "keep": "largest_component"}`. Voxels that touch by a face belong
    together, as in nnU-Net. What is removed is said in a warning of the source.

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
        kept = largest_component(np.isin(array, values))
        removed = int(np.count_nonzero(np.isin(array, values) & ~kept))
        if removed:
            if array is segmentation.array:
                array = array.copy(order="K")
            array[np.isin(array, values) & ~kept] = 0
            ml = removed * voxel_volume_ml(segmentation.affine)
            message = f"{ml:.3g} ml of {names} apart from the largest part were removed"
            problems.append(Problem("removed-parts", message, "warning"))
    source = replace(segmentation.source, problems=(*segmentation.source.problems, *problems))
    return replace(segmentation, array=array, source=source) if problems else segmentation


def largest_component(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest part of a mask whose voxels touch by faces.

    Args:
        mask: (I, J, K).

    Returns:
        (I, J, K); empty where the mask is.

    Examples:
        >>> largest_component(np.array([[[True, False, True, True]]])).tolist()
        [[[False, False, True, True]]]
    """
    parts, count = ndimage.label(mask)
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
