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
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medseg.cli.train import seconds_of
from medseg.errors import BundleError, InputError, MedsegError, OutputError, UsageError
from medseg.training.failures import problem_of
from medseg.workflows import training_data
from medseg.workflows.plan import PlanOptions, plan
from medseg.workflows.processes import first_node, join_slurm
from medseg.workflows.segment import SegmentOptions, segment
from medseg.workflows.train import TrainOptions, train
from tests.data.datasets import case_arrays, write_image, write_msd

REPOSITORY = Path(__file__).parents[2]
SHORT = (
    "epochs=2",
    "iterations_per_epoch=3",
    "batch_size=2",
    "val_interval=1",
    "num_workers=0",
    "amp=null",
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a dataset and a bundle planned on it; for tests that copy the bundle."""
    root = tmp_path_factory.mktemp("train")
    dataset = write_msd(root / "data", values=(10, 200))
    bundle = plan(PlanOptions(dataset, root / "bundle")).bundle
    common = bundle / "configs/common.yaml"
    text = common.read_text()
    assert "filters: [32, 64, 128]" in text
    common.write_text(text.replace("filters: [32, 64, 128]", "filters: [4, 8, 8]"))
    return dataset, bundle


@pytest.fixture
def options(planned: tuple[Path, Path], tmp_path: Path) -> TrainOptions:
    dataset, bundle = planned
    return TrainOptions(
        str(bundle), dataset, tmp_path / "out", settings=SHORT, device="cpu", deterministic=True
    )


def _losses(folder: Path) -> list[str]:
    with (folder / "logs/losses.csv").open(newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_planned_bundle_trains_and_then_segments(options: TrainOptions, tmp_path: Path) -> None:
    told: list[str] = []
    result = train(options, progress=lambda _, __, what="": told.append(what))
    assert result.exit_code == 0
    fold = result.folds[0]
    assert (fold.status, fold.iterations) == ("done", 6)
    assert fold.weights == tmp_path / "out/models/model.pt"
    assert len(_losses(tmp_path / "out")) == 6
    for name in ("metrics.csv", "curves.png"):
        assert (tmp_path / "out/logs" / name).is_file()
    assert any("preprocessing" in what for what in told)
    assert any(what.startswith("it 6  loss") for what in told)
    json.dumps(result.as_json())
    image = options.dataset / "imagesTr/toy_000.nii.gz"  # type: ignore[operator]
    done = segment(SegmentOptions((image,), str(tmp_path / "out"), tmp_path / "seg", ("nifti",)))
    assert done.exit_code == 0


def test_the_bundle_it_copies_stays_as_it_is(
    options: TrainOptions, planned: tuple[Path, Path]
) -> None:
    before = sorted(path.relative_to(planned[1]) for path in planned[1].rglob("*"))
    train(options)
    assert sorted(path.relative_to(planned[1]) for path in planned[1].rglob("*")) == before


@pytest.mark.slow
def test_a_resume_goes_on_to_the_same_losses(options: TrainOptions, tmp_path: Path) -> None:
    train(options)
    longer = (*SHORT, "epochs=4")
    result = train(replace(options, resume=True, settings=longer))
    assert [w.code for w in result.warnings] == ["changed-settings"]
    assert "epochs=4 in place of epochs=2" in result.warnings[0].message
    # the learning rate depends on the length: two runs of the long one must agree
    whole = replace(options, output=tmp_path / "whole", settings=longer)
    train(whole)
    parts = replace(options, output=tmp_path / "parts", settings=longer)
    train(parts, progress=_stopper(5))
    assert len(_losses(tmp_path / "parts")) < 12
    bare = TrainOptions(parts.bundle, None, parts.output, resume=True, device="cpu")
    assert train(bare).warnings == ()  # with the dataset and the settings of before
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")


def _stopper(iteration: int) -> Any:
    def tell(_: int, __: int, what: str = "") -> None:
        if what.startswith(f"it {iteration} "):
            signal.raise_signal(signal.SIGTERM)

    return tell


def test_a_signal_leaves_a_checkpoint_and_says_so(options: TrainOptions, tmp_path: Path) -> None:
    result = train(replace(options), progress=_stopper(2))
    assert result.folds[0].status == "interrupted"
    assert result.exit_code == 0
    state = torch.load(tmp_path / "out/models/checkpoint.pt", weights_only=True)
    assert state["iteration"] == result.folds[0].iterations < 6


@pytest.mark.slow
def test_what_is_trained_is_not_lost_by_accident(options: TrainOptions, tmp_path: Path) -> None:
    train(options)
    weights = (tmp_path / "out/models/model.pt").read_bytes()
    again = replace(options, bundle=str(tmp_path / "out"), output=None)
    with pytest.raises(OutputError, match="--resume to go on") as caught:
        train(again)
    assert caught.value.code == "already-trained"
    (tmp_path / "out/models/checkpoint.pt").unlink()
    (tmp_path / "out/models/checkpoint_previous.pt").unlink()
    with pytest.raises(OutputError, match="Train a copy with -o"):
        train(again)
    common = tmp_path / "out/configs/common.yaml"
    text = common.read_text()
    common.write_text(text.replace("medseg.networks.DynUNet", "medseg.networks.NoNet"))
    with pytest.raises(BundleError, match="network_def of bundle out cannot be built"):
        train(replace(again, overwrite=True))
    common.write_text(text)
    assert (tmp_path / "out/models/model.pt").read_bytes() == weights
    result = train(replace(again, overwrite=True))
    assert result.folds[0].iterations == 6


def test_there_may_be_nothing_to_overwrite(options: TrainOptions, tmp_path: Path) -> None:
    (tmp_path / "out/cache").mkdir(parents=True)  # of a training whose dataset was refused
    train(replace(options, overwrite=True))
    assert (tmp_path / "out/models/model.pt").is_file()


def test_a_fold_has_weights_and_a_log_of_its_own(options: TrainOptions, tmp_path: Path) -> None:
    result = train(replace(options, fold=3))
    assert result.folds[0].weights == tmp_path / "out/models/fold_3/model.pt"
    assert (tmp_path / "out/logs/fold_3/metrics.csv").is_file()
    with pytest.raises(UsageError, match="from 0 to 4 or all, got 9"):
        train(replace(options, output=tmp_path / "other", fold=9))


def test_an_unknown_key_is_refused_with_the_nearest(options: TrainOptions) -> None:
    with pytest.raises(UsageError, match="batch_size") as caught:
        train(replace(options, settings=("batchsize=3",)))
    assert caught.value.code == "unknown-key"


@pytest.mark.parametrize("key", ["spacing_mm=[2, 2, 2]", "network_def#filters=[4, 4, 4]"])
def test_what_inference_has_to_agree_on_is_not_set_for_training_alone(
    options: TrainOptions, key: str
) -> None:
    with pytest.raises(UsageError, match="inference has to agree on") as caught:
        train(replace(options, settings=(key,)))
    assert caught.value.code == "disagrees-with-inference"


def test_options_that_contradict_each_other_are_refused(options: TrainOptions) -> None:
    for changes in ({"resume": True, "overwrite": True}, {"time_budget_s": 5.0}):
        with pytest.raises(UsageError, match="must not be given together"):
            train(replace(options, **changes))
    with pytest.raises(UsageError, match="folder or a manifest"):
        train(replace(options, dataset=Path("/nowhere")))


def test_faults_of_the_dataset_are_found_before_training(
    options: TrainOptions, tmp_path: Path
) -> None:
    dataset = write_msd(tmp_path / "data", values=(10, 200))
    write_image(dataset / "labelsTr/toy_001.nii.gz", case_arrays(1, (7,))[1])
    with pytest.raises(InputError, match="toy_001"):
        train(replace(options, dataset=dataset))


@pytest.mark.parametrize(
    ("change", "code", "match"),
    [
        (
            {"labels": {"0": "background", "10": "thing 200", "200": "thing 10"}},
            "other-labels",
            r"thing 200 \[10\] for \[200\]",
        ),
        ({"modality": {"0": "CT"}}, "other-channels", "CT for MR"),
        ({"modality": {"0": "T1", "1": "T2"}}, "other-channels", "2 for 1"),
    ],
)
def test_a_dataset_that_contradicts_the_bundle_is_refused(
    options: TrainOptions, tmp_path: Path, change: dict[str, Any], code: str, match: str
) -> None:
    dataset = write_msd(tmp_path / "data", values=(10, 200))
    path = dataset / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=match) as caught:
        train(replace(options, dataset=dataset))
    assert caught.value.code == code


@pytest.mark.parametrize("resume", [False, True])
def test_what_is_not_trained_yet_is_checked_and_leaves_nothing(
    options: TrainOptions, tmp_path: Path, resume: bool
) -> None:
    dataset = write_msd(tmp_path / "data", values=(10, 200))
    label = case_arrays(1, (10, 200))[1]
    write_image(dataset / "labelsTr/toy_001.nii.gz", label, np.diag([1.0, 1.5, 2.1, 1.0]))
    with pytest.raises(InputError, match="toy_001") as caught:
        train(replace(options, dataset=dataset, resume=resume))
    assert caught.value.code == "bad-dataset"
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_files_found_right_are_not_read_again(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(options)
    monkeypatch.setattr(training_data, "check_dataset", None)
    assert train(replace(options, overwrite=True)).exit_code == 0


@pytest.mark.slow
def test_a_copy_has_the_configs_that_it_is_trained_with(
    options: TrainOptions, planned: tuple[Path, Path], tmp_path: Path
) -> None:
    train(options)
    copy = tmp_path / "out/configs/common.yaml"
    first = copy.read_text()
    changed = tmp_path / "changed"
    shutil.copytree(planned[1], changed)
    text = first.replace("filters: [4, 8, 8]", "filters: [4, 4, 8]")
    (changed / "configs/common.yaml").write_text(text)
    again = replace(options, bundle=str(changed))
    assert train(replace(again, resume=True)).exit_code == 0  # goes on with its own
    assert copy.read_text() == first
    assert train(replace(again, overwrite=True)).exit_code == 0
    assert copy.read_text() == text
    image = (planned[0] / "imagesTr/toy_000.nii.gz",)
    done = segment(SegmentOptions(image, str(tmp_path / "out"), tmp_path / "seg", ("nifti",)))
    assert done.exit_code == 0


def test_there_are_as_many_folds_as_the_dataset_gives(
    options: TrainOptions, planned: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = tmp_path / "without"
    shutil.copytree(planned[1], bundle)
    path = bundle / "configs/train.yaml"
    path.write_text(path.read_text().replace("$@bundle_root + '/configs/splits.json'", "null"))
    dataset = write_msd(tmp_path / "few", count=3, values=(10, 200))
    with pytest.raises(UsageError, match="from 0 to 2 or all, got 3"):
        train(replace(options, bundle=str(bundle), dataset=dataset, fold=3))


def test_labels_of_other_names_are_taken_by_their_values(
    options: TrainOptions, tmp_path: Path
) -> None:
    dataset = write_msd(tmp_path / "data", values=(10, 200))
    path = dataset / "dataset.json"
    labels = {"labels": {"0": "background", "10": "liver", "200": "cancer"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | labels))
    result = train(replace(options, dataset=dataset))
    assert [problem.code for problem in result.warnings] == ["other-label-names"]


@pytest.mark.slow
def test_a_time_budget_is_kept(options: TrainOptions) -> None:
    settings = (*SHORT, "epochs=100000")
    started = time.monotonic()
    result = train(replace(options, deterministic=False, time_budget_s=8.0, settings=settings))
    assert result.folds[0].status == "done"
    assert time.monotonic() - started < 60  # not a timed test: without a budget it takes days
    assert result.folds[0].iterations > 3


def test_an_error_of_a_sample_names_its_case(options: TrainOptions) -> None:
    wrong = (*SHORT, "train#augmentation#0#patch_size=[16, 16]")
    result = train(replace(options, settings=wrong))
    assert result.exit_code == 1
    error = result.folds[0].error
    assert error is not None
    assert (error.code, "case toy_" in error.message) == ("training-sample", True)


def test_the_processes_own_error_is_found_behind_torchs() -> None:
    killed = RuntimeError("DataLoader worker (pid(s) 1234) is killed by signal: Killed. ")
    assert problem_of(killed).code == "worker-killed"
    outer = RuntimeError("Failed to instantiate")
    outer.__cause__ = MedsegError("inner", code="inner-code")
    assert problem_of(outer).code == "inner-code"
    assert problem_of(RuntimeError("CUDA out of memory. Tried")).code == "out-of-memory"
    assert problem_of(ValueError("first\nsecond")).message == "ValueError: first"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400)]
)
def test_lengths_of_time_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["soon", "10 minutes", "-5", "m10"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="time-budget must be like"):
        seconds_of(text)


def test_slurms_variables_become_torchs() -> None:
    step = {
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_JOB_ID": "4711",
    }
    found = join_slurm(step)
    assert (found["RANK"], found["LOCAL_RANK"], found["WORLD_SIZE"]) == ("3", "1", "4")
    assert found["MASTER_ADDR"] == "gpu07"
    assert join_slurm({**step, "RANK": "0"}) == {}
    assert join_slurm({**step, "SLURM_STEP_ID": "batch"}) == {}
    assert join_slurm({}) == {}


@pytest.mark.parametrize(
    ("nodes", "first"), [("a1,b2", "a1"), ("n[1,3-5]", "n1"), ("", "localhost")]
)
def test_the_first_node_of_a_list_is_found(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def _medseg(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "medseg", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_of_a_job_is_no_failure(
    options: TrainOptions, tmp_path: Path, number: signal.Signals
) -> None:
    settings = [*SHORT, "epochs=100000", "iterations_per_epoch=2", "val_interval=100000"]
    settings += ["num_workers=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "medseg", "train", options.bundle, "--dataset", str(options.dataset)]
        + [part for setting in settings for part in ("--set", setting)]
        + ["--device", "cpu", "-o", str(tmp_path / "out"), "--json"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    losses = tmp_path / "out/logs/losses.csv"
    until = time.monotonic() + 300
    while not (losses.is_file() and len(losses.read_text().splitlines()) > 2):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < until
        time.sleep(0.2)
    os.killpg(process.pid, number)  # the processes that prepare samples too
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors[-3000:]
    fold = json.loads(output)["folds"][0]
    assert (fold["status"], fold["error"]) == ("interrupted", None)
    state = torch.load(tmp_path / "out/models/checkpoint.pt", weights_only=True)
    assert state["iteration"] == fold["iterations"] > 0


@pytest.mark.slow
def test_two_processes_train_as_one(options: TrainOptions, tmp_path: Path) -> None:
    dataset, bundle = str(options.dataset), options.bundle
    settings = [part for setting in SHORT for part in ("--set", setting)]
    common = ["--dataset", dataset, "--device", "cpu", "--json", *settings]
    for name, gpus in (("one", []), ("two", ["--gpus", "2"])):
        done = _medseg("train", bundle, *common, "-o", str(tmp_path / name), *gpus)
        assert done.returncode == 0, done.stderr[-3000:]
        document = json.loads(done.stdout)
        assert document["folds"][0]["iterations"] == 6
    one, two = (
        torch.load(tmp_path / name / "models/model.pt", weights_only=True)
        for name in ("one", "two")
    )
    assert one.keys() == two.keys()


@pytest.mark.slow
def test_two_processes_go_on_to_the_same_losses(options: TrainOptions, tmp_path: Path) -> None:
    settings = [*SHORT, "epochs=30", "val_interval=30"]
    common = [options.bundle, "--dataset", str(options.dataset), "--device", "cpu", "--gpus", "2"]
    common += ["--deterministic", *(part for one in settings for part in ("--set", one))]
    assert _medseg("train", *common, "-o", str(tmp_path / "whole")).returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "medseg", "train", *common, "-o", str(tmp_path / "parts")],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    table = tmp_path / "parts/logs/metrics.csv"
    until = time.monotonic() + 300
    while not (table.is_file() and len(table.read_text().splitlines()) > 2):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 0
    assert 6 <= len(_losses(tmp_path / "parts")) < 90
    assert _medseg("train", *common, "-o", str(tmp_path / "parts"), "--resume").returncode == 0
    assert _losses(tmp_path / "parts") == _losses(tmp_path / "whole")


@pytest.mark.slow
def test_monais_own_command_trains_alike(options: TrainOptions, tmp_path: Path) -> None:
    settings = [part for setting in SHORT for part in ("--set", setting)]
    common = ["--dataset", str(options.dataset), "--device", "cpu", "--deterministic", *settings]
    for name in ("out", "copy"):
        done = _medseg("train", options.bundle, *common, "-o", str(tmp_path / name))
        assert done.returncode == 0, done.stderr[-3000:]
    for path in (tmp_path / "copy/models").iterdir():
        path.unlink()
    command = [sys.executable, "-m", "monai.bundle", "run"]
    command += ["--config_file", "['configs/common.yaml','configs/train.yaml']"]
    command += ["--dataset_dir", str(options.dataset), "--deterministic", "True"]
    command += ["--device", "$torch.device('cpu')"]
    for setting in SHORT:
        key, _, value = setting.partition("=")
        command += [f"--{key}", "$None" if value == "null" else value]  # MONAI drops None
    done = subprocess.run(
        command,
        cwd=tmp_path / "copy",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert _losses(tmp_path / "copy") == _losses(tmp_path / "out")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:parsing config_file", "ignore:NvImgCodecPydicomReader")
def test_torchrun_trains_a_bundle_and_scores_each_of_five_cases_once(
    planned: tuple[Path, Path], tmp_path: Path
) -> None:
    dataset = write_msd(tmp_path / "data", count=7, values=(10, 200))
    cases = [f"toy_{number:03d}" for number in range(7)]
    bundle = tmp_path / "bundle"
    shutil.copytree(planned[1] / "configs", bundle / "configs")
    split = {"training": cases[5:], "validation": cases[:5]}
    (bundle / "configs/splits.json").write_text(json.dumps({"folds": [split]}))
    names = [f"configs/{name}.yaml" for name in ("common", "train", "multi_gpu_train")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(names)]
    command += ["--dataset_dir", str(dataset), "--has_gpu", "False"]
    for setting in SHORT:
        key, _, value = setting.partition("=")
        command += [f"--{key}", "$None" if value == "null" else value]  # MONAI drops None
    done = subprocess.run(
        command,
        cwd=bundle,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with (bundle / "logs/metrics.csv").open(newline="") as file:
        scores = [float(row["val_mean_dice"]) for row in csv.DictReader(file)]
    parser = ConfigParser()
    parser.read_config([str(bundle / name) for name in names[:2]])
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(dataset), "amp": None})
    parser["device"] = "$torch.device('cpu')"
    weights = torch.load(bundle / "models/model.pt", weights_only=True)
    evaluator = parser.get_parsed_content("validate#evaluator")
    parser.get_parsed_content("average").module.load_state_dict(weights, strict=False)
    evaluator.run()
    assert len(evaluator.state.metric_details["val_mean_dice"]["cases"]) == 5
    assert evaluator.state.metrics["val_mean_dice"] == pytest.approx(max(scores), abs=1e-6)
