"""Results folders as nnU-Net v2 writes them, with networks of random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

LABELS = {"background": 0, "organ": 1, "tumour": 2}
PROPERTIES = {
    "percentile_00_5": -150.0, "percentile_99_5": 250.0, "mean": 40.0, "std": 80.0, "max": 900.0,
    "min": -1000.0, "median": 45.0,
}  # fmt: skip


def configuration(dims: int = 3, *, residual: bool = False, **changes: Any) -> dict[str, Any]:
    """Return one configuration of plans.json; kernels and strides differ from axis to axis."""
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    name = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    settings = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [8, 16, 12][-dims:],
        "spacing": [2.5, 1.0, 1.2][-dims:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {
            "is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None,
        },
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {
            "is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None,
        },
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None,
        },
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": {
                "n_stages": 3,
                "features_per_stage": [4, 6, 8],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": [[1, 3, 3][-dims:], [3, 3, 1][-dims:], [3, 3, 3][-dims:]],
                "strides": [[1, 1, 1][-dims:], [1, 2, 2][-dims:], [2, 2, 1][-dims:]],
                blocks: [1, 2, 2],
                "n_conv_per_stage_decoder": [2, 1],
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }  # fmt: skip
    return settings | changes


def random_network(settings: dict[str, Any], channels: int, outputs: int, seed: int = 0) -> Any:
    """Build the network of a configuration by the library that nnU-Net takes it from."""
    from dynamic_network_architectures.architectures import unet  # noqa: PLC0415

    given = dict(settings["architecture"]["arch_kwargs"])
    dims = len(settings["patch_size"])
    given["conv_op"] = (torch.nn.Conv2d, torch.nn.Conv3d)[dims - 2]
    given["norm_op"] = (torch.nn.InstanceNorm2d, torch.nn.InstanceNorm3d)[dims - 2]
    given["nonlin"] = torch.nn.LeakyReLU
    name = settings["architecture"]["network_class_name"].rpartition(".")[2]
    torch.manual_seed(seed)
    network = getattr(unet, name)(
        input_channels=channels, num_classes=outputs, deep_supervision=True, **given
    )
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim == 1:
                weight.copy_(torch.randn(len(weight)) * 0.3 + float(weight.mean() > 0.5))
    network.decoder.deep_supervision = False
    return network.eval()


def write_results(
    parent: Path,
    settings: dict[str, Any],
    *,
    configuration_name: str = "3d_fullres",
    transpose: tuple[int, ...] = (0, 1, 2),
    dataset: dict[str, Any] | None = None,
    reader: str = "SimpleITKIO",
    folds: tuple[str, ...] = ("0",),
) -> tuple[Path, list[Any]]:
    """Write a results folder, and return it with the networks of its folds."""
    dataset = {"channel_names": {"0": "MRI"}, "labels": LABELS, "file_ending": ".nii.gz"} | (
        dataset or {}
    )
    folder = parent / "Dataset004_Toy" / f"nnUNetTrainer__nnUNetPlans__{configuration_name}"
    folder.mkdir(parents=True)
    plans = {
        "dataset_name": "Dataset004_Toy",
        "plans_name": "nnUNetPlans",
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "image_reader_writer": reader,
        "configurations": {configuration_name: settings},
        "foreground_intensity_properties_per_channel": dict.fromkeys(
            dataset["channel_names"], PROPERTIES
        ),
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    channels = len(dataset["channel_names"])
    regions = "regions_class_order" in dataset
    outputs = len([name for name in dataset["labels"] if name != "ignore"]) - regions
    if settings.get("previous_stage"):  # a channel a value in masks
        channels += outputs - (not regions)
    networks = []
    for number, fold in enumerate(folds):
        network = random_network(settings, channels, outputs, seed=number)
        checkpoint = {
            "network_weights": network.state_dict(),
            "logging": {"mean_fg_dice": [np.float64(0.5)]},
            "_best_ema": np.float32(0.5),
            "init_args": {"configuration": configuration_name, "plans": plans},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": tuple(range(len(settings["patch_size"]) - 1)),
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
        networks.append(network)
    return folder, networks
