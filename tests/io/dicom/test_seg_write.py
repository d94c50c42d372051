"""DICOM SEG written, and read back voxel by voxel with pydicom alone, highdicom and dciodvfy."""

import shutil
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import iter_pixels

from medseg.errors import DicomError
from medseg.geometry import LPS_TO_RAS
from medseg.io.dicom import DicomVolume, find_series
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.read import read_volume
from medseg.io.dicom.seg_write import write_segmentation
from medseg.io.dicom.segmentation import read_segmentation
from medseg.volume import Concept, Label, Segmentation, Volume, make_labels, mask_dtype
from tests.io.dicom.synthetic import ct_pixels, enhanced, header, save, set_pixels, write_series
from tests.real_data import data_folder

NAMES = ["liver", "kidney_left", "liver tumour"]
MADE_BY = Algorithm("bundle", "1.2.3", {"weights_sha256": "0123abcd"})
OBLIQUE = [0.8, 0.6, 0.0, -0.36, 0.48, 0.8]


def only(path: Path) -> DicomVolume:
    (series,) = find_series(path).series
    (volume,) = series.volumes
    return volume


def segmented(volume: Volume, names: list[str] | None = None, seed: int = 0) -> Segmentation:
    """Blocks of labels, the last of them one voxel, and holes."""
    names = names or NAMES
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, len(names), [-(-n // 4) for n in volume.shape])
    whole = np.kron(coarse, np.ones((4,) * coarse.ndim, int))
    array = whole[tuple(slice(n) for n in volume.shape)]
    array[tuple(n // 2 for n in volume.shape)] = len(names)
    return Segmentation(
        array.astype(mask_dtype(len(names))), volume.affine, make_labels(names), volume.source
    )


def frames_of(ds: pydicom.Dataset) -> list[tuple[int, list[str], np.ndarray, pydicom.Dataset]]:
    """Return segment, position in text, pixels and derivation of each frame; pydicom alone."""
    found = []
    for groups, pixels in zip(ds.PerFrameFunctionalGroupsSequence, iter_pixels(ds), strict=True):
        number = 0
        for place in (groups, ds.SharedFunctionalGroupsSequence[0]):
            if "SegmentIdentificationSequence" in place:
                number = place.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        position = [str(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient]
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        found.append((number, position, pixels, source))
    return found


def text_of(value: Any) -> list[str]:
    return [str(v) for v in value]


def series_of(tmp_path: Path, kind: str) -> Path:
    folder = tmp_path / kind
    row, column = np.array(OBLIQUE).reshape(2, 3)
    normal = np.cross(row, column)
    if kind == "oblique":
        places = [np.array([-10.5, 7.25, 3]) + 2.5 * k * normal for k in range(9)]
        tags = {"ImageOrientationPatient": OBLIQUE, "PixelSpacing": [0.75, 1.125]}
        write_series(folder, ct_pixels(9), places, **tags)
    elif kind == "tilted":
        write_series(folder, ct_pixels(9), [(0, 0.7 * k, 2.0 * k) for k in range(9)])
    elif kind == "descending":
        write_series(folder, ct_pixels(9), [(5, 6, -2.0 * k) for k in range(9)])
    elif kind == "uneven":
        depths = [0, 2, 4, 6.3, 8, 10, 12, 14, 16]
        write_series(folder, ct_pixels(9), [(0, 0, z) for z in depths])
    else:
        places = [(-3.5, 4.25, 2.5 * k) for k in range(9)]
        save(enhanced(ct_pixels(9), places, spacing=(0.75, 1.5)), folder / "one")
    return folder


@pytest.mark.parametrize("kind", ["oblique", "descending", "enhanced"])
@pytest.mark.parametrize("profile", ["binary", "labelmap"])
def test_every_voxel_and_every_digit_comes_back(tmp_path: Path, kind: str, profile: Any) -> None:
    found = only(series_of(tmp_path, kind))
    volume = read_volume(found)
    segmentation = segmented(volume)
    problems = write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY, profile)
    assert problems == ()
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    slices = volume.source.details["slices"]
    sources = [pydicom.dcmread(one["path"]) for one in slices]
    by_position = {}
    for place, (one, source) in enumerate(zip(slices, sources, strict=True)):
        stated = source
        if kind == "enhanced":
            groups = source.PerFrameFunctionalGroupsSequence[one["frame"]]
            stated = groups.PlanePositionSequence[0]
        by_position[tuple(text_of(stated.ImagePositionPatient))] = place
    back = np.zeros((len(slices), *segmentation.array.shape[1::-1]), int)
    for number, position, pixels, reference in frames_of(ds):
        place = by_position[tuple(position)]  # the very digits of the source
        back[place] = np.where(pixels > 0, number or pixels, back[place])
        assert reference.ReferencedSOPInstanceUID == sources[place].SOPInstanceUID
        assert reference.ReferencedSOPClassUID == sources[place].SOPClassUID
        frame = reference.get("ReferencedFrameNumber")
        assert frame == (slices[place]["frame"] + 1 if kind == "enhanced" else None)
    np.testing.assert_array_equal(back, segmentation.array.transpose(2, 1, 0))
    shared = ds.SharedFunctionalGroupsSequence[0]
    stated = sources[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    if kind == "enhanced":
        stated = sources[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    else:
        assert text_of(orientation) == text_of(stated.ImageOrientationPatient)
    measures = shared.PixelMeasuresSequence[0]
    assert text_of(measures.PixelSpacing) == text_of(stated.PixelSpacing)
    step = volume.spacing_mm[2]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(step, rel=1e-4)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "PatientID"):
        assert ds[keyword].value == sources[0][keyword].value
    assert ds.ReferencedSeriesSequence[0].SeriesInstanceUID == sources[0].SeriesInstanceUID
    if profile == "binary":
        structures = {name: (value,) for value, name in enumerate(NAMES, start=1)}
        ours = read_segmentation(tmp_path / "seg.dcm", found, structures)
        np.testing.assert_array_equal(ours.array[0], segmentation.array)
        np.testing.assert_allclose(ours.affine, segmentation.affine, atol=1e-9)


def test_highdicom_places_it_in_space_as_we_do(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "oblique")))
    segmentation = segmented(volume)
    write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY)
    theirs = hd.seg.segread(tmp_path / "seg.dcm").get_volume(combine_segments=True)
    points = np.argwhere(np.asarray(theirs.array) == 3)
    world = LPS_TO_RAS @ theirs.affine @ [*points[0], 1]
    (place,) = np.argwhere(segmentation.array == 3)
    np.testing.assert_allclose(world, segmentation.affine @ [*place, 1], atol=1e-3)
    assert int((np.asarray(theirs.array) == 1).sum()) == int((segmentation.array == 1).sum())


@pytest.mark.parametrize("kind", ["tilted", "uneven"])
def test_what_was_resampled_lies_on_the_slices_as_they_were_acquired(
    tmp_path: Path, kind: str
) -> None:
    found = only(series_of(tmp_path, kind))
    volume = read_volume(found, regrid=True)
    assert volume.source.details["resampled"]
    # a label that follows the anatomy: half of each axis in the patient
    grid = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), axis=-1)
    world = grid @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    inside = (world < [-7.3, -6.3, 9]).all(axis=-1)
    mask = Segmentation(
        inside.astype(np.uint8), volume.affine, make_labels(["liver"]), volume.source
    )
    write_segmentation(tmp_path / "seg.dcm", mask, MADE_BY)
    slices = volume.source.details["slices"]
    texts = {tuple(text_of(pydicom.dcmread(o["path"]).ImagePositionPatient)): o for o in slices}
    share, off = [], 0
    for _, position, pixels, _ in frames_of(pydicom.dcmread(tmp_path / "seg.dcm")):
        x, y, z = texts[tuple(position)]["position"]
        rows, columns = np.indices(pixels.shape)
        expected = (-(x + columns) < -7.3) & (-(y + rows) < -6.3) & (z < 9)
        share.append(pixels.any())
        off += int((expected != (pixels > 0)).sum())
    assert all(share)
    assert len(share) >= 4
    assert off <= 10 * len(share)  # half a voxel along an edge of ten


