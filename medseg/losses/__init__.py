"""Losses usable from a bundle's YAML: of logits against class indices, with an ignore label."""

from medseg.losses.balance import label_counts, median_frequency_weights
from medseg.losses.cross_entropy import BinaryCrossEntropyLoss, CrossEntropyLoss
from medseg.losses.deep_supervision import DeepSupervisionLoss
from medseg.losses.dice_ce import DiceCELoss
from medseg.losses.focal import FocalLoss
from medseg.losses.lovasz import LovaszSoftmaxLoss
from medseg.losses.overlap import DiceLoss, JaccardLoss
from medseg.losses.probability import ProbabilityMAELoss, ProbabilityMSELoss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CrossEntropyLoss",
    "DeepSupervisionLoss",
    "DiceCELoss",
    "DiceLoss",
    "FocalLoss",
    "JaccardLoss",
    "LovaszSoftmaxLoss",
    "ProbabilityMAELoss",
    "ProbabilityMSELoss",
    "label_counts",
    "median_frequency_weights",
]
