"""NIfTI against nibabel and SimpleITK: values, grids, headers, refusals."""

import gzip as zlib_gzip
import itertools
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from medseg.errors import GeometryError, InputError, OutputError, UsageError
from medseg.geometry import apply_affine, orthonormal_error
from medseg.io.nifti import read_nifti, read_nifti_info, write_nifti_image, write_nifti_mask
from medseg.volume import Segmentation, Source, Volume, make_labels
from tests.real_data import data_folder

LABELS = make_labels(["organ", "tumour"])
ORIENTATIONS = [
    "".join(pair[flip] for pair, flip in zip(order, flips, strict=True))
    for order in itertools.permutations(("LR", "PA", "IS"))
    for flips in itertools.product((0, 1), repeat=3)
]  # all 48


def _rotation(degrees: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        turn = np.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _affine(codes: str = "RAS", spacing=(0.7, 1.3, 2.9), degrees=(0, 0, 0)) -> Any:
    ornt = nib.orientations.axcodes2ornt(codes)
    matrix = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(ornt):
        matrix[int(world), axis] = sign
    affine = np.eye(4)
    affine[:3, :3] = _rotation(degrees) @ matrix * spacing
    affine[:3, 3] = (-31.5, 12.25, 101.0)
    return affine


def _patch(path: Path, offset: int, layout: str, *values: Any) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(content)


def _save(
    path: Path, array: Any, affine: Any, sform_code: int = 1, qform_code: int = 1
) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    image.set_sform(affine, sform_code)
    image.set_qform(affine, qform_code)
    nib.save(image, path)
    return nib.load(path)


def _mask_of(volume: Volume, dtype: Any = np.uint8) -> Segmentation:
    array = np.random.default_rng(3).integers(0, 3, volume.shape).astype(dtype)
    return Segmentation(array, volume.affine, LABELS, volume.source)


def _codes(volume: Volume) -> list[str]:
    return [problem.code for problem in volume.source.problems]


@pytest.fixture
def array() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-1000, 3000, (7, 9, 5)).astype(np.int16)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_reads_as_nibabel_reads_it_and_masks_repeat_it(
    tmp_path: Path, array: Any, codes: str
) -> None:
    affine = _affine(codes, degrees=(4, -7, 11))
    reference = _save(tmp_path / "a.nii.gz", array, affine)
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.array[0], np.asarray(reference.dataobj))
    assert np.allclose(volume.affine, reference.affine, atol=1e-5)
    assert volume.orientation == codes
    assert _codes(volume) == []
    mask = _mask_of(volume)
    write_nifti_mask(mask, tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), mask.array)
    assert np.array_equal(written.affine, reference.affine)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_mask_of_no_nifti_source_lies_where_simpleitk_and_nibabel_look(
    tmp_path: Path, codes: str
) -> None:
    affine = _affine(codes, degrees=(10, 20, -15))
    mask = np.zeros((6, 7, 8), np.uint8)
    mask[1, 5, 2] = 2
    write_nifti_mask(Segmentation(mask, affine, LABELS), tmp_path / "m.nii.gz")
    header = nib.load(tmp_path / "m.nii.gz").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert np.allclose(header.get_sform(), affine, atol=2e-5)
    assert np.allclose(header.get_qform(), affine, atol=2e-5)
    world = apply_affine(affine, [1, 5, 2])
    image = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    point = image.TransformIndexToPhysicalPoint((1, 5, 2))
    assert np.allclose(np.array(point) * [-1, -1, 1], world, atol=1e-4)
    assert image.GetPixel(1, 5, 2) == 2


