"""Train medseg and nnU-Net v2 for the same time on the same data, and score both on unseen cases.

    python scripts/bench/training_peers.py DATASET WORK --minutes 10 --nnunet VENV [--side-by-side]

DATASET has the layout of the Medical Segmentation Decathlon. A fifth of its cases is put aside
before either program sees the data; both plan, preprocess and train on the rest (fold 0 of their
own five), then segment the cases put aside: one after the other on all cores, or with
--side-by-side at the same time, each on a half of the cores. Scores are those of
`medseg evaluate`. nnU-Net runs in a virtual environment of its own, VENV, with its own defaults but
for the schedule: its learning rate decays over the time it is given, as medseg's does.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

NAME = "Dataset904_Bench"
TRAINER = '''
import os
import time

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerBudget(nnUNetTrainer):
    """nnU-Net's trainer under a time budget: the polynomial decay runs on the elapsed share."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_iterations_per_epoch = 10
        self.num_val_iterations_per_epoch = 1
        self.num_epochs = 100_000
        self.budget_s = float(os.environ["BUDGET_S"])

    def on_train_start(self):
        super().on_train_start()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.started = time.monotonic()

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        share = min(1.0, (time.monotonic() - self.started) / self.budget_s)
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr * (1 - share) ** 0.9

    def on_epoch_end(self):
        super().on_epoch_end()
        if time.monotonic() - self.started > self.budget_s:
            self.num_epochs = self.current_epoch

    def run_training(self):
        self.on_train_start()
        while self.current_epoch < self.num_epochs:
            self.on_epoch_start()
            self.on_train_epoch_start()
            outputs = [
                self.train_step(next(self.dataloader_train))
                for _ in range(self.num_iterations_per_epoch)
            ]
            self.on_train_epoch_end(outputs)
            with torch.no_grad():
                self.on_validation_epoch_start()
                self.on_validation_epoch_end([self.validation_step(next(self.dataloader_val))])
            self.on_epoch_end()
        print("ITERATIONS", self.current_epoch * self.num_iterations_per_epoch, flush=True)
        print("SECONDS", time.monotonic() - self.started, flush=True)
        self.on_train_end()

    def perform_actual_validation(self, save_probabilities=False):
        pass
