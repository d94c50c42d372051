"""DICOM SEG written by highdicom from known arrays, read back on the grid of its series."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from medseg.errors import DicomError
from medseg.io.dicom import (
    DicomVolume,
    find_series,
    is_segmentation,
    read_combinations,
    read_segmentation,
    read_segmentation_header,
    read_volume,
)
from tests.data.dicom_sets import oblique_affine
from tests.io.dicom.segmentations import series_files, write_seg
from tests.io.dicom.synthetic import write_series
from tests.real_data import data_folder

VALUES = {"liver": (1,), "tumour": (2,)}
ROWS, COLUMNS, SLICES = 11, 13, 6  # no multiple of eight bits


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """An oblique series."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique_affine()
    pixels = np.random.default_rng(3).integers(0, 900, (SLICES, ROWS, COLUMNS), np.int16)
    write_series(
        tmp_path / "images",
        pixels,
        [(affine[:3, 3] + k * affine[:3, 2]).round(6).tolist() for k in range(SLICES)],
        Modality="MR",
        ImageOrientationPatient=[
            *(affine[:3, 0] / 0.9).round(9).tolist(),
            *(affine[:3, 1] / 1.2).round(9).tolist(),
        ],
        PixelSpacing=[1.2, 0.9],
        PatientSex="O",
    )
    return tmp_path / "images"


def _volume(folder: Path) -> DicomVolume:
    (series,) = find_series(folder).series
    (volume,) = series.volumes
    return volume


def _masks(sources: list, seed: int = 0) -> dict[str, np.ndarray]:
    shape = (len(sources), sources[0].Rows, sources[0].Columns)
    rng = np.random.default_rng(seed)
    organ = rng.random(shape) < 0.3
    organ[[0, -1]] = False  # slices without a frame
    return {"liver": organ, "tumour": (rng.random(shape) < 0.1) & ~organ}


def _expected(masks: dict[str, np.ndarray]) -> np.ndarray:
    return sum(VALUES[name][0] * mask for name, mask in masks.items()).transpose(2, 1, 0)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP", "FRACTIONAL"])
@pytest.mark.parametrize("name", ["11-T1post-18670", "11_HCropVolume"])
def test_a_seg_over_a_real_series_is_the_array_it_was_made_of(tmp_path, kind, name) -> None:
    folder = next(data_folder("dicom").rglob(name))
    sources = series_files(folder)
    masks = _masks(sources)
    given = {n: m.astype(float) for n, m in masks.items()} if kind == "FRACTIONAL" else masks
    path = write_seg(tmp_path / "seg.dcm", sources, given, kind=kind)
    label = read_segmentation(path, _volume(folder), VALUES)
    image = read_volume(_volume(folder))
    assert np.array_equal(label.array[0], _expected(masks))
    assert label.shape == image.shape
    assert np.array_equal(label.affine, image.affine)
    assert label.source.problems == ()


def test_frames_of_odd_sizes_and_in_any_order_find_their_slices(tmp_path, series) -> None:
    sources = series_files(series)
    masks = _masks(sources)
    path = write_seg(tmp_path / "seg.dcm", sources, masks)
    ds = dcmread(path)
    frames = _frames(ds)
    order = np.random.default_rng(1).permutation(len(frames))
    _store(ds, frames[order])
    ds.PerFrameFunctionalGroupsSequence = [ds.PerFrameFunctionalGroupsSequence[n] for n in order]
    ds.save_as(path)
    label = read_segmentation(path, _volume(series), VALUES)
    assert np.array_equal(label.array[0], _expected(masks))


