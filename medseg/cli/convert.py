"""`medseg convert`: DICOM series to NIfTI."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.console import Mode, Progress, print_table, run, say
from medseg.cli.options import AsJson, Debug, Overwrite, Quiet

if TYPE_CHECKING:
    from medseg.workflows.convert import ConvertResult


def command(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", show_default=False, help="DICOM folder, file or .zip, or an image file."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            help="A file (.nii.gz, .nii) for one volume, or a folder for every usable one.",
        ),
    ],
    series: Annotated[
        str | None,
        typer.Option(show_default="every usable one", help="SeriesInstanceUID or volume id."),
    ] = None,
    regrid: Annotated[
        bool,
        typer.Option("--regrid", help="Resample missing or uneven slices to an even grid."),
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Convert one volume to a NIfTI file, or every usable one into a folder."""

    def work(progress: Progress) -> "ConvertResult":
        from medseg.workflows.convert import ConvertOptions, convert

        options = ConvertOptions(path, output, series=series, regrid=regrid, overwrite=overwrite)
        return convert(options, progress=progress)

    return run(work, _show, Mode(as_json, debug, quiet))


def _show(result: "ConvertResult") -> None:
    volumes = result.as_json()["volumes"]
    rows = [(item["volume_id"], item["status"], item["output"]) for item in volumes]
    print_table("Volumes", ("volume", "status", "file"), rows)
    for item in volumes:
        error = item["error"]
        for problem in item["problems"]:
            if error is None or problem["code"] != error["code"]:
                text = f"{problem['message']} [{problem['code']}]"
                say(f"{item['volume_id']}: {problem['severity']}: {text}")
        if error is not None:
            say(f"{item['volume_id']}: error: {error['message']} [{error['code']}]")
