"""Every command of MONAI on every bundle; `test_bundle_contract.py` has those that only verify."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
import yaml

from medseg.bundle import load_bundle
from medseg.bundle.export_config import OVERLAYS
from medseg.cli.main import call
from medseg.data.phantom_msd import write_phantom_msd
from medseg.io.masks import read_mask, read_numbers
from medseg.io.raster import write_png
from medseg.io.read import read
from medseg.workflows.export import ExportOptions, export
from tests.bundles.small_copy import network_of, small_copy
from tests.bundles.test_bundle_contract import BUNDLES, OF_OBJECTS, REPOSITORY
from tests.phantoms import numbered, oriented_affine, write_nifti

INFERENCE = ["configs/common.yaml", "configs/inference.yaml"]
ORGAN_AND_TUMOUR = {1: ((1, 2),), 2: ((1,), (2,))}
"""What a phantom's organ (1) and tumour (2) are to a bundle with one label, and with two."""

pytestmark = [
    # MONAI 1.6.1 warns that configs are code, each time one is read
    pytest.mark.filterwarnings("ignore:parsing config_file:"),
    # torch 2.9 and later announce the end of TorchScript, which MONAI loads
    pytest.mark.filterwarnings("ignore:.*torch.jit.load.*"),
]
each_bundle = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
each_of_classes = pytest.mark.parametrize(
    "bundle", [path for path in BUNDLES if path not in OF_OBJECTS], ids=lambda path: path.name
)
each_of_objects = pytest.mark.parametrize("bundle", OF_OBJECTS, ids=lambda path: path.name)


def learns_from_a_dataset(bundle: Path) -> bool:
    """Return whether the bundle takes its cases from a dataset that is given."""
    config = yaml.safe_load((bundle / "configs" / "train.yaml").read_text())
    return "cases_of_fold" in config["train_cases"]


def run(folder: Path, *arguments: object) -> None:
    """Run a command of MONAI in the folder of a bundle; fail with its output."""
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    if "onnx_export" in arguments:  # which leaves the weights behind
        environment["TMPDIR"] = str(folder)
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def configs(*names: str) -> tuple[str, str]:
    return "--config_file", str([f"configs/{name}.yaml" for name in names])


def image_for(folder: Path) -> torch.Tensor:
    metadata = load_bundle(folder).metadata["network_data_format"]["inputs"]["image"]
    shape = (1, metadata["num_channels"], *metadata["spatial_shape"])
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def expected_of(folder: Path, image: torch.Tensor) -> torch.Tensor:
    network = network_of(folder)
    network.load_state_dict(torch.load(folder / "models/model.pt", weights_only=True))
    with torch.no_grad():
        result: torch.Tensor = network(image)
    return result


def answer_of(exported: Path, image: torch.Tensor) -> torch.Tensor:
    if exported.suffix == ".ts":
        with torch.no_grad():
            return torch.jit.load(exported).eval()(image)
    onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    session = onnxruntime.InferenceSession(exported)
    (entry,) = session.get_inputs()
    return torch.from_numpy(session.run(None, {entry.name: image.numpy()})[0])


def phantoms_for(folder: Path) -> Path:
    """Write five phantoms beside a bundle, one of them to be segmented; return that one."""
    names = [label.name for label in load_bundle(folder).labels]
    named = dict(zip(names, ORGAN_AND_TUMOUR[len(names)], strict=True))
    data = write_phantom_msd(folder / "data", 5, labels=named, box=(56, 52, 24))
    image = sorted((data / "imagesTr").iterdir())[0]
    (data / "imagesTs").mkdir()
    image.rename(data / "imagesTs" / image.name)
    document = json.loads((data / "dataset.json").read_text())
    document["training"] = document["training"][1:]
    (data / "dataset.json").write_text(json.dumps(document))
    (data / "labelsTr" / image.name).unlink()
    return data / "imagesTs" / image.name


def pictures_for(folder: Path, common: dict[str, Any]) -> Path:
    """Write four labelled pictures beside a bundle and one to be segmented; return that one."""
    values = [values[0] for values in common["label_values"]]
    names = [label.name for label in load_bundle(folder).labels]
    ignored = common.get("ignored_values", [])
    data, rng = folder / "data", np.random.default_rng(0)
    for number in range(4):
        mask = np.zeros((70, 83), np.uint8)
        for value in (*values, *ignored):
            row, column = rng.integers(0, (60, 70))
            mask[row : row + 12, column : column + 12] = value
        write_png(mask, data / "masks" / f"picture_{number}.png")
        write_png(picture(common, rng), data / "images" / f"picture_{number}.png")
    described = {"labels": dict(zip(names, values[1:], strict=True)), "ignored": ignored}
    (data / "dataset.yaml").write_text(yaml.safe_dump(described))
    write_png(picture(common, rng), data / "imagesTs" / "picture_4.png")
    return data / "imagesTs" / "picture_4.png"


