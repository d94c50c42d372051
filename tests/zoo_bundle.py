"""A bundle as the MONAI model zoo has them: JSON, one file a workflow, nothing of medseg."""

import copy
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import UNet

OLD_SCHEMA = "https://example.org/meta_schema_20220324.json"
BOTH = ["image", "label"]
NETWORK: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8, 8],
    "strides": [2, 2],
    "norm": "batch",
}
METRIC = {"output_transform": "$monai.handlers.from_engine(['pred', 'label'])"}
PATHS: dict[str, Any] = {
    "imports": ["$import glob", "$import os"],
    "bundle_root": "/workspace/organ_ct_segmentation",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": "/workspace/data/organ",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {"_target_": "UNet", **NETWORK},
    "network": "$@network_def.to(@device)",
}


def _steps(keys: Any, mode: Any) -> list[dict[str, Any]]:
    return [
        {"_target_": "LoadImaged", "keys": keys},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": keys, "pixdim": [2.0, 2.0, 2.0], "mode": mode},
        {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": -57,
            "a_max": 164,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
        {"_target_": "EnsureTyped", "keys": keys},
    ]


def _discrete(keys: Any) -> list[dict[str, Any]]:
    is_pair = isinstance(keys, list)
    step = {"_target_": "AsDiscreted", "keys": keys, "argmax": [True, False] if is_pair else True}
    return [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {**step, "to_onehot": 2} if is_pair else step,
    ]


def _engine(kind: str, data: str, network: str = "@network") -> dict[str, Any]:
    return {"_target_": kind, "device": "@device", data: "@dataloader", "network": network}


def train() -> dict[str, Any]:
    """Return `train.json`."""
    handlers = [
        {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 5},
        {"_target_": "StatsHandler", "tag_name": "train_loss", "output_transform": "$lambda x: x"},
    ]
    return copy.deepcopy(
        {
            **PATHS,
            "ckpt_dir": "$@bundle_root + '/models'",
            "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
            "labels": "$list(sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz')))",
            "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
            "optimizer": {
                "_target_": "torch.optim.Adam",
                "params": "$@network.parameters()",
                "lr": 1e-4,
            },
            "train": {
                "deterministic_transforms": _steps(BOTH, ["bilinear", "nearest"]),
                "random_transforms": [
                    {
                        "_target_": "RandCropByPosNegLabeld",
                        "keys": BOTH,
                        "label_key": "label",
                        "spatial_size": [16, 16, 16],
                    }
                ],
                "preprocessing": {
                    "_target_": "Compose",
                    "transforms": "$@train#deterministic_transforms + @train#random_transforms",
                },
                "dataset": {
                    "_target_": "CacheDataset",
                    "data": "$[{'image': i, 'label': l} for i, l in zip(@images[:-9], @labels)]",
                    "transform": "@train#preprocessing",
                },
                "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset"},
                "inferer": {"_target_": "SimpleInferer"},
                "postprocessing": {"_target_": "Compose", "transforms": _discrete(BOTH)},
                "handlers": handlers,
                "key_metric": {"train_accuracy": {"_target_": "ignite.metrics.Accuracy", **METRIC}},
                "trainer": {
                    "_target_": "SupervisedTrainer",
                    "max_epochs": 300,
                    "device": "@device",
                    "train_data_loader": "@train#dataloader",
                    "network": "@network",
                    "loss_function": "@loss",
                    "optimizer": "@optimizer",
                    "inferer": "@train#inferer",
                    "postprocessing": "@train#postprocessing",
                    "key_train_metric": "@train#key_metric",
                    "train_handlers": "@train#handlers",
                    "amp": True,
                },
            },
            "validate": {
                "preprocessing": {
                    "_target_": "Compose",
                    "transforms": "%train#deterministic_transforms",
                },
                "dataset": {
                    "_target_": "CacheDataset",
                    "data": "$[{'image': i, 'label': l} for i, l in zip(@images[-9:], @labels)]",
                    "transform": "@validate#preprocessing",
                    "cache_rate": 1.0,
                },
                "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset"},
                "inferer": {
                    "_target_": "SlidingWindowInferer",
                    "roi_size": [16, 16, 16],
                    "sw_batch_size": 4,
                },
                "postprocessing": "%train#postprocessing",
                "handlers": [
                    {"_target_": "StatsHandler", "iteration_log": False},
                    {
                        "_target_": "CheckpointSaver",
                        "save_dir": "@ckpt_dir",
                        "save_dict": {"model": "@network"},
                        "save_key_metric": True,
                        "key_metric_filename": "model.pt",
                    },
                ],
                "key_metric": {"val_mean_dice": {"_target_": "MeanDice", **METRIC}},
                "additional_metrics": {
                    "val_accuracy": {"_target_": "ignite.metrics.Accuracy", **METRIC}
                },
                "evaluator": {
                    "_target_": "SupervisedEvaluator",
                    "device": "@device",
                    "val_data_loader": "@validate#dataloader",
                    "network": "@network",
                    "inferer": "@validate#inferer",
                    "postprocessing": "@validate#postprocessing",
                    "key_val_metric": "@validate#key_metric",
                    "additional_metrics": "@validate#additional_metrics",
                    "val_handlers": "@validate#handlers",
                    "amp": True,
                },
            },
            "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)", "$import ignite"],
            "run": ["$@train#trainer.run()"],
        }
    )


