"""Every check finds its fault, names the place and the way out, and nothing else is reported."""

import json
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from medseg.bundle.check import check_bundle
from tests.bundle.check.broken import REMOVED, bundle, change, only
from tests.real_data import data_folder
from tests.toy_bundle import write_toy_bundle
from tests.whole_bundle import metadata, network, write_metadata

__all__ = ["bundle"]  # a fixture

LONGEST_FAULT = 10
FORMAT = "network_data_format"

CONFIG_FAULTS = [
    # file, key, value, code, reported key, severity, part of the suggestion
    ("train", "train/dataset/data", "@train_case", "unresolved-reference",
     "train#dataset#data", "error", "@train_cases"),
    ("train", "optimizer/lr", "@learning", "unresolved-reference", "optimizer#lr", "error",
     "define learning"),
    ("common", "device", "@network", "circular-reference", None, "error", "come back"),
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
    ("inference", "interp", ["nearest"], "preprocessing-differs",
     "preprocessing_transforms#3#mode", "error", "mode"),
    ("common", "num_classes", 4, "classes-differ", None, "error", "4"),
    ("common", "network_def/in_channels", 2, "channels-differ",
     "network_data_format#inputs#image#num_channels", "error", "2"),
    ("common", "patch_size", [16, 18, 16], "indivisible-patch", "patch_size", "error", "16"),
    ("common", "network_def/norm_name", "NOPE", "network-not-built", "network_def", "error",
     "network_def"),
]  # fmt: skip

ALSO = {
    "circular-reference": {"circular-reference"},
    "classes-differ": {"weights-mismatch"},
    "channels-differ": {"weights-mismatch"},
    "indivisible-patch": {"patch-size-differs"},
    "unresolved-macro": {"unresolved-reference"},
    "missing-macro-file": {"unresolved-reference"},
}
"""What follows from a fault, by its code."""


@pytest.mark.parametrize("fault", CONFIG_FAULTS, ids=lambda row: f"{row[3]}-{row[1]}")
def test_a_fault_of_a_config_is_named_with_the_way_out(bundle: Path, fault: tuple) -> None:
    file, key, value, code, place, severity, suggestion = fault
    change(bundle, file, key, value)
    found = check_bundle(bundle)
    assert {one.code for one in found} <= {code, *ALSO.get(code, ())}
    (first, *_) = [one for one in found if one.code == code]
    assert place is None or first.key == place
    assert first.severity == severity
    assert suggestion in first.suggestion
    assert (bundle / first.file).is_file()
    for one in found:
        assert len(one.lines()) <= LONGEST_FAULT
        assert all(one.as_json().values()), "each fault has a place, a value, a rule, a way out"


def test_a_whole_bundle_has_no_fault(bundle: Path) -> None:
    assert check_bundle(bundle) == []


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
     "classes-differ", "error", "missing names"),
    ("network_data_format/outputs/pred/channel_def/2", "organ", "bad-channel-names", "error",
     "own"),
    ("medseg/labels/1", REMOVED, "label-missing", "error", '"index": 2'),
    ("medseg/labels/1/name", "lesion", "label-differs", "error", "tumour"),
    ("medseg/labels/0/color", [1, 2, 300], "bad-color", "error", "[230, 25, 75]"),
]  # fmt: skip

ALSO_OF_METADATA = {
    "version": {"bad-version"},
    "network_data_format/inputs/image/num_channels": {"channels-differ"},
    "network_data_format/outputs/pred/channel_def": {"label-surplus"},
    "network_data_format/outputs/pred/channel_def/1": {"label-differs"},
    "network_data_format/outputs/pred/channel_def/2": {"label-differs"},
    "network_data_format/outputs": {"label-surplus"},
}


@pytest.mark.parametrize("fault", METADATA_FAULTS, ids=lambda row: f"{row[2]}-{row[0]}")
def test_a_fault_of_the_metadata_is_named_with_the_way_out(bundle: Path, fault: tuple) -> None:
    key, value, code, severity, suggestion = fault
    change(bundle, "metadata", key, value)
    found = check_bundle(bundle)
    assert {one.code for one in found} <= {code, *ALSO_OF_METADATA.get(key, ())}
    (first, *_) = [one for one in found if one.code == code]
    assert first.severity == severity
    assert suggestion in first.suggestion


def test_both_versions_are_named_where_they_differ(bundle: Path) -> None:
    change(bundle, "metadata", "monai_version", "0.1.0")
    fault = only(bundle)
    assert "0.1.0" in fault.value
    assert version("monai") in fault.expected


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
    ("name", "text", "line"),
    [
        ("inference.yaml", "keys: [image]\nrun: [a\n", "line 3"),
        ("inference.yaml", "keys: [image]\n\tdataset: 3\n", "line 2"),
        ("metadata.json", '{\n  "version": "0.1.0",\n}\n', "line 3"),
        ("inference.yaml", "- a list\n", ""),
    ],
)
def test_a_file_that_does_not_parse_names_the_line(
    bundle: Path, name: str, text: str, line: str
) -> None:
    (bundle / "configs" / name).write_text(text)
    fault = only(bundle)
    assert (fault.code, fault.file, fault.key) == ("unparsable", f"configs/{name}", line)


