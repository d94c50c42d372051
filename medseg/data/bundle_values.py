"""The values that a bundle gives its labels, for datasets that name structures and state none."""

import json
from dataclasses import replace
from pathlib import Path

from medseg.errors import InputError
from medseg.io.locator import Table, parse_locator


def with_values_of(dataset: Path, metadata: Path) -> Path:
    """Add the values of a bundle's labels to the path of a dataset.

    Segments of a DICOM SEG have names and no values. Were they dealt anew for each dataset, one
    without the first structure would give its value to the second.

    Args:
        dataset: Folder or manifest; one that has values already stays as it is.
        metadata: `metadata.json` of the bundle that is trained on it.

    Returns:
        The path for `open_dataset`.

    Raises:
        InputError: If the metadata name no labels (`bad-metadata`).
    """
    place = parse_locator(dataset)
    if place.segments or (dataset / "dataset.json").is_file() or not metadata.is_file():
        return dataset
    return replace(place, segments=values_of(metadata)).as_path()


def values_of(metadata: Path) -> Table:
    """Read the values of a bundle's labels.

    Args:
        metadata: Its `metadata.json`.

    Returns:
        Values by the name of a class or region.

    Raises:
        InputError: If the metadata name no labels (`bad-metadata`).
    """
    try:
        own = json.loads(metadata.read_text(encoding="utf-8")).get("medseg", {})
        if own.get("regions"):
            return tuple((str(r["name"]), tuple(map(int, r["values"]))) for r in own["regions"])
        return tuple(
            (str(label["name"]), (int(label.get("value", label["index"])),))
            for label in own.get("labels", ())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"metadata must name labels, got {type(error).__name__}: {error} in {metadata.name}."
        raise InputError(msg, code="bad-metadata") from error
