"""NRRD, MetaImage and GIPL against SimpleITK, nibabel's frame, and hand-written headers."""

import itertools
from pathlib import Path
from typing import Any

import itk
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from medseg.errors import GeometryError, InputError
from medseg.geometry import apply_affine
from medseg.io.itk_image import read_itk_image, read_itk_info

FORMATS = [".nrrd", ".nhdr", ".mha", ".mhd"]


def _image(array: npt.NDArray[Any], **geometry: Any) -> sitk.Image:
    """Make an image of an array (I, J, K) or (I, J, K, components)."""
    last_first = array.transpose(2, 1, 0, *range(3, array.ndim))
    image = sitk.GetImageFromArray(np.ascontiguousarray(last_first), isVector=array.ndim == 4)
    image.SetSpacing(geometry.get("spacing", (0.7, 1.3, 2.9)))
    image.SetOrigin(geometry.get("origin", (-31.5, 12.25, 101.0)))
    image.SetDirection(geometry.get("direction", (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    return image


def _nrrd(path: Path, array: npt.NDArray[Any], *fields: str) -> Path:
    kind = {np.dtype(np.int16): "short", np.dtype(np.float32): "float"}[array.dtype]
    sizes = " ".join(map(str, array.shape))
    lines = ["NRRD0004", f"type: {kind}", f"dimension: {array.ndim}", f"sizes: {sizes}"]
    lines += [*fields, "encoding: raw", "endian: little", "", ""]
    path.write_bytes("\n".join(lines).encode() + array.tobytes(order="F"))
    return path


def _codes(volume: Any) -> list[str]:
    return [problem.code for problem in volume.source.problems]


@pytest.fixture
def array() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-1000, 3000, (7, 9, 5)).astype(np.int16)


def _directions() -> list[tuple[float, ...]]:
    found = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(order), range(3)] = signs
            found.append(tuple(matrix.ravel()))
    return found


@pytest.mark.parametrize("direction", _directions(), ids=lambda d: "".join(f"{v:+.0f}" for v in d))
def test_every_orientation_lies_where_simpleitk_puts_it(
    tmp_path: Path, array: Any, direction: tuple[float, ...]
) -> None:
    image = _image(array, direction=direction)
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
        volume = read_itk_image(tmp_path / f"a{suffix}")
        assert np.array_equal(volume.array[0], array)
        assert volume.array.dtype == np.int16
        for index in ((0, 0, 0), (6, 0, 0), (1, 8, 2), (3, 2, 4)):
            lps = np.array(image.TransformIndexToPhysicalPoint(index))
            assert np.allclose(apply_affine(volume.affine, index), lps * [-1, -1, 1], atol=1e-6)
        assert _codes(volume) == []


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "f4"])
def test_types_are_kept(tmp_path: Path, suffix: str, compressed: bool, dtype: str) -> None:
    array = np.random.default_rng(1).integers(0, 100, (4, 5, 3)).astype(dtype)
    sitk.WriteImage(_image(array), str(tmp_path / f"a{suffix}"), useCompression=compressed)
    volume = read_itk_image(tmp_path / f"a{suffix}")
    assert volume.array.dtype == np.dtype(dtype)
    assert np.array_equal(volume.array[0], array)


