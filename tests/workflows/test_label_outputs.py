"""Outputs in which each label stands for itself: written, resumed, refused, never lost."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medseg.classical import Slic
from medseg.errors import OutputError, UsageError
from medseg.objects import ObjectSegmentation
from medseg.volume import Segmentation, Volume, make_labels
from medseg.workflows import results
from medseg.workflows.classical import ClassicalOptions, classical
from medseg.workflows.segment import SegmentOptions, segment
from tests.phantoms import write_nifti
from tests.picture_bundle import write_picture_bundle
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_object_outputs import CONTEXT, volume
from tests.workflows.test_segment import LISTS, blobs, expected_mask, files_in

ALL = ("nifti", "nrrd", "nifti-per-label", "mesh")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


def run(bundle: Path, output: Path, *inputs: Path, **options):
    return segment(SegmentOptions(inputs, str(bundle), output, **{"outputs": ALL, **options}))


def test_all_of_them_agree_with_the_mask(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz", code=3)
    [case] = run(bundle, tmp_path / "out", source).cases
    folder = tmp_path / "out" / "a"
    assert case["outputs"] == {
        "nifti": str(folder / "segmentation.nii.gz"),
        "labels": str(folder / "labels.json"),
        "nrrd": str(folder / "segmentation.seg.nrrd"),
        "nifti-per-label": str(folder / "labels"),
        "mesh": str(folder / "meshes"),
    }
    mask = expected_mask(blobs())
    labels = {label["name"]: label["index"] for label in case["labels"]}
    for name, index in labels.items():
        image = nib.load(folder / "labels" / f"{name}.nii.gz")
        assert np.array_equal(np.asarray(image.dataobj), mask == index)
        assert int(image.header["sform_code"]) == 3
        assert (folder / "meshes" / f"{name}.stl").is_file() == (mask == index).any()
    read = sitk.ReadImage(str(folder / "segmentation.seg.nrrd"))
    assert np.array_equal(sitk.GetArrayFromImage(read).T, mask)


def test_they_are_results_that_resume_keeps_and_overwrite_replaces(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    out = tmp_path / "out"
    first = run(bundle, out, source).cases[0]
    resumed = run(bundle, out, source, resume=True).cases[0]
    assert resumed["status"] == "skipped"
    assert resumed["outputs"] == first["outputs"]
    assert run(bundle, out, source, overwrite=True).cases[0]["status"] == "done"
    assert run(bundle, out, source, overwrite=True, outputs=("nifti",)).exit_code == 0
    assert not (out / "a" / "labels").exists()
    assert not (out / "a" / "meshes").exists()
    assert run(bundle, out, source, resume=True).cases[0]["status"] == "done"


@pytest.mark.parametrize("missing", ["labels", "meshes"])
def test_resume_does_again_what_lacks_a_file(tmp_path, bundle, missing) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    run(bundle, tmp_path / "out", source)
    folder = tmp_path / "out" / "a" / missing
    lost = sorted(folder.iterdir())[0]
    lost.unlink()
    assert run(bundle, tmp_path / "out", source, resume=True).cases[0]["status"] == "done"
    assert lost.is_file()
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert run(bundle, tmp_path / "out", source, resume=True).cases[0]["status"] == "done"
    assert lost.is_file()


@pytest.mark.parametrize("name", ["labels/mine.nii.gz", "meshes/mine.stl", "meshes/sub/x.stl"])
def test_a_file_put_among_them_by_hand_is_never_lost(tmp_path, bundle, name) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    out = tmp_path / "out"
    run(bundle, out, source)
    (out / "a" / "labels" / ".DS_Store").touch()
    assert run(bundle, out, source, overwrite=True).exit_code == 0
    mine = out / "a" / name
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("work")
    [case] = run(bundle, out, source, overwrite=True).cases
    assert case["error"]["code"] == "output-exists"
    assert mine.parent.name in case["error"]["message"]
    assert mine.read_text() == "work"


def test_a_folder_of_the_same_name_without_a_record_is_the_users(tmp_path) -> None:
    (tmp_path / "a" / "meshes").mkdir(parents=True)
    (tmp_path / "a" / "meshes" / "organ.stl").touch()
    for record in (None, "[]", json.dumps({"folders": ["meshes"]}), "{"):
        if record is not None:
            (tmp_path / "a" / results.RECORD).write_text(record)
        with pytest.raises(OutputError, match="organ"):
            results.refuse_foreign(tmp_path / "a")


def test_an_empty_mask_is_complete_too(tmp_path) -> None:
    labels = make_labels(["a", "b"])
    empty = Segmentation(np.zeros((4, 5, 6), np.uint8), np.eye(4), labels)
    image = Volume(np.zeros((1, 4, 5, 6), np.int16), np.eye(4))
    results.write(tmp_path / "a", image, empty, ALL, CONTEXT)
    assert sorted(f.name for f in (tmp_path / "a" / "labels").iterdir()) == [
        "a.nii.gz", "b.nii.gz",
    ]  # fmt: skip
    assert list((tmp_path / "a" / "meshes").iterdir()) == []
    assert results.complete(tmp_path / "a", ALL, {"settings": {}}) is not None


def test_of_objects_they_hold_the_classes(tmp_path) -> None:
    image, found = volume()
    assert isinstance(found, ObjectSegmentation)
    written = results.write(tmp_path / "v", image, found, ALL, CONTEXT)["outputs"]
    read = sitk.ReadImage(written["nrrd"])
    assert np.array_equal(sitk.GetArrayFromImage(read).T, found.array)
    meshes = sorted(file.name for file in Path(written["mesh"]).iterdir())
    assert meshes == ["disc.stl", "square.stl"]
    assert (tmp_path / "v" / "instances.nii.gz").is_file()


def test_a_disk_that_fails_midway_leaves_nothing_of_the_case(tmp_path, bundle, monkeypatch) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")

    def fail(*args, **kwargs) -> None:  # noqa: ARG001
        raise OutputError("no space", code="disk-full")

    monkeypatch.setattr("medseg.io.meshes.write_meshes", fail)
    [case] = run(bundle, tmp_path / "out", source).cases
    assert case["error"]["code"] == "disk-full"
    assert files_in(tmp_path / "out") == LISTS


@pytest.mark.parametrize("kind", ["nrrd", "mesh"])
def test_a_bundle_of_pictures_refuses_what_only_volumes_have(tmp_path, kind) -> None:
    write_picture_bundle(tmp_path / "streets")
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=f"2D images for streets, got {kind}, which only 3D"):
        run(tmp_path / "streets", tmp_path / "out", tmp_path / "a.png", outputs=("png", kind))


@pytest.mark.parametrize("kind", ["nrrd", "mesh"])
def test_a_picture_refuses_what_only_volumes_have_before_the_work(tmp_path, kind) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.png")

    def work(*args) -> None:  # noqa: ARG001
        pytest.fail("the method was run")

    method = type("Never", (Slic,), {"__call__": work})()
    [case] = classical(
        ClassicalOptions((tmp_path / "a.png",), tmp_path / "out", method, outputs=(kind,))
    ).cases
    assert case["error"]["code"] == "wrong-dimensions"
    assert f"30x40, got {kind}, which only 3D volumes have" in case["error"]["message"]


def test_numbered_regions_of_a_volume_are_written_too(tmp_path) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    options = ClassicalOptions(
        (source,), tmp_path / "out", Slic(count=30), outputs=ALL, resume=True
    )
    [case] = classical(options).cases
    assert case["error"] is None
    found = np.asarray(nib.load(case["outputs"]["nifti"]).dataobj)
    regions = len(np.unique(found[found > 0]))
    for kind in ("nifti-per-label", "mesh"):
        assert len(list(Path(case["outputs"][kind]).iterdir())) == regions
    assert classical(options).cases[0]["status"] == "skipped"


def test_format_and_smoothing_of_surfaces_are_chosen_and_part_of_what_resume_compares(
    tmp_path, bundle
) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz", code=3)
    folder = tmp_path / "out" / "a" / "meshes"
    chosen = {"mesh_format": "obj", "resume": True}
    written = []
    for smoothing in (0, 9):
        [case] = run(bundle, tmp_path / "out", source, mesh_smoothing=smoothing, **chosen).cases
        assert case["status"] == "done"
        assert sorted(path.name for path in folder.iterdir()) == ["organ.obj", "tumour.obj"]
        written.append((folder / "organ.obj").read_text())
    assert written[0] != written[1]
    [case] = run(bundle, tmp_path / "out", source, mesh_smoothing=9, **chosen).cases
    assert case["status"] == "skipped"
    for wrong in ({"mesh_format": "vtk"}, {"mesh_smoothing": -1}):
        with pytest.raises(UsageError, match="mesh_"):
            run(bundle, tmp_path / "other", source, **wrong)


def test_numbers_are_a_report_without_its_page(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    for kind in ("report", "numbers"):
        run(bundle, tmp_path / kind, source, outputs=(kind,))
    names = [{f.name for f in (tmp_path / kind / "a").iterdir()} for kind in ("report", "numbers")]
    assert names[0] - names[1] == {"report.html"}
    assert {"report.json", "labels.csv"} <= names[1] <= names[0]