def objects_for(folder: Path, common: dict[str, Any]) -> Path:
    """Write four pictures with numbers of objects, and one to be looked at; return that one."""
    names = [label.name for label in load_bundle(folder).labels]
    data, rng = folder / "data", np.random.default_rng(0)
    for number in range(4):
        mask = np.zeros((70, 83), np.uint8)
        for value in range(len(names)):
            row, column = rng.integers(0, (60, 70))
            mask[row : row + 12, column : column + 12] = 10 * value + number + 1
        write_png(mask, data / "masks" / f"picture_{number}.png")
        write_png(picture(common, rng), data / "images" / f"picture_{number}.png")
    values = {name: f"{10 * place + 1}-{10 * place + 9}" for place, name in enumerate(names)}
    (data / "dataset.yaml").write_text(yaml.safe_dump({"labels": values, "objects": True}))
    write_png(picture(common, rng), data / "imagesTs" / "picture_4.png")
    return data / "imagesTs" / "picture_4.png"


def picture(common: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    channels = common["network_def"]["in_channels"]
    shape = (70, 83) if channels == 1 else (70, 83, channels)
    return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    return small_copy(bundle, tmp_path / bundle.name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "bundle",
    [path for path in BUNDLES if learns_from_a_dataset(path) and path not in OF_OBJECTS],
    ids=lambda path: path.name,
)
def test_train_evaluate_and_inference_run_one_after_the_other(folder: Path) -> None:
    labels = load_bundle(folder).labels
    common = yaml.safe_load((folder / "configs/common.yaml").read_text())
    is_3d = len(common["patch_size"]) == 3
    image = phantoms_for(folder) if is_3d else pictures_for(folder, common)
    weights = folder / "models" / "model.pt"
    weights.unlink()
    few = ("--epochs", 1, "--iterations_per_epoch", 2, "--val_interval", 1, "--num_workers", 0)

    run(folder, "run", *configs("common", "train"), *few, "--batch_size", 2)
    trained = torch.load(weights, weights_only=True)
    network_of(folder).load_state_dict(trained, strict=True)
    assert all(torch.isfinite(tensor).all() for tensor in trained.values())

    run(folder, "run", *configs("common", "train", "evaluate"), "--num_workers", 0)
    scored = yaml.safe_load((folder / "configs/evaluate.yaml").read_text())
    has_tables = "MetricsSaver" in str(scored)
    for name in ("val_mean_dice", "val_hd95_mm") if has_tables else ():
        (table,) = (folder / "eval").glob(f"*{name}_raw.csv")
        header, *rows = csv.reader(table.read_text().splitlines())
        assert len(rows) == 1, "one of four cases is the validation part of a fold of five"
        assert len(header) == 1 + len(labels) + 1, "file, labels, mean"

    run(folder, "run", *configs("common", "inference"), "--num_workers", 0)
    (mask,) = (folder / "eval").rglob("*_seg.*")
    assert read_mask(mask).shape == read(image).shape


@pytest.mark.slow
@each_of_classes
def test_inference_writes_an_integer_mask_on_the_grid_of_the_image(folder: Path) -> None:
    common = yaml.safe_load((folder / "configs/common.yaml").read_text())
    if len(common["patch_size"]) == 2:
        image = pictures_for(folder, common)
        run(folder, "run", *configs("common", "inference"))
        (file,) = (folder / "eval").rglob("*")
        mask = read_mask(file)
        assert mask.shape == read(image).shape
        assert mask.array.dtype == np.uint8
        assert set(np.unique(mask.array)) <= set(range(common["num_classes"]))
        return
    # on the bundle's own spacing, so that it is a few windows and not a thousand
    volume = numbered((44, 36, 20), oriented_affine("LPS", tuple(common["spacing_mm"])))
    (folder / "data").mkdir()
    for place in (folder / "data", folder / "data" / "imagesTs"):
        write_nifti(volume, place / "case.nii.gz")
    run(folder, "run", *configs("common", "inference"))
    (file,) = (folder / "eval").rglob("*.nii.gz")
    mask = nib.load(file)
    assert mask.shape == volume.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, volume.affine, atol=1e-5)
    assert set(np.unique(mask.dataobj)) <= set(range(common["num_classes"]))


