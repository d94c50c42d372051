"""Structure sets, filled again by a reader of the tests' own, by plastimatch, and validated."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # its own convention
from scipy import ndimage

from medseg.errors import DicomError
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.contours import outlines
from medseg.io.dicom.read import read_volume
from medseg.io.dicom.rtstruct import write_rtstruct
from medseg.volume import Label, Segmentation, Volume, make_labels
from tests.io.dicom.synthetic import ct_pixels, header, save, set_pixels, write_series
from tests.io.dicom.test_seg_write import only, series_of
from tests.real_data import data_folder

MADE_BY = Algorithm("bundle", "1.2.3", {"weights_sha256": "0123abcd"})
NAMES = ["liver", "kidney_left", "tumour"]


def filled(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the pixels whose centres lie inside, by counting edges to their left."""
    edges = np.zeros((shape[0], shape[1] + 1), int)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high = min(r0, r1), max(r0, r1)
        rows = np.arange(int(np.floor(low)) + 1, int(np.floor(high)) + 1)  # low < row <= high
        columns = c0 + (rows - r0) * (c1 - c0) / (r1 - r0) if rows.size else rows
        np.add.at(edges, (rows, np.ceil(columns).astype(int).clip(0, shape[1])), 1)
    return edges.cumsum(axis=1)[:, :-1] % 2 == 1


def blobs(shape: tuple[int, ...], labels: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth labels with holes, islands in them, and one pixel alone."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    array = np.digitize(noise, np.quantile(noise, np.linspace(0.4, 0.9, labels))).astype(np.uint8)
    array[:3, :3] = 0
    array[1, 1] = 1
    return array


@pytest.mark.parametrize("seed", range(8))
def test_an_outline_holds_the_centres_of_the_very_pixels(seed: int) -> None:
    mask = blobs((50, 60), seed=seed) > 0
    again = np.zeros(mask.shape, int)
    parts, holes = 0, 0
    for points in outlines(mask):
        assert len(points) >= 4
        again += filled(points, mask.shape)
        parts += 1
        holes += len(points) - len(np.unique(points, axis=0)) > 0
    assert np.array_equal(again > 0, mask)
    assert again.max() == 1  # no part lies on another
    assert parts == ndimage.label(mask)[1]
    assert holes  # there were slits


@pytest.mark.parametrize(
    "mask", [np.zeros((4, 5), bool), np.ones((1, 1), bool), np.ones((3, 7), bool)]
)
def test_outlines_of_nothing_and_of_everything(mask: np.ndarray) -> None:
    found = list(outlines(mask > 0))
    assert len(found) == int(mask.any())
    for points in found:
        assert np.array_equal(filled(points, mask.shape), mask > 0)


def read_back(path: Path, volume: Volume) -> np.ndarray:
    """Return a mask from the numbers of a structure set; (labels, slices, rows, columns)."""
    ds = pydicom.dcmread(path)
    slices = volume.source.details["slices"]
    along, down = np.array(slices[0]["orientation"]).reshape(2, 3)
    between_rows, between_columns = slices[0]["spacing"]
    shape = (slices[0]["rows"], slices[0]["columns"])
    result = np.zeros((len(ds.ROIContourSequence), len(slices), *shape), bool)
    place_of = {(one["sop_instance_uid"], one["frame"]): place for place, one in enumerate(slices)}
    for region, mask in zip(ds.ROIContourSequence, result, strict=True):
        for contour in region.get("ContourSequence", []):
            image = contour.ContourImageSequence[0]
            frame = image.get("ReferencedFrameNumber", 1) - 1
            place = place_of[image.ReferencedSOPInstanceUID, frame]
            world = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(world) == contour.NumberOfContourPoints >= 3
            offsets = world - slices[place]["position"]
            assert np.abs(offsets @ np.cross(along, down)).max() < 1e-3
            points = np.stack([offsets @ down / between_rows, offsets @ along / between_columns])
            mask[place] ^= filled(np.round(points.T * 2) / 2, shape)
    return result


@pytest.mark.parametrize("kind", ["oblique", "descending", "enhanced"])
def test_every_voxel_comes_back(tmp_path: Path, kind: str) -> None:
    volume = read_volume(only(series_of(tmp_path, kind)))
    segmentation = Segmentation(
        blobs(volume.shape), volume.affine, make_labels(NAMES), volume.source
    )
    problems = write_rtstruct(tmp_path / "rt.dcm", segmentation, MADE_BY)
    assert [p.code for p in problems] == (["oblique-contours"] if kind == "oblique" else [])
    back = read_back(tmp_path / "rt.dcm", volume)
    for value, mask in enumerate(back, start=1):
        assert np.array_equal(mask, (segmentation.array == value).transpose(2, 1, 0))
    ds = pydicom.dcmread(tmp_path / "rt.dcm")
    assert [region.ROIName for region in ds.StructureSetROISequence] == NAMES
    colours = [list(map(int, region.ROIDisplayColor)) for region in ds.ROIContourSequence]
    assert colours == [list(label.color) for label in segmentation.labels]
    observed = ds.RTROIObservationsSequence
    assert [one.RTROIInterpretedType for one in observed] == ["ORGAN", "ORGAN", ""]
    assert observed[0].RTROIIdentificationCodeSequence[0].CodeValue == "10200004"
    source = pydicom.dcmread(volume.source.instances[0])
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID"):
        assert ds[keyword].value == source[keyword].value
    study = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert len(series.ContourImageSequence) == volume.shape[2]
    assert "0123abcd" in ds.StructureSetDescription


def test_nested_regions_are_whole_and_empty_labels_have_no_outline(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "descending")))
    array = np.minimum(blobs(volume.shape), 2)
    labels = (
        Label(1, "whole", (255, 0, 0), (1, 2)),
        Label(2, "core", (0, 255, 0)),
        Label(3, "nothing", (0, 0, 255)),
    )
    write_rtstruct(
        tmp_path / "rt.dcm", Segmentation(array, volume.affine, labels, volume.source), MADE_BY
    )
    whole, core, nothing = read_back(tmp_path / "rt.dcm", volume)
    assert np.array_equal(whole, (array > 0).transpose(2, 1, 0))
    assert np.array_equal(core, (array > 1).transpose(2, 1, 0))
    assert not nothing.any()


