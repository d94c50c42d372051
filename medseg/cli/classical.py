"""`medseg classical`: superpixels, region growing and watershed, without a network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.cases import amount_text, show_cases
from medseg.cli.console import Mode, Progress, counted, run
from medseg.cli.options import (
    DEFAULT_OUTPUTS,
    OUTPUTS_HELP,
    AsJson,
    Debug,
    Overwrite,
    Quiet,
    names,
)
from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.classical import Method, Seeds
    from medseg.workflows.classical import ClassicalResult

app = typer.Typer(help="Superpixels, region growing and watershed: masks without a network.")

Inputs = Annotated[
    list[Path],
    typer.Argument(
        metavar="INPUT",
        show_default=False,
        help="DICOM folder, file or .zip; .nii, .nii.gz, .nrrd, .mha, .png, .jpg, .tif; or a"
        " folder of them.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", show_default=False, help="Folder: one subfolder a case.")
]
Outputs = Annotated[str | None, typer.Option(show_default=DEFAULT_OUTPUTS, help=OUTPUTS_HELP)]
Resume = Annotated[bool, typer.Option("--resume", help="Leave out cases already done.")]
SeriesChoice = Annotated[
    str | None,
    typer.Option(
        show_default="the one that is usable", help="SeriesInstanceUID, volume id, or 'all'."
    ),
]
Frame = Annotated[
    int | None,
    typer.Option(min=0, show_default=False, help="Frame of a 4D image, counted from 0."),
]
Regrid = Annotated[
    bool, typer.Option("--regrid", help="Resample missing or uneven slices to an even grid.")
]
SeedVoxel = Annotated[
    list[str] | None,
    typer.Option(
        metavar="I,J,K",
        show_default=False,
        help="Voxel to start from, counted from 0; ROW,COLUMN in a picture. May be repeated.",
    ),
]
SeedMm = Annotated[
    list[str] | None,
    typer.Option(
        metavar="X,Y,Z",
        show_default=False,
        help="Point to start from in RAS, as 3D Slicer shows it; mm. May be repeated.",
    ),
]
Lower = Annotated[
    float | None,
    typer.Option(show_default="no limit", help="Smallest intensity (HU for CT), itself included."),
]
Upper = Annotated[
    float | None,
    typer.Option(show_default="no limit", help="Largest intensity (HU for CT), itself included."),
]
Channel = Annotated[
    int | None,
    typer.Option(min=0, show_default=False, help="Channel of a colour picture; 0 is red."),
]
LabelName = Annotated[str, typer.Option("--label", help="Name of the region in the label files.")]


@dataclass(frozen=True)
class _Common:
    """The options that all three commands have."""

    inputs: list[Path]
    output: Path
    outputs: str | None
    resume: bool
    overwrite: bool
    series: str | None
    frame: int | None
    regrid: bool
    mode: Mode

    def run(self, make: Callable[[], "Method"], markers: Path | None = None) -> int:
        """Make the method, run it on the inputs, show what came of it."""

        def work(progress: Progress) -> "ClassicalResult":
            from medseg.workflows.classical import ClassicalOptions, classical

            options = ClassicalOptions(
                inputs=tuple(self.inputs),
                output=self.output,
                method=make(),
                markers=markers,
                outputs=None if self.outputs is None else names(self.outputs),
                resume=self.resume,
                overwrite=self.overwrite,
                series=self.series,
                frame=self.frame,
                regrid=self.regrid,
            )
            return classical(options, progress=progress)

        return run(work, _show, self.mode)


@app.command("superpixels")
def superpixels_command(
    inputs: Inputs,
    output: Output,
    method: Annotated[
        str,
        typer.Option(
            help="slic: k-means in intensity and space. mean-shift: climbs to the densest place"
            " near in both. quickshift: its fast relative; 2D alone."
        ),
    ] = "slic",
    count: Annotated[
        int | None, typer.Option(show_default="500", help="slic: about how many.")
    ] = None,
    size_mm: Annotated[
        float | None,
        typer.Option(show_default=False, help="slic: edge of a superpixel instead; mm."),
    ] = None,
    compactness: Annotated[
        float | None,
        typer.Option(show_default="10", help="slic: weight of distance against intensity."),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(show_default="10", help="slic, mean-shift: most steps.")
    ] = None,
    connected: Annotated[
        bool | None,
        typer.Option(
            "--connected/--no-connected",
            show_default="connected",
            help="slic: join scattered parts to their neighbours.",
        ),
    ] = None,
    radius_mm: Annotated[
        float | None,
        typer.Option(show_default="4 voxels", help="mean-shift: reach in space; mm."),
    ] = None,
    intensity: Annotated[
        float | None,
        typer.Option(show_default="5", help="mean-shift: reach in intensity, of 0 to 100."),
    ] = None,
    min_voxels: Annotated[
        int | None,
        typer.Option(show_default="20", help="mean-shift: size of the smallest region; voxels."),
    ] = None,
    kernel_pixels: Annotated[
        float | None,
        typer.Option(show_default="5", help="quickshift: width of the density's kernel; pixels."),
    ] = None,
    distance: Annotated[
        float | None,
        typer.Option(show_default="10", help="quickshift: longest move in colour and place."),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(show_default="1", help="quickshift: weight of colour against place, 0 to 1."),
    ] = None,
    window: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="LOW HIGH",
            show_default="1st and 99th percentile",
            help="Intensities that count as black and white (HU for CT); clipped there.",
        ),
    ] = None,
    outputs: Outputs = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    series: SeriesChoice = None,
    frame: Frame = None,
    regrid: Regrid = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Divide images into small regions of like intensity that cover them."""

    def make() -> "Method":
        from medseg.classical import MeanShift, Quickshift, Slic

        return _chosen(
            method,
            {
                "slic": (Slic, ("count", "size_mm", "compactness", "iterations", "connected")),
                "mean-shift": (
                    MeanShift,
                    ("radius_mm", "intensity", "iterations", "min_voxels"),
                ),
                "quickshift": (Quickshift, ("kernel_pixels", "distance", "ratio")),
            },
            {
                "count": count,
                "size_mm": size_mm,
                "compactness": compactness,
                "iterations": iterations,
                "connected": connected,
                "radius_mm": radius_mm,
                "intensity": intensity,
                "min_voxels": min_voxels,
                "kernel_pixels": kernel_pixels,
                "distance": distance,
                "ratio": ratio,
            },
            window=window,
        )

    mode = Mode(as_json, debug, quiet)
    common = _Common(inputs, output, outputs, resume, overwrite, series, frame, regrid, mode)
    return common.run(make)


