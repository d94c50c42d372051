"""What is written of a case as DICOM."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.errors import InputError, Problem
from medseg.volume import Segmentation, Source

DICOM_FILES = {
    "seg": "segmentation.dcm",
    "seg-labelmap": "segmentation_labelmap.dcm",
    "rtstruct": "rtstruct.dcm",
}
"""Kind of output to its file."""

STATED = ("name", "version")
"""What a SEG has fields of its own for."""

DICOM_OUTPUTS = tuple(DICOM_FILES)
"""Outputs that only a DICOM source can have."""


def require_dicom(outputs: Sequence[str], source: Source) -> None:
    """Refuse DICOM outputs of what is no DICOM, before any compute.

    Args:
        outputs: Kinds of output.
        source: Of the image.

    Raises:
        InputError: If there is no DICOM to refer to (`no-dicom-source`).
    """
    asked = [kind for kind in outputs if kind in DICOM_OUTPUTS]
    if asked and source.format != "dicom":
        msg = (
            f"outputs must be without {' and '.join(asked)} for a {source.format} image, which is"
            " no DICOM that they could refer to. Leave them out, or give the DICOM files."
        )
        raise InputError(msg, code="no-dicom-source")


def write_dicom(
    folder: Path, segmentation: Segmentation, outputs: Sequence[str], context: Mapping[str, Any]
) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """Write the DICOM outputs of a case.

    Args:
        folder: Where the files go.
        segmentation: Of a DICOM volume or picture.
        outputs: Kinds of output.
        context: As `results.write` has it.

    Returns:
        Kind of output to file name, and warnings.

    Raises:
        DicomError: If the source cannot be referred to.
        OutputError: If a file cannot be written.
    """
    asked = [kind for kind in outputs if kind in DICOM_FILES]
    if not asked:
        return {}, ()
    # highdicom and scikit-image take a second
    from medseg.io.dicom.algorithm import Algorithm  # noqa: PLC0415
    from medseg.io.dicom.rtstruct import write_rtstruct  # noqa: PLC0415
    from medseg.io.dicom.seg_write import write_segmentation  # noqa: PLC0415

    made_by = context.get("bundle") or context.get("method") or {}
    algorithm = Algorithm(
        name=str(made_by.get("name", "medseg")),
        version=str(made_by.get("version", "1")),
        parameters={
            key: text
            for key, text in made_by.items()
            if isinstance(text, str) and key not in STATED
        },
        automatic=bool(context.get("bundle")),
    )
    files: dict[str, str] = {}
    problems: dict[Problem, None] = {}
    for kind in asked:
        files[kind] = DICOM_FILES[kind]
        file = folder / files[kind]
        if kind == "rtstruct":
            found = write_rtstruct(file, segmentation, algorithm)
        elif kind == "seg":
            found = write_segmentation(file, segmentation, algorithm)
        else:
            found = write_segmentation(file, segmentation, algorithm, "labelmap")
        problems |= dict.fromkeys(found)
    return files, tuple(problems)
