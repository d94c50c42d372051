"""A made-up abdomen: where everything lies, how bright it is, different for every seed.

The body frame has its origin in the upper abdomen: x to the patient's right, y to the front, z to
the head; mm. No number is taken from a patient.
"""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from medseg.data.shapes import Capsule, Ellipsoid, FloatArray, Point, Shape, smooth_union

SEAM_MM = 18.0
"""How far the lobes of the organ melt into each other."""
WALL_GAP_MM = 3.0
"""Fat between the organ and the muscles around the belly."""
TUMOUR_COUNTS = (0.15, 0.35, 0.3, 0.2)
"""How likely an organ holds 0, 1, 2 or 3 tumours."""
TUMOUR_RADII_MM = (9.0, 24.0)
TUMOUR_CONTRAST_HU = 30.0
"""How much darker than the organ every tumour is, at least."""


@dataclass(frozen=True)
class Structure:
    """A solid of one brightness.

    Attributes:
        shape: In the body frame.
        hu: Brightness; HU.
    """

    shape: Shape
    hu: float


@dataclass(frozen=True)
class Anatomy:
    """One patient.

    Attributes:
        body_radii_mm: Semi-axes of the trunk, left-right and back-front; mm.
        rim_mm: Thickness of the fat under the skin; mm.
        muscle_mm: Thickness of the muscles around the belly; mm.
        muscle_hu: HU of muscles.
        lung_top_mm: Height of the dome under the lungs; mm.
        rib_phase_mm: Height of one rib; mm.
        vertebra_phase_mm: Height of one disc; mm.
        organ: Lobes, joined with a rounded seam.
        organ_hu: HU of the organ.
        gallbladder: Hollows the organ out.
        vessels: Tubes inside the organ, part of it.
        tumours: Inside the organ; only what lies in the organ is tumour.
        others: Everything else, in the order of painting.
        rotation: (3, 3) turns the body frame into the world; RAS.
        translation_mm: Where the body's origin lies; RAS, mm.
        warp: (9, 4) amplitude (mm), phase, wave number (1/mm) and axis of gentle waves.
        noise_hu: Standard deviation of the noise; HU.
    """

    body_radii_mm: tuple[float, float]
    rim_mm: float
    muscle_mm: float
    muscle_hu: float
    lung_top_mm: float
    rib_phase_mm: float
    vertebra_phase_mm: float
    organ: tuple[Ellipsoid, ...]
    organ_hu: float
    gallbladder: Structure
    vessels: tuple[Structure, ...]
    tumours: tuple[Structure, ...]
    others: tuple[Structure, ...]
    rotation: npt.NDArray[np.float64]
    translation_mm: npt.NDArray[np.float64]
    warp: npt.NDArray[np.float64]
    noise_hu: float

    def skin_distance(self, points: FloatArray) -> FloatArray:
        """Return the signed distance to the skin.

        Args:
            points: (3, ...) in the body frame; mm.

        Returns:
            (...) negative inside; mm.
        """
        across, ahead = (points[i] / np.float32(self.body_radii_mm[i]) for i in (0, 1))
        value = np.sqrt(across**2 + ahead**2)
        slope = np.sqrt(
            (across / np.float32(self.body_radii_mm[0])) ** 2
            + (ahead / np.float32(self.body_radii_mm[1])) ** 2
        )
        return np.asarray(value * (value - 1) / np.maximum(slope, 1e-6), np.float32)

    def cavity_distance(self, points: FloatArray) -> FloatArray:
        """Return the signed distance to the inside of the belly's wall; mm."""
        return np.asarray(self.skin_distance(points) + self.rim_mm + self.muscle_mm, np.float32)

    def organ_distance(self, points: FloatArray) -> FloatArray:
        """Return the signed distance to the organ, tumours and vessels included.

        Args:
            points: (3, ...) in the body frame; mm.

        Returns:
            (...) negative inside; mm.
        """
        distance = self.organ[0].distance(points)
        for lobe in self.organ[1:]:
            distance = smooth_union(distance, lobe.distance(points), SEAM_MM)
        distance = np.maximum(distance, self.cavity_distance(points) + WALL_GAP_MM)
        hollow = np.float32(-1) * self.gallbladder.shape.distance(points)
        return np.asarray(np.maximum(distance, hollow), np.float32)