@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">i4", "<u4", "<f4", ">f4"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_stored_types_and_both_byte_orders_are_kept(
    tmp_path: Path, dtype: str, kind: Any, suffix: str
) -> None:
    array = np.random.default_rng(1).integers(0, 120, (5, 3, 4)).astype(dtype)
    header = kind.header_class(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(array.dtype)
    path = tmp_path / f"a{suffix}"
    nib.save(kind(array, _affine(), header), path)
    volume = read_nifti(path)
    assert volume.array.dtype == np.dtype(dtype).newbyteorder("=")
    assert volume.array.dtype.isnative
    assert np.array_equal(volume.array[0], array)


@pytest.mark.parametrize(
    ("stored", "slope", "inter", "expected"),
    [
        (np.int16, 1.0, -1024.0, np.int16),
        (np.uint16, 1.0, -1024.0, np.int16),
        (np.uint8, 3.0, -7.0, np.int16),
        (np.int16, 40.0, 0.0, np.int32),
        (np.int16, 0.5, 0.0, np.float32),
        (np.int16, 2.0, 0.25, np.float32),
        (np.uint8, 1e10, 0.0, np.float32),
        (np.float32, 2.0, 1.0, np.float32),
        (np.float64, 1.5, -3.0, np.float32),
        (np.int32, 0.001, 5.0, np.float32),
    ],
)
def test_rescaled_values_equal_those_of_nibabel(
    tmp_path: Path, stored: Any, slope: float, inter: float, expected: Any
) -> None:
    array = np.random.default_rng(2).integers(0, 2900, (70, 60, 80))
    array = (array % 256 if stored == np.uint8 else array).astype(stored)
    image = nib.Nifti1Image(array, _affine())
    image.header.set_slope_inter(slope, inter)
    # nibabel rescales what it is given on saving: store the numbers as they are
    raw = image.header.copy()
    raw["vox_offset"], raw["magic"] = 352, b"n+1"
    content = raw.binaryblock + bytes(4) + array.tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(content)
    reference = nib.load(tmp_path / "a.nii").get_fdata()
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.array.dtype == expected
    if expected == np.float32:
        assert np.allclose(volume.array[0], reference, rtol=1e-7)  # float32 rounding
    else:
        assert np.array_equal(volume.array[0], reference)


def test_a_2d_image_is_one_slice_and_its_mask_is_2d_again(tmp_path: Path) -> None:
    array = np.arange(35, dtype=np.int16).reshape(7, 5)
    _save(tmp_path / "a.nii.gz", array, _affine())
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert volume.array.shape == (1, 7, 5, 1)
    assert volume.source.forms is not None
    assert volume.source.forms.shape == (7, 5)
    mask = _mask_of(volume)
    write_nifti_mask(mask, tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert written.shape == (7, 5)
    assert np.array_equal(np.asarray(written.dataobj), mask.array[..., 0])


def test_a_2d_image_without_slice_thickness_gets_a_third_axis(tmp_path: Path) -> None:
    affine = _affine()
    image = _save(tmp_path / "a.nii", np.zeros((7, 5), np.int16), affine, sform_code=0)
    _patch(tmp_path / "a.nii", 88, "<f", 0.0)  # pixdim[3]
    volume = read_nifti(tmp_path / "a.nii")
    assert np.allclose(volume.affine[:, :2], image.affine[:, :2], atol=1e-5)
    assert volume.spacing_mm[2] == pytest.approx(1)
    assert orthonormal_error(volume.affine) < 1e-6


def test_a_4d_image_is_channels_only_where_their_number_is_expected(tmp_path: Path) -> None:
    array = np.random.default_rng(4).integers(0, 99, (4, 5, 6, 3)).astype(np.int16)
    reference = _save(tmp_path / "a.nii.gz", array, _affine("LAS"))
    path = tmp_path / "a.nii.gz"
    volume = read_nifti(path, channels=3)
    assert np.array_equal(volume.array, np.moveaxis(array, -1, 0))
    for frame in range(3):
        assert np.array_equal(read_nifti(path, frame=frame).array[0], array[..., frame])
    for channels in (1, 2, 4):
        with pytest.raises(InputError, match="3 frames") as caught:
            read_nifti(path, channels=channels)
        assert caught.value.code == "needs-frame"
    for frame in (-1, 3):
        with pytest.raises(InputError, match="0 to 2") as caught:
            read_nifti(path, frame=frame)
        assert caught.value.code == "frame-out-of-range"
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert written.shape == (4, 5, 6)
    assert np.array_equal(written.affine, reference.affine)


def test_trailing_axes_of_length_one_stay_in_the_mask(tmp_path: Path) -> None:
    _save(tmp_path / "a.nii.gz", np.ones((4, 5, 6, 1, 1), np.int16), _affine())
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert volume.shape == (4, 5, 6)
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
    assert nib.load(tmp_path / "m.nii.gz").shape == (4, 5, 6, 1, 1)


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4, 1, 3), (2, 3, 4, 2, 2)])
def test_other_numbers_of_axes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    _save(tmp_path / "a.nii", np.zeros(shape, np.int16), _affine())
    with pytest.raises(InputError, match="2 to 4 axes") as caught:
        read_nifti(tmp_path / "a.nii", channels=3)
    assert caught.value.code == "unsupported-dimensions"


