"""Bundles of the model zoo as they are: the same labels as MONAI's own run of them."""

import copy
import shutil
import warnings
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import medseg
from medseg.bundle import load_bundle
from medseg.bundle.check import check_bundle
from medseg.errors import BundleError, UsageError
from medseg.inference import Execution, Predictor
from medseg.volume import Segmentation
from tests.zoo_style import (
    SPLEEN,
    STYLES,
    TUMOUR,
    change_config,
    inference,
    random_network,
    run_by_monai,
    step,
    write_config,
    write_scan,
    write_style,
)

LEAST_AGREEMENT = 0.9999


def segmented(bundle: Path, scan: Path, **options: Any) -> Segmentation:
    predictor = Predictor(bundle, device="cpu", execution=Execution(cache=None), **options)
    return predictor(medseg.read(scan))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write_scan(tmp_path / "images" / "scan.nii.gz")


@pytest.fixture(scope="module")
def spleen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_style(tmp_path_factory.mktemp("spleen") / "spleen", SPLEEN)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("spleen", "json"),
        ("dynunet", "yaml"),
        pytest.param("whole_body", "json", marks=pytest.mark.slow),
        pytest.param("swin", "json", marks=pytest.mark.slow),
    ],
)
def test_labels_are_those_of_monai(tmp_path: Path, scan: Path, name: str, suffix: str) -> None:
    style = STYLES[name]
    bundle = write_style(tmp_path / "bundle", style, suffix=suffix)
    theirs = shutil.copytree(bundle, tmp_path / "theirs")
    config = inference(style)
    config["network_def"].pop("img_size", None)  # MONAI 1.6 refuses it
    write_config(theirs, config, suffix=suffix)
    wanted = run_by_monai(theirs, scan, tmp_path / "out")
    found = segmented(bundle, scan)
    assert len(np.unique(wanted)) > 1
    assert (found.array == wanted).mean() >= LEAST_AGREEMENT
    assert np.array_equal(found.affine, medseg.read(scan).affine)
    assert [label.name for label in found.labels] == style["names"][1:]


@pytest.mark.slow
def test_what_has_no_invertd_comes_out_on_the_grid_of_the_file(
    tmp_path: Path, spleen: Path, scan: Path
) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    change_config(bundle, lambda config: config["postprocessing"]["transforms"].pop(1))
    theirs = run_by_monai(bundle, scan, tmp_path / "out")  # on the grid of the network
    (written,) = (tmp_path / "out").rglob("*.nii.gz")
    volume = medseg.read(scan)
    between = np.linalg.inv(nib.load(written).affine) @ volume.affine
    wanted = ndimage.affine_transform(
        theirs, between, output_shape=volume.shape, order=0, mode="nearest"
    )
    assert (segmented(bundle, scan).array == wanted).mean() >= 0.999


def test_regions_are_painted_the_smallest_last(tmp_path: Path, scan: Path) -> None:
    bundle = write_style(tmp_path / "bundle", TUMOUR)
    regions = run_by_monai(bundle, scan, tmp_path / "out") > 0
    sizes = regions.sum(axis=(0, 1, 2))
    wanted = np.zeros(regions.shape[:3], np.uint8)
    for channel in np.argsort(-sizes):
        wanted[regions[..., channel]] = channel + 1
    assert (segmented(bundle, scan).array == wanted).mean() >= LEAST_AGREEMENT


def test_torchscript_stands_in_for_a_state_dict(tmp_path: Path, spleen: Path, scan: Path) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch wants torch.export, the zoo has this
        script = torch.jit.trace(random_network(SPLEEN), torch.zeros(1, 1, *SPLEEN["roi_size"]))
    script.save(bundle / "models/model.ts")
    (bundle / "models/model.pt").unlink()
    change_config(bundle, lambda config: config.pop("network_def"))
    assert np.array_equal(segmented(bundle, scan).array, segmented(spleen, scan).array)


def test_an_argument_that_monai_removed_is_dropped_and_said(tmp_path: Path) -> None:
    style = copy.deepcopy(STYLES["swin"])
    bundle = write_style(tmp_path / "bundle", style)
    (problem,) = Predictor(bundle, device="cpu")._problems
    assert problem.code == "removed-argument"
    assert "img_size of SwinUNETR (network_def#img_size) was dropped" in problem.message


