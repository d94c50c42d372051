"""Ratios and means in which what is undefined is NaN, and None in JSON."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt


def ratio(above: Any, below: Any) -> npt.NDArray[np.float64]:
    """Divide; NaN where there is nothing to divide by."""
    below = np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.full(below.shape, np.nan), where=below > 0))


def defined_mean(values: npt.NDArray[np.float64]) -> float:
    """Average what is not NaN; NaN where nothing is left."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def or_none(value: float) -> float | None:
    """Return a number as JSON has it."""
    return None if math.isnan(value) else float(value)