class _Sampler:
    """Draws the numbers of one patient in a fixed order."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 0])
        self.size = self.uniform(0.86, 1.12)
        self.contrast = bool(self.rng.random() < 0.6)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def point(self, centre: Point, jitter: float) -> Point:
        x, y, z = (self.size * (c + self.uniform(-jitter, jitter)) for c in centre)
        return x, y, z

    def blob(
        self, centre: Point, radii: Point, *, jitter: float = 6, stretch: float = 0.12
    ) -> Ellipsoid:
        x, y, z = (self.size * r * self.uniform(1 - stretch, 1 + stretch) for r in radii)
        return Ellipsoid(self.point(centre, jitter), (x, y, z))


def sample_anatomy(seed: int) -> Anatomy:
    """Draw one patient.

    Args:
        seed: The same seed gives the same patient.

    Returns:
        The patient.
    """
    draw = _Sampler(seed)
    rim = draw.uniform(8, 26)
    organ_hu = draw.uniform(84, 110) if draw.contrast else draw.uniform(64, 74)
    organ = (
        draw.blob((74, 8, 2), (60, 66, 68), jitter=5),
        draw.blob((12, 40, 22), (66, 34, 34), jitter=8, stretch=0.2),
        draw.blob((84, 2, -42), (36, 46, 40), jitter=9, stretch=0.25),
    )
    anatomy = Anatomy(
        body_radii_mm=(
            draw.size * draw.uniform(138, 150) + rim,
            draw.size * draw.uniform(96, 108) + rim,
        ),
        rim_mm=rim,
        muscle_mm=draw.uniform(10, 16),
        muscle_hu=draw.uniform(45, 65),
        lung_top_mm=draw.size * draw.uniform(66, 92),
        rib_phase_mm=draw.uniform(0, 30),
        vertebra_phase_mm=draw.uniform(0, 32),
        organ=organ,
        organ_hu=organ_hu,
        gallbladder=Structure(draw.blob((44, 34, -44), (15, 17, 26)), draw.uniform(2, 18)),
        vessels=_organ_vessels(draw, organ_hu),
        tumours=(),
        others=_other_structures(draw, organ_hu),
        rotation=rotation_matrix(
            np.deg2rad([draw.uniform(-7, 7), draw.uniform(-6, 6), draw.uniform(-10, 10)])
        ),
        translation_mm=np.array(
            [draw.uniform(-18, 18), draw.uniform(-18, 18), draw.uniform(-10, 10)]
        ),
        warp=_warp(draw),
        noise_hu=draw.uniform(7, 17),
    )
    return _with_tumours(anatomy, draw)


def _organ_vessels(draw: _Sampler, organ_hu: float) -> tuple[Structure, ...]:
    """Bright tubes with contrast; without, as dark as tumours, so brightness alone misleads."""
    hu = organ_hu + draw.uniform(25, 55) if draw.contrast else organ_hu - draw.uniform(16, 24)
    hilum = draw.point((32, 8, 0), 5)
    fork = draw.point((58, 10, 8), 6)
    tubes = [Structure(Capsule(hilum, fork, 7.0, 5.5), hu)]
    for target in ((108, 24, 28), (104, -24, -6), (96, 12, -40), (70, 44, 30)):
        end = draw.point(target, 12)
        tubes.append(
            Structure(Capsule(fork, end, draw.uniform(3.5, 5), draw.uniform(1.5, 2.5)), hu)
        )
    tubes.append(Structure(Capsule(hilum, draw.point((-10, 46, 24), 8), 4.5, 2.0), hu))
    return tuple(tubes)


def _other_structures(draw: _Sampler, organ_hu: float) -> tuple[Structure, ...]:
    muscle = draw.uniform(45, 65)
    found = [
        Structure(draw.blob((side * 34, -72, 0), (26, 19, 400), jitter=3), muscle)
        for side in (-1, 1)
    ]
    found += [
        Structure(Capsule((side * 24, -50, -20), (side * 46, -42, -220), 12, 20), muscle)
        for side in (-1, 1)
    ]
    found.append(Structure(draw.blob((-12, 18, 120), (52, 44, 46)), draw.uniform(40, 60)))  # heart
    found += _bowel(draw)
    found += _left_upper_quadrant(draw, organ_hu)
    kidney = draw.uniform(110, 190) if draw.contrast else draw.uniform(28, 42)
    for side in (-1, 1):
        shape = draw.blob((side * 58, -44, -62), (26, 24, 48))
        found.append(Structure(shape, kidney))
        found.append(Structure(Ellipsoid(shape.centre, (10.0, 10.0, 22.0)), draw.uniform(-60, 0)))
        if draw.rng.random() < 0.35:  # a cyst: dark, round, and no tumour of the organ
            offset = np.array([side * 18.0, 6.0, draw.uniform(-25, 25)])
            centre = cast(Point, tuple((np.asarray(shape.centre) + offset).tolist()))
            found.append(Structure(Ellipsoid(centre, (14.0,) * 3), draw.uniform(0, 20)))
    blood = draw.uniform(130, 240) if draw.contrast else draw.uniform(36, 48)
    for x, y, radius in ((-8, -40, 11), (22, -34, 12)):
        low, high = draw.point((x, y, -260), 4), draw.point((x, y, 260), 4)
        found.append(Structure(Capsule(low, high, radius, radius), blood))
    return tuple(found)


def _bowel(draw: _Sampler) -> list[Structure]:
    """Loops in the lower belly, some holding gas, some bright with contrast agent."""
    found = []
    for _ in range(14):
        start = draw.point(
            (draw.uniform(-80, 60), draw.uniform(-5, 50), draw.uniform(-150, -70)), 0
        )
        end = cast(Point, tuple(value + draw.uniform(-45, 45) for value in start))
        radius = draw.uniform(10, 17)
        found.append(Structure(Capsule(start, end, radius, radius), draw.uniform(25, 75)))
        if draw.rng.random() < 0.4:
            up = (start[0], start[1] + radius / 3, start[2])
            found.append(Structure(Capsule(up, end, radius * 0.6, radius * 0.4), -850.0))
    return found


def _left_upper_quadrant(draw: _Sampler, organ_hu: float) -> list[Structure]:
    """Stomach and spleen: as bright as the organ, the spleen at times with a dark spot."""
    stomach = draw.blob((-52, 34, 18), (38, 30, 40), stretch=0.2)
    x, y, z = stomach.centre
    gas = Ellipsoid((x, y + 0.45 * stomach.radii[1], z), (24.0, 11.0, 26.0))
    spleen = draw.blob((-98, -26, 20), (30, 42, 50), stretch=0.2)
    found = [
        Structure(stomach, draw.uniform(20, 60)),
        Structure(gas, draw.uniform(-950, -800)),
        Structure(spleen, organ_hu + draw.uniform(-14, 14)),
    ]
    if draw.rng.random() < 0.4:
        radius = draw.uniform(7, 14)
        found.append(Structure(Ellipsoid(spleen.centre, (radius,) * 3), draw.uniform(20, 45)))
    pancreas = Capsule(draw.point((14, -2, -22), 4), draw.point((-66, -14, 2), 6), 13, 8)
    found.append(Structure(pancreas, organ_hu + draw.uniform(-30, 5)))
    return found


def _with_tumours(anatomy: Anatomy, draw: _Sampler) -> Anatomy:
    count = int(draw.rng.choice(len(TUMOUR_COUNTS), p=TUMOUR_COUNTS))
    tumours = [_tumour(anatomy, draw) for _ in range(count)]
    found = tuple(tumour for tumour in tumours if tumour is not None)
    return replace(anatomy, tumours=found)


def _tumour(anatomy: Anatomy, draw: _Sampler) -> Structure | None:
    """Place a tumour well inside the organ; None where it does not fit."""
    radius = float(np.exp(draw.uniform(*np.log(TUMOUR_RADII_MM))))
    hu = min(draw.uniform(20, 45), anatomy.organ_hu - TUMOUR_CONTRAST_HU)
    for _ in range(40):
        lobe = anatomy.organ[int(draw.rng.choice(len(anatomy.organ), p=(0.6, 0.2, 0.2)))]
        direction = draw.rng.normal(size=3)
        direction *= draw.rng.random() ** (1 / 3) / np.linalg.norm(direction)
        centre = np.asarray(lobe.centre) + direction * np.asarray(lobe.radii)
        depth = -float(anatomy.organ_distance(centre.astype(np.float32).reshape(3, 1))[0])
        if depth > 0.7 * radius:
            radii = cast(Point, tuple(radius * draw.uniform(0.85, 1.15) for _ in range(3)))
            return Structure(Ellipsoid(cast(Point, tuple(centre.tolist())), radii), hu)
        radius = max(0.98 * radius, TUMOUR_RADII_MM[0])
    return None


def rotation_matrix(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return a rotation about x, then y, then z.

    Args:
        angles: (3,) in radians.

    Returns:
        (3, 3) orthonormal matrix.
    """
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[j, i] = np.sin(angle)
        turn[i, j] = -np.sin(angle)
        result = turn @ result
    return result


def _warp(draw: _Sampler) -> npt.NDArray[np.float64]:
    waves = [
        (
            draw.uniform(0.8, 2.6),
            draw.uniform(0, 2 * np.pi),
            2 * np.pi / draw.uniform(70, 160),
            axis,
        )
        for axis in (0, 1, 2) * 3
    ]
    return np.array(waves)
