"""Pipelines as data: the reference runner gives the labels that medseg gives, or says it cannot."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from medseg.bundle import load_bundle
from medseg.bundle.build import build_inference
from medseg.inference import pipeline
from medseg.inference.pipeline_check import trial_volume, why_not_reproduced
from medseg.volume import Volume
from medseg.workflows.import_nnunet import ImportOptions, import_nnunet
from tests.bundles.small_copy import small_copy
from tests.exported import CPU, balanced, document_of, medseg_mask, picture, runner_mask, structures
from tests.nnunet_folder import configuration, write_results
from tests.phantoms import abdomen, oblique_affine, oriented_affine
from tests.picture_bundle import write_picture_bundle
from tests.toy_bundle import write_toy_bundle
from tests.zoo_style import DYNUNET, SPLEEN, STYLES, TUMOUR, write_style

BUNDLES = Path(__file__).parents[2] / "bundles"
LEAST_AGREEMENT = 0.9999

pytestmark = [
    # MONAI 1.6.1 warns that configs are code, each time one is read
    pytest.mark.filterwarnings("ignore:parsing config_file:"),
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),
]


def agreement(bundle: Path, volume: Volume, *, labels: int = 2) -> float:
    """Return the share of voxels with one label, of masks that hold several."""
    before = volume.array.copy()
    expected = medseg_mask(bundle, volume)
    found = runner_mask(bundle, volume)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert len(np.unique(expected)) >= labels, "a mask of one value shows nothing"
    assert np.array_equal(volume.array, before)
    return float((found == expected).mean())


def change(bundle: Path, **own: Any) -> Path:
    """Change what a bundle's metadata state for medseg."""
    path = bundle / "configs/metadata.json"
    document = json.loads(path.read_text())
    document["medseg"] |= own
    path.write_text(json.dumps(document))
    return bundle


def change_config(bundle: Path, key: str, value: Any) -> Path:
    path = bundle / "configs/inference.yaml"
    config = yaml.safe_load(path.read_text())
    *parents, last = key.split("#")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = value
    path.write_text(yaml.safe_dump(config))
    return bundle


@pytest.mark.parametrize("spacing", [(0.8, 1.3, 2.2), (1.0, 1.0, 1.0), (0.7, 0.7, 4.1)])
def test_hippocampus_gets_the_labels_of_medseg(spacing: tuple[float, ...]) -> None:
    volume = structures((31, 38, 17), spacing, codes="LIP")
    assert agreement(BUNDLES / "hippocampus_mri", volume) >= LEAST_AGREEMENT


def test_ct_gets_the_labels_of_medseg() -> None:
    volume = abdomen()[0]
    turned = replace(volume, affine=oblique_affine("SPL", (6.0, 7.5, 5.0)))
    assert agreement(BUNDLES / "phantom_ct", turned, labels=3) >= LEAST_AGREEMENT


@pytest.mark.parametrize("name", ["spleen_ct", "lung_tumour_ct"])
def test_planned_bundles_get_the_labels_of_medseg(tmp_path: Path, name: str) -> None:
    bundle = balanced(small_copy(BUNDLES / name, tmp_path / name))
    volume = structures((25, 21, 18), (1.9, 1.1, 4.3))
    assert agreement(bundle, volume) >= LEAST_AGREEMENT


@pytest.mark.parametrize("name", ["nuclei_semantic", "em_membrane", "voc_semantic"])
def test_pictures_get_the_labels_of_medseg(tmp_path: Path, name: str) -> None:
    bundle = small_copy(BUNDLES / name, tmp_path / name)
    if name != "nuclei_semantic":
        balanced(bundle)
    channels = load_bundle(bundle).input_rule.channels
    assert agreement(bundle, picture((70, 60), channels)) >= LEAST_AGREEMENT


def test_pictures_at_another_size_get_the_labels_of_medseg(tmp_path: Path) -> None:
    bundle = write_picture_bundle(tmp_path / "b", spacing_px=[0.6, 1.7], network="unet", channels=1)
    assert agreement(bundle, picture((41, 57))) >= LEAST_AGREEMENT


