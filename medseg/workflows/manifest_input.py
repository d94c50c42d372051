"""A manifest as the input of `segment`: a case a row, an image a channel."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medseg.data.dataset import TrainingCase
from medseg.data.manifest import read_manifest_cases
from medseg.errors import InputError, MedsegError, Problem
from medseg.io.cases import Case, Choice, Rule, find_cases
from medseg.io.files import is_image_file
from medseg.io.locator import parse_locator
from medseg.io.sources import ARCHIVE_SUFFIX, open_sources

MANIFEST_SUFFIXES = (".csv", ".tsv", ".json")


def is_manifest(path: Path) -> bool:
    """Say whether an input is a manifest, by its name.

    Args:
        path: What the user named.

    Returns:
        Whether it is a file of a manifest's suffix.
    """
    return path.suffix.lower() in MANIFEST_SUFFIXES and path.is_file()


def manifest_cases(path: Path, rule: Rule, choice: Choice) -> list[Case]:
    """Make the cases of a manifest; labels and splits do not matter.

    Args:
        path: The manifest.
        rule: Which DICOM volumes fit.
        choice: What the user decided by hand.

    Returns:
        A case a row, in the order of the rows; one that cannot be read carries the error.

    Raises:
        InputError: If it is no manifest, has other channels than the bundle, or an id that is no
            name of a folder (`bad-manifest`).
    """
    names, rows = read_manifest_cases(path)
    order = _channel_order(names, rule, path)
    wrong = [row.case_id for row in rows if not re.fullmatch(r"[^./\\\0][^/\\\0]*", row.case_id)]
    if wrong:
        msg = f"{path.name} must have ids that name a folder, got {wrong[:5]}."
        raise InputError(msg, code="bad-manifest")
    return [_case(row, [row.images[n] for n in order], rule, choice) for row in rows]


def _channel_order(names: Sequence[str], rule: Rule, path: Path) -> list[int]:
    """Return which image column is which channel: by name where the names are the bundle's."""
    here = [name.casefold() for name in names]
    wanted = [channel.name.casefold() for channel in rule.channel_rules]
    if len(here) not in (1, rule.channels):
        msg = f"{path.name} must have {rule.channels} image columns or one, got {len(here)}."
        raise InputError(msg, code="bad-manifest")
    if len(here) == 1 or not set(here) & set(wanted):
        return list(range(len(here)))
    if sorted(here) != sorted(wanted):
        listed = ", ".join(channel.name for channel in rule.channel_rules)
        msg = (
            f"{path.name} must name the channels {listed} or none of them, got {', '.join(names)}."
        )
        raise InputError(msg, code="bad-manifest")
    return [here.index(name) for name in wanted]


def _case(row: TrainingCase, images: Sequence[Path], rule: Rule, choice: Choice) -> Case:
    one = rule if len(images) == 1 else replace(rule, channels=1, channel_rules=())
    parts = [_part(image, one, choice) for image in images]
    case = replace(parts[0], case_id=row.case_id, relative=row.case_id)
    error = next((part.error for part in parts if part.error is not None), None)
    if error is not None:
        return replace(case, error=error)
    if len({part.volume is None for part in parts}) > 1:
        message = "channels are DICOM series and image files; use one kind for all channels"
        return replace(case, error=Problem("mixed-channels", message))
    return replace(
        case,
        volume=parts[0].volume,
        others=tuple(v for part in parts for v in part.volumes)[1:],
        files=tuple(file for part in parts for file in part.files),
        warnings=tuple(warning for part in parts for warning in part.warnings),
    )


def _part(image: Path, rule: Rule, choice: Choice) -> Case:
    """Make a case of one image: a file, or the one volume of a DICOM folder."""
    place = parse_locator(image)
    case = Case(image.name, place.path)
    if not place.path.exists():
        return replace(case, error=Problem("not-found", f"{place.path} does not exist"))
    if place.path.suffix.lower() == ARCHIVE_SUFFIX:
        message = f"{place.path.name} is an archive: unpack it, or name it as the input itself"
        return replace(case, error=Problem("archive-in-manifest", message))
    if place.series:
        choice = replace(choice, series=place.series)
    try:
        with open_sources([place.path]) as sources:
            found = find_cases(sources, [place.path], rule, choice)
    except MedsegError as error:
        return replace(case, error=Problem(error.code, str(error)))
    if len(found) > 1:
        ids = ", ".join(one.case_id for one in found)
        message = f"{place.path} holds several cases, {ids}: name one with ?series=ID behind it"
        return replace(case, error=Problem("ambiguous-volume", message))
    return found[0] if not is_image_file(place.path) else replace(found[0], path=place.path)
