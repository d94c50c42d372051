"""Phantom CT: a made-up abdomen on any grid, with the truth known.

The anatomy is analytic and lives in world coordinates, so that one seed gives the same patient
on every grid, oblique and anisotropic ones included.
"""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.data.anatomy import Anatomy, Structure, sample_anatomy
from medseg.data.shapes import FloatArray, Shape
from medseg.geometry import Affine, apply_affine, spacing_mm
from medseg.volume import Source, Volume, make_labels

ORGAN, TUMOUR = 1, 2
LABELS = make_labels({ORGAN: "organ", TUMOUR: "tumour"})

AIR_HU, FAT_HU, LUNG_HU, TABLE_HU = -1000.0, -100.0, -840.0, -420.0
BONE_HU, MARROW_HU, DISC_HU, CANAL_HU = 620.0, 190.0, 85.0, 25.0
CT_RANGE_HU = (-1024, 3071)
"""What 12 stored bits hold."""
RIB_STEP_MM, VERTEBRA_STEP_MM = 30.0, 32.0
NOISE_BLUR_MM = 0.7
"""Correlation of the noise: reconstruction kernels leave no white noise."""


def phantom_ct(
    seed: int,
    *,
    shape: tuple[int, int, int] | None = None,
    affine: npt.ArrayLike | None = None,
) -> tuple[Volume, npt.NDArray[np.uint8]]:
    """Make a CT of a made-up abdomen, and its mask.

    Args:
        seed: Chooses patient and noise.
        shape: Voxels along each axis; drawn by the seed when left out.
        affine: (4, 4) from voxel index to the world; RAS, mm. Given with `shape` or not at all.

    Returns:
        The image, (1, I, J, K) int16, HU; the mask, (I, J, K): 1 organ, 2 tumour.

    Raises:
        ValueError: If only one of `shape` and `affine` is given.

    Examples:
        >>> volume, mask = phantom_ct(3, shape=(32, 28, 20), affine=np.diag([10, 10, 9, 1]))
        >>> volume.array.dtype.name, volume.shape, sorted(set(mask.ravel().tolist()))[:2]
        ('int16', (32, 28, 20), [0, 1])
    """
    if (shape is None) != (affine is None):
        msg = "shape and affine must be given together. Leave both out for a random grid."
        raise ValueError(msg)
    if shape is None or affine is None:
        shape, affine = random_grid(seed)
    grid = np.asarray(affine, np.float64)
    canvas = _Canvas(sample_anatomy(seed), shape, grid)
    canvas.paint_trunk()
    canvas.paint_others()
    canvas.paint_spine()
    canvas.paint_organ()
    canvas.paint_ribs()
    image = canvas.image + _noise(seed, shape, grid, canvas.anatomy.noise_hu)
    hu = np.clip(np.rint(image), *CT_RANGE_HU).astype(np.int16)
    return Volume(hu[None], grid, Source(modality="CT")), canvas.mask


def random_grid(seed: int) -> tuple[tuple[int, int, int], Affine]:
    """Draw how a patient is scanned: spacing, coverage, tilt and axis order.

    Args:
        seed: The same seed gives the same grid.

    Returns:
        Voxels along each axis, and the (4, 4) affine; RAS, mm.
    """
    rng = np.random.default_rng([seed, 1])
    in_plane = rng.uniform(1.4, 2.6)
    spacing = np.array([in_plane, in_plane, rng.choice([1.5, 2.0, 2.5, 3.0, 4.0, 5.0])])
    extent = np.array([rng.uniform(300, 390), rng.uniform(250, 330), rng.uniform(120, 210)])
    shape = np.maximum(np.rint(extent / spacing), 8).astype(int)
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * rng.choice([0, 4, 16]))
    cosines = _small_rotation(angles)
    centre = rng.uniform(-1, 1, 3) * (15, 15, 30)
    order = rng.permutation(3) if rng.random() < 0.25 else np.arange(3)
    signs = rng.choice([-1, 1], 3)
    affine = np.eye(4)
    affine[:3, :3] = (cosines * spacing * signs)[:, order]
    shape = shape[order]
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    return (int(shape[0]), int(shape[1]), int(shape[2])), affine