def test_regions_within_each_other_are_whole(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "oblique")))
    array = segmented(volume).array
    labels = (Label(1, "whole", (255, 0, 0), (1, 2)), Label(2, "core", (0, 255, 0)))
    regions = Segmentation(np.minimum(array, 2), volume.affine, labels, volume.source)
    write_segmentation(tmp_path / "seg.dcm", regions, MADE_BY)
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert ds.SegmentsOverlap == "YES"
    voxels = {1: 0, 2: 0}
    for number, _, pixels, _ in frames_of(ds):
        voxels[number] += int(pixels.sum())
    assert voxels == {1: int((array > 0).sum()), 2: int((array > 1).sum())}
    (problem, *_) = write_segmentation(tmp_path / "map.dcm", regions, MADE_BY, "labelmap")[::-1]
    assert problem.code == "overlapping-segments"


def test_labels_without_a_voxel_are_left_out_unless_there_are_no_others(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "oblique")))
    segmentation = segmented(volume, ["liver", "spleen", "aorta", "heart", "brain"])
    array = np.where(segmentation.array == 2, 0, segmentation.array)
    write_segmentation(tmp_path / "a.dcm", replace(segmentation, array=array), MADE_BY)
    ds = pydicom.dcmread(tmp_path / "a.dcm")
    assert [s.SegmentLabel for s in ds.SegmentSequence] == ["liver", "aorta", "heart", "brain"]
    assert [s.SegmentNumber for s in ds.SegmentSequence] == [1, 2, 3, 4]
    seen = dict.fromkeys(range(1, 5), 0)
    for number, _, pixels, _ in frames_of(ds):
        seen[number] += int(pixels.sum())
    assert list(seen.values()) == [int((array == value).sum()) for value in (1, 3, 4, 5)]
    empty = replace(segmentation, array=np.zeros_like(array))
    for profile in ("binary", "labelmap"):
        write_segmentation(tmp_path / "b.dcm", empty, MADE_BY, profile)  # type: ignore[arg-type]
        ds = pydicom.dcmread(tmp_path / "b.dcm")
        assert not any(pixels.any() for *_, pixels, _ in frames_of(ds))
        assert {"liver", "brain"} <= {s.SegmentLabel for s in ds.SegmentSequence}


