"""What is written of each label of a case: for 3D Slicer, as masks, as surfaces."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.volume import Segmentation

NRRD = "segmentation.seg.nrrd"
LABEL_FOLDER = "labels"
MESH_FOLDER = "meshes"
MESH_FORMATS = ("stl", "obj", "ply")
"""Kinds of files in it."""

FOLDERS = frozenset({LABEL_FOLDER, MESH_FOLDER})
"""Outputs that are folders of files."""


def write_label_outputs(
    folder: Path,
    segmentation: Segmentation,
    outputs: Sequence[str],
    mesh: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Write those outputs of a case in which each label stands for itself.

    Of objects they hold the classes.

    Args:
        folder: Where the files go.
        segmentation: The labels.
        outputs: Kinds of output; those of other modules are passed over.
        mesh: Options of `write_meshes`.

    Returns:
        Kind of output to the name of its file or folder.

    Raises:
        OutputError: If a file cannot be written.
        UsageError: If a surface or NRRD of a 2D image is asked for.
    """
    files = {}
    if "nrrd" in outputs:
        from medseg.io.seg_nrrd import write_seg_nrrd  # noqa: PLC0415  # slow to import

        write_seg_nrrd(segmentation, folder / NRRD)
        files["nrrd"] = NRRD
    if "nifti-per-label" in outputs:
        from medseg.io.label_niftis import write_label_niftis  # noqa: PLC0415  # slow to import

        write_label_niftis(segmentation, folder / LABEL_FOLDER)
        files["nifti-per-label"] = LABEL_FOLDER
    if "mesh" in outputs:
        from medseg.io.meshes import write_meshes  # noqa: PLC0415  # slow to import

        write_meshes(segmentation, folder / MESH_FOLDER, **(mesh or {}))
        files["mesh"] = MESH_FOLDER
    return files
