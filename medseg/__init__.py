"""medseg: segment organs and tumours in medical images.

Importing it is light: torch, MONAI and the readers are imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medseg._version import __version__ as __version__
from medseg.errors import (
    BundleError,
    ChoiceError,
    DependencyError,
    DicomError,
    GeometryError,
    InputError,
    MedsegError,
    OutputError,
    Problem,
    TrainingError,
    UsageError,
)

if TYPE_CHECKING:
    from medseg.bundle import load_bundle
    from medseg.inference import Predictor
    from medseg.io.dicom import find_series
    from medseg.io.read import read
    from medseg.volume import Segmentation, Volume
    from medseg.workflows.evaluate import EvaluateOptions, evaluate
    from medseg.workflows.plan import PlanOptions, plan
    from medseg.workflows.segment import SegmentOptions, segment
    from medseg.workflows.train import TrainOptions, train


_HOME = {
    "EvaluateOptions": "medseg.workflows.evaluate",
    "PlanOptions": "medseg.workflows.plan",
    "Predictor": "medseg.inference",
    "SegmentOptions": "medseg.workflows.segment",
    "Segmentation": "medseg.volume",
    "TrainOptions": "medseg.workflows.train",
    "Volume": "medseg.volume",
    "evaluate": "medseg.workflows.evaluate",
    "find_series": "medseg.io.dicom",
    "load_bundle": "medseg.bundle",
    "plan": "medseg.workflows.plan",
    "read": "medseg.io.read",
    "segment": "medseg.workflows.segment",
    "train": "medseg.workflows.train",
}

__all__ = [
    "BundleError",
    "ChoiceError",
    "DependencyError",
    "DicomError",
    "EvaluateOptions",
    "GeometryError",
    "InputError",
    "MedsegError",
    "OutputError",
    "PlanOptions",
    "Predictor",
    "Problem",
    "SegmentOptions",
    "Segmentation",
    "TrainOptions",
    "TrainingError",
    "UsageError",
    "Volume",
    "evaluate",
    "find_series",
    "load_bundle",
    "plan",
    "read",
    "segment",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'medseg' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
