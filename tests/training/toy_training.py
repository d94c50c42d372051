"""A training of seconds on made-up images; run as a program by the tests that kill it.

python -m tests.training.toy_training FOLDER [--epochs N] [--pause S] [--budget S] [--amp bf16]
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.losses import DiceCELoss
from torch import nn
from torch.utils.data import Dataset

from medseg.training import (
    BatchNumbers,
    BestWeightsWriter,
    CaseDice,
    CheckpointKeeper,
    RunLog,
    Schedule,
    ShardSampler,
    TrainingStep,
    Validation,
    WeightAverage,
    end_process,
    leave_processes,
    set_up,
)


class Squares(Dataset[dict[str, Any]]):
    """Squares in noise; sample `number` is the same whoever asks for it."""

    def __init__(self, poisoned: tuple[int, ...] = ()) -> None:
        self.poisoned = poisoned

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, number: int) -> dict[str, Any]:
        rng = np.random.default_rng((7, number))
        image = rng.normal(size=(1, 16, 16)).astype(np.float32)
        label = np.zeros((1, 16, 16), np.uint8)
        row, column = rng.integers(0, 9, 2)
        label[:, row : row + 7, column : column + 7] = 1
        image += 2.0 * label
        if number in self.poisoned:
            image[...] = np.nan
        return {
            "case": f"case_{number:03d}",
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
        }


class Some(Dataset[dict[str, Any]]):
    """The first few squares."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> dict[str, Any]:
        return Squares()[100_000 + number]


def network() -> nn.Module:
    """Return a small network with dropout, so that random numbers matter."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Dropout(0.2), nn.Conv2d(8, 2, 3, padding=1)
    )


class Losses:
    """Handler that writes each loss as it comes."""

    def __init__(self, path: Path, pause_s: float) -> None:
        self.path, self.pause_s = path, pause_s

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._write)

    def _write(self, engine: Any) -> None:
        with self.path.open("a") as file:
            file.write(f"{engine.state.iteration} {engine.state.output['loss']!r}\n")
        time.sleep(self.pause_s)


def make_trainer(
    folder: Path,
    *,
    epochs: int = 4,
    length: int = 5,
    batch_size: int = 4,
    workers: int = 0,
    pause_s: float = 0.0,
    budget_s: float | None = None,
    amp: Any = None,
    poisoned: tuple[int, ...] = (),
    cases: int = 5,
    interval: int = 2,
    patience: int | None = None,
    every_minutes: float = 10.0,
) -> Any:
    """Put a trainer together as train.yaml does."""
    device = torch.device("cpu")
    net: nn.Module = network()
    wrapped = net
    if dist.is_initialized():
        wrapped = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    schedule = Schedule(optimizer, epochs * length, time_budget_s=budget_s)
    average = WeightAverage(net, decay=0.9)
    step = TrainingStep(schedule, average, amp=amp, seed=3)
    sampler = BatchNumbers(batch_size, epochs * length)
    loader = DataLoader(
        Squares(poisoned),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    best = BestWeightsWriter(str(folder / "model.pt"), average.module)
    evaluator = SupervisedEvaluator(
        device=device,
        val_data_loader=DataLoader(Some(cases), batch_size=1, sampler=ShardSampler(cases)),
        network=average.module,
        inferer=SimpleInferer(),
        key_val_metric={"val_mean_dice": CaseDice(["square"])},
        val_handlers=[best],
        decollate=False,
    )
    validation = Validation(evaluator, schedule, interval, patience, shortest_s=0.0)
    run_log = RunLog(str(folder / "logs"), evaluator, schedule)
    keeper = CheckpointKeeper(
        str(folder / "checkpoint.pt"),
        {
            "network": net,
            "optimizer": optimizer,
            "schedule": schedule,
            "step": step,
            "average": average,
            "validation": validation,
            "best": best,
            "log": run_log,
        },
        starts=[sampler, run_log],
        every_minutes=every_minutes,
    )
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        epoch_length=length,
        train_data_loader=loader,
        network=wrapped,
        optimizer=optimizer,
        loss_function=DiceCELoss(to_onehot_y=True, softmax=True, batch=True),
        iteration_update=step,
        decollate=False,
        train_handlers=[run_log, Losses(folder / "losses.txt", pause_s), validation, keeper],
    )
    trainer.evaluator = evaluator
    trainer.log = run_log
    trainer.keepers = [keeper]
    return trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--amp")
    arguments = parser.parse_args()
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
    set_up(seed=1, deterministic=True)
    torch.set_num_threads(1)
    folder = arguments.folder / os.environ["RANK"] if several else arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    trainer = make_trainer(
        folder,
        epochs=arguments.epochs,
        pause_s=arguments.pause,
        budget_s=arguments.budget,
        workers=arguments.workers,
        amp=arguments.amp,
        every_minutes=0.0,
    )
    trainer.run()
    (folder / "scores.json").write_text(json.dumps(trainer.evaluator.state.metric_details))
    if several:
        leave_processes()
        end_process()


if __name__ == "__main__":
    main()