def test_64_bit_floats_become_32_bit(tmp_path: Path) -> None:
    array = np.random.default_rng(1).random((4, 5, 3))
    sitk.WriteImage(_image(array), str(tmp_path / "a.mha"))
    volume = read_itk_image(tmp_path / "a.mha")
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array[0], array.astype(np.float32))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # itk crashes on it
def test_an_oblique_image_written_by_itk_lies_in_the_same_place(tmp_path: Path, array: Any) -> None:
    image = itk.image_from_array(np.ascontiguousarray(array.T))
    angle = 0.3
    rotation = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    image.SetDirection(itk.matrix_from_array(rotation))
    image.SetSpacing([0.5, 0.75, 3.0])
    image.SetOrigin([10.0, -20.0, 30.0])
    expected = np.eye(4)
    expected[:3, :3] = rotation * [0.5, 0.75, 3.0]
    expected[:3, 3] = (10, -20, 30)
    for name in ("a.nrrd", "a.mha"):
        itk.imwrite(image, str(tmp_path / name))
        volume = read_itk_image(tmp_path / name)
        assert np.allclose(volume.affine, np.diag([-1, -1, 1, 1]) @ expected, atol=1e-6)
        assert np.array_equal(volume.array[0], array)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
    ],
)
@pytest.mark.parametrize("with_time", [False, True])
def test_each_nrrd_space_is_turned_into_ras(
    tmp_path: Path, space: str, signs: tuple[int, ...], with_time: bool
) -> None:
    if with_time:
        space = f"{space}-time" if "-" in space else f"{space}T"
        fields = ["(0.5,0,0,0) (0,2,0,0) (0,0,3,0) (0,0,0,1)", "(5,6,7,0)"]
        array = np.arange(4 * 5 * 6 * 2, dtype=np.int16).reshape(4, 5, 6, 2)
    else:
        fields = ["(0.5,0,0) (0,2,0) (0,0,3)", "(5,6,7)"]
        array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    geometry = (f"space directions: {fields[0]}", f"space origin: {fields[1]}")
    path = _nrrd(tmp_path / "a.nrrd", array, f"space: {space}", *geometry)
    volume = read_itk_image(path, frame=1 if with_time else None)
    expected = np.diag([*signs, 1.0]) @ [[0.5, 0, 0, 5], [0, 2, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]]
    assert np.allclose(volume.affine, expected)
    assert np.array_equal(volume.array[0], array[..., 1] if with_time else array)
    assert _codes(volume) == []


@pytest.mark.parametrize(
    "fields",
    [
        ("spacings: 1 2 3",),
        (),
        ("space: scanner-xyz", "space directions: (1,0,0) (0,1,0) (0,0,1)"),
        ("space: 3D-right-handed", "space directions: (1,0,0) (0,1,0) (0,0,1)"),
    ],
)
def test_a_nrrd_without_a_patient_space_is_read_with_a_warning(
    tmp_path: Path, array: Any, fields: tuple[str, ...]
) -> None:
    volume = read_itk_image(_nrrd(tmp_path / "a.nrrd", array, *fields))
    assert _codes(volume) == ["no-orientation"]
    assert volume.orientation == "LPS"


def test_lengths_in_other_units_are_refused(tmp_path: Path, array: Any) -> None:
    geometry = ("space: LPS", "space directions: (1,0,0) (0,1,0) (0,0,1)")
    path = _nrrd(tmp_path / "a.nrrd", array, *geometry, 'space units: "m" "m" "m"')
    with pytest.raises(InputError, match="'m'") as caught:
        read_itk_image(path)
    assert caught.value.code == "unsupported-units"
    path = _nrrd(tmp_path / "b.nrrd", array, *geometry, 'space units: "mm" "mm" "mm"')
    assert _codes(read_itk_image(path)) == []


def test_a_metaimage_without_matrix_is_read_with_a_warning(tmp_path: Path, array: Any) -> None:
    head = "ObjectType = Image\nNDims = 3\nDimSize = 7 9 5\nElementType = MET_SHORT\n"
    content = f"{head}ElementDataFile = LOCAL\n".encode() + array.tobytes(order="F")
    (tmp_path / "a.mha").write_bytes(content)
    volume = read_itk_image(tmp_path / "a.mha")
    assert _codes(volume) == ["no-orientation"]
    assert np.array_equal(volume.array[0], array)


@pytest.mark.parametrize("suffix", [".gipl", ".gipl.gz"])
def test_gipl_is_read_with_a_warning_and_its_end_is_checked(
    tmp_path: Path, array: Any, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(_image(array), str(path))
    volume = read_itk_image(path)
    assert np.array_equal(volume.array[0], array)
    assert _codes(volume) == ["no-orientation"]
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError) as caught:
        read_itk_image(path)
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_values_of_a_vector_image_are_channels(tmp_path: Path, suffix: str) -> None:
    array = np.random.default_rng(2).integers(0, 99, (4, 5, 6, 3)).astype(np.int16)
    sitk.WriteImage(_image(array), str(tmp_path / f"a{suffix}"))
    volume = read_itk_image(tmp_path / f"a{suffix}", channels=3)
    assert np.array_equal(volume.array, np.moveaxis(array, -1, 0))


