"""Objects as they are shown: each with an outline of its own, and a colour that says what it is."""

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from medseg.objects import ObjectSegmentation
from medseg.volume import Label, Segmentation

TURN = 0.618034
"""Of the hue from one object to the next: the golden ratio keeps any few of them apart."""
SATURATIONS, VALUES = (0.85, 0.55), (1.0, 0.8)
LEAST_LUMINANCE = 0.35
"""Of a colour, from 0 to 1: blue and violet alone are hard to see on the dark of a micrograph."""
LUMINANCE = (0.2126, 0.7152, 0.0722)


def shown_labels(segmentation: Segmentation) -> tuple[npt.NDArray[Any], Sequence[Label]]:
    """Return what is painted over an image: labels, or objects where they are told apart.

    Objects of several classes have the colours of their classes; where there is one class, every
    object has its own.

    Args:
        segmentation: Of an image.

    Returns:
        Numbers in the shape of its array, and a label for each number.
    """
    if not isinstance(segmentation, ObjectSegmentation):
        return segmentation.array, segmentation.labels
    of_class = {label.index: label for label in segmentation.labels}
    apart = len(of_class) == 1
    labels = [
        Label(number, of_class[kind].name, object_color(number) if apart else of_class[kind].color)
        for number, kind in sorted(segmentation.class_of.items())
    ]
    return segmentation.instance_map(), labels


def object_color(number: int) -> tuple[int, int, int]:
    """Return a bright colour for an object, made lighter where its hue is a dark one.

    Args:
        number: From 1 on; neighbouring numbers look least alike.

    Returns:
        Red, green and blue.

    Examples:
        >>> object_color(1) != object_color(2)
        True
    """
    hue = (number * TURN) % 1
    saturation = SATURATIONS[number % 2]
    value = VALUES[(number // 2) % 2]
    color = colorsys.hsv_to_rgb(hue, saturation, value)
    luminance = sum(share * part for share, part in zip(LUMINANCE, color, strict=True))
    white = max(0.0, (LEAST_LUMINANCE - luminance) / (1 - luminance))
    red, green, blue = (round(255 * (part + white * (1 - part))) for part in color)
    return red, green, blue


def object_counts(segmentation: Segmentation) -> dict[int, int]:
    """Return how many objects there are of each label's index; nothing where none are told apart.

    Args:
        segmentation: Of an image.
    """
    if not isinstance(segmentation, ObjectSegmentation):
        return {}
    counts = {label.index: 0 for label in segmentation.labels}
    for kind in segmentation.class_of.values():
        counts[kind] += 1
    return counts
