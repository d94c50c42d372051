"""The metric of validation has to score the labels that the metadata name."""

from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.check import check_bundle
from tests.bundle.check.broken import bundle, change, only, whole

__all__ = ["bundle", "whole"]  # fixtures

METRIC = "validate/evaluator/key_val_metric/val_mean_dice"
PLACE = "validate#evaluator#key_val_metric#val_mean_dice"


def _score(bundle: Path, **arguments: Any) -> None:
    metric = {"_target_": "medseg.training.CaseDice", **arguments}
    change(bundle, "train", METRIC, metric)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"names": []},
        {"names": ["organ", "tumour"]},
        {"names": ["organ", "tumour"], "activation": "softmax"},
        {"names": "$['organ', 'tumour']"},
    ],
)
def test_names_of_the_labels_or_none_are_no_fault(bundle: Path, arguments: dict[str, Any]) -> None:
    _score(bundle, **arguments)
    assert check_bundle(bundle) == []


@pytest.mark.parametrize(
    "names",
    [["organ"], ["organ", "tumour", "cyst"], ["tumour", "organ"], ["organ", "tumor"], [1, 2]],
)
def test_names_of_other_labels_are_an_error(bundle: Path, names: list[Any]) -> None:
    _score(bundle, names=names)
    fault = only(bundle)
    assert (fault.code, fault.severity) == ("metric-labels-differ", "error")
    assert (fault.file, fault.key) == ("configs/train.yaml", f"{PLACE}#names")
    assert fault.suggestion == 'write ["organ", "tumour"]'


def test_names_that_are_stated_elsewhere_are_followed(bundle: Path) -> None:
    _score(bundle, names="@names")
    change(bundle, "common", "names", ["organ", "tumour"])
    assert check_bundle(bundle) == []
    change(bundle, "common", "names", ["organ"])
    fault = only(bundle)
    assert (fault.file, fault.key) == ("configs/common.yaml", "names")


@pytest.mark.parametrize("stated", [True, False])
def test_an_activation_other_than_the_metadatas_is_an_error(bundle: Path, stated: bool) -> None:
    if stated:
        change(bundle, "metadata", "medseg/activation", "softmax")
    _score(bundle, names=["organ", "tumour"], activation="sigmoid")
    fault = only(bundle)
    assert (fault.code, fault.severity) == ("metric-activation-differs", "error")
    assert (fault.file, fault.key) == ("configs/train.yaml", f"{PLACE}#activation")
    assert fault.suggestion == "write softmax"


def test_a_metric_without_activation_takes_the_largest_channel(bundle: Path) -> None:
    _score(bundle, names=["background", "organ", "tumour"])
    change(bundle, "metadata", "medseg/activation", "sigmoid")
    codes = {fault.code for fault in check_bundle(bundle)}
    assert "activation-differs" in codes, "the metadata's own fault is the first to correct"
    assert "metric-activation-differs" not in codes


def test_a_label_of_another_name_in_the_metadata_is_one_fault(bundle: Path) -> None:
    _score(bundle, names=["organ", "tumour"])
    names = "network_data_format/outputs/pred/channel_def"
    change(bundle, "metadata", f"{names}/1", "liver")
    assert only(bundle).code == "label-differs"
