"""From a volume to a segmentation."""

from medseg.inference.execution import Execution
from medseg.inference.inferers import EvenInferer, MaskInferer, StreamingInferer
from medseg.inference.predictor import Predictor
from medseg.inference.previous_stage import PreviousStaged

__all__ = [
    "EvenInferer",
    "Execution",
    "MaskInferer",
    "Predictor",
    "PreviousStaged",
    "StreamingInferer",
]