def test_the_sform_rules_and_a_disagreement_is_said(tmp_path: Path, array: Any) -> None:
    image = nib.Nifti1Image(array, None)
    image.set_sform(_affine("LPS"), 2)
    image.set_qform(_affine("RAS"), 1)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert volume.orientation == "LPS"
    assert _codes(volume) == ["sform-qform-differ"]
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz").header
    for name in ("sform_code", "qform_code", "srow_x", "quatern_b", "qoffset_x", "pixdim"):
        assert np.array_equal(written[name], image.header[name]), name


def test_the_qform_rules_where_the_sform_is_not_set(tmp_path: Path, array: Any) -> None:
    affine = _affine("LAS", degrees=(5, 6, 7))
    image = nib.Nifti1Image(array, None)
    image.set_qform(affine, 3)
    image.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert np.allclose(volume.affine, affine, atol=1e-5)
    assert _codes(volume) == []
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (0, 3)
    assert np.allclose(written.affine, affine, atol=1e-5)


def test_an_image_without_orientation_is_read_with_a_warning(tmp_path: Path, array: Any) -> None:
    image = nib.Nifti1Image(array, None)
    image.header.set_zooms((0.5, 0.75, 3))
    nib.save(image, tmp_path / "a.nii.gz")
    reference = nib.load(tmp_path / "a.nii.gz")
    assert (int(reference.header["sform_code"]), int(reference.header["qform_code"])) == (0, 0)
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert _codes(volume) == ["no-orientation"]
    assert np.array_equal(volume.affine, reference.affine)
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert np.array_equal(written.affine, reference.affine)
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (0, 0)


def test_an_invalid_qform_does_not_hide_a_good_sform(tmp_path: Path, array: Any) -> None:
    _save(tmp_path / "a.nii", array, _affine())
    _patch(tmp_path / "a.nii", 256, "<f", 3.0)  # quatern_b
    volume = read_nifti(tmp_path / "a.nii")
    assert _codes(volume) == ["invalid-qform"]
    assert np.allclose(volume.affine, _affine(), atol=1e-5)


