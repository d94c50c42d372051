"""The parts of the reference runner against the libraries that it does without."""

import ast
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from medseg.bundle.export_runner import runner_source
from medseg.bundle.runner import run
from medseg.bundle.runner.components import fill_holes, largest_component
from medseg.bundle.runner.grid import cubic_matrix, linear_matrix
from medseg.bundle.runner.run import main
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
        "argparse", "collections", "dataclasses", "hashlib", "importlib", "itertools", "json",
        "math", "nibabel", "numpy", "pathlib", "sys", "typing",
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
