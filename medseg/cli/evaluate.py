"""`medseg evaluate`: scores of masks against labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.console import Mode, Progress, print_table, run, say
from medseg.cli.options import AsJson, Debug, Quiet

if TYPE_CHECKING:
    from medseg.workflows.evaluate import EvaluateResult

COLUMNS = ("dice", "iou", "hd95_mm", "nsd", "precision", "recall", "volume_difference_ml")
"""Scores shown on screen; the files and the JSON document hold all."""


def command(
    pred: Annotated[
        Path,
        typer.Argument(
            metavar="PRED",
            show_default=False,
            help="Mask, or folder of masks; what medseg segment wrote, for example.",
        ),
    ],
    label: Annotated[
        Path,
        typer.Argument(
            metavar="LABEL",
            show_default=False,
            help="True mask, or folder of them, same names; or a dataset.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", show_default=False, help="Folder for metrics.csv and summary.json."
        ),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            show_default="the labels.json beside a mask",
            help="Names in order from index 1, separated by commas; or a labels.json.",
        ),
    ] = "",
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring predictions to the grid of their label.")
    ] = False,
    nsd_tolerance_mm: Annotated[
        float,
        typer.Option(
            "--nsd-tolerance", min=0.0, help="Deviation of the surface that NSD accepts; mm."
        ),
    ] = 1.0,
    ignore_index: Annotated[
        int | None,
        typer.Option(show_default=False, help="Value in LABEL whose voxels are not scored."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Score masks against the truth: Dice, IoU, HD95, NSD, precision, recall, volume."""

    def work(progress: Progress) -> "EvaluateResult":
        from medseg.workflows.evaluate import EvaluateOptions, evaluate

        options = EvaluateOptions(
            pred,
            label,
            output=output,
            labels=_label_names(labels),
            resample=resample,
            nsd_tolerance_mm=nsd_tolerance_mm,
            ignore_index=ignore_index,
        )
        return evaluate(options, progress=progress)

    return run(work, _show, Mode(as_json, debug, quiet))


def _label_names(text: str) -> tuple[str, ...] | Path | None:
    if not text:
        return None
    if text.endswith(".json"):
        return Path(text)
    return tuple(name.strip() for name in text.split(","))


def _show(result: "EvaluateResult") -> None:
    document = result.as_json()
    named = [*document["labels"].items(), ("mean", document["mean"])]
    rows = [(name, *(_number(scores.get(key)) for key in COLUMNS)) for name, scores in named]
    headings = ("label", *(f"{key.replace('_', ' ')}>" for key in COLUMNS))
    counts = document["counts"]
    print_table(f"{counts['done']} of {counts['cases']} cases scored", headings, rows)
    for case in document["cases"]:
        for warning in case["warnings"]:
            say(f"{case['case']}: warning: {warning['message']} [{warning['code']}]")
        if error := case["error"]:
            say(f"{case['case']}: error: {error['message']} [{error['code']}]")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
