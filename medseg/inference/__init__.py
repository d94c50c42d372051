"""From a volume to a segmentation."""

from medseg.inference.predictor import Predictor

__all__ = ["Predictor"]
