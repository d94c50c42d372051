"""The load transform, and lists of MONAI transforms."""

from medseg.transforms.classical import ClassicalRegionsd
from medseg.transforms.labels import LabelRegionsd, MapLabelsd, RegionsToLabelsd
from medseg.transforms.nnunet import AddMaskChannelsd, CropNonzerod, NnunetResampled
from medseg.transforms.normalize import NormalizeChannelsd
from medseg.transforms.rand_colour import RandColord
from medseg.transforms.rand_patch import RandPatchd
from medseg.transforms.rand_smooth import RandSmoothd
from medseg.transforms.reader import ImageReader, metatensor
from medseg.transforms.resample import Resample, Resampled
from medseg.transforms.save_objects import SaveObjectsd
from medseg.transforms.save_png import SavePaletted

__all__ = [
    "AddMaskChannelsd",
    "ClassicalRegionsd",
    "CropNonzerod",
    "ImageReader",
    "LabelRegionsd",
    "MapLabelsd",
    "NnunetResampled",
    "NormalizeChannelsd",
    "RandColord",
    "RandPatchd",
    "RandSmoothd",
    "RegionsToLabelsd",
    "Resample",
    "Resampled",
    "SaveObjectsd",
    "SavePaletted",
    "metatensor",
]
