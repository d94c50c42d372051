"""Previews: the patient's sides, proportions, what is said, and what is kept out."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.report import preview
from medseg.report.planes import (
    Plane,
    busiest_planes,
    display_window,
    oblique_angle,
    orthogonal_planes,
    scale_bar,
)
from medseg.report.preview import write_preview
from medseg.report.runs import find_runs, label_profiles
from medseg.volume import Segmentation, Source, Volume, make_labels

NAMES = ["right", "front", "top"]
SPACING = (1.0, 1.5, 2.0)
SHAPE = (40, 30, 24)


def _ras_phantom() -> tuple[np.ndarray, np.ndarray]:
    """Three blobs at the patient's right, front and top, on a RAS grid."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[32:37, 12:18, 9:15] = 1  # x rises to the right
    labels[17:23, 24:28, 9:15] = 2
    labels[17:23, 12:18, 19:22] = 3
    image = np.full(SHAPE, 40, np.int16)
    return image, labels


def _stored(order: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[Volume, Segmentation]:
    """Store the phantom with its axes in another order and direction, in the same place."""
    image, labels = _ras_phantom()
    affine = np.diag([*SPACING, 1.0])
    change = np.zeros((4, 4))
    change[3, 3] = 1
    step = [slice(None, None, -1) if flip else slice(None) for flip in flips]
    for new, old in enumerate(order):
        change[old, new] = -1 if flips[new] else 1
        change[old, 3] = SHAPE[old] - 1 if flips[new] else 0
    arrays = [array.transpose(order)[tuple(step)] for array in (image, labels)]
    affine = affine @ change
    table = make_labels(NAMES)
    source = Source(format="dicom", modality="CT")
    return Volume(arrays[0][None], affine, source), Segmentation(arrays[1], affine, table)


def _centre(plane: Plane, label: int) -> tuple[float, float]:
    rows, columns = np.nonzero(plane.labels == label)
    return rows.mean() / plane.labels.shape[0], columns.mean() / plane.labels.shape[1]


ORIENTATIONS = list(
    itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3))
)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_sides_are_right_in_all_48_orientations(
    order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    volume, seg = _stored(order, flips)
    voxel = np.linalg.inv(volume.affine) @ [20, 15 * 1.5, 12 * 2.0, 1]
    planes = {
        p.name: p for p in orthogonal_planes(volume, seg.array, voxel[:3].round().astype(int))
    }
    axial, coronal, sagittal = (planes[name] for name in ("axial", "coronal", "sagittal"))
    assert axial.edges == ("R", "L", "A", "P")
    assert coronal.edges == ("R", "L", "S", "I")
    assert sagittal.edges == ("A", "P", "S", "I")
    assert _centre(axial, 1)[1] < 0.2  # the patient's right is at the left
    assert _centre(coronal, 1)[1] < 0.2
    assert _centre(axial, 2)[0] < 0.2  # the front is up
    assert _centre(sagittal, 2)[1] < 0.2  # the front is at the left
    assert _centre(coronal, 3)[0] < 0.2  # the head is up
    assert _centre(sagittal, 3)[0] < 0.2
    assert axial.size_mm == (45.0, 40.0)
    assert coronal.size_mm == (48.0, 40.0)
    assert sagittal.size_mm == (48.0, 45.0)


def test_crossings_say_where_the_other_planes_lie() -> None:
    volume, seg = _stored((0, 1, 2), (False, False, False))
    axial = orthogonal_planes(volume, seg.array, (34, 26, 12))[0]
    assert axial.crossings is not None
    row, column = (
        int(f * n) for f, n in zip(axial.crossings[::-1], axial.labels.shape, strict=True)
    )
    assert (row, column) == (30 - 1 - 26, 40 - 1 - 34)


def test_an_oblique_direction_has_two_letters() -> None:
    volume, seg = _stored((0, 1, 2), (False, False, False))
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]]
    oblique = Volume(volume.array, turn @ volume.affine, volume.source)
    axial = orthogonal_planes(oblique, seg.array, (20, 15, 12))[0]
    assert axial.edges == ("R", "L", "AS", "PI")
    assert oblique_angle(oblique.affine) == pytest.approx(np.degrees(0.4))


def test_the_plane_shown_holds_a_lesion_beside_its_organ() -> None:
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[10:50, 10:50, 10:50] = 1
    labels[14:18, 20:24, 40:44] = 2
    chosen = busiest_planes(label_profiles(find_runs(labels), 2))
    assert chosen[0] in range(14, 18)
    assert chosen[1] in range(20, 24)
    assert chosen[2] in range(40, 44)


