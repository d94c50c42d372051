"""Fixed splits keep validation cases out of training."""

import json
from pathlib import Path

import pytest

from medseg.errors import InputError
from medseg.training import cases_of_split

HIPPOCAMPUS = Path(__file__).parents[2] / "bundles" / "hippocampus_mri" / "configs" / "split.json"


def _dataset(folder: Path, names: list[str]) -> Path:
    for kind in ("imagesTr", "labelsTr"):
        (folder / kind).mkdir()
        for name in names:
            (folder / kind / f"{name}.nii.gz").touch()
    return folder


def _split(folder: Path, training: list[str], validation: list[str]) -> str:
    path = folder / "split.json"
    path.write_text(json.dumps({"training": training, "validation": validation}))
    return str(path)


def test_each_part_lists_its_own_cases(tmp_path) -> None:
    dataset = _dataset(tmp_path, ["a", "b", "c"])
    split = _split(tmp_path, ["a", "c"], ["b"])
    cases = cases_of_split(split, str(dataset), "training")
    assert [Path(case["image"]).name for case in cases] == ["a.nii.gz", "c.nii.gz"]
    assert Path(cases[0]["label"]).parent.name == "labelsTr"
    assert len(cases_of_split(split, str(dataset), "validation")) == 1


def test_a_case_in_both_parts_is_refused(tmp_path) -> None:
    split = _split(tmp_path, ["a", "b"], ["b"])
    with pytest.raises(InputError, match=r"\['b'\] in both") as error:
        cases_of_split(split, str(tmp_path), "training")
    assert error.value.code == "split-overlap"


def test_missing_files_are_counted_and_named(tmp_path) -> None:
    dataset = _dataset(tmp_path, ["a"])
    split = _split(tmp_path, ["a", "b"], [])
    with pytest.raises(InputError, match=r"2 missing files.*b\.nii\.gz.*dataset_dir") as error:
        cases_of_split(split, str(dataset), "training")
    assert error.value.code == "missing-case"


def test_the_hippocampus_split_is_four_fifths_and_disjoint() -> None:
    split = json.loads(HIPPOCAMPUS.read_text())
    assert len(split["training"]) == 176
    assert len(split["validation"]) == 44
    assert not set(split["training"]) & set(split["validation"])
