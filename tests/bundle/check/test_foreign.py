"""Bundles made elsewhere: what MONAI refuses is an error, what medseg wants a warning."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.check import check_bundle
from tests.bundle.check.broken import REMOVED, change, listed, rename
from tests.zoo_bundle import write_zoo_bundle
from tests.zoo_style import SWIN, write_style


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle in the form of the model zoo, once."""
    return write_zoo_bundle(tmp_path_factory.mktemp("zoo") / "organ_ct_segmentation")


@pytest.fixture
def bundle(zoo: Path, tmp_path: Path) -> Path:
    """Copy it, with the metadata of today."""
    copy = shutil.copytree(zoo, tmp_path / "zoo")
    change(copy, "metadata", "schema", "https://example.org/meta_schema_20240725.json")
    rename(copy, "metadata", "optional_packages_version", "required_packages_version")
    return copy


def test_a_bundle_of_the_model_zoo_passes(bundle: Path) -> None:
    assert check_bundle(bundle) == []


def test_metadata_of_an_old_schema_are_told_once_as_a_warning(zoo: Path) -> None:
    (fault,) = check_bundle(zoo)
    assert (fault.code, fault.key, fault.severity) == ("old-schema", "schema", "warning")
    assert "rename optional_packages_version to required_packages_version" in fault.suggestion


FAULTS = [
    # file, key, value, code, severity, part of the suggestion
    ("metadata", "changelog", REMOVED, "metadata-missing", "warning", "changelog"),
    ("metadata", "version", "9.0.0", "version-not-in-changelog", "warning", "9.0.0"),
    ("metadata", "authors", "", "empty-text", "warning", "authors"),
    ("metadata", "task", REMOVED, "metadata-missing", "error", "task"),
    ("train", "train/deterministic_transforms/4/a_max", 200, "preprocessing-differs", "warning",
     "a_max"),
    ("inference", "network_def/channels", [4, 8, 4], "network-differs", "error", "[4, 8, 8]"),
    ("inference", "network_def/img_size", 96, "unknown-argument", "error", "remove img_size"),
    ("inference", "postprocessing/transforms/0/_target_", "Activationd", "unknown-target",
     "error", "Activationsd"),
    ("inference", "checkpointloader/load_dict/model", "@netwrk", "unresolved-reference", "error",
     "@network"),
    ("evaluate", "validate#handlers/1/metrics", ["val_acc"], "unknown-metric", "warning",
     "val_accuracy"),
    ("evaluate", "validate#dataset#cache_rat", 0, "unknown-argument", "error", "cache_rate"),
    ("inference", "run", REMOVED, "missing-key", "error", "add run"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda row: f"{row[3]}-{row[1]}")
def test_a_fault_is_an_error_where_monai_stumbles_and_else_a_warning(
    bundle: Path, fault: tuple
) -> None:
    file, key, value, code, severity, suggestion = fault
    change(bundle, file, key, value)
    found = check_bundle(bundle)
    assert [(one.code, one.severity) for one in found] == [(code, severity)], listed(found)
    assert suggestion in found[0].suggestion


def test_run_by_its_old_name_is_a_warning(bundle: Path) -> None:
    rename(bundle, "inference", "run", "evaluating")
    (fault,) = check_bundle(bundle)
    assert (fault.code, fault.severity) == ("missing-key", "warning")
    assert fault.suggestion == "rename evaluating to run"


def test_regions_are_told_by_the_postprocessing(bundle: Path) -> None:
    steps: list[dict[str, Any]] = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
    ]
    change(bundle, "inference", "postprocessing/transforms", steps)
    assert [one.code for one in check_bundle(bundle) if one.code != "unused-key"] == []


@pytest.mark.parametrize("name", ["LICENSE", "docs/README.md"])
def test_a_missing_file_is_a_warning(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert [(one.code, one.severity) for one in check_bundle(bundle)] == [
        ("missing-file", "warning")
    ]


def test_weights_that_are_to_be_downloaded_are_a_warning_with_the_command(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()
    (bundle / "large_files.yml").write_text("large_files:\n- path: models/model.pt\n")
    (fault,) = check_bundle(bundle)
    assert fault.code == "no-weights"
    assert "download_large_files" in fault.suggestion


def test_configs_alone_lack_metadata_and_nothing_that_monai_needs(
    bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(bundle / "configs", tmp_path / "alone" / "configs")
    (tmp_path / "alone" / "configs" / "metadata.json").unlink()
    found = check_bundle(tmp_path / "alone")
    errors = [(one.code, one.file) for one in found if one.severity == "error"]
    assert errors == [("missing-file", "configs/metadata.json")]


def test_json_that_does_not_parse_names_the_line(bundle: Path) -> None:
    path = bundle / "configs" / "evaluate.json"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1).replace(",\n", "\n", 1))
    (fault,) = check_bundle(bundle)
    assert (fault.code, fault.file, fault.key) == ("unparsable", "configs/evaluate.json", "line 3")


def test_an_argument_that_monai_removed_is_a_warning(tmp_path: Path) -> None:
    found = check_bundle(write_style(tmp_path / "swin", SWIN))
    (fault,) = [one for one in found if one.code == "removed-argument"]
    assert (fault.key, fault.severity) == ("network_def#img_size", "warning")
    assert not [one for one in found if one.severity == "error"], listed(found)


def test_another_task_is_told(bundle: Path) -> None:
    change(bundle, "metadata", "task", "detection of nodules")
    change(bundle, "metadata", "network_data_format/outputs/pred/format", "dict")
    change(bundle, "metadata", "network_data_format/outputs/pred/type", "object")
    (fault,) = [one for one in check_bundle(bundle) if one.code == "other-task"]
    assert fault.value == "detection: its output is dict of object"


def test_torchscript_is_weights(bundle: Path) -> None:
    (bundle / "models").mkdir(exist_ok=True)
    (bundle / "models/model.pt").rename(bundle / "models/model.ts")
    assert "no-weights" not in [fault.code for fault in check_bundle(bundle)]


def test_a_list_of_the_values_of_a_mask_is_no_error(bundle: Path) -> None:
    change(bundle, "metadata", "network_data_format/outputs/pred/value_range", [0, 1, 2])
    (fault,) = check_bundle(bundle)
    assert (fault.code, fault.severity) == ("metadata-type", "warning")
