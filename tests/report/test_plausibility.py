"""Results held against the training of their bundle."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medseg.report.measures import label_numbers
from medseg.report.plausibility import implausible
from medseg.volume import Segmentation, Source, Volume, make_labels
from tests.phantoms import oriented_affine

SEEN = {
    "cases": 40,
    "spacing_mm": {"min": [0.6, 0.6, 2.0], "max": [0.9, 0.9, 5.0]},
    "extent_mm": {"min": [25.0, 30.0, 60.0], "max": [40.0, 40.0, 110.0]},
    "intensity_mean": {"min": [40.0], "max": [80.0]},
    "labels": {
        "liver": {"cases": 40, "volume_ml": [6.0, 9.0], "components": [1, 1]},
        "lesion": {"cases": 22, "volume_ml": [0.01, 1.0], "components": [1, 3]},
    },
}
CODES = ["RAS", "SLP", "AIR"]


def _case(codes: str, **changes: Any) -> tuple[Volume, list[dict[str, Any]]]:
    """Return an image like those of training, 48 x 40 x 20 in RAS, and what is measured in it."""
    array = np.zeros((48, 40, 20), np.uint8)
    array[10:30, 10:30, 5:13] = 1  # 20 x 20 x 8 voxels of 0.7 x 0.8 x 4 mm: 7.1 ml
    array[14:18, 14:18, 6:8] = 2
    array[22:24, 14:18, 6:8] = 2
    array[changes.pop("where", ...)] = changes.pop("value", array)
    image = np.full((1, *array.shape), changes.pop("intensity", 60), np.int16)
    image[0, 0, 0, 0] = -1000
    spacing = changes.pop("spacing", (0.7, 0.8, 4.0))
    order = [next(i for i, p in enumerate(("RL", "AP", "SI")) if code in p) for code in codes]
    affine = oriented_affine(codes, tuple(spacing[axis] for axis in order))
    array, image = array.transpose(order), image.transpose(0, *(axis + 1 for axis in order))
    volume = Volume(image, affine, Source(modality="CT", has_spacing=changes.pop("known", True)))
    labels = make_labels(["liver", "lesion"])
    return volume, label_numbers(volume, Segmentation(array, affine, labels))


@pytest.mark.parametrize("codes", CODES)
def test_a_result_like_those_of_training_has_no_findings(codes: str) -> None:
    assert implausible(*_case(codes), SEEN) == ()


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize(
    ("changes", "code", "label", "text"),
    [
        ({"where": np.s_[:], "value": 0}, "label-missing", "liver", "40 of 40 training cases"),
        ({"where": np.s_[:22], "value": 0}, "volume-outside-training", "liver", "6 to 9 ml"),
        ({"where": np.s_[:40, :, :18], "value": 1}, "volume-outside-training", "liver", "cut off"),
        ({"where": np.s_[40:46:3, 2:4, 17:19], "value": 1}, "many-fragments", "liver", "3 parts"),
        ({"intensity": 140}, "intensity-outside-training", "", "is 140, 40 to 80 in training"),
        ({"spacing": (0.7, 0.8, 9.0)}, "spacing-outside-training", "", "9 mm from head to foot"),
        ({"spacing": (0.3, 0.8, 4.0)}, "extent-outside-training", "", "14.4 mm from right to left"),
    ],
)
def test_each_deviation_is_found(
    codes: str, changes: dict[str, Any], code: str, label: str, text: str
) -> None:
    findings = implausible(*_case(codes, **changes), SEEN)
    [found] = [one for one in findings if one.code == code and one.label == label]
    assert text in found.message
    assert found.as_json() == {"code": code, "label": label or None, "message": found.message}


def test_a_label_that_only_some_had_is_not_missed() -> None:
    volume, rows = _case("RAS", where=np.s_[:], value=0)
    assert [one.label for one in implausible(volume, rows, SEEN)] == ["liver"]
    few = {**SEEN, "cases": 4, "labels": {"liver": {"cases": 4}}}
    assert implausible(volume, rows, few) == ()


def test_one_stray_part_is_let_pass() -> None:
    assert implausible(*_case("RAS", where=np.s_[40:42, 2:4, 17:19], value=1), SEEN) == ()


def test_what_is_not_known_is_not_held_against_it() -> None:
    assert implausible(*_case("RAS", intensity=900), {}) == ()
    without = {key: SEEN[key] for key in ("cases", "labels")}
    assert implausible(*_case("RAS", intensity=900), without) == ()
    volume, rows = _case("RAS", spacing=(9.0, 9.0, 9.0), known=False)
    codes = {one.code for one in implausible(volume, rows, SEEN)}
    assert not codes & {"spacing-outside-training", "extent-outside-training"}


def test_a_picture_is_held_against_pictures() -> None:
    seen = {"cases": 9, "spacing_mm": {"min": [0.2, 0.2], "max": [0.3, 0.3]}}
    image = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    volume = Volume(image, np.diag([0.25, 0.9, 1.0]))
    [found] = implausible(volume, [], seen)
    assert "0.9 mm from left to right" in found.message


def test_an_image_without_content_is_told_of_whatever_is_known() -> None:
    volume, rows = _case("RAS")
    [found] = implausible(replace(volume, array=np.full((1, 4, 4, 4), 7)), rows, {})
    assert found.code == "constant-image"
    two = replace(volume, array=np.stack([np.arange(64).reshape(4, 4, 4), np.ones((4, 4, 4))]))
    [found] = implausible(two, [], {})
    assert "a channel of the image" in found.message
