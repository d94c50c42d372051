"""Faults of the configs: each is found, with its place and the way out, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.check import check_bundle
from tests.bundle.check.broken import REMOVED, bundle, change, only, rename, whole

__all__ = ["bundle", "whole"]  # fixtures

CONFIG_FAULTS = [
    # file, key, value, code, reported key, severity, part of the suggestion
    ("train", "train/dataset/data", "@train_case", "unresolved-reference",
     "train#dataset#data", "error", "@train_cases"),
    ("train", "optimizer/lr", "@learning", "unresolved-reference", "optimizer#lr", "error",
     "define learning"),
    ("common", "device", "@network", "circular-reference", "device", "error", "come back"),
    ("common", "ckpt_path", "@bundle_root/models/model.pt", "reference-as-text", "ckpt_path",
     "warning", "$@bundle_root"),
    ("train", "validate/postprocessing", "%train#post", "unresolved-macro",
     "validate#postprocessing", "error", "define train#post"),
    ("train", "validate/postprocessing", "%configs/more.json#post", "missing-macro-file",
     "validate#postprocessing", "error", "add configs/more.json"),
    ("common", "inferer/_target_", "SlidingWindowInfer", "unknown-target", "inferer#_target_",
     "error", "SlidingWindowInferer"),
    ("train", "optimizer/_target_", "torch.optim.SDG", "unknown-target", "optimizer#_target_",
     "error", "torch.optim.SGD"),
    ("train", "optimizer/_target_", "nosuchpackage.SGD", "unknown-target", "optimizer#_target_",
     "error", "nosuchpackage"),
    ("train", "optimizer/_target_", "scripts.optimizer.Mine", "unknown-target",
     "optimizer#_target_", "error", "correct"),
    ("common", "inferer/overlapp", 0.5, "unknown-argument", "inferer#overlapp", "error",
     "overlap"),
    ("common", "inferer/roi_size", REMOVED, "missing-argument", "inferer", "error",
     "add roi_size"),
    ("train", "train/trainer/max_epochs", "$@epochs *", "bad-expression",
     "train#trainer#max_epochs", "error", "correct"),
    ("train", "imports", [], "undefined-name", "images", "error", "$import glob"),
    ("train", "lr", "$useful_workers()", "undefined-name", "lr", "error",
     "$from medseg.training import useful_workers"),
    ("train", "lr", "$flaot(3)", "undefined-name", "lr", "error", "write float"),
    ("common", "device", "$torch.devcie('cpu')", "unknown-attribute", "device", "error",
     "torch.device"),
    ("train", "imports/0", "$import globb as glob", "unknown-import", "imports#0", "error",
     "glob"),
    ("train", "imports/0", "$from glob import globe as glob", "unknown-import", "imports#0",
     "error", "write glob"),
    ("train", "imports/0", "$import glob, os", "ignored-import", "imports#0", "error", "os"),
    ("inference", "keyz", ["image"], "misspelt-key", "keyz", "error", "write keys"),
    ("evaluate", "deep_supervison", False, "misspelt-key", "deep_supervison", "error",
     "deep_supervision"),
    ("evaluate", "validate#evaluator2#network", "@network", "unknown-override",
     "validate#evaluator2#network", "error", "validate#evaluator"),
    ("evaluate", "train#augmentation#7", {}, "unknown-override", "train#augmentation#7", "error",
     "train#augmentation"),
    ("evaluate", "something", 3, "unused-key", "something", "warning", "remove"),
    ("evaluate", "validate#handlers/1/metrics", ["val_mean_dise"], "unknown-metric",
     "validate#handlers#1#metrics", "error", "val_mean_dice"),
    ("inference", "spacing_mm", [1.0, 2.0, 2.0], "preprocessing-differs",
     "preprocessing_transforms#3#pixdim", "error", "pixdim"),
    ("evaluate", "spacing_mm", [1.0, 2.0, 2.0], "preprocessing-differs",
     "preprocessing_transforms#3#pixdim", "error", "pixdim"),
    ("inference", "interp", ["nearest"], "preprocessing-differs",
     "preprocessing_transforms#3#mode", "error", "mode"),
    ("common", "num_classes", 4, "classes-differ", "num_classes", "error", "write 3"),
    ("common", "network_def/out_channels", 4, "classes-differ", "network_def#out_channels",
     "error", "write 3"),
    ("common", "network_def/in_channels", 2, "channels-differ", "network_def#in_channels",
     "error", "write 1"),
    ("common", "patch_size", [16, 16], "dims-differ", "patch_size", "error", "3 sizes"),
    ("common", "spacing_mm", [2.0, 2.0], "dims-differ", "spacing_mm", "error", "3 distances"),
    ("inference", "network_def#filters", [4, 8, 16], "network-differs", "network_def#filters",
     "error", "[4, 8, 8]"),
    ("evaluate", "network_def#filters", [4, 8, 16], "network-differs", "network_def#filters",
     "error", "[4, 8, 8]"),
    ("common", "network_def/_target_", "DynUNett", "unknown-target", "network_def#_target_",
     "error", "DynUNet"),
    ("inference", "run", REMOVED, "missing-key", "run", "error", "add run"),
    ("train", "run", REMOVED, "missing-key", "run", "error", "add run"),
    ("train", "optimizer/params", "$@network.parameters(", "bad-expression",
     "optimizer#params", "error", "correct"),

    ("common", "patch_size", [16, 18, 16], "indivisible-patch", "patch_size", "error", "16"),
    ("common", "network_def/norm_name", "NOPE", "network-not-built", "network_def", "error",
     "network_def"),
]  # fmt: skip


@pytest.mark.parametrize("fault", CONFIG_FAULTS, ids=lambda row: f"{row[3]}-{row[0]}-{row[1]}")
def test_a_fault_of_a_config_is_named_with_the_way_out(bundle: Path, fault: tuple) -> None:
    file, key, value, code, place, severity, suggestion = fault
    change(bundle, file, key, value)
    found = only(bundle)
    assert (found.code, found.key, found.severity) == (code, place, severity)
    assert suggestion in found.suggestion
    assert (bundle / found.file).is_file()


def test_a_whole_bundle_has_no_fault(bundle: Path) -> None:
    assert check_bundle(bundle) == []


@pytest.mark.parametrize("key", ["inferer", "network_def", "preprocessing"])
def test_a_renamed_key_is_one_fault_however_many_places_refer_to_it(bundle: Path, key: str) -> None:
    rename(bundle, "common", key, f"{key}s")
    found = only(bundle)
    assert found.code == "unresolved-reference"
    assert f"rename {key}s to {key}" in found.suggestion or f"write @{key}s" in found.suggestion


@pytest.mark.parametrize("key", ["train", "validate"])
def test_a_renamed_part_of_training_is_one_fault(bundle: Path, key: str) -> None:
    rename(bundle, "train", key, f"{key}e")
    found = only(bundle)
    assert found.file in ("configs/train.yaml", "configs/evaluate.yaml")
    assert f"{key}e" in found.suggestion


def test_a_name_that_is_not_imported_is_one_fault_however_often_it_is_used(bundle: Path) -> None:
    change(bundle, "train", "imports", [])
    change(bundle, "train", "lr", "$len(glob.glob('*')) * 0.1")
    found = only(bundle)
    assert (found.code, found.suggestion) == ("undefined-name", "add $import glob to imports")


@pytest.mark.parametrize("stem", ["inference", "evaluate"])
def test_an_overlay_that_overrides_what_training_has_is_named(bundle: Path, stem: str) -> None:
    change(bundle, stem, "spacing_mm", [1.0, 2.0, 2.0])
    assert only(bundle).value == f"[1.0, 2.0, 2.0], which is spacing_mm of configs/{stem}.yaml"


def test_overlays_may_state_again_what_common_says(bundle: Path) -> None:
    for stem in ("train", "inference", "evaluate"):
        change(bundle, stem, "spacing_mm", [2.0, 2.0, 2.0])
        change(bundle, stem, "network_def#filters", [4, 8, 8])
    assert check_bundle(bundle) == []


def test_a_transform_that_evaluation_lacks_is_named(bundle: Path) -> None:
    steps = [f"@preprocessing_transforms#{index}" for index in (0, 1, 2, 3)]
    change(bundle, "evaluate", "preprocessing#transforms", steps)
    fault = only(bundle)
    assert (fault.code, fault.value) == ("preprocessing-differs", "no NormalizeIntensityd")
    assert "of evaluate" in fault.suggestion


def test_a_transform_that_inference_lacks_is_named(bundle: Path) -> None:
    steps = [f"@preprocessing_transforms#{index}" for index in (0, 2, 3)]
    change(bundle, "inference", "preprocessing#transforms", steps)
    fault = only(bundle)
    assert (fault.code, fault.value) == ("preprocessing-differs", "no NormalizeIntensityd")
    assert "preprocessing_transforms#4" in fault.expected


def test_a_transform_that_inference_alone_has_is_named(bundle: Path) -> None:
    steps: list[Any] = [f"@preprocessing_transforms#{index}" for index in range(5)]
    steps.insert(4, {"_target_": "ScaleIntensityd", "keys": "image"})
    change(bundle, "inference", "preprocessing#transforms", steps)
    fault = only(bundle)
    assert (fault.code, fault.value) == ("preprocessing-differs", "ScaleIntensityd")
    assert (fault.file, fault.key) == ("configs/inference.yaml", "preprocessing#transforms#4")


def test_transforms_of_the_label_alone_and_other_ways_of_reading_do_not_count(bundle: Path) -> None:
    steps: list[Any] = [f"@preprocessing_transforms#{index}" for index in range(5)]
    steps[0] = {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"}
    steps += [{"_target_": "AsDiscreted", "keys": "label", "to_onehot": 3}]
    change(bundle, "inference", "preprocessing#transforms", steps)
    assert check_bundle(bundle) == []


def test_a_fault_of_what_a_macro_copies_is_said_once(bundle: Path) -> None:
    change(bundle, "train", "validate/dataset", "%train#dataset")
    assert check_bundle(bundle) == []
    change(bundle, "train", "train/dataset/progres", True)
    assert only(bundle).key == "train#dataset#progres"


def test_a_reference_that_only_other_workflows_need_is_no_fault(bundle: Path) -> None:
    change(bundle, "common", "half_rate", "$@lr / 2")  # lr is of train.yaml
    change(bundle, "train", "optimizer/lr", "@half_rate")
    assert check_bundle(bundle) == []
    change(bundle, "inference", "dataloader/num_workers", "@half_rate")
    assert only(bundle).code == "unresolved-reference"


def test_a_key_that_another_workflow_uses_is_not_without_use(bundle: Path) -> None:
    change(bundle, "train", "seed", 3)
    change(bundle, "train", "initialize", ["$monai.utils.set_determinism(seed=@seed)"])
    change(bundle, "evaluate", "initialize", [])  # evaluation does without it
    assert check_bundle(bundle) == []


def test_expressions_and_modules_of_the_bundle_are_never_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch = "$__import__('pathlib').Path('should-not-exist').touch()"
    change(bundle, "common", "output_dir", touch)
    (bundle / "scripts").mkdir()
    code = "from pathlib import Path\nPath('should-not-exist').touch()\nclass Net: ...\n"
    (bundle / "scripts" / "net.py").write_text(code)
    change(bundle, "common", "network_def", {"_target_": "scripts.net.Net"})
    change(bundle, "train", "imports", ["$import glob", "$from scripts.net import Net"])
    check_bundle(bundle)
    change(bundle, "common", "network_def", {"_target_": "torch.hub.load", "repo_or_dir": "a/b",
                                             "model": "c"})  # fmt: skip
    check_bundle(bundle)
    assert not Path("should-not-exist").exists()


def test_a_module_of_the_bundle_is_looked_up_without_running_it(bundle: Path) -> None:
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "net.py").write_text("class Net: ...\n")
    change(bundle, "common", "inferer", {"_target_": "scripts.net.Nett"})
    fault = only(bundle)
    assert (fault.code, fault.key) == ("unknown-target", "inferer#_target_")
    assert "does not define Nett" in fault.expected
