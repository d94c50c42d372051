"""What `python -m monai.bundle run` does with a training's configs, with an ear on it."""

import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import MedsegError, Problem
from medseg.workflows.launch import world_of_environment
from medseg.workflows.plan import raise_for_errors

if TYPE_CHECKING:  # torch and MONAI take seconds
    from medseg.training import TrainingState

STEPS = 1000
"""Steps in which the progress of a training is told."""

Progress = Callable[[int, int, str], None]


def run_configs(
    config: Mapping[str, Any],
    time_budget_s: float | None,
    parts: dict[str, Any],
    tell: Progress,
) -> None:
    """Train by the configs of a bundle.

    Args:
        config: Merged configs of `train.yaml` and what lies below it.
        time_budget_s: Time that training may take, preparing included; s.
        parts: Gets `trainer`, `log` and `best` as soon as they are there.
        tell: Told how far it is.
    """
    from monai.bundle import ConfigParser  # noqa: PLC0415

    began = time.monotonic()
    parser = ConfigParser(dict(config))
    parser.parse(reset=True)
    several = world_of_environment() > 1
    if not several:  # of several processes none may be busy before they know each other
        _check_dataset(parser, tell)
        _prepare(parser, tell)
    tell(0, STEPS, "starting")
    if time_budget_s is not None:
        parser["time_budget_s"] = max(1.0, time_budget_s - (time.monotonic() - began))
        parser.parse(reset=True)
    parser.get_parsed_content("initialize", default=None)
    trainer = parser.get_parsed_content("train#trainer")
    parts |= {
        "trainer": trainer,
        "log": _part(parser, "train#log"),
        "best": _part(parser, "validate#best"),
    }
    if parts["log"] is not None:
        parts["log"].listener = lambda state: tell(
            int(STEPS * state.share), STEPS, describe_state(state)
        )
    parser.get_parsed_content("run")
    if "finalize" in parser:
        parser.get_parsed_content("finalize")


def _part(parser: Any, name: str) -> Any:
    return parser.get_parsed_content(name) if name in parser else None


def _check_dataset(parser: Any, tell: Progress) -> None:
    """List the faults of a dataset, unless all its cases were preprocessed before."""
    from medseg.data import CachedDataset, check_dataset, open_dataset  # noqa: PLC0415
    from medseg.data.folds import folds_for  # noqa: PLC0415

    source = _part(parser, "train#source")
    if not isinstance(source, CachedDataset) or "splits_file" not in parser:
        return
    if all(source.entry(index) is not None for index in range(len(source))):
        return
    dataset = open_dataset(Path(parser.get_parsed_content("dataset_dir")))
    raise_for_errors(
        check_dataset(
            dataset,
            splits=folds_for(dataset, parser.get_parsed_content("splits_file")),
            progress=lambda done, total: tell(done, total, "checking cases"),
        )
    )


def _prepare(parser: Any, tell: Progress) -> None:
    for name, what in (("train#source", "training"), ("validate#dataset", "validation")):
        dataset = _part(parser, name)
        if hasattr(dataset, "prepare"):
            dataset.prepare(
                lambda done, total, what=what: tell(done, total, f"preprocessing {what} cases")
            )


def describe_state(state: "TrainingState") -> str:
    """Say in one line how far a training is.

    Args:
        state: Of the run log.

    Returns:
        For example `it 120  loss 0.412  Dice 0.713 (best 0.720)  waiting 0.4 %  1.52 s/it`.
    """
    text = f"it {state.iteration}  loss {state.loss:.3f}"
    if state.dice == state.dice:  # a number
        text += f"  Dice {state.dice:.3f} (best {state.best_dice:.3f})"
    return f"{text}  waiting {100 * state.waiting:.1f} %  {state.seconds_per_iteration:.2f} s/it"


def problem_of(error: BaseException) -> Problem:
    """Say in one sentence why a training ended, the data loader's own words left out.

    Args:
        error: What was raised; torch and MONAI wrap it.

    Returns:
        Code and message.
    """
    chain = chain_of(error)
    for one in chain:
        if isinstance(one, MedsegError):
            return Problem(one.code, str(one))
    text = str(chain[-1]) or type(chain[-1]).__name__
    killed = re.search(r"DataLoader worker .*?(killed by signal: \w+|exited)", str(error))
    if killed:
        reason = (
            f"a process that prepares samples was killed ({killed.group(1)}), most likely for want"
            " of memory. Use --set num_workers=0 or a machine with more memory; --resume goes on."
        )
        return Problem("worker-killed", reason)
    if isinstance(error, MemoryError) or "out of memory" in text or "alloc" in text.lower():
        reason = "not enough memory. Use --set batch_size=N or plan with a smaller --memory-gb."
        return Problem("out-of-memory", reason)
    return Problem("internal", f"{type(chain[-1]).__name__}: {text.splitlines()[0]}")


def chain_of(error: BaseException) -> list[BaseException]:
    """Return an error and what caused it, one behind the other.

    Args:
        error: What was raised.

    Returns:
        The error first.
    """
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:
        chain.append(cause)
    return chain


@contextmanager
def quiet_monai() -> Iterator[None]:
    """Keep MONAI's notes on its own defaults, and that configs are code, from the screen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="parsing config_file")
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        warnings.simplefilter("ignore", FutureWarning)
        yield
