"""What a bundle saw in training, as far as a result can be held against it."""

from typing import Any

import numpy as np

from medseg.planning.fingerprint import Fingerprint

DIGITS = 6


def seen_in_training(fingerprint: Fingerprint, *, absolute: bool) -> dict[str, Any]:
    """Return the ranges of a dataset: `medseg.training` of a bundle's metadata.

    Args:
        fingerprint: Of the dataset.
        absolute: Intensities are in a unit, as those of CT are.

    Returns:
        `{"cases", "spacing_mm", "extent_mm", "intensity_mean", "labels"}`: of each the smallest and
        the largest. Spacing and extent in the order of RAS, left out where images are taken in
        pixels; `intensity_mean` of each channel inside all structures, only of `absolute` ones;
        `labels`, of 3D images, by name: `cases` that have it, and in those `volume_ml` and
        `components`.
    """
    cases = fingerprint.cases
    seen: dict[str, Any] = {"cases": len(cases)}
    if not fingerprint.in_pixels:
        seen["spacing_mm"] = _range([case.spacing for case in cases])
        extents = [np.multiply(case.shape, case.spacing) for case in cases]
        seen["extent_mm"] = _range(extents)
    means = [case.foreground_means for case in cases if case.foreground_means]
    if absolute and means:
        seen["intensity_mean"] = _range(means)
    if len(cases[0].shape) == 3:
        names = enumerate(fingerprint.structures)
        seen["labels"] = {name: _of_label(fingerprint, number) for number, name in names}
    return seen


def _of_label(fingerprint: Fingerprint, number: int) -> dict[str, Any]:
    having = [case for case in fingerprint.cases if case.label_voxels[number]]
    found: dict[str, Any] = {"cases": len(having)}
    if having:
        volumes = [
            case.label_voxels[number] * float(np.prod(case.spacing)) / 1000 for case in having
        ]
        found["volume_ml"] = [_rounded(min(volumes)), _rounded(max(volumes))]
        counts = [case.label_components[number] for case in having if case.label_components]
        if counts:
            found["components"] = [min(counts), max(counts)]
    return found


def _range(values: Any) -> dict[str, list[float]]:
    array = np.array(values, np.float64)
    low, high = array.min(axis=0), array.max(axis=0)
    return {"min": [_rounded(v) for v in low], "max": [_rounded(v) for v in high]}


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
