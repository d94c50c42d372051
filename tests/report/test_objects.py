"""Objects as they are shown: outlines of their own, colours that say what they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.report import preview
from medseg.report.objects import object_color, object_counts, shown_labels
from medseg.report.overlay import write_overlay
from medseg.report.preview import write_preview
from medseg.volume import Source, Volume, make_labels

SOURCE = Source(format="raster", has_spacing=False)


def touching(classes: list[int], names: tuple[str, ...]) -> tuple[Volume, ObjectSegmentation]:
    """Two squares side by side in a black picture."""
    masks = np.zeros((2, 40, 60), bool)
    masks[0, 10:30, 10:30], masks[1, 10:30, 30:50] = True, True
    objects = ObjectInstances.of(masks, classes, size=(40, 60))
    found = ObjectSegmentation(
        objects.painted(objects.classes).astype(np.uint8), np.eye(3), make_labels(names), SOURCE,
        slices=(objects,), numbers=(np.array([1, 2], np.int32),),
    )  # fmt: skip
    return Volume(np.zeros((3, 40, 60), np.uint8), np.eye(3), SOURCE), found


def test_objects_that_touch_have_outlines_and_colours_of_their_own(tmp_path: Path) -> None:
    image, found = touching([1, 1], ("cell",))
    write_overlay(image, found, tmp_path / "overlay.png")
    shown = np.asarray(Image.open(tmp_path / "overlay.png").convert("RGB")).astype(int)
    inside, border, other = shown[20, 20], shown[20, 29], shown[20, 40]
    assert border.max() > 2 * inside.max(), "a line between the two, though both are cells"
    assert np.abs(inside / inside.max() - other / other.max()).max() > 0.2
    np.testing.assert_allclose(border, 0.95 * np.array(object_color(1)), atol=1)


def test_objects_of_several_classes_have_the_colours_of_their_classes() -> None:
    _, found = touching([1, 2], ("cell", "debris"))
    numbers, labels = shown_labels(found)
    assert np.unique(numbers).tolist() == [0, 1, 2]
    assert [label.color for label in labels] == [label.color for label in found.labels]
    assert object_counts(found) == {1: 1, 2: 1}


def test_a_preview_of_a_volume_shows_objects_too(tmp_path: Path) -> None:
    _, flat = touching([1, 1], ("cell",))
    array = np.stack([flat.array.T] * 3, axis=-1)
    volume = Volume(np.zeros((1, *array.shape), np.float32), np.eye(4), Source(format="nifti"))
    found = ObjectSegmentation(
        array, np.eye(4), flat.labels, volume.source, slices=flat.slices * 3,
        numbers=flat.numbers * 3,
    )  # fmt: skip
    write_preview(volume, found, tmp_path / "preview.png")
    colours = np.asarray(Image.open(tmp_path / "preview.png").convert("RGB")).reshape(-1, 3)
    for number in (1, 2):
        wanted = np.rint(0.95 * np.array(object_color(number)))
        assert (np.abs(colours - wanted).max(axis=1) <= 1).any()


def test_no_object_is_too_dark_for_a_black_background() -> None:
    weights = np.array([0.2126, 0.7152, 0.0722])
    assert min(np.array(object_color(number)) @ weights for number in range(1, 500)) >= 0.34 * 255


@pytest.mark.parametrize(
    ("names", "colours"), [(("cell",), [None]), (("cell", "debris"), [(1, 2, 3), (4, 5, 6)])]
)
def test_a_legend_has_the_colour_of_a_class_where_its_objects_have_it(
    names: tuple[str, ...], colours: list[tuple[int, int, int] | None]
) -> None:
    _, found = touching([1, len(names)], names)
    own = [(1, 2, 3), (4, 5, 6)][: len(names)]
    labels = tuple(replace(a, color=b) for a, b in zip(found.labels, own, strict=True))
    entries = preview._legend_entries(preview._rows(replace(found, labels=labels), None))
    assert [colour for colour, _ in entries] == colours
    assert [text.split("  ")[0] for _, text in entries] == list(names)
