"""Objects written: COCO JSON, maps of numbers, tables; of pictures and of volumes."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from medseg.io.nifti import read_nifti
from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.volume import Segmentation, Source, Volume, make_labels
from medseg.workflows import results
from medseg.workflows.object_outputs import object_summary
from medseg.workflows.segment_cases import _keep
from tests.inference.test_object_tiles import discs

LABELS = make_labels(["disc", "square"])
CONTEXT = {
    "bundle": {"name": "x", "version": "1", "weights_sha256": None},
    "settings": {}, "input_sha256": "", "input": "a.png", "warnings": [], "seconds": {},
    "inference": {},
}  # fmt: skip


def picture(has_spacing: bool = True) -> tuple[Volume, ObjectSegmentation]:
    """Discs, the second of another class, and 0.5 by 0.25 mm a pixel."""
    numbers = discs((60, 80), 4, 0, (4, 9))
    objects = ObjectInstances.of_label_map(numbers, np.where(numbers == 2, 2, 1))
    affine = np.diag([0.5, 0.25, 1.0])
    source = Source(format="raster", has_spacing=has_spacing)
    found = ObjectSegmentation(
        objects.painted(objects.classes).astype(np.uint8), affine, LABELS, source,
        slices=(objects,), numbers=(np.arange(1, 5, dtype=np.int32),),
    )  # fmt: skip
    return Volume(numbers[None].astype(np.uint8), affine, source), found


def volume() -> tuple[Volume, ObjectSegmentation]:
    """Two slices of the discs of `picture`, the first disc missing in the second."""
    _, flat = picture()
    [objects] = flat.slices
    less = objects.chosen([1, 2, 3])
    slices = (objects, less)
    numbers = (np.array([1, 2, 3, 4], np.int32), np.array([2, 3, 4], np.int32))
    array = np.stack([o.painted(o.classes).T for o in slices], axis=-1).astype(np.uint8)
    affine = np.diag([0.25, 0.5, 3.0, 1.0])
    found = ObjectSegmentation(array, affine, LABELS, slices=slices, numbers=numbers)
    return Volume(array[None], affine), found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_picture_gets_a_map_of_numbers_a_table_and_a_coco_file(tmp_path: Path) -> None:
    image, found = picture()
    named = replace(found, source=replace(found.source, path=Path("PATIENT/a.tif")))
    written = results.write(tmp_path / "a", image, named, ("overlay",), CONTEXT)
    assert written["objects"] == {"count": 4, "classes": {"disc": 3, "square": 1}}
    numbers = np.asarray(Image.open(written["outputs"]["instances"]))
    assert numbers.dtype == np.uint16
    assert np.array_equal(numbers, found.instance_map())
    table = rows(tmp_path / "a" / "objects.csv")
    for row in table:
        pixels = int((numbers == int(row["object"])).sum())
        assert int(row["pixels"]) == pixels
        assert float(row["area_mm2"]) == pytest.approx(pixels * 0.125, rel=1e-5)
        assert float(row["area_um2"]) == pytest.approx(pixels * 125000, rel=1e-5)
        where = np.argwhere(numbers == int(row["object"]))
        assert [int(row["row"]), int(row["column"])] == where.min(axis=0).tolist()
        assert int(row["height"]) == np.ptp(where[:, 0]) + 1
    assert [row["class"] for row in table] == ["disc", "square", "disc", "disc"]
    coco = COCO(tmp_path / "a" / "objects.json")
    assert {c["name"] for c in coco.cats.values()} == {"disc", "square"}
    assert [one["file_name"] for one in coco.imgs.values()] == ["a.tif"]
    areas = sorted(one["area"] for one in coco.anns.values())
    assert areas == sorted(int(row["pixels"]) for row in table)
    again = results.complete(tmp_path / "a", ("overlay",), {"settings": {}})
    assert again is not None
    assert again["objects"]["count"] == 4


def test_without_a_pixel_size_there_are_no_areas_but_pixels(tmp_path: Path) -> None:
    image, found = picture(has_spacing=False)
    results.write(tmp_path / "a", image, found, (), CONTEXT)
    assert "area_mm2" not in rows(tmp_path / "a" / "objects.csv")[0]


def test_a_volume_gets_a_nifti_map_on_its_grid(tmp_path: Path) -> None:
    image, found = volume()
    written = results.write(tmp_path / "v", image, found, (), CONTEXT)
    numbers = nib.load(written["outputs"]["instances"])
    assert np.array_equal(np.asarray(numbers.dataobj), found.instance_map())
    assert np.allclose(numbers.affine, image.affine)
    assert read_nifti(tmp_path / "v" / "instances.nii.gz").shape == image.shape
    first, second, *_ = rows(tmp_path / "v" / "objects.csv")
    assert (first["first_slice"], first["last_slice"]) == ("0", "0")
    assert (second["first_slice"], second["last_slice"]) == ("0", "1")
    voxels = int((found.instance_map() == 2).sum())
    assert int(second["voxels"]) == voxels
    assert float(second["volume_mm3"]) == pytest.approx(voxels * 0.375, rel=1e-5)
    document = json.loads((tmp_path / "v" / "objects.json").read_text())
    assert [one["file_name"] for one in document["images"]] == ["v_slice_0000", "v_slice_0001"]


def test_classes_that_were_not_asked_for_are_left_out_everywhere(tmp_path: Path) -> None:
    for image, found in (picture(), volume()):
        kept = _keep(found, ("square",))
        assert isinstance(kept, ObjectSegmentation)
        assert object_summary(kept) == {"count": 1, "classes": {"square": 1}}
        assert set(np.unique(kept.instance_map())) == {0, 1}
        assert np.array_equal(kept.instance_map() > 0, kept.array > 0)
        results.write(tmp_path / str(kept.array.ndim), image, kept, (), CONTEXT)


def test_an_image_without_objects_has_files_too(tmp_path: Path) -> None:
    none = ObjectInstances((6, 9))
    found = ObjectSegmentation(
        np.zeros((6, 9), np.uint8), np.eye(3), LABELS,
        slices=(none,), numbers=(np.zeros(0, np.int32),),
    )  # fmt: skip
    image = Volume(np.zeros((1, 6, 9), np.uint8), np.eye(3))
    written = results.write(tmp_path / "a", image, found, (), CONTEXT)
    assert written["objects"]["count"] == 0
    assert not np.asarray(Image.open(written["outputs"]["instances"])).any()
    assert rows(tmp_path / "a" / "objects.csv") == []


@pytest.mark.parametrize("case", [picture, volume])
def test_labels_of_any_bundle_can_be_written_as_coco(tmp_path: Path, case: Callable) -> None:
    """One annotation a label and slice: pieces are not taken for objects."""
    image, found = case()
    labels = Segmentation(found.array, found.affine, found.labels, found.source)
    written = results.write(tmp_path / "out", image, labels, ("coco",), CONTEXT)
    assert written["outputs"]["coco"] == str(tmp_path / "out" / "coco.json")
    read = COCO(tmp_path / "out" / "coco.json")
    planes = [found.array] if found.array.ndim == 2 else [p.T for p in found.array.T.swapaxes(1, 2)]
    assert len(read.imgs) == len(planes)
    for number, plane in enumerate(planes, start=1):
        annotations = read.loadAnns(read.getAnnIds(number))
        assert {a["category_id"] for a in annotations} == set(np.unique(plane)) - {0}
        for annotation in annotations:
            wanted = plane == annotation["category_id"]
            np.testing.assert_array_equal(read.annToMask(annotation), wanted)