def evaluate() -> dict[str, Any]:
    """Return `evaluate.json`, an overlay on `train.json`."""
    return {
        "validate#dataset#cache_rate": 0,
        "validate#postprocessing": {
            "_target_": "Compose",
            "transforms": [
                *_discrete(BOTH),
                {"_target_": "SaveImaged", "_disabled_": True, "keys": "pred"},
            ],
        },
        "validate#handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@ckpt_dir + '/model.pt'",
                "load_dict": {"model": "@network"},
            },
            {
                "_target_": "MetricsSaver",
                "save_dir": "@output_dir",
                "metrics": ["val_mean_dice", "val_accuracy"],
                "metric_details": ["val_mean_dice"],
            },
        ],
        "run": ["$@validate#evaluator.run()"],
    }


def several(part: str, engine: str) -> dict[str, Any]:
    """Return `multi_gpu_train.json` or `multi_gpu_evaluate.json`."""
    return {
        "device": "$torch.device(f'cuda:{dist.get_rank()}')",
        "network": {
            "_target_": "torch.nn.parallel.DistributedDataParallel",
            "module": "$@network_def.to(@device)",
            "device_ids": ["@device"],
        },
        f"{part}#sampler": {"_target_": "DistributedSampler", "dataset": f"@{part}#dataset"},
        f"{part}#dataloader#sampler": f"@{part}#sampler",
        "validate#handlers#1#_disabled_": "$dist.get_rank() > 0",
        "initialize": [
            "$import torch.distributed as dist",
            "$dist.init_process_group(backend='nccl')",
            "$import logging",
            f"$@{part}#{engine}.logger.setLevel(logging.WARNING)",
        ],
        "run": [f"$@{part}#{engine}.run()"],
        "finalize": ["$dist.destroy_process_group()"],
    }


def inference() -> dict[str, Any]:
    """Return `inference.json`."""
    save = {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"}
    invert = {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"}
    softmax, argmax = _discrete("pred")
    return copy.deepcopy(
        {
            **PATHS,
            "output_dtype": "$numpy.uint8",
            "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
            "preprocessing": {"_target_": "Compose", "transforms": _steps("image", "bilinear")},
            "dataset": {
                "_target_": "Dataset",
                "data": "$[{'image': i} for i in @datalist]",
                "transform": "@preprocessing",
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
            "inferer": {
                "_target_": "SlidingWindowInferer",
                "roi_size": [16, 16, 16],
                "sw_batch_size": 4,
            },
            "postprocessing": {
                "_target_": "Compose",
                "transforms": [
                    softmax,
                    {**invert, "orig_keys": "image", "nearest_interp": False},
                    argmax,
                    {**save, "output_dtype": "@output_dtype"},
                ],
            },
            "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
            "evaluator": {
                **_engine("SupervisedEvaluator", "val_data_loader"),
                "inferer": "@inferer",
                "postprocessing": "@postprocessing",
                "val_handlers": "@handlers",
            },
            "checkpointloader": {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            },
            "initialize": ["$@checkpointloader(@evaluator)"],
            "run": ["$@evaluator.run()"],
        }
    )


def metadata() -> dict[str, Any]:
    """Return the metadata, after the schema of 2022."""
    tensor = {"type": "image", "spatial_shape": [16, 16, 16], "dtype": "float32"}
    tensor |= {"value_range": [0, 1], "is_patch_data": True}
    return {
        "schema": OLD_SCHEMA,
        "version": "0.2.0",
        "changelog": {"0.2.0": "names unified", "0.1.0": "complete"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "optional_packages_version": {"nibabel": "3.2.1", "pytorch-ignite": "0.4.8"},
        "task": "organ segmentation",
        "description": "a small network",
        "authors": "the authors of the tests",
        "copyright": "Copyright (c) the authors of the tests",
        "eval_metrics": {"mean_dice": 0.9},
        "network_data_format": {
            "inputs": {
                "image": {
                    **tensor,
                    "format": "hounsfield",
                    "modality": "CT",
                    "num_channels": 1,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    **tensor,
                    "format": "segmentation",
                    "num_channels": 2,
                    "channel_def": {"0": "background", "1": "organ"},
                }
            },
        },
    }


def write_zoo_bundle(folder: Path) -> Path:
    """Write the bundle: configs, metadata, card, licence, weights."""
    documents = {
        "train": train(),
        "evaluate": evaluate(),
        "inference": inference(),
        "multi_gpu_train": several("train", "trainer"),
        "multi_gpu_evaluate": several("validate", "evaluator"),
        "metadata": metadata(),
    }
    (folder / "configs").mkdir(parents=True)
    for name, document in documents.items():
        (folder / "configs" / f"{name}.json").write_text(json.dumps(document, indent=4))
    (folder / "LICENSE").write_text("Do as you like.\n")
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text("# Model Overview\n\nSegments an organ.\n")
    (folder / "models").mkdir()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(UNet(**NETWORK).state_dict(), folder / "models" / "model.pt")
    return folder
