"""Bundles of 2D pictures: one whose answer is known, and one with an untrained network."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.networks.nets import BasicUNet

GREENER, BLUER = 60.5, 90.5
"""Class 1 where green is this much above red, class 2 where blue is; no integer ties with them."""

CLASSES = ("background", "grass", "sea")
U_NET = {"spatial_dims": 2, "features": [4, 4, 8, 8, 8, 4], "norm": "batch"}


def write_picture_bundle(
    folder: Path,
    *,
    channels: int = 3,
    names: tuple[str, ...] = ("red", "green", "blue"),
    spacing_mm: list[float] | None = None,
    spacing_px: list[float] | None = None,
    window: tuple[int, int] = (32, 24),
    network: str = "known",
    colors: dict[int, list[int]] | None = None,
) -> Path:
    """Write a bundle whose network is a convolution of one pixel (`known`), or a small U-Net."""
    if network == "known":
        network_def = {
            "_target_": "torch.nn.Conv2d",
            "in_channels": channels,
            "out_channels": len(CLASSES),
            "kernel_size": 1,
        }
        weights = _known_weights(channels)
    else:
        network_def = {
            "_target_": "BasicUNet",
            "in_channels": channels,
            "out_channels": len(CLASSES),
            **U_NET,
        }
        weights = unet(channels).state_dict()
    steps: list[dict[str, Any]] = [
        {
            "_target_": "LoadImaged",
            "keys": "image",
            "reader": {"_target_": "medseg.transforms.ImageReader", "channels": channels},
        },
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
    ]
    if network != "known":
        steps.append({"_target_": "ScaleIntensityd", "keys": "image"})
    if spacing_mm or spacing_px:
        steps.append(
            {
                "_target_": "medseg.transforms.Resampled",
                "keys": "image",
                **({"spacing_mm": spacing_mm} if spacing_mm else {"spacing_px": spacing_px}),
                "orders": {"image": 1},
                "coarse_order": {"image": 0},
            }
        )
    inferer = {
        "_target_": "SlidingWindowInferer",
        "roi_size": list(window),
        "sw_batch_size": 2,
        "overlap": 0.5,
        "mode": "gaussian",
    }
    configs = folder / "configs"
    configs.mkdir(parents=True)
    document = {
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "network_def": network_def,
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": inferer,
    }
    (configs / "inference.yaml").write_text(yaml.safe_dump(document))
    (configs / "metadata.json").write_text(json.dumps(_metadata(channels, names, window, colors)))
    (folder / "models").mkdir()
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def unet(channels: int = 3) -> torch.nn.Module:
    """Return the untrained network, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = BasicUNet(in_channels=channels, out_channels=len(CLASSES), **U_NET)
        network.eval()
        final = network.final_conv
        final.weight.data *= 20  # classes apart from each other, and none above all others
        with torch.no_grad():
            final.bias.data -= network(torch.rand(1, channels, 64, 64)).mean((0, 2, 3))
    return network


def _metadata(
    channels: int,
    names: tuple[str, ...],
    window: tuple[int, int],
    colors: dict[int, list[int]] | None,
) -> dict[str, Any]:
    labels = [
        {"index": index, "name": CLASSES[index], "color": color}
        for index, color in (colors or {}).items()
    ]
    image = {
        "num_channels": channels,
        "spatial_shape": list(window),
        "channel_def": {str(number): name for number, name in enumerate(names)},
    }
    outputs = {"channel_def": {str(i): name for i, name in enumerate(CLASSES)}}
    return {
        "version": "0.0.1",
        "description": "colours to classes",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": outputs}},
        "medseg": {"input": {}, "labels": labels},
    }


def _known_weights(channels: int) -> dict[str, torch.Tensor]:
    weight = torch.zeros(len(CLASSES), channels, 1, 1)
    if channels == 3:
        weight[1, :2, 0, 0] = torch.tensor([-1.0, 1.0])
        weight[2, 0, 0, 0], weight[2, 2, 0, 0] = -1.0, 1.0
    else:
        weight[1, 0] = weight[2, 0] = 1.0
        weight[2, 0] = 2.0
    bias = torch.tensor([0.0, -GREENER, -BLUER if channels == 3 else -GREENER - BLUER])
    return {"weight": weight, "bias": bias}
