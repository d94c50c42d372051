"""Surfaces of labels as files: binary STL."""

from pathlib import Path

import numpy as np

from medseg.errors import UsageError
from medseg.geometry import apply_affine
from medseg.io.atomic import atomic_path, output_errors
from medseg.io.label_parts import Box, file_stems, label_boxes, label_mask
from medseg.io.surface import SMOOTHING_ROUNDS, Surface, surface_of
from medseg.volume import Label, Segmentation

SUFFIX = ".stl"

_STL_HEADER = b"binary STL of medseg; SPACE=LPS; UNIT=mm".ljust(80)
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PIECE = 1 << 18  # triangles


def write_meshes(
    segmentation: Segmentation, folder: Path, *, smoothing: int = SMOOTHING_ROUNDS
) -> list[Path]:
    """Write the surface of each label as binary STL, in the patient's LPS frame and mm.

    STL itself knows neither frame nor unit: the header says `SPACE=LPS`, which 3D Slicer reads. A
    region that others lie within is whole. A label without voxels has no surface, and no file.

    Args:
        segmentation: Mask (I, J, K).
        folder: Where the files go; made where there is none.
        smoothing: Rounds of Taubin's smoothing, 0 for none.

    Returns:
        The files, in the order of the labels: names as `file_stems` makes them.

    Raises:
        OutputError: If writing fails; what was complete before stays.
        UsageError: If the mask is of a 2D image.
    """
    if segmentation.array.ndim != 3:
        msg = f"segmentation must be of a 3D volume, got {segmentation.array.ndim} axes."
        raise UsageError(msg)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = []
    stems, boxes = file_stems(segmentation.labels), label_boxes(segmentation)
    for label, stem, box in zip(segmentation.labels, stems, boxes, strict=True):
        if box is None:
            continue
        paths.append(folder / f"{stem}{SUFFIX}")
        write_stl(_surface(segmentation, label, box, smoothing), paths[-1])
    return paths


def write_stl(surface: Surface, path: Path) -> None:
    """Write a surface as binary STL, atomically; LPS, mm.

    Args:
        surface: Its points are rounded to float32, which is under 0.0001 mm within the patient.
        path: The file.

    Raises:
        OutputError: If writing fails; nothing is left behind.
    """
    with atomic_path(path) as part, part.open("wb") as stream:
        stream.write(_STL_HEADER)
        stream.write(len(surface.triangles).to_bytes(4, "little"))
        for start in range(0, len(surface.triangles), _PIECE):
            corners = surface.points_mm[surface.triangles[start : start + _PIECE]]
            first, second, third = np.moveaxis(corners, 1, 0)
            normal = np.cross(second - first, third - first)
            length = np.linalg.norm(normal, axis=1, keepdims=True)
            rows = np.zeros(len(corners), _STL_TRIANGLE)
            rows["normal"] = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
            rows["corners"] = corners
            stream.write(rows.data)


def _surface(segmentation: Segmentation, label: Label, box: Box, smoothing: int) -> Surface:
    affine = segmentation.affine.copy()
    affine[:3, 3] = apply_affine(affine, [part.start for part in box])
    return surface_of(label_mask(segmentation, label, box), affine, smoothing=smoothing)
