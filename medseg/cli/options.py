"""Options that every command has."""

from typing import Annotated

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no tables.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist.")]
Strict = Annotated[
    bool, typer.Option("--strict", help="Take warnings about the dataset for errors.")
]

Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run the code that the bundle brings or names; see docs/zoo.md."),
]

DEFAULT_OUTPUTS = "nifti,preview,report; of picture files png too"
OUTPUTS_HELP = (
    "What to write beside the mask: preview, report (a page and tables), numbers (the tables"
    " alone), image (as NIfTI on the grid of the mask),"
    " probabilities (of each class, as NIfTI), coco (run lengths as JSON), nifti-per-label (a mask"
    " a label); of volumes nrrd (for 3D Slicer) and mesh (surfaces); of DICOM seg,"
    " seg-labelmap and seg-fractional (DICOM SEG), rtstruct, sc (the preview as Secondary"
    " Capture), sr (measurements as Structured Report) and pdf (a report); of 2D images png"
    " (palette PNG of class indices) and overlay; with commas between."
)


def names(text: str) -> tuple[str, ...]:
    """Split a list that is given with commas between.

    Args:
        text: As typed.

    Returns:
        Its parts without blanks around them; empty ones left out.
    """
    return tuple(name for part in text.split(",") if (name := part.strip()))
