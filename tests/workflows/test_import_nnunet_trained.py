"""What nnU-Net v2 trains and predicts by its own commands, medseg imports and segments alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from medseg.cli.main import call

pytestmark = pytest.mark.slow

DATASET = "Dataset990_Phantom"
TRAINER = "nnUNetTrainerShort"
TRAINER_CODE = f"""
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class {TRAINER}(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cpu")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
        self.num_iterations_per_epoch = 60
        self.num_val_iterations_per_epoch = 1

    def perform_actual_validation(self, save_probabilities=False):
        pass
"""
SPACINGS = ((1.0, 1.2, 1.5), (1.0, 1.0, 1.5), (1.1, 1.2, 2.0))


def _write_case(folder: Path, number: int, *, labelled: bool) -> None:
    """Write smooth noise in which a bright and a dark ball lie."""
    generator = np.random.default_rng(number)
    shape = tuple(generator.integers(28, 40, size=3))
    image = ndimage.gaussian_filter(generator.normal(size=shape), 1.5) * 100 + 200
    label = np.zeros(shape, np.uint8)
    for value, shift in ((1, 300), (2, -150)):
        centre = generator.uniform(0.3, 0.7, 3) * shape
        distance = np.linalg.norm(np.indices(shape).T - centre, axis=-1).T
        label[distance < 6] = value
        image[distance < 6] += shift
    affine = np.diag([*SPACINGS[number % len(SPACINGS)], 1.0])
    images = folder / ("imagesTr" if labelled else "imagesTs")
    images.mkdir(parents=True, exist_ok=True)
    name = f"phantom_{number:03}"
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), images / f"{name}_0000.nii.gz")
    if labelled:
        (folder / "labelsTr").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(label, affine), folder / "labelsTr" / f"{name}.nii.gz")


def _narrow(path: Path) -> None:
    """Give the planned networks few features, so that a processor trains them in seconds."""
    plans = json.loads(path.read_text())
    for name in ("2d", "3d_fullres"):
        given = plans["configurations"][name]["architecture"]["arch_kwargs"]
        given["features_per_stage"] = [8 * 2 ** min(n, 2) for n in range(given["n_stages"])]
        plans["configurations"][name]["batch_size"] = 2 if name != "2d" else 6
    path.write_text(json.dumps(plans))


class _Nnunet:
    """nnU-Net's own commands on folders of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw = root / "raw" / DATASET
        paths = {name: str(root / name) for name in ("raw", "preprocessed", "results")}
        self.environment = {
            **os.environ,
            **{f"nnUNet_{name}": path for name, path in paths.items()},
            "nnUNet_extTrainer": str(root / "trainers"),
            "nnUNet_compile": "f",
        }

    def run(self, name: str, *arguments: str) -> None:
        command = [str(Path(sys.executable).parent / f"nnUNetv2_{name}"), *arguments]
        workers = {"nnUNet_n_proc_DA": "0" if name == "train" else "1"}
        done = subprocess.run(
            command, env=self.environment | workers, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    def results(self, configuration: str) -> Path:
        return self.root / "results" / DATASET / f"{TRAINER}__nnUNetPlans__{configuration}"


@pytest.fixture(scope="module")
def nnunet(tmp_path_factory: pytest.TempPathFactory) -> _Nnunet:
    """nnU-Net with two configurations that it planned, preprocessed and trained for one epoch."""
    pytest.importorskip("nnunetv2", reason="trains by nnU-Net v2: pip install nnunetv2")
    peer = _Nnunet(tmp_path_factory.mktemp("nnunet"))
    (peer.root / "trainers").mkdir()
    (peer.root / "trainers" / f"{TRAINER}.py").write_text(TRAINER_CODE)
    for number in range(8):
        _write_case(peer.raw, number, labelled=number < 6)
    dataset = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "bright": 1, "dark": 2},
        "numTraining": 6,
        "file_ending": ".nii.gz",
    }
    (peer.raw / "dataset.json").write_text(json.dumps(dataset))
    single = ["-npfp", "1", "-np", "1", "1"]
    peer.run("plan_and_preprocess", "-d", "990", "-c", "2d", "3d_fullres", *single)
    _narrow(peer.root / "preprocessed" / DATASET / "nnUNetPlans.json")
    for configuration in ("3d_fullres", "2d"):
        peer.run("train", "990", configuration, "0", "-device", "cpu", "-tr", TRAINER)
    return peer


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("configuration", ["3d_fullres", "2d"])
def test_the_commands_give_the_masks_that_nnunet_gives(
    nnunet: _Nnunet, tmp_path: Path, configuration: str, tta: bool
) -> None:
    images, wanted = nnunet.raw / "imagesTs", tmp_path / "wanted"
    model = ["-d", "990", "-c", configuration, "-f", "0", "-tr", TRAINER, "-device", "cpu"]
    single = ["-npp", "1", "-nps", "1"] + ([] if tta else ["--disable_tta"])
    nnunet.run("predict", "-i", str(images), "-o", str(wanted), *model, *single)
    bundle, out = tmp_path / "phantom_mri", tmp_path / "out"
    results = nnunet.results(configuration)
    assert call(["bundle", "import-nnunet", str(results), "-o", str(bundle)]) == 0
    mirrored = ["--tta"] if tta else []
    assert call(["segment", str(images), "-b", str(bundle), "-o", str(out), *mirrored]) == 0
    masks = sorted(wanted.glob("*.nii.gz"))
    assert len(masks) == 2
    for path in masks:
        [own] = out.glob(f"{path.name.removesuffix('.nii.gz')}*/segmentation.nii.gz")
        theirs, ours = (np.asarray(nib.load(p).dataobj) for p in (path, own))
        assert len(np.unique(theirs)) > 1
        assert (ours == theirs).mean() >= 0.999
        for value in np.unique([*np.unique(theirs), *np.unique(ours)]):
            both = np.count_nonzero((ours == value) & (theirs == value))
            total = np.count_nonzero(ours == value) + np.count_nonzero(theirs == value)
            assert 2 * both / total >= 0.999
