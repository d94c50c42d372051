"""Read one image, whatever its format."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import ChoiceError, InputError
from medseg.io.cases import Choice, Rule, find_cases, read_case
from medseg.io.channels import stack_channels
from medseg.io.dicom import read_segmentation
from medseg.io.labelme import read_labelme_image
from medseg.io.locator import Locator, parse_locator
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
        path: NIfTI, NRRD, MHA, PNG, JPEG or TIFF file, or DICOM file, folder or .zip; or a
            `Locator` as text, such as a DICOM SEG with the series whose grid it takes.
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
    place = parse_locator(path)
    if place.grid is not None:
        return _read_label(place)
    if place.kind == "labelme-image":
        return read_labelme_image(place.path, frame=frame, channels=channels)
    path = place.path
    rule = Rule(lambda volume: None, channels=channels)  # noqa: ARG005  # every usable volume fits
    choice = Choice(series or place.series or None, regrid, frame)
    named = [path]
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


def read_channels(
    paths: Sequence[str | Path], *, channels: int, frame: int | None = None
) -> Volume:
    """Read the channels of one image: one file that holds them all, or one file each.

    Args:
        paths: As `read` takes them.
        channels: Channels expected where there is one path.
        frame: Frame of a 4D image, counted from zero.

    Returns:
        The volume: (C, I, J, K) with a RAS affine, or (C, rows, columns).

    Raises:
        InputError: As `read`.
        ChoiceError: As `read`.
        GeometryError: If the channels do not lie on one grid (code `grid-mismatch`).
    """
    count = channels if len(paths) == 1 else 1
    return stack_channels([read(path, frame=frame, channels=count) for path in paths])


def _read_label(place: Locator) -> Volume:
    """Read a DICOM SEG on the grid of its series."""
    assert place.grid is not None
    with open_sources([place.grid]) as sources:
        usable = [volume for volume in sources.volumes if volume.usable]
        if place.series:
            wanted = {place.series}
            usable = [v for v in usable if wanted & {v.volume_id, v.series_instance_uid}]
        if len(usable) != 1:
            names = ", ".join(volume.volume_id for volume in usable) or "none"
            msg = (
                f"the series of {place.path.name} must be one usable volume, got {names} in"
                f" {place.grid}. medseg inspect says why."
            )
            code = "ambiguous-volume" if usable else "no-usable-volume"
            raise ChoiceError(msg, code=code)
        return read_segmentation(place.path, usable[0], dict(place.segments))
