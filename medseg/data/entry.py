"""One preprocessed case on disk: arrays that are mapped into memory, never read as a whole."""

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.data.utils import to_affine_nd

from medseg.errors import InputError
from medseg.geometry import spacing_mm
from medseg.io.atomic import atomic_folder, output_errors, write_json
from medseg.objects import PLACES
from medseg.volume import IGNORED, mask_dtype

ENTRY_FORMAT = 1
"""Version of what an entry holds; part of every key, so that no other version is ever read."""

FOREGROUND_VOXELS = 10_000
"""Coordinates kept of each class; nnU-Net keeps as many."""

OBJECT_VOXELS = 16
"""Coordinates kept of each object."""

_META = "meta.json"
_IMAGE, _LABEL, _FOREGROUND = "image.npy", "label.npy", "foreground.npy"


@dataclass(frozen=True)
class Prepared:
    """What the transforms made of a case.

    Attributes:
        case_id: The case.
        image: (C, *spatial) float32.
        label: (1, *spatial) class numbers, or (R, *spatial) one 0/1 channel a region; uint8 or
            uint16. Or layers of objects; int32.
        affine: From voxels to RAS, mm; (4, 4) in 3D, (3, 3) in 2D.
        original_shape: Spatial shape of the file.
    """

    case_id: str
    image: npt.NDArray[np.float32]
    label: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    original_shape: tuple[int, ...]


def prepared_case(case_id: str, data: Mapping[str, Any]) -> Prepared:
    """Check what the transforms made of a case.

    Args:
        case_id: The case.
        data: What the last transform returned: `image` and `label`, (C, *spatial) each.

    Returns:
        The case in the types that an entry has.

    Raises:
        InputError: If image and label have different grids, the image is not finite, or the label
            is no mask.
    """
    image, label = (_array(data, key) for key in ("image", "label"))
    if image.shape[1:] != label.shape[1:]:
        msg = f"label must have the grid of its image, {image.shape[1:]}, got {label.shape[1:]}."
        raise InputError(msg, code="shape-mismatch")
    if 0 in image.shape or image.ndim < 3:
        msg = f"image must have channels and two or three axes, got shape {image.shape}."
        raise InputError(msg, code="unsupported-dimensions")
    image = np.ascontiguousarray(image, dtype=np.float32)
    if not np.isfinite(image).all():
        msg = "image must be finite after the transforms, got NaN or infinite values."
        raise InputError(msg, code="non-finite")
    source = data["image"]
    dims = image.ndim - 1
    affine = source.affine.numpy() if isinstance(source, MetaTensor) else np.eye(dims + 1)
    original = source.meta.get("spatial_shape") if isinstance(source, MetaTensor) else None
    shape = image.shape[1:] if original is None else [int(size) for size in original][:dims]
    return Prepared(
        case_id,
        image,
        _mask(label),
        np.asarray(to_affine_nd(dims, affine), np.float64),
        tuple(shape),
    )


