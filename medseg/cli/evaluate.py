"""`medseg evaluate`: scores of masks against labels."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.cases import say_problems
from medseg.cli.console import Mode, Progress, counted, print_table, run, say
from medseg.cli.options import AsJson, Debug, Quiet

if TYPE_CHECKING:
    from medseg.workflows.evaluate import EvaluateResult
    from medseg.workflows.evaluate_objects import ObjectResult

COLUMNS = ("dice", "iou", "hd95_mm", "nsd", "precision", "recall", "volume_difference_ml")
"""Scores shown on screen; the files and the JSON document hold all."""

CLASS_COLUMNS = ("iou", "dice", "precision", "recall", "boundary_f1")
OBJECT_COLUMNS = ("ap", "ap50", "ap75", "box_ap50", "f1", "precision", "recall", "pq", "aji")
OVERALL = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
"""Scores of a data set as a whole."""


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
            "--output",
            "-o",
            show_default=False,
            help="Folder for metrics.csv, summary.json, and pictures of 2D scores.",
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
        typer.Option(
            "--ignore-index",
            "--ignore",
            metavar="VALUE",
            show_default="what the dataset or bundle leaves out",
            help="Value in LABEL whose voxels are not scored, such as 255.",
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            "--bundle", "-b", show_default=False, help="Bundle that names and colours the values."
        ),
    ] = None,
    semantic: Annotated[
        bool | None,
        typer.Option(
            "--semantic/--no-semantic",
            show_default="where masks are 2D pictures",
            help="Score all images together too: accuracies, IoU by class, boundary F1.",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Folder of the images, to draw predictions on."),
    ] = None,
    objects: Annotated[
        bool | None,
        typer.Option(
            "--objects/--no-objects",
            show_default="where medseg segment found some",
            help="Score objects against a dataset that tells them apart: AP, F1, PQ, AJI.",
        ),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Score masks against the truth: Dice, IoU, HD95, NSD, precision, recall, volume."""
    if objects is None:
        from medseg.workflows.object_outputs import COCO

        objects = pred.is_dir() and next(pred.glob(f"*/{COCO}"), None) is not None
    if objects:
        return _objects(pred, label, bundle, output, Mode(as_json, debug, quiet))

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
            bundle=bundle,
            semantic=semantic,
            images=images,
        )
        return evaluate(options, progress=progress)

    return run(work, _show, Mode(as_json, debug, quiet))


def _objects(pred: Path, label: Path, bundle: str | None, output: Path | None, mode: Mode) -> int:
    def work(progress: Progress) -> "ObjectResult":
        from medseg.workflows.evaluate_objects import evaluate_objects

        return evaluate_objects(pred, label, bundle=bundle, output=output, progress=progress)

    return run(work, _show_objects, mode)


def _show_objects(result: "ObjectResult") -> None:
    document = result.as_json()
    named = [*document["labels"].items(), ("mean", document["mean"])]
    rows = [(name, *(_number(scores.get(key)) for key in OBJECT_COLUMNS)) for name, scores in named]
    counts = document["counts"]
    title = f"{counts['done']} of {counts['cases']} cases scored"
    print_table(title, ("label", *(f"{key}>" for key in OBJECT_COLUMNS)), rows)
    for warning in document["warnings"]:
        case = f"{warning['case']}: " if warning["case"] else ""
        say(f"{case}warning: {warning['message']} [{warning['code']}]")
    say_problems(document["cases"])


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
    if document["semantic"] is not None:
        _show_semantic(document["semantic"])
    for warning in document["warnings"]:
        say(f"warning: {warning['message']} [{warning['code']}]")
    say_problems(document["cases"])


def _show_semantic(semantic: dict[str, Any]) -> None:
    named = [*semantic["labels"].items(), ("mean", semantic["mean"])]
    rows = [(name, *(_number(scores[key]) for key in CLASS_COLUMNS)) for name, scores in named]
    headings = ("class", *(f"{key.replace('_', ' ')}>" for key in CLASS_COLUMNS))
    print_table(f"{counted(semantic['images'], 'image')} together", headings, rows)
    for key in OVERALL:
        print(f"{key.replace('_', ' '):24} {_number(semantic[key])}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