@pytest.mark.parametrize("spacing", [(1.0, 1.2, 2.1), (0.8, 0.8, 4.0)])
@pytest.mark.parametrize(
    ("dims", "changes", "options"),
    [
        (3, {}, {"transpose": (1, 2, 0)}),
        (3, {"use_mask_for_norm": [True, False]}, {"two": True, "regions": True}),
        (3, {"spacing": [5.0, 1.0, 1.2]}, {"reader": "NibabelIOWithReorient"}),
        (2, {}, {"configuration_name": "2d"}),
        (3, {"normalization_schemes": ["CTNormalization"]}, {"folds": ("0", "1")}),
        (3, {"normalization_schemes": ["RescaleTo01Normalization"]}, {}),
    ],
)
def test_models_of_nnunet_get_the_labels_of_medseg(
    tmp_path: Path,
    dims: int,
    changes: dict[str, Any],
    options: dict[str, Any],
    spacing: tuple[float, ...],
) -> None:
    pytest.importorskip("dynamic_network_architectures", reason="pip install medseg[nnunet]")
    options, dataset, channels = dict(options), {}, 1
    if options.pop("two", False):
        changes = {"normalization_schemes": ["ZScoreNormalization"] * 2, **changes}
        dataset["channel_names"], channels = {"0": "T1", "1": "T2"}, 2
    if options.pop("regions", False):
        dataset["labels"] = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}
        dataset["regions_class_order"] = [5, 2, 7]
    folder, _ = write_results(
        tmp_path, configuration(dims, **changes), dataset=dataset or None, **options
    )
    bundle = import_nnunet(ImportOptions(folder, tmp_path / "bundle")).bundle
    volume = structures((26, 30, 15), spacing, channels=channels)
    assert agreement(bundle, volume) >= LEAST_AGREEMENT


@pytest.mark.parametrize("name", ["spleen", "whole_body"])
def test_bundles_of_the_zoo_get_the_labels_of_medseg(tmp_path: Path, name: str) -> None:
    style = copy.deepcopy(STYLES[name])
    for one in style["preprocessing"]:
        if one["_target_"] == "NormalizeIntensityd":
            one["nonzero"] = False
    bundle = write_style(tmp_path / "zoo", style)
    assert agreement(bundle, structures((25, 21, 18), (1.9, 1.1, 2.3))) >= LEAST_AGREEMENT


@pytest.mark.parametrize("shape", [(24, 21, 18), (23, 22, 17)])
def test_sizes_half_way_between_two_are_rounded_as_monai_rounds_them(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    bundle = write_style(tmp_path / "zoo", SPLEEN)  # 1.5, 1.5, 2.0 mm
    for codes in ("RAS", "LPS"):
        volume = structures(shape, (0.75, 3.0, 1.0))
        volume = replace(volume, affine=oriented_affine(codes, (0.75, 3.0, 1.0)))
        assert agreement(bundle, volume) >= LEAST_AGREEMENT


def test_folds_and_regions_of_several_channels_get_the_labels_of_medseg(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", channels=2, spacing_mm=[2.0, 1.5, 2.5])
    names = [f"models/fold_{fold}/model.pt" for fold in range(2)]
    for fold, name in enumerate(names):
        (bundle / name).parent.mkdir(parents=True)
        weight = 0.01 * torch.randn(3, 2, 1, 1, 1, generator=torch.manual_seed(fold))
        torch.save({"weight": weight, "bias": torch.tensor([0.3, -0.2, 0.1])}, bundle / name)
    volume = structures((23, 18, 14), (1.1, 2.4, 1.9), channels=2)
    for activation in ("softmax", "sigmoid"):
        table = [{"index": 1, "name": "background", "value": 4}] if activation == "sigmoid" else []
        change(bundle, ensemble=names, activation=activation, labels=table)
        document = document_of(bundle)
        assert document["maps"] == "probabilities"
        assert agreement(bundle, volume) >= LEAST_AGREEMENT


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular", "constant"])
def test_images_smaller_than_a_window_are_padded_as_medseg_pads_them(
    tmp_path: Path, mode: str
) -> None:
    bundle = write_picture_bundle(tmp_path / "b", network="unet", channels=1, window=(64, 32))
    change_config(bundle, "inferer#padding_mode", mode)
    change_config(bundle, "inferer#cval", 0.5 if mode == "constant" else 0.0)
    change_config(bundle, "inferer#sigma_scale", [0.2, 0.1])
    assert agreement(bundle, picture((41, 20))) >= LEAST_AGREEMENT


def test_windows_as_large_as_the_image_and_the_largest_part(tmp_path: Path) -> None:
    bundle = change(
        write_toy_bundle(tmp_path / "toy"),
        postprocessing=[{"labels": ["organ", "tumour"], "keep": "largest_component"}],
    )
    change_config(bundle, "inferer#roi_size", [-1, 12, 0])
    volume = structures((23, 18, 14), (1.1, 2.4, 1.9))
    assert document_of(bundle)["window"]["size"] == [None, 12, None]
    assert agreement(bundle, volume, labels=3) == 1


def test_what_cannot_be_stated_is_named(tmp_path: Path) -> None:
    document = document_of(write_style(tmp_path / "a", DYNUNET))
    assert not document["complete"]
    keys = {one["key"]: one["reason"] for one in document["missing"]}
    assert "CropForegroundd has no statement" in keys["preprocessing#4"]
    assert "KeepLargestConnectedComponentd" in keys["postprocessing"]
    (missing,) = document_of(write_style(tmp_path / "d", STYLES["whole_body"]))["missing"]
    assert missing["reason"].endswith("after Spacingd, depends on rounding")
    document = document_of(write_style(tmp_path / "b", TUMOUR))
    assert [one["key"] for one in document["missing"]] == ["postprocessing"]
    (missing,) = document_of(write_picture_bundle(tmp_path / "e", spacing_mm=[2, 2]))["missing"]
    assert missing["key"] == "input"
    assert "size of a picture's pixels" in missing["reason"]
    bundle = write_toy_bundle(tmp_path / "c")
    change_config(bundle, "inferer", {"_target_": "SimpleInferer"})
    assert document_of(bundle)["missing"] == [
        {"key": "inferer", "reason": "SimpleInferer has no statement"}
    ]


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"_target_": "Spacingd", "pixdim": [2, 2, 2], "diagonal": True}, "grid"),
        ({"_target_": "Spacingd", "pixdim": [2, 2, 2], "mode": "nearest"}, "mode"),
        ({"_target_": "NormalizeIntensityd", "subtrahend": 3.0}, "subtrahend"),
        ({"_target_": "Orientationd", "as_closest_canonical": True}, "axes"),
        ({"_target_": "EnsureTyped", "dtype": "float16"}, "type"),
        ({"_target_": "ScaleIntensityRanged", "a_min": 0, "a_max": 9}, "range"),
        ({"_target_": "ScaleIntensityd", "minv": None, "maxv": None, "factor": 0.1}, "minv"),
    ],
)
def test_settings_that_cannot_be_stated_are_named(
    tmp_path: Path, step: dict[str, Any], said: str
) -> None:
    bundle = write_toy_bundle(tmp_path / "toy")
    path = bundle / "configs/inference.yaml"
    config = yaml.safe_load(path.read_text())
    config["preprocessing"]["transforms"].append({**step, "keys": "image"})
    path.write_text(yaml.safe_dump(config))
    (missing,) = document_of(bundle)["missing"]
    assert missing["key"] == "preprocessing#3"
    assert said in missing["reason"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessing", []),
        ("preprocessing", [{"step": "orient", "axes": "LPS"}]),
        ("preprocessing", [{"step": "orient", "axes": "RAS"}]),
        ("preprocessing", [{"step": "clip", "low": 9, "high": 99}]),
        ("preprocessing", [{"step": "none of these"}]),
        ("restoring", {"interpolation": "linear", "outside_voxels": 0.1, "cropped": True,
                       "coarse": "coarsest"}),
        ("decision", {"rule": "largest", "threshold": None, "values": [0, 2, 1]}),
        ("postprocessing", [{"keep": "largest_component", "values": [1]}]),
    ],
)  # fmt: skip
def test_a_wrong_statement_is_found_out(tmp_path: Path, key: str, value: Any) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", spacing_mm=[2.0, 2.0, 2.0])
    loaded = load_bundle(bundle)
    parts = build_inference(loaded, CPU)
    document = document_of(bundle)
    assert why_not_reproduced(document, loaded, parts) is None
    assert why_not_reproduced({**document, key: value}, loaded, parts)


