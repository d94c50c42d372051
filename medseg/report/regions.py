"""Numbered regions, such as superpixels: too many to list, so they are summed up."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medseg.io.labels import MOST_LISTED


def listed_statistics(statistics: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return what documents list of numbered regions: each of up to 255, else none.

    Args:
        statistics: What `label_statistics` returned.

    Returns:
        The same, or nothing.
    """
    return statistics if len(statistics) <= MOST_LISTED else []


def region_summary(statistics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe numbered regions together, where there are too many to list.

    Args:
        statistics: What `label_statistics` returned.

    Returns:
        `{"count", "voxels": {"smallest", "median", "largest"}, "scattered"}`: regions that were
        found, their sizes, and how many of them are of several parts; sizes are None where there
        is no region.
    """
    voxels = np.array([row["voxels"] for row in statistics if row["voxels"]], np.int64)
    sizes = (
        (int(voxels.min()), float(np.median(voxels)), int(voxels.max()))
        if len(voxels)
        else (None, None, None)
    )
    return {
        "count": len(voxels),
        "voxels": dict(zip(("smallest", "median", "largest"), sizes, strict=True)),
        "scattered": sum(1 for row in statistics if row["components"] > 1),
    }
