"""Files that are missing or do not parse."""

import shutil
from pathlib import Path

import pytest

from medseg.bundle.check import check_bundle
from tests.bundle.check.broken import bundle, change, only, whole

__all__ = ["bundle", "whole"]  # fixtures


@pytest.mark.parametrize("name", ["LICENSE", "docs/README.md", "configs/metadata.json"])
def test_a_missing_file_is_an_error(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    fault = only(bundle)
    assert (fault.code, fault.file, fault.severity) == ("missing-file", name, "error")


def test_a_missing_config_is_an_error_for_inference_alone(bundle: Path) -> None:
    (bundle / "configs" / "evaluate.yaml").unlink()
    fault = only(bundle)
    assert (fault.code, fault.severity) == ("missing-config", "warning")
    (bundle / "configs" / "inference.yaml").unlink()
    assert [fault.severity for fault in check_bundle(bundle)] == ["error", "warning"]


def test_an_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    assert [fault.code for fault in check_bundle(tmp_path)] == ["missing-file"]


def test_a_card_that_names_a_missing_config_is_a_warning(bundle: Path) -> None:
    (bundle / "docs" / "README.md").write_text("run configs/inference_fast.yaml")
    fault = only(bundle)
    assert (fault.value, fault.severity) == ("configs/inference_fast.yaml", "warning")


@pytest.mark.parametrize(
    "path", ["$@bundle_root + '/configs/split.json'", "$os.path.join(@folder, 'split.json')"]
)
def test_a_file_of_the_bundle_that_a_config_names_has_to_be_there(bundle: Path, path: str) -> None:
    (bundle / "configs" / "splits.json").write_text("{}")
    change(bundle, "train", "imports", ["$import glob", "$import os"])
    change(bundle, "train", "folder", "$@bundle_root + '/configs'")
    change(bundle, "train", "split_file", path)
    change(bundle, "train", "train/dataset/data", "$[@split_file, @folder, @train_cases]")
    fault = only(bundle)
    assert (fault.code, fault.key, fault.suggestion) == (
        "missing-file",
        "split_file",
        "write splits.json",
    )


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("inference.yaml", "keys: [image]\nrun: [a\n", "line 3"),
        ("inference.yaml", "keys: [image]\n\tdataset: 3\n", "line 2"),
        ("common.yaml", "keys: [image\nlr: 3\n", "line 2"),
        ("metadata.json", '{\n  "version": "0.1.0",\n}\n', "line 3"),
        ("inference.yaml", "- a list\n", ""),
        ("splits.json", '{\n  "folds": [\n}\n', "line 3"),
        ("common.yaml", "keys: [image]\nlr: {{ rate }}\n", "line 2"),
        ("common.yaml", "lr: {0.1: 3, [a]: 4}\n", "line 1"),
        ("common.yaml", "lr: 1\nday: 2026-13-45\n", "line 2"),
        ("common.yaml", "lr: !!map [1]\n", "line 1"),
        ("common.yaml", "keys: &all [*all]\n", "keys#0"),
        ("common.yaml", "lr: &all {a: [1, {b: *all}]}\n", "lr#a#1#b"),
        pytest.param("common.yaml", f"keys: {'[' * 500}{']' * 500}\n", "", id="deep"),
    ],
)
def test_a_file_that_does_not_parse_names_the_line(
    bundle: Path, name: str, text: str, line: str
) -> None:
    (bundle / "configs" / name).write_text(text)
    fault = only(bundle)
    assert (fault.code, fault.file, fault.key) == ("unparsable", f"configs/{name}", line)


def test_a_placeholder_of_a_template_is_told_to_be_quoted(bundle: Path) -> None:
    (bundle / "configs" / "common.yaml").write_text("lr: {{ rate }}\n")
    fault = only(bundle)
    assert "{{ name }}" in fault.value
    assert "quote" in fault.suggestion


