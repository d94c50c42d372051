"""The load transform, and lists of MONAI transforms."""

from medseg.transforms.rand_patch import RandPatchd
from medseg.transforms.rand_smooth import RandSmoothd
from medseg.transforms.reader import ImageReader, metatensor

__all__ = ["ImageReader", "RandPatchd", "RandSmoothd", "metatensor"]
