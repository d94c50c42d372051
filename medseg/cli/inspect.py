"""`medseg inspect`: what a path holds, and what is wrong with it."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.console import Mode, Progress, counted, print_table, run
from medseg.cli.options import AsJson, Debug, Quiet

if TYPE_CHECKING:
    from medseg.workflows.inspect import InspectResult

REJECTED_SHOWN = 20
"""Rejected files listed one by one on screen; the JSON document holds all."""

TEXT_SHOWN = 32
"""Characters of a description on screen; the JSON document holds all."""


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
        below = [item for volume in series["volumes"] for item in volume["problems"]]
        own = [item for item in series["problems"] if item not in below]  # once is enough
        problems += [(_text(series), item) for item in own]
        for volume in series["volumes"]:
            volumes.append(_row(series, volume))
            problems += [(volume["volume_id"], item) for item in volume["problems"]]
    columns = ("volume", "usable", "kind", "description", "size", "spacing mm", "axes")
    title = counted(len(volumes), "volume")
    print_table(title, columns, volumes, whole=("kind", "size", "spacing mm"))
    if problems:
        rows = [(where, item["code"], item["message"]) for where, item in problems]
        print_table("Problems", ("where", "code", "what"), rows, whole=("code",))
    rejected = document["rejected"]
    if rejected:
        rows = [(item["path"], item["code"], item["message"]) for item in rejected]
        title = f"{counted(len(rejected), 'path')} left out"
        if len(rows) > REJECTED_SHOWN:
            title += f", the first {REJECTED_SHOWN} (--json lists all)"
        print_table(title, ("path", "code", "why"), rows[:REJECTED_SHOWN], whole=("code",))


def _row(series: dict[str, object], volume: dict[str, list[float]]) -> tuple[object, ...]:
    size = "x".join(f"{value:g}" for value in volume["size"])
    if int(str(volume["frames"])) > 1:
        size += f", {volume['frames']} frames"
    known = any(volume["spacing_mm"])
    spacing = "x".join(f"{value:.3g}" for value in volume["spacing_mm"]) if known else "unknown"
    usable = "yes" if volume["usable"] else "NO"
    kind = series["modality"] if series["series_instance_uid"] is not None else "file"
    where = (volume["volume_id"], usable, kind, _text(series))
    return (*where, size, spacing, volume["orientation"])


def _text(series: dict[str, object]) -> str:
    """Return what fits a column: of a file its folder, for its name is the volume's id."""
    text = str(series["description"])
    if series["series_instance_uid"] is None:
        folder = PurePosixPath(text).parent.as_posix()
        text = "" if folder == "." else folder
        return text if len(text) <= TEXT_SHOWN else f"...{text[-TEXT_SHOWN + 3 :]}"
    return text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 3]}..."
