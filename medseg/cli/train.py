"""`medseg train`: a bundle and a dataset in, weights out."""

import math
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.console import WRONG_USAGE as WRONG
from medseg.cli.console import Mode, Progress, fail, plain, print_table, run, say
from medseg.cli.options import AsJson, Debug, Quiet, Strict, Trust
from medseg.errors import MedsegError, UsageError
from medseg.workflows.train_fold import METRIC_NAMES

if TYPE_CHECKING:
    from medseg.workflows.train import Fold, TrainResult

LINE_EVERY_S = 60.0
"""Between two lines about the training where stderr is not a terminal."""

_SCORES = ("dice", "hd95_mm", "nsd")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def command(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", show_default=False, help="Folder or name.")
    ],
    dataset: Annotated[
        Path | None,
        typer.Option(show_default="the bundle's", help="Folder or manifest of the dataset."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            show_default="the bundle itself",
            help="New folder: a copy of the bundle to train in.",
        ),
    ] = None,
    fold: Annotated[
        str, typer.Option(show_default="the bundle's", help="Fold that validates, or all.")
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train anew; what was trained before is lost.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", show_default=False, help="Over the bundle's configs."
        ),
    ] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            show_default=False,
            help="Processes of this machine, each with a GPU of its own where there are any.",
        ),
    ] = None,
    time_budget: Annotated[
        str,
        typer.Option(
            show_default="none",
            help="Time it may take, earlier runs included: 90 (seconds), 10m, 1h30m, 2d.",
        ),
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same losses in every run; slower.")
    ] = False,
    strict: Strict = False,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Train a bundle on a dataset: weights, checkpoints, tables and curves."""
    from medseg.workflows.processes import join_slurm, rank_of_environment

    mode = Mode(as_json, debug, quiet)
    try:
        chosen = fold_of(fold)
        budget_s = seconds_of(time_budget) if time_budget else None
        os.environ.update(join_slurm(os.environ))
    except MedsegError as error:
        return fail(error.code, str(error), mode, WRONG)
    speaks = rank_of_environment() == 0  # the first process speaks for all
    if not speaks:
        mode = Mode(as_json=False, debug=debug, quiet=True)

    def work(progress: Progress) -> "TrainResult":
        from medseg.workflows.train import TrainOptions, train

        options = TrainOptions(
            bundle=bundle,
            dataset=dataset,
            output=output,
            fold=chosen,
            resume=resume,
            overwrite=overwrite,
            settings=tuple(settings or ()),
            gpus=gpus,
            time_budget_s=budget_s,
            device=device,
            deterministic=deterministic,
            strict=strict,
            trust=trust,
        )
        return train(options, progress=_Told(progress, lines=not mode.quiet))

    return run(work, _show if speaks else _show_nothing, mode)


class _Told:
    """The bar on a terminal; elsewhere a line now and then."""

    def __init__(self, bar: Progress, *, lines: bool) -> None:
        self._bar = bar
        self._lines = lines and not sys.stderr.isatty()
        self._last_s = time.monotonic()

    def __call__(self, done: int, total: int, what: str = "") -> None:
        self._bar(done, total, what)
        now = time.monotonic()
        if self._lines and now - self._last_s > LINE_EVERY_S:
            self._last_s = now
            share = f"{100 * done / total:5.1f} %  " if total else ""
            say(f"{share}{what}")


def fold_of(text: str) -> "Fold":
    """Read `--fold`.

    Args:
        text: A number, `all`, or nothing.

    Returns:
        The number, `all` or None.

    Raises:
        UsageError: If it is something else.
    """
    if text == "":
        return None
    if text == "all":
        return "all"
    if not text.isdigit():
        msg = f"fold must be a number from 0 or all, got {text!r}."
        raise UsageError(msg)
    return int(text)


def seconds_of(text: str) -> float:
    """Read a length of time.

    Args:
        text: Seconds, or numbers with the units d, h, m and s.

    Returns:
        Seconds.

    Raises:
        UsageError: If it is no length of time.

    Examples:
        >>> seconds_of("1h30m")
        5400.0
        >>> seconds_of("90")
        90.0
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([dhms]?)", text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        msg = f"time-budget must be like 90, 10m, 1h30m or 2d, got {text!r}."
        raise UsageError(msg)
    return sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)


def _show_nothing(result: "TrainResult") -> None:
    """Leave it to the first process."""


def _show(result: "TrainResult") -> None:
    rows = []
    for fold in result.folds:
        score = "" if fold.best_score is None else f"{fold.best_score:.4f}"
        name = "" if fold.fold is None else str(fold.fold)
        minutes = f"{fold.seconds / 60:.1f} min"
        waiting = f"{100 * fold.waiting:.1f} %"
        rows.append((name, fold.status, str(fold.iterations), score, minutes, waiting))
    names = {METRIC_NAMES.get(fold.metric, fold.metric) for fold in result.folds}
    best = f"best {' or '.join(sorted(names))}>"
    columns = ("fold", "status", "iterations>", best, "time>", "waiting for data>")
    print_table("Training", columns, rows)
    if result.cross_validation is not None:
        _show_cross_validation(result.cross_validation)
    for fold in result.folds:
        if fold.weights:
            print(plain(f"weights  {fold.weights}"))
        print(plain(f"log      {fold.logs}"))
        if fold.error:
            say(f"error: {fold.error.message} [{fold.error.code}]")
        if fold.status == "interrupted":
            say("stopped on demand; --resume goes on")
    for warning in result.warnings:
        say(f"warning: {warning.message} [{warning.code}]")


def _show_cross_validation(document: Mapping[str, Any]) -> None:
    named = [*document["labels"].items(), ("mean", document["mean"])]
    rows = [(name, *(_number(scores[key]) for key in _SCORES)) for name, scores in named]
    title = f"Cross-validation over {len(document['cases'])} cases"
    print_table(title, ("label", *(f"{key.replace('_', ' ')}>" for key in _SCORES)), rows)
    for step in document["postprocessing"]:
        names = " and ".join(step.get("labels") or [step["label"]])
        print(plain(f"kept from now on: the largest component of {names}"))
    for case in document["failed"]:
        say(f"{case['case']}: error: {case['error']['message']} [{case['error']['code']}]")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