def test_a_seg_agrees_with_highdicom_where_it_reads_by_instance(tmp_path, series) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    theirs = hd.seg.segread(path).get_pixels_by_source_instance(
        [ds.SOPInstanceUID for ds in sources],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    ours = read_segmentation(path, _volume(series), VALUES).array[0]
    assert np.array_equal(ours, theirs.transpose(2, 1, 0))


def test_the_header_names_segments_and_the_images(tmp_path, series) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    header = read_segmentation_header(path)
    assert header.segments == ((1, "liver"), (2, "tumour"))
    assert header.instance_uids == {ds.SOPInstanceUID for ds in sources}
    assert header.series_uids == (sources[0].SeriesInstanceUID,)
    assert is_segmentation(path)
    assert not is_segmentation(next(series.iterdir()))


@pytest.mark.parametrize("turn", ["flip columns", "flip rows", "transpose"])
def test_a_frame_stored_along_other_directions_lands_on_the_same_voxels(
    tmp_path, series, turn
) -> None:
    sources = series_files(series)
    masks = _masks(sources)
    path = write_seg(tmp_path / "seg.dcm", sources, masks, omit_empty_frames=False)
    ds = dcmread(path)
    frames, cosines, moved = _frames(ds), _cosines(ds), np.zeros(3)
    shared = ds.SharedFunctionalGroupsSequence[0]
    if turn == "transpose":
        frames, cosines = frames.transpose(0, 2, 1), cosines[::-1]
        shared.PixelMeasuresSequence[0].PixelSpacing = [0.9, 1.2]
    else:
        axis = 0 if turn == "flip columns" else 1
        frames = np.flip(frames, 2 - axis)
        moved = cosines[axis] * ((COLUMNS - 1) * 0.9 if axis == 0 else (ROWS - 1) * 1.2)
        cosines[axis] *= -1
    _store(ds, frames)
    _shift(ds, moved)
    turned = [float(f"{v:.9f}") for v in cosines.ravel()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = turned
    ds.save_as(path)
    label = read_segmentation(path, _volume(series), VALUES)
    assert np.array_equal(label.array[0], _expected(masks))


def test_a_seg_that_covers_a_part_of_the_slices_is_placed_by_its_position(tmp_path, series) -> None:
    sources = series_files(series)
    liver = np.zeros((SLICES, ROWS, COLUMNS), bool)
    liver[1:4, 2:9, 3:11] = _masks(sources)["liver"][1:4, 2:9, 3:11]
    path = write_seg(tmp_path / "seg.dcm", sources, {"liver": liver})
    ds = dcmread(path)
    _store(ds, _frames(ds)[:, 2:9, 3:11])
    _shift(ds, 3 * 0.9 * _cosines(ds)[0] + 2 * 1.2 * _cosines(ds)[1])
    ds.save_as(path)
    assert (ds.NumberOfFrames, ds.Rows, ds.Columns) == (3, 7, 8)
    label = read_segmentation(path, _volume(series), VALUES)
    assert np.array_equal(label.array[0], liver.transpose(2, 1, 0))


def _frames(ds) -> np.ndarray:
    """Return (frames, rows, columns) of a binary SEG."""
    bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
    count = int(ds.NumberOfFrames)
    return bits[: count * ds.Rows * ds.Columns].reshape(count, ds.Rows, ds.Columns)


def _store(ds, frames: np.ndarray) -> None:
    ds.Rows, ds.Columns = frames.shape[1:]
    ds.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    ds.PixelData += b"\0" * (len(ds.PixelData) % 2)


def _cosines(ds) -> np.ndarray:
    """Return (2, 3) directions along a row and along a column."""
    plane = ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    return np.array(plane.ImageOrientationPatient, float).reshape(2, 3)


def _shift(ds, by_mm: np.ndarray, frames: slice = slice(None)) -> None:
    for groups in ds.PerFrameFunctionalGroupsSequence[frames]:
        place = groups.PlanePositionSequence[0]
        moved = np.array(place.ImagePositionPatient, float) + by_mm
        place.ImagePositionPatient = [float(f"{v:.7f}") for v in moved]


def test_fractions_count_from_one_half_and_are_reported(tmp_path, series) -> None:
    sources = series_files(series)
    shares = np.random.default_rng(0).choice([0, 0.2, 0.4, 0.6, 1], (SLICES, ROWS, COLUMNS))
    path = write_seg(tmp_path / "seg.dcm", sources, {"liver": shares}, kind="FRACTIONAL")
    label = read_segmentation(path, _volume(series), VALUES)
    assert np.array_equal(label.array[0], (shares > 0.5).transpose(2, 1, 0))
    (problem,) = label.source.problems
    assert (problem.code, problem.severity) == ("fractional-segmentation", "warning")


def test_overlaps_are_refused_unless_a_value_stands_for_them(tmp_path, series) -> None:
    sources = series_files(series)
    liver = _masks(sources)["liver"]
    tumour = liver & (np.arange(COLUMNS) > 6)
    path = write_seg(tmp_path / "seg.dcm", sources, {"liver": liver, "tumour": tumour})
    volume = _volume(series)
    with pytest.raises(DicomError, match=f"liver and tumour .{tumour.sum()} voxels") as caught:
        read_segmentation(path, volume, VALUES)
    assert caught.value.code == "overlapping-segments"
    label = read_segmentation(path, volume, {"liver": (1, 2), "tumour": (2,)})
    assert np.array_equal(label.array[0], (liver + 1 * tumour).transpose(2, 1, 0))
    assert read_combinations(path) == {frozenset({"liver"}), frozenset({"liver", "tumour"})}


def test_a_segment_of_unknown_name_is_refused(tmp_path, series) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    with pytest.raises(DicomError, match="must be among liver, got tumour") as caught:
        read_segmentation(path, _volume(series), {"liver": (1,)})
    assert caught.value.code == "unknown-label"


def _moved(path: Path, by_mm: list[float] | np.ndarray, frames: slice = slice(None)) -> Path:
    ds = dcmread(path)
    _shift(ds, np.asarray(by_mm), frames)
    ds.save_as(path)
    return path


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_frame_beyond_a_thousandth_of_a_voxel_off_its_slice_is_refused(
    tmp_path, series, axis
) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    by_mm = [0.0, 0.0, 0.0]
    by_mm[axis] = 4e-4
    assert read_segmentation(_moved(path, by_mm), _volume(series), VALUES)
    by_mm[axis] = 1e-3  # with what it was moved by: 1.4e-3 mm of 0.9 mm
    with pytest.raises(DicomError, match="voxels off") as caught:
        read_segmentation(_moved(path, by_mm), _volume(series), VALUES)
    assert caught.value.code == "off-grid"


def test_coarser_pixels_are_refused(tmp_path, series) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    ds = dcmread(path)
    ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [2.4, 1.8]
    ds.save_as(path)
    with pytest.raises(DicomError, match="other pixels"):
        read_segmentation(path, _volume(series), VALUES)


def test_a_frame_on_another_slice_than_it_was_derived_from_is_refused(tmp_path, series) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    step = np.array(sources[1].ImagePositionPatient, float) - np.array(
        sources[0].ImagePositionPatient, float
    )
    _moved(path, -step, slice(0, 1))
    with pytest.raises(DicomError, match="derived from slice") as caught:
        read_segmentation(path, _volume(series), VALUES)
    assert caught.value.code == "contradictory-segmentation"


def test_voxels_outside_the_series_are_refused(tmp_path, series) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, {"liver": np.ones((6, 11, 13), bool)})
    cosines = np.array(sources[0].ImageOrientationPatient, float)[:3]
    _moved(path, 0.9 * cosines)
    with pytest.raises(DicomError, match="11 voxels outside") as caught:
        read_segmentation(path, _volume(series), VALUES)
    assert caught.value.code == "off-grid"


def test_another_frame_of_reference_is_refused(tmp_path, series) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    ds = dcmread(path)
    ds.FrameOfReferenceUID = "1.2.3"
    ds.save_as(path)
    with pytest.raises(DicomError) as caught:
        read_segmentation(path, _volume(series), VALUES)
    assert caught.value.code == "other-frame-of-reference"


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("PixelData", b"\0\0", "unreadable"),
        ("SharedFunctionalGroupsSequence", [], "unreadable"),
        ("SegmentSequence", [], "unreadable"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4", "not-a-segmentation"),
    ],
)
def test_damaged_objects_are_refused(tmp_path, series, keyword, value, code) -> None:
    sources = series_files(series)
    path = write_seg(tmp_path / "seg.dcm", sources, _masks(sources))
    ds = dcmread(path)
    setattr(ds, keyword, value)
    ds.save_as(path)
    with pytest.raises(DicomError) as caught:
        read_segmentation(path, _volume(series), VALUES)
    assert caught.value.code == code


def test_labels_of_a_tilted_gantry_go_to_the_grid_of_their_image(tmp_path) -> None:
    """A box that is bright in the image is labelled: both are resampled the same way."""
    pixels = np.zeros((8, 20, 24), np.int16)
    pixels[2:6, 6:14, 8:16] = 1000
    places = [(0.0, 0.37 * k, 2.0 * k) for k in range(8)]  # not along the normal
    write_series(tmp_path / "images", pixels, places, Modality="MR", PatientSex="O")
    sources = series_files(tmp_path / "images")
    path = write_seg(tmp_path / "seg.dcm", sources, {"liver": pixels > 0})
    volume = _volume(tmp_path / "images")
    image = read_volume(volume)
    label = read_segmentation(path, volume, VALUES)
    assert label.shape == image.shape
    assert label.shape != (24, 20, 8)
    assert np.array_equal(label.affine, image.affine)
    assert np.array_equal(label.array > 0, image.array > 500)
