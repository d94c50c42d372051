"""From a volume to a segmentation."""

from medseg.inference.execution import Execution
from medseg.inference.inferers import MaskInferer, StreamingInferer
from medseg.inference.predictor import Predictor

__all__ = ["Execution", "MaskInferer", "Predictor", "StreamingInferer"]
