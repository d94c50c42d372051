"""What can be written of a case, and what is when nobody says."""

from collections.abc import Sequence

from medseg.errors import InputError, UsageError
from medseg.io.cases import Case
from medseg.io.files import SUFFIXES, file_suffix
from medseg.volume import Volume, size_text
from medseg.workflows.dicom_outputs import DICOM_OUTPUTS, require_dicom

OUTPUTS = (
    *("nifti", "image", "preview", "report", "numbers", "png", "overlay", "coco"),
    *("nrrd", "nifti-per-label", "mesh", "probabilities"),
    *DICOM_OUTPUTS,
)
"""What `--outputs` can name; the mask (`nifti`) is always written."""

PICTURES = ("png", "overlay")
"""Outputs that only 2D images have."""

SOLIDS = ("nrrd", "mesh", "rtstruct")
"""Outputs that only 3D volumes have."""

PROBABILITIES = ("probabilities", "seg-fractional")
"""Outputs that only networks of classes or regions have."""

DEFAULT = ("nifti", "preview", "report")


def check_outputs(asked: Sequence[str] | None) -> None:
    """Refuse outputs that do not exist.

    Args:
        asked: What the user named; None for the defaults.

    Raises:
        UsageError: If one is unknown, or there is none.
    """
    unknown = sorted(set(asked or ()) - set(OUTPUTS))
    if unknown or (asked is not None and not asked):
        msg = f"outputs must be among {', '.join(OUTPUTS)}, got {', '.join(unknown) or 'none'}."
        raise UsageError(msg)


def outputs_of(case: Case, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return what is written of a case.

    Args:
        case: The case.
        asked: What the user named; None for the defaults.

    Returns:
        Kinds of output: by default `png` too where the case is a picture file.
    """
    if asked is not None:
        return tuple(asked)
    is_picture = bool(case.files) and SUFFIXES.get(file_suffix(case.files[0])) == "raster"
    return (*DEFAULT, "png") if is_picture else DEFAULT


def require_fit(outputs: Sequence[str], volume: Volume) -> None:
    """Refuse outputs that a case cannot have, before any compute.

    Args:
        outputs: Kinds of output.
        volume: Its image.

    Raises:
        InputError: If they are pictures of a 3D volume or solids of a 2D image
            (`wrong-dimensions`), or DICOM of an image that is none (`no-dicom-source`).
    """
    require_dicom(outputs, volume.source)
    is_solid = not volume.is_2d
    wrong = misfits(outputs, is_solid=is_solid)
    if wrong:
        own, other = ("3D volumes", "2D images") if is_solid else ("2D images", "3D volumes")
        msg = (
            f"outputs must be of {own} for an image of {size_text(volume.shape)}, got"
            f" {' and '.join(wrong)}, which only {other} have. Leave them out."
        )
        raise InputError(msg, code="wrong-dimensions")


def require_probabilities(outputs: Sequence[str] | None, maker: str) -> None:
    """Refuse probabilities of what has none.

    Args:
        outputs: What the user named; None for the defaults.
        maker: What makes the masks, for the message.

    Raises:
        UsageError: If one is asked for.
    """
    asked = [kind for kind in outputs or () if kind in PROBABILITIES]
    if asked:
        msg = (
            f"outputs must be without {' and '.join(asked)} for {maker}, which has no probabilities"
            " of classes in each voxel. Leave it out."
        )
        raise UsageError(msg)


def misfits(outputs: Sequence[str], *, is_solid: bool) -> list[str]:
    """Return which outputs an image cannot have.

    Args:
        outputs: Kinds of output.
        is_solid: It is a 3D volume, and no 2D image.
    """
    return [kind for kind in outputs if kind in (PICTURES if is_solid else SOLIDS)]