def test_weights_are_never_fetched(tmp_path: Path, spleen: Path) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    network = {"_target_": "FlexibleUNet", "in_channels": 1, "out_channels": 2,
               "backbone": "efficientnet-b0", "pretrained": True, "spatial_dims": 3}  # fmt: skip
    change_config(bundle, lambda config: config.update(network_def=network))
    style = {**SPLEEN, "network_def": {**network, "pretrained": False}, "roi_size": [32, 32, 32]}
    torch.save(random_network(style).state_dict(), bundle / "models/model.pt")
    (problem,) = Predictor(bundle, device="cpu")._problems
    assert "pretrained of FlexibleUNet" in problem.message


@pytest.mark.parametrize("macro", ["%nowhere.json::network", "%nothing"])
def test_a_macro_that_leads_nowhere_is_said(tmp_path: Path, spleen: Path, macro: str) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "copy")
    change_config(bundle, lambda config: config.update(network_def=macro))
    with pytest.raises(BundleError, match=r"macros \(%\) in the configs of copy must name"):
        Predictor(bundle, device="cpu")


def test_values_without_a_name_are_said(tmp_path: Path, spleen: Path, scan: Path) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    renamed = step("MapLabelValued", orig_labels=[1], target_labels=[7])
    change_config(bundle, lambda config: config["postprocessing"]["transforms"].insert(3, renamed))
    found = segmented(bundle, scan)
    assert set(np.unique(found.array)) == {0, 7}
    assert [(one.code, one.message[-1]) for one in found.source.problems] == [
        ("unnamed-values", "7")
    ]


def test_numbers_that_stand_for_regions_put_together_have_no_names_of_regions(
    tmp_path: Path, scan: Path
) -> None:
    bundle = write_style(tmp_path / "bundle", TUMOUR)
    merging = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, 2 * x[[1]]))"
    change_config(
        bundle,
        lambda config: config["postprocessing"]["transforms"].insert(
            3, step("Lambdad", func=merging)
        ),
    )
    wanted = run_by_monai(bundle, scan, tmp_path / "out")
    found = segmented(bundle, scan)
    assert (found.array == wanted).mean() >= LEAST_AGREEMENT
    assert [(one.index, one.name) for one in found.labels] == [
        (1, "value 1"), (2, "value 2"), (4, "value 4")
    ]  # fmt: skip
    assert found.source.problems[0].code == "unnamed-values"


def test_label_numbers_are_not_mixed_on_the_way_back(tmp_path: Path, scan: Path) -> None:
    style = copy.deepcopy(STYLES["dynunet"])
    bundle = write_style(tmp_path / "bundle", style)

    def choose_first(config: dict[str, Any], *, nearest: bool) -> None:
        _, back, choice, *rest = config["postprocessing"]["transforms"]
        largest = step("KeepLargestConnectedComponentd", applied_labels=[1])
        back["nearest_interp"] = nearest
        config["postprocessing"]["transforms"] = [choice, largest, back, *rest]

    theirs = shutil.copytree(bundle, tmp_path / "theirs")
    change_config(theirs, lambda config: choose_first(config, nearest=True))
    wanted = run_by_monai(theirs, scan, tmp_path / "out")
    change_config(bundle, lambda config: choose_first(config, nearest=False))
    found = segmented(bundle, scan)
    assert len(np.unique(wanted)) > 2
    assert (found.array == wanted).mean() >= LEAST_AGREEMENT
    problems = Predictor(bundle, device="cpu", execution=Execution(cache=None))._problems
    assert [one.code for one in problems] == ["nearest-labels"]


def test_the_weights_are_those_that_the_configs_load(
    tmp_path: Path, spleen: Path, scan: Path
) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    (bundle / "models/model.pt").rename(bundle / "models/tuned.pt")
    loader = {
        "_target_": "CheckpointLoader",
        "load_path": "$@ckpt_dir + '/tuned.pt'",
        "load_dict": {"model": "@network"},
    }
    change_config(
        bundle,
        lambda config: config.update(ckpt_dir="$@bundle_root + '/models'", handlers=[loader]),
    )
    assert load_bundle(bundle).weights.name == "tuned.pt"
    assert np.array_equal(segmented(bundle, scan).array, segmented(spleen, scan).array)


