from typing import Any

import numpy as np
import pytest
from pycocotools import mask as run_lengths

from medseg.errors import UsageError
from medseg.objects import ObjectInstances
from medseg.run_lengths import coded_part


def random_masks(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Ragged overlapping blobs; one of them is empty, one is the whole image."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        row, column = rng.integers(0, size[0] - 3), rng.integers(0, size[1] - 3)
        part = mask[row : row + rng.integers(3, 12), column : column + rng.integers(3, 12)]
        part[:] = rng.random(part.shape) < 0.8
    masks[1] = False
    masks[2] = True
    return masks


def test_masks_come_back_as_they_went_in() -> None:
    masks = random_masks(9, (31, 47))
    objects = ObjectInstances.of(masks, np.arange(1, 10), size=(31, 47))
    assert len(objects) == 9
    assert np.array_equal([objects.mask(number) for number in range(9)], masks)
    assert objects.areas.tolist() == masks.sum(axis=(1, 2)).tolist()


def test_boxes_end_after_the_last_pixel() -> None:
    masks = random_masks(9, (31, 47))
    boxes = ObjectInstances.of(masks, [1] * 9, size=(31, 47)).boxes
    for mask, box in zip(masks, boxes, strict=True):
        rows, columns = np.nonzero(mask)
        if rows.size:
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == expected


@pytest.mark.parametrize("count", [255, 256, 700])
def test_areas_of_hundreds_of_objects(count: int) -> None:
    labels = np.minimum(np.arange(40 * 60).reshape(40, 60) // 3, count - 1) + 1
    objects = ObjectInstances.of_label_map(labels)
    assert objects.areas.tolist() == np.bincount(labels.ravel())[1:].tolist()
    assert np.array_equal(objects.label_map(), labels)


def test_iou_is_that_of_the_pixels() -> None:
    ours, theirs = random_masks(6, (40, 40)), random_masks(5, (40, 40), seed=1)
    crowd = np.array([False, False, True, False, True])
    a = ObjectInstances.of(ours, [1] * 6, size=(40, 40))
    b = ObjectInstances.of(theirs, [1] * 5, size=(40, 40), crowd=crowd)
    both = (ours[:, None] & theirs[None]).sum(axis=(2, 3))
    either = (ours[:, None] | theirs[None]).sum(axis=(2, 3))
    own = np.broadcast_to(ours.sum(axis=(1, 2))[:, None], both.shape)
    against = np.where(crowd[None], own, either)
    expected = np.where(against > 0, both / np.maximum(against, 1), 0)
    assert np.allclose(a.iou(b), expected)
    with pytest.raises(UsageError, match="must be the same"):
        a.iou(ObjectInstances((40, 41)))
    assert a.iou(ObjectInstances((40, 40))).shape == (6, 0)


def test_a_label_map_is_read_and_made_again() -> None:
    rng = np.random.default_rng(3)
    labels = np.kron(rng.integers(0, 5, (6, 8)) * 70000, np.ones((3, 2), np.int64)).astype(np.int32)
    objects = ObjectInstances.of_label_map(labels)
    numbers = np.unique(labels)[1:]
    assert objects.areas.tolist() == [int((labels == number).sum()) for number in numbers]
    expected = np.searchsorted(np.r_[0, numbers], labels)
    assert np.array_equal(objects.label_map(), expected)


def test_an_object_has_the_class_of_most_of_its_pixels() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 3]])
    classes = np.array([[4, 4, 5, 0, 6, 0]])
    objects = ObjectInstances.of_label_map(labels, classes)
    assert objects.classes.tolist() == [4, 6]
    assert objects.areas.tolist() == [3, 2]


def test_of_overlapping_objects_the_surer_is_seen_and_no_small_one_is_hidden() -> None:
    big = np.ones((3, 5), bool)
    small, other = np.zeros((2, 3, 5), bool)
    small[1, 1] = other[2, 2:] = True
    objects = ObjectInstances.of([small, big, other], [1] * 3, size=(3, 5), scores=[0.5, 0.5, 0.9])
    expected = np.full((3, 5), 2)
    expected[1, 1], expected[2, 2:] = 1, 3
    assert np.array_equal(objects.label_map(), expected)


