import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from medseg.errors import UsageError
from medseg.workflows.cross_validation import ScoredLabel, _dices, _scores
from medseg.workflows.plan import PlanOptions, plan
from medseg.workflows.segment import SegmentOptions, segment
from medseg.workflows.train import TrainOptions, TrainResult, train
from tests.data.datasets import write_msd
from tests.workflows.test_train import REPOSITORY, SHORT

CASES = tuple(f"toy_{number:03d}" for number in range(5))
VALUES = (10, 200)
"""Of the structures in label files and in masks."""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a dataset of five cases and a bundle with two folds; for tests that copy it."""
    root = tmp_path_factory.mktemp("folds")
    dataset = write_msd(root / "data", count=5, values=VALUES)
    bundle = plan(PlanOptions(dataset, root / "bundle")).bundle
    common = bundle / "configs/common.yaml"
    text = common.read_text()
    assert "filters: [32, 64, 128]" in text
    common.write_text(text.replace("filters: [32, 64, 128]", "filters: [4, 8, 8]"))
    halves = (list(CASES[:2]), list(CASES[2:]))
    folds = [{"training": halves[1 - number], "validation": halves[number]} for number in range(2)]
    (bundle / "configs/splits.json").write_text(json.dumps({"folds": folds}))
    return dataset, bundle


def _options(planned: tuple[Path, Path], output: Path) -> TrainOptions:
    settings = (*SHORT, "epochs=10", "iterations_per_epoch=4", "lr=0.01", "val_interval=5")
    return TrainOptions(str(planned[1]), planned[0], output, "all", settings=settings, device="cpu")


@pytest.fixture(scope="module")
def trained(
    planned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainOptions, TrainResult]:
    options = _options(planned, tmp_path_factory.mktemp("all") / "out")
    return options, train(options)


def _masks(bundle: Path, images: list[Path], output: Path) -> dict[str, np.ndarray]:
    options = SegmentOptions(tuple(images), str(bundle), output, ("nifti",), device="cpu")
    assert segment(options).exit_code == 0
    return {
        path.parent.name: np.asarray(nibabel.load(path).dataobj)
        for path in sorted(output.rglob("segmentation.nii.gz"))
    }


def _without_folds(bundle: Path, fold: int, folder: Path) -> Path:
    """Return a bundle with one fold's weights, put together by hand."""
    shutil.copytree(bundle / "configs", folder / "configs")
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["medseg"]["ensemble"], metadata["medseg"]["postprocessing"]
    path.write_text(json.dumps(metadata))
    (folder / "models").mkdir()
    shutil.copy(bundle / f"models/fold_{fold}/model.pt", folder / "models/model.pt")
    return folder


def test_every_case_is_scored_once_by_the_network_that_has_not_seen_it(
    trained: tuple[TrainOptions, TrainResult], tmp_path: Path
) -> None:
    options, result = trained
    bundle, document = result.bundle, result.cross_validation
    assert (result.exit_code, [fold.status for fold in result.folds]) == (0, ["done", "done"])
    assert document is not None
    owners = {case["case"]: case["fold"] for case in document["cases"]}
    assert owners == {case: int(number >= 2) for number, case in enumerate(CASES)}
    if document["postprocessing"]:  # the scores are those after it
        pytest.fail("choose other data: this test compares masks without post-processing")
    assert options.dataset is not None
    for fold in (0, 1):
        single = _without_folds(bundle, fold, tmp_path / f"fold_{fold}")
        cases = [case for case, owner in owners.items() if owner == fold]
        images = [options.dataset / f"imagesTr/{case}.nii.gz" for case in cases]
        masks = _masks(single, images, tmp_path / f"masks_{fold}")
        for case in cases:
            truth = nibabel.load(options.dataset / f"labelsTr/{case}.nii.gz").get_fdata()
            scores = next(c["labels"] for c in document["cases"] if c["case"] == case)
            for value in VALUES:
                inside, wanted = masks[case] == value, truth == value
                dice = 2 * (inside & wanted).sum() / (inside.sum() + wanted.sum())
                assert scores[f"thing {value}"]["dice"] == pytest.approx(dice)


def test_the_means_are_those_of_the_cases(trained: tuple[TrainOptions, TrainResult]) -> None:
    document = json.loads((trained[1].bundle / "logs/cross_validation.json").read_text())
    for value in VALUES:
        name = f"thing {value}"
        dices = [case["labels"][name]["dice"] for case in document["cases"]]
        assert document["labels"][name]["dice"] == pytest.approx(np.nanmean(dices))
    means = [document["labels"][f"thing {value}"]["dice"] for value in VALUES]
    assert document["mean"]["dice"] == pytest.approx(np.mean(means))
    assert max(means) > 0.1  # it has learnt something: the comparison is not of empty masks


