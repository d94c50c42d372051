"""`medseg bundle export`: a bundle's network for other runtimes, its configs as single files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.console import WRONG_USAGE as WRONG
from medseg.cli.console import Mode, Progress, fail, plain, print_table, run
from medseg.cli.options import AsJson, Debug, Overwrite, Quiet, Trust
from medseg.errors import MedsegError, UsageError

if TYPE_CHECKING:
    from medseg.workflows.export import ExportResult


def command(
    name: Annotated[
        str, typer.Argument(metavar="BUNDLE", show_default=False, help="Folder or name.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            show_default=False,
            help="Folder, filled like a bundle (models/, configs/); or one file: .ts, .onnx, .xml"
            " (OpenVINO) or .json (configs).",
        ),
    ],
    formats: Annotated[
        str,
        typer.Option(
            "--to",
            "--format",
            "--formats",
            show_default="all, or none with --single-file",
            help="torchscript, onnx, openvino; several with commas.",
        ),
    ] = "",
    single_file: Annotated[
        bool,
        typer.Option("--single-file", help="The configs of each workflow as one JSON file."),
    ] = False,
    shape: Annotated[
        str, typer.Option(show_default="the bundle's patch", help="Voxels of the input: I,J,K.")
    ] = "",
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Take other spatial shapes; the batch is always free.")
    ] = False,
    opset: Annotated[
        int | None, typer.Option(show_default="the exporter's", help="Of ONNX.")
    ] = None,
    overwrite: Overwrite = False,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Export TorchScript, ONNX and OpenVINO, each compared with torch; configs as single files."""
    mode = Mode(as_json, debug, quiet)
    try:
        voxels = shape_of(shape)
    except MedsegError as error:
        return fail(error.code, str(error), mode, WRONG)

    def work(progress: Progress) -> "ExportResult":
        from medseg.workflows.export import ExportOptions, export

        options = ExportOptions(
            bundle=name,
            output=output,
            formats=tuple(part.strip() for part in formats.split(",") if part.strip()),
            single_file=single_file,
            shape=voxels,
            dynamic=dynamic,
            opset=opset,
            overwrite=overwrite,
            trust=trust,
        )
        return export(options, progress=progress)

    return run(work, _show, mode)


def shape_of(text: str) -> tuple[int, ...]:
    """Read `--shape`.

    Args:
        text: Numbers with commas, or nothing.

    Returns:
        Voxels along each axis; none for nothing.

    Raises:
        UsageError: If it is something else.

    Examples:
        >>> shape_of("96,96,64")
        (96, 96, 64)
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) in {1, 4}:
        msg = f"shape must be two or three positive numbers such as 96,96,96, got {text!r}."
        raise UsageError(msg)
    return tuple(int(part) for part in parts)


def _show(result: "ExportResult") -> None:
    rows = []
    for network in result.networks:
        parity = network.parity
        apart = f"{parity.max_abs_difference:.2g}" if parity else ""
        labels = f"{100 * parity.label_agreement:.3f} %" if parity else ""
        status = "failed" if network.error else "done"
        rows.append((network.format, status, apart, labels, str(network.file)))
    columns = ("format", "status", "apart from torch>", "equal labels>", "file")
    if rows:
        print_table(f"Export of {result.bundle.name}", columns, rows)
    for network in result.networks:
        if network.error:
            print(plain(f"error: {network.error.message} [{network.error.code}]"))
    for warning in result.warnings:
        print(plain(f"warning: {warning.message} [{warning.code}]"))
    written = dict(result.configs)
    if result.pipeline is not None:
        written["pipeline"] = result.pipeline.file
        if result.pipeline.runner is not None:
            written["runner"] = result.pipeline.runner
    for what, file in written.items():
        print(plain(f"{what:<15}  {file}"))
