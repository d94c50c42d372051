"""The parts of the reference runner against the libraries that it does without."""

import ast
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.bundle.export_runner import runner_source
from medseg.bundle.runner import run
from medseg.bundle.runner.components import fill_holes, largest_component
from medseg.bundle.runner.grid import PipelineError, cubic_matrix, linear_matrix
from medseg.bundle.runner.run import main, read_image, write_mask
from medseg.transforms.axis_matrix import axis_matrix


@pytest.mark.parametrize(("old", "new"), [(30, 47), (47, 30), (5, 200), (200, 7), (1, 4), (64, 64)])
def test_interpolation_is_that_of_medseg(old: int, new: int) -> None:
    places = (np.arange(new) + 0.5) * (old / new) - 0.5
    cubic = axis_matrix(old, new, 3).numpy()
    np.testing.assert_allclose(cubic_matrix(old, places), cubic, atol=2e-7)  # float32
    linear = axis_matrix(old, new, 1).numpy()
    np.testing.assert_allclose(linear_matrix(old, places.clip(0, old - 1)), linear, atol=1e-7)


@pytest.mark.parametrize("shape", [(17, 23), (9, 11, 13), (1, 6, 5), (4, 1, 1), (3, 3)])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.95])
def test_parts_and_holes_are_those_of_scipy(shape: tuple[int, ...], share: float) -> None:
    generator = np.random.default_rng(5)
    for _ in range(10):
        mask = generator.random(shape) < share
        parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
        sizes = np.bincount(parts.ravel(), minlength=2)[1:]
        expected = parts == sizes.argmax() + 1 if count else mask
        assert np.array_equal(largest_component(mask), expected)
        assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("value", [False, True])
def test_masks_of_one_value_stay_as_they_are(value: bool) -> None:
    mask = np.full((3, 4, 5), value)
    assert np.array_equal(largest_component(mask), mask)
    assert np.array_equal(fill_holes(mask), mask)


def test_the_runner_is_one_file_that_imports_three_packages() -> None:
    tree = ast.parse(runner_source())
    names = {
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    tops = {name.split(".")[0] for name in names}
    assert tops <= {
        "argparse", "collections", "dataclasses", "gzip", "hashlib", "importlib", "itertools",
        "json", "math", "nibabel", "numpy", "pathlib", "sys", "typing", "zlib",
    }  # fmt: skip
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert len(set(defined)) == len(defined), "two modules define one name"
    assert ast.get_docstring(tree) == ast.get_docstring(ast.parse(Path(run.__file__).read_text()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no JSON", "what medseg bundle export writes"),
        ("[]", "what medseg bundle export writes"),
        ('{"schema": 2, "complete": true}', "schema of the pipeline must be 1, got 2"),
        (
            '{"schema": 1, "complete": false, "missing": [{"key": "inferer", "reason": "new"}]}',
            "cannot state inferer: new",
        ),
    ],
)
def test_a_pipeline_that_cannot_be_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    path = tmp_path / "pipeline.json"
    path.write_text(text)
    assert main(["a.nii.gz", str(tmp_path / "m.nii.gz"), "--pipeline", str(path)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m.nii.gz").exists()


def rule(channels: int, **changes: bool) -> dict[str, object]:
    named = [{"name": str(number), "modality": ""} for number in range(channels)]
    return {"dims": 2, "channels": named, "colour": False, "eight_bit": False, **changes}


def test_grey_and_coloured_pictures_are_taken_for_each_other_as_medseg_does(tmp_path: Path) -> None:
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    np.save(tmp_path / "grey.npy", grey)
    np.save(tmp_path / "same.npy", np.stack([grey] * 3, axis=-1))
    np.save(tmp_path / "colour.npy", np.stack([grey, grey, grey + 1], axis=-1))
    image, _ = read_image([tmp_path / "grey.npy"], rule(3, colour=True))
    assert np.array_equal(image.array, [grey] * 3)
    image, _ = read_image([tmp_path / "same.npy"], rule(1))
    assert np.array_equal(image.array, [grey])
    image, _ = read_image([tmp_path / "colour.npy"], rule(1))
    assert image.array.shape == (3, 5, 7), "refused by its channels later"
    assert image.array.dtype == np.float32


def test_pictures_of_other_values_and_forms_are_refused(tmp_path: Path) -> None:
    deep, flat = tmp_path / "deep.npy", tmp_path / "flat.npy"
    np.save(deep, np.full((4, 4, 3), 256, np.uint16))
    np.save(flat, np.zeros(9, np.uint8))
    with pytest.raises(PipelineError, match="values of 8 bits, got uint16 up to 256"):
        read_image([deep], rule(3, colour=True, eight_bit=True))
    with pytest.raises(PipelineError, match="rows, columns, channels"):
        read_image([flat], rule(1))
    with pytest.raises(PipelineError, match="one file, got 2"):
        read_image([deep, deep], rule(3))


VOLUME = {"dims": 3, "channels": [{"name": "0", "modality": ""}]}


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_volumes_that_are_cut_short_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    values = np.random.default_rng(5).random((20, 20, 20))
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(PipelineError, match="must be a complete file, got cut"):
        read_image([path], VOLUME)


def test_volumes_with_a_damaged_byte_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(5).random((20, 20, 20)), np.eye(4)), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(PipelineError, match="must be a complete file, got bad"):
        read_image([path], VOLUME)


@pytest.mark.parametrize("data", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_arrays_that_are_none_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "picture.npy"
    path.write_bytes(data)
    with pytest.raises(PipelineError, match=r"as numpy\.save writes it, got picture\.npy"):
        read_image([path], rule(1))


def test_a_file_in_the_place_of_the_mask_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"
    second.write_bytes(b"an image")
    assert main([str(first), str(second)]) == 2
    assert "mask must be a new file, got second.nii.gz" in capsys.readouterr().err
    assert second.read_bytes() == b"an image"
    assert main([str(first), str(second), "--overwrite"]) == 2
    assert "--pipeline must name a file" in capsys.readouterr().err


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    mask = np.zeros((4, 4), np.uint8)
    with pytest.raises(PipelineError, match=r"must end in \.npy or \.png"):
        write_mask(mask, None, tmp_path / "mask.nii.gz")
    (tmp_path / "mask.npy").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_mask(mask, None, tmp_path / "mask.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.npy"]