def test_the_bundle_then_averages_its_folds(
    trained: tuple[TrainOptions, TrainResult], tmp_path: Path
) -> None:
    options, result = trained
    bundle = result.bundle
    own = json.loads((bundle / "configs/metadata.json").read_text())["medseg"]
    assert own["ensemble"] == ["models/fold_0/model.pt", "models/fold_1/model.pt"]
    first, alone = (
        torch.load(bundle / name, weights_only=True)
        for name in ("models/fold_0/model.pt", "models/model.pt")
    )
    assert all(torch.equal(first[key], alone[key]) for key in first)
    assert options.dataset is not None
    images = [options.dataset / f"imagesTr/{CASES[0]}.nii.gz"]
    singles = [_without_folds(bundle, fold, tmp_path / str(fold)) for fold in (0, 1)]
    both = SegmentOptions(
        tuple(images), tuple(map(str, singles)), tmp_path / "both", ("nifti",), device="cpu"
    )
    assert segment(both).exit_code == 0
    averaged = nibabel.load(next((tmp_path / "both").rglob("segmentation.nii.gz"))).get_fdata()
    mask = _masks(bundle, images, tmp_path / "whole")[CASES[0]]
    assert (mask == averaged).all()


def test_what_is_finished_is_not_trained_again(
    trained: tuple[TrainOptions, TrainResult], tmp_path: Path
) -> None:
    options, result = trained
    bundle = tmp_path / "out"
    shutil.copytree(result.bundle, bundle)
    shutil.rmtree(bundle / "models/fold_1")
    (bundle / "logs/fold_1/finished.json").unlink()
    before = (bundle / "logs/fold_0/losses.csv").stat().st_mtime_ns
    again = train(replace(options, output=bundle, resume=True, overwrite=False))
    assert [fold.status for fold in again.folds] == ["done", "done"]
    assert (bundle / "logs/fold_0/losses.csv").stat().st_mtime_ns == before
    assert (bundle / "models/fold_1/model.pt").is_file()
    with (bundle / "logs/fold_1/losses.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 40


def test_folds_are_not_trained_over_one_another(
    trained: tuple[TrainOptions, TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    options, _ = trained
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--gpus N --fold all"):
        train(options)


def _start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "medseg", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ranks_of(pid: int) -> list[int]:
    """Return the processes that a process has started to train."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"launch" in (stat.parent / "cmdline").read_bytes():
                found.append(int(stat.parent.name))
        except OSError:  # it has ended
            continue
    return found


def _wait_for_losses(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 300
    while not (path.is_file() and len(path.read_text().splitlines()) > 2):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.fixture
def running(planned: tuple[Path, Path], tmp_path: Path) -> subprocess.Popen[str]:
    """Return a training in two processes that would go on for days."""
    settings = [*SHORT, "epochs=100000", "iterations_per_epoch=2", "val_interval=100000"]
    process = _start(
        ["train", str(planned[1]), "--dataset", str(planned[0]), "-o", str(tmp_path / "out")]
        + [part for setting in settings for part in ("--set", setting)]
        + ["--device", "cpu", "--gpus", "2", "--json"]
    )
    _wait_for_losses(tmp_path / "out/logs/losses.csv", process)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_that_dies_is_reported_and_ends_the_others(
    running: subprocess.Popen[str],
) -> None:
    ranks = _ranks_of(running.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 1
    error = json.loads(output)["folds"][0]["error"]
    assert error["code"] == "process-died"
    assert "died with signal SIGKILL" in error["message"]
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_processes_end_with_the_one_that_started_them(running: subprocess.Popen[str]) -> None:
    ranks = _ranks_of(running.pid)
    assert len(ranks) == 2
    running.kill()
    running.communicate()
    until = time.monotonic() + 60
    while any(Path(f"/proc/{rank}").exists() for rank in ranks):
        assert time.monotonic() < until
        time.sleep(0.2)


@pytest.mark.slow
def test_a_signal_reaches_all_processes(running: subprocess.Popen[str], tmp_path: Path) -> None:
    running.send_signal(signal.SIGUSR1)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors[-3000:]
    fold = json.loads(output)["folds"][0]
    assert fold["status"] == "interrupted"
    state = torch.load(tmp_path / "out/models/checkpoint.pt", weights_only=True)
    assert state["iteration"] == fold["iterations"] > 0


def test_what_is_left_out_counts_in_no_score() -> None:
    """A prediction there is not wrong, and still part of the largest component."""
    label = np.zeros((4, 6), np.uint8)
    mask = label.copy()
    label[:2, :3] = 1
    label[:, 3:5] = 9
    mask[:2, :5] = 1
    for left_out, dice in (((9,), 1.0), ((), 12 / 16)):
        [one] = [ScoredLabel("a", (1,), (1,), left_out)]
        found = _dices(mask, label, [one])
        assert (found.plain["a"], found.foreground["a"]) == (dice, dice)
        assert _scores(mask, label, (1.0, 1.0), [one])["a"]["dice"] == dice
