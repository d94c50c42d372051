"""The phantom bundle trains and is scored from its own configs, without any file."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medseg.bundle import load_bundle
from medseg.data.phantom import TUMOUR, phantom_ct
from tests.bundles.test_bundle_contract import REPOSITORY

SEED = 4001  # neither trained on, nor chosen by, nor scored in the card
BUNDLE = REPOSITORY / "bundles" / "phantom_ct"

# MONAI 1.6.1 warns that configs are code, each time one is read
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:")


def run(configs, *arguments):
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run"]
    command += ["--config_file", str([f"configs/{name}.yaml" for name in configs])]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=BUNDLE,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_weights_take_less_than_a_megabyte():
    assert (BUNDLE / "models" / "model.pt").stat().st_size < 1_000_000


def test_only_ct_with_enough_thin_slices_is_taken():
    rule = load_bundle(BUNDLE).input_rule
    assert rule.modality == ("CT",)
    assert rule.min_slices == 8
    assert rule.max_spacing_mm == 6.0


def test_shipped_weights_find_organ_and_tumours_of_a_fresh_patient():
    parser = ConfigParser()
    parser.read_config([BUNDLE / "configs" / name for name in ("common.yaml", "inference.yaml")])
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(BUNDLE / "models" / "model.pt", weights_only=True))
    shape = (112, 92, 48)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    affine[:3, 3] = -1.5 * (np.array(shape) - 1)
    volume, mask = phantom_ct(SEED, shape=shape, affine=affine)
    low, high = parser["window_hu"]
    image = (np.clip(volume.array, low, high).astype(np.float32) - low) / (high - low)
    with torch.inference_mode():
        found = parser.get_parsed_content("inferer")(torch.from_numpy(image)[None], network)
    found = found.argmax(1)[0].numpy()
    for least, truth, pred in (
        (0.95, mask > 0, found > 0),
        (0.75, mask == TUMOUR, found == TUMOUR),
    ):
        assert 2 * (truth & pred).sum() / (truth.sum() + pred.sum()) > least


@pytest.mark.slow
def test_training_writes_weights_that_evaluation_scores(tmp_path):
    weights = tmp_path / "model.pt"
    paths = ("--ckpt_path", weights, "--checkpoint_path", tmp_path / "checkpoint.pt")
    short = ("--epochs", 1, "--iterations_per_epoch", 3, "--val_interval", 1)
    cases = ("--train_cases", "$phantom_cases(1000, 2)", "--val_cases", "$phantom_cases(2000, 1)")
    run(["common", "train"], *paths, *short, *cases)
    shipped = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    trained = torch.load(weights, weights_only=True)
    assert {k: v.shape for k, v in trained.items()} == {k: v.shape for k, v in shipped.items()}


@pytest.mark.slow
def test_shipped_weights_reach_the_dice_of_the_card_on_a_fresh_patient(tmp_path):
    run(
        ["common", "train", "evaluate"],
        *("--val_cases", "$phantom_cases(4002, 2)", "--output_dir", tmp_path),
    )
    (table,) = tmp_path.glob("*val_mean_dice_raw.csv")
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    assert len(rows) == 2
    for row in rows:
        assert float(row[1]) > 0.93, "organ"


@pytest.mark.slow
def test_two_processes_train_together_and_write_plain_weights(tmp_path):
    weights = tmp_path / "model.pt"
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", "-m", "monai.bundle", "run", "--config_file"]
    names = ("common", "train", "multi_gpu_train")
    command += [str([f"configs/{name}.yaml" for name in names])]
    command += ["--ckpt_path", str(weights), "--checkpoint_path", str(tmp_path / "checkpoint.pt")]
    command += ["--epochs", "1", "--val_interval", "1"]
    command += ["--train_cases", "$phantom_cases(1000, 4)"]
    command += ["--val_cases", "$phantom_cases(2000, 1)"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=BUNDLE, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shipped = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    assert torch.load(weights, weights_only=True).keys() == shipped.keys()
