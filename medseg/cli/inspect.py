"""`medseg inspect`: what a path holds, and what is wrong with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.console import Mode, Progress, print_table, run
from medseg.cli.options import AsJson, Debug, Quiet

if TYPE_CHECKING:
    from medseg.workflows.inspect import InspectResult

REJECTED_SHOWN = 20
"""Rejected files listed one by one on screen; the JSON document holds all."""


def command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            show_default=False,
            help="DICOM folder, file or .zip; an image file; or a folder of them.",
        ),
    ],
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """List every series and volume found, and every problem."""

    def work(progress: Progress) -> "InspectResult":
        from medseg.workflows.inspect import InspectOptions, inspect

        return inspect(InspectOptions(path), progress=progress)

    return run(work, _show, Mode(as_json, debug, quiet))


def _show(result: "InspectResult") -> None:
    document = result.as_json()
    volumes = []
    problems = []
    for series in document["series"]:
        problems += [(series["description"], item) for item in series["problems"]]
        for volume in series["volumes"]:
            volumes.append(_row(series, volume))
            problems += [(volume["volume_id"], item) for item in volume["problems"]]
    columns = ("volume", "usable", "kind", "description", "size", "spacing mm", "axes")
    print_table(f"{len(volumes)} volumes", columns, volumes)
    if problems:
        rows = [(where, item["code"], item["message"]) for where, item in problems]
        print_table("Problems", ("where", "code", "what"), rows)
    rejected = document["rejected"]
    if rejected:
        rows = [(item["path"], item["code"], item["message"]) for item in rejected]
        title = f"{len(rejected)} files left out"
        if len(rows) > REJECTED_SHOWN:
            title += f", the first {REJECTED_SHOWN} (--json lists all)"
        print_table(title, ("file", "code", "why"), rows[:REJECTED_SHOWN])


def _row(series: dict[str, object], volume: dict[str, list[float]]) -> tuple[object, ...]:
    size = " x ".join(f"{value:g}" for value in volume["size"])
    if int(str(volume["frames"])) > 1:
        size += f" x {volume['frames']} frames"
    spacing = " x ".join(f"{value:.3g}" for value in volume["spacing_mm"])
    usable = "yes" if volume["usable"] else "NO"
    kind, text = series["modality"], series["description"]
    return (volume["volume_id"], usable, kind, text, size, spacing, volume["orientation"])
