"""The load transform, and lists of MONAI transforms."""

from medseg.transforms.reader import ImageReader, metatensor

__all__ = ["ImageReader", "metatensor"]