def test_torchscript_stands_in_for_code_of_the_bundle(
    tmp_path: Path, spleen: Path, scan: Path
) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    change_config(
        bundle, lambda config: config["network_def"].update(_target_="scripts.mine.Network")
    )
    with pytest.raises(BundleError, match=r"scripts\.mine\.Network") as caught:
        segmented(bundle, scan)
    assert caught.value.code == "needs-trust"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch wants torch.export, the zoo has this
        script = torch.jit.trace(random_network(SPLEEN), torch.zeros(1, 1, *SPLEEN["roi_size"]))
    script.save(bundle / "models/model.ts")
    assert np.array_equal(segmented(bundle, scan).array, segmented(spleen, scan).array)
    assert "needs-trust" not in [fault.code for fault in check_bundle(bundle)]


def test_tables_beside_the_weights_are_read_and_a_gpu_that_is_named_is_none(
    tmp_path: Path, spleen: Path, scan: Path
) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    torch.save({"strides": np.array([2, 2], np.int64)}, bundle / "models/searched.pt")
    values = copy.deepcopy(SPLEEN["network_def"])
    assert values["strides"] == [2, 2]
    values["strides"] = "$[int(one) for one in @searched['strides']]"
    read = "$torch.load(@bundle_root + '/models/searched.pt', map_location=torch.device('cuda'))"
    change_config(bundle, lambda config: config.update(searched=read, network_def=values))
    assert np.array_equal(segmented(bundle, scan).array, segmented(spleen, scan).array)


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (step("ScaleIntensityd", minv=0.0, maxv=0.5), "whole numbers"),
        (step("RepeatChanneld", repeats=3), "one channel or 2, got 3"),
        (step("SqueezeDimd", dim=1), "SqueezeDimd"),
    ],
)
def test_what_is_no_mask_is_refused(
    tmp_path: Path, spleen: Path, scan: Path, last: dict[str, Any], reason: str
) -> None:
    bundle = shutil.copytree(spleen, tmp_path / "bundle")
    change_config(bundle, lambda config: config["postprocessing"]["transforms"].insert(3, last))
    with pytest.raises(BundleError, match=reason):
        segmented(bundle, scan)


def test_own_postprocessing_gives_no_probabilities_and_no_mean(
    tmp_path: Path, spleen: Path, scan: Path
) -> None:
    bundle = write_style(tmp_path / "bundle", {**SPLEEN, "postprocessing": [
        *SPLEEN["postprocessing"][:3], step("FillHolesd")]})  # fmt: skip
    predictor = Predictor(bundle, device="cpu")
    with pytest.raises(UsageError, match="probabilities must be left out"):
        predictor(medseg.read(scan), probabilities=tmp_path)
    with pytest.raises(BundleError, match="postprocessing of its own"):
        Predictor([bundle, spleen], device="cpu")


@pytest.mark.slow
def test_pictures_are_turned_as_by_the_readers_of_monai(tmp_path: Path) -> None:
    style = copy.deepcopy(SPLEEN)
    style["network_def"] |= {"spatial_dims": 2, "in_channels": 3}
    style["roi_size"] = [48, 32]
    style["preprocessing"] = [
        step("LoadImaged", "image", reader="PILReader"),
        step("EnsureChannelFirstd", "image", channel_dim=-1),
        step("Resized", "image", spatial_size=[48, 32], mode="bilinear"),
        step("ScaleIntensityd", "image"),
        step("EnsureTyped", "image"),
    ]
    style["postprocessing"][-1] |= {
        "output_ext": ".png",
        "resample": False,
        "output_dtype": "uint8",
    }
    bundle = write_style(tmp_path / "bundle", style)
    change_config(bundle, lambda c: c.update(datalist="$glob.glob(@dataset_dir + '/*.png')"))
    noise = np.random.default_rng(0).normal(size=(50, 84, 3))
    smooth = ndimage.gaussian_filter(noise, (4, 6, 0))
    picture = tmp_path / "images" / "picture.png"
    picture.parent.mkdir()
    Image.fromarray(np.uint8(np.clip(128 + smooth / smooth.std() * 50, 0, 255))).save(picture)
    wanted = run_by_monai(bundle, picture, tmp_path / "out")
    found = segmented(bundle, picture).array
    assert found.shape == wanted.shape == (50, 84)
    assert len(np.unique(wanted)) == 2
    assert (found == wanted).mean() >= LEAST_AGREEMENT
