"""Exported networks against the formula of the toy network; single-file configs against MONAI."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from medseg.bundle import load_bundle
from medseg.bundle.export_config import single_config
from medseg.bundle.export_network import openvino_core
from medseg.cli.main import call
from medseg.errors import BundleError, DependencyError, OutputError, UsageError
from medseg.inference import Predictor
from medseg.volume import Volume
from medseg.workflows import export as workflow
from medseg.workflows.export import ExportOptions, export
from tests.toy_bundle import THRESHOLDS, write_toy_bundle, write_toy_weights

FORMATS = ("torchscript", "onnx", "openvino")

pytestmark = [
    # MONAI 1.6.1 warns that configs are code, each time one is read
    pytest.mark.filterwarnings("ignore:parsing config_file:"),
    # torch 2.9 and later announce the end of TorchScript, which MONAI loads
    pytest.mark.filterwarnings("ignore:.*torch.jit.load.*"),
]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    bundle = write_toy_bundle(tmp_path / "toy")
    change_metadata(bundle, value_range=[0, 300])
    return bundle


def change_metadata(bundle: Path, value_range: list[float] | None = None, **own: Any) -> None:
    path = bundle / "configs/metadata.json"
    document = json.loads(path.read_text())
    document["medseg"] |= own
    if value_range:
        document["network_data_format"]["inputs"]["image"]["value_range"] = value_range
    path.write_text(json.dumps(document))


def runner(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Run a file with the library it is for, without medseg."""
    if file.suffix == ".ts":
        module = torch.jit.load(file)
        return lambda image: module(torch.from_numpy(image)).detach().numpy()
    if file.suffix == ".onnx":
        onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is missing")
        session = onnxruntime.InferenceSession(file)
        return lambda image: session.run(["pred"], {"image": image})[0]
    pytest.importorskip("openvino", reason="the openvino extra is missing")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino_core().compile_model(file, "CPU", settings)
    return lambda image: model({"image": image})["pred"]


def formula(image: np.ndarray) -> np.ndarray:
    """Return what the toy network computes."""
    first, second = THRESHOLDS
    return np.concatenate([0 * image, image - first, 2 * image - first - second], axis=1)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 300, shape).astype(np.float32)


def test_every_format_answers_as_the_network_does(toy: Path, tmp_path: Path) -> None:
    result = export(ExportOptions(toy, tmp_path / "out"))
    assert result.exit_code == 0
    assert [network.format for network in result.networks] == list(FORMATS)
    for network in result.networks:
        assert network.parity is not None
        assert network.parity.holds
        run = runner(network.file)
        for batch in (1, 3):
            image = noise(batch, 1, 16, 16, 16)
            np.testing.assert_allclose(run(image), formula(image), atol=2e-3)  # of 600


@pytest.mark.slow
def test_dynamic_files_take_other_shapes_and_others_refuse_them(toy: Path, tmp_path: Path) -> None:
    image = noise(2, 1, 9, 12, 20)
    for dynamic in (True, False):
        out = tmp_path / str(dynamic)
        result = export(ExportOptions(toy, out, FORMATS, dynamic=dynamic))
        for network in result.networks:
            free = set(network.dynamic_axes.values())
            if dynamic or network.format == "torchscript":
                assert free == {"batch", "i", "j", "k"}
                np.testing.assert_allclose(runner(network.file)(image), formula(image), atol=2e-3)
            else:
                assert free == {"batch"}
                with pytest.raises(Exception, match=r"(?i)dimension|shape"):
                    runner(network.file)(image)


def test_axes_of_one_voxel_stay_so(toy: Path, tmp_path: Path) -> None:
    options = ExportOptions(toy, tmp_path / "out", FORMATS, shape=(8, 12, 1), dynamic=True)
    result = export(options)
    assert result.exit_code == 0
    image = noise(2, 1, 6, 7, 1)
    for network in result.networks:
        assert network.dynamic_axes == {"0": "batch", "2": "i", "3": "j"}
        np.testing.assert_allclose(runner(network.file)(image), formula(image), atol=2e-3)


