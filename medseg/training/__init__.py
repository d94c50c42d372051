"""Training on MONAI's engines: what a bundle's train.yaml adds to them."""

from medseg.training.autocast import AutocastInferer
from medseg.training.checkpoint import BestWeightsWriter, CheckpointWriter
from medseg.training.split import cases_of_split

__all__ = ["AutocastInferer", "BestWeightsWriter", "CheckpointWriter", "cases_of_split"]
