"""Bundles in the layout of MONAI's model zoo, with random weights, and MONAI's own run of them."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
import yaml
from monai.bundle import ConfigParser
from PIL import Image
from scipy import ndimage

Config = dict[str, Any]

CT_WINDOW = {"a_min": -160, "a_max": 240, "b_min": 0.0, "b_max": 1.0, "clip": True}


def step(target: str, keys: str = "pred", **arguments: Any) -> Config:
    """Return one component on a key."""
    return {"_target_": target, "keys": keys, **arguments}


def preprocessing(pixdim: list[float], *further: Config) -> list[Config]:
    """Return what most CT bundles begin with."""
    return [
        step("LoadImaged", "image"),
        step("EnsureChannelFirstd", "image"),
        step("Orientationd", "image", axcodes="RAS"),
        step("Spacingd", "image", pixdim=pixdim, mode="bilinear"),
        *further,
        step("EnsureTyped", "image"),
    ]


def postprocessing(*further: Config, activation: str = "softmax") -> list[Config]:
    """Return activation, inversion, choice and what follows, then the writing of the file."""
    choice = {"argmax": True} if activation == "softmax" else {"threshold": 0.5}
    return [
        step("Activationsd", **{activation: True}),
        step("Invertd", transform="@preprocessing", orig_keys="image", nearest_interp=False,
             to_tensor=True),
        step("AsDiscreted", **choice),
        *further,
        step("SaveImaged", output_dir="@output_dir", separate_folder=False, print_log=False),
    ]  # fmt: skip


SPLEEN: Config = {
    "names": ["background", "spleen"],
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8, 16],
        "strides": [2, 2],
        "num_res_units": 2,
        "norm": "batch",
    },
    "preprocessing": preprocessing(
        [1.5, 1.5, 2.0], step("ScaleIntensityRanged", "image", **CT_WINDOW)
    ),
    "roi_size": [24, 24, 16],
    "postprocessing": postprocessing(),
}
WHOLE_BODY: Config = {
    "names": ["background", *(f"structure_{number:03}" for number in range(1, 105))],
    "network_def": {
        "_target_": "SegResNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 105,
        "init_filters": 8,
        "blocks_down": [1, 2],
        "blocks_up": [1],
        "dropout_prob": 0.2,
    },
    "preprocessing": preprocessing(
        [3.0, 3.0, 3.0],
        step("NormalizeIntensityd", "image", nonzero=True),
        step("ScaleIntensityd", "image", minv=-1.0, maxv=1.0),
    ),
    "roi_size": [16, 16, 16],
    "postprocessing": postprocessing(),
}
SWIN: Config = {
    "names": ["background", "spleen", "kidney_r", "kidney_l"],
    "network_def": {
        "_target_": "SwinUNETR",
        "spatial_dims": 3,
        "img_size": [64, 32, 32],
        "in_channels": 1,
        "out_channels": 4,
        "feature_size": 12,
        "use_checkpoint": True,
    },
    "preprocessing": preprocessing(
        [1.5, 1.5, 2.0], step("ScaleIntensityRanged", "image", **CT_WINDOW)
    ),
    "roi_size": [64, 32, 32],
    "postprocessing": postprocessing(),
}
DYNUNET: Config = {
    "names": ["background", "central gland", "peripheral zone"],
    "network_def": {
        "_target_": "DynUNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "kernel_size": [[3, 3, 1], [3, 3, 3], [3, 3, 3]],
        "strides": [1, [2, 2, 1], 2],
        "upsample_kernel_size": [[2, 2, 1], 2],
        "filters": [8, 16, 32],
        "norm_name": "instance",
        "deep_supervision": False,
        "res_block": True,
    },
    "preprocessing": preprocessing(
        [1.0, 1.0, 2.0],
        step("CropForegroundd", "image", source_key="image", select_fn="$lambda x: x > -500"),
        step("NormalizeIntensityd", "image", nonzero=True, channel_wise=True),
    ),
    "roi_size": [24, 24, 8],
    "postprocessing": postprocessing(
        step("KeepLargestConnectedComponentd", applied_labels=[1, 2], independent=True),
        step("FillHolesd", applied_labels=[1]),
    ),
}
TUMOUR: Config = {
    **copy.deepcopy(SPLEEN),
    "names": ["tumor core", "whole tumor", "enhancing tumor"],
    "postprocessing": postprocessing(activation="sigmoid"),
}
TUMOUR["network_def"]["out_channels"] = 3
STYLES = {"spleen": SPLEEN, "whole_body": WHOLE_BODY, "swin": SWIN, "dynunet": DYNUNET}


def inference(style: Config) -> Config:
    """Return `inference.json`."""
    return copy.deepcopy(
        {
            "imports": ["$import glob", "$import os"],
            "bundle_root": "/workspace/data/bundle",
            "output_dir": "$@bundle_root + '/eval'",
            "dataset_dir": "/workspace/data/images",
            "datalist": "$list(sorted(glob.glob(@dataset_dir + '/*.nii.gz')))",
            "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
            "network_def": style["network_def"],
            "network": "$@network_def.to(@device)",
            "preprocessing": {"_target_": "Compose", "transforms": style["preprocessing"]},
            "dataset": {
                "_target_": "Dataset",
                "data": "$[{'image': i} for i in @datalist]",
                "transform": "@preprocessing",
            },
            "dataloader": {
                "_target_": "DataLoader",
                "dataset": "@dataset",
                "batch_size": 1,
                "shuffle": False,
                "num_workers": 0,
            },
            "inferer": {
                "_target_": "SlidingWindowInferer",
                "roi_size": style["roi_size"],
                "sw_batch_size": 4,
                "overlap": 0.5,
            },
            "postprocessing": {"_target_": "Compose", "transforms": style["postprocessing"]},
            "handlers": [
                {
                    "_target_": "CheckpointLoader",
                    "load_path": "$@bundle_root + '/models/model.pt'",
                    "load_dict": {"model": "@network"},
                    "map_location": "@device",
                },
                {"_target_": "StatsHandler", "iteration_log": False},
            ],
            "evaluator": {
                "_target_": "SupervisedEvaluator",
                "device": "@device",
                "val_data_loader": "@dataloader",
                "network": "@network",
                "inferer": "@inferer",
                "postprocessing": "@postprocessing",
                "val_handlers": "@handlers",
                "amp": False,
            },
            "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
            "run": ["$@evaluator.run()"],
        }
    )


def metadata(style: Config) -> Config:
    """Return `metadata.json`."""
    tensor = {"spatial_shape": style["roi_size"], "dtype": "float32", "is_patch_data": True}
    names = {str(channel): name for channel, name in enumerate(style["names"])}
    inputs = ["image"] if style["network_def"]["in_channels"] == 1 else ["R", "G", "B"]
    return {
        "schema": "https://example.org/meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": "complete"},
        "monai_version": "1.4.0",
        "pytorch_version": "2.4.0",
        "numpy_version": "1.24.4",
        "required_packages_version": {"nibabel": "5.2.1", "pytorch-ignite": "0.4.11"},
        "task": "segmentation of structures",
        "description": "a small network with random weights",
        "authors": "the authors of the tests",
        "copyright": "Copyright (c) the authors of the tests",
        "network_data_format": {
            "inputs": {
                "image": {
                    **tensor,
                    "type": "image",
                    "format": "hounsfield",
                    "modality": "CT",
                    "num_channels": len(inputs),
                    "value_range": [0, 1],
                    "channel_def": {str(number): name for number, name in enumerate(inputs)},
                }
            },
            "outputs": {
                "pred": {
                    **tensor,
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(names),
                    "value_range": [0, 1],
                    "channel_def": names,
                }
            },
        },
    }


def write_style(folder: Path, style: Config, *, suffix: str = "json") -> Path:
    """Write a bundle with random weights."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    write_config(folder, inference(style), suffix=suffix)
    (folder / "configs/metadata.json").write_text(json.dumps(metadata(style), indent=2))
    torch.save(random_network(style).state_dict(), folder / "models/model.pt")
    return folder


