"""Small volumes with known answers, in memory and as files, for everyone's tests."""

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.data.phantom import phantom_ct
from medseg.geometry import Affine, axis_codes
from medseg.io.dicom.write import made_up_uid, write_ct_series
from medseg.volume import Source, Volume

ODD_SHAPE = (7, 9, 5)
ANISOTROPIC_MM = (0.75, 1.25, 3.5)
ORIGIN_MM = (-31.5, 12.25, 104.0)


def all_orientations() -> list[str]:
    """Return the 48 axis codes: six orders of the axes, eight choices of direction."""
    return [
        "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
        for order in permutations(("LR", "PA", "IS"))
        for signs in product((0, 1), repeat=3)
    ]


def oriented_affine(
    codes: str = "RAS",
    spacing_mm: tuple[float, float, float] = ANISOTROPIC_MM,
    origin_mm: tuple[float, float, float] = ORIGIN_MM,
) -> Affine:
    """Return an affine whose voxel axes point to `codes`, spaced along the voxel axes."""
    affine = np.eye(4)
    affine[:3, 3] = origin_mm
    for axis, code in enumerate(codes):
        world = next(i for i, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[world, axis] = spacing_mm[axis] if code in "RAS" else -spacing_mm[axis]
        affine[[w for w in range(3) if w != world], axis] = 0
    assert axis_codes(affine) == codes
    return affine


def oblique_affine(
    codes: str = "LPS",
    spacing_mm: tuple[float, float, float] = ANISOTROPIC_MM,
    degrees: tuple[float, float, float] = (12.0, -9.0, 17.0),
) -> Affine:
    """Return an orthonormal affine turned out of all three planes."""
    affine = oriented_affine(codes, spacing_mm)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def tilted_affine(degrees: float = 15.0) -> Affine:
    """Return the affine of a CT with a tilted gantry: slices are offset within their plane."""
    affine = oriented_affine("LPS", (0.8, 0.8, 4.0))
    affine[1, 2] = affine[2, 2] * np.tan(np.deg2rad(degrees))
    return affine


def numbered(
    shape: tuple[int, int, int] = ODD_SHAPE, affine: npt.ArrayLike | None = None
) -> Volume:
    """Return a CT in which every voxel has a value of its own, from -1000 HU up."""
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape) - np.int16(1000)
    grid = oriented_affine() if affine is None else np.asarray(affine, np.float64)
    return Volume(values[None], grid, Source(modality="CT"))


def in_world(volume: Volume, affine: npt.ArrayLike) -> Volume:
    """Return a volume whose last axis is flipped where that makes it point along `affine`'s.

    Slices of a DICOM series are sorted along row x column, so a left-handed grid comes back with
    its last axis reversed: the same voxels at the same places.
    """
    if np.dot(volume.affine[:3, 2], np.asarray(affine)[:3, 2]) > 0:
        return volume
    flipped = volume.affine.copy()
    flipped[:3, 3] += flipped[:3, 2] * (volume.shape[2] - 1)
    flipped[:3, 2] *= -1
    return Volume(volume.array[..., ::-1], flipped, volume.source)


def write_nifti(volume: Volume, path: Path, *, code: int = 1) -> Path:
    """Write a 3D volume with nibabel, both forms set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(volume.array[0], volume.affine)
    image.set_sform(volume.affine, code)
    image.set_qform(volume.affine, code)
    nib.save(image, path)
    return path


def write_series(volume: Volume, folder: Path, *, seed: int = 0, series_number: int = 1) -> Path:
    """Write a volume as a CT series named in scrambled order, and return its folder."""
    write_ct_series(
        volume,
        folder,
        seed=seed,
        series_number=series_number,
        name=lambda number: f"{number * 7919 % 10007:05d}",
    )
    return folder


def write_localizer(folder: Path, *, seed: int = 0, series_number: int = 0) -> Path:
    """Write a sagittal scout of the study that `write_series` with the same seed belongs to."""
    write_ct_series(
        numbered((12, 16, 1), oriented_affine("PIR", (4.0, 4.0, 4.0))),
        folder,
        seed=seed,
        series_number=series_number,
        description="scout",
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
        name=lambda number: f"SCOUT{number}",
    )
    return folder


def study_uid(seed: int = 0) -> str:
    """Return the StudyInstanceUID of `write_series` with this seed."""
    return made_up_uid("study", seed)


def abdomen(seed: int = 3) -> tuple[Volume, npt.NDArray[np.uint8]]:
    """Return a coarse phantom CT (44 x 36 x 20 voxels of 8 x 8 x 8 mm) and its mask."""
    shape = (44, 36, 20)
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = -4.0 * (np.array(shape) - 1)
    return phantom_ct(seed, shape=shape, affine=affine)
