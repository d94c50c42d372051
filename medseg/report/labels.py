"""What was found of each label: voxels, volume, components, whether the field of view cuts it."""

from dataclasses import replace
from typing import Any

import numpy as np

from medseg.errors import InputError
from medseg.geometry import voxel_volume_ml
from medseg.report.runs import Parts
from medseg.volume import Label, Segmentation

STATISTICS = ("index", "name", "voxels", "volume_ml", "components", "touches_border")
"""What is counted of each label, in order."""


def label_statistics(
    segmentation: Segmentation, parts: Parts | None = None
) -> list[dict[str, Any]]:
    """Describe every label of a segmentation, absent ones included.

    * `voxels`: 0 where the label was not found.
    * `volume_ml`: None in 2D, which has no volume.
    * `components`: connected regions; voxels that share a face, an edge or a corner are connected
      (26 neighbours in 3D, 8 in 2D).
    * `touches_border`: whether a voxel lies in the first or last plane of the grid along any axis:
      the structure may go on outside the image. An axis of one plane does not count.

    A region that others lie within is all of it, theirs included.

    Args:
        segmentation: All labels of a case.
        parts: Its components, to save finding them again.

    Returns:
        `{"index", "name", "voxels", "volume_ml", "components", "touches_border"}` for each label,
        in the order of `segmentation.labels`.

    Raises:
        InputError: With code `unknown-label` if the mask holds a value that no label has.

    Examples:
        >>> from medseg.volume import make_labels
        >>> array = np.zeros((4, 4, 4), np.uint8)
        >>> array[1:3, 1:3, 1:3] = 1
        >>> seg = Segmentation(array, np.diag([1.0, 1.0, 5.0, 1.0]), make_labels(["a", "b"]))
        >>> [(row["name"], row["voxels"], row["volume_ml"]) for row in label_statistics(seg)]
        [('a', 8, 0.04), ('b', 0, 0.0)]
    """
    parts = parts or Parts.of(segmentation.array)
    runs = parts.runs
    largest = int(runs.label.max(initial=0))
    voxels = np.bincount(runs.label, weights=runs.stop - runs.start, minlength=largest + 1)
    known = {label.index for label in segmentation.labels}
    unknown = sorted(set(np.flatnonzero(voxels).tolist()) - known)
    if unknown:
        msg = (
            f"segmentation.array must hold labels of its table only, got {unknown[:10]}."
            " Use the label table of the model that made the mask."
        )
        raise InputError(msg, code="unknown-label")
    border = np.zeros(len(runs.label), np.bool_)
    for axis, index in zip(runs.others, runs.coordinates(), strict=True):
        if runs.shape[axis] > 1:
            border |= (index == 0) | (index == runs.shape[axis] - 1)
    if runs.shape[runs.axis] > 1:
        border |= (runs.start == 0) | (runs.stop == runs.shape[runs.axis])
    touching = set(np.unique(runs.label[border]).tolist())
    _, representative = np.unique(parts.component, return_index=True)
    components = np.bincount(runs.label[representative], minlength=largest + 1)
    is_2d = segmentation.array.ndim == 2
    voxel_ml = 0.0 if is_2d else voxel_volume_ml(segmentation.affine)
    rows = [
        {
            "index": label.index,
            "name": label.name,
            "voxels": int(voxels[label.index]) if label.index <= largest else 0,
            "volume_ml": None
            if is_2d
            else round(float(voxels[label.index]) * voxel_ml, 6)
            if label.index <= largest
            else 0.0,
            "components": int(components[label.index]) if label.index <= largest else 0,
            "touches_border": label.index in touching,
        }
        for label in segmentation.labels
    ]
    return [
        row if label.inside == (label.index,) else _of_region(segmentation, label)
        for label, row in zip(segmentation.labels, rows, strict=True)
    ]


def _of_region(segmentation: Segmentation, label: Label) -> dict[str, Any]:
    inside = np.isin(segmentation.array, label.inside).astype(np.uint8)
    whole = replace(segmentation, array=inside, labels=(Label(1, label.name, label.color),))
    return {**label_statistics(whole)[0], "index": label.index}
