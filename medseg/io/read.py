"""Read one image, whatever its format."""

from dataclasses import replace
from pathlib import Path

from medseg.errors import ChoiceError, InputError
from medseg.io.cases import Choice, Rule, find_cases, read_case
from medseg.io.sources import open_sources
from medseg.volume import Volume


def read(
    path: str | Path,
    *,
    frame: int | None = None,
    channels: int = 1,
    series: str | None = None,
    regrid: bool = False,
) -> Volume:
    """Read one image: a file of any format, or a folder or .zip with one usable DICOM volume.

    Args:
        path: NIfTI, NRRD, MHA, PNG, JPEG or TIFF file, or DICOM file, folder or .zip.
        frame: Frame of a 4D image, counted from zero.
        channels: Channels expected of a 4D file.
        series: SeriesInstanceUID or volume id where a folder holds several.
        regrid: Resample missing or irregular DICOM slices to an even grid.

    Returns:
        The volume: (C, I, J, K) with a RAS affine, or (C, rows, columns).

    Raises:
        InputError: If there is no image, it cannot be read, or it is 4D and no frame is given.
        ChoiceError: If there is not exactly one usable volume.
    """
    rule = Rule(lambda volume: None, channels=channels)  # noqa: ARG005  # every usable volume fits
    choice = Choice(series, regrid, frame)
    named = [Path(path)]
    with open_sources(named) as sources:
        cases = find_cases(sources, named, rule, choice)
        if len(cases) > 1:
            names = ", ".join(case.case_id for case in cases)
            msg = f"path must hold one image, got {len(cases)} in {path}: {names}. Choose one."
            raise ChoiceError(msg, code="ambiguous-volume")
        error = cases[0].error
        if error is not None:
            kind = ChoiceError if error.code.endswith("-volume") else InputError
            raise kind(f"{error.message} ({path})", code=error.code)
        volume = read_case(cases[0], frame=frame, channels=channels, regrid=regrid)
    problems = (*cases[0].warnings, *volume.source.problems)  # how it was chosen, how it was read
    return replace(volume, source=replace(volume.source, problems=problems))
