"""`medseg segment`: images in, masks that line up out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.cases import found_text, show_cases
from medseg.cli.console import Mode, Progress, run
from medseg.cli.options import (
    DEFAULT_OUTPUTS,
    OUTPUTS_HELP,
    AsJson,
    Debug,
    Overwrite,
    Quiet,
    Trust,
    names,
)

if TYPE_CHECKING:
    from medseg.workflows.segment import SegmentResult


def command(
    context: typer.Context,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            show_default=False,
            help="DICOM folder, file or .zip; .nii, .nii.gz, .nrrd, .mha, .png, .jpg, .tif;"
            " a folder of them; a list (.txt) with a path a line; or a manifest (.csv, .json), an"
            " image column a channel.",
        ),
    ],
    bundle: Annotated[
        list[str],
        typer.Option(
            "--bundle",
            "-b",
            show_default=False,
            help="Folder or name of a bundle; given several times, their average.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", show_default=False, help="Folder: one subfolder a case."),
    ],
    outputs: Annotated[
        str | None,
        typer.Option(show_default=DEFAULT_OUTPUTS, help=OUTPUTS_HELP),
    ] = None,
    labels: Annotated[
        str, typer.Option(help="Names of the labels to keep, with commas between; all when empty.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    backend: Annotated[
        str,
        typer.Option(
            help="Library that runs the network: auto (the fastest that agrees with torch in"
            " float32), torch, compile, openvino or onnx; on a GPU also cudagraph and tensorrt."
        ),
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="Of its arithmetic: auto, fp32, bf16; fp16 on a GPU.")
    ] = "auto",
    memory_gb: Annotated[
        float | None,
        typer.Option(show_default="what is free", help="Memory that a case may take; GiB."),
    ] = None,
    skip_empty: Annotated[
        bool,
        typer.Option(
            "--skip-empty/--no-skip-empty",
            help="Run the network once for all windows of the same one value, such as air.",
        ),
    ] = True,
    overlap: Annotated[
        float | None,
        typer.Option(
            show_default="the bundle's", help="Overlap of neighbouring windows, 0 up to 1."
        ),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="Average over mirrored images.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out cases that are complete; checked by hash.")
    ] = False,
    overwrite: Overwrite = False,
    series: Annotated[
        str | None,
        typer.Option(
            show_default="the one that fits",
            help="SeriesInstanceUID, volume id, or 'all'; for several channels ID,ID in order.",
        ),
    ] = None,
    frame: Annotated[
        int | None,
        typer.Option(min=0, show_default=False, help="Frame of a 4D image, counted from 0."),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option("--resample", help="Bring channels on other grids to the first one's."),
    ] = False,
    regrid: Annotated[
        bool,
        typer.Option("--regrid", help="Resample missing or uneven slices to an even grid."),
    ] = False,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Do every N-th case only, the I-th of them.")
    ] = "1/1",
    watch: Annotated[
        bool, typer.Option("--watch", help="Take studies as they arrive in the folders INPUT.")
    ] = False,
    settle: Annotated[
        float | None,
        typer.Option(show_default="30", help="Seconds that a study must stay unchanged; --watch."),
    ] = None,
    poll: Annotated[
        float | None, typer.Option(show_default="5", help="Seconds between two looks; --watch.")
    ] = None,
    watch_idle: Annotated[
        float | None,
        typer.Option(show_default="never", help="End after so many seconds without work; --watch."),
    ] = None,
    deidentify: Annotated[
        bool,
        typer.Option(
            "--deidentify", help="Take out of DICOM outputs whose they are; UIDs become new ones."
        ),
    ] = False,
    mesh_format: Annotated[str, typer.Option(help="Of surfaces: stl, obj or ply.")] = "stl",
    mesh_smoothing: Annotated[
        int, typer.Option(min=0, help="Rounds of smoothing of surfaces, 0 for none.")
    ] = 15,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Segment images with a bundle; one folder a case under the output folder."""

    def work(progress: Progress) -> "SegmentResult":
        from medseg.workflows.segment import SegmentOptions, segment
        from medseg.workflows.shard import parse_shard
        from medseg.workflows.watch import watch_of

        options = SegmentOptions(
            inputs=tuple(inputs),
            bundle=tuple(bundle),
            output=output,
            outputs=None if outputs is None else names(outputs),
            labels=names(labels),
            device=device,
            backend=backend,
            precision=precision,
            memory_gb=memory_gb,
            skip_empty=skip_empty,
            overlap=overlap,
            tta=tta,
            resume=resume,
            overwrite=overwrite,
            series=series,
            frame=frame,
            resample=resample,
            regrid=regrid,
            shard=parse_shard(shard),
            watch=watch_of(wanted=watch, settle_s=settle, poll_s=poll, idle_s=watch_idle),
            deidentify=deidentify,
            mesh_format=mesh_format,
            mesh_smoothing=mesh_smoothing,
            trust=trust,
        )
        return segment(options, progress=progress, own_process=bool(context.obj))

    return run(work, _show, Mode(as_json, debug, quiet))


def _show(result: "SegmentResult") -> None:
    document = result.as_json()
    rows = [(case["case"], case["status"], found_text(case)) for case in document["cases"]]
    show_cases(document, rows)