def test_three_hundred_labels(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "descending")))
    array = (np.arange(np.prod(volume.shape)) % 301).reshape(volume.shape).astype(np.uint16)
    names = [f"part {number}" for number in range(1, 301)]
    segmentation = Segmentation(array, volume.affine, make_labels(names), volume.source)
    problems = write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY, "labelmap")
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert ds.BitsAllocated == 16
    stored = {tuple(position): pixels for _, position, pixels, _ in frames_of(ds)}
    planes = [stored[tuple(position)] for position in sorted(stored, key=lambda p: float(p[2]))]
    np.testing.assert_array_equal(np.stack(planes), array.transpose(2, 1, 0))
    assert [problem.code for problem in problems] == ["private-code"]
    assert "part 1, part 2" in problems[0].message
    assert "and 295 more" in problems[0].message


def test_a_segment_says_what_it_is_and_what_made_it(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "oblique")))
    segmentation = segmented(volume, [*NAMES, "made-up thing"])
    segmentation = replace(segmentation, array=segmented(volume, [*NAMES, "x"]).array)
    array = segmentation.array.copy()
    array[0, 0, :4] = (1, 2, 3, 4)
    write_segmentation(tmp_path / "seg.dcm", replace(segmentation, array=array), MADE_BY)
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    liver, kidney, tumour, other = ds.SegmentSequence
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "SCT"
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    private = other.SegmentedPropertyTypeCodeSequence[0]
    assert (private.CodingSchemeDesignator, private.CodeMeaning) == ("99MEDSEG", "made-up thing")
    assert ds.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99MEDSEG"
    made = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (made.AlgorithmName, made.AlgorithmVersion) == ("bundle", "1.2.3")
    assert "0123abcd" in made.AlgorithmParameters
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    assert (ds.Manufacturer, ds.Modality) == ("medseg", "SEG")
    assert {s.SegmentAlgorithmName for s in ds.SegmentSequence} == {"bundle"}


def test_a_picture_without_a_place_in_the_patient_has_one_frame_a_segment(tmp_path: Path) -> None:
    ds = header(
        Modality="CR", SOPClassUID="1.2.840.10008.5.1.4.1.1.1", FrameOfReferenceUID=None,
        ImagePositionPatient=None, ImageOrientationPatient=None, ImagerPixelSpacing=[0.2, 0.3],
    )  # fmt: skip
    set_pixels(ds, ct_pixels(1, 20, 30)[0])
    save(ds, tmp_path / "in" / "one")
    volume = read_volume(only(tmp_path / "in"))
    segmentation = segmented(volume)
    write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY)
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    back = np.zeros(segmentation.array.shape, int)
    for number, pixels in enumerate(iter_pixels(written), start=1):
        back[pixels > 0] = number
    np.testing.assert_array_equal(back, segmentation.array)