def test_wrong_windows_are_found_out() -> None:
    bundle = BUNDLES / "hippocampus_mri"
    loaded = load_bundle(bundle)
    parts = build_inference(loaded, CPU)
    document = document_of(bundle)
    weights = {**document["window"]["weights"], "sigma_scale": [0.125, 0.125, 0.13]}
    for wrong in ({"overlap": [0.5, 0.5, 0.4]}, {"placement": "even"}, {"weights": weights}):
        changed = {**document, "window": {**document["window"], **wrong}}
        assert why_not_reproduced(changed, loaded, parts) == (
            "windows lie elsewhere or have other weights"
        )


def test_a_statement_that_is_not_reproduced_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "why_not_reproduced", lambda *_: "values are 1 apart")
    document = document_of(write_toy_bundle(tmp_path / "toy"))
    assert not document["complete"]
    assert document["missing"] == [{"key": "trial", "reason": "values are 1 apart"}]


def test_the_trial_has_what_rules_differ_on(tmp_path: Path) -> None:
    document = document_of(write_toy_bundle(tmp_path / "toy", spacing_mm=[2.0, 2.0, 2.0]))
    volume = trial_volume(document)
    assert volume.orientation != "RAS"
    assert (volume.array[0, 0] == 0).all()
    assert (volume.array[0, 8:11, 7:9, 6:8] > 0).any()
    assert 1.0 < max(volume.spacing_mm) < 5.0


def test_a_document_holds_no_path_and_no_number_that_json_lacks(tmp_path: Path) -> None:
    bundle = tmp_path / "hippocampus_mri"
    shutil.copytree(BUNDLES / "hippocampus_mri", bundle)
    text = json.dumps(document_of(bundle), allow_nan=False)
    assert str(tmp_path) not in text