@pytest.mark.parametrize("first", [True, False])
def test_a_list_axis_of_nrrd_is_channels_wherever_it_stands(tmp_path: Path, first: bool) -> None:
    array = np.random.default_rng(2).integers(0, 99, (3, 4, 5, 6)).astype(np.int16)
    stored = array if first else np.moveaxis(array, 0, -1)
    steps = ["(1,0,0)", "(0,2,0)", "(0,0,3)"]
    kinds = ["domain"] * 3
    where = 0 if first else 3
    steps.insert(where, "none")
    kinds.insert(where, "list")
    fields = (f"space directions: {' '.join(steps)}", f"kinds: {' '.join(kinds)}")
    path = _nrrd(tmp_path / "a.nrrd", stored, "space: RAS", *fields, "space origin: (0,0,0)")
    volume = read_itk_image(path, channels=3)
    assert np.array_equal(volume.array, array)
    assert volume.spacing_mm == (1, 2, 3)
    assert volume.orientation == "RAS"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_fourth_axis_needs_a_frame_or_as_many_channels(tmp_path: Path, suffix: str) -> None:
    array = np.random.default_rng(3).integers(0, 99, (4, 5, 6, 2)).astype(np.int16)
    frames = [_image(array[..., frame]) for frame in range(2)]
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(sitk.JoinSeries(frames), str(path))
    with pytest.raises(InputError, match="2 frames") as caught:
        read_itk_image(path)
    assert caught.value.code == "needs-frame"
    assert np.array_equal(read_itk_image(path, frame=1).array[0], array[..., 1])
    volume = read_itk_image(path, channels=2)
    assert np.array_equal(volume.array, np.moveaxis(array, -1, 0))
    assert np.allclose(volume.affine[:3, 3], (31.5, -12.25, 101))
    info = read_itk_info(path)
    assert (info.size, info.frames) == ((4, 5, 6), 2)


def test_a_2d_image_has_rows_and_columns(tmp_path: Path) -> None:
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((0.5, 2.0))
    for suffix in (".nrrd", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))
        volume = read_itk_image(tmp_path / f"a{suffix}")
        assert volume.is_2d
        assert np.array_equal(volume.array[0], pixels)
        assert volume.spacing_mm == (2.0, 0.5)
        assert _codes(volume) == []


def test_a_sheared_grid_is_refused(tmp_path: Path, array: Any) -> None:
    sheared = "space directions: (1,0,0) (0.1,1,0) (0,0,1)"
    path = _nrrd(tmp_path / "a.nrrd", array, "space: LPS", sheared, "space origin: (0,0,0)")
    with pytest.raises(GeometryError, match="perpendicular") as caught:
        read_itk_image(path)
    assert caught.value.code == "sheared-affine"


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "b.nrrd", "b.mha", "a.mhd", "a.nhdr"])
def test_a_file_that_ends_early_is_refused(
    tmp_path: Path, array: Any, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    sitk.WriteImage(_image(array), str(path), useCompression=name.startswith("b"))
    voxels = path.with_suffix(".raw") if name in ("a.mhd", "a.nhdr") else path
    voxels.write_bytes(voxels.read_bytes()[:-100])
    with pytest.raises(InputError) as caught:
        read_itk_image(path)
    assert caught.value.code in ("truncated", "unreadable")
    assert "\n" not in str(caught.value)
    capfd.readouterr()  # the library's own complaints


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nrrd").write_text("no image")
    (tmp_path / "empty.mha").write_text("")
    for name, code in (
        ("text.nrrd", "unreadable"),
        ("empty.mha", "truncated"),
        ("missing.nrrd", "not-found"),
    ):
        with pytest.raises(InputError, match=name.split(".", maxsplit=1)[0]) as caught:
            read_itk_image(tmp_path / name)
        assert caught.value.code == code


def test_voxels_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    array = np.zeros((4, 5, 6), np.float32)
    array[1, 2, 3] = np.nan
    sitk.WriteImage(_image(array), str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="1 of 120") as caught:
        read_itk_image(tmp_path / "a.nrrd")
    assert caught.value.code == "non-finite"
    assert _codes(read_itk_image(tmp_path / "a.nrrd", allow_non_finite=True)) == ["non-finite"]


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image([3, 3, 3], sitk.sitkComplexFloat32), str(tmp_path / "a.nrrd"))
    with pytest.raises(InputError, match="complex") as caught:
        read_itk_image(tmp_path / "a.nrrd")
    assert caught.value.code == "unsupported-data-type"
