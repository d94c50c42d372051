"""Time an iteration of `medseg train` against a bare pass of the same network.

    python scripts/bench/training_step.py BUNDLE DATASET [--rounds 12] [--compile] [--out FILE]

BUNDLE was written by `medseg plan`. An iteration is all that training does with a batch: the pass
under autocast, Dice and cross-entropy with deep supervision, backward, clipping, the optimizer and
the running average of the weights. The bare pass is forward and backward of the same network with
one output and the mean of it in place of a loss, under the same autocast, memory layout and
allocator settings. The two take turns within one process. Waiting for data is not part of either:
`medseg train` says it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from measure import machine
from monai.bundle import ConfigParser

from medseg.bundle.overrides import merge_configs

WARM_UP = 2


class Turns:
    """Handler: after each iteration the bare pass has its turn."""

    def __init__(self, network: torch.nn.Module, image: torch.Tensor, compiled: bool) -> None:
        layout = torch.channels_last_3d if image.ndim == 5 else torch.channels_last
        self.image = image.contiguous(memory_format=layout)
        self.plain = network.train()
        for parameter in self.plain.parameters():
            if parameter.ndim == image.ndim:
                parameter.data = parameter.data.contiguous(memory_format=layout)
        self.network = torch.compile(network) if compiled else network
        self.iterations: list[float] = []
        self.bare: list[float] = []
        self._began = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, before its other handlers."""
        engine.add_event_handler(Events.ITERATION_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._complete)

    def _start(self) -> None:
        self._began = time.perf_counter()

    def _complete(self) -> None:
        self.iterations.append(time.perf_counter() - self._began)
        began = time.perf_counter()
        self.plain.zero_grad(set_to_none=True)
        with torch.autocast(self.image.device.type, torch.bfloat16):
            output = self.network(self.image)
        output.float().mean().backward()
        self.bare.append(time.perf_counter() - began)


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median and range, the first turns left out."""
    kept = seconds[WARM_UP:]
    return {"median_s": statistics.median(kept), "min_s": min(kept), "max_s": max(kept)}


def run(bundle: Path, dataset: Path, folder: Path, rounds: int, compiled: bool) -> dict[str, Any]:
    """Train a few iterations and time them and the bare passes."""
    config = merge_configs([bundle / f"configs/{name}.yaml" for name in ("common", "train")])
    config |= {
        "bundle_root": str(bundle),
        "dataset_dir": str(dataset),
        "model_dir": str(folder / "models"),
        "log_dir": str(folder / "logs"),
        "cache_dir": str(folder / "cache"),
        "epochs": 1,
        "iterations_per_epoch": rounds + WARM_UP,
        "compile": compiled,
    }
    config["train"]["trainer"]["train_handlers"] = []  # no validation, no files
    parser = ConfigParser(config)
    parser.parse(reset=True)
    parser.get_parsed_content("initialize")
    batch = [parser["batch_size"], parser["network_def"]["in_channels"], *parser["patch_size"]]
    plain = ConfigParser({**config, "deep_supervision": False})
    device = parser.get_parsed_content("device")
    network = plain.get_parsed_content("network_def").to(device)
    turns = Turns(network, torch.randn(batch, device=device), compiled)
    trainer = parser.get_parsed_content("train#trainer")
    turns.attach(trainer)
    parser.get_parsed_content("train#source").prepare()
    trainer.run()
    iteration, bare = summary(turns.iterations), summary(turns.bare)
    ratios = [one / other for one, other in zip(turns.iterations, turns.bare, strict=True)]
    return {
        "batch": batch,
        "compiled": compiled,
        "amp": parser["amp"],
        "threads": torch.get_num_threads(),
        "iteration": iteration,
        "bare": bare,
        "ratio": iteration["median_s"] / bare["median_s"],
        "median_of_ratios": statistics.median(ratios[WARM_UP:]),
    }


def main() -> None:
    """Read the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--work", type=Path, default=Path("bench_step"), help="for the cache")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result = {
        "machine": machine(),
        **run(
            arguments.bundle.absolute(),
            arguments.dataset.absolute(),
            arguments.work.absolute(),
            arguments.rounds,
            arguments.compile,
        ),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
