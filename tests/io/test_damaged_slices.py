"""Files beside the slices of a volume that may have been slices of it are told of."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.io.cases import Choice, Rule, find_cases
from medseg.io.sources import open_sources
from medseg.volume import Volume
from tests.phantoms import oblique_affine, write_series

RULE = Rule(lambda volume: None)  # noqa: ARG005


def _warnings(folder: Path) -> list[tuple[str, str]]:
    with open_sources(folder) as sources:
        (case,) = find_cases(sources, [folder], RULE, Choice())
        assert case.error is None
        return [(warning.code, warning.message) for warning in case.warnings]


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    """Return the files of a series, in the order of its slices."""

    def depth(file: Path) -> float:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        row, column = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        return float(np.dot(np.cross(row, column), header.ImagePositionPatient))

    array = np.random.default_rng(0).integers(-900, 300, (1, 16, 14, 9)).astype(np.int16)
    write_series(Volume(array, oblique_affine()), tmp_path / "study")
    return sorted((tmp_path / "study").iterdir(), key=depth)


@pytest.mark.parametrize("length", [0, 140, 600])
def test_a_last_slice_that_was_cut_short_is_told_of(series: list[Path], length: int) -> None:
    folder = series[0].parent
    assert _warnings(folder) == []
    last = series[-1]
    last.write_bytes(last.read_bytes()[:length])
    (code, message) = _warnings(folder)[-1]
    assert code == "unreadable-files"
    assert message.startswith("1 file beside its slices cannot be read")


def test_other_objects_beside_the_slices_are_none_of_them(series: list[Path]) -> None:
    folder = series[0].parent
    (folder / "readme.txt").write_text("a note")
    (folder / "picture.log").write_bytes(bytes(range(256)))
    assert _warnings(folder) == []


def test_what_lies_in_another_folder_is_not_told_of(series: list[Path]) -> None:
    study = series[0].parent.parent
    (study / "other").mkdir()
    (study / "other" / "IM0").write_bytes(series[0].read_bytes()[:500])
    assert _warnings(study) == []