def test_an_outline_of_more_than_64_kb_is_read(tmp_path: Path) -> None:
    """Decimal strings with an explicit length end there; some readers see nothing then."""
    write_series(tmp_path / "in", ct_pixels(3, 200, 200))
    volume = read_volume(only(tmp_path / "in"))
    array = np.zeros(volume.shape, np.uint8)
    array[::2] = 1
    array[:, ::50] = 1
    segmentation = Segmentation(array, volume.affine, make_labels(["liver"]), volume.source)
    write_rtstruct(tmp_path / "rt.dcm", segmentation, MADE_BY)
    contour = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence[0]
    element = contour["ContourData"]
    assert element.VR == "DS"
    assert len("\\".join(map(str, element.value))) > 1 << 16
    (back,) = read_back(tmp_path / "rt.dcm", volume)
    assert np.array_equal(back, (array > 0).transpose(2, 1, 0))


def test_a_picture_is_refused(tmp_path: Path) -> None:
    ds = header(
        Modality="CR", SOPClassUID="1.2.840.10008.5.1.4.1.1.1", FrameOfReferenceUID=None,
        ImagePositionPatient=None, ImageOrientationPatient=None,
    )  # fmt: skip
    set_pixels(ds, ct_pixels(1, 20, 30)[0])
    save(ds, tmp_path / "in" / "one")
    volume = read_volume(only(tmp_path / "in"))
    array = np.ones(volume.shape, np.uint8)
    segmentation = Segmentation(array, volume.affine, make_labels(["x"]), volume.source)
    with pytest.raises(DicomError) as caught:
        write_rtstruct(tmp_path / "rt.dcm", segmentation, MADE_BY)
    assert caught.value.code == "no-geometry"


REAL = [
    "dicom/Study3/11-T1post-18670", "dicom_qa/mr_philips_classic/In",
    "dicom_qa/ct_philips_gantry_tilt/In",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
@pytest.mark.parametrize("name", REAL[:2])
def test_another_program_fills_the_very_mask(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    volume = read_volume(only(data_folder(first) / rest))
    smooth = ndimage.gaussian_filter(volume.array[0].astype(np.float32), 2)
    array = np.digitize(smooth, np.quantile(smooth, [0.5, 0.8, 0.95])).astype(np.uint8)
    labels = make_labels(["one", "two", "three"])
    segmentation = Segmentation(array, volume.affine, labels, volume.source)
    write_rtstruct(tmp_path / "rt.dcm", segmentation, MADE_BY)
    (tmp_path / "in").mkdir()
    for number, file in enumerate(volume.source.instances):
        (tmp_path / "in" / f"{number}.dcm").symlink_to(file)
    subprocess.run(
        [
            "plastimatch", "convert", "--input", tmp_path / "rt.dcm", "--referenced-ct",
            tmp_path / "in", "--output-prefix", tmp_path / "out", "--prefix-format", "nrrd",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    for label in labels:
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"out/{label.name}.nrrd")))
        ours = (array == label.index).transpose(2, 1, 0)
        assert theirs.shape == ours.shape
        # it lays slices out in an order of its own
        best = max(int(((t > 0) & ours).sum()) for t in (theirs, theirs[::-1]))
        assert 2 * best / ((theirs > 0).sum() + ours.sum()) > 0.999


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
@pytest.mark.parametrize("name", [*REAL, "dicom_qa/mr_philips_enhanced/In"])
def test_a_validator_finds_nothing_that_is_not_in_the_source(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    volume = read_volume(only(data_folder(first) / rest))
    array = np.zeros(volume.shape, np.uint8)
    array[5:30, 10:40, 1:-1] = 1
    array[10:20, 15:30, 2:-2] = 0
    array[12:15, 18:22, 2:-2] = 2
    labels = make_labels(NAMES)
    write_rtstruct(
        tmp_path / "rt.dcm", Segmentation(array, volume.affine, labels, volume.source), MADE_BY
    )
    said = [
        set(
            subprocess.run(
                ["dciodvfy", str(path)], capture_output=True, text=True, check=False
            ).stderr.splitlines()
        )
        for path in (tmp_path / "rt.dcm", volume.source.instances[0])
    ]
    assert said[0] - said[1] == {"RTStructureSet"}