def test_missing_uids_are_made_up_and_said_and_the_same_every_time(tmp_path: Path) -> None:
    write_series(
        tmp_path / "in", ct_pixels(6), StudyInstanceUID="", SeriesInstanceUID="", SOPClassUID=""
    )
    volume = read_volume(only(tmp_path / "in"))
    made = []
    for name in ("a.dcm", "b.dcm"):
        (problem,) = write_segmentation(tmp_path / name, segmented(volume), MADE_BY)
        assert problem.code == "made-up-uid"
        ds = pydicom.dcmread(tmp_path / name)
        made.append((ds.StudyInstanceUID, ds.ReferencedSeriesSequence[0].SeriesInstanceUID))
        assert ds.SOPInstanceUID not in made
    assert made[0] == made[1]
    assert made[0][0] != made[0][1]


def test_what_is_no_dicom_is_refused(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 4, 4, 4), np.int16), np.eye(4))
    with pytest.raises(DicomError, match="must be DICOM files") as caught:
        write_segmentation(tmp_path / "seg.dcm", segmented(volume), MADE_BY)
    assert caught.value.code == "no-dicom-source"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
@pytest.mark.parametrize(
    "name",
    [
        "dicom_qa/ct_philips_gantry_tilt/In",
        "dicom_qa/mr_philips_classic/In",
        "dicom_qa/mr_philips_enhanced/In",
        "dicom_qa/mr_siemens_enhanced_4d/In",
        "dicom_qa/mr_siemens_mosaic_axial/In",
        "dicom_qa/mr_ge_epi_4d/In",
        "totalseg_example/example_ct_dicom",
    ],
)
def test_a_validator_finds_nothing_that_is_not_in_the_source(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    found = only(data_folder(first) / rest)
    volume = read_volume(found, frame=0 if found.frames > 1 else None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_segmentation(tmp_path / "seg.dcm", segmented(volume), MADE_BY)
    complaints, known = (
        set(_said(path)) for path in (tmp_path / "seg.dcm", volume.source.instances[0])
    )
    assert complaints - known - {"Segmentation"} == set()
    for _, position, _, _ in frames_of(pydicom.dcmread(tmp_path / "seg.dcm")):
        gaps = [
            np.linalg.norm(np.array(one["position"]) - np.array(position, float))
            for one in volume.source.details["slices"]
        ]
        assert min(gaps) < 1e-4


def _said(path: Path) -> list[str]:
    """Return what dciodvfy says of a file, but for values of codes that the source has chosen."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return [line for line in done.stderr.splitlines() if "<SECTRA>" not in line]


def test_a_form_of_before_1993_is_brought_up_to_date_and_nonsense_left_out(tmp_path: Path) -> None:
    tags = {"StudyDate": "1992.10.31", "StudyTime": "11:20:00", "PatientBirthDate": "unknown"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's on such values
        write_series(tmp_path / "in", ct_pixels(5), PatientSex="FEMALE", **tags)
        volume = read_volume(only(tmp_path / "in"))
    write_segmentation(tmp_path / "seg.dcm", segmented(volume), MADE_BY)
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (ds.StudyDate, ds.StudyTime) == ("19921031", "112000")
    assert not ds.PatientBirthDate
    assert not ds.PatientSex


def test_images_of_a_retired_class_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in", ct_pixels(5))
    volume = read_volume(only(tmp_path / "in"))
    for path in (tmp_path / "in").iterdir():
        ds = pydicom.dcmread(path)
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.5"  # nuclear medicine, retired
        ds.save_as(path)
    with pytest.raises(DicomError, match="today's DICOM") as caught:
        write_segmentation(tmp_path / "seg.dcm", segmented(volume), MADE_BY)
    assert caught.value.code == "retired-class"


def test_the_code_that_a_bundle_states_is_written(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "oblique")))
    spleen = Concept("78961009", "SCT", "Spleen")
    segmentation = replace(
        segmented(volume, ["Milz"]), labels=(Label(1, "Milz", (9, 8, 7), code=spleen),)
    )
    assert write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY) == ()
    (segment,) = hd.seg.segread(tmp_path / "seg.dcm").SegmentSequence
    kind = segment.segmented_property_type
    assert (kind.value, kind.scheme_designator, kind.meaning) == tuple(spleen)
