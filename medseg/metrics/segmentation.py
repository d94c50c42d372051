"""Score a predicted mask against a label mask: overlap, surface distance, volume.

The formulas are MONAI's. Overlap comes from exact integer counts of the whole grid; surfaces are
measured label by label inside the box that holds both masks, so memory does not grow with the
number of labels.

Definitions, for a label with `tp` shared voxels, `fp` predicted only, `fn` missed:

* dice = 2 tp / (2 tp + fp + fn); iou = tp / (tp + fp + fn); precision = tp / (tp + fp);
  recall = tp / (tp + fn).
* A surface voxel is one of the mask's with a face neighbour outside the mask; where the mask
  meets the end of the grid, it ends there. hd95_mm is the larger of the two directed 95th
  percentiles of the distance from a surface voxel to the other surface (linear interpolation).
* nsd is the share of surface voxels of both masks within the tolerance of the other surface.
* volume_difference is prediction minus label: in ml, and in percent of the label.

What is undefined is NaN, never 0:

==================  ===========  ===========  ====================  ====================
prediction, label   both absent  label only   prediction only       both
==================  ===========  ===========  ====================  ====================
dice, iou, nsd      NaN          0            0                     defined
hd95_mm             NaN          NaN          NaN                   defined
precision           NaN          NaN          0                     defined
recall              NaN          0            NaN                   defined
volume, ml          NaN          defined      defined               defined
volume, percent     NaN          -100         NaN                   defined
outcome             absent       missed       false-positive        scored
==================  ===========  ===========  ====================  ====================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Mask: TypeAlias = npt.NDArray[Any]
Outcome = Literal["scored", "absent", "missed", "false-positive"]

METRICS = (
    "dice",
    "iou",
    "hd95_mm",
    "nsd",
    "precision",
    "recall",
    "volume_difference_ml",
    "volume_difference_percent",
)
"""Names of the metrics, in the order of tables."""

NSD_SLACK_MM = 1e-4
"""Distances this little over the tolerance still count as within it: spacings read from float32
headers are off by about 1e-7 of their value, and 1 mm voxels against 1 mm would fall either way."""

_MONAI_NAMES = {
    "dice": "f1 score",
    "iou": "threat score",
    "precision": "precision",
    "recall": "recall",
}
_CHUNK = 1 << 22
"""Voxels counted at a time: numpy widens them to int64 first."""


@dataclass(frozen=True)
class LabelScore:
    """How one label of one case was met; see the module for definitions.

    Attributes:
        index: Value of the label in both masks.
        pred_voxels: Predicted voxels.
        label_voxels: Voxels of the label.
        dice: Dice coefficient; 0 to 1.
        iou: Intersection over union; 0 to 1.
        hd95_mm: 95th percentile Hausdorff distance; mm.
        nsd: Normalised surface Dice at the tolerance; 0 to 1.
        precision: Share of the prediction that is right; 0 to 1.
        recall: Share of the label that is found; 0 to 1.
        volume_difference_ml: Prediction minus label; ml. NaN in 2D.
        volume_difference_percent: The same in percent of the label's volume (in 2D, area).
    """

    index: int
    pred_voxels: int
    label_voxels: int
    dice: float = float("nan")
    iou: float = float("nan")
    hd95_mm: float = float("nan")
    nsd: float = float("nan")
    precision: float = float("nan")
    recall: float = float("nan")
    volume_difference_ml: float = float("nan")
    volume_difference_percent: float = float("nan")

    @property
    def outcome(self) -> Outcome:
        """Whether the label was there, was found, or neither."""
        if self.pred_voxels and self.label_voxels:
            return "scored"
        if self.label_voxels:
            return "missed"
        return "false-positive" if self.pred_voxels else "absent"

    def metrics(self) -> dict[str, float]:
        """Return the metrics by name, in the order of `METRICS`."""
        return {name: getattr(self, name) for name in METRICS}


def score_masks(
    pred: Mask,
    label: Mask,
    spacing_mm: Sequence[float] | None,
    indices: Sequence[int],
    *,
    nsd_tolerance_mm: float = 1.0,
    ignore_index: int | None = None,
) -> list[LabelScore]:
    """Score a predicted mask against a label mask on the same grid.

    Args:
        pred: (I, J, K) or (rows, columns) predicted label of each voxel; integer, 0 is background.
        label: Same shape; the truth.
        spacing_mm: Distance between voxel centres along each axis; mm. None where it is unknown:
            hd95_mm, nsd and volume_difference_ml are NaN then.
        indices: Labels to score.
        nsd_tolerance_mm: Deviation of the surface that `nsd` accepts; mm.
        ignore_index: Voxels that hold this value in `label` count as background in both masks.

    Returns:
        One score a label, in the order of `indices`.

    Raises:
        ValueError: If the shapes differ, the masks are not integer, the tolerance is negative, or
            an index is below 1.

    Source:
        Dice, IoU, precision, recall: `monai.metrics.compute_confusion_matrix_metric` (f1 score,
        threat score). Surfaces: `monai.metrics.utils.get_mask_edges` and `get_surface_distance`,
        the ground of `compute_hausdorff_distance` and `compute_surface_dice` (arXiv:2111.05408).

    Examples:
        >>> import numpy as np
        >>> truth = np.zeros((8, 8, 8), np.uint8)
        >>> truth[2:6, 2:6, 2:6] = 1
        >>> score = score_masks(truth, truth, (1.0, 1.0, 2.0), [1])[0]
        >>> score.dice, score.hd95_mm, score.nsd, score.volume_difference_ml
        (1.0, 0.0, 1.0, 0.0)
    """
    _check(pred, label, spacing_mm, indices, nsd_tolerance_mm)
    if ignore_index is not None:
        ignored = label == ignore_index
        pred, label = pred.copy(), label.copy()
        pred[ignored] = 0
        label[ignored] = 0
    if label.flags.f_contiguous:  # scores do not depend on the order of axes, speed does
        pred, label = pred.T, label.T
        spacing_mm = None if spacing_mm is None else tuple(spacing_mm)[::-1]
    largest = max(indices, default=0)
    both, in_pred, in_label = _counts(pred, label, largest)
    boxes = _union_boxes(pred, label, largest) if spacing_mm is not None else []
    scores = []
    for index in indices:
        counts = (int(both[index]), int(in_pred[index]), int(in_label[index]))
        values = _overlap(*counts) | _volumes(*counts[1:], spacing_mm)
        if spacing_mm is not None and (counts[1] or counts[2]):
            values["nsd"] = 0.0
            if counts[1] and counts[2]:
                box = boxes[index - 1]
                values |= _surfaces(
                    pred[box] == index, label[box] == index, spacing_mm, nsd_tolerance_mm
                )
        scores.append(LabelScore(index, counts[1], counts[2], **values))
    return scores


def _check(
    pred: Mask,
    label: Mask,
    spacing_mm: Sequence[float] | None,
    indices: Sequence[int],
    nsd_tolerance_mm: float,
) -> None:
    if pred.shape != label.shape or pred.ndim not in (2, 3):
        msg = f"pred must have the shape of label, 2D or 3D, got {pred.shape} and {label.shape}."
        raise ValueError(msg)
    if pred.dtype.kind not in "ui" or label.dtype.kind not in "ui":
        msg = f"pred and label must be integer, got {pred.dtype} and {label.dtype}."
        raise ValueError(msg)
    if spacing_mm is not None and (len(spacing_mm) != pred.ndim or not min(spacing_mm) > 0):
        msg = f"spacing_mm must be {pred.ndim} positive numbers, got {tuple(spacing_mm)}."
        raise ValueError(msg)
    if not 0 <= nsd_tolerance_mm < np.inf:
        msg = f"nsd_tolerance_mm must be 0 or more, got {nsd_tolerance_mm!r}."
        raise ValueError(msg)
    if min(indices, default=1) < 1:
        msg = f"indices must be 1 or more (0 is background), got {min(indices)}."
        raise ValueError(msg)


def _counts(pred: Mask, label: Mask, largest: int) -> npt.NDArray[np.int64]:
    """Count shared, predicted and true voxels of each label up to `largest`."""
    flat = pred.reshape(-1), label.reshape(-1)  # views where memory order allows
    totals = np.zeros((3, largest + 1), np.int64)
    for start in range(0, flat[0].size, _CHUNK):
        a, b = (values[start : start + _CHUNK] for values in flat)
        for row, values in enumerate((a[a == b], a, b)):
            totals[row] += np.bincount(values, minlength=largest + 1)[: largest + 1]
    return totals


def _union_boxes(pred: Mask, label: Mask, largest: int) -> list[Any]:
    """Return, for each label from 1, the box around its voxels in either mask, or None."""
    from scipy import ndimage  # noqa: PLC0415  (light commands import this module for its names)

    found = [ndimage.find_objects(mask, largest) for mask in (pred, label)]
    boxes = []
    for a, b in zip(*found, strict=True):
        if a is None or b is None:
            boxes.append(b if a is None else a)
            continue
        boxes.append(
            tuple(
                slice(min(s.start, t.start), max(s.stop, t.stop)) for s, t in zip(a, b, strict=True)
            )
        )
    return boxes


def _overlap(both: int, in_pred: int, in_label: int) -> dict[str, float]:
    import torch  # noqa: PLC0415
    from monai.metrics import compute_confusion_matrix_metric  # noqa: PLC0415

    # tp, fp, tn, fn; none of the four metrics reads tn
    matrix = torch.tensor([both, in_pred - both, 0, in_label - both], dtype=torch.float64)
    return {
        ours: float(compute_confusion_matrix_metric(theirs, matrix))
        for ours, theirs in _MONAI_NAMES.items()
    }


def _volumes(in_pred: int, in_label: int, spacing_mm: Sequence[float] | None) -> dict[str, float]:
    values = {}
    if spacing_mm is not None and len(spacing_mm) == 3 and (in_pred or in_label):
        voxel_ml = float(np.prod(spacing_mm)) / 1000
        values["volume_difference_ml"] = (in_pred - in_label) * voxel_ml
    if in_label:
        values["volume_difference_percent"] = 100 * (in_pred - in_label) / in_label
    return values


def _surfaces(
    pred: npt.NDArray[np.bool_],
    label: npt.NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> dict[str, float]:
    """Measure both directed surface distances once, for HD95 and NSD."""
    from monai.metrics.utils import get_mask_edges, get_surface_distance  # noqa: PLC0415

    # not get_edge_surface_distance: in MONAI 1.6.1 it warns about an argument it passes itself
    # crop=False: the box is tight already, and beyond its faces there is background
    edges = get_mask_edges(pred, label, crop=False)
    spacing = [float(value) for value in spacing_mm]
    directed = [
        np.asarray(get_surface_distance(of, to, spacing=spacing)) for of, to in (edges, edges[::-1])
    ]
    within = sum(int((part <= tolerance_mm + NSD_SLACK_MM).sum()) for part in directed)
    return {
        # numpy: torch.quantile refuses more than 16 million values
        "hd95_mm": max(float(np.percentile(part, 95)) for part in directed),
        "nsd": within / sum(part.size for part in directed),
    }
