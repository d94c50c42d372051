"""What is understood of the metadata of bundles that know nothing of medseg."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from monai.networks import nets

from medseg.bundle import load_bundle
from medseg.bundle.foreign import other_task
from medseg.bundle.removed import FETCHING_BY_DEFAULT, removed_arguments, without_removed
from medseg.errors import BundleError
from tests.zoo_style import SPLEEN, TUMOUR, change_config, metadata, write_style


def told(pred: dict[str, Any], inputs: Any = None, **texts: str) -> str:
    document = metadata(SPLEEN) | {"task": "", "description": ""} | texts
    document["network_data_format"] = {
        "inputs": inputs or {"image": {"type": "image", "num_channels": 1}},
        "outputs": {"pred": pred},
    }
    return other_task(document)


@pytest.mark.parametrize(
    ("pred", "texts", "kind"),
    [
        ({"type": "object", "format": "dict"}, {"task": "nodule detection"}, "detection"),
        ({"type": "probabilities", "format": "classes"}, {}, "classification"),
        ({"type": "image", "format": "magnitude"}, {"task": "image synthesis"}, "generation"),
        ({"type": "image", "format": "ddf"}, {"task": "pairs of hands"}, "registration"),
        ({"type": "array", "format": "coordinates"}, {"task": "valve landmarks"}, "landmarks"),
    ],
)
def test_other_tasks_say_what_they_do(pred: dict, texts: dict, kind: str) -> None:
    assert told(pred, **texts).startswith(f"{kind}: its output is {pred['format']}")


def test_inputs_beside_the_image_are_another_task() -> None:
    inputs = {"image": {"num_channels": 1}, "points": {}}
    assert "beside the image it takes points" in told({"format": "segmentation"}, inputs)


@pytest.mark.parametrize("pred", [{"format": "segmentation"}, {"type": "image"}, {}])
def test_segmentation_is_no_other_task(pred: dict) -> None:
    assert told(pred, task="multi-organ segmentation and detection of none") == ""


def test_a_row_of_numbers_is_no_image_whatever_it_is_called() -> None:
    row = {"type": "image", "format": "labels", "spatial_shape": [1, 4]}
    image = {"image": {"type": "image", "num_channels": 1, "spatial_shape": [64, 64]}}
    assert told(row, image, task="density classification").startswith("classification: ")
    assert told({**row, "spatial_shape": [64, 64]}, image) == ""


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([{"_target_": "AddClickSignalsd", "image": "image"}], "AddClickSignalsd .* reads clicks"),
        ([{"_target_": "scripts.mine.TurnGuidanced", "keys": "image"}], "TurnGuidanced"),
        ([{"_target_": "LoadImaged", "keys": ["early", "late"]}], "it?s? .*reads early, late"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_what_is_read_beside_the_image_is_another_task(
    tmp_path: Path, steps: list, reason: str, *, apart: bool
) -> None:
    folder = write_style(tmp_path / "bundle", SPLEEN)

    def change(config: dict[str, Any]) -> None:
        config["mine"] = steps
        if apart:
            config["preprocessing"] = {"_target_": "Compose", "transforms": "$@mine + @mine"}
        else:
            config["preprocessing"]["transforms"] += steps

    change_config(folder, change)
    with pytest.raises(BundleError, match=reason) as caught:
        load_bundle(folder)
    assert caught.value.code == "other-task"


def test_a_bundle_of_another_task_cannot_be_loaded(tmp_path: Path) -> None:
    folder = write_style(tmp_path / "lung_nodule_ct_detection", SPLEEN)
    document = metadata(SPLEEN) | {"task": "nodule detection"}
    document["network_data_format"]["outputs"]["pred"] |= {"type": "object", "format": "dict"}
    (folder / "configs/metadata.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"must segment images.*detection") as caught:
        load_bundle(folder)
    assert caught.value.code == "other-task"


def test_the_activation_is_that_of_the_postprocessing(tmp_path: Path) -> None:
    classes = load_bundle(write_style(tmp_path / "classes", SPLEEN))
    regions = load_bundle(write_style(tmp_path / "regions", TUMOUR))
    assert (classes.regions, classes.values) == (False, (0, 1))
    assert (regions.regions, regions.values) == (True, (1, 2, 3))
    assert classes.input_rule.modality == ("CT",)


def test_channels_without_names_are_numbered(tmp_path: Path) -> None:
    folder = write_style(tmp_path / "bundle", SPLEEN)
    document = metadata(SPLEEN)
    del document["network_data_format"]["outputs"]["pred"]["channel_def"]
    (folder / "configs/metadata.json").write_text(json.dumps(document))
    assert [label.name for label in load_bundle(folder).labels] == ["class 1"]


def test_names_of_labels_are_taken_for_those_of_channels(tmp_path: Path) -> None:
    folder = write_style(tmp_path / "bundle", SPLEEN)
    document = metadata(SPLEEN)
    pred = document["network_data_format"]["outputs"]["pred"]
    pred["label_def"] = pred.pop("channel_def")
    (folder / "configs/metadata.json").write_text(json.dumps(document))
    assert [label.name for label in load_bundle(folder).labels] == ["spleen"]


def test_removed_arguments_are_dropped_or_renamed() -> None:
    config = {
        "network_def": {"_target_": "monai.networks.nets.UNETR", "pos_embed": "conv", "a": 1},
        "steps": [{"_target_": "AddChanneld", "keys": "image"}, {"_target_": "UNet", "b": 2}],
    }
    messages = [one.message for one in removed_arguments(config)]
    without_removed(config)
    assert config["network_def"] == {
        "_target_": "monai.networks.nets.UNETR", "proj_type": "conv", "a": 1}  # fmt: skip
    assert config["steps"] == [
        {"_target_": "EnsureChannelFirstd", "keys": "image"}, {"_target_": "UNet", "b": 2}
    ]  # fmt: skip
    assert messages == [
        "pos_embed of UNETR (network_def#pos_embed) is called proj_type in MONAI 1.6",
        "AddChanneld (steps#0#_target_) was replaced by EnsureChannelFirstd in MONAI 1.6",
    ]


def test_all_networks_that_fetch_unless_told_are_known() -> None:
    networks = [(name, getattr(nets, name)) for name in dir(nets) if name[0].isupper()]
    fetching = {
        name
        for name, network in networks
        if inspect.isclass(network)
        and (one := inspect.signature(network).parameters.get("pretrained")) is not None
        and one.default is True
    }
    assert fetching
    assert fetching <= set(FETCHING_BY_DEFAULT)
