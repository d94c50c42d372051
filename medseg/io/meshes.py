"""Surfaces of labels as files: binary STL or PLY, or OBJ."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from medseg.errors import UsageError
from medseg.geometry import apply_affine
from medseg.io.atomic import atomic_path, output_errors
from medseg.io.label_parts import Box, file_stems, label_boxes, label_mask
from medseg.io.surface import SMOOTHING_ROUNDS, Surface, surface_of
from medseg.volume import Label, Segmentation

FRAME = "SPACE=LPS; UNIT=mm"
"""What 3D Slicer looks for in headers and comments: none of the formats knows frame and unit."""

_STL_HEADER = f"binary STL of medseg; {FRAME}".encode().ljust(80)
_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_FACE = np.dtype([("corners", "u1"), ("vertices", "<i4", 3)])
_PIECE = 1 << 18  # triangles


def write_meshes(
    segmentation: Segmentation,
    folder: Path,
    *,
    smoothing: int = SMOOTHING_ROUNDS,
    file_format: str = "stl",
) -> list[Path]:
    """Write the surface of each label, in the patient's LPS frame and mm.

    The formats know neither frame nor unit: header or comment says `SPACE=LPS`, which 3D Slicer
    reads. PLY has the label's colour, OBJ its name. A region that others lie within is whole. A
    label without voxels has no surface, and no file.

    Args:
        segmentation: Mask (I, J, K).
        folder: Where the files go; made where there is none.
        smoothing: Rounds of Taubin's smoothing, 0 for none.
        file_format: Of `FORMATS`: `stl` (binary), `obj` or `ply` (binary).

    Returns:
        The files, in the order of the labels: names as `file_stems` makes them.

    Raises:
        OutputError: If writing fails; what was complete before stays.
        UsageError: If the mask is of a 2D image, or the format unknown.
    """
    if file_format not in FORMATS:
        msg = f"file_format must be one of {', '.join(FORMATS)}, got {file_format!r}."
        raise UsageError(msg)
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
        paths.append(folder / f"{stem}.{file_format}")
        FORMATS[file_format](_surface(segmentation, label, box, smoothing), label, paths[-1])
    return paths


def write_stl(surface: Surface, label: Label, path: Path) -> None:  # noqa: ARG001
    """Write a surface as binary STL, atomically; LPS, mm.

    Args:
        surface: Its points are rounded to float32, which is under 0.0001 mm within the patient.
        label: What it is of; STL has no place for it.
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


def write_ply(surface: Surface, label: Label, path: Path) -> None:
    """Write a surface as binary PLY, atomically; LPS, mm. Each point has the label's colour.

    Args:
        surface: Its points are rounded to float32.
        label: What it is of.
        path: The file.

    Raises:
        OutputError: If writing fails; nothing is left behind.
    """
    points, colors = len(surface.points_mm), ("red", "green", "blue")
    header = [
        *("ply", "format binary_little_endian 1.0", f"comment medseg; {FRAME}"),
        *(f"element vertex {points}", *(f"property float {axis}" for axis in "xyz")),
        *(f"property uchar {color}" for color in colors),
        *(f"element face {len(surface.triangles)}", "property list uchar int vertex_indices"),
        "end_header",
    ]
    vertices = np.zeros(points, [("place", "<f4", 3), ("color", "u1", 3)])
    vertices["place"], vertices["color"] = surface.points_mm, label.color
    faces = np.zeros(len(surface.triangles), _PLY_FACE)
    faces["corners"], faces["vertices"] = 3, surface.triangles
    with atomic_path(path) as part, part.open("wb") as stream:
        stream.write(("\n".join(header) + "\n").encode("ascii"))
        stream.write(vertices.data)
        stream.write(faces.data)


def write_obj(surface: Surface, label: Label, path: Path) -> None:
    """Write a surface as OBJ, atomically; LPS, mm. The object has the label's name.

    Args:
        surface: Its points are rounded to 0.0001 mm.
        label: What it is of.
        path: The file.

    Raises:
        OutputError: If writing fails; nothing is left behind.
    """
    name = "_".join(label.name.split())
    with atomic_path(path) as part, part.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(f"# medseg; {FRAME}\no {name}\n")
        for row, values in (
            ("v %.4f %.4f %.4f\n", surface.points_mm),
            ("f %d %d %d\n", surface.triangles + 1),  # which OBJ counts from 1
        ):
            for start in range(0, len(values), _PIECE):
                piece = values[start : start + _PIECE]
                stream.write(row * len(piece) % tuple(piece.ravel().tolist()))


FORMATS: Mapping[str, Callable[[Surface, Label, Path], None]] = {
    "stl": write_stl,
    "obj": write_obj,
    "ply": write_ply,
}
"""Suffix of a file to what writes it."""


def _surface(segmentation: Segmentation, label: Label, box: Box, smoothing: int) -> Surface:
    affine = segmentation.affine.copy()
    affine[:3, 3] = apply_affine(affine, [part.start for part in box])
    return surface_of(label_mask(segmentation, label, box), affine, smoothing=smoothing)
