"""`medseg evaluate`: scores of masks against labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.console import Mode, Progress, print_table, run, say
from medseg.cli.options import AsJson, Debug, Quiet

if TYPE_CHECKING:
    from medseg.workflows.evaluate import EvaluateResult

COLUMNS = ("dice", "iou", "hd95_mm", "nsd", "precision", "recall")
"""Scores shown on screen; the files hold all."""


def command(
    prediction: Annotated[
        Path,
        typer.Argument(metavar="PRED", show_default=False, help="Mask, or folder of masks."),
    ],
    label: Annotated[
        Path,
        typer.Argument(metavar="LABEL", show_default=False, help="True mask, or folder of them."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", show_default=False, help="Folder for the CSV and JSON files."
        ),
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring predictions to the grid of their label.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Score masks against the truth: Dice, IoU, HD95, surface Dice, and more."""

    def work(progress: Progress) -> "EvaluateResult":  # noqa: ARG001
        from medseg.workflows.evaluate import EvaluateOptions, evaluate

        return evaluate(EvaluateOptions(prediction, label, output=output, resample=resample))

    return run(work, _show, Mode(as_json, debug, quiet))


def _show(result: "EvaluateResult") -> None:
    document = result.as_json()
    named = [*document["labels"].items(), ("mean", document["mean"])]
    rows = [(name, *(_number(scores.get(key)) for key in COLUMNS)) for name, scores in named]
    headings = ("label", *(f"{key}>" for key in COLUMNS))
    print_table(f"{len(document['cases'])} cases", headings, rows)
    for case in document["cases"]:
        if error := case.get("error"):
            say(f"{case['case']}: error: {error['message']} [{error['code']}]")


def _number(value: Any) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"  # noqa: PLR0124 -- NaN
