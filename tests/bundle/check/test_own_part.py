"""Faults of medseg's part of the metadata: labels, regions, ensembles, post-processing."""

from pathlib import Path

import pytest

from medseg.bundle.check import check_bundle
from tests.bundle.check.broken import REMOVED, bundle, change, only, whole

__all__ = ["bundle", "whole"]  # fixtures

ARGMAX = "postprocessing#transforms#1"

FAULTS = [
    # key, value, code, severity, reported key below medseg, part of the suggestion
    ("activation", "sofmax", "bad-activation", "error", "activation", "write softmax"),
    ("activation", "sigmoid", "activation-differs", "error", "activation", '"softmax"'),
    ("labels", REMOVED, "label-missing", "warning", "labels", '"index": 1'),
    ("labels", "organ", "metadata-type", "error", "labels", "as list"),
    ("labels/0", "organ", "bad-label", "error", "labels#0", "as such"),
    ("labels/0/index", "1", "bad-label", "error", "labels#0#index", "1"),
    ("labels/1/value", 1, "label-value-twice", "error", "labels#1#value", "its own"),
    ("labels/1/value", 70000, "bad-label", "error", "labels#1#value", "write 2"),
    ("labels/1/value", 9, "label-value-differs", "warning", "labels#1#value", "write 2"),
    ("labels/2", {"index": 3, "name": "cyst"}, "label-surplus", "error", "labels#2", "class 3"),
    ("ensemble", "models/model.pt", "metadata-type", "error", "ensemble", "as list"),
    ("ensemble", [3], "metadata-type", "error", "ensemble#0", "as str"),
    ("postprocessing/0/label", "organs", "bad-postprocessing", "error",
     "postprocessing#0#label", "write organ"),
    ("postprocessing/0/keep", "largest", "bad-postprocessing", "error",
     "postprocessing#0#keep", "largest_component"),
    ("postprocessing/0", {"keep": "largest_component"}, "bad-postprocessing", "error",
     "postprocessing#0", "name the label"),
    ("input/modality", "CT", "metadata-type", "error", "input#modality", "as list"),
    ("input/max_spacing", 3, "unknown-field", "warning", "input#max_spacing", "max_spacing_mm"),
    ("input/channels", [{"name": "T1"}, {"name": "T2"}], "channels-differ", "error",
     "input#channels", "list 1 entry"),
    ("ensembles", [], "unknown-field", "warning", "ensembles", "ensemble"),
    ("", REMOVED, "metadata-missing", "warning", "", '"labels"'),
]  # fmt: skip


@pytest.fixture
def complete(bundle: Path) -> Path:
    """Add all that a trained bundle can state; without faults."""
    change(bundle, "metadata", "medseg/postprocessing", [{"label": "organ", "keep":
           "largest_component"}])  # fmt: skip
    change(bundle, "metadata", "medseg/activation", "softmax")
    change(bundle, "metadata", "medseg/input/min_slices", 16)
    change(bundle, "common", "label_values", [[0], [1], [2]])
    steps = {"_target_": "medseg.transforms.MapLabelsd", "keys": "label", "classes":
             "@label_values", "allow_missing_keys": True}  # fmt: skip
    change(bundle, "common", "preprocessing_transforms/1", steps)
    return bundle


def test_what_a_trained_bundle_states_is_no_fault(complete: Path) -> None:
    change(complete, "metadata", "medseg/ensemble", ["models/model.pt"])
    assert check_bundle(complete) == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda row: f"{row[2]}-{row[0]}")
def test_a_fault_of_medsegs_part_is_named_with_the_way_out(complete: Path, fault: tuple) -> None:
    key, value, code, severity, place, suggestion = fault
    if key == "labels/2":
        change(complete, "metadata", "medseg/labels", [])
        names = ("organ", "tumour", "cyst")
        table = [{"index": n, "name": name} for n, name in enumerate(names, 1)]
        change(complete, "metadata", "medseg/labels", table)
    else:
        change(complete, "metadata", "/".join(filter(None, ("medseg", key))), value)
    found = only(complete)
    assert (found.code, found.severity) == (code, severity)
    assert found.file == "configs/metadata.json"
    assert found.key == "#".join(filter(None, ("medseg", place)))
    assert suggestion in found.suggestion


def test_a_transform_that_takes_regions_from_classes_is_named(complete: Path) -> None:
    change(complete, "inference", "postprocessing/transforms/1",
           {"_target_": "medseg.transforms.RegionsToLabelsd", "keys": "pred",
            "paints": [1, 2, 3]})  # fmt: skip
    found = only(complete)
    assert (found.code, found.key) == ("activation-differs", "medseg#activation")
    assert "postprocessing#transforms#1" in found.expected