def test_the_document_says_all_about_a_file(toy: Path, tmp_path: Path) -> None:
    result = export(ExportOptions(toy, tmp_path / "model.onnx", shape=(8, 8, 12), opset=19))
    (file,) = result.as_json()["files"]
    assert file["file"] == str(tmp_path / "model.onnx")
    assert (file["format"], file["status"], file["error"]) == ("onnx", "done", None)
    assert (file["opset"], file["input_shape"]) == (19, [1, 1, 8, 8, 12])
    assert file["dynamic_axes"] == {"0": "batch"}
    assert file["bytes"] == (tmp_path / "model.onnx").stat().st_size
    assert set(file["versions"]) >= {"medseg", "torch", "monai", "onnx"}
    parity = file["parity"]
    assert parity["max_abs_difference"] <= parity["tolerance"]
    assert parity["label_agreement"] >= parity["least_label_agreement"]
    assert parity["input_shapes"] == [[1, 1, 8, 8, 12], [2, 1, 8, 8, 12]]


def test_an_onnx_file_holds_the_metadata_and_no_path_of_this_machine(
    toy: Path, tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx", reason="the onnx extra is missing")
    export(ExportOptions(toy, tmp_path / "model.onnx"))
    (entry,) = onnx.load(tmp_path / "model.onnx").metadata_props
    assert json.loads(entry.value) == load_bundle(toy).metadata
    assert str(Path(torch.__file__).parent).encode() not in (tmp_path / "model.onnx").read_bytes()


def test_a_file_that_answers_otherwise_is_not_kept(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = workflow.open_network

    def wrong(name: str, path: Path) -> Any:
        answer = opened(name, path)
        return (lambda image: 1.01 * answer(image)) if name == "onnx" else answer

    monkeypatch.setattr(workflow, "open_network", wrong)
    result = export(ExportOptions(toy, tmp_path / "out", ("torchscript", "onnx")))
    assert result.exit_code == 1
    good, bad = result.networks
    assert good.error is None
    assert bad.error is not None
    assert bad.error.code == "parity"
    kept = {file.name for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert kept == {"model.ts", "pipeline.json"}
    assert result.as_json()["files"][1]["status"] == "failed"


def test_a_network_that_a_format_cannot_hold_is_a_failed_file(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        msg = "no such operator"
        raise RuntimeError(msg)

    monkeypatch.setattr(workflow, "write_network", fail)
    (network,) = export(ExportOptions(toy, tmp_path / "model.ts")).networks
    assert network.error is not None
    assert network.error.code == "export-failed"
    assert "no such operator" in network.error.message
    assert not (tmp_path / "model.ts").exists()


def test_without_weights_it_says_how_to_train(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", weights=False)
    with pytest.raises(BundleError, match=r"Train it: python -m monai\.bundle run"):
        export(ExportOptions(bundle, tmp_path / "out"))
    assert call(["bundle", "export", str(bundle), "-o", str(tmp_path / "out"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "no-weights"
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_are_replaced_only_on_demand(toy: Path, tmp_path: Path) -> None:
    options = ExportOptions(toy, tmp_path / "model.xml")
    (tmp_path / "model.bin").write_text("mine")
    with pytest.raises(OutputError, match=r"model\.bin") as caught:
        export(options)
    assert caught.value.code == "output-exists"
    assert not (tmp_path / "model.xml").exists()
    assert export(replace(options, overwrite=True)).exit_code == 0
    assert (tmp_path / "model.bin").read_bytes() != b"mine"


def test_a_missing_package_is_named_with_its_extra(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "medseg.bundle.export_network.find_spec", lambda name: None if name == "onnx" else name
    )
    with pytest.raises(DependencyError, match=r"pip install 'medseg\[onnx\]'"):
        export(ExportOptions(toy, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("model.pt", {}),
        ("model.onnx", {"formats": ("torchscript",)}),
        ("model.onnx", {"single_file": True}),
        ("out", {"formats": ("tflite",)}),
        ("inference.json", {"formats": ("onnx",)}),
    ],
)
def test_an_output_that_cannot_hold_what_is_asked_for_is_refused(
    toy: Path, tmp_path: Path, name: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(UsageError):
        export(replace(ExportOptions(toy, tmp_path / name), **changes))
    assert not (tmp_path / name).exists()


def test_of_an_ensemble_every_network_is_exported(toy: Path, tmp_path: Path) -> None:
    names = [f"models/fold_{fold}/model.pt" for fold in range(2)]
    for fold, name in enumerate(names):
        (toy / name).parent.mkdir(parents=True)
        weights = torch.load(toy / "models/model.pt", weights_only=True)
        torch.save({key: (fold + 1) * value for key, value in weights.items()}, toy / name)
    change_metadata(toy, ensemble=names)
    with pytest.raises(UsageError, match="2 networks"):
        export(ExportOptions(toy, tmp_path / "model.ts"))
    result = export(ExportOptions(toy, tmp_path / "out", ("torchscript", "openvino")))
    assert result.exit_code == 0
    image = noise(1, 1, 16, 16, 16)
    for network in result.networks:
        fold = names.index(network.weights)
        assert network.file.parent == tmp_path / "out/models" / f"fold_{fold}"
        expected = (fold + 1) * formula(image)
        np.testing.assert_allclose(runner(network.file)(image), expected, atol=2e-3)


def test_of_regions_each_channel_is_a_label_of_its_own(toy: Path, tmp_path: Path) -> None:
    change_metadata(toy, activation="sigmoid")
    (network,) = export(ExportOptions(toy, tmp_path / "model.ts")).networks
    assert network.error is None
    assert network.parity is not None
    assert network.parity.label_agreement == 1.0


# --- configs as single files ---


def with_overlays(bundle: Path) -> Path:
    """Split the toy's config in two, and train on nothing in a third."""
    configs = bundle / "configs"
    (configs / "inference.yaml").rename(configs / "common.yaml")
    (configs / "inference.yaml").write_text(
        yaml.safe_dump({"inferer#overlap": 0.5, "run": ["$print('ran')"], "n": "%inferer#roi_size"})
    )
    (configs / "train.yaml").write_text(yaml.safe_dump({"epochs": 3, "run": ["$@epochs + 1"]}))
    return bundle


def test_a_single_file_holds_the_merged_configs_and_the_metadata(toy: Path, tmp_path: Path) -> None:
    with_overlays(toy)
    out = tmp_path / "out"
    result = export(ExportOptions(toy, out, single_file=True))
    assert dict(result.configs) == {
        name: out / "configs" / f"{name}.json" for name in ("train", "inference")
    }
    document = json.loads((out / "configs/inference.json").read_text())
    assert document["inferer"]["overlap"] == 0.5
    assert document["n"] == [16, 16, 16], "macros are replaced by what they stand for"
    assert document["_meta_"] == load_bundle(toy).metadata
    parser = ConfigParser(document)
    assert parser.get_parsed_content("network_def").out_channels == 3
    assert json.loads((out / "configs/train.json").read_text())["epochs"] == 3


def test_monai_loads_and_runs_the_single_file(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(ExportOptions(with_overlays(toy), tmp_path / "out", single_file=True))
    for kind in ("inference", "train"):
        network = monai.bundle.load(
            "out", bundle_dir=tmp_path, workflow_type=kind, source="github", device="cpu"
        )
        image = noise(1, 1, 5, 6, 7)
        with torch.no_grad():
            found = network(torch.from_numpy(image)).numpy()
        np.testing.assert_allclose(found, formula(image), atol=2e-3)
    monai.bundle.run(config_file=str(tmp_path / "out/configs/inference.json"))
    assert "ran" in capsys.readouterr().out


def test_the_exported_folder_is_a_bundle_that_segments_as_the_first(
    toy: Path, tmp_path: Path
) -> None:
    export(ExportOptions(with_overlays(toy), tmp_path / "out", single_file=True))
    volume = Volume(noise(1, 18, 15, 9), np.diag([1.0, -2.0, 3.0, 1.0]))
    masks = [Predictor(folder)(volume).array for folder in (toy, tmp_path / "out")]
    assert len(np.unique(masks[0])) == 3
    assert np.array_equal(*masks)


def test_monai_finds_the_weights_of_an_exported_ensemble(toy: Path, tmp_path: Path) -> None:
    config = toy / "configs/inference.yaml"
    loading = {
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "run": ["$@network_def.load_state_dict(torch.load(@ckpt_path))"],
    }
    config.write_text(config.read_text() + yaml.safe_dump(loading))
    members = [f"models/fold_{fold}/model.pt" for fold in range(2)]
    for member in members:
        (toy / member).parent.mkdir()
        shutil.copy(toy / "models/model.pt", toy / member)
    change_metadata(toy, ensemble=members)
    out = tmp_path / "out"
    result = export(ExportOptions(toy, out, single_file=True))
    assert {out / name for name in (*members, "models/model.pt")} <= set(result.copied)
    monai.bundle.run(config_file=str(out / "configs/inference.json"), bundle_root=str(out))


def test_monai_finds_metadata_and_config_in_torchscript(toy: Path, tmp_path: Path) -> None:
    export(ExportOptions(toy, tmp_path / "out", ("torchscript",)))
    network, metadata, files = monai.bundle.load(
        "out",
        bundle_dir=tmp_path,
        source="github",
        load_ts_module=True,
        config_files=("inference.json",),
        device="cpu",
    )
    bundle = load_bundle(toy)
    assert metadata == bundle.metadata
    assert json.loads(files["inference.json"]) == single_config(bundle, bundle.config_files)
    image = noise(1, 1, 4, 4, 4)
    found = network(torch.from_numpy(image)).detach().numpy()
    np.testing.assert_allclose(found, formula(image), atol=2e-3)


def test_into_the_bundle_itself_only_configs_are_written(toy: Path) -> None:
    with_overlays(toy)
    before = {file: file.read_bytes() for file in toy.rglob("*") if file.is_file()}
    result = export(ExportOptions(toy, toy, single_file=True))
    assert not result.copied
    after = {file: file.read_bytes() for file in toy.rglob("*") if file.is_file()}
    assert {file.name for file in after.keys() - before.keys()} == {"train.json", "inference.json"}
    assert all(after[file] == data for file, data in before.items())


@pytest.mark.parametrize(("name", "key"), [("train.json", "epochs"), ("other.json", "n")])
def test_one_config_goes_into_the_file_that_is_named(
    toy: Path, tmp_path: Path, name: str, key: str
) -> None:
    export(ExportOptions(with_overlays(toy), tmp_path / name, single_file=True))
    assert key in json.loads((tmp_path / name).read_text())
    assert [file.name for file in tmp_path.glob("*.json")] == [name]


def test_configs_are_exported_without_weights(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", weights=False)
    result = export(ExportOptions(bundle, tmp_path / "out", single_file=True))
    assert result.exit_code == 0
    assert not (tmp_path / "out/models").exists()


def test_a_config_that_json_cannot_hold_is_refused(toy: Path, tmp_path: Path) -> None:
    path = toy / "configs/inference.yaml"
    path.write_text(path.read_text() + "\nceiling: .inf\n")
    with pytest.raises(BundleError, match="under ceiling") as caught:
        export(ExportOptions(toy, tmp_path / "out", single_file=True))
    assert caught.value.code == "bad-config"


def test_the_command_speaks_json(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bundle", "export", str(toy), "-o", str(tmp_path / "out"), "--json"]
    assert call([*arguments, "--format", "torchscript", "--shape", "8,8,8"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert document["bundle"]["name"] == "toy"
    assert document["files"][0]["input_shape"] == [1, 1, 8, 8, 8]
    for wrong in (["--shape", "8"], ["--shape", "8,x,8"], ["--format", "caffe"]):
        assert call([*arguments, *wrong]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


@pytest.mark.slow
def test_deep_supervision_is_off_in_what_is_exported(toy: Path, tmp_path: Path) -> None:
    """The levels of training would come out as a list, which no format here can hold."""
    configs = toy / "configs"
    document = yaml.safe_load((configs / "inference.yaml").read_text())
    document["deep_supervision"] = False
    document["network_def"] = {
        "_target_": "medseg.networks.DynUNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "kernel_size": [3, 3, 3, 3],
        "strides": [1, 2, 2, 2],
        "upsample_kernel_size": [2, 2, 2],
        "filters": [4, 8, 8, 8],
        "deep_supervision": "@deep_supervision",
        "deep_supr_num": 2,
    }
    (configs / "common.yaml").write_text(yaml.safe_dump(document))
    (configs / "inference.yaml").write_text("bundle_root: .\n")
    (configs / "train.yaml").write_text("deep_supervision: true\n")
    network = ConfigParser(document).get_parsed_content("network_def")
    torch.save(network.state_dict(), toy / "models/model.pt")
    result = export(ExportOptions(toy, tmp_path / "out", dynamic=True))
    assert [network.error for network in result.networks] == [None] * 3
    for exported in result.networks:
        assert exported.parity is not None
        assert exported.parity.shapes[-1] == (1, 1, 8, 16, 16)
        assert exported.parity.max_abs_difference < 1e-4


def test_toy_weights_are_what_the_formula_says(tmp_path: Path) -> None:
    write_toy_weights(tmp_path)
    weights = torch.load(tmp_path / "models/model.pt", weights_only=True)
    image = torch.from_numpy(noise(1, 1, 3, 3, 3))
    found = torch.nn.functional.conv3d(image, weights["weight"], weights["bias"]).numpy()
    np.testing.assert_allclose(found, formula(image.numpy()), atol=1e-3)
