"""Bundles without faults pass: those of the repository, and whatever a plan writes."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from medseg.bundle.check import check_bundle
from medseg.bundle.write import write_bundle
from medseg.planning import make_plan
from tests.bundle.check.broken import REMOVED, change, listed, only
from tests.planning.test_plan import _dataset, _fingerprint

REPOSITORY = Path(__file__).parents[3]
BUNDLES = sorted(path.parent for path in (REPOSITORY / "bundles").glob("*/configs"))
SPLITS = {"folds": [{"training": ["a"], "validation": ["b"]}], "test": []}
CUBE = _fingerprint((1, 1, 1), (60, 60, 60))

PLANS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    **{f"classes-{net}": (_dataset(), CUBE, {"network": net})
       for net in ("dynunet", "unet", "segresnet")},
    **{f"regions-{net}": (_dataset("MR", regions=True), CUBE, {"network": net})
       for net in ("dynunet", "segresnet")},
    "channels": (_dataset("MR", "MR", "PT"), _fingerprint((1, 1, 1), (60, 60, 60), channels=3), {}),
    "thin": (_dataset("MR"), _fingerprint((0.7, 0.7, 8.0), (320, 300, 5)), {}),
    "2d": (_dataset("RGB"), _fingerprint((1.0, 1.0), (360, 480)), {}),
    "2d-unet": (_dataset("RGB"), _fingerprint((1.0, 1.0), (360, 480)), {"network": "unet"}),
}  # fmt: skip


def _planned(kind: str, folder: Path) -> Path:
    dataset, fingerprint, options = PLANS[kind]
    plan = make_plan(dataset, fingerprint, name="planned", **options)
    return write_bundle(plan.spec, folder / "planned", plan=plan.as_json(), splits=SPLITS)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_every_bundle_of_the_repository_passes(bundle: Path) -> None:
    found = check_bundle(bundle)
    has_weights = (bundle / "models" / "model.pt").is_file()
    assert [fault.code for fault in found] == ([] if has_weights else ["no-weights"]), listed(found)
    assert all(fault.severity == "warning" for fault in found)


@pytest.mark.parametrize("kind", PLANS)
def test_a_planned_bundle_passes_and_says_that_it_has_no_weights(kind: str, tmp_path: Path) -> None:
    found = only(_planned(kind, tmp_path))
    assert (found.code, found.severity) == ("no-weights", "warning")
    assert "medseg train planned --dataset DIR" in found.suggestion


def _train(bundle: Path, members: list[str]) -> None:
    parser = ConfigParser(yaml.safe_load((bundle / "configs" / "common.yaml").read_text()))
    network = parser.get_parsed_content("network_def")
    for member in members:
        (bundle / member).parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), bundle / member)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plan a bundle of regions, and give it the weights of two folds."""
    bundle = _planned("regions-segresnet", tmp_path_factory.mktemp("trained"))
    members = [f"models/fold_{fold}/model.pt" for fold in range(2)]
    _train(bundle, [*members, "models/model.pt"])
    change(bundle, "metadata", "medseg/ensemble", members)
    keep = [{"label": "whole", "keep": "largest_component"}]
    change(bundle, "metadata", "medseg/postprocessing", keep)
    return bundle


def test_a_trained_bundle_with_an_ensemble_passes(trained: Path) -> None:
    assert check_bundle(trained) == []


REGION_FAULTS = [
    ("metadata", "medseg/regions/1/name", "kernel", "regions-differ", "write 'core'"),
    ("metadata", "medseg/regions/1/values", [1], "regions-differ", "write [2]"),
    ("metadata", "medseg/regions/1/channel", 5, "regions-differ", "number"),
    ("metadata", "medseg/activation", REMOVED, "activation-differs", '"sigmoid"'),
    ("metadata", "medseg/labels/1/name", "kernel", "label-differs", "write 'core'"),
    ("metadata", "medseg/labels/1", REMOVED, "label-missing", '"index": 2'),
    ("common", "region_values", [[1, 2]], "classes-differ", "list 2 entries"),
    ("train", "train/source/transform", "@preprocessing_transforms", "unknown-argument",
     "transforms"),
    ("train", "train/trainer/train_handlers/0", "@train#logs", "unresolved-reference",
     "@train#log"),
    ("evaluate", "validate#evaluator#key_val_metrics", {}, "unknown-argument", "key_val_metric"),
    ("inference", "types", ["float32", "uint8"], None, ""),
]  # fmt: skip


@pytest.mark.parametrize("fault", REGION_FAULTS, ids=lambda row: f"{row[3]}-{row[1]}")
def test_a_fault_of_a_trained_bundle_is_named(trained: Path, tmp_path: Path, fault: tuple) -> None:
    file, key, value, code, suggestion = fault
    bundle = shutil.copytree(trained, tmp_path / "broken")
    change(bundle, file, key, value)
    if code is None:
        assert check_bundle(bundle) == []  # how the network is fed is not compared
        return
    found = only(bundle)
    assert found.code == code
    assert suggestion in found.suggestion
