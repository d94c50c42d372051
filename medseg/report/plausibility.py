"""Is a result plausible? It and its image are held against what the bundle saw in training.

A finding is no error: patients differ from those of any training set. It says where to look first.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medseg.volume import Volume, ras_axes

EXPECTED_SHARE = 0.95
"""Of the training cases, in which a label must be to be missed where it is not."""

FEWEST_CASES = 5
"""Training cases below which nothing is expected."""

VOLUME_FACTOR = 1.25
"""By which a volume may lie outside the range of the training cases: they are a sample."""

GRID_FACTOR = 1.5
"""The same for the spacing and the extent of an image."""

INTENSITY_SHARE = 0.5
"""Of the range of mean intensities in training, by which another may lie outside it."""

SIDES = ("right to left", "front to back", "head to foot")


@dataclass(frozen=True)
class Finding:
    """Something about a result that a person should look at.

    Attributes:
        code: `constant-image`, `label-missing`, `volume-outside-training`, `many-fragments`,
            `spacing-outside-training`, `extent-outside-training` or `intensity-outside-training`.
        message: One sentence.
        label: Name of the label that it is about; empty where it is about the image.
    """

    code: str
    message: str
    label: str = ""

    def as_json(self) -> dict[str, str | None]:
        """Return the finding as it stands in `report.json`."""
        return {"code": self.code, "label": self.label or None, "message": self.message}


def implausible(
    volume: Volume, numbers: Sequence[Mapping[str, Any]], seen: Mapping[str, Any]
) -> tuple[Finding, ...]:
    """Hold a result against what its bundle saw in training.

    * The image: one value everywhere, whatever is known of the training; spacing and extent outside
      those of training by more than half; of CT the mean inside the labels outside the range by
      more than half of it.
    * A label that 95 % of at least 5 training cases had, and that was not found; a volume outside
      the range by more than a quarter; components, two more than any training case had.

    Args:
        volume: The image.
        numbers: What `label_numbers` returned.
        seen: `medseg.training` of the bundle's metadata, see `seen_in_training`; may be empty.

    Returns:
        The findings, those of the image first.

    Examples:
        >>> import numpy as np
        >>> seen = {"cases": 9, "labels": {"liver": {"cases": 9, "volume_ml": [800, 2500]}}}
        >>> row = {"name": "liver", "voxels": 0, "volume_ml": 0.0, "components": 0}
        >>> volume = Volume(np.arange(64.0).reshape(1, 4, 4, 4), np.eye(4))
        >>> [finding.code for finding in implausible(volume, [row], seen)]
        ['label-missing']
    """
    labels = seen.get("labels", {})
    return (
        *_of_values(volume),
        *_of_grid(volume, seen),
        *_of_intensities(numbers, seen),
        *(
            finding
            for row in numbers
            if row["name"] in labels
            for finding in _of_label(row, labels[row["name"]], int(seen.get("cases", 0)))
        ),
    )


def _of_values(volume: Volume) -> Iterator[Finding]:
    if any(channel.min() == channel.max() for channel in volume.array):
        which = "the image" if volume.channels == 1 else "a channel of the image"
        yield Finding("constant-image", f"{which} has the same value everywhere")


def _of_grid(volume: Volume, seen: Mapping[str, Any]) -> Iterator[Finding]:
    if not volume.source.has_spacing:
        return
    order = ras_axes(volume)
    names = SIDES if len(order) == 3 else ("top to bottom", "left to right")
    spacing = [volume.spacing_mm[axis] for axis in order]
    extent = [volume.spacing_mm[axis] * volume.shape[axis] for axis in order]
    for key, values, what in (
        ("spacing_mm", spacing, "voxels measure"),
        ("extent_mm", extent, "the image measures"),
    ):
        known = seen.get(key)
        if not known or len(known["min"]) != len(values):
            continue
        wrong = [
            f"{value:.4g} mm from {side} ({low:.4g} to {high:.4g} in training)"
            for value, low, high, side in zip(
                values, known["min"], known["max"], names, strict=True
            )
            if not low / GRID_FACTOR <= value <= high * GRID_FACTOR
        ]
        if wrong:
            message = f"{what} {', '.join(wrong)}"
            yield Finding(f"{key.removesuffix('_mm')}-outside-training", message)


def _of_intensities(
    numbers: Sequence[Mapping[str, Any]], seen: Mapping[str, Any]
) -> Iterator[Finding]:
    known = seen.get("intensity_mean")
    for channel, low in enumerate(known["min"] if known else ()):
        high = known["max"][channel] if known else low
        key = "intensity" if channel == 0 else f"intensity_{channel + 1}"
        found = [(row["voxels"], row[key]["mean"]) for row in numbers if row.get(key)]
        count = sum(voxels for voxels, _ in found)
        if not count:
            return
        mean = sum(voxels * value for voxels, value in found) / count
        slack = INTENSITY_SHARE * (high - low)
        if not low - slack <= mean <= high + slack:
            message = (
                f"the mean intensity inside the labels is {mean:.4g}, {low:.4g} to {high:.4g} in"
                " training"
            )
            yield Finding("intensity-outside-training", message)


def _of_label(row: Mapping[str, Any], known: Mapping[str, Any], cases: int) -> Iterator[Finding]:
    name = str(row["name"])
    having = int(known.get("cases", 0))
    if not row["voxels"]:
        if cases >= FEWEST_CASES and having >= EXPECTED_SHARE * cases:
            message = f"{name} was not found; {having} of {cases} training cases had it"
            yield Finding("label-missing", message, name)
        return
    low, high = known.get("volume_ml", (0.0, float("inf")))
    volume = row.get("volume_ml")
    if volume is not None and not low / VOLUME_FACTOR <= volume <= high * VOLUME_FACTOR:
        cut = "; it is cut off by the edge of the image" if row.get("touches_border") else ""
        message = f"{name} has {volume:.4g} ml, {low:.4g} to {high:.4g} ml in training{cut}"
        yield Finding("volume-outside-training", message, name)
    most = known.get("components", (0, float("inf")))[1]
    if row["components"] > most + 1:  # a stray voxel is not worth a word
        parts = "1 part" if most == 1 else f"{most} parts"
        message = f"{name} is in {row['components']} parts, at most {parts} in training"
        yield Finding("many-fragments", message, name)