def _small_rotation(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return an orthonormal (3, 3) matrix near the rotation vector `angles` (radians)."""
    x, y, z = angles
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    u, _, vt = np.linalg.svd(np.eye(3) + skew)
    return np.asarray(u @ vt)


class _Canvas:
    """Image and mask under construction."""

    def __init__(self, anatomy: Anatomy, shape: tuple[int, int, int], affine: Affine) -> None:
        self.anatomy = anatomy
        self.affine = affine
        self.edge_mm = max(0.7, 0.4 * float(spacing_mm(affine).mean()))
        self.image = np.full(shape, AIR_HU, np.float32)
        self.mask = np.zeros(shape, np.uint8)
        self.to_body = np.eye(4)
        self.to_body[:3, :3] = anatomy.rotation.T
        self.to_body[:3, 3] = -anatomy.rotation.T @ anatomy.translation_mm
        self.points = self._body_points(shape)
        self.skin = anatomy.skin_distance(self.points)

    def _body_points(self, shape: tuple[int, int, int]) -> FloatArray:
        """Return (3, I, J, K) body coordinates of the voxels, gently warped; mm."""
        matrix = self.to_body @ self.affine
        i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
        points = np.empty((3, *shape), np.float32)
        for axis in range(3):
            a, b, c, d = matrix[axis].astype(np.float32)
            points[axis] = a * i + b * j + c * k + d
        bent = points.copy()
        for number, (amplitude, phase, wave, axis) in enumerate(self.anatomy.warp):
            along = (int(axis) + 1 + number // 3) % 3  # each axis is bent along all three
            bent[int(axis)] += amplitude * np.sin(wave * points[along] + phase)
        return bent

    def _box(self, shape: Shape) -> tuple[slice, ...] | None:
        """Return the voxels that a solid can reach; None when it lies outside the grid."""
        centre, radius = shape.ball()
        reach = radius + float(self.anatomy.warp[:, 0].sum()) / 3 + 2 * self.edge_mm
        back = np.linalg.inv(self.to_body @ self.affine)
        middle = apply_affine(back, centre)
        half = np.linalg.norm(back[:3, :3], axis=1) * reach
        low = np.maximum(np.floor(middle - half), 0).astype(int)
        high = np.minimum(np.ceil(middle + half) + 1, self.image.shape).astype(int)
        if (high <= low).any():
            return None
        return tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def _blend(self, distance: FloatArray, hu: float, box: tuple[slice, ...] = ()) -> None:
        """Paint a solid; voxels on its surface become a mixture."""
        share = np.clip(0.5 - distance / np.float32(2 * self.edge_mm), 0, 1)
        image = self.image[box]
        image += share * (np.float32(hu) - image)

    def _paint(self, structure: Structure, inside: FloatArray | None = None) -> None:
        """Paint a structure, cut to where the distance `inside` (full grid) is negative."""
        box = self._box(structure.shape)
        if box is None:
            return
        distance = structure.shape.distance(self.points[(slice(None), *box)])
        if inside is not None:
            distance = np.maximum(distance, inside[box])
        self._blend(distance, structure.hu, box)

    def paint_trunk(self) -> None:
        """Paint table, skin, fat, muscles, belly fat and lungs."""
        body = self.anatomy
        x, y, z = self.points
        table = np.maximum(np.abs(y + body.body_radii_mm[1] + 9) - 6, np.abs(x) - 190)
        self._blend(table, TABLE_HU)
        self._blend(self.skin, FAT_HU)
        self._blend(self.skin + np.float32(body.rim_mm), body.muscle_hu)
        cavity = self.skin + np.float32(body.rim_mm + body.muscle_mm)
        self._blend(cavity, FAT_HU + 8)
        aside = np.abs(x) - np.float32(68)
        dome = body.lung_top_mm - (aside**2 + (y + 8) ** 2) / 90 - z
        lungs = np.maximum(np.maximum(0.6 * dome, cavity + 2), np.float32(22) - np.abs(x))
        self._blend(lungs, LUNG_HU)

    def paint_others(self) -> None:
        """Paint the structures that are neither organ nor bone, inside the muscles."""
        inside = np.asarray(self.skin + np.float32(self.anatomy.rim_mm + 3), np.float32)
        for structure in self.anatomy.others:
            self._paint(structure, inside)

    def paint_spine(self) -> None:
        """Paint vertebrae with marrow, discs between them, arches and the canal."""
        x, y, z = self.points
        height = np.abs(
            np.mod(z + self.anatomy.vertebra_phase_mm, VERTEBRA_STEP_MM) - VERTEBRA_STEP_MM / 2
        )
        column = np.hypot(x, 1.15 * (y + 66)) - np.float32(21)
        body = np.maximum(column, height - np.float32(12.5))
        self._blend(column + 1, DISC_HU)
        self._blend(body, BONE_HU)
        self._blend(body + 4, MARROW_HU)
        arch = np.maximum(np.abs(np.hypot(x, y + 93) - 12) - 3.5, height - np.float32(10))
        spine = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(y + 112) - 10), height - 8)
        self._blend(np.minimum(arch, spine), BONE_HU)
        self._blend(np.hypot(x, y + 93) - np.float32(8), CANAL_HU)

    def paint_ribs(self) -> None:
        """Paint ribs that slope down to the front within the wall of the chest."""
        body = self.anatomy
        x, y, z = self.points
        slope = 18 * (y / np.float32(body.body_radii_mm[1]))
        height = np.mod(z + slope + body.rib_phase_mm, RIB_STEP_MM) - RIB_STEP_MM / 2
        depth = self.skin + np.float32(body.rim_mm + 0.5 * body.muscle_mm)
        rib = np.hypot(depth, 0.6 * height) - np.float32(4.5)
        front = np.maximum(y - np.float32(0.75 * body.body_radii_mm[1]), -75 - z)
        rib = np.maximum(np.maximum(rib, front), np.float32(24) - np.abs(x))
        self._blend(rib, BONE_HU)
        self._blend(rib + 2.5, MARROW_HU)

    def paint_organ(self) -> None:
        """Paint organ, vessels, gallbladder and tumours, and label organ and tumours."""
        body = self.anatomy
        organ = body.organ_distance(self.points)
        self._blend(organ, body.organ_hu)
        self.mask[organ < 0] = ORGAN
        for vessel in body.vessels:
            self._paint(vessel, organ)
        self._paint(body.gallbladder, self.skin)
        for tumour in body.tumours:
            self._paint(tumour, organ)
            box = self._box(tumour.shape)
            if box is not None:
                distance = tumour.shape.distance(self.points[(slice(None), *box)])
                self.mask[box][np.maximum(distance, organ[box]) < 0] = TUMOUR


def _noise(seed: int, shape: tuple[int, int, int], affine: Affine, hu: float) -> FloatArray:
    """Return (I, J, K) correlated noise and a faint shading, as scanners leave; HU."""
    rng = np.random.default_rng([seed, 2])
    noise = rng.standard_normal(shape, np.float32)
    for axis, step in enumerate(spacing_mm(affine)):
        noise = ndimage.gaussian_filter1d(noise, NOISE_BLUR_MM / float(step), axis)
    noise *= np.float32(hu / max(float(noise.std()), 1e-6))
    waves = [np.sin(np.linspace(0, rng.uniform(2, 6), n) + rng.uniform(0, 6)) for n in shape]
    shading = 3 * waves[0][:, None, None] * waves[1][:, None] * waves[2]
    return np.asarray(noise + shading, np.float32)
