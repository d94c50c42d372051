"""Object instances from a network's detections: pasted, joined across tiles, linked over slices."""

from medseg.inference.objects.link import link
from medseg.inference.objects.paste import Onto, paste
from medseg.inference.objects.predictor import ObjectPredictor
from medseg.inference.objects.source import SourceObjectInferer
from medseg.inference.objects.tiles import ObjectInferer

__all__ = ["ObjectInferer", "ObjectPredictor", "Onto", "SourceObjectInferer", "link", "paste"]
