"""Enhanced multi-frame files give what classic files give."""

from pathlib import Path

import numpy as np
from highdicom import UID
from pydicom import dcmread

from medseg.io.dicom import DicomVolume, Series, find_series, read_volume
from tests.io.dicom.synthetic import ct_pixels, enhanced, item, save, sequence, write_series

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def _only(path: Path) -> Series:
    (series,) = find_series(path).series
    return series


def _positions(count: int = 5, step: float = 2.5) -> list[np.ndarray]:
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    return [np.array([-40.0, 12.5, 3.25]) + step * k * normal for k in range(count)]


def test_enhanced_equals_classic(tmp_path: Path) -> None:
    pixels = ct_pixels()
    write_series(
        tmp_path / "classic",
        pixels,
        _positions(),
        Modality="MR",
        ImageOrientationPatient=list(OBLIQUE),
        PixelSpacing=[0.5, 0.75],
    )
    order = [3, 0, 4, 1, 2]  # frames in a file need not be in order of position
    ds = enhanced(
        pixels[order], [_positions()[k] for k in order], orientation=OBLIQUE, spacing=(0.5, 0.75)
    )
    save(ds, tmp_path / "enhanced" / "one")
    classic, multi = (
        read_volume(_only(tmp_path / name).volumes[0]) for name in ("classic", "enhanced")
    )
    np.testing.assert_allclose(multi.affine, classic.affine, atol=1e-4)
    np.testing.assert_array_equal(multi.array, classic.array)


def _check_times(volume: DicomVolume, stacks: np.ndarray) -> None:
    assert (volume.frames, volume.usable) == (len(stacks), True)
    np.testing.assert_array_equal(read_volume(volume).array, stacks.transpose(0, 3, 2, 1))


def test_temporal_positions_of_one_file_are_frames(tmp_path: Path) -> None:
    stacks = np.stack([ct_pixels(seed=t) for t in range(3)])
    content = [{"TemporalPositionIndex": t + 1} for t in range(3) for _ in range(5)]
    ds = enhanced(
        stacks.reshape(15, 12, 16), _positions() * 3, orientation=OBLIQUE, frame_content=content
    )
    save(ds, tmp_path / "one")
    _check_times(_only(tmp_path).volumes[0], stacks)


def test_several_files_of_one_series_are_frames(tmp_path: Path) -> None:
    stacks = np.stack([ct_pixels(seed=t) for t in range(3)])
    for t in (2, 0, 1):
        clock = [{"FrameAcquisitionDateTime": f"2020010112000{t}.25"}] * 5
        ds = enhanced(stacks[t], _positions(), orientation=OBLIQUE, frame_content=clock)
        save(ds, tmp_path / f"file{t}")
    _check_times(_only(tmp_path).volumes[0], stacks)


def test_unknown_dimension_is_told_apart_by_its_index(tmp_path: Path) -> None:
    stacks = np.stack([ct_pixels(seed=t) for t in range(2)])
    content = [{"DimensionIndexValues": [k + 1, t + 1]} for t in range(2) for k in range(5)]
    ds = enhanced(
        stacks.reshape(10, 12, 16), _positions() * 2, orientation=OBLIQUE, frame_content=content
    )
    ds.DimensionIndexSequence = [
        item(DimensionIndexPointer=0x00209057),
        item(DimensionIndexPointer=0x00189295),
    ]
    save(ds, tmp_path / "one")
    _check_times(_only(tmp_path).volumes[0], stacks)


def test_echoes_and_components_are_volumes(tmp_path: Path) -> None:
    stacks = np.stack([ct_pixels(seed=t) for t in range(4)])
    groups = [
        {
            "MREchoSequence": sequence(EffectiveEchoTime=echo),
            "MRImageFrameTypeSequence": sequence(
                FrameType=["ORIGINAL", "PRIMARY", "T1", "NONE"], ComplexImageComponent=component
            ),
        }
        for echo in (4.6, 9.2)
        for component in ("MAGNITUDE", "PHASE")
        for _ in range(5)
    ]
    ds = enhanced(
        stacks.reshape(20, 12, 16), _positions() * 4, orientation=OBLIQUE, frame_groups=groups
    )
    save(ds, tmp_path / "one")
    volumes = _only(tmp_path).volumes
    assert [volume.frames for volume in volumes] == [1] * 4
    for volume, stack in zip(volumes, stacks, strict=True):
        np.testing.assert_array_equal(read_volume(volume).array[0], stack.transpose(2, 1, 0))


