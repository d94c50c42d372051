"""What belongs to one volume, what repeats, and what is a time point."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.io.dicom import DicomVolume, Series, find_series, read_volume
from tests.io.dicom.synthetic import ct_pixels, write_series

MR = {"Modality": "MR", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"], "EchoNumbers": 1}


def _only(path: Path) -> Series:
    (series,) = find_series(path).series
    return series


def _errors(volume: DicomVolume) -> list[str]:
    return [p.code for p in volume.problems if p.is_error]


def _warnings(volume: DicomVolume) -> list[str]:
    return [p.code for p in volume.problems if not p.is_error]


def _expected(pixels: np.ndarray, intercept: int = 0) -> np.ndarray:
    return pixels.transpose(2, 1, 0).astype(np.int16) + np.int16(intercept)


def test_two_series_in_one_folder_stay_apart(tmp_path: Path) -> None:
    first, second = ct_pixels(seed=1), ct_pixels(seed=2)
    write_series(tmp_path, first, SeriesInstanceUID="1.2.3.1")
    write_series(tmp_path, second, SeriesInstanceUID="1.2.3.2")
    series = find_series(tmp_path).series
    assert [one.series_instance_uid for one in series] == ["1.2.3.1", "1.2.3.2"]
    for one, pixels in zip(series, (first, second), strict=True):
        (volume,) = one.volumes
        assert volume.usable
        np.testing.assert_array_equal(read_volume(volume).array[0], _expected(pixels, -1024))


@pytest.mark.parametrize(
    ("tag", "values"),
    [
        ("SeriesNumber", (3, 4)),
        ("EchoNumbers", (1, 2)),
        ("EchoTime", (4.6, 9.2)),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])),
        (
            "ImageType",
            (["ORIGINAL", "PRIMARY", "DIXON", "WATER"], ["ORIGINAL", "PRIMARY", "DIXON", "FAT"]),
        ),
        ("ComplexImageComponent", ("MAGNITUDE", "PHASE")),
        ("DiffusionBValue", (0.0, 1000.0)),
        ("FrameOfReferenceUID", ("1.2.3.8", "1.2.3.9")),
        ("ImageType", (["ORIGINAL", "PRIMARY", "M"], ["DERIVED", "PRIMARY", "M"])),
        ("FlipAngle", (5, 15)),
        ("ImageOrientationPatient", ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0.8, 0.6])),
        ("PixelSpacing", ([1, 1], [0.5, 0.5])),
    ],
)
def test_one_series_uid_is_split_by(tmp_path: Path, tag: str, values: tuple[Any, Any]) -> None:
    pixels = ct_pixels(seed=1), ct_pixels(seed=2)
    for stack, value in zip(pixels, values, strict=True):
        write_series(tmp_path, stack, **{**MR, tag: value})
    series = _only(tmp_path)
    assert series.instances == 10
    assert len(series.volumes) == 2
    assert [v.volume_id[-2:] for v in series.volumes] == ["_1", "_2"]
    for volume, stack in zip(series.volumes, pixels, strict=True):
        assert _errors(volume) == []
        assert volume.frames == 1
        if tag != "ImageOrientationPatient":
            np.testing.assert_array_equal(read_volume(volume).array[0], _expected(stack))


def test_two_kernels_at_the_same_positions_are_two_volumes(tmp_path: Path) -> None:
    pixels = ct_pixels(seed=1), ct_pixels(seed=2)
    write_series(tmp_path, pixels[0], ConvolutionKernel="B30f", AcquisitionNumber=1)
    write_series(tmp_path, pixels[1], ConvolutionKernel="B70f", AcquisitionNumber=2)
    volumes = _only(tmp_path).volumes
    assert [volume.frames for volume in volumes] == [1, 1]
    for volume, stack in zip(volumes, pixels, strict=True):
        np.testing.assert_array_equal(read_volume(volume).array[0], _expected(stack, -1024))


def test_matrix_size_splits(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels())
    write_series(tmp_path, ct_pixels(rows=14))
    assert [volume.size for volume in _only(tmp_path).volumes] == [(16, 12, 5), (16, 14, 5)]


def test_localizer_with_the_series_uid_never_joins_the_volume(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels())
    write_series(
        tmp_path,
        ct_pixels(1, 12, 16),
        [(0, 0, 3.0)],
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        InstanceNumber=99,
    )
    volume, localizer = _only(tmp_path).volumes
    assert volume.usable
    assert volume.size == (16, 12, 5)
    assert _errors(localizer) == ["localizer"]


def test_ids_follow_modality_number_and_hashed_uid(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), SeriesNumber=7, SeriesInstanceUID="1.2.840.99.1")
    (volume,) = _only(tmp_path).volumes
    assert volume.volume_id == "CT_7_2a87a5a5"


def test_empty_series_number_is_0_in_the_id(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), SeriesNumber="")
    (volume,) = _only(tmp_path).volumes
    assert volume.volume_id.startswith("CT_0_")


def test_copied_files_are_listed_and_left_out(tmp_path: Path) -> None:
    pixels = ct_pixels()
    paths = write_series(tmp_path, pixels)
    shutil.copy(paths[2], tmp_path / "copy of a slice")
    (volume,) = _only(tmp_path).volumes
    assert volume.usable
    assert _warnings(volume) == ["duplicate-instance"]
    assert "copy of a slice" in volume.problems[0].message
    np.testing.assert_array_equal(read_volume(volume).array[0], _expected(pixels, -1024))


def test_equal_slices_under_new_uids_are_listed_and_left_out(tmp_path: Path) -> None:
    pixels = ct_pixels()
    write_series(tmp_path, pixels)
    write_series(tmp_path, pixels[1:2], [(0, 0, 2.0)], InstanceNumber=77)
    (volume,) = _only(tmp_path).volumes
    assert (_warnings(volume), _errors(volume)) == (["duplicate-instance"], [])


@pytest.mark.parametrize("all_slices", [False, True])
def test_different_slices_at_one_position_are_refused(tmp_path: Path, all_slices: bool) -> None:
    write_series(tmp_path, ct_pixels(seed=1))
    others = ct_pixels(seed=2)[: 5 if all_slices else 1]
    write_series(
        tmp_path, others, per_slice=[{"InstanceNumber": 20 + k} for k in range(len(others))]
    )
    (volume,) = _only(tmp_path).volumes
    assert _errors(volume) == ["duplicate-position"]


def test_one_sop_uid_with_different_pixels_is_refused(tmp_path: Path) -> None:
    write_series(
        tmp_path, ct_pixels(seed=1), per_slice=[{"SOPInstanceUID": f"1.2.{k}"} for k in range(5)]
    )
    write_series(tmp_path, ct_pixels(1, seed=2), SOPInstanceUID="1.2.0")
    (volume,) = _only(tmp_path).volumes
    assert "duplicate-position" in _errors(volume)


TIMES: list[tuple[str, list[Any]]] = [
    ("TemporalPositionIdentifier", [1, 2, 3]),
    ("AcquisitionNumber", [7, 8, 10]),
    ("AcquisitionTime", ["235958.5", "235959.25", "235959.75"]),
    ("ContentTime", ["090000", "090010", "090020"]),
    ("TriggerTime", [0.0, 33.3, 66.7]),
]


@pytest.mark.parametrize(("tag", "values"), TIMES, ids=[tag for tag, _ in TIMES])
def test_repeats_told_apart_in_time_are_frames(tmp_path: Path, tag: str, values: list[Any]) -> None:
    pixels = [ct_pixels(seed=seed) for seed in range(3)]
    for place in (1, 0, 2):
        write_series(
            tmp_path / str(place), pixels[place], **{**MR, tag: values[place]}, SeriesNumber=3
        )
    (volume,) = _only(tmp_path).volumes
    assert (volume.frames, volume.size, _errors(volume)) == (3, (16, 12, 5), [])
    array = read_volume(volume).array
    assert array.shape == (3, 16, 12, 5)
    for place in range(3):
        np.testing.assert_array_equal(array[place], _expected(pixels[place]))
        np.testing.assert_array_equal(read_volume(volume, frame=place).array, array[place][None])


def test_content_times_that_disagree_between_slices_are_no_time_points(tmp_path: Path) -> None:
    for time in range(2):
        clock = [
            {
                "ContentTime": f"0900{(7 * k + 31 * time + 13 * time * k) % 60:02d}",
                "InstanceNumber": 10 * time + k,
            }
            for k in range(5)
        ]
        write_series(tmp_path, ct_pixels(seed=time), per_slice=clock, **MR)
    (volume,) = _only(tmp_path).volumes
    assert _errors(volume) == ["duplicate-position"]


def test_gradient_directions_are_frames_of_one_b_value(tmp_path: Path) -> None:
    directions = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    write_series(tmp_path, ct_pixels(seed=9), DiffusionBValue=0.0, **MR)
    for number, direction in enumerate(directions):
        write_series(
            tmp_path,
            ct_pixels(seed=number),
            per_slice=[{"InstanceNumber": 100 + 5 * number + k} for k in range(5)],
            DiffusionBValue=1000.0,
            DiffusionGradientOrientation=direction,
            **MR,
        )
    volumes = _only(tmp_path).volumes
    assert [volume.frames for volume in volumes] == [1, 3]
    array = read_volume(volumes[1]).array
    for number in range(3):
        np.testing.assert_array_equal(array[number], _expected(ct_pixels(seed=number)))


def test_incomplete_time_point_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(seed=1), TemporalPositionIdentifier=1, **MR)
    write_series(tmp_path, ct_pixels(seed=2)[:4], TemporalPositionIdentifier=2, **MR)
    (volume,) = _only(tmp_path).volumes
    assert _errors(volume) == ["missing-frames"]
    assert "temporal position 2 has 4 of 5" in volume.problems[0].message


def test_stated_time_points_are_told_apart_by_instance_numbers_alone(tmp_path: Path) -> None:
    for time in range(2):
        numbers = [{"InstanceNumber": 1 + 5 * time + k} for k in range(5)]
        write_series(
            tmp_path, ct_pixels(seed=time), per_slice=numbers, NumberOfTemporalPositions=2, **MR
        )
    (volume,) = _only(tmp_path).volumes
    assert (volume.frames, volume.problems) == (2, ())
    np.testing.assert_array_equal(
        read_volume(volume, frame=1).array[0], _expected(ct_pixels(seed=1))
    )


def test_missing_series_uid_groups_by_folder_with_a_warning(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(tmp_path / name, ct_pixels(), SeriesInstanceUID=None, SOPInstanceUID=None)
    series = find_series(tmp_path).series
    assert [one.instances for one in series] == [5, 5]
    ids = {one.volumes[0].volume_id for one in series}
    assert len(ids) == 2
    for one in series:
        assert [p.code for p in one.problems] == ["missing-uid"]
        assert one.volumes[0].usable


def test_cancelled_run_with_an_incomplete_last_acquisition_is_refused(tmp_path: Path) -> None:
    for time, slices in enumerate((5, 5, 3)):
        write_series(tmp_path, ct_pixels(seed=time)[:slices], AcquisitionNumber=time + 1, **MR)
    (volume,) = _only(tmp_path).volumes
    assert _errors(volume) == ["missing-frames"]
    assert "acquisition 3 has 3 of 5" in volume.problems[0].message


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")  # the value under test
def test_modality_is_made_fit_for_a_folder_name(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), Modality="../X")
    (volume,) = _only(tmp_path).volumes
    assert volume.volume_id.startswith("X_3_")


def test_missing_modality_is_that_of_the_sop_class(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), Modality="")
    (volume,) = _only(tmp_path).volumes
    assert volume.volume_id.startswith("CT_3_")


def test_coloured_slices_are_no_volume(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 12, 16, 3), np.uint8)
    write_series(tmp_path, pixels, Modality="MR")
    (volume,) = _only(tmp_path).volumes
    assert _errors(volume) == ["unsupported-pixels"]