'''
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def split(dataset: Path, work: Path, seed: int = 4) -> tuple[list[str], list[str]]:
    """Copy the dataset in two parts: a Decathlon folder to train on, and cases put aside."""
    description = json.loads((dataset / "dataset.json").read_text())
    stems = sorted(
        p.name.removesuffix(".nii.gz") for p in (dataset / "labelsTr").glob("[!.]*.nii.gz")
    )
    aside = sorted(random.Random(seed).sample(stems, len(stems) // 5))
    training = [stem for stem in stems if stem not in aside]
    for folder in ("train/imagesTr", "train/labelsTr", "aside/images", "aside/labels"):
        (work / folder).mkdir(parents=True, exist_ok=True)
    for stem in training:
        for kind in ("imagesTr", "labelsTr"):
            shutil.copy(dataset / kind / f"{stem}.nii.gz", work / "train" / kind)
    for stem in aside:
        shutil.copy(dataset / "imagesTr" / f"{stem}.nii.gz", work / "aside/images")
        shutil.copy(dataset / "labelsTr" / f"{stem}.nii.gz", work / "aside/labels")
    description["training"] = [
        {"image": f"./imagesTr/{s}.nii.gz", "label": f"./labelsTr/{s}.nii.gz"} for s in training
    ]
    description |= {"numTraining": len(training), "numTest": 0, "test": []}
    (work / "train" / "dataset.json").write_text(json.dumps(description))
    return training, aside


def run(command: list[str], log: Path, **environment: str) -> float:
    """Run one command to its end; seconds. Its output goes to a file."""
    started = time.monotonic()
    with log.open("a") as stream:
        stream.write(f"$ {' '.join(command)}\n")
        stream.flush()
        subprocess.run(
            command, check=True, stdout=stream, stderr=stream, env=os.environ | environment
        )
    return time.monotonic() - started


def score(work: Path, pred: Path, name: str) -> dict[str, Any]:
    """Score masks with `medseg evaluate`."""
    command = [sys.executable, "-m", "medseg", "evaluate", str(pred), str(work / "aside/labels")]
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    (work / f"scores_{name}.json").write_text(done.stdout)
    return {"mean": document["mean"], "labels": document["labels"]}


def train_nnunet(work: Path, venv: Path, minutes: float, cases: list[str]) -> dict[str, Any]:
    """Plan, preprocess, train and predict with nnU-Net v2."""
    raw = work / "raw" / NAME
    for folder, source in (("imagesTr", "imagesTr"), ("labelsTr", "labelsTr")):
        (raw / folder).mkdir(parents=True, exist_ok=True)
        for stem in cases:
            suffix = "_0000" if folder == "imagesTr" else ""
            target = raw / folder / f"{stem}{suffix}.nii.gz"
            shutil.copy(work / "train" / source / f"{stem}.nii.gz", target)
    labels = json.loads((work / "train/dataset.json").read_text())
    document = {
        "channel_names": {"0": next(iter(labels["modality"].values()))},
        "labels": {name: int(value) for value, name in labels["labels"].items()},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(document))
    images = work / "aside_nnunet"
    images.mkdir(exist_ok=True)
    for image in (work / "aside/images").iterdir():
        shutil.copy(image, images / image.name.replace(".nii.gz", "_0000.nii.gz"))
    trainers = work / "trainers"
    trainers.mkdir(exist_ok=True)
    (trainers / "nnUNetTrainerBudget.py").write_text(TRAINER)
    environment = {
        "nnUNet_raw": str(work / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_extTrainer": str(trainers),
        "nnUNet_n_proc_DA": "2",
        "BUDGET_S": str(60 * minutes),
        **ALLOCATOR,
    }
    program, log = venv / "bin", work / "nnunet.log"
    result: dict[str, Any] = {}
    command = ["nnUNetv2_plan_and_preprocess", "-d", "904", "-c", "3d_fullres", "-np", "2"]
    result["prepare_s"] = run([str(program / command[0]), *command[1:]], log, **environment)
    command = ["nnUNetv2_train", "904", "3d_fullres", "0", "-tr", "nnUNetTrainerBudget"]
    command += ["-device", "cpu"]
    result["train_s"] = run([str(program / command[0]), *command[1:]], log, **environment)
    for line in log.read_text().splitlines():
        if line.startswith("ITERATIONS"):
            result["iterations"] = int(line.split()[1])
        if line.startswith("SECONDS"):
            result["seconds_per_iteration"] = float(line.split()[1]) / result["iterations"]
    for name, more in (("mirroring", []), ("plain", ["--disable_tta"])):
        out = work / f"nnunet_{name}"
        command = [
            "nnUNetv2_predict",
            "-d",
            "904",
            "-c",
            "3d_fullres",
            "-f",
            "0",
            "-i",
            str(images),
        ]
        command += ["-o", str(out), "-tr", "nnUNetTrainerBudget", "-device", "cpu", *more]
        result[f"predict_{name}_s"] = run(
            [str(program / command[0]), *command[1:]], log, **environment
        )
        result[name] = score(work, out, f"nnunet_{name}")
    return result


def train_medseg(work: Path, minutes: float, more: list[str]) -> dict[str, Any]:
    """Plan, train and segment with medseg."""
    log, bundle = work / "medseg.log", work / "bundle"
    medseg = [sys.executable, "-m", "medseg"]
    result: dict[str, Any] = {}
    result["prepare_s"] = run([*medseg, "plan", str(work / "train"), "-o", str(bundle)], log)
    command = [*medseg, "train", str(bundle), "--dataset", str(work / "train")]
    command += ["--time-budget", f"{60 * minutes:.0f}", *more]
    result["train_s"] = run(command, log)
    rows = (bundle / "logs" / "losses.csv").read_text().splitlines()
    result["iterations"] = int(rows[-1].split(",")[0])
    result["seconds_per_iteration"] = result["train_s"] / result["iterations"]
    for name, flags in (("plain", []), ("mirroring", ["--tta"])):
        out = work / f"medseg_{name}"
        command = [
            *medseg,
            "segment",
            str(work / "aside/images"),
            "-b",
            str(bundle),
            "-o",
            str(out),
        ]
        result[f"predict_{name}_s"] = run([*command, "--outputs", "nifti", *flags], log)
        result[name] = score(work, out, f"medseg_{name}")
    return result


def on_cores(cores: list[int], peer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run one peer, its processes on these cores: a child inherits the cores of its thread."""
    os.sched_setaffinity(0, cores)
    return peer()


def main() -> None:
    """Train both and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--nnunet", type=Path, help="virtual environment with nnU-Net v2")
    parser.add_argument("--only", choices=["medseg", "nnunet"])
    parser.add_argument("--side-by-side", action="store_true", help="at once, half the cores each")
    parser.add_argument("--set", action="append", default=[], help="passed on to medseg train")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.work.exists() and any(arguments.work.iterdir()):
        sys.exit(f"{arguments.work} must be empty")
    training, aside = split(arguments.dataset, arguments.work)
    result: dict[str, Any] = {
        "minutes": arguments.minutes,
        "cases": {"training": len(training), "unseen": len(aside)},
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
    }
    peers: dict[str, Callable[[], dict[str, Any]]] = {}
    if arguments.only != "medseg" and arguments.nnunet:
        peers["nnunet"] = partial(
            train_nnunet, arguments.work, arguments.nnunet, arguments.minutes, training
        )
    if arguments.only != "nnunet":
        more = [part for setting in arguments.set for part in ("--set", setting)]
        peers["medseg"] = partial(train_medseg, arguments.work, arguments.minutes, more)
    with ThreadPoolExecutor(len(peers) if arguments.side_by_side else 1) as pool:
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // len(peers) if arguments.side_by_side else len(cores)
        result["cores_each"] = share
        jobs = {
            name: pool.submit(on_cores, cores[-share:] if index else cores[:share], peer)
            for index, (name, peer) in enumerate(peers.items())
        }
        result |= {name: job.result() for name, job in jobs.items()}
    text = json.dumps(result, indent=1)
    (arguments.output or arguments.work / "result.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
