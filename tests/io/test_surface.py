"""Surfaces of masks: closed, outward, of the right volume in the right place."""

from collections import Counter

import numpy as np
import pytest

from medseg.geometry import LPS_TO_RAS, apply_affine, spacing_mm, voxel_volume_ml
from medseg.io.surface import MOST_CHANGE, Surface, surface_of
from tests.phantoms import all_orientations, oblique_affine, oriented_affine, tilted_affine


def ellipsoid(*radii: float) -> np.ndarray:
    """Return an ellipsoid that does not lie in the middle of its grid."""
    grid = np.ogrid[tuple(slice(-int(r) - 2, int(r) + 5) for r in radii)]
    return sum((x / r) ** 2 for x, r in zip(grid, radii, strict=True)) <= 1


def enclosed(surface: Surface) -> tuple[float, np.ndarray]:
    """Return the signed volume (ml) and its centre, tetrahedron by tetrahedron."""
    middle = surface.points_mm.mean(axis=0)
    corners = (surface.points_mm - middle)[surface.triangles]
    volumes = np.linalg.det(corners) / 6
    centre = (volumes[:, None] * corners.sum(axis=1) / 4).sum(axis=0) / volumes.sum()
    return volumes.sum() / 1000, centre + middle


def is_closed(surface: Surface) -> bool:
    """Say whether each edge is gone along once each way."""
    sides = surface.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    count = Counter(map(tuple, sides.tolist()))
    return all(times == 1 and count[b, a] == 1 for (a, b), times in count.items())


