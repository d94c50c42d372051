"""A phantom CT study as it comes off a CD: several series, a scout, a duplicate, odd names."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medseg.data.anatomy import rotation_matrix
from medseg.data.phantom import LABELS, phantom_ct
from medseg.errors import OutputError
from medseg.geometry import Affine
from medseg.io.dicom.write import made_up_uid, write_ct_series
from medseg.io.labels import write_labels
from medseg.io.nifti import write_nifti_mask
from medseg.volume import Segmentation, Volume

SHAPE = (272, 240, 56)
SPACING_MM = (1.25, 1.25, 2.5)
TILT_DEGREES = (9.0, -6.0, 12.0)
THICK_SLICES = 4
"""Slices that the derived series averages into one."""

DUPLICATE = "D0/COPY"


@dataclass(frozen=True)
class PhantomStudy:
    """Where a phantom study lies.

    Attributes:
        dicom: Folder of the DICOM files; holds nothing else.
        truth: Mask of the acquired series: 1 organ, 2 tumour.
        volume: The acquired series.
        acquired_files: Files of the acquired series, in the order of its last axis.
        duplicate: File that holds a slice of the acquired series once more.
    """

    dicom: Path
    truth: Path
    volume: Volume
    acquired_files: tuple[Path, ...]
    duplicate: Path


def write_phantom_study(out: Path, *, seed: int = 11) -> PhantomStudy:
    """Write a phantom CT study as DICOM, and the truth beside it.

    One study with three series in shared subfolders, without file suffixes: an oblique
    acquisition, a coronal scout, and a thick-slice reformat derived from the acquisition. One
    slice of the acquisition is there twice, under another file name. `OUT/truth.nii.gz` is the
    mask of the acquisition, `OUT/labels.json` and its siblings name the labels.

    Args:
        out: Gets `dicom/` and `truth.nii.gz`; made when missing.
        seed: Chooses patient and noise.

    Returns:
        Where everything lies.

    Raises:
        OutputError: If `out/dicom` holds files that are no part of a phantom study; files of an
            earlier phantom study are overwritten.
    """
    folder = out / "dicom"
    _refuse_strangers(folder)
    study = made_up_uid("phantom study", seed)
    affine = acquisition_affine()
    volume, mask = phantom_ct(seed, shape=SHAPE, affine=affine)
    files = write_ct_series(
        volume,
        folder,
        series_number=2,
        description="abdomen oblique",
        study_uid=study,
        seed=seed,
        name=_scattered("A", SHAPE[2], seed),
    )
    write_ct_series(
        _scout(seed),
        folder,
        series_number=1,
        description="scout",
        study_uid=study,
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
        seed=seed,
        name=_scattered("S", 1, seed),
    )
    thick = _thick(volume)
    write_ct_series(
        thick,
        folder,
        series_number=3,
        description="abdomen thick",
        study_uid=study,
        image_type=("DERIVED", "SECONDARY", "AXIAL", "AVERAGE"),
        seed=seed,
        name=_scattered("R", thick.shape[2], seed),
    )
    duplicate = folder / DUPLICATE
    shutil.copyfile(files[SHAPE[2] // 2], duplicate)
    truth = out / "truth.nii.gz"
    write_nifti_mask(Segmentation(mask, volume.affine, LABELS), truth)
    write_labels(LABELS, out)
    return PhantomStudy(folder, truth, volume, tuple(files), duplicate)


def acquisition_affine() -> Affine:
    """Return the (4, 4) affine of the acquisition: LPS order, turned about all axes; RAS, mm."""
    affine = np.eye(4)
    turn = rotation_matrix(np.deg2rad(TILT_DEGREES))
    affine[:3, :3] = turn @ np.diag([-1.0, -1.0, 1.0]) @ np.diag(SPACING_MM)
    affine[:3, 3] = affine[:3, :3] @ (np.array(SHAPE) - 1) / -2
    return affine


def _refuse_strangers(folder: Path) -> None:
    """Raise if a folder holds files of other names than every phantom study has."""
    counts = {"A": SHAPE[2], "S": 1, "R": SHAPE[2] // THICK_SLICES}
    ours = {DUPLICATE}
    for prefix, count in counts.items():
        ours |= {_place(prefix, number) for number in range(count)}
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    stranger = next((name for name in sorted(found) if name not in ours), None)
    if stranger is not None:
        msg = (
            f"out must hold nothing but a phantom study, got {folder / stranger}."
            " Choose a new folder."
        )
        raise OutputError(msg, code="output-exists")


def _place(prefix: str, number: int) -> str:
    return f"D{number % 3}/{prefix}{number:07d}"


def _scout(seed: int) -> Volume:
    """Return one coronal plane, rows from head to foot."""
    affine = np.array(
        [[-2.5, 0, 0, 175], [0, 0, -5, 20], [0, -2.5, 0, 120], [0, 0, 0, 1]], np.float64
    )
    volume, _ = phantom_ct(seed, shape=(141, 97, 1), affine=affine)
    return volume


def _thick(volume: Volume) -> Volume:
    """Return averages of neighbouring slices."""
    count = volume.shape[2] // THICK_SLICES
    array = volume.array[..., : count * THICK_SLICES]
    mean = array.reshape(*array.shape[:-1], count, THICK_SLICES).mean(-1, dtype=np.float32)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, 2] * (THICK_SLICES - 1) / 2
    affine[:3, 2] *= THICK_SLICES
    return Volume(np.rint(mean).astype(np.int16), affine, volume.source)


def _scattered(prefix: str, count: int, seed: int) -> Callable[[int], str]:
    """Return names without suffix, in shuffled order, over three subfolders."""
    order = np.random.default_rng([seed, ord(prefix)]).permutation(count)

    def name(number: int) -> str:
        return _place(prefix, int(order[number - 1]))

    return name