def test_a_key_that_stands_twice_is_an_error(bundle: Path) -> None:
    config = bundle / "configs" / "train.yaml"
    lines = len(config.read_text().splitlines())
    config.write_text(config.read_text() + "lr: 0.1\n")
    fault = only(bundle)
    assert (fault.code, fault.value, fault.key) == ("duplicate-key", "lr", f"line {lines + 1}")


def test_a_transform_that_inference_lacks_is_named(bundle: Path) -> None:
    steps = ["@preprocessing_transforms#0", "@preprocessing_transforms#2"]
    steps += ["@preprocessing_transforms#3"]
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


def test_no_weights_is_a_warning_with_the_train_command(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()
    fault = only(bundle)
    assert (fault.code, fault.severity) == ("no-weights", "warning")
    assert "medseg train whole --dataset DIR" in fault.suggestion


class _Payload:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("should-not-exist"),))


def _state(**options: Any) -> dict[str, torch.Tensor]:
    return network(**options).state_dict()


WEIGHTS = {
    "unsafe-weights": lambda path: torch.save({"weight": _Payload()}, path),
    "bad-weights": lambda path: path.write_bytes(path.read_bytes()[:500]),
    "weights-not-finite": lambda path: torch.save(
        {name: tensor * torch.nan for name, tensor in _state().items()}, path
    ),
    "weights-with-heads": lambda path: torch.save(_state(deep_supervision=True), path),
    "weights-mismatch": lambda path: torch.save(_state(classes=5), path),
}


@pytest.mark.parametrize("code", WEIGHTS)
def test_weights_that_cannot_serve_are_errors(
    bundle: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    WEIGHTS[code](bundle / "models" / "model.pt")
    fault = only(bundle)
    assert (fault.code, fault.file, fault.severity) == (code, "models/model.pt", "error")
    assert not Path("should-not-exist").exists()


def test_a_pickle_of_the_old_kind_is_never_run(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (bundle / "models" / "model.pt").write_bytes(pickle.dumps({"weight": _Payload()}))
    assert only(bundle).code in {"unsafe-weights", "bad-weights"}
    assert not Path("should-not-exist").exists()


def test_a_network_that_keeps_its_training_heads_for_inference_is_an_error(bundle: Path) -> None:
    change(bundle, "inference", "deep_supervision", True)
    fault = only(bundle)
    assert fault.code == "weights-mismatch"
    assert "deep_supervision: false" in fault.suggestion


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
    (bundle / "models" / "model.pt").unlink()
    change(bundle, "common", "inferer", {"_target_": "scripts.net.Nett"})
    (fault,) = [fault for fault in check_bundle(bundle) if fault.severity == "error"]
    assert (fault.code, fault.key) == ("unknown-target", "inferer#_target_")
    assert "does not define Nett" in fault.expected


def test_six_faults_are_reported_at_once(bundle: Path) -> None:
    change(bundle, "metadata", "authors", "")
    change(bundle, "metadata", "version", "3.0.0")
    change(bundle, "train", "optimizer/lr", "@lrate")
    change(bundle, "common", "inferer/overlapp", 0.5)
    change(bundle, "evaluate", "validate#handlers/1/metrics", ["val_mean_dise"])
    (bundle / "LICENSE").unlink()
    codes = {"empty-text", "version-not-in-changelog", "unresolved-reference", "unknown-argument",
             "unknown-metric", "missing-file"}  # fmt: skip
    faults = check_bundle(bundle)
    assert {fault.code for fault in faults} == codes
    assert len(faults) == len(codes)


def test_a_file_that_does_not_parse_hides_no_fault_of_the_others(bundle: Path) -> None:
    (bundle / "configs" / "train.yaml").write_text("lr: [1\n")
    change(bundle, "evaluate", "validate#handlers/0", {"_target_": "NoSuchHandler"})
    change(bundle, "inference", "keyz", ["image"])
    codes = {fault.code for fault in check_bundle(bundle)}
    assert codes == {"unparsable", "unknown-target", "misspelt-key"}


def test_a_reference_that_only_other_workflows_need_is_no_fault(bundle: Path) -> None:
    change(bundle, "common", "half_rate", "$@lr / 2")  # lr is of train.yaml
    change(bundle, "train", "optimizer/lr", "@half_rate")
    assert check_bundle(bundle) == []
    change(bundle, "inference", "dataloader/num_workers", "@half_rate")
    assert only(bundle).code == "unresolved-reference"


def test_a_bundle_of_json_files_without_a_common_one_is_checked_too(tmp_path: Path) -> None:
    toy = write_toy_bundle(tmp_path / "toy")
    codes = {fault.code for fault in check_bundle(toy)}
    assert codes == {"missing-file", "missing-config", "metadata-missing", "bad-channel-names"}


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
    refused = not validator.is_valid(document)
    kinds = {"metadata-missing", "metadata-type"}
    found = {fault.code for fault in check_bundle(bundle)} & kinds
    if refused:
        assert found, "the schema refuses it"
    else:
        assert not found or key in ("changelog",), "the schema takes it"


def test_the_metadata_of_the_whole_bundle_follows_the_schema(tmp_path: Path) -> None:
    schema = data_folder("../schema") / "meta_schema_20240725.json"
    (tmp_path / "configs").mkdir()
    write_metadata(tmp_path, metadata())
    jsonschema.validate(metadata(), json.loads(schema.read_text()))