def test_a_value_that_several_keys_share_is_no_fault(bundle: Path) -> None:
    (bundle / "configs" / "more.yaml").write_text("a: &all [1]\nb: [*all, *all]\n")
    assert check_bundle(bundle) == []


@pytest.mark.parametrize("stem", ["train", "evaluate", "inference"])
def test_any_config_that_does_not_parse_is_one_fault(bundle: Path, stem: str) -> None:
    path = bundle / "configs" / f"{stem}.yaml"
    path.write_text(path.read_text() + "last: 'not closed\n")
    assert only(bundle).code == "unparsable"


def test_a_key_that_stands_twice_is_an_error(bundle: Path) -> None:
    config = bundle / "configs" / "train.yaml"
    lines = len(config.read_text().splitlines())
    config.write_text(config.read_text() + "lr: 0.1\n")
    fault = only(bundle)
    assert (fault.code, fault.value, fault.key) == ("duplicate-key", "lr", f"line {lines + 1}")


def test_no_weights_is_a_warning_with_the_train_command(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()
    fault = only(bundle)
    assert (fault.code, fault.severity) == ("no-weights", "warning")
    assert "medseg train whole --dataset DIR" in fault.suggestion


def test_each_missing_member_of_an_ensemble_is_named(bundle: Path) -> None:
    members = [f"models/fold_{fold}/model.pt" for fold in range(2)]
    change(bundle, "metadata", "medseg/ensemble", members)
    found = check_bundle(bundle)
    assert [(fault.code, fault.file) for fault in found] == [("no-weights", m) for m in members]


def test_weights_under_another_name_than_the_config_loads_are_named(bundle: Path) -> None:
    change(bundle, "common", "ckpt_path", "$@bundle_root + '/models/best.pt'")
    fault = only(bundle)
    assert (fault.code, fault.file) == ("no-weights", "models/best.pt")
    assert "models/model.pt" in fault.suggestion


def _of_folds(bundle: Path) -> Path:
    """Give the bundle the weights of two folds, and return those that MONAI's commands load."""
    members = [f"models/fold_{fold}/model.pt" for fold in range(2)]
    change(bundle, "metadata", "medseg/ensemble", members)
    for member in members:
        (bundle / member).parent.mkdir()
        shutil.copy(bundle / "models" / "model.pt", bundle / member)
    return bundle / "models" / "model.pt"


def test_a_checkpoint_that_monai_loads_has_to_be_there_beside_an_ensemble(bundle: Path) -> None:
    weights = _of_folds(bundle)
    assert check_bundle(bundle) == []
    weights.unlink()
    found = check_bundle(bundle)
    assert {(fault.code, fault.severity) for fault in found} == {("missing-checkpoint", "warning")}
    assert [(fault.file, fault.key) for fault in found] == [("configs/common.yaml", "ckpt_path")]
    assert "copy models/fold_0/model.pt to models/model.pt" in found[0].suggestion


def test_a_checkpoint_that_evaluation_alone_loads_has_to_be_there(bundle: Path) -> None:
    change(bundle, "evaluate", "ckpt_path", "$@bundle_root + '/models/last.pt'")
    fault = only(bundle)
    assert (fault.code, fault.file, fault.value) == (
        "missing-checkpoint",
        "configs/evaluate.yaml",
        "models/last.pt",
    )


def test_checkpoints_of_a_bundle_without_weights_are_not_looked_for(bundle: Path) -> None:
    _of_folds(bundle).unlink()
    (bundle / "models" / "fold_1" / "model.pt").unlink()
    assert only(bundle).code == "no-weights"


def test_weights_of_a_fold_alone_are_told_how_to_use(bundle: Path) -> None:
    weights = _of_folds(bundle)
    change(bundle, "metadata", "medseg/ensemble", [])
    weights.unlink()
    fault = only(bundle)
    assert (fault.code, fault.file) == ("no-weights", "models/model.pt")
    assert "models/fold_0/model.pt or models/fold_1/model.pt" in fault.suggestion