def write_config(folder: Path, config: Config, *, suffix: str = "json") -> None:
    """Write the config of inference."""
    text = json.dumps(config, indent=2) if suffix == "json" else yaml.safe_dump(config)
    (folder / f"configs/inference.{suffix}").write_text(text)


def change_config(folder: Path, change: Callable[[Config], Any]) -> None:
    """Change the JSON config of inference in place."""
    config = json.loads((folder / "configs/inference.json").read_text())
    change(config)
    write_config(folder, config)


def random_network(style: Config) -> torch.nn.Module:
    """Return the network of a style; its outputs are balanced, and apart enough to be no ties."""
    definition = {k: v for k, v in style["network_def"].items() if k != "img_size"}
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        network: torch.nn.Module = ConfigParser({"n": definition}).get_parsed_content("n")
        network.eval()
        channels = definition["out_channels"]
        last = [p for p in network.parameters() if p.ndim > 1 and p.shape[0] == channels][-1]
        last.normal_(0, 3 / last[0].numel() ** 0.5)
        noise = ndimage.gaussian_filter(torch.randn(style["roi_size"]).numpy(), 2)
        image = torch.from_numpy(noise / noise.std() * 0.3 + 0.4).float()
        image = image.expand(1, definition["in_channels"], *image.shape)
        bias = [p for p in network.parameters() if p.shape == (channels,)][-1]
        bias -= network(image).flatten(2).mean(dim=(0, 2))
    return network


def write_scan(path: Path, shape: tuple[int, ...] = (44, 38, 21)) -> Path:
    """Write a scan of soft blobs in HU; its axes point left, front and head, slightly oblique."""
    noise = np.random.default_rng(0).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (4, 4, 2))
    array = np.clip(smooth / smooth.std() * 120 + 30, -900, 1200)
    array[:5], array[:, -4:] = -1000, -1000
    turn = np.radians(4)
    cosines = np.array(
        [[-np.cos(turn), np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = cosines @ np.diag([1.3, 1.2, 2.6])
    affine[:3, 3] = [30, -20, 110]
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.astype(np.int16), affine), path)
    return path


def run_by_monai(folder: Path, scan: Path, output: Path) -> npt.NDArray[Any]:
    """Return what `python -m monai.bundle run` writes for a scan that lies alone in its folder."""
    name = next(folder.glob("configs/inference.*")).relative_to(folder)
    arguments = ["--config_file", name, "--bundle_root", ".", "--dataset_dir", scan.parent]
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *map(str, arguments), "--output_dir", output],
        check=True,
        cwd=folder,
        capture_output=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""},
        timeout=300,
    )
    (written,) = (path for path in output.rglob("*") if path.is_file())
    if written.suffix == ".png":
        return np.asarray(Image.open(written))
    return np.asarray(nib.load(written).dataobj)
