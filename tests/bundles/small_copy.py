"""Copies of the shipped bundles that a CPU can train: fewer filters, a smaller patch."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.bundle import ConfigParser

FILTERS = 4
PICTURE = 64
"""Rows and columns of the patch of a network that does not say by how much it divides them."""
OF_OBJECTS = {
    "encoder": "resnet18", "levels": 1, "box_features": 8, "mask_layers": 1,
    "anchor_sizes": [[16], [32]],
}  # fmt: skip
"""Arguments of the smallest Mask R-CNN."""
WIDTHS = ("filters", "channels", "init_filters")
"""What the arguments of a network call its filters."""


def small_copy(bundle: Path, folder: Path) -> Path:
    """Copy a bundle; without weights its network gets fewer filters and untrained weights.

    The patch becomes the smallest with two voxels an axis at the bottom of the network. Folds are
    dealt from the dataset that is given. All else stays as the bundle says.
    """
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("checkpoint*", "logs", "cache"))
    trained = (folder / "models" / "model.pt").is_file()
    common = read(folder / "configs" / "common.yaml")
    network = common["network_def"]
    common["patch_size"] = patch_of(network, common["patch_size"])
    if not trained and "network_name" in common:  # any network of the table
        common["network_name"] = "segnet"
        network["base_channels"] = FILTERS
    if not trained:
        for name in WIDTHS:
            if name in network:
                network[name] = np.full_like(network[name], FILTERS).tolist()
    if not trained and "anchor_sizes" in network:
        network |= OF_OBJECTS
    write(folder / "configs" / "common.yaml", common)
    train = read(folder / "configs" / "train.yaml")
    if "splits_file" in train:
        write(folder / "configs" / "train.yaml", train | {"splits_file": None})
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    formats = metadata["network_data_format"]
    for part in (formats["inputs"]["image"], formats["outputs"]["pred"]):
        part["spatial_shape"] = common["patch_size"]
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    if not trained:
        (folder / "models").mkdir(exist_ok=True)
        torch.save(network_of(folder).state_dict(), folder / "models" / "model.pt")
    return folder


def network_of(bundle: Path) -> torch.nn.Module:
    """Build the network of inference, without weights."""
    parser = ConfigParser()
    parser.read_config([bundle / "configs" / name for name in ("common.yaml", "inference.yaml")])
    torch.manual_seed(0)
    network: torch.nn.Module = parser.get_parsed_content("network_def").eval()
    return network


def patch_of(network: dict[str, Any], largest: list[int]) -> list[int]:
    """Return the smallest patch with two voxels an axis at the bottom of a network."""
    if "strides" not in network:
        return [PICTURE] * len(largest)
    strides = [np.broadcast_to(stride, len(largest)) for stride in network["strides"]]
    divisors = np.prod(strides, axis=0)
    return [int(min(2 * step, size)) for step, size in zip(divisors, largest, strict=True)]


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))