def test_a_qform_that_rules_must_be_valid(tmp_path: Path, array: Any) -> None:
    _save(tmp_path / "a.nii", array, _affine(), sform_code=0)
    _patch(tmp_path / "a.nii", 256, "<f", 3.0)  # quatern_b
    with pytest.raises(GeometryError, match=r"a\.nii"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_lengths_are_converted_to_mm(tmp_path: Path, array: Any, unit: str, factor: float) -> None:
    small = _affine()
    small[:3] /= factor
    image = nib.Nifti1Image(array, small)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    assert np.allclose(volume.affine, _affine(), rtol=1e-5)
    assert _codes(volume) == ([] if factor == 1 else ["units-converted"])
    itk_image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert np.allclose(volume.spacing_mm, itk_image.GetSpacing(), rtol=1e-5)
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert np.array_equal(written.affine, nib.load(tmp_path / "a.nii.gz").affine)
    assert written.header["xyzt_units"] == image.header["xyzt_units"]


def test_a_small_shear_is_repaired_and_a_large_one_refused(tmp_path: Path, array: Any) -> None:
    affine = _affine()
    affine[0, 1] += 5e-5 * 1.3
    _save(tmp_path / "a.nii", array, affine, qform_code=0)
    volume = read_nifti(tmp_path / "a.nii")
    assert _codes(volume) == ["affine-repaired"]
    assert orthonormal_error(volume.affine) < 1e-12
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii")
    written = nib.load(tmp_path / "m.nii")
    assert np.array_equal(written.affine, nib.load(tmp_path / "a.nii").affine)
    affine[0, 1] += 0.01
    _save(tmp_path / "b.nii", array, affine, qform_code=0)
    with pytest.raises(GeometryError, match=r"perpendicular.*\[0.7 0.01") as caught:
        read_nifti(tmp_path / "b.nii")
    assert caught.value.code == "sheared-affine"
    assert "b.nii" in str(caught.value)


def test_an_affine_that_is_not_finite_is_refused(tmp_path: Path, array: Any) -> None:
    _save(tmp_path / "a.nii", array, _affine())
    _patch(tmp_path / "a.nii", 280, "<f", np.nan)  # the first of srow_x
    with pytest.raises(GeometryError, match="finite"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_not_finite_are_counted_and_refused(
    tmp_path: Path, dtype: Any, value: float
) -> None:
    array = np.zeros((5, 6, 7), dtype)
    array[1, 2, 3] = array[4, 5, 6] = value
    _save(tmp_path / "a.nii.gz", array, _affine())
    with pytest.raises(InputError, match="2 of 210 voxels") as caught:
        read_nifti(tmp_path / "a.nii.gz")
    assert caught.value.code == "non-finite"
    volume = read_nifti(tmp_path / "a.nii.gz", allow_non_finite=True)
    assert _codes(volume) == ["non-finite"]
    assert np.array_equal(volume.array[0], array.astype(np.float32), equal_nan=True)


def test_float64_beyond_float32_is_not_silently_infinite(tmp_path: Path) -> None:
    _save(tmp_path / "a.nii", np.full((2, 2, 2), 1e60), _affine())
    with pytest.raises(InputError, match="8 of 8 voxels"):
        read_nifti(tmp_path / "a.nii")


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((4, 5, 6), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nib.save(nib.Nifti1Image(rgb, _affine()), tmp_path / "rgb.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.complex64), _affine()), tmp_path / "c.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), _affine()), tmp_path / "odd.nii")
    _patch(tmp_path / "odd.nii", 70, "<h", 166)  # no datatype of NIfTI
    for name in ("rgb.nii", "c.nii", "odd.nii"):
        with pytest.raises(InputError, match=name) as caught:
            read_nifti(tmp_path / name)
        assert caught.value.code == "unsupported-data-type"


@pytest.mark.parametrize("keep", [0, 3, 200, 351, 400, -1])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_file_that_ends_early_is_truncated(
    tmp_path: Path, array: Any, keep: int, suffix: str
) -> None:
    _save(tmp_path / f"a{suffix}", array, _affine())
    content = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(content[:keep])
    with pytest.raises(InputError, match=f"b{suffix}") as caught:
        read_nifti(tmp_path / f"b{suffix}")
    assert caught.value.code == "truncated"
    assert "\n" not in str(caught.value)


def test_a_gzip_of_too_few_voxels_is_truncated(tmp_path: Path, array: Any) -> None:
    _save(tmp_path / "a.nii", array, _affine())
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(zlib_gzip.compress(content[:-2]))
    with pytest.raises(InputError) as caught:
        read_nifti(tmp_path / "b.nii.gz")
    assert caught.value.code == "truncated"


def test_a_flipped_bit_in_gzip_is_found(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-999, 999, (40, 40, 40)).astype(np.int16)
    _save(tmp_path / "a.nii.gz", noise, _affine())
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    for position in (len(content) // 2, len(content) - 6):  # the data; the checksum
        damaged = content.copy()
        damaged[position] ^= 0x10
        (tmp_path / "b.nii.gz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"b\.nii\.gz") as caught:
            read_nifti(tmp_path / "b.nii.gz")
        assert caught.value.code in ("unreadable", "truncated")


def test_a_header_that_lies_about_its_size_does_not_take_the_memory(
    tmp_path: Path, array: Any
) -> None:
    _save(tmp_path / "a.nii", array, _affine())
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[42:48] = struct.pack("<3h", 32767, 32767, 32767)
    (tmp_path / "b.nii.gz").write_bytes(zlib_gzip.compress(content))
    with pytest.raises(InputError) as caught:
        read_nifti(tmp_path / "b.nii.gz")
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("dim", [[3, 4, 0, 5], [3, 4, -1, 5], [9, 1, 1, 1], [0, 1, 1, 1]])
def test_impossible_lengths_are_refused(tmp_path: Path, array: Any, dim: list[int]) -> None:
    _save(tmp_path / "a.nii", array, _affine())
    _patch(tmp_path / "a.nii", 40, "<4h", *dim)
    with pytest.raises(InputError, match="dim must hold") as caught:
        read_nifti(tmp_path / "a.nii")
    assert caught.value.code == "unreadable"


def test_what_is_not_nifti_is_refused(tmp_path: Path, array: Any) -> None:
    (tmp_path / "text.nii").write_text("no image at all, but long enough" * 20)
    with pytest.raises(InputError, match=r"text\.nii") as caught:
        read_nifti(tmp_path / "text.nii")
    assert caught.value.code == "unreadable"
    with pytest.raises(InputError) as caught:
        read_nifti(tmp_path / "missing.nii")
    assert caught.value.code == "not-found"
    nib.save(nib.AnalyzeImage(array, np.eye(4)), tmp_path / "old.hdr")
    with pytest.raises(InputError, match="Analyze"):
        read_nifti(tmp_path / "old.hdr")


def test_a_pair_of_header_and_voxels_is_read(tmp_path: Path, array: Any) -> None:
    nib.save(nib.Nifti1Pair(array, _affine()), tmp_path / "a.hdr")
    volume = read_nifti(tmp_path / "a.hdr")
    assert np.array_equal(volume.array[0], array)
    (tmp_path / "a.img").unlink()
    with pytest.raises(InputError, match=r"a\.img") as caught:
        read_nifti(tmp_path / "a.hdr")
    assert caught.value.code == "not-found"


def test_the_content_and_not_the_name_says_whether_it_is_compressed(
    tmp_path: Path, array: Any
) -> None:
    _save(tmp_path / "a.nii", array, _affine())
    (tmp_path / "a.nii").rename(tmp_path / "b.nii.gz")
    assert np.array_equal(read_nifti(tmp_path / "b.nii.gz").array[0], array)


def test_header_extensions_are_passed_over_and_never_copied(tmp_path: Path, array: Any) -> None:
    image = nib.Nifti1Image(array, _affine())
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane"))
    image.header["descrip"] = b"Doe^Jane"
    image.header["db_name"] = b"Doe^Jane"
    image.header["aux_file"] = b"Doe^Jane"
    image.header["intent_name"] = b"Doe^Jane"
    nib.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert np.array_equal(volume.array[0], array)
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii")
    write_nifti_image(volume, tmp_path / "i.nii")
    for name in ("m.nii", "i.nii"):
        assert b"Doe" not in (tmp_path / name).read_bytes()
    write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
    assert (tmp_path / "m.nii.gz").read_bytes()[3:8] == bytes(5)  # no name, no time


def test_masks_of_many_labels_are_16_bit_and_of_few_8_bit(tmp_path: Path) -> None:
    many = make_labels({300: "a", 1: "b"})
    mask = np.zeros((3, 4, 5), np.uint16)
    mask[1, 2, 3] = 300
    write_nifti_mask(Segmentation(mask, _affine(), many), tmp_path / "many.nii.gz")
    written = nib.load(tmp_path / "many.nii.gz")
    assert written.get_data_dtype() == np.uint16
    assert np.array_equal(np.asarray(written.dataobj), mask)
    few = Segmentation((mask > 0).astype(np.uint16), _affine(), LABELS)
    write_nifti_mask(few, tmp_path / "few.nii.gz")
    written = nib.load(tmp_path / "few.nii.gz")
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(written.dataobj), few.array)
    empty = Segmentation(np.zeros((3, 4, 5), np.uint8), _affine(), many)
    write_nifti_mask(empty, tmp_path / "empty.nii.gz")
    assert nib.load(tmp_path / "empty.nii.gz").get_data_dtype() == np.uint16


def test_mask_headers_do_not_rescale(tmp_path: Path, array: Any) -> None:
    image = nib.Nifti1Image(array, _affine())
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "a.nii.gz")
    write_nifti_mask(_mask_of(read_nifti(tmp_path / "a.nii.gz")), tmp_path / "m.nii")
    content = (tmp_path / "m.nii").read_bytes()
    assert struct.unpack("<2f", content[112:120]) == (1, 0)


def test_a_nifti2_source_gives_a_nifti2_mask_with_its_exact_forms(
    tmp_path: Path, array: Any
) -> None:
    affine = _affine("PIR", degrees=(1, 2, 3))
    image = nib.Nifti2Image(array, affine)
    nib.save(image, tmp_path / "a.nii.gz")
    write_nifti_mask(_mask_of(read_nifti(tmp_path / "a.nii.gz")), tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert isinstance(written, nib.Nifti2Image)
    assert np.array_equal(written.affine, affine)


def test_a_segmentation_on_another_grid_is_not_given_the_forms_of_its_source(
    tmp_path: Path, array: Any
) -> None:
    _save(tmp_path / "a.nii.gz", array, _affine())
    volume = read_nifti(tmp_path / "a.nii.gz")
    moved = volume.affine.copy()
    moved[0, 3] += 5
    mask = Segmentation(np.ones(volume.shape, np.uint8), moved, LABELS, volume.source)
    write_nifti_mask(mask, tmp_path / "m.nii.gz")
    assert np.allclose(nib.load(tmp_path / "m.nii.gz").affine, moved, atol=1e-5)


def test_forms_without_the_raw_header_are_repeated_too(tmp_path: Path, array: Any) -> None:
    _save(tmp_path / "a.nii.gz", array, _affine("LIP"), sform_code=4, qform_code=2)
    volume = read_nifti(tmp_path / "a.nii.gz")
    source = Source(format="nifti", forms=volume.source.forms)
    mask = Segmentation(np.ones(volume.shape, np.uint8), volume.affine, LABELS, source)
    write_nifti_mask(mask, tmp_path / "m.nii.gz")
    written = nib.load(tmp_path / "m.nii.gz")
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (4, 2)
    assert np.allclose(written.header.get_qform(), volume.affine, atol=1e-5)
    assert np.allclose(written.affine, volume.affine, atol=1e-6)


@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_any_memory_layout_writes_the_same_bytes(tmp_path: Path, order: str) -> None:
    plain = np.random.default_rng(5).integers(0, 3, (61, 47, 33)).astype(np.uint8)
    layouts = {
        "C": plain,
        "F": np.asfortranarray(plain),
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
    }
    given = layouts[order].copy(order="K") if order != "strided" else layouts[order]
    write_nifti_mask(Segmentation(given, _affine(), LABELS), tmp_path / "m.nii.gz")
    assert np.array_equal(np.asarray(nib.load(tmp_path / "m.nii.gz").dataobj), plain)
    assert np.array_equal(given, plain)


def test_volumes_larger_than_a_slab_are_written_in_order(tmp_path: Path) -> None:
    array = np.arange(300 * 200 * 180, dtype=np.int32).reshape(2, 150, 200, 180)
    write_nifti_image(Volume(array, _affine()), tmp_path / "i.nii")
    written = nib.load(tmp_path / "i.nii")
    assert np.array_equal(np.asarray(written.dataobj), np.moveaxis(array, 0, -1))


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.uint16, np.float32, np.int32])
def test_an_image_keeps_its_type_and_both_forms_hold_its_affine(tmp_path: Path, dtype: Any) -> None:
    array = np.random.default_rng(6).integers(0, 200, (1, 5, 6, 7)).astype(dtype)
    affine = _affine("SAL", degrees=(3, 2, 1))
    write_nifti_image(Volume(array, affine), tmp_path / "i.nii.gz")
    written = nib.load(tmp_path / "i.nii.gz")
    assert written.shape == (5, 6, 7)
    assert written.get_data_dtype() == dtype
    assert written.dataobj.slope == 1
    assert np.array_equal(np.asarray(written.dataobj), array[0])
    for form in (written.header.get_sform, written.header.get_qform):
        matrix, code = form(coded=True)
        assert code == 1
        assert np.allclose(matrix, affine, atol=2e-5)