def test_without_labels_the_middle_is_shown() -> None:
    profiles = label_profiles(find_runs(np.zeros((9, 20, 31), np.uint8)), 2)
    assert busiest_planes(profiles) == (4, 10, 15)


def _written(volume: Volume, seg: Segmentation, path: Path) -> np.ndarray:
    write_preview(volume, seg, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with Image.open(path) as file:
        return np.asarray(file).astype(int)


def _pixels(picture: np.ndarray, color: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    return np.nonzero((np.abs(picture - color) <= 12).all(axis=2))


def test_the_right_blob_is_drawn_at_the_left_of_the_axial_picture(tmp_path: Path) -> None:
    volume, seg = _stored((2, 1, 0), (True, False, True))
    seg.array[seg.array > 1] = 0
    picture = _written(volume, seg, tmp_path / "preview.png")
    rows, columns = _pixels(picture, seg.labels[0].color)  # the outline is nearly opaque
    in_pictures = rows < 2 * preview.MARGIN + 400
    first = columns[in_pictures] < picture.shape[1] / 3
    assert first.any()
    assert columns[in_pictures][first].max() < preview.MARGIN + picture.shape[1] / 3 * 0.3


def _texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    write = preview._Page.text

    def listening(self: object, text: str, *args: object, **kwargs: object) -> None:
        texts.append(text)
        write(self, text, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(preview._Page, "text", listening)
    return texts


def test_names_and_millilitres_are_in_the_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(monkeypatch)
    volume, seg = _stored((0, 1, 2), (False, False, False))
    seg.array[seg.array == 3] = 0
    _written(volume, seg, tmp_path / "p.png")
    assert "right  0.54 ml" in texts
    assert "front  0.432 ml" in texts
    assert "not found: top" in texts
    assert "black -160, white 240 HU" in texts


def _bars(picture: np.ndarray) -> list[int]:
    """Return the lengths of the scale bars, from the left."""
    drawn = (picture == preview.SCALE_COLOR).all(axis=2)
    found = []
    for row in drawn[1:][drawn[1:].sum(axis=1) > drawn[:-1].sum(axis=1)]:
        ends = np.flatnonzero(np.diff(np.pad(row.astype(int), 1)))
        found += [
            (start, stop - start)
            for start, stop in zip(ends[::2], ends[1::2], strict=True)
            if stop - start > 20
        ]
    return [length for _, length in sorted(set(found))]


def test_scale_bars_are_as_long_as_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(monkeypatch)
    volume, seg = _stored((2, 0, 1), (False, True, False))
    bars = _bars(_written(volume, seg, tmp_path / "p.png"))
    said = [float(text.split()[0]) for text in texts if re.fullmatch(r"[\d.]+ mm", text)]
    assert said == [10, 10, 10]  # of 40, 40 and 45 mm
    planes = orthogonal_planes(volume, seg.array, (0, 0, 0))
    sizes = preview._picture_sizes(planes)
    for plane, size, bar in zip(planes, sizes, bars, strict=True):
        assert bar * plane.size_mm[1] / size[1] == pytest.approx(10, abs=0.1)


def test_without_a_pixel_size_the_scale_is_in_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(monkeypatch)
    image = np.zeros((1, 240, 480), np.uint8)
    seg = Segmentation(np.zeros((240, 480), np.uint8), np.eye(3), make_labels(["thing"]))
    source = Source(format="raster", has_spacing=False)
    bars = _bars(_written(Volume(image, np.eye(3), source), seg, tmp_path / "p.png"))
    assert "100 px" in texts
    assert bars == [100]


@pytest.mark.parametrize(
    ("width", "length", "text"),
    [(40, 10, "10 mm"), (17, 5, "5 mm"), (3.4, 1, "1 mm"), (5000, 1000, "1000 mm"),
     (1, 0.2, "0.2 mm"), (0.3, 0.05, "50 µm"), (0.001, 0.0002, "0.2 µm")],
)  # fmt: skip
def test_scale_bars_have_round_lengths(width: float, length: float, text: str) -> None:
    assert scale_bar(width, "mm") == (pytest.approx(length), text)


def test_nothing_found_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _texts(monkeypatch)
    volume, seg = _stored((0, 1, 2), (False, False, False))
    seg.array[:] = 0
    _written(volume, seg, tmp_path / "p.png")
    assert "nothing found" in texts
    assert "not found: right, front, top" in texts


def test_a_hundred_labels_keep_the_legend_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(monkeypatch)
    array = np.zeros((40, 40, 40), np.uint8)
    for index in range(1, 106):
        array.ravel()[index * 500 : index * 500 + index] = index
    seg = Segmentation(array, np.eye(4), make_labels([f"structure {k}" for k in range(1, 141)]))
    picture = _written(Volume(np.zeros((1, 40, 40, 40)), np.eye(4)), seg, tmp_path / "p.png")
    assert "structure 105  0.105 ml" in texts
    assert "and 82 smaller labels" in texts
    assert any(t.startswith("not found: structure 106, ") and t.endswith(" more") for t in texts)
    assert picture.shape[0] < 1000


@pytest.mark.parametrize(
    "shape", [(1, 64, 48), (64, 48, 1), (50, 40, 3), (1, 1, 1), (30, 1, 1), (300, 4, 4)]
)
def test_thin_volumes_are_drawn(shape: tuple[int, int, int], tmp_path: Path) -> None:
    array = np.zeros(shape, np.uint8)
    array[tuple(n // 2 for n in shape)] = 1
    image = np.arange(array.size, dtype=np.float32).reshape(1, *shape)
    seg = Segmentation(array, np.diag([0.5, 0.5, 6.0, 1]), make_labels(["a"]))
    picture = _written(Volume(image, seg.affine), seg, tmp_path / "p.png")
    assert max(picture.shape) < 2000
    assert len(_pixels(picture, seg.labels[0].color)[0])


def test_a_single_slice_shows_the_one_plane_it_has() -> None:
    volume = Volume(np.zeros((1, 64, 48, 1)), np.eye(4))
    planes = orthogonal_planes(volume, np.zeros((64, 48, 1), np.uint8), (5, 5, 0))
    assert [plane.name for plane in planes] == ["axial"]


def test_a_colour_image_keeps_its_colours_and_is_not_turned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = _texts(monkeypatch)
    image = np.zeros((3, 60, 90), np.uint8)
    image[0, :, :30] = 200
    image[2, 40:] = 100
    labels = np.zeros((60, 90), np.uint8)
    labels[5:15, 60:80] = 1
    source = Source(format="raster", has_spacing=False)
    seg = Segmentation(labels, np.eye(3), make_labels(["thing"]))
    picture = _written(Volume(image, np.eye(3), source), seg, tmp_path / "p.png")
    assert "thing  200 pixels" in texts
    left = (picture.shape[1] - preview.ENLARGED_SIDE) // 2
    assert picture[2 * preview.MARGIN + 5, left + 5].tolist() == [200, 0, 0]
    rows, columns = _pixels(picture, seg.labels[0].color)
    assert rows.min() < 250
    assert columns.max() > picture.shape[1] / 2


def test_what_is_not_finite_does_not_spoil_the_picture(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(1, 20, 20, 20)).astype(np.float32)
    image[0, :10] = np.nan
    seg = Segmentation(np.ones((20, 20, 20), np.uint8), np.eye(4), make_labels(["a"]))
    assert _written(Volume(image, np.eye(4)), seg, tmp_path / "p.png").size


def test_windows_follow_the_modality() -> None:
    rng = np.random.default_rng(0)
    hounsfield = rng.integers(-1000, 1200, (1, 20, 20, 20)).astype(np.int16)
    ct, mr, none = (
        Volume(hounsfield, np.eye(4), Source(modality=modality)) for modality in ("CT", "MR", "")
    )
    assert display_window(ct) == display_window(none) == (-160, 240)
    assert display_window(ct, np.full(10, -800)) == (-1350, 150)
    assert display_window(mr)[0] < -900
    low, high = display_window(Volume(np.zeros((1, 4, 4, 4)), np.eye(4)))
    assert high > low


def test_other_grids_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    volume, seg = _stored((0, 1, 2), (False, False, False))
    moved = Segmentation(seg.array, volume.affine + np.eye(4, k=3), seg.labels)
    with pytest.raises(ValueError, match="on the grid"):
        write_preview(volume, moved, tmp_path / "p.png")
    cut = Segmentation(seg.array[1:], volume.affine, seg.labels)
    with pytest.raises(ValueError, match="shape"):
        write_preview(volume, cut, tmp_path / "p.png")
    assert not list(tmp_path.iterdir())


def test_the_picture_says_nothing_about_its_source(tmp_path: Path) -> None:
    volume, seg = _stored((0, 1, 2), (False, False, False))
    secret = Source(
        path=Path("/DOE_JOHN"), modality="CT", series_instance_uid="1.2.3", volume_id="X"
    )
    _written(Volume(volume.array, volume.affine, secret), seg, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as file:
        assert not file.info
    written = (tmp_path / "p.png").read_bytes()
    assert b"DOE" not in written
    assert b"1.2.3" not in written