def test_a_label_map_of_ragged_objects_is_their_masks_on_one_another() -> None:
    rng = np.random.default_rng(8)
    size = (333, 300)
    masks = random_masks(12, size, seed=8)
    masks[5] = rng.random(size) < 0.001  # runs of thousands of pixels, of one at both ends
    masks[5, 0, 0] = masks[5, -1, -1] = True
    masks[6, 40:, 200:] = True
    scores = rng.permutation(12) / 12
    scores[2] = 0.55  # of the whole image: some lie within it
    areas = masks.sum(axis=(1, 2))
    within = (masks[:, None] & masks[None]).sum(axis=(2, 3)) / np.maximum(areas, 1)[:, None]
    above = (scores[None] > scores[:, None]) & (areas[None] > areas[:, None]) & (within > 0.7)
    expected = np.zeros(size, int)
    nested = sorted(np.flatnonzero(above.any(axis=1)), key=lambda place: -areas[place])
    assert len(nested) > 2
    for place in [n for n in np.argsort(scores) if n not in nested] + nested:
        expected[masks[place]] = place + 1
    objects = ObjectInstances.of(masks, [1] * 12, size=size, scores=scores)
    labels = objects.label_map(nested_on_top=True)
    assert np.array_equal(labels, expected)
    for place in np.argsort(scores):
        expected[masks[place]] = place + 1
    assert np.array_equal(objects.label_map(), expected)
    assert labels.dtype == np.int32
    assert labels.flags.c_contiguous


def test_some_objects_are_chosen_with_all_that_belongs_to_them() -> None:
    masks = random_masks(4, (20, 20))
    objects = ObjectInstances.of(
        masks, [1, 2, 3, 4], size=(20, 20), scores=[0.1, 0.2, 0.3, 0.4], crowd=[0, 1, 0, 1]
    )
    for which in ([3, 0], np.array([False, True, False, True])):
        places = np.flatnonzero(which) if isinstance(which, np.ndarray) else which
        part = objects.chosen(which)
        assert part.classes.tolist() == [place + 1 for place in places]
        assert np.array_equal([part.mask(n) for n in range(2)], masks[places])
        assert part.crowd.tolist() == [bool(place % 2) for place in places]
    assert len(objects.chosen([])) == 0


def test_no_objects_are_objects_too() -> None:
    none = ObjectInstances.of_label_map(np.zeros((5, 7), np.uint16))
    assert (len(none), none.areas.tolist(), none.boxes.shape) == (0, [], (0, 4))
    assert not none.label_map().any()
    assert none.label_map().shape == (5, 7)


def test_there_may_be_hundreds_of_objects() -> None:
    labels = np.arange(1200).reshape(30, 40).repeat(2, axis=0)
    objects = ObjectInstances.of_label_map(labels)
    assert objects.areas.tolist() == [2] * 1199
    assert (objects.boxes[:, 2:] - objects.boxes[:, :2]).tolist() == [[1.0, 2.0]] * 1199
    assert np.array_equal(objects.iou(objects), np.eye(1199))
    assert np.array_equal(objects.label_map(), labels)


def test_a_part_is_coded_as_its_whole_mask_is() -> None:
    size = (9, 7)
    rng = np.random.default_rng(4)
    for share in (0, 0.3, 0.9, 1):
        for _ in range(12):
            top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
            rows, columns = rng.integers(1, size[0] - top + 1), rng.integers(1, size[1] - left + 1)
            part = rng.random((rows, columns)) < share
            whole = np.zeros(size, bool)
            whole[top : top + rows, left : left + columns] = part
            expected = run_lengths.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"]
            assert coded_part(part, (int(top), int(left)), size) == expected
    with pytest.raises(UsageError, match="lie in its image of 9x7"):
        coded_part(np.ones((3, 3), bool), (7, 0), size)


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(UsageError, match="size of its image"):
        ObjectInstances.of([np.zeros((3, 4), bool)], [1], size=(4, 3))
    with pytest.raises(UsageError, match="1 or more, got 0"):
        ObjectInstances.of([np.zeros((3, 4), bool)], [0], size=(3, 4))
    with pytest.raises(UsageError, match="as many"):
        ObjectInstances.of([np.zeros((3, 4), bool)], [1, 2], size=(3, 4))


