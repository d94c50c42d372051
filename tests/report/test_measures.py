"""What is measured of labels, against brute force and figures known beforehand."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from medseg.report import measures
from medseg.report.diameters import in_plane_diameters, largest_diameters, slice_axis
from medseg.report.measures import label_numbers
from medseg.report.runs import Parts
from medseg.volume import Label, Segmentation, Source, Volume, make_labels
from tests.phantoms import oblique_affine

SHEARED = np.array([[0.8, 0.1, 0, 3], [0, 1.1, 0.4, -2], [0.05, 0, 2.5, 7], [0, 0, 0, 1.0]])
AFFINES = {
    "plain": np.diag([1.0, 1, 1, 1]),
    "anisotropic": np.diag([-0.7, 0.7, 5, 1]),
    "oblique": oblique_affine("PLS", (0.8, 0.9, 3.0)),
    "sheared": SHEARED,
}


def blobs(shape: tuple[int, ...], seed: int) -> npt.NDArray[np.uint8]:
    """Return three labels of several ragged components each."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    array = np.digitize(smooth, np.quantile(smooth, [0.55, 0.7, 0.85])).astype(np.uint8)
    array[rng.random(shape) < 0.3] = 0
    return np.asfortranarray(array)


def faces(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the centres of the faces of all voxels."""
    voxels = np.argwhere(mask).astype(float)
    half = 0.5 * np.eye(mask.ndim)
    return np.concatenate([voxels + side for side in (*half, *-half)])


def components(array: npt.NDArray[np.uint8], label: int) -> list[npt.NDArray[np.bool_]]:
    """Return the components of a label."""
    found, count = ndimage.label(array == label, np.ones((3,) * array.ndim))
    return [found == n + 1 for n in range(count)]


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("seed", [0, 1])
def test_diameters_are_those_of_brute_force(name: str, seed: int) -> None:
    array, affine = blobs((13, 11, 9), seed), AFFINES[name]
    steps = affine[:3, :3]
    for axis in range(3):
        parts = Parts.of(array, not_along=axis)
        largest, lines = largest_diameters(parts, affine), in_plane_diameters(parts, affine, axis)
        for label in (1, 2, 3):
            parts_of_it = components(array, label)
            points = [faces(part) @ steps.T for part in parts_of_it]
            assert largest[label] == pytest.approx(max(cdist(p, p).max() for p in points))
            slices = []
            for part in parts_of_it:
                for plane in np.flatnonzero(part.any(tuple(a for a in range(3) if a != axis))):
                    within = np.take(part, plane, axis)
                    flat = np.insert(faces(within), axis, plane, axis=1) @ steps.T
                    slices.append((cdist(flat, flat).max(), flat, plane))
            longest = max(length for length, _, _ in slices)
            line = lines[label]
            assert line.diameter_mm == pytest.approx(longest)
            shorts = []  # of each line that is the longest
            for length, flat, plane in slices:
                if not np.isclose(length, longest) or plane != line.plane:
                    continue
                normal = np.cross(*np.delete(steps, axis, 1).T)
                for one, other in np.argwhere(np.isclose(cdist(flat, flat), longest)):
                    across = np.cross(normal, flat[other] - flat[one])
                    shorts.append(np.ptp(flat @ across) / np.linalg.norm(across))
            assert np.isclose(line.short_mm, shorts).any()


def test_a_ball_and_a_box_have_the_sizes_they_were_drawn_with() -> None:
    grid = np.indices((64, 64, 30)).transpose(1, 2, 3, 0) * (0.8, 0.8, 2.0)
    array = np.zeros((64, 64, 30), np.uint8, order="F")
    array[np.linalg.norm(grid - (16, 20, 30), axis=-1) <= 11] = 1
    array[40:60, 8:12, 5:9] = 2  # 16 x 3.2 x 8 mm
    affine = np.diag([-0.8, 0.8, 2, 1])
    volume = Volume(np.zeros((1, *array.shape), np.int16), affine, Source(modality="CT"))
    ball, box = label_numbers(volume, Segmentation(array, affine, make_labels(["ball", "box"])))
    assert ball["largest_diameter_mm"] == pytest.approx(22, abs=2)  # a slice
    assert ball["in_plane_diameter_mm"] == pytest.approx(22, abs=0.9)
    assert ball["in_plane_short_mm"] == pytest.approx(22, abs=0.9)
    assert ball["in_plane_slice"] == 15
    assert box["box"] == {"first": [40, 8, 5], "last": [59, 11, 8], "size_mm": [16.0, 3.2, 8.0]}
    assert np.hypot(16, 2.4) <= box["in_plane_diameter_mm"] <= np.hypot(16, 3.2)
    assert np.sqrt(16**2 + 2.4**2 + 6**2) <= box["largest_diameter_mm"]
    assert box["largest_diameter_mm"] <= np.sqrt(16**2 + 3.2**2 + 8**2)


def test_one_voxel_is_as_long_as_its_longest_side() -> None:
    array = np.zeros((5, 5, 5), np.uint8)
    array[2, 2, 2] = 1
    affine = np.diag([0.7, 0.9, 4, 1])
    volume = Volume(np.ones((1, 5, 5, 5)), affine)
    [row] = label_numbers(volume, Segmentation(array, affine, make_labels(["dot"])))
    assert row["largest_diameter_mm"] == 4.0
    assert row["in_plane_diameter_mm"] == 0.9
    assert row["in_plane_short_mm"] == 0.7
    assert row["in_plane_slice"] == 2


@pytest.mark.parametrize(
    ("affine", "codes", "axis"),
    [
        (np.diag([5.0, 1, 1, 1]), "RAS", 0),
        (np.diag([1.0, 1, 1, 1]), "RAS", 2),
        (np.diag([1.0, 1, 1.001, 1]), "RIA", 1),
        (np.diag([0.8, 0.9, 3, 1]), "SAR", 2),
        (np.diag([0.98, 0.98, 0.625, 1]), "LPS", 2),
    ],
)
def test_slices_are_told_by_their_spacing(affine: np.ndarray, codes: str, axis: int) -> None:
    assert slice_axis(affine, codes) == axis


def test_intensities_are_those_inside() -> None:
    rng = np.random.default_rng(3)
    image = rng.normal(40, 12, (2, 20, 18, 16)).astype(np.float32)
    array = blobs(image.shape[1:], 5)
    image[0][tuple(np.argwhere(array == 1)[4])] = np.nan
    seg = Segmentation(array, np.eye(4), (*make_labels("abc"), Label(9, "none", (0, 0, 0))))
    rows = label_numbers(Volume(image, np.eye(4)), seg)
    for row in rows[:3]:
        for key, channel in (("intensity", image[0]), ("intensity_2", image[1])):
            inside = channel[array == row["index"]].astype(np.float64)
            inside = inside[np.isfinite(inside)]
            found = row[key]
            assert found["mean"] == pytest.approx(inside.mean(), rel=1e-5)
            assert found["sd"] == pytest.approx(inside.std(), rel=1e-5)
            assert (found["min"], found["max"]) == pytest.approx(
                (inside.min(), inside.max()), rel=1e-5
            )
            wanted = np.percentile(inside, [5, 25, 50, 75, 95])
            got = [found[k] for k in ("p05", "p25", "p50", "p75", "p95")]
            assert got == pytest.approx(wanted, rel=1e-5)
    absent = {k: v for k, v in rows[3].items() if k not in ("index", "name")}
    assert absent == {
        "voxels": 0,
        "volume_ml": 0.0,
        "components": 0,
        "touches_border": False,
        **dict.fromkeys(("intensity", "intensity_2", "box", "largest_diameter_mm")),
        **dict.fromkeys(("in_plane_diameter_mm", "in_plane_short_mm", "in_plane_slice")),
        "in_plane_axis": None,
        "confidence": None,
    }


def test_the_image_is_left_as_it_is() -> None:
    image = np.arange(4 * 4 * 4, dtype=np.int16)[::-1].reshape(1, 4, 4, 4).copy()
    before = image.copy()
    seg = Segmentation(np.ones((4, 4, 4), np.uint8), np.eye(4), make_labels(["all"]))
    label_numbers(Volume(image, np.eye(4)), seg)
    assert (image == before).all()


def test_a_region_is_measured_with_what_lies_within_it() -> None:
    array = np.zeros((20, 20, 20), np.uint8, order="F")
    array[4:16, 4:10, 4:10] = 1
    array[8:12, 5:8, 5:8] = 2
    image = np.where(array == 2, 100, 10)[None].astype(np.int16)
    labels = (Label(1, "whole", (1, 2, 3), (1, 2)), Label(2, "core", (3, 2, 1)))
    whole, core = label_numbers(Volume(image, np.eye(4)), Segmentation(array, np.eye(4), labels))
    assert whole["box"]["size_mm"] == [12.0, 6.0, 6.0]
    assert whole["intensity"]["max"] == 100
    assert whole["intensity"]["mean"] == pytest.approx((396 * 10 + 36 * 100) / 432)
    assert 12 < whole["in_plane_diameter_mm"] <= np.hypot(12, 6)
    assert core["box"]["size_mm"] == [4.0, 3.0, 3.0]
    assert core["intensity"]["sd"] == 0


def test_a_picture_has_an_area_where_its_pixels_have_a_size() -> None:
    array = np.zeros((30, 40), np.uint8)
    array[5:15, 10:30] = 1
    affine = np.diag([0.5, 0.25, 1])
    seg = Segmentation(array, affine, make_labels(["thing"]))
    image = np.zeros((3, 30, 40), np.uint8)
    [row] = label_numbers(Volume(image, affine), seg)
    assert row["area_mm2"] == 25.0
    assert np.hypot(5, 4.75) <= row["largest_diameter_mm"] <= np.hypot(5, 5)
    assert row["box"]["size_mm"] == [5.0, 5.0]
    assert "in_plane_diameter_mm" not in row
    [row] = label_numbers(Volume(image, affine, Source(has_spacing=False)), seg)
    assert row["area_mm2"] is None
    assert row["largest_diameter_mm"] is None
    assert row["box"] == {"first": [5, 10], "last": [14, 29], "size_mm": None}


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("shape", "largest", "in_slice"),
    [((3, 4, 1), 20**0.5, 20**0.5), ((1, 1, 7), 7, 1), ((1, 7, 1), 7, 7), ((1, 1, 1), 1, 1)],
)
def test_one_slice_or_row_is_measured_whatever_its_order_in_memory(
    shape: tuple[int, ...], largest: float, in_slice: float, order: str
) -> None:
    array = np.asarray(np.ones(shape, np.uint8), order=order)  # type: ignore[call-overload]
    volume = Volume(np.zeros((1, *shape), np.int16), np.eye(4))
    (row,) = label_numbers(volume, Segmentation(array, np.eye(4), make_labels({1: "a"})))
    found = row["largest_diameter_mm"], row["in_plane_diameter_mm"]
    assert found == pytest.approx((largest, in_slice), abs=1e-3)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_deviations_are_those_of_numpy_however_many_values_are_taken_at_once(
    kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures, "VALUES_AT_ONCE", 7)
    image = np.random.default_rng(0).normal(100, 30, (1, 5, 5, 4)).astype(kind)
    segmentation = Segmentation(np.ones((5, 5, 4), np.uint8), np.eye(4), make_labels({1: "a"}))
    (row,) = label_numbers(Volume(image, np.eye(4)), segmentation)
    assert row["intensity"]["sd"] == pytest.approx(image.std(dtype=np.float64), rel=1e-5)
