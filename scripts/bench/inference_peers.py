"""A DICOM CT to a mask on disk: medseg against nnU-Net v2, the same network architecture, one run.

    python scripts/bench/inference_peers.py WORK --nnunet VENV [--slices 400]

Makes a CT series of 512x512xN and the same as NIfTI, and trains a 31 M-parameter network for a
few minutes to tell its organs apart, so that labels are no noise. medseg segments the DICOM folder,
twice: the first run converts the network. nnU-Net segments the NIfTI file with random weights of
the same architecture, without mirroring: its time does not depend on the weights. Times are those
of whole processes; memory is the largest sum over a process and its children, shared pages
counted once.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
FILTERS = [32, 64, 128, 256, 320, 320]
PATCH = [96, 96, 96]
SPACING = [1.5, 1.5, 1.5]
ITERATIONS = 120

NNUNET = """
import json, sys
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

folder = sys.argv[1]
plans = json.load(open(folder + "/plans.json"))
part = plans["configurations"]["3d_fullres"]["architecture"]
torch.manual_seed(0)
network = get_network_from_plans(
    part["network_class_name"], part["arch_kwargs"], part["_kw_requires_import"], 1, 3,
    allow_init=True, deep_supervision=True,
)
torch.save(
    {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    },
    folder + "/fold_0/checkpoint_final.pth",
)
print(sum(p.numel() for p in network.decoder.parameters()))
"""


def plans() -> dict[str, Any]:
    """Return nnU-Net's plans for the CT: the network of its plan for 96^3 patches of 1.5 mm."""
    stages = len(FILTERS)
    resampling = {
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    }
    options = {"order_z": 0, "force_separate_z": None}
    return {
        "dataset_name": "Dataset905_CT",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 0.78125, 0.78125],
        "original_median_shape_after_transp": [400, 512, 512],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "max": 1000.0, "mean": 40.0, "median": 45.0, "min": -1000.0,
                "percentile_00_5": -160.0, "percentile_99_5": 240.0, "std": 100.0,
            }
        },
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": PATCH,
                "median_image_size_in_voxels": [267.0, 267.0, 267.0],
                "spacing": SPACING,
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                **resampling,
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **options},
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **options},
                "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **options},
                "architecture": {
                    "network_class_name": (
                        "dynamic_network_architectures.architectures.unet.PlainConvUNet"
                    ),
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": FILTERS,
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3]] * stages,
                        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
                        "n_conv_per_stage": [2] * stages,
                        "n_conv_per_stage_decoder": [2] * (stages - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": True,
            }
        },
    }  # fmt: skip


def make_bundle(folder: Path) -> None:
    """Write the phantom bundle with the large network, trained for a few minutes."""
    import torch
    from dicom import synthetic_ct
    from scipy.ndimage import gaussian_filter

    from medseg.networks import DynUNet

    source = HERE.parents[1] / "bundles" / "phantom_ct"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.pt", "docs"))
    stages = len(FILTERS)
    changes = {
        "spacing_mm:": f"spacing_mm: {SPACING}",
        "patch_size:": f"patch_size: {PATCH}",
        "  kernel_size:": f"  kernel_size: {[[3] * 3] * stages}",
        "  strides:": f"  strides: {[[1] * 3] + [[2] * 3] * (stages - 1)}",
        "  upsample_kernel_size:": f"  upsample_kernel_size: {[[2] * 3] * (stages - 1)}",
        "  filters:": f"  filters: {FILTERS}",
    }
    common = folder / "configs" / "common.yaml"
    lines = [
        next((new for old, new in changes.items() if line.startswith(old)), line)
        for line in common.read_text().splitlines()
    ]
    common.write_text("\n".join(lines) + "\n")
    torch.manual_seed(0)
    network = DynUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=3,
        kernel_size=[3] * stages,
        strides=[1] + [2] * (stages - 1),
        upsample_kernel_size=[2] * (stages - 1),
        filters=FILTERS,
        norm_name=("INSTANCE", {"affine": True}),
        deep_supervision=False,
        deep_supr_num=2,
    )
    image = synthetic_ct(64).astype(np.float32)[:, ::2, ::2]
    volume = torch.from_numpy(image)
    smooth = torch.from_numpy(gaussian_filter(image, 2))  # labels without the noise
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ITERATIONS)
    rng = np.random.default_rng(0)
    for number in range(ITERATIONS):
        corner = [int(rng.integers(0, extent - 64 + 1)) for extent in volume.shape]
        where = tuple(slice(c, c + 64) for c in corner)
        part, tissue = volume[where], smooth[where]
        label = ((tissue > 75) & (tissue < 300)).long() + 2 * (tissue >= 300).long()
        image = (part.clamp(-160, 240) - 40) / 100
        with torch.autocast("cpu", torch.bfloat16):
            output = network(image[None, None])
        loss = torch.nn.functional.cross_entropy(output.float(), label[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if number % 10 == 9:
            print(f"training: iteration {number + 1}, loss {loss.item():.4f}", file=sys.stderr)
    (folder / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), folder / "models" / "model.pt")


def make_nnunet(folder: Path, venv: Path) -> None:
    """Write a results folder of nnU-Net."""
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans()))
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1, "spine": 2},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    subprocess.run([str(venv / "bin/python"), "-c", NNUNET, str(folder)], check=True)


