"""What every bundle of the repository promises; a new folder in bundles/ joins by being there.

`test_monai_commands.py` runs MONAI's commands.
"""

import json
import re
import shutil
from pathlib import Path

import monai.bundle
import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from medseg.bundle import load_bundle
from medseg.bundle.check import inapplicable_to
from tests.real_data import data_folder

REPOSITORY = Path(__file__).parents[2]
BUNDLES = sorted(path.parent for path in (REPOSITORY / "bundles").glob("*/configs"))
SCHEMA = "meta_schema_20240725.json"
SCHEMA_SHA256 = "cd64aa8a5904426f6fc6855dabe46af8c742d5bad644b4e9cfb78ebad09ad678"
LINE_BUDGETS = {"common": 60, "train": 80, "evaluate": 20, "inference": 40, "multi_gpu_train": 40}
WEIGHTS_BUDGET_BYTES, OF_OBJECTS_BYTES = 12_000_000, 25_000_000
OF_OBJECTS = [path for path in BUNDLES if load_bundle(path).finds_objects]
INFERENCE = ["configs/common.yaml", "configs/inference.yaml"]

pytestmark = [
    # MONAI 1.6.1 warns that configs are code, each time one is read
    pytest.mark.filterwarnings("ignore:parsing config_file:"),
    pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name),
]


@pytest.fixture
def in_bundle(bundle, monkeypatch):
    """Work from the bundle's folder, as its card tells users to."""
    monkeypatch.chdir(bundle)
    return bundle


def metadata_of(bundle):
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def common_of(bundle):
    return yaml.safe_load((bundle / "configs" / "common.yaml").read_text())


def weights_of(bundle):
    path = bundle / "models" / "model.pt"
    if not path.is_file():
        pytest.skip(f"{bundle.name} has no trained weights")
    return torch.load(path, map_location="cpu", weights_only=True)


def network_of(bundle):
    parser = ConfigParser()
    parser.read_config([bundle / name for name in INFERENCE])
    return parser.get_parsed_content("network_def")


@pytest.mark.parametrize("name", LINE_BUDGETS)
def test_configs_are_short(bundle, name):
    lines = (bundle / "configs" / f"{name}.yaml").read_text().splitlines()
    assert len(lines) <= LINE_BUDGETS[name]


def test_licence_and_card_are_there_and_the_card_says_how_to_train(bundle):
    assert (bundle / "LICENSE").stat().st_size > 0
    card = load_bundle(bundle).card
    command = metadata_of(bundle)["medseg"]["train_command"]
    assert command in card
    assert "not for" in card.lower(), "the card says what the bundle is not for"
    for config in re.findall(r"configs/[a-z_]+\.(?:yaml|json)", card):
        assert (bundle / config).is_file(), f"the card names {config}"


@pytest.mark.usefixtures("in_bundle")
def test_metadata_follows_monais_schema(tmp_path):
    schema = shutil.copy(data_folder("../schema") / SCHEMA, tmp_path)
    monai.bundle.verify_metadata(
        meta_file="configs/metadata.json",
        filepath=schema,
        hash_val=SCHEMA_SHA256,
        hash_type="sha256",
    )


def test_channels_labels_and_classes_agree(bundle):
    metadata, common = metadata_of(bundle), common_of(bundle)
    formats = metadata["network_data_format"]
    pred, image = formats["outputs"]["pred"], formats["inputs"]["image"]
    named = {entry["index"]: entry["name"] for entry in metadata["medseg"]["labels"]}
    first = pred["channel_def"]["0"]
    assert {int(key): name for key, name in pred["channel_def"].items()} == {0: first, **named}
    # of pictures, class 0 may be a thing like any other
    assert first == "background" or len(common["patch_size"]) == 2
    assert pred["num_channels"] == common["num_classes"] == len(named) + 1
    assert image["num_channels"] == common["network_def"]["in_channels"]
    assert image["spatial_shape"] == pred["spatial_shape"] == common["patch_size"]
    colors = [tuple(entry["color"]) for entry in metadata["medseg"]["labels"]]
    assert len(set(colors)) == len(colors)
    assert all(0 <= value <= 255 for color in colors for value in color)
    assert [label.name for label in load_bundle(bundle).labels] == list(named.values())


def test_preprocessing_is_a_flat_list(bundle):
    """A Compose within the list would silently disable CacheDataset."""
    steps = common_of(bundle)["preprocessing_transforms"]
    kinds = [step["_target_"] for step in steps if isinstance(step, dict)]
    assert kinds
    assert "Compose" not in kinds


def test_weights_are_small_finite_and_fit_the_network(bundle):
    weights = weights_of(bundle)
    budget = OF_OBJECTS_BYTES if bundle in OF_OBJECTS else WEIGHTS_BUDGET_BYTES
    assert (bundle / "models" / "model.pt").stat().st_size < budget
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    network_of(bundle).load_state_dict(weights, strict=True)


def test_network_takes_and_gives_what_the_metadata_says(in_bundle):
    if in_bundle in OF_OBJECTS:
        refused = {one.command.split()[1] for one in inapplicable_to(in_bundle)}
        assert "verify_net_in_out" in refused, "bundle check says that it does not apply"
        return
    assert not inapplicable_to(in_bundle)
    monai.bundle.verify_net_in_out(
        net_id="network_def", meta_file="configs/metadata.json", config_file=INFERENCE, device="cpu"
    )


@pytest.mark.usefixtures("in_bundle")
@pytest.mark.parametrize("overlay", [["train"], ["train", "evaluate"], ["inference"]])
def test_monai_makes_a_workflow_of_the_configs(overlay):
    files = ["configs/common.yaml", *(f"configs/{name}.yaml" for name in overlay)]
    kind = "inference" if overlay == ["inference"] else "train"
    workflow = monai.bundle.create_workflow(
        config_file=files, workflow_type=kind, meta_file="configs/metadata.json", logging_file=False
    )
    assert isinstance(workflow.parser.get_parsed_content("network_def"), torch.nn.Module)
