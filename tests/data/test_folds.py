import json
from pathlib import Path

import pytest

from medseg.data import TrainingCase, cases_of_fold, make_folds
from medseg.errors import InputError
from tests.data.datasets import write_msd


def _cases(count: int, *splits: str) -> list[TrainingCase]:
    marks = splits or ("",) * count
    return [
        TrainingCase(f"c{n:02d}", (Path("i"),), Path("l"), mark)
        for n, mark in zip(range(count), marks, strict=True)
    ]


def test_each_case_validates_once_and_never_where_it_trains() -> None:
    document = make_folds(_cases(23))
    validated = [case for fold in document["folds"] for case in fold["validation"]]
    assert sorted(validated) == [f"c{n:02d}" for n in range(23)]
    for fold in document["folds"]:
        assert not set(fold["training"]) & set(fold["validation"])
        assert len(fold["training"]) + len(fold["validation"]) == 23


def test_folds_do_not_depend_on_the_order_of_the_cases() -> None:
    assert make_folds(_cases(11)) == make_folds(_cases(11)[::-1])
    assert make_folds(_cases(11), seed=1) != make_folds(_cases(11), seed=2)


def test_few_cases_have_few_folds() -> None:
    assert len(make_folds(_cases(3))["folds"]) == 3
    with pytest.raises(InputError, match="two labelled cases"):
        make_folds(_cases(1))


def test_the_datasets_own_split_is_kept() -> None:
    document = make_folds(_cases(4, "training", "validation", "", "test"))
    assert document == {
        "folds": [{"training": ["c00", "c02"], "validation": ["c01"]}],
        "test": ["c03"],
    }


def test_the_datasets_own_folds_are_kept() -> None:
    document = make_folds(_cases(4, "0", "1", "0", "test"))
    assert [fold["validation"] for fold in document["folds"]] == [["c00", "c02"], ["c01"]]


def test_splits_of_two_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="got \\['0', 'training'\\]"):
        make_folds(_cases(2, "0", "training"))


def test_cases_of_a_fold_have_their_files(tmp_path: Path) -> None:
    root = write_msd(tmp_path / "data", count=4)
    splits = tmp_path / "splits.json"
    fold = {"training": ["toy_000", "toy_002"], "validation": ["toy_001"]}
    splits.write_text(json.dumps({"folds": [fold]}))
    cases = cases_of_fold(str(root), str(splits), 0, "training")
    assert [case["case"] for case in cases] == ["toy_000", "toy_002"]
    assert all(Path(str(case[key])).is_file() for case in cases for key in ("image", "label"))
    with pytest.raises(InputError, match="fold must be from 0 to 0"):
        cases_of_fold(str(root), str(splits), 1, "training")


def test_a_case_that_is_missing_or_twice_in_a_fold_is_named(tmp_path: Path) -> None:
    root = write_msd(tmp_path / "data", count=2)
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"folds": [{"training": ["ghost"], "validation": []}]}))
    with pytest.raises(InputError, match="the first ghost"):
        cases_of_fold(str(root), str(splits), 0, "training")
    splits.write_text(json.dumps({"folds": [{"training": ["a"], "validation": ["a"]}]}))
    with pytest.raises(InputError, match=r"\['a'\] twice"):
        cases_of_fold(str(root), str(splits), 0, "training")
