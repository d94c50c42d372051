"""A NIfTI mask of each label, read back by nibabel and SimpleITK."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import OutputError
from medseg.io.label_niftis import write_label_niftis
from medseg.io.nifti import read_nifti, write_nifti_mask
from medseg.volume import Label, Segmentation, make_labels
from tests.phantoms import numbered, oblique_affine, oriented_affine, write_nifti

SHAPE = (13, 9, 7)


def noise(affine=None, *, order: str = "F", count: int = 4, dtype=np.uint8) -> Segmentation:
    rng = np.random.default_rng(0)
    values = rng.integers(0, count + 1, SHAPE).astype(dtype)
    names = ["left/right lung", "été", "twice", "twice", *map(str, range(5, count + 2))]
    grid = oblique_affine() if affine is None else affine
    return Segmentation(np.asarray(values, order=order), grid, make_labels(names))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL"])
def test_each_label_is_a_mask_on_the_grid(tmp_path: Path, codes: str, order: str) -> None:
    segmentation = noise(oblique_affine(codes), order=order)
    paths = write_label_niftis(segmentation, tmp_path / "labels")
    names = ["left_right_lung", "été", "twice_3", "twice_4", "5"]
    assert [path.name for path in paths] == [f"{name}.nii.gz" for name in names]
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == sorted(
        path.name for path in paths
    )
    for label, path in zip(segmentation.labels, paths, strict=True):
        image = nib.load(path)
        assert image.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(image.dataobj), segmentation.array == label.index)
        assert np.allclose(image.affine, segmentation.affine, rtol=0, atol=1e-5)
        read = sitk.ReadImage(str(path))
        assert np.array_equal(sitk.GetArrayFromImage(read).T, segmentation.array == label.index)
    assert not np.asarray(nib.load(paths[-1]).dataobj).any()  # of the fifth there is no voxel


@pytest.mark.parametrize("flat", [False, True])
def test_the_header_is_that_of_the_mask_of_all(tmp_path: Path, flat: bool) -> None:
    """Byte for byte: forms, codes, units, and the axes of the file that was segmented."""
    if flat:
        image = nib.Nifti1Image(np.zeros((9, 7), np.int16), oriented_affine("LPS"))
        image.set_sform(image.affine, 4)
        nib.save(image, tmp_path / "a.nii.gz")
    else:
        write_nifti(numbered(SHAPE, oblique_affine("PIR")), tmp_path / "a.nii.gz", code=3)
    volume = read_nifti(tmp_path / "a.nii.gz")
    array = (volume.array[0] % 3 == 0).astype(np.uint8)
    segmentation = Segmentation(array, volume.affine, make_labels(["a", "b"]), volume.source)
    write_nifti_mask(segmentation, tmp_path / "all.nii.gz")
    paths = write_label_niftis(segmentation, tmp_path / "labels")
    whole = nib.load(tmp_path / "all.nii.gz").header.binaryblock
    assert [nib.load(path).header.binaryblock for path in paths] == [whole, whole]
    assert np.array_equal(
        np.asarray(nib.load(paths[0]).dataobj),
        np.asarray(nib.load(tmp_path / "all.nii.gz").dataobj),
    )


def test_of_labels_above_255_the_masks_are_still_of_8_bits(tmp_path: Path) -> None:
    array = np.zeros((30, 20, 4), np.uint16)
    array.reshape(-1)[:300] = np.arange(1, 301)
    names = [f"n{n}" for n in range(1, 301)]
    segmentation = Segmentation(array, oblique_affine(), make_labels(names))
    paths = write_label_niftis(segmentation, tmp_path)
    assert len(set(paths)) == 300
    for number, path in enumerate(paths, start=1):
        image = nib.load(path)
        assert image.get_data_dtype() == np.uint8
        assert np.array_equal(np.asarray(image.dataobj), array == number)


def test_a_region_that_others_lie_within_is_whole(tmp_path: Path) -> None:
    array = noise(count=3).array
    labels = (Label(1, "whole", (1, 1, 1), (1, 2)), Label(2, "core", (2, 2, 2)))
    whole, core = write_label_niftis(Segmentation(array, np.eye(4), labels), tmp_path)
    assert np.array_equal(np.asarray(nib.load(whole).dataobj), np.isin(array, (1, 2)))
    assert np.array_equal(np.asarray(nib.load(core).dataobj), array == 2)


def test_the_masks_of_a_picture_lie_as_its_own_mask_does(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 3, (6, 9)).astype(np.uint8)
    segmentation = Segmentation(array, np.diag([0.5, 0.25, 1]), make_labels(["a", "b"]))
    write_nifti_mask(segmentation, tmp_path / "all.nii.gz")
    whole = nib.load(tmp_path / "all.nii.gz")
    for number, path in enumerate(write_label_niftis(segmentation, tmp_path / "l"), start=1):
        image = nib.load(path)
        assert np.array_equal(np.asarray(image.dataobj), np.asarray(whole.dataobj) == number)
        assert np.array_equal(image.affine, whole.affine)


def test_an_empty_mask_gives_empty_masks_and_no_label_none(tmp_path: Path) -> None:
    empty = Segmentation(np.zeros((300, 400, 20), np.uint8), np.eye(4), make_labels(["a"]))
    [path] = write_label_niftis(empty, tmp_path / "a")
    image = nib.load(path)
    assert image.shape == (300, 400, 20)
    assert not np.asarray(image.dataobj).any()
    assert write_label_niftis(Segmentation(empty.array, np.eye(4), ()), tmp_path / "b") == []
    assert list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_full_disk_stops_all_threads_and_leaves_no_part(tiny_disk: Path, threads: int) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 9, (100, 100, 100)).astype(np.uint8)
    segmentation = Segmentation(array, np.eye(4), make_labels(list("abcdefgh")))
    with pytest.raises(OutputError, match="space for") as caught:
        write_label_niftis(segmentation, tiny_disk / "labels", threads=threads)
    assert caught.value.code == "disk-full"
    assert list((tiny_disk / "labels").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "labels").touch()
    with pytest.raises(OutputError):
        write_label_niftis(noise(), tmp_path / "labels")