def test_frames_become_the_fourth_axis_with_their_time_step(tmp_path: Path) -> None:
    array = np.random.default_rng(7).integers(0, 200, (4, 5, 6, 7)).astype(np.int16)
    write_nifti_image(Volume(array, _affine("LPS")), tmp_path / "i.nii.gz", time_step_s=2.5)
    written = nib.load(tmp_path / "i.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), np.moveaxis(array, 0, -1))
    assert written.header.get_zooms()[3] == 2.5
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert np.array_equal(read_nifti(tmp_path / "i.nii.gz", channels=4).array, array)


def test_a_natural_image_is_upright_where_simpleitk_would_put_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(8).integers(0, 255, (1, 5, 8)).astype(np.uint8)
    volume = Volume(pixels, np.diag([0.5, 0.25, 1.0]))
    write_nifti_image(volume, tmp_path / "i.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "i.nii.gz"))
    assert image.GetSize()[:2] == (8, 5)
    assert image.GetSpacing()[:2] == (0.25, 0.5)
    assert np.array_equal(sitk.GetArrayFromImage(image).reshape(5, 8), pixels[0])
    assert np.allclose(np.array(image.GetDirection()).reshape(3, 3), np.eye(3))
    mask = Segmentation((pixels[0] > 99).astype(np.uint8), volume.affine, LABELS)
    write_nifti_mask(mask, tmp_path / "m.nii.gz")
    written = sitk.ReadImage(str(tmp_path / "m.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(written).reshape(5, 8), mask.array)
    assert written.GetDirection() == image.GetDirection()


def test_an_image_that_was_read_is_written_with_its_forms(tmp_path: Path) -> None:
    array = np.random.default_rng(9).integers(0, 99, (4, 5, 6, 3)).astype(np.int16)
    image = nib.Nifti1Image(array, _affine("RSA"))
    image.header.set_zooms((0.7, 1.3, 2.9, 1.75))
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(_affine("RSA"), 4)
    nib.save(image, tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz", channels=3)
    write_nifti_image(volume, tmp_path / "i.nii.gz")
    written = nib.load(tmp_path / "i.nii.gz")
    assert np.array_equal(np.asarray(written.dataobj), array)
    assert written.header["sform_code"] == 4
    assert written.header.get_zooms()[3] == 1.75


def test_other_suffixes_and_types_are_refused_before_writing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"end in \.nii"):
        write_nifti_image(Volume(np.zeros((1, 2, 2, 2), "i2"), np.eye(4)), tmp_path / "a.nrrd")
    with pytest.raises(UsageError, match="complex"):
        write_nifti_image(Volume(np.zeros((1, 2, 2, 2), "c8"), np.eye(4)), tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = Segmentation(np.ones((3, 4, 5), np.uint8), _affine(), LABELS)
    target = tmp_path / "m.nii.gz"
    target.write_bytes(b"older")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medseg.io.nifti.write_voxels", fail)
    with pytest.raises(OutputError) as caught:
        write_nifti_mask(mask, target)
    assert caught.value.code == "disk-full"
    assert [path.name for path in tmp_path.iterdir()] == ["m.nii.gz"]
    assert target.read_bytes() == b"older"


def test_the_header_alone_tells_the_grid(tmp_path: Path) -> None:
    _save(tmp_path / "a.nii.gz", np.zeros((4, 5, 6, 3), np.int16), _affine("LPS"))
    info = read_nifti_info(tmp_path / "a.nii.gz")
    assert (info.size, info.frames) == ((4, 5, 6), 3)
    assert np.allclose(info.affine, _affine("LPS"), atol=1e-5)


def _real_files() -> list[Path]:
    totalseg = sorted(data_folder("totalseg_example").rglob("*.nii.gz"))
    hippocampus = sorted(data_folder("Task04_Hippocampus").rglob("*_00*.nii.gz"))
    return [*totalseg, *hippocampus]


def test_real_images_read_as_nibabel_reads_them_and_masks_line_up(tmp_path: Path) -> None:
    for path in _real_files():
        reference = nib.load(path)
        volume = read_nifti(path)
        assert np.allclose(volume.array[0], reference.get_fdata(dtype=np.float32)), path
        assert np.array_equal(volume.affine, reference.affine), path
        write_nifti_mask(_mask_of(volume), tmp_path / "m.nii.gz")
        written = nib.load(tmp_path / "m.nii.gz")
        assert np.array_equal(written.affine, reference.affine), path
        assert written.shape == reference.shape
        for name in ("sform_code", "qform_code", "quatern_b", "srow_z", "xyzt_units"):
            assert np.array_equal(written.header[name], reference.header[name]), path
