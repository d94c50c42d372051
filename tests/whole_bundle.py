"""A complete small bundle without faults, to be copied and broken."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.networks.nets import DynUNet

from medseg._version import __version__

PATCH = [16, 16, 16]

NETWORK = {
    "spatial_dims": 3,
    "in_channels": 1,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 8],
    "deep_supr_num": 1,
}

COMMON: dict[str, Any] = {
    "bundle_root": ".",
    "dataset_dir": "$@bundle_root + '/data'",
    "output_dir": "$@bundle_root + '/eval'",
    "ckpt_path": "$@bundle_root + '/models/model.pt'",
    "device": "$torch.device('cpu')",
    "keys": ["image", "label"],
    "interp": ["bilinear", "nearest"],
    "num_classes": 3,
    "spacing_mm": [2.0, 2.0, 2.0],
    "patch_size": PATCH,
    "deep_supervision": False,
    "network_def": {
        "_target_": "DynUNet",
        **NETWORK,
        "out_channels": "@num_classes",
        "deep_supervision": "@deep_supervision",
    },
    "network": "$@network_def.to(@device)",
    "preprocessing_transforms": [
        {
            "_target_": "LoadImaged",
            "keys": "@keys",
            "reader": {"_target_": "medseg.transforms.ImageReader"},
        },
        {"_target_": "EnsureChannelFirstd", "keys": "@keys"},
        {"_target_": "Orientationd", "keys": "@keys", "axcodes": "RAS", "labels": None},
        {"_target_": "Spacingd", "keys": "@keys", "pixdim": "@spacing_mm", "mode": "@interp"},
        {"_target_": "NormalizeIntensityd", "keys": "image"},
    ],
    "preprocessing": {"_target_": "Compose", "transforms": "@preprocessing_transforms"},
    "inferer": {
        "_target_": "SlidingWindowInferer",
        "roi_size": "@patch_size",
        "sw_batch_size": 2,
        "overlap": 0.25,
    },
    "checkpoint": {
        "_target_": "CheckpointLoader",
        "load_path": "@ckpt_path",
        "load_dict": {"model": "@network"},
        "map_location": "@device",
    },
}

DICE = {
    "_target_": "MeanDice",
    "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
}

TRAIN: dict[str, Any] = {
    "imports": ["$import glob"],
    "epochs": 2,
    "lr": 0.01,
    "deep_supervision": True,
    "images": "$sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz'))",
    "train_cases": "$[{'image': i, 'label': i.replace('images', 'labels')} for i in @images]",
    "loss": {
        "_target_": "medseg.losses.DeepSupervisionLoss",
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
    },
    "optimizer": {
        "_target_": "torch.optim.SGD",
        "params": "$@network.parameters()",
        "lr": "@lr",
    },
    "train": {
        "augmentation": [
            {"_target_": "SpatialPadd", "keys": "@keys", "spatial_size": "@patch_size"},
            {
                "_target_": "RandSpatialCropd",
                "keys": "@keys",
                "roi_size": "@patch_size",
                "random_size": False,
            },
        ],
        "preprocessing": {
            "_target_": "Compose",
            "transforms": "$@preprocessing_transforms + @train#augmentation",
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "@train_cases",
            "transform": "@train#preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 1},
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": "@epochs",
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@loss",
            "optimizer": "@optimizer",
        },
    },
    "validate": {
        "dataset": {"_target_": "Dataset", "data": "@train_cases", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "AsDiscreted",
                    "keys": ["pred", "label"],
                    "argmax": [True, False],
                    "to_onehot": "@num_classes",
                }
            ],
        },
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@validate#postprocessing",
            "key_val_metric": {"val_mean_dice": DICE},
            "val_handlers": "@validate#handlers",
        },
    },
    "run": ["$@train#trainer.run()"],
}

EVALUATE: dict[str, Any] = {
    "deep_supervision": False,
    "validate#handlers": [
        "@checkpoint",
        {"_target_": "MetricsSaver", "save_dir": "@output_dir", "metrics": ["val_mean_dice"]},
    ],
    "run": ["$@validate#evaluator.run()"],
}

INFERENCE: dict[str, Any] = {
    "imports": ["$import glob"],
    "keys": ["image"],
    "interp": ["bilinear"],
    "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
    "dataset": {
        "_target_": "Dataset",
        "data": "$[{'image': i} for i in @datalist]",
        "transform": "@preprocessing",
    },
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": False,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            {
                "_target_": "SaveImaged",
                "keys": "pred",
                "output_dir": "@output_dir",
                "output_dtype": "uint8",
                "resample": False,
            },
        ],
    },
    "handlers": ["@checkpoint"],
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "@network",
        "inferer": "@inferer",
        "postprocessing": "@postprocessing",
        "val_handlers": "@handlers",
    },
    "run": ["$@evaluator.run()"],
}

CONFIGS = {"common": COMMON, "train": TRAIN, "evaluate": EVALUATE, "inference": INFERENCE}


def _tensor(channels: dict[str, str], kind: str) -> dict[str, Any]:
    return {
        "type": "image",
        "format": kind,
        "num_channels": len(channels),
        "spatial_shape": PATCH,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": True,
        "channel_def": channels,
    }


def metadata() -> dict[str, Any]:
    """Return the metadata of the bundle; a new document at each call."""
    return {
        "schema": "https://example.org/meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"medseg": __version__},
        "task": "segments what the tests draw",
        "description": "a small network",
        "authors": "the authors of the tests",
        "copyright": "Copyright (c) the authors of the tests",
        "network_data_format": {
            "inputs": {"image": _tensor({"0": "image"}, "magnitude")},
            "outputs": {
                "pred": _tensor({"0": "background", "1": "organ", "2": "tumour"}, "segmentation")
            },
        },
        "medseg": {
            "input": {"modality": ["CT"]},
            "labels": [
                {"index": 1, "name": "organ", "color": [230, 25, 75]},
                {"index": 2, "name": "tumour", "color": [60, 180, 75]},
            ],
            "train_command": "medseg train whole --dataset DIR",
        },
    }


def network(*, classes: int = 3, deep_supervision: bool = False) -> torch.nn.Module:
    """Return the network of the bundle, initialised alike at each call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DynUNet(**NETWORK, out_channels=classes, deep_supervision=deep_supervision)


def write_whole_bundle(folder: Path) -> Path:
    """Write the bundle: configs, metadata, card, licence, weights."""
    (folder / "configs").mkdir(parents=True)
    for name, config in CONFIGS.items():
        write_config(folder, name, config)
    write_metadata(folder, metadata())
    (folder / "LICENSE").write_text("Do as you like.\n")
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text("# whole\n\nSegments what the tests draw.\n")
    (folder / "models").mkdir()
    torch.save(network().state_dict(), folder / "models" / "model.pt")
    return folder


def write_config(folder: Path, name: str, config: dict[str, Any]) -> None:
    """Write one config file."""
    text = yaml.safe_dump(config, sort_keys=False)
    (folder / "configs" / f"{name}.yaml").write_text(text)


def write_metadata(folder: Path, document: dict[str, Any]) -> None:
    """Write the metadata."""
    (folder / "configs" / "metadata.json").write_text(json.dumps(document, indent=2))
