"""A bundle whose answer is known: the labels are where the image passes two thresholds."""

import json
from pathlib import Path

import torch
import yaml

THRESHOLDS = (100.5, 200.5)
"""Label 1 above the first, label 2 above the second; no integer ties with them."""


def write_toy_bundle(
    folder: Path,
    *,
    modality: tuple[str, ...] = (),
    spacing_mm: list[float] | None = None,
    weights: bool = True,
    channels: int = 1,
    rule: dict | None = None,
) -> Path:
    """Write a bundle that labels voxels by intensity, with a one-voxel convolution."""
    steps = [
        {
            "_target_": "LoadImaged",
            "keys": "image",
            "reader": {"_target_": "medseg.transforms.ImageReader"},
        },
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
    ]
    if spacing_mm:
        steps.append({"_target_": "Spacingd", "keys": "image", "pixdim": spacing_mm})
    common = {
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": {
            "_target_": "torch.nn.Conv3d",
            "in_channels": channels,
            "out_channels": 3,
            "kernel_size": 1,
        },
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [16, 16, 16],
            "sw_batch_size": 2,
            "overlap": 0.25,
        },
    }
    configs = folder / "configs"
    configs.mkdir(parents=True)
    (configs / "inference.yaml").write_text(yaml.safe_dump(common))
    (configs / "metadata.json").write_text(
        json.dumps(
            {
                "version": "1.2.3",
                "description": "labels by intensity",
                "network_data_format": {
                    "inputs": {"image": {"num_channels": channels}},
                    "outputs": {
                        "pred": {"channel_def": {"0": "background", "1": "organ", "2": "tumour"}}
                    },
                },
                "medseg": {
                    "input": {"modality": list(modality), **(rule or {})},
                    "train_command": "python -m monai.bundle run --config_file train.yaml",
                },
            }
        )
    )
    if weights:
        write_toy_weights(folder, channels)
    return folder


def write_toy_weights(folder: Path, channels: int = 1) -> None:
    """Write weights whose largest class map tells the interval a voxel lies in."""
    # maps 0, x - a and 2 x - a - b are largest below a, between a and b, and above b
    first, second = THRESHOLDS
    weight = torch.zeros(3, channels, 1, 1, 1)
    weight[1, 0], weight[2, 0] = 1.0, 2.0
    bias = torch.tensor([0.0, -first, -first - second])
    (folder / "models").mkdir(exist_ok=True)
    torch.save({"weight": weight, "bias": bias}, folder / "models" / "model.pt")