def centre_lps(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return apply_affine(LPS_TO_RAS @ affine, np.argwhere(mask).mean(axis=0))


@pytest.mark.parametrize("smoothing", [0, 15])
@pytest.mark.parametrize("codes", all_orientations())
def test_volume_and_centre_are_those_of_the_mask_on_any_grid(codes: str, smoothing: int) -> None:
    """Oblique, of uneven spacing, and of both handednesses: outward is positive."""
    mask, affine = ellipsoid(14, 11, 8), oblique_affine(codes)
    surface = surface_of(mask, affine, smoothing=smoothing)
    volume, centre = enclosed(surface)
    assert volume == pytest.approx(mask.sum() * voxel_volume_ml(affine), rel=0.006)
    assert np.allclose(centre, centre_lps(mask, affine), rtol=0, atol=0.01)
    assert is_closed(surface)


@pytest.mark.parametrize("affine", [oriented_affine("RAS"), oblique_affine("PIR"), tilted_affine()])
def test_every_point_lies_between_a_voxel_inside_and_one_outside(affine: np.ndarray) -> None:
    mask = np.random.default_rng(0).random((6, 7, 5)) < 0.4
    surface = surface_of(mask, affine, smoothing=0)
    index = apply_affine(np.linalg.inv(LPS_TO_RAS @ affine), surface.points_mm) + 1
    whole = np.pad(mask, 1)
    low, high = np.floor(index + 1e-6).astype(int), np.ceil(index - 1e-6).astype(int)
    is_between = np.abs(high - low).sum(axis=1) == 1  # the others are within a cell: Lewiner's c
    low, high, index = low[is_between], high[is_between], index[is_between]
    assert np.allclose((low + high) / 2, index, rtol=0, atol=1e-6)
    assert (whole[tuple(low.T)] != whole[tuple(high.T)]).all()
    edges = sum(int((np.diff(whole.astype(int), axis=axis) != 0).sum()) for axis in range(3))
    assert is_between.sum() == edges
    assert edges > 0.95 * len(surface.points_mm)


@pytest.mark.parametrize("radii", [(40, 40, 40), (30, 20, 12), (25, 25, 6), (10, 10, 4)])
def test_smoothing_takes_the_stairs_away_and_leaves_the_volume(radii: tuple[float, ...]) -> None:
    mask, affine = ellipsoid(*radii), np.diag([1.0, 1, 1, 1])
    centre = centre_lps(mask, affine)
    rough, smooth = (surface_of(mask, affine, smoothing=rounds) for rounds in (0, 15))
    truth = mask.sum() / 1000
    assert enclosed(smooth)[0] == pytest.approx(truth, rel=MOST_CHANGE)
    assert enclosed(smooth)[0] == pytest.approx(enclosed(rough)[0], rel=0.01)

    def off(surface: Surface) -> float:
        """Spread of the distance from the ellipsoid, in radii."""
        return float(np.linalg.norm((surface.points_mm - centre) / radii, axis=1).std())

    assert off(smooth) < 0.8 * off(rough)


def test_a_mask_at_the_edge_of_its_grid_is_closed() -> None:
    surface = surface_of(np.ones((9, 8, 7), bool), oblique_affine("LAS"), smoothing=0)
    assert is_closed(surface)
    affine = oblique_affine("LAS")
    index = apply_affine(np.linalg.inv(LPS_TO_RAS @ affine), surface.points_mm)
    assert np.allclose(index.min(axis=0), -0.5, rtol=0, atol=1e-9)
    assert np.allclose(index.max(axis=0), np.array([8.5, 7.5, 6.5]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (2, 2, 1), (2, 2, 2), (1, 1, 20)])
def test_few_voxels_have_a_closed_surface_that_smoothing_does_not_take_away(
    shape: tuple[int, int, int],
) -> None:
    affine = oblique_affine("RAS")
    surface = surface_of(np.ones(shape, bool), affine)
    volume, centre = enclosed(surface)
    assert is_closed(surface)
    assert np.allclose(centre, centre_lps(np.ones(shape), affine), rtol=0, atol=1e-6)
    rough, _ = enclosed(surface_of(np.ones(shape, bool), affine, smoothing=0))
    assert volume == pytest.approx(rough, rel=MOST_CHANGE)
    assert volume >= voxel_volume_ml(affine) / 6 * (1 - MOST_CHANGE)


@pytest.mark.parametrize("seed", range(20))
def test_no_mask_leaves_a_hole_however_its_voxels_touch(seed: int) -> None:
    mask = np.random.default_rng(seed).random((7, 6, 5)) < (0.1 + 0.04 * seed)
    surface = surface_of(mask, oblique_affine("SPR"))
    sides = surface.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    there, back = (Counter(map(tuple, s.tolist())) for s in (sides, sides[:, ::-1]))
    assert there == back


def test_pieces_are_smoothed_each_for_itself_and_a_hollow_is_taken_off() -> None:
    mask = np.zeros((60, 30, 30), bool)
    mask[2:28, 2:28, 2:28] = ellipsoid(13, 13, 13)[2:28, 2:28, 2:28]
    mask[12:18, 12:18, 12:18] = False
    mask[50, 15, 15] = True
    surface = surface_of(mask, np.eye(4))
    alone = surface_of(mask[:40], np.eye(4))
    assert enclosed(alone)[0] == pytest.approx(mask[:40].sum() / 1000, rel=0.01)
    assert enclosed(surface)[0] - enclosed(alone)[0] == pytest.approx(1 / 6000, rel=MOST_CHANGE)


def test_the_spacing_does_not_change_what_smoothing_does() -> None:
    mask = ellipsoid(12, 9, 5)
    thick, even = oriented_affine("RAS", (0.7, 0.7, 5.0)), np.eye(4)
    index = [
        apply_affine(np.linalg.inv(LPS_TO_RAS @ affine), surface_of(mask, affine).points_mm)
        for affine in (thick, even)
    ]
    assert np.allclose(index[0], index[1], rtol=0, atol=1e-9)
    assert spacing_mm(thick)[2] == 5


def test_a_mask_without_voxels_has_no_surface() -> None:
    with pytest.raises(ValueError, match="must have a voxel"):
        surface_of(np.zeros((3, 3, 3), bool), np.eye(4))
