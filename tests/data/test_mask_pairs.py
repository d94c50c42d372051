"""Pairing of masks by case id: what fits is found, what does not is listed."""

from pathlib import Path

import pytest

from medseg.data.mask_pairs import MaskPair, find_masks, pair_masks
from medseg.errors import UsageError


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def _pairs(tmp_path: Path, preds: list[str], labels: list[str]) -> tuple[MaskPair, ...]:
    return pair_masks(_touch(tmp_path / "p", *preds), _touch(tmp_path / "l", *labels))


def _short(pairs: tuple[MaskPair, ...]) -> list[tuple[str, str | None, str | None, str | None]]:
    return [
        (
            pair.case,
            pair.pred and pair.pred.name,
            pair.label and pair.label.name,
            pair.problem and pair.problem.code,
        )
        for pair in pairs
    ]


def test_the_folders_of_segment_are_paired_with_flat_labels(tmp_path: Path) -> None:
    preds = ["a/segmentation.nii.gz", "a/preview.png", "b/segmentation.nii.gz", "summary.json"]
    assert _short(_pairs(tmp_path, preds, ["b.nii.gz", "a.nrrd"])) == [
        ("a", "segmentation.nii.gz", "a.nrrd", None),
        ("b", "segmentation.nii.gz", "b.nii.gz", None),
    ]


def test_an_ending_is_left_out_where_that_is_unambiguous(tmp_path: Path) -> None:
    got = _pairs(tmp_path, ["a_pred.nii.gz", "b_seg.nii"], ["a.nii.gz", "b_label.nii.gz"])
    assert _short(got) == [
        ("a", "a_pred.nii.gz", "a.nii.gz", None),
        ("b", "b_seg.nii", "b_label.nii.gz", None),
    ]


def test_equal_names_go_first_and_the_rest_is_listed(tmp_path: Path) -> None:
    got = _pairs(tmp_path, ["a.nii", "a_seg.nii", "c.nii"], ["a.nii", "d.nii"])
    assert _short(got) == [
        ("a", "a.nii", "a.nii", None),
        ("a_seg", "a_seg.nii", None, "no-label"),
        ("c", "c.nii", None, "no-label"),
        ("d", None, "d.nii", "no-prediction"),
    ]


def test_an_ambiguous_ending_pairs_nothing(tmp_path: Path) -> None:
    got = _pairs(tmp_path, ["x.nii", "a_seg.nii", "a_pred.nii"], ["x.nii", "a.nii"])
    assert _short(got) == [
        ("a", None, "a.nii", "ambiguous-pair"),
        ("a_pred", "a_pred.nii", None, "ambiguous-pair"),
        ("a_seg", "a_seg.nii", None, "ambiguous-pair"),
        ("x", "x.nii", "x.nii", None),
    ]


def test_two_files_are_one_case_whatever_their_names(tmp_path: Path) -> None:
    _touch(tmp_path, "CT_3_abc/segmentation.nii.gz", "truth.nii.gz", "other.nii.gz")
    truth = tmp_path / "truth.nii.gz"
    assert pair_masks(tmp_path / "CT_3_abc/segmentation.nii.gz", truth)[0].case == "CT_3_abc"
    assert pair_masks(tmp_path / "other.nii.gz", truth)[0].case == "other"


def test_hidden_files_and_other_formats_of_a_mask_are_left_out(tmp_path: Path) -> None:
    folder = _touch(
        tmp_path, "._a.nii.gz", "a.nii.gz", "b/segmentation.png", "b/segmentation.nii.gz"
    )
    assert find_masks(folder) == {
        "a": folder / "a.nii.gz",
        "b": folder / "b" / "segmentation.nii.gz",
    }


def test_two_files_of_one_stem_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="different names") as caught:
        find_masks(_touch(tmp_path, "a.nii.gz", "a.nrrd"))
    assert caught.value.code == "ambiguous-pair"


@pytest.mark.parametrize(
    ("preds", "labels"), [([], ["a.nii"]), (["a.nii"], ["notes.txt"]), (["a.nii"], ["b.nii"])]
)
def test_nothing_to_score_is_wrong_usage(
    preds: list[str], labels: list[str], tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    with pytest.raises(UsageError, match="must hold masks") as caught:
        _pairs(tmp_path, preds, labels)
    assert caught.value.code == "no-cases"


def test_missing_paths_and_a_file_with_a_folder_are_wrong_usage(tmp_path: Path) -> None:
    _touch(tmp_path, "a.nii", "l/a.nii")
    with pytest.raises(UsageError, match="must exist") as caught:
        pair_masks(tmp_path / "nowhere", tmp_path)
    assert caught.value.code == "not-found"
    with pytest.raises(UsageError, match="two files or two folders"):
        pair_masks(tmp_path / "a.nii", tmp_path / "l")
