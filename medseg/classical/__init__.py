"""Methods without a network: superpixels, region growing, watershed.

Each is a frozen dataclass of its settings, checked when it is made, and called on a `Volume`; and a
function of the same name in lower case that does both at once.
"""

from medseg.classical.grow import (
    ConfidenceConnected,
    ConnectedThreshold,
    confidence_connected,
    connected_threshold,
)
from medseg.classical.image import Method
from medseg.classical.mean_shift import MeanShift, mean_shift
from medseg.classical.seeds import Seeds
from medseg.classical.superpixels import Quickshift, Slic, quickshift, slic
from medseg.classical.watershed import Watershed, watershed

__all__ = [
    "ConfidenceConnected",
    "ConnectedThreshold",
    "MeanShift",
    "Method",
    "Quickshift",
    "Seeds",
    "Slic",
    "Watershed",
    "confidence_connected",
    "connected_threshold",
    "mean_shift",
    "quickshift",
    "slic",
    "watershed",
]
