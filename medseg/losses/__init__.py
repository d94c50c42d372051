"""Losses that MONAI does not have, usable from a bundle's YAML."""

from medseg.losses.deep_supervision import DeepSupervisionLoss

__all__ = ["DeepSupervisionLoss"]
