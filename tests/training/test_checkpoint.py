"""Checkpoints: a resume finds everything, inference weights hold nothing superfluous."""

import errno
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.networks.nets import DynUNet

from medseg.errors import OutputError, TrainingError
from medseg.io.atomic import PART_PREFIX
from medseg.training import BestWeightsWriter, checkpoint
from medseg.training.checkpoint import save_inference_weights
from medseg.training.randomness import random_states, set_random_states
from tests.training.toy_training import make_trainer

ROOT = Path(__file__).parents[2]


def _dynunet(deep_supervision: bool) -> DynUNet:
    return DynUNet(
        3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 8],
        deep_supervision=deep_supervision, deep_supr_num=2,
    )  # fmt: skip


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 2e-2)])
def test_stripped_weights_load_strictly_without_deep_supervision(tmp_path, half, tolerance) -> None:
    torch.manual_seed(0)
    trained, plain = _dynunet(True).eval(), _dynunet(False).eval()
    save_inference_weights(trained, tmp_path / "model.pt", half=half)
    plain.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    inputs = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert (plain(inputs) - trained(inputs)).abs().max() <= tolerance


def test_tensors_with_two_names_are_stored_once(tmp_path) -> None:
    network = _dynunet(False)
    save_inference_weights(network, tmp_path / "model.pt")
    size = sum(p.numel() * 4 for p in network.parameters())
    assert (tmp_path / "model.pt").stat().st_size < 1.5 * size + 60_000


def test_only_a_better_score_rewrites_the_weights(tmp_path) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    scores = iter([0.5, 0.4, 0.6])
    evaluator = Engine(lambda *_: None)
    writer = BestWeightsWriter(str(tmp_path / "model.pt"), network)

    @evaluator.on(Events.EPOCH_COMPLETED)
    def score(engine: Engine) -> None:
        engine.state.metrics["dice"] = next(scores)
        engine.state.key_metric_name = "dice"

    writer.attach(evaluator)
    kept = []
    for value in (1.0, 2.0, 3.0):
        with torch.no_grad():
            network.weight.fill_(value)
        evaluator.run([0])
        kept.append(torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item())
    assert kept == [1.0, 1.0, 3.0]
    assert writer.best == 0.6


def _losses(folder: Path) -> list[str]:
    return (folder / "losses.txt").read_text().splitlines()


def _last_of_each(lines: list[str]) -> list[str]:
    """Keep what the last run wrote of an iteration: a killed run may have been further."""
    return list({line.split()[0]: line for line in lines}.values())


def _start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.training.toy_training", str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)


def _wait_for_iteration(folder: Path, iteration: int, process: subprocess.Popen[bytes]) -> None:
    path = folder / "losses.txt"
    for _ in range(3000):
        if path.is_file() and len(path.read_text().splitlines()) >= iteration:
            return
        assert process.poll() is None, "the training ended before it was reached"
        time.sleep(0.01)
    pytest.fail(f"iteration {iteration} was not reached")


