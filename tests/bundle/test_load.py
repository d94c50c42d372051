"""Bundles are found, read and built, or refused with a reason."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from medseg.bundle import find_bundle, list_bundles, load_bundle
from medseg.bundle.build import build_inference
from medseg.errors import BundleError
from tests.toy_bundle import write_toy_bundle

CPU = torch.device("cpu")


def _code(action, *args, **kwargs) -> str:
    with pytest.raises(BundleError) as caught:
        action(*args, **kwargs)

    return caught.value.code


def test_bundles_of_a_source_checkout_are_found_by_name() -> None:
    assert "hippocampus_mri" in list_bundles()
    assert find_bundle("hippocampus_mri") == list_bundles()["hippocampus_mri"]


def test_the_environment_variable_comes_first(tmp_path, monkeypatch) -> None:
    write_toy_bundle(tmp_path / "hippocampus_mri")
    monkeypatch.setenv("MEDSEG_BUNDLES", str(tmp_path))
    assert find_bundle("hippocampus_mri") == tmp_path / "hippocampus_mri"


def test_labels_version_and_rule_come_from_the_metadata(tmp_path) -> None:
    bundle = load_bundle(
        write_toy_bundle(tmp_path / "toy", modality=("CT",), rule={"min_slices": 9})
    )
    assert [(label.index, label.name) for label in bundle.labels] == [(1, "organ"), (2, "tumour")]
    assert bundle.version == "1.2.3"
    assert bundle.input_rule.modality == ("CT",)
    assert bundle.input_rule.min_slices == 9


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(BundleError, match="hippocampus_mri") as caught:
        load_bundle("no_such_bundle")
    assert caught.value.code == "unknown-bundle"


def test_a_folder_without_metadata_is_not_a_bundle(tmp_path) -> None:
    assert _code(load_bundle, tmp_path) == "not-a-bundle"


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"network_data_format": {"inputs": 3}}'])
def test_damaged_metadata_is_refused(tmp_path, text) -> None:
    root = write_toy_bundle(tmp_path / "toy")
    (root / "configs" / "metadata.json").write_text(text)
    assert _code(load_bundle, root) == "bad-metadata"


def test_a_bundle_without_inference_config_is_refused(tmp_path) -> None:
    root = write_toy_bundle(tmp_path / "toy")
    (root / "configs" / "inference.yaml").unlink()
    assert _code(load_bundle, root) == "no-inference-config"


def test_missing_weights_name_the_train_command(tmp_path) -> None:
    bundle = load_bundle(write_toy_bundle(tmp_path / "toy", weights=False))
    assert bundle.weights_sha256() is None
    with pytest.raises(BundleError, match=r"python -m monai\.bundle run") as caught:
        build_inference(bundle, CPU)
    assert caught.value.code == "no-weights"


def test_weights_of_single_folds_are_named_with_how_to_use_them(tmp_path) -> None:
    root = write_toy_bundle(tmp_path / "toy")
    (root / "models" / "fold_1").mkdir()
    weights = (root / "models" / "model.pt").rename(root / "models" / "fold_1" / "model.pt")
    with pytest.raises(BundleError, match=r"Copy models/fold_1/model\.pt to models/") as caught:
        load_bundle(root).require_weights()
    assert caught.value.code == "no-weights"
    assert "--fold all --resume" in str(caught.value)
    shutil.copy(weights, root / "models" / "model.pt")
    load_bundle(root).require_weights()


def test_weights_of_another_network_are_refused(tmp_path) -> None:
    root = write_toy_bundle(tmp_path / "toy")
    torch.save(torch.nn.Conv3d(1, 5, 3).state_dict(), root / "models" / "model.pt")
    assert _code(build_inference, load_bundle(root), CPU) == "weights-mismatch"


class _Payload:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("should-not-exist"),))


def test_pickled_weights_are_never_executed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = write_toy_bundle(tmp_path / "toy")
    torch.save({"weight": _Payload()}, root / "models" / "model.pt")
    assert _code(build_inference, load_bundle(root), CPU) == "bad-weights"
    assert not Path("should-not-exist").exists()


def test_a_truncated_weight_file_is_refused(tmp_path) -> None:
    root = write_toy_bundle(tmp_path / "toy")
    weights = root / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:300])
    assert _code(build_inference, load_bundle(root), CPU) == "bad-weights"


def test_a_config_that_cannot_be_built_names_the_part(tmp_path) -> None:
    root = write_toy_bundle(tmp_path / "toy")
    config = root / "configs" / "inference.yaml"
    config.write_text(config.read_text().replace("torch.nn.Conv3d", "torch.nn.Conv9d"))
    with pytest.raises(BundleError, match="network_def") as caught:
        build_inference(load_bundle(root), CPU)
    assert caught.value.code == "bad-config"


def test_the_overlap_of_the_bundle_can_be_replaced(tmp_path) -> None:
    bundle = load_bundle(write_toy_bundle(tmp_path / "toy"))
    assert build_inference(bundle, CPU).inferer.overlap == 0.25
    assert build_inference(bundle, CPU, overlap=0.5).inferer.overlap == 0.5


def test_the_shipped_metadata_names_what_medseg_needs() -> None:
    for name, root in list_bundles().items():
        own = json.loads((root / "configs" / "metadata.json").read_text())["medseg"]
        own_command = own["train_command"].startswith(f"medseg train {name}")
        assert own_command or own["train_command"].startswith("python -m monai.bundle run"), name
        channels = own["input"].get("channels", [])
        of_channels = len(channels) > 1 and all(channel["modality"] for channel in channels)
        assert own["input"]["modality"] or of_channels, name


def test_codes_of_labels_come_from_the_metadata(tmp_path) -> None:
    folder = write_toy_bundle(tmp_path / "toy")
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    code = {"value": "78961009", "scheme": "SCT", "meaning": "Spleen"}
    metadata["medseg"]["labels"] = [{"index": 1, "name": "organ", "code": code}]
    path.write_text(json.dumps(metadata))
    organ, tumour = load_bundle(folder).labels
    assert organ.code == ("78961009", "SCT", "Spleen")
    assert organ.category is tumour.code is None
    code["meaning"] = ""
    path.write_text(json.dumps(metadata))
    with pytest.raises(BundleError, match="code of the label 'organ' of toy must have a meaning"):
        load_bundle(folder)