@pytest.mark.parametrize("seed", range(30))
def test_crops_are_laid_out_where_they_belong(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = tuple(int(n) for n in rng.integers(1, 12, 2))
    crops, wanted = [], []
    for _ in range(6):
        crop = rng.random(rng.integers(0, 9, 2)) < rng.choice([0.0, 0.5, 1.0])
        row, column = (int(n) for n in rng.integers(-10, 14, 2))
        crops.append((crop, row, column))
        canvas = np.zeros((60, 60), bool)
        canvas[20 + row : 20 + row + len(crop), 20 + column : 20 + column + crop.shape[1]] = crop
        wanted.append(canvas[20 : 20 + size[0], 20 : 20 + size[1]])
    objects = ObjectInstances.of_crops(crops, [1] * 6, size=size)
    assert objects.masks == ObjectInstances.of(wanted, [1] * 6, size=size).masks


def test_layers_hold_every_pixel_of_every_object() -> None:
    masks = random_masks(12, (31, 47))
    masks[2] = False  # the one of the whole image
    masks[2, 5:20, 5:20] = True
    classes, crowd = np.arange(1, 13) * 2000, np.arange(12) % 5 == 0
    objects = ObjectInstances.of(masks, classes, size=(31, 47), crowd=crowd)
    layers = objects.layers()
    assert len(layers) >= masks.sum(axis=0).max()
    again = ObjectInstances.of_layers(layers)
    order = np.argsort(again.classes)
    there = np.flatnonzero(objects.areas)
    assert again.classes[order].tolist() == classes[there].tolist()
    assert again.crowd[order].tolist() == crowd[there].tolist()
    assert [again.masks[place] for place in order] == [objects.masks[place] for place in there]
    part = ObjectInstances.of_layers(layers[:, 3:20, 10:30])
    left = masks[:, 3:20, 10:30].sum(axis=(1, 2))
    assert sorted(part.areas) == sorted(left[left > 0])


def test_a_crowd_may_be_of_any_class_and_an_object_not() -> None:
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :2, :2], masks[1, 2:, :2], masks[2, :, 3:] = True, True, True
    void = ObjectInstances.of(masks, [1, 2, 0], size=(4, 6), crowd=[False, False, True])
    assert [len(void.of_class(number)) for number in (1, 2, 3)] == [2, 2, 1]
    again = ObjectInstances.of_layers(void.layers())
    assert sorted(again.classes.tolist()) == [0, 1, 2]
    assert again.crowd.tolist() == (again.classes == 0).tolist()
    assert (void.areas.sum(), again.areas.sum()) == (20, 20)
    with pytest.raises(UsageError, match="1 or more, got 0"):
        ObjectInstances.of(masks, [1, 2, 0], size=(4, 6))


def test_objects_that_do_not_overlap_are_one_layer() -> None:
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((3, 3), int))
    assert len(ObjectInstances.of_label_map(labels).layers()) == 1
    assert ObjectInstances((4, 5)).layers().shape == (1, 4, 5)
    with pytest.raises(UsageError, match="at most 32767, got 1 and 40000"):
        ObjectInstances.of([np.ones((2, 2), bool)], [40000], size=(2, 2)).layers()


def blocks(*places: tuple[int, int], scores: list[float], classes: list[int] | None = None) -> Any:
    """Return objects of whole columns, from one to before another."""
    masks = np.zeros((len(places), 10, 40), bool)
    for mask, (low, high) in zip(masks, places, strict=True):
        mask[:, low:high] = True
    kinds = classes or [1] * len(places)
    return ObjectInstances.of(masks, kinds, size=(10, 40), scores=scores)


def test_an_object_within_a_larger_surer_one_is_seen_on_it() -> None:
    objects = blocks((0, 20), (2, 8), (15, 30), scores=[0.9, 0.5, 0.6])
    assert np.bincount(objects.label_map(nested_on_top=True)[0])[1:].tolist() == [14, 6, 10]
    # of three in one another the smallest is on top, whatever the scores
    objects = blocks((0, 20), (0, 10), (0, 5), scores=[0.9, 0.5, 0.6])
    assert np.bincount(objects.label_map(nested_on_top=True)[0])[1:].tolist() == [10, 5, 5]


def test_what_several_surer_objects_hide_is_found_twice() -> None:
    objects = blocks((0, 10), (10, 20), (1, 21), scores=[0.9, 0.8, 0.7])
    assert objects.without_doubles().scores.tolist() == pytest.approx([0.9, 0.8, 0.7 * 0.05])
    assert objects.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


@pytest.mark.parametrize(
    "objects",
    [
        blocks((0, 10), (10, 20), (6, 16), scores=[0.9, 0.8, 0.7], classes=[1, 1, 2]),
        blocks((0, 20), (2, 8), scores=[0.9, 0.7]),  # within one
        blocks((0, 10), (4, 14), scores=[0.9, 0.7]),  # three fifths hidden
        blocks((0, 10), (10, 20), scores=[0.7, 0.9]),
        blocks(scores=[]),
    ],
)
def test_others_keep_their_scores(objects: ObjectInstances) -> None:
    found = objects.without_doubles()
    assert found.scores.tolist() == sorted(objects.scores.tolist(), reverse=True)


def test_what_is_a_double_hides_nothing() -> None:
    places = ((0, 10), (10, 20), (1, 21), (20, 22))
    objects = blocks(*places, scores=[0.9, 0.8, 0.7, 0.6])
    assert objects.without_doubles().scores.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.035])
