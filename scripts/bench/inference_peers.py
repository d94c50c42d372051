"""A DICOM CT to a mask on disk, one nnU-Net v2 network: medseg against nnU-Net in one run.

    python scripts/bench/inference_peers.py WORK --nnunet VENV [--slices 400] [--labels 2]

Makes a CT series of 512x512xN, and in WORK a results folder of nnU-Net whose network of 31 M
parameters is trained for a few minutes to tell its organs apart, so that labels are no noise.
medseg imports the folder and segments the DICOM series, twice: the first run converts the
network. nnU-Net segments the NIfTI file of the same series, without mirroring. More labels than
those of the phantom are classes that the network may name and does not find. Times are those of
whole processes; memory is the largest sum over a process and its children, shared pages counted
once; masks are compared voxel by voxel.
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
ITERATIONS = 400

TRAIN = """
import json, sys
import numpy as np
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

folder, example, iterations = sys.argv[1], np.load(sys.argv[2]), int(sys.argv[3])
part = json.load(open(folder + "/plans.json"))["configurations"]["3d_fullres"]["architecture"]
classes = len(json.load(open(folder + "/dataset.json"))["labels"])
torch.manual_seed(0)
network = get_network_from_plans(
    part["network_class_name"], part["arch_kwargs"], part["_kw_requires_import"], 1, classes,
    allow_init=True, deep_supervision=True,
)
image, label = (torch.from_numpy(example[name]) for name in ("image", "label"))
optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
rng = np.random.default_rng(0)
for number in range(iterations):
    corner = [int(rng.integers(0, extent - 64 + 1)) for extent in image.shape]
    where = tuple(slice(c, c + 64) for c in corner)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(image[where][None, None])[0]
    loss = torch.nn.functional.cross_entropy(output.float(), label[where][None].long())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    if number % 10 == 9:
        print(f"training: iteration {number + 1}, loss {loss.item():.4f}", file=sys.stderr)
torch.save(
    {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    },
    folder + "/fold_0/checkpoint_final.pth",
)
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


def make_nnunet(folder: Path, venv: Path, labels: int) -> None:
    """Write a results folder of nnU-Net, its network trained for a few minutes."""
    from dicom import synthetic_ct
    from scipy.ndimage import gaussian_filter

    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans()))
    names = ["background", "organ", "spine", *(f"other_{n}" for n in range(3, labels + 1))]
    description = {
        "channel_names": {"0": "CT"},
        "labels": {name: number for number, name in enumerate(names)},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    image = synthetic_ct(64).astype(np.float32)[:, ::2, ::2]
    smooth = gaussian_filter(image, 2)  # labels without the noise
    label = ((smooth > 75) & (smooth < 300)) + 2 * (smooth >= 300)
    example = folder / "example.npz"
    image = (np.clip(image, -160, 240) - 40) / 100  # as the plans say
    np.savez(example, image=image, label=label.astype(np.uint8))
    command = [str(venv / "bin/python"), "-c", TRAIN, str(folder), str(example), str(ITERATIONS)]
    subprocess.run(command, check=True)
    example.unlink()


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


def prepare(work: Path, nnunet: Path, labels: int) -> tuple[Path, Path]:
    """Make the results folder of nnU-Net, the bundle, and the image as NIfTI."""
    bundle, images = work / f"bundle_{labels}", work / "images"
    folder = work / f"nnunet_{labels}" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    program = [sys.executable, "-m", "medseg"]
    if not (folder / "fold_0" / "checkpoint_final.pth").exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_nnunet(folder, nnunet, labels)
    if not bundle.exists():
        command = [*program, "bundle", "import-nnunet", str(folder), "-o", str(bundle)]
        subprocess.run(command, check=True)
    images.mkdir(exist_ok=True)
    if not list(images.iterdir()):
        command = [*program, "convert", str(work / "series" / "native")]
        subprocess.run([*command, "-o", str(images / "case_0000.nii.gz")], check=True)
    return folder, bundle


def how_it_ran(output: Path) -> dict[str, Any]:
    """Return the library and the precision that were chosen, and seconds of each part."""
    [report] = (json.loads(file.read_text()) for file in output.rglob("report.json"))
    [network] = report["inference"]["networks"]
    return {"network": network, "parts": report["seconds"]}


def compared(ours: Path, theirs: Path) -> dict[str, Any]:
    """Return the share of equal voxels of two masks, and the Dice of each label that is there."""
    import nibabel as nib

    a, b = (np.asarray(nib.load(file).dataobj) for file in (ours, theirs))
    dice = {}
    for value in np.union1d(np.unique(a), np.unique(b)):
        if value:
            both = np.count_nonzero((a == value) & (b == value))
            total = np.count_nonzero(a == value) + np.count_nonzero(b == value)
            dice[str(int(value))] = 2 * both / total
    return {"equal_voxels": float(np.mean(a == b)), "dice": dice}


def run_medseg(work: Path, bundle: Path, device: str) -> dict[str, dict[str, Any]]:
    """Segment the series, the first time and again; on a processor in half precision too."""
    cache = {"XDG_CACHE_HOME": str(work / "cache")}
    shutil.rmtree(work / "cache", ignore_errors=True)
    runs = {"medseg_first": "auto", "medseg": "auto"}
    if device == "cpu":
        runs |= {"medseg_bf16_first": "bf16", "medseg_bf16": "bf16"}
    result: dict[str, dict[str, Any]] = {}
    for name, precision in runs.items():
        command = [sys.executable, "-m", "medseg", "segment", str(work / "series" / "native")]
        command += ["-b", str(bundle), "-o", str(work / name), "--outputs", "nifti,numbers"]
        command += ["--device", device, "--precision", precision, "--overwrite", "--json"]
        result[name] = measured(command, work / "log.txt", **cache) | how_it_ran(work / name)
        print(name, result[name], flush=True)
    return result


def main() -> None:
    """Make the input, run both, write one JSON file."""
    from dicom import make
    from measure import machine

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument(
        "--nnunet", type=Path, required=True, help="virtual environment with nnU-Net v2"
    )
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--labels", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="Without nnU-Net's prediction.")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "-o", "--output", type=Path, default=HERE / "results" / "inference_peers.json"
    )
    arguments = parser.parse_args()
    work: Path = arguments.work.absolute()
    make(work / "series", arguments.slices)
    folder, bundle = prepare(work, arguments.nnunet, arguments.labels)
    result: dict[str, Any] = {
        "machine": machine(),
        "device": arguments.device,
        "slices": arguments.slices,
        "labels": arguments.labels,
    }
    runs = run_medseg(work, bundle, arguments.device)
    result |= runs
    if not arguments.alone:
        program = arguments.nnunet / "bin/nnUNetv2_predict_from_modelfolder"
        images = work / "images"
        command = [str(program), "-i", str(images), "-o", str(work / "nnunet_out"), "-m"]
        command += [str(folder), "-f", "0", "-device", arguments.device, "--disable_tta"]
        command += ["-npp", "1", "-nps", "1"]
        result["nnunet"] = measured(command, work / "log.txt")
        for name in runs:
            [ours] = (work / name).rglob("segmentation.nii.gz")
            result[name] |= {
                "times_faster": result["nnunet"]["seconds"] / result[name]["seconds"],
                "share_of_memory": result[name]["peak_mb"] / result["nnunet"]["peak_mb"],
                **compared(ours, work / "nnunet_out" / "case.nii.gz"),
            }
    text = json.dumps(result, indent=1)
    arguments.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