def _array(data: Mapping[str, Any], key: str) -> npt.NDArray[Any]:
    value = data[key]
    if getattr(value, "pending_operations", None):
        msg = f"{key} must have no pending operations after the transforms. Set lazy to false."
        raise InputError(msg)
    if isinstance(value, MetaTensor):
        value = value.as_tensor()
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def _mask(label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if is_objects(label):
        return np.ascontiguousarray(label, dtype=np.int32)
    low, high = label.min(), label.max()
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > np.iinfo(np.uint16).max:
        msg = f"label must hold class numbers from 0 to 65535, got values from {low} to {high}."
        raise InputError(msg, code="not-a-mask")
    mask = np.ascontiguousarray(label, dtype=mask_dtype(int(high)))
    if label.dtype.kind == "f" and not np.array_equal(mask, label):
        msg = "label must hold whole numbers, got fractions. Resample labels to the nearest voxel."
        raise InputError(msg, code="not-a-mask")
    if mask.shape[0] > 1 and high > 1:
        msg = f"label must hold 0 and 1 where it has a channel for each region, got {high}."
        raise InputError(msg, code="not-a-mask")
    return mask


def is_objects(label: npt.NDArray[Any]) -> bool:
    """Say whether a label holds objects, as `ObjectInstances.layers` makes them, and not classes.

    Args:
        label: Of a case; one without any object is a mask of background.
    """
    if label.dtype.kind != "i" or label.dtype.itemsize < np.dtype(np.int32).itemsize:
        return False
    return bool(label.size) and max(int(label.max()), -int(label.min())) > PLACES


def foreground_voxels(label: npt.NDArray[Any], case_id: str) -> dict[int, npt.NDArray[np.int32]]:
    """Choose voxels of each class, at random but the same ones for the same case.

    Pixels that are left out (255) are no foreground.

    Args:
        label: (1, *spatial) class numbers, or (R, *spatial) regions, of which channel c is
            class c + 1; or layers of objects, each of which gives as many voxels to its class.
        case_id: Seeds the choice.

    Returns:
        (N, axes) voxel coordinates by class, by rising class; N is at most `FOREGROUND_VOXELS`.
    """
    seed = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big")
    if is_objects(label):
        return _voxels_of_objects(label, seed)
    if label.shape[0] == 1:
        values = [int(value) for value in np.unique(label) if value not in (0, IGNORED)]
        masks = ((value, label[0] == value) for value in values)
    else:
        masks = ((channel + 1, mask > 0) for channel, mask in enumerate(label))
    chosen = {}
    for value, mask in masks:
        places = np.flatnonzero(mask)
        if places.size > FOREGROUND_VOXELS:
            random = np.random.default_rng((seed, value))
            places = random.choice(places, FOREGROUND_VOXELS, replace=False)
        if places.size:
            found = np.unravel_index(np.sort(places), mask.shape)
            chosen[value] = np.stack(found, axis=1).astype(np.int32)
    return chosen


def _voxels_of_objects(label: npt.NDArray[np.int32], seed: int) -> dict[int, npt.NDArray[np.int32]]:
    random = np.random.default_rng(seed)
    voxels = np.argwhere(label > 0)
    voxels = voxels[random.permutation(len(voxels))]
    codes = label[tuple(voxels.T)]
    order = np.argsort(codes, kind="stable")  # still at random within each object
    voxels, codes = voxels[order], codes[order]
    place = np.arange(len(codes)) - np.searchsorted(codes, codes)
    voxels, codes = voxels[place < OBJECT_VOXELS], codes[place < OBJECT_VOXELS]
    classes = codes // PLACES
    return {int(n): voxels[classes == n, 1:].astype(np.int32) for n in np.unique(classes)}


def write_entry(folder: Path, case: Prepared, *, keep: bool = True) -> None:
    """Write an entry: complete, or not at all.

    Args:
        folder: The entry's folder.
        case: What to keep.
        keep: An entry that is there already stays.

    Raises:
        OutputError: If it cannot be written (`disk-full`, `output-not-writable`, `output`).
    """
    foreground = foreground_voxels(case.label, case.case_id)
    axes = case.image.ndim - 1
    voxels = np.concatenate([np.empty((0, axes), np.int32), *foreground.values()])
    arrays = {_IMAGE: case.image, _LABEL: case.label, _FOREGROUND: voxels}
    with atomic_folder(folder, keep=keep) as part:
        with output_errors(folder):
            written = {name: _write_array(part / name, array) for name, array in arrays.items()}
        stops = np.cumsum([len(coordinates) for coordinates in foreground.values()]).tolist()
        document = {
            "format": ENTRY_FORMAT,
            "case": case.case_id,
            "affine": case.affine,
            "spacing_mm": spacing_mm(case.affine),
            "shape": case.image.shape[1:],
            "original_shape": case.original_shape,
            "classes": list(foreground),
            "stops": stops,
            "arrays": written,
        }
        write_json(part / _META, document)


def _write_array(path: Path, array: npt.NDArray[Any]) -> dict[str, Any]:
    """Write a .npy file by plain writes, whose errors say when the disk is full.

    Returns:
        What it takes to map the file without reading its header again.
    """
    array = np.ascontiguousarray(array)
    with path.open("wb") as stream:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(stream, header)
        offset = stream.tell()
        if array.size:
            stream.write(array.data.cast("B"))
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.str,
        "offset": offset,
        "bytes": offset + array.nbytes,
    }


@dataclass(frozen=True)
class Entry:
    """An entry on disk.

    Attributes:
        folder: Its folder.
        meta: Its `meta.json`.
    """

    folder: Path
    meta: dict[str, Any]

    def image(self) -> torch.Tensor:
        """Map the image into memory.

        Returns:
            (C, *spatial) float32; pages are read when touched, and writing changes no file.
        """
        return torch.from_numpy(self._array(_IMAGE))

    def label(self) -> torch.Tensor:
        """Map the label into memory.

        Returns:
            (1 or regions, *spatial) uint8 or uint16, or layers of objects; as the image.
        """
        return torch.from_numpy(self._array(_LABEL))

    def foreground(self) -> dict[int, npt.NDArray[np.int32]]:
        """Return the chosen voxels of each class that the case has.

        Returns:
            (N, axes) voxel coordinates by class.
        """
        voxels = self._array(_FOREGROUND)
        stops = [int(stop) for stop in self.meta["stops"]]
        starts = [0, *stops][: len(stops)]
        return {
            int(value): voxels[start:stop]
            for value, start, stop in zip(self.meta["classes"], starts, stops, strict=True)
        }

    def _array(self, name: str) -> npt.NDArray[Any]:
        """Map a file copy-on-write; numpy's own way takes ten times as long."""
        form = self.meta["arrays"][name]
        shape, kind = form["shape"], np.dtype(form["dtype"])
        if 0 in shape:
            return np.empty(shape, kind)
        with (self.folder / name).open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        return np.frombuffer(mapped, kind, math.prod(shape), form["offset"]).reshape(shape)


def open_entry(folder: Path) -> Entry | None:
    """Open an entry.

    Args:
        folder: Its folder.

    Returns:
        The entry; None where there is none, or where a power cut has left its files short.
    """
    try:
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        whole = all(
            (folder / name).stat().st_size == form["bytes"] for name, form in meta["arrays"].items()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return Entry(folder, meta) if whole and meta.get("format") == ENTRY_FORMAT else None