@pytest.mark.slow
def test_a_training_stopped_in_an_epoch_goes_on_to_the_same_losses(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    make_trainer(whole).run()
    for stop_at in (3, 4, 12):  # in the first epoch, after one iteration, in the third epoch
        trainer = make_trainer(parts)

        def stop(engine: Engine, at: int = stop_at) -> None:
            if engine.state.iteration == at:
                signal.raise_signal(signal.SIGTERM)

        trainer.add_event_handler(Events.ITERATION_STARTED, stop)
        trainer.run()
        assert trainer.state.iteration == stop_at
    make_trainer(parts).run()
    assert _losses(parts) == _losses(whole)
    first, second = (torch.load(f / "model.pt", weights_only=True) for f in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_kill_minus_nine_at_any_moment_loses_nothing(tmp_path: Path, workers: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _start(whole, "--amp", "bf16").wait() == 0
    for iteration in (2, 7, 13):
        process = _start(killed, "--amp", "bf16", "--pause", "0.05", "--workers", workers)
        _wait_for_iteration(killed, iteration, process)
        process.kill()
        process.wait()
    assert _start(killed, "--amp", "bf16", "--workers", workers).wait() == 0
    assert _last_of_each(_losses(killed)) == _losses(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_writes_a_checkpoint_and_leaves_with_exit_code_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = _start(tmp_path, "--epochs", "400", "--pause", "0.05")
    _wait_for_iteration(tmp_path, 3, process)
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == int(_losses(tmp_path)[-1].split()[0])


def test_an_empty_checkpoint_is_passed_over_and_the_one_before_kept(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=2).run()
    for name in ("losses.txt", "logs/losses.csv"):
        assert (tmp_path / name).read_text()
    before = (tmp_path / "checkpoint_previous.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    trainer = make_trainer(tmp_path, epochs=4, length=5)

    def stop(engine: Engine) -> None:
        if engine.state.iteration == 7:
            signal.raise_signal(signal.SIGTERM)

    trainer.add_event_handler(Events.ITERATION_STARTED, stop)
    trainer.run()
    kept = torch.load(tmp_path / "checkpoint_previous.pt", weights_only=True)
    assert kept["iteration"] in (5, 7)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 7
    assert before


def test_an_optimizer_of_another_kind_does_not_fit(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).run()
    trainer = make_trainer(tmp_path / "new", epochs=1)
    keeper = next(h for h in trainer.keepers)
    keeper.path = tmp_path / "checkpoint.pt"
    keeper.objects["optimizer"] = torch.optim.AdamW(trainer.network.parameters())
    with pytest.raises(TrainingError, match="the optimizer is another one") as caught:
        keeper.attach(Engine(lambda *_: None))
    assert caught.value.code == "checkpoint-mismatch"


def test_a_resume_takes_the_optimizers_settings_from_the_configs(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).run()
    trainer = make_trainer(tmp_path, epochs=1)
    assert [g["momentum"] for g in trainer.optimizer.param_groups] == [0.9]
    assert trainer.optimizer.state


def test_a_complete_training_is_not_trained_again(tmp_path: Path) -> None:
    make_trainer(tmp_path).run()
    lines = _losses(tmp_path)
    trainer = make_trainer(tmp_path)
    trainer.run()
    assert _losses(tmp_path) == lines
    assert trainer.state.iteration == len(lines)


def test_more_epochs_continue_a_complete_training(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=2).run()
    make_trainer(tmp_path, epochs=3).run()
    assert [line.split()[0] for line in _losses(tmp_path)] == [str(n) for n in range(1, 16)]


def test_the_checkpoint_before_the_last_takes_the_place_of_a_damaged_one(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=2).run()
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:500])
    trainer = make_trainer(tmp_path, epochs=2)
    assert trainer.state.iteration == 5
    trainer.run()
    assert _last_of_each(_losses(tmp_path))[-1] == _losses(tmp_path)[9]


def test_checkpoints_that_are_all_damaged_are_an_error_and_are_kept(tmp_path: Path) -> None:
    for name in ("checkpoint.pt", "checkpoint_previous.pt"):
        (tmp_path / name).write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match=r"damaged checkpoint.pt and checkpoint_previous.pt"):
        make_trainer(tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"no checkpoint"


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).run()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    state["objects"]["network"]["3.weight"] = torch.zeros(5, 8, 3, 3)
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="must be of this bundle") as caught:
        make_trainer(tmp_path)
    assert caught.value.code == "checkpoint-mismatch"


def test_a_checkpoint_without_a_part_is_refused_and_the_part_named(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1).run()
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["objects"]["average"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(TrainingError, match="lacks: average"):
        make_trainer(tmp_path)


def test_a_full_disk_in_between_is_survived_and_at_the_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer = make_trainer(tmp_path, interval=99)
    trainer.add_event_handler(
        Events.EPOCH_STARTED(once=3), lambda: monkeypatch.setattr(checkpoint, "save", full)
    )
    with pytest.raises(OutputError) as caught:
        trainer.run()
    assert caught.value.code == "disk-full"
    assert len(_losses(tmp_path)) == 20
    assert "no checkpoint at iteration 15" in caplog.text
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"] == 10


def test_a_writer_of_torch_that_fails_is_an_output_error(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        checkpoint.save({"a": torch.zeros(3)}, target)


def test_random_states_come_back(tmp_path: Path) -> None:
    states = random_states()
    torch.save(states, tmp_path / "states.pt")
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    set_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002


def test_left_parts_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / f"{PART_PREFIX}999999999-abc-checkpoint.pt"
    left.write_bytes(b"half")
    make_trainer(tmp_path)
    assert not left.exists()


def test_no_score_still_leaves_weights_and_the_first_score_replaces_them(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1)
    writer = BestWeightsWriter(str(tmp_path / "model.pt"), network)
    for score, expected in ((float("nan"), None), (0.2, 0.2), (float("nan"), 0.2), (0.1, 0.2)):
        evaluator = Engine(lambda *_: None)
        evaluator.state.key_metric_name = "dice"
        evaluator.state.metrics = {"dice": score}
        writer._write_if_best(evaluator)
        assert (tmp_path / "model.pt").is_file()
        assert writer.best == expected
