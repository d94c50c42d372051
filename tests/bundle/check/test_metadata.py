"""Faults of the metadata: each is found, with its place and the way out, and nothing else."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from medseg.bundle.check import check_bundle
from tests.bundle.check.broken import REMOVED, bundle, change, only, whole
from tests.real_data import data_folder
from tests.whole_bundle import metadata

__all__ = ["bundle", "whole"]  # fixtures

FORMAT = "network_data_format"

METADATA_FAULTS = [
    ("version", REMOVED, "metadata-missing", "error", "0.1.0"),
    ("authors", REMOVED, "metadata-missing", "error", "authors"),
    ("changelog", REMOVED, "metadata-missing", "error", "changelog"),
    ("task", 3, "metadata-type", "error", "str"),
    ("authors", "", "empty-text", "error", "authors"),
    ("network_data_format/outputs/pred/channel_def/1", "", "empty-text", "error", "1"),
    ("version", "0.2.0", "version-not-in-changelog", "error", "0.2.0"),
    ("monai_version", "latest", "bad-version", "error", "write"),
    ("monai_version", "0.1.0", "version-mismatch", "warning", "0.1.0"),
    ("pytorch_version", "99.0.0", "version-mismatch", "warning", "99.0.0"),
    ("required_packages_version", {}, "package-not-listed", "warning", "medseg"),
    ("required_packages_version/no-such-package", "1.0.0", "package-not-installed", "warning",
     "no-such-package"),
    ("required_packages_version/nibabel", "99.0.0", "version-mismatch", "warning", "99.0.0"),
    ("network_data_format/inputs/image/num_channels", "one", "metadata-type", "error", "int"),
    ("network_data_format/inputs/image/dtype", REMOVED, "metadata-missing", "error", "dtype"),
    ("network_data_format/inputs/image/dtype", "flaot32", "metadata-type", "error", "float32"),
    ("network_data_format/inputs/image/chanel_def", {}, "unknown-field", "warning", "channel_def"),
    ("network_data_format/inputs/image/spatial_shape/0", None, "metadata-type", "error", "size"),
    ("network_data_format/inputs/image/value_range", [1, 0], "metadata-type", "error", "[0, 1]"),
    ("network_data_format/outputs", REMOVED, "metadata-missing", "error", "gives"),
    ("network_data_format/inputs/image/spatial_shape", [8, 8, 8], "patch-size-differs",
     "warning", "16"),
    ("network_data_format/outputs/pred/channel_def", {"0": "background", "1": "organ"},
     "classes-differ", "error", "list 3 entries"),
    ("network_data_format/outputs/pred/channel_def/2", "organ", "bad-channel-names", "error",
     "own"),
    ("medseg/labels/1", REMOVED, "label-missing", "error", '"index": 2'),
    ("medseg/labels/1/name", "lesion", "label-differs", "error", "tumour"),
    ("medseg/labels/0/color", [1, 2, 300], "bad-color", "error", "[230, 25, 75]"),
    ("medseg/labels/0/code", "10200004", "bad-code", "error", "leave code out"),
    ("medseg/labels/0/code", {"value": "1", "scheme": "SCT"}, "bad-code", "error", "all three"),
    (
        "medseg/labels/0/category",
        {"value": "1" * 17, "scheme": "SCT", "meaning": "x"},
        *("bad-code", "error", "a value of 1 to 16 letters"),
    ),
]  # fmt: skip


@pytest.mark.parametrize("fault", METADATA_FAULTS, ids=lambda row: f"{row[2]}-{row[0]}")
def test_a_fault_of_the_metadata_is_named_with_the_way_out(bundle: Path, fault: tuple) -> None:
    key, value, code, severity, suggestion = fault
    change(bundle, "metadata", key, value)
    found = only(bundle)
    assert (found.code, found.severity) == (code, severity)
    assert suggestion in found.suggestion
    place = key.replace("/", "#")
    assert found.key.startswith(place.rpartition("#")[0]) or place.startswith(found.key)
    in_configs = {"package-not-listed"}
    assert found.file == "configs/metadata.json" or found.code in in_configs


def test_both_versions_are_named_where_they_differ(bundle: Path) -> None:
    change(bundle, "metadata", "monai_version", "0.1.0")
    fault = only(bundle)
    assert "0.1.0" in fault.value
    assert version("monai") in fault.expected


REQUIRED = ("schema", "version", "monai_version", "task", "network_data_format")
CHANGES = [
    *((key, REMOVED) for key in REQUIRED),
    *((key, 3) for key in (*REQUIRED, "changelog", "authors", "required_packages_version")),
    *((f"{FORMAT}/inputs/image/{key}", REMOVED) for key in ("type", "dtype", "value_range")),
    (f"{FORMAT}/inputs/image/spatial_shape", ["*", "16*n", 8]),
    (f"{FORMAT}/outputs/pred/is_patch_data", "yes"),
    (f"{FORMAT}/outputs", REMOVED),
    ("name", "whole"),
]


@pytest.mark.parametrize(("key", "value"), CHANGES)
def test_what_monais_schema_refuses_is_refused_here(bundle: Path, key: str, value: Any) -> None:
    schema = data_folder("../schema") / "meta_schema_20240725.json"
    change(bundle, "metadata", key, value)
    document = json.loads((bundle / "configs" / "metadata.json").read_text())
    validator = jsonschema.Draft201909Validator(json.loads(schema.read_text()))
    kinds = {"metadata-missing", "metadata-type"}
    found = {fault.code for fault in check_bundle(bundle)} & kinds
    assert bool(found) == (not validator.is_valid(document))


def test_the_metadata_of_the_whole_bundle_follows_the_schema() -> None:
    schema = data_folder("../schema") / "meta_schema_20240725.json"
    jsonschema.validate(metadata(), json.loads(schema.read_text()))