@pytest.mark.slow
@each_of_objects
def test_what_finds_objects_is_trained_scored_and_run(folder: Path) -> None:
    common = yaml.safe_load((folder / "configs/common.yaml").read_text())
    image = objects_for(folder, common)
    weights = folder / "models" / "model.pt"
    weights.unlink()
    few = ("--epochs", 1, "--iterations_per_epoch", 2, "--val_interval", 1, "--num_workers", 0)

    run(folder, "run", *configs("common", "train"), *few, "--batch_size", 2)
    trained = torch.load(weights, weights_only=True)
    network_of(folder).load_state_dict(trained, strict=True)
    run(folder, "run", *configs("common", "train", "evaluate"), "--num_workers", 0)

    run(folder, "run", *configs("common", "inference"), "--num_workers", 0)
    (numbers,) = (folder / "eval").rglob("*_instances.png")
    (file,) = (folder / "eval").rglob("*_objects.json")
    document = json.loads(file.read_text())
    names = [label.name for label in load_bundle(folder).labels]
    assert [entry["name"] for entry in document["categories"]] == names
    shape = read(image).shape
    assert read_numbers(numbers).shape == shape
    assert (document["images"][0]["height"], document["images"][0]["width"]) == shape


@each_of_objects
def test_a_network_of_objects_is_not_exported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bundle", "export", str(folder), "-o", str(tmp_path / "out"), "--to", "onnx"]
    assert call([*command, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "not-exportable"
    assert call(["bundle", "check", str(folder), "--json"]) == 0
    said = {one["command"] for one in json.loads(capsys.readouterr().out)["does_not_apply"]}
    assert "medseg bundle export --to" in said


@pytest.mark.slow
@each_of_classes
@pytest.mark.parametrize(("command", "suffix"), [("ckpt_export", "ts"), ("onnx_export", "onnx")])
def test_exported_networks_answer_as_the_weights_do(
    folder: Path, command: str, suffix: str
) -> None:
    exported = folder / "models" / f"model.{suffix}"
    run(
        folder,
        *(command, "network_def", "--filepath", exported, "--ckpt_file", "models/model.pt"),
        *("--meta_file", "configs/metadata.json", *configs("common", "inference")),
    )
    image = image_for(folder)
    found = answer_of(exported, image)
    torch.testing.assert_close(found, expected_of(folder, image), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.gpu
@each_of_classes
def test_tensorrt_answers_as_the_weights_do(folder: Path) -> None:
    pytest.importorskip("torch_tensorrt", reason="torch-tensorrt is not installed")
    exported = folder / "models" / "model_trt.ts"
    run(
        folder,
        *("trt_export", "network_def", "--filepath", exported, "--ckpt_file", "models/model.pt"),
        *("--meta_file", "configs/metadata.json", *configs("common", "inference")),
        *("--precision", "fp32", "--use_trace", "True"),
    )
    image = image_for(folder)
    with torch.no_grad():
        found = torch.jit.load(exported).cuda().eval()(image.cuda()).cpu()
    torch.testing.assert_close(found, expected_of(folder, image), rtol=1e-2, atol=1e-2)


@each_bundle
@pytest.mark.parametrize("kind", ["inference", "train"])
def test_monai_loads_the_single_file(folder: Path, tmp_path: Path, kind: str) -> None:
    export(ExportOptions(folder, tmp_path / "single", single_file=True))
    network = monai.bundle.load(
        "single", bundle_dir=tmp_path, workflow_type=kind, source="github", device="cpu"
    ).eval()
    image = image_for(folder)
    with torch.no_grad():
        found = network(image)
    torch.testing.assert_close(found, expected_of(folder, image), rtol=1e-5, atol=1e-5)


@each_bundle
@pytest.mark.parametrize("kind", ["train", "evaluate", "inference"])
def test_a_single_file_makes_the_same_workflow_as_the_overlays(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    export(ExportOptions(folder, tmp_path / "single", single_file=True))
    files = [f"configs/{name}.yaml" for name in OVERLAYS[kind]]
    monkeypatch.chdir(folder)
    workflow = {
        "workflow_type": "inference" if kind == "inference" else "train",
        "logging_file": False,
    }
    overlays = monai.bundle.create_workflow(config_file=files, **workflow)
    single = monai.bundle.create_workflow(
        config_file=str(tmp_path / "single" / "configs" / f"{kind}.json"), **workflow
    )
    first, second = overlays.parser.get(), single.parser.get()
    assert first == second
    assert list(first) == list(second), "expressions see what stands above them"


@pytest.mark.slow
@each_of_classes
def test_every_format_of_medseg_answers_as_the_weights_do(folder: Path, tmp_path: Path) -> None:
    result = export(ExportOptions(folder, tmp_path / "out", dynamic=True))
    assert [network.error for network in result.networks] == [None] * 3
    image = image_for(folder)
    for network in result.networks:
        if network.format != "openvino":  # whose answers its own parity figure compares
            found = answer_of(network.file, image)
            torch.testing.assert_close(found, expected_of(folder, image), rtol=1e-3, atol=1e-3)


@each_of_classes
def test_without_weights_nothing_is_exported(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_copy(bundle, tmp_path / bundle.name)
    (folder / "models" / "model.pt").unlink()
    assert call(["bundle", "export", str(folder), "-o", str(tmp_path / "out"), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "no-weights"
    assert load_bundle(folder).train_command in error["message"]
    assert not (tmp_path / "out").exists()
