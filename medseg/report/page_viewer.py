"""What the scripts of a page read: planes, levels, labels, and first pictures.

The scripts count along the axes of the volume as it is stored; `flips` and `axes` of a plane say
how it lies on the screen, as `planes` does for every other picture.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.objects import ObjectSegmentation
from medseg.report.objects import object_counts
from medseg.report.page_levels import CT_NODES_HU, Levels, choose_windows
from medseg.report.page_pixels import Encoded, deflate, picture
from medseg.report.page_tables import ABSENT, number
from medseg.report.planes import (
    Layout,
    busiest_planes,
    intensity_sample,
    is_ct,
    oblique_angle,
    plane_layouts,
    plane_of,
)
from medseg.report.runs import Ints, find_runs, label_profiles
from medseg.volume import Label, Segmentation, Volume, size_text

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class PageCase:
    """What the parts of a page are made of.

    Attributes:
        volume: The image.
        segmentation: Its labels.
        rows: Statistics of the labels that are listed.
        image: (I, J, K) or (1, rows, columns[, 3]) intensities.
        numbers: (I, J, K) or (1, rows, columns) what is painted.
        painted: A label for each of these numbers.
        context: Of the case.
    """

    volume: Volume
    segmentation: Segmentation
    rows: Sequence[Row]
    image: npt.NDArray[Any]
    numbers: npt.NDArray[Any]
    painted: Sequence[Label]
    context: Mapping[str, Any]

    @property
    def told_apart(self) -> bool:
        """Whether what is painted is objects, or regions that are too many to list."""
        return isinstance(self.segmentation, ObjectSegmentation) or not self.rows


def base64_text(data: bytes) -> str:
    """Return bytes as text.

    Args:
        data: Any bytes.
    """
    return base64.b64encode(data).decode()


def viewer_data(case: PageCase, encoded: Encoded, levels: Levels) -> dict[str, Any]:
    """Return what the scripts read.

    Args:
        case: What is shown.
        encoded: Its image and labels.
        levels: What the levels of its pictures stand for.

    Returns:
        A JSON document.
    """
    volume, steps = case.volume, encoded.stack.steps
    profiles = None if volume.is_2d else _profiles(case, steps)
    start = (0, 0, 0) if profiles is None else busiest_planes(profiles)
    planes, inside = _planes(case, encoded, levels, start)
    windows = choose_windows(volume, None if volume.is_2d else inside)
    palette = _palette(case)
    return {
        "shape": list(case.numbers.shape),
        "steps": list(steps),
        "stored": list(encoded.stack.labels.shape),
        "order": list(encoded.stack.order),
        "channels": case.image.shape[3] if case.image.ndim == 4 else 1,
        "type": "image/jpeg" if encoded.quality else "image/png",
        "labelBytes": encoded.kind.itemsize,
        "affine": None if volume.is_2d else volume.affine[:3].tolist(),
        "unit": intensity_unit(case),
        "values": [float(f"{value:.9g}") for value in levels.values],
        "digits": _digits(levels),
        "exact": levels.exact and not encoded.quality,
        "windows": [{"name": name, "low": low, "high": high} for name, low, high in windows],
        "labels": _label_data(case, profiles),
        "palette": base64_text(palette),
        "planes": planes,
        "start": list(start),
    }


def intensity_unit(case: PageCase) -> str:
    """Return the unit of the intensities: stated by the context, else HU of what looks like CT.

    Args:
        case: What is shown.
    """
    unit = case.context.get("intensity_unit")
    if not unit and not case.volume.is_2d:
        sample = intensity_sample(case.volume)
        unit = "HU" if sample.size and is_ct(case.volume, sample) else ""
    return str(unit or "")


def _digits(levels: Levels) -> int:
    """Return the decimals that a step of the levels needs."""
    step = float(np.diff(levels.values).min())
    return 0 if step >= 1 else min(12, 1 - int(np.floor(np.log10(step))))


def _profiles(case: PageCase, steps: Sequence[int]) -> tuple[Ints, ...]:
    """Count the voxels of each label in each plane that is kept.

    Of regions too many to list, all together.
    """
    array = case.segmentation.array
    largest = max(
        (value for label in case.segmentation.labels for value in label.inside), default=1
    )
    if not case.rows:
        array, largest = (array > 0).astype(np.uint8), 1
    profiles = label_profiles(find_runs(array), largest)
    return tuple(profile[:, ::step] for profile, step in zip(profiles, steps, strict=True))


def _planes(
    case: PageCase, encoded: Encoded, levels: Levels, start: Sequence[int]
) -> tuple[list[dict[str, Any]], npt.NDArray[Any]]:
    """Describe the planes, with their first pictures, and return intensities inside the labels."""
    volume, stack = case.volume, encoded.stack
    if volume.is_2d:
        stated = volume.source.has_spacing
        layout = Layout("", 0, (1, 2), (False, False), ("", "", "", ""))
        pixel = volume.spacing_mm if stated else (1.0, 1.0)
        return [_plane(layout, (1.0, *pixel), stack.steps, 0, "mm" if stated else "px")], np.empty(
            0
        )
    planes, inside = [], []
    for layout in plane_layouts(volume.affine, volume.shape):
        index = start[layout.axis]
        image, labels = (plane_of(a, layout, index) for a in (stack.image, stack.labels))
        inside.append(image[labels > 0].ravel())
        first = {
            "picture": base64_text(picture(levels.encode(image), encoded.quality)),
            "labels": base64_text(deflate(labels[None], encoded.kind)),
        }
        planes.append(_plane(layout, volume.spacing_mm, stack.steps, index, "mm") | first)
    return planes, np.concatenate(inside)


def _plane(
    layout: Layout, spacing_mm: Sequence[float], steps: Sequence[int], start: int, unit: str
) -> dict[str, Any]:
    return {
        "name": layout.name,
        "axis": layout.axis,
        "axes": layout.axes,
        "flips": layout.flips,
        "edges": layout.edges,
        "pixel": [spacing_mm[axis] * steps[axis] for axis in layout.axes],
        "unit": unit,
        "start": start,
    }


def _palette(case: PageCase) -> bytes:
    """Return red, green and blue of every value that can be painted, from 0 on."""
    largest = max([int(case.numbers.max(initial=0)), *(label.index for label in case.painted)])
    colors = np.full((largest + 1, 3), 255, np.uint8)
    colors[0] = 0
    for label in case.painted:
        colors[label.index] = label.color
    return colors.tobytes()


def _label_data(case: PageCase, profiles: tuple[Ints, ...] | None) -> list[dict[str, Any]]:
    """List the labels that can be switched on and off."""
    if not case.rows:
        found = bool(case.numbers.any())
        count = case.context.get("regions", {}).get("count")
        every = {"index": 0, "name": "region", "values": [], "all": True, "own": True}
        amount = f"{count:,}" if count is not None else ""
        return [every | {"color": [255] * 3, "amount": amount, "found": found, "at": None}]
    counts = object_counts(case.segmentation)
    classes = getattr(case.segmentation, "class_of", {})
    by_index = {label.index: label for label in case.segmentation.labels}
    listed = []
    for row in case.rows:
        label = by_index[row["index"]]
        numbers = [n for n, kind in classes.items() if kind == label.index]
        values = numbers if case.told_apart else list(label.inside)
        listed.append(
            {
                "index": label.index,
                "name": label.name,
                "color": list(label.color),
                "values": values,
                "own": case.told_apart,
                "amount": _amount(row, counts.get(label.index)),
                "found": bool(row["voxels"]),
                "at": _largest(label, profiles) if row["voxels"] else None,
            }
        )
    return listed


def _amount(row: Row, objects: int | None) -> str:
    if not row["voxels"]:
        return ABSENT
    if objects is not None:
        return f"{objects:,}"
    if row["volume_ml"] is None:
        return f"{row['voxels']:,} px"
    return f"{number(row['volume_ml'])} ml"


def _largest(label: Label, profiles: tuple[Ints, ...] | None) -> list[int] | None:
    """Return, along each axis, the kept slice that holds most of a label."""
    if profiles is None:
        return None
    inside = list(label.inside)
    return [int(profile[inside].sum(axis=0).argmax()) for profile in profiles]


def stored_text(case: PageCase, encoded: Encoded, levels: Levels) -> str:
    """Say what of the image the page holds.

    Args:
        case: What is shown.
        encoded: Its image and labels.
        levels: What the levels of its pictures stand for.

    Returns:
        Sentences.
    """
    unit = f" {intensity_unit(case)}".rstrip()
    low, high = (f"{value:.4g}" for value in levels.values[[0, -1]])
    said = []
    if any(step > 1 for step in encoded.stack.steps):
        axes, points = (slice(1, 3), "pixels") if case.volume.is_2d else (slice(0, 3), "voxels")
        kept, whole, steps = (
            size_text(sizes[axes])
            for sizes in (encoded.stack.labels.shape, case.numbers.shape, encoded.stack.steps)
        )
        said.append(
            f"Reduced resolution: {kept} of {whole} {points} are shown, one of every {steps}."
            f" What was measured is of all {points}."
        )
    if levels.exact and not encoded.quality:
        said.append("Every intensity of the image has its own level of grey.")
    elif levels.exact:
        said.append(f"Intensities are kept in 256 levels, one apart, from {low}{unit}.")
    elif tuple(levels.values[[0, -1]]) == (CT_NODES_HU[0], CT_NODES_HU[-1]):
        said.append(
            "Intensities are kept in 256 levels: 2 HU apart from -20 to 100 HU, 4 HU from -200 to"
            f" 300 HU, 15 HU below, 39 HU above; what lies beyond {low} and {high} HU is shown as"
            " these."
        )
    else:
        said.append(f"Intensities are kept in 256 even levels from {low} to {high}{unit}.")
    if encoded.quality:
        said.append(
            f"The image is compressed (JPEG, quality {encoded.quality}): what is shown differs by"
            f" {encoded.error:.2g}{unit} on average. Labels are exact for every voxel shown."
        )
    if case.volume.channels > 1 and case.image.ndim == 3:
        said.append(f"Channel 1 of {case.volume.channels} is shown.")
    angle = 0.0 if case.volume.is_2d else oblique_angle(case.volume.affine)
    if angle >= 1:
        said.append(f"The grid is turned {angle:.0f} degrees from the patient's axes.")
    return " ".join(said)