def test_rescale_of_each_frame_is_applied(tmp_path: Path) -> None:
    pixels = ct_pixels()
    slopes = [1.0, 0.5, 2.0, 0.25, 1.5]
    groups = [
        {
            "PixelValueTransformationSequence": sequence(
                RescaleSlope=s, RescaleIntercept=-10, RescaleType="US"
            )
        }
        for s in slopes
    ]
    ds = enhanced(pixels, _positions(), orientation=OBLIQUE, frame_groups=groups)
    save(ds, tmp_path / "one")
    array = read_volume(_only(tmp_path).volumes[0]).array
    np.testing.assert_allclose(array[0], pixels.transpose(2, 1, 0) * np.float32(slopes) - 10)


def test_repeats_without_any_dimension_are_refused(tmp_path: Path) -> None:
    pixels = np.concatenate([ct_pixels(seed=1), ct_pixels(seed=2)])
    save(enhanced(pixels, _positions() * 2, orientation=OBLIQUE), tmp_path / "one")
    (volume,) = _only(tmp_path).volumes
    assert [p.code for p in volume.problems if p.is_error] == ["duplicate-position"]


def test_missing_slice_names_the_frames(tmp_path: Path) -> None:
    positions = [p for k, p in enumerate(_positions(8)) if k != 5]
    save(enhanced(ct_pixels(7), positions, orientation=OBLIQUE, InstanceNumber=4), tmp_path / "one")
    (problem,) = _only(tmp_path).volumes[0].problems
    assert problem.code == "missing-slices"
    assert "between instance 4 frame 5 and 4 frame 6" in problem.message


def test_frames_that_are_stated_but_not_described_are_refused(tmp_path: Path) -> None:
    ds = enhanced(ct_pixels(6), [*_positions(), _positions(6)[5]], orientation=OBLIQUE)
    ds.PerFrameFunctionalGroupsSequence.pop()
    save(ds, tmp_path / "one")
    problems = _only(tmp_path).volumes[0].problems
    assert [p.code for p in problems if p.is_error] == ["missing-frames"]


def test_truncated_frames_are_found_by_the_scan(tmp_path: Path) -> None:
    path = save(enhanced(ct_pixels(), _positions(), orientation=OBLIQUE), tmp_path / "one")
    path.write_bytes(path.read_bytes()[:-500])
    assert "truncated" in [p.code for p in _only(tmp_path).volumes[0].problems]


def test_legacy_converted_file_of_another_library_equals_its_classic_source(tmp_path: Path) -> None:
    from highdicom.legacy import LegacyConvertedEnhancedCTImage  # noqa: PLC0415 -- slow import

    pixels = ct_pixels()
    paths = write_series(
        tmp_path / "classic",
        pixels,
        _positions(),
        ImageOrientationPatient=list(OBLIQUE),
        PixelSpacing=[0.5, 0.75],
        BurnedInAnnotation="NO",
        AccessionNumber="",
        StudyID="",
        StudyDate="20200101",
        StudyTime="120000",
        ReferringPhysicianName="",
        PatientSex="O",
        Manufacturer="",
        PatientPosition="HFS",
        PositionReferenceIndicator="",
        AcquisitionNumber=1,
        KVP="120",
        InstanceCreationDate="20200101",
        InstanceCreationTime="120000",
        ContentDate="20200101",
        ContentTime="120000",
        AcquisitionDate="20200101",
        AcquisitionTime="120000",
    )
    converted = LegacyConvertedEnhancedCTImage(
        [dcmread(path) for path in paths], UID(), 1, UID(), 1
    )
    (tmp_path / "legacy").mkdir()
    converted.save_as(tmp_path / "legacy" / "one.dcm")
    classic, legacy = (
        read_volume(_only(tmp_path / name).volumes[0]) for name in ("classic", "legacy")
    )
    np.testing.assert_allclose(legacy.affine, classic.affine, atol=1e-4)
    np.testing.assert_array_equal(legacy.array, classic.array)
