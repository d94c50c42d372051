import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from tests.training.toy_training import make_trainer

ROOT = Path(__file__).parents[2]


def _scores(trainer: Any) -> list[tuple[int, float]]:
    """Note the iteration and the score of each validation of a training."""
    found: list[tuple[int, float]] = []

    def note() -> None:
        score = trainer.evaluator.state.metrics["val_mean_dice"]
        found.append((trainer.state.iteration, score))

    trainer.evaluator.add_event_handler(Events.COMPLETED, note)
    return found


def test_it_validates_every_few_epochs_and_at_the_end(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=5, interval=2)
    scores = _scores(trainer)
    trainer.run()
    assert [iteration for iteration, _ in scores] == [10, 20, 25]


def test_training_ends_when_the_score_no_longer_rises(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=60, interval=1, patience=3)
    scores = _scores(trainer)
    trainer.run()
    values = [score for _, score in scores]
    assert len(values) < 60
    assert max(values[-3:]) <= max(values[:-3])


def test_what_stopped_rising_is_not_trained_on_when_resumed(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=40, interval=1, patience=1).run()
    ended = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"]
    assert ended < 200
    trainer = make_trainer(tmp_path, epochs=40, interval=1, patience=1)
    trainer.run()
    again = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["iteration"]
    assert again == ended


@pytest.mark.slow
def test_a_stop_in_the_last_iteration_of_an_epoch_loses_no_validation(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, interval=1)

    def stop(engine: Engine) -> None:
        if engine.state.iteration == 10:
            signal.raise_signal(signal.SIGTERM)

    trainer.add_event_handler(Events.ITERATION_STARTED, stop)
    trainer.run()
    make_trainer(tmp_path, interval=1).run()
    with (tmp_path / "logs/metrics.csv").open(newline="") as file:
        rows = {row["iteration"]: row["val_mean_dice"] for row in csv.DictReader(file)}
    assert all(rows[str(iteration)] for iteration in (5, 10, 15, 20))


def test_a_time_budget_is_kept_and_ends_with_a_validation(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=100_000, budget_s=3.0, pause_s=0.02)
    scores = _scores(trainer)
    trainer.run()
    assert trainer.state.iteration < 3.0 / 0.02
    assert scores[-1][0] == trainer.state.iteration
    assert len(scores) >= 2
    assert trainer.optimizer.param_groups[0]["lr"] < 0.05 * 0.05
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["iteration"] == trainer.state.iteration


def test_a_training_whose_budget_is_spent_is_not_trained_again(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=100_000, budget_s=1.0, pause_s=0.02)

    def slow_but_the_last(_engine: Engine) -> None:  # which leaves time over
        if trainer.optimizer.param_groups[0]["lr"] > 0:
            time.sleep(0.1)

    trainer.evaluator.add_event_handler(Events.STARTED, slow_but_the_last)
    trainer.run()
    lines = (tmp_path / "losses.txt").read_text()
    make_trainer(tmp_path, epochs=100_000, budget_s=1.0, pause_s=0.02).run()
    assert (tmp_path / "losses.txt").read_text() == lines
    more = make_trainer(tmp_path, epochs=100_000, budget_s=600.0, pause_s=0.02)
    more.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: engine.terminate())
    more.run()
    assert (tmp_path / "losses.txt").read_text() > lines


@pytest.mark.slow
def test_two_processes_score_five_cases_once_each_as_one_process_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node=2", "-m", "tests.training.toy_training", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--epochs", "2"], cwd=ROOT, env=environment, timeout=300, check=False
    )
    assert done.returncode == 0
    scores = [json.loads((tmp_path / f"two/{rank}/scores.json").read_text()) for rank in (0, 1)]
    assert scores[0] == scores[1]
    assert not (tmp_path / "two/1/checkpoint.pt").exists()  # the first alone writes
    single = make_trainer(tmp_path / "two/0", epochs=2)  # resumes the weights of the two
    single.evaluator.run()
    expected = single.evaluator.state.metric_details
    assert len(expected["val_mean_dice"]["cases"]) == 5
    assert scores[0] == expected
