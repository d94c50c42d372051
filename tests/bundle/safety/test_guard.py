"""What of a bundle runs without trust, on whole bundles."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import medseg
from medseg.bundle import load_bundle
from medseg.bundle.build import build_inference
from medseg.bundle.check import check_bundle
from medseg.bundle.find import list_bundles
from medseg.bundle.safety import guarded, unsafe_parts
from medseg.cli.main import call
from medseg.errors import BundleError
from medseg.inference import Predictor
from tests.zoo_style import SPLEEN, change_config, inference, step, write_scan, write_style

CPU = torch.device("cpu")
PARTS = ["network_def", "preprocessing", "inferer", "postprocessing"]
MARK = "$__import__('pathlib').Path('{}').touch()"


@pytest.fixture(scope="module")
def spleen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_style(tmp_path_factory.mktemp("spleen") / "spleen", SPLEEN)


@pytest.fixture
def bundle(spleen: Path, tmp_path: Path) -> Path:
    return shutil.copytree(spleen, tmp_path / "bundle")


@pytest.mark.parametrize("name", list(list_bundles()))
def test_bundles_of_medseg_need_no_trust(name: str) -> None:
    codes = [fault.code for fault in check_bundle(list_bundles()[name])]
    assert "needs-trust" not in codes


def put(*keys: str | int) -> Callable[[dict[str, Any], Any], None]:
    def change(config: Any, value: Any) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("place", "key"),
    [
        (put("network_def", "in_channels"), "network_def#in_channels"),
        (put("inferer", "roi_size", 0), "inferer#roi_size#0"),
        (put("preprocessing", "transforms", 3, "pixdim"), "preprocessing#transforms#3#pixdim"),
        (put("device_of_inferer"), "device_of_inferer"),
    ],
)
def test_nothing_unsafe_runs_and_the_error_names_its_place(
    bundle: Path, tmp_path: Path, place: Callable[..., None], key: str
) -> None:
    touched = tmp_path / "touched"

    def change(config: dict[str, Any]) -> None:
        place(config, MARK.format(touched))
        if key == "device_of_inferer":
            config["inferer"]["device"] = f"@{key}"

    change_config(bundle, change)
    with pytest.raises(
        BundleError, match=rf"{key} in configs/inference.json .*__import__"
    ) as caught:
        build_inference(load_bundle(bundle), CPU)
    assert caught.value.code == "needs-trust"
    assert "--trust" in str(caught.value)
    assert not touched.exists()
    (fault,) = [one for one in check_bundle(bundle) if one.code == "needs-trust"]
    assert (fault.key, fault.severity) == (key, "warning")


def test_what_inference_does_not_use_is_not_run(bundle: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    def change(config: dict[str, Any]) -> None:
        config["imports"] += ["$import scripts", "$from bundle_code import x"]
        config["dataset"]["data"] = config["run"] = MARK.format(touched)
        config["preprocessing"]["transforms"][0]["reader"] = "bundle_code.Reader"
        config["postprocessing"]["transforms"][-1]["writer"] = "bundle_code.Writer"

    (bundle / "bundle_code.py").write_text(f"open({str(touched)!r}, 'w')")
    change_config(bundle, change)
    build_inference(load_bundle(bundle), CPU)
    assert not touched.exists()


def test_a_trusted_bundle_runs_its_own_code(bundle: Path) -> None:
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "__init__.py").touch()
    (bundle / "scripts" / "own_network.py").write_text(
        "from monai.networks.nets import UNet\nclass Net(UNet):\n    pass\n"
    )
    change_config(bundle, lambda c: put("network_def", "_target_")(c, "scripts.own_network.Net"))
    with pytest.raises(BundleError, match="scripts is not among"):
        build_inference(load_bundle(bundle), CPU)
    parts = build_inference(load_bundle(bundle), CPU, trust=True)
    assert type(parts.network).__module__ == "scripts.own_network"


@pytest.mark.parametrize(
    "component",
    [
        step("Lambdad", "image", func="$os.remove"),
        {"_target_": "$os.system", "command": "true"},
        {"_target_": "@name", "command": "true"},
        step("Identityd", "image", _mode_="debug"),
        {"_target_": "Identityd", "keys": "image", "a#b": 1},
        "%configs/other.json",
    ],
)
def test_ways_around_are_seen(component: Any) -> None:
    config = inference(SPLEEN)
    config["name"] = "os.system"
    config["preprocessing"]["transforms"].append(component)
    assert unsafe_parts(config, PARTS)


def test_only_what_is_needed_is_kept() -> None:
    config = inference(SPLEEN) | {"half": {"_target_": "os.system", "used": {"roi": [8, 8, 8]}}}
    config["inferer"]["roi_size"] = "@half#used#roi"
    kept, unsafe = guarded(config, PARTS)
    assert unsafe == []
    assert kept["half"] == {"used": {"roi": [8, 8, 8]}}
    assert not kept.get("evaluator")
    assert not kept.get("initialize")


def test_a_pickle_is_not_loaded(bundle: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"model": Evil()}, bundle / "models/model.pt")
    with pytest.raises(BundleError, match="load safely"):
        build_inference(load_bundle(bundle), CPU, trust=True)
    assert not (tmp_path / "touched").exists()


def test_prediction_opens_no_connection(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a connection was asked for")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    scan = write_scan(tmp_path / "scan.nii.gz")
    assert Predictor(bundle, device="cpu")(medseg.read(scan)).array.any()


def test_weights_that_a_training_starts_from_are_not_fetched(tmp_path: Path) -> None:
    values = {
        "_target_": "medseg.networks.build_network",
        "name": "unet_resnet",
        "encoder": "resnet18",
        "in_channels": 3,
        "out_channels": 2,
    }
    root = shutil.copytree(list_bundles()["camvid_semantic"], tmp_path / "bundle")
    config = root / "configs/inference.yaml"
    stated = {**values, "encoder_weights": "imagenet"}
    config.write_text(f"{config.read_text()}\nnetwork_def: {json.dumps(stated)}\n")
    network = medseg.networks.build_network(**{k: v for k, v in values.items() if k[0] != "_"})
    (root / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), root / "models/model.pt")
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medseg.networks.encoder_weights._downloaded", opened.append)
        build_inference(load_bundle(root), CPU)
    assert opened == []


def test_the_file_that_states_a_part_is_named(bundle: Path) -> None:
    common = json.loads((bundle / "configs/inference.json").read_text())
    own = {"inferer": common.pop("inferer") | {"progress": "$open('x')"}}
    (bundle / "configs/inference.json").unlink()
    (bundle / "configs/common.yaml").write_text(json.dumps(common))
    (bundle / "configs/inference.yaml").write_text(json.dumps(own))
    with pytest.raises(BundleError, match=r"inferer#progress in configs/inference.yaml"):
        build_inference(load_bundle(bundle), CPU)


def test_segment_asks_for_trust_and_takes_it(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz")
    change_config(bundle, lambda c: put("inferer", "overlap")(c, "$getattr(math, 'pi') / 8"))
    change_config(bundle, lambda c: c["imports"].append("$import math"))
    arguments = ["segment", str(scan), "-b", str(bundle), "--outputs", "nifti", "--quiet"]
    assert call([*arguments, "-o", str(tmp_path / "no")]) == 2
    said = capsys.readouterr().err
    assert "inferer#overlap in configs/inference.json" in said.replace("\n", " ")
    assert "getattr" in said
    assert not list(tmp_path.glob("no/*/*"))
    assert call([*arguments, "-o", str(tmp_path / "yes"), "--trust"]) == 0
    assert (tmp_path / "yes/scan/segmentation.nii.gz").is_file()