@app.command("grow")
def grow_command(
    inputs: Inputs,
    output: Output,
    seed_voxel: SeedVoxel = None,
    seed_mm: SeedMm = None,
    method: Annotated[
        str,
        typer.Option(
            help="threshold: intensities from --lower to --upper. confidence: those near the"
            " region's own mean."
        ),
    ] = "threshold",
    lower: Lower = None,
    upper: Upper = None,
    corners: Annotated[
        bool | None,
        typer.Option(
            "--corners/--faces",
            show_default="faces",
            help="threshold: voxels that share a corner hang together, or only a face.",
        ),
    ] = None,
    multiplier: Annotated[
        float | None,
        typer.Option(show_default="2.5", help="confidence: width in standard deviations."),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(show_default="4", help="confidence: how often the mean is taken anew."),
    ] = None,
    radius_voxels: Annotated[
        int | None,
        typer.Option(show_default="1", help="confidence: reach of a seed's surroundings; voxels."),
    ] = None,
    channel: Channel = None,
    label: LabelName = "region",
    outputs: Outputs = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    series: SeriesChoice = None,
    frame: Frame = None,
    regrid: Regrid = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Grow one region from seeds, through what hangs together and is of like intensity."""

    def make() -> "Method":
        from medseg.classical import ConfidenceConnected, ConnectedThreshold

        return _chosen(
            method,
            {
                "threshold": (ConnectedThreshold, ("lower", "upper", "corners")),
                "confidence": (
                    ConfidenceConnected,
                    ("multiplier", "iterations", "radius_voxels"),
                ),
            },
            {
                "lower": lower,
                "upper": upper,
                "corners": corners,
                "multiplier": multiplier,
                "iterations": iterations,
                "radius_voxels": radius_voxels,
            },
            seeds=_seeds(seed_voxel, seed_mm),
            channel=channel,
            label=label,
        )

    mode = Mode(as_json, debug, quiet)
    common = _Common(inputs, output, outputs, resume, overwrite, series, frame, regrid, mode)
    return common.run(make)


@app.command("watershed")
def watershed_command(
    inputs: Inputs,
    output: Output,
    seed_voxel: SeedVoxel = None,
    seed_mm: SeedMm = None,
    markers: Annotated[
        Path | None,
        typer.Option(show_default=False, help="Mask on the image's grid: a region a label."),
    ] = None,
    relief: Annotated[
        str,
        typer.Option(
            help="gradient: edges are ridges. bright, dark: such objects are basins. distance:"
            " parts touching round objects, given --lower or --upper."
        ),
    ] = "gradient",
    smooth_mm: Annotated[
        float, typer.Option(help="Width of a Gaussian that smooths the image first; mm.")
    ] = 0.0,
    depth: Annotated[
        float | None,
        typer.Option(
            show_default="1/20 of the relief's range; at least a voxel for distance",
            help="Basins less deep join their neighbour: intensity a mm for gradient, intensity"
            " for bright and dark, mm for distance.",
        ),
    ] = None,
    lower: Lower = None,
    upper: Upper = None,
    channel: Channel = None,
    label: LabelName = "region",
    outputs: Outputs = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    series: SeriesChoice = None,
    frame: Frame = None,
    regrid: Regrid = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Divide images along ridges: a region a seed, a marker, or a basin."""

    def make() -> "Method":
        from medseg.classical import Watershed
        from medseg.workflows.classical import read_markers

        seeds = _seeds(seed_voxel, seed_mm)
        if len(seeds) and markers is not None:
            msg = "markers must not be given with seeds. Choose --markers, or --seed-voxel/-mm."
            raise UsageError(msg)
        start = seeds if len(seeds) else None
        return Watershed(
            start if markers is None else read_markers(markers),
            relief=relief,
            smooth_mm=smooth_mm,
            depth=depth,
            lower=lower,
            upper=upper,
            channel=channel,
            label=label,
        )

    mode = Mode(as_json, debug, quiet)
    common = _Common(inputs, output, outputs, resume, overwrite, series, frame, regrid, mode)
    return common.run(make, markers)


def _chosen(
    name: str,
    table: dict[str, tuple[Callable[..., "Method"], tuple[str, ...]]],
    given: dict[str, Any],
    **always: Any,
) -> "Method":
    """Make the method of a name; an option that another method has is refused."""
    if name not in table:
        msg = f"method must be among {', '.join(table)}, got {name!r}."
        raise UsageError(msg)
    make, own = table[name]
    settings = {option: value for option, value in given.items() if value is not None}
    foreign = [f"--{option.replace('_', '-')}" for option in settings if option not in own]
    if foreign:
        msg = f"options must be ones of method {name}, got {', '.join(foreign)}. Leave them out."
        raise UsageError(msg)
    return make(**settings, **always)


def _seeds(voxel: list[str] | None, mm: list[str] | None) -> "Seeds":
    from medseg.classical import Seeds

    return Seeds(
        tuple(_numbers("seed-voxel", text) for text in voxel or ()),
        tuple(_numbers("seed-mm", text) for text in mm or ()),
    )


def _numbers(name: str, text: str) -> tuple[Any, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        msg = f"{name} must be numbers with commas between, such as 10,20,5, got {text!r}."
        raise UsageError(msg) from None


def _show(result: "ClassicalResult") -> None:
    document = result.as_json()
    rows = [(case["case"], case["status"], _found(case)) for case in document["cases"]]
    show_cases(document, rows)


def _found(case: dict[str, Any]) -> str:
    if (regions := case.get("regions")) is not None:
        middle = regions["voxels"]["median"]
        size = "" if middle is None else f", median {middle:g} voxels"
        return f"{counted(regions['count'], 'region')}{size}"
    return ", ".join(amount_text(label) for label in case["labels"])