def measured(command: list[str], log: Path, **environment: str) -> dict[str, float]:
    """Run a command; its seconds, and the most memory that it and its children had."""
    started = time.perf_counter()
    with log.open("a") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=stream, env=os.environ | environment
        )
        peak = [0.0]
        watch = threading.Thread(target=_watch, args=(process, peak))
        watch.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        watch.join()
    if code:
        sys.exit(f"{command[0]} failed, see {log}")
    return {"seconds": seconds, "peak_mb": peak[0]}


def _watch(process: "subprocess.Popen[bytes]", peak: list[float]) -> None:
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            tree = [root, *root.children(recursive=True)]
            total = sum(one.memory_full_info().pss for one in tree)
            peak[0] = max(peak[0], total / 1e6)
        except psutil.Error:
            pass
        time.sleep(0.1)


def prepare(work: Path) -> None:
    """Make the bundle, and the image as NIfTI."""
    if not (work / "bundle").exists():
        make_bundle(work / "bundle")
    images = work / "images"
    images.mkdir(exist_ok=True)
    if not list(images.iterdir()):
        command = [sys.executable, "-m", "medseg", "convert", str(work / "series" / "native")]
        subprocess.run([*command, "-o", str(work / "converted"), "--overwrite"], check=True)
        [image] = (work / "converted").rglob("*.nii.gz")
        shutil.copy(image, images / "case_0000.nii.gz")


def main() -> None:
    """Make the input, run both, write one JSON file."""
    from dicom import make
    from measure import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--nnunet", type=Path, help="virtual environment with nnU-Net v2")
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument(
        "-o", "--output", type=Path, default=HERE / "results" / "inference_peers.json"
    )
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    series, log, images = work / "series", work / "log.txt", work / "images"
    make(series, arguments.slices)
    prepare(work)
    medseg = [sys.executable, "-m", "medseg"]
    result: dict[str, Any] = {"machine": machine(), "slices": arguments.slices}
    cache = {"XDG_CACHE_HOME": str(work / "cache")}
    shutil.rmtree(work / "cache", ignore_errors=True)
    for name in ("medseg_first", "medseg"):
        command = [*medseg, "segment", str(series / "native"), "-b", str(work / "bundle")]
        command += ["-o", str(work / name), "--outputs", "nifti", "--json", "--overwrite"]
        result[name] = measured(command, log, **cache)
        print(name, result[name], flush=True)
    if arguments.nnunet:
        folder = work / "nnunet"
        if not folder.exists():
            make_nnunet(folder, arguments.nnunet)
        program = arguments.nnunet / "bin/nnUNetv2_predict_from_modelfolder"
        command = [str(program), "-i", str(images), "-o", str(work / "nnunet_out"), "-m"]
        command += [str(folder), "-f", "0", "-device", "cpu", "--disable_tta"]
        command += ["-npp", "1", "-nps", "1"]
        result["nnunet"] = measured(command, log)
        result["times_faster"] = result["nnunet"]["seconds"] / result["medseg"]["seconds"]
        result["share_of_memory"] = result["medseg"]["peak_mb"] / result["nnunet"]["peak_mb"]
    text = json.dumps(result, indent=1)
    arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
