"""Detections pasted and tiles joined: against dense masks, with a detector that knows the truth."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.models.detection.roi_heads import paste_masks_in_image

from medseg.errors import InputError, UsageError
from medseg.inference.objects import ObjectInferer, Onto, paste
from medseg.inference.objects.tiles import Tile, join, tiles_of
from medseg.objects import ObjectInstances

CELLS = 28


def detections(boxes, masks=None, scores=None, labels=None):
    count = len(boxes)
    return {
        "boxes": torch.as_tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "masks": torch.ones(count, 1, CELLS, CELLS) if masks is None else masks,
        "scores": torch.linspace(0.9, 0.6, count) if scores is None else torch.tensor(scores),
        "labels": torch.ones(count, dtype=torch.int64) if labels is None else torch.tensor(labels),
    }


def test_a_full_mask_covers_the_pixels_whose_centres_lie_in_its_box() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(-8, 30, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.5, 25, (40, 2))], axis=1)[:, [0, 1, 2, 3]]
    y, x = (np.arange(n) + 0.5 for n in (35, 29))
    found = detections(boxes)
    objects = [
        paste({k: v[n : n + 1] for k, v in found.items()}, Onto((35, 29))) for n in range(40)
    ]
    for box, one in zip(boxes, objects, strict=True):
        inside = np.outer((y > box[1]) & (y < box[3]), (x > box[0]) & (x < box[2]))
        # at a corner both axes fade out together
        got = one.mask(0) if len(one) else np.zeros((35, 29), bool)
        assert not (got & ~inside).any()
        core = ndimage.binary_erosion(inside, border_value=1)
        assert (got | ~core).all()


def test_masks_are_those_of_torchvision_up_to_its_rounding_of_boxes() -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(12, 1, 3, 3, generator=generator)
    corners[..., 1, 1] = 1.5
    masks = torch.nn.functional.interpolate(corners, CELLS, mode="bicubic").clamp(0, 1)
    low = torch.rand(12, 2, generator=generator) * 60
    boxes = torch.cat([low, low + 30 + 20 * torch.rand(12, 2, generator=generator)], 1)
    theirs = paste_masks_in_image(masks, boxes, (110, 120))[:, 0] >= 0.5
    ours = paste(detections(boxes, masks), Onto((110, 120)))
    for number in range(12):
        a, b = ours.mask(number), theirs[number].numpy()
        assert (a & b).sum() / (a | b).sum() > 0.85
        assert abs(np.subtract(*(np.argwhere(m).mean(axis=0) for m in (a, b)))).max() < 1.0


def test_an_object_without_a_pixel_is_left_out() -> None:
    found = detections([[5, 5, 9, 9], [50, 50, 60, 60], [5.6, 5.6, 5.7, 5.7]])
    assert paste(found, Onto((20, 20))).boxes.tolist() == [[5, 5, 9, 9]]
    assert len(paste(detections([]), Onto((20, 20)))) == 0


class Oracle:
    """Finds what a tile shows of true objects: box, mask and a score each."""

    def __init__(self, labels: np.ndarray, least: int = 1) -> None:
        self.labels, self.least = labels, least

    def __call__(self, batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [self._in(tile[0].numpy().astype(int)) for tile in batch]

    def _in(self, tile: np.ndarray) -> dict[str, torch.Tensor]:
        boxes, masks, scores = [], [], []
        for number in np.unique(tile)[1:]:
            mask = tile == number
            if mask.sum() < self.least:
                continue
            (r0, c0), (r1, c1) = (f(np.argwhere(mask), 0) for f in (np.min, np.max))
            boxes.append([c0, r0, c1 + 1, r1 + 1])
            crop = torch.tensor(mask[r0 : r1 + 1, c0 : c1 + 1], dtype=torch.float32)
            masks.append(
                torch.nn.functional.interpolate(crop[None, None], (CELLS, CELLS), mode="area")
            )
            scores.append(0.5 + 0.4 * mask.sum() / (self.labels == number).sum())
        masks = torch.cat(masks) if masks else torch.zeros(0, 1, CELLS, CELLS)
        return detections(boxes, masks, scores)


def discs(size: tuple[int, int], count: int, seed: int, radius: tuple[int, int]) -> np.ndarray:
    """Separate discs, one number each."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.int32)
    y, x = np.indices(size)
    number = 0
    for _ in range(count * 20):
        r = rng.integers(*radius)
        row, column = (rng.integers(0, n) for n in size)
        disc = (y - row) ** 2 + (x - column) ** 2 <= r * r
        if number < count and not labels[ndimage.binary_dilation(disc, iterations=2)].any():
            number += 1
            labels[disc] = number
    return labels


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("radius", [(4, 10), (20, 45)])  # below, and far over the overlap
def test_every_object_is_found_once_and_whole(seed: int, radius: tuple[int, int]) -> None:
    labels = discs((150, 210), 25 if radius[0] < 10 else 4, seed, radius)
    image = torch.tensor(labels, dtype=torch.float32)[None, None]
    [found] = ObjectInferer((64, 64), overlap=0.3)(image, Oracle(labels))
    truth = ObjectInstances.of_label_map(labels)
    iou = truth.iou(found)
    assert iou.shape[0] == iou.shape[1] == len(truth)
    assert iou.max(axis=1).min() > 0.8
    assert len(set(iou.argmax(axis=1))) == len(truth)
    assert (np.diff(found.scores) <= 0).all()


def test_an_image_no_larger_than_a_tile_is_one_tile() -> None:
    labels = discs((60, 50), 4, 3, (4, 9))
    image = torch.tensor(labels, dtype=torch.float32)[None, None]
    seen = []

    def network(batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        seen.append(tuple(batch.shape))
        return Oracle(labels)(batch)

    [found] = ObjectInferer((64, 64))(image, network)
    assert seen == [(1, 1, 60, 50)]
    assert len(found) == labels.max()


def test_touching_objects_of_two_tiles_stay_apart() -> None:
    labels = np.zeros((40, 100), np.int32)
    labels[10:30, 30:50], labels[10:30, 50:70] = 1, 2
    image = torch.tensor(labels, dtype=torch.float32)[None, None]
    [found] = ObjectInferer((40, 60), overlap=0.3)(image, Oracle(labels))
    assert sorted(found.boxes.tolist()) == [[30, 10, 50, 30], [50, 10, 70, 30]]


def test_objects_of_different_classes_are_not_joined() -> None:
    def network(batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        columns = batch.shape[-1]
        boxes = [[[columns - 20.0, 5, columns, 25]], [[10.0, 5, 30, 25]]]
        return [detections(box, labels=[n + 1]) for n, box in enumerate(boxes)]

    [found] = ObjectInferer((30, 60), overlap=0.5)(torch.zeros(1, 1, 30, 90), network)
    assert sorted(found.classes) == [1, 2]


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 64), (1000, 333)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
def test_tiles_cover_the_image_and_overlap_as_asked(size: tuple[int, int], overlap: float) -> None:
    tiles = tiles_of(size, (64, 48), overlap)
    seen = np.zeros(size, int)
    for tile in tiles:
        seen[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert seen.min() >= 1
    lefts = sorted({tile.left for tile in tiles})
    edge = min(48, size[1])
    assert all(b - a <= max(1, edge * (1 - overlap)) for a, b in pairwise(lefts))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (((64,),), "tile_size must be two sizes"),
        (((64, 0),), "tile_size must be two sizes"),
        (((64, 64), 1.0), "overlap must be"),
        (((64, 64), 0.5, 0), "batch_size must be"),
    ],
)
def test_settings_that_make_no_tiles_are_refused(arguments, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        ObjectInferer(*arguments)


@pytest.mark.parametrize("scale", [(2.0, 3.0), (0.5, 0.8)])
def test_objects_are_laid_out_on_another_grid(scale: tuple[float, float]) -> None:
    """As if the network's pixels had been enlarged, tile by tile and as a whole alike."""
    labels = discs((90, 120), 8, 5, (9, 14))
    image = torch.tensor(labels, dtype=torch.float32)[None]
    size = tuple(round(n * s) for n, s in zip(labels.shape, scale, strict=True))
    y, x = ((np.arange(n) + 0.5) / s for n, s in zip(size, scale, strict=True))
    wanted = ObjectInstances.of_label_map(labels[y.astype(int)][:, x.astype(int)])
    for tile in ((200, 200), (64, 64)):
        found = ObjectInferer(tile, overlap=0.45).find(image, Oracle(labels), Onto(size, scale))
        iou = wanted.iou(found)
        assert iou.shape[0] == iou.shape[1]
        assert iou.max(axis=1).min() > 0.8


def test_a_shift_moves_objects() -> None:
    objects = paste(detections([[4.0, 6.0, 8.0, 9.0]]), Onto((30, 40), (2.0, 1.0), (-3.0, 5.0)))
    assert objects.boxes.tolist() == [[9, 9, 13, 15]]


def test_boxes_that_are_no_numbers_are_an_error() -> None:
    found = detections([[5, 5, 9, 9], [float("nan"), 50, 60, 60]])
    with pytest.raises(InputError, match="finite") as caught:
        paste(found, Onto((20, 20)))
    assert caught.value.code == "non-finite-output"


def columns(size: tuple[int, int], *objects: tuple[int, int, float]) -> ObjectInstances:
    """Return objects of whole rows 10 to 29, from a column to before another, and their scores."""
    masks = np.zeros((len(objects), *size), bool)
    for mask, (low, high, _) in zip(masks, objects, strict=True):
        mask[10:30, low:high] = True
    return ObjectInstances.of(
        masks, [1] * len(objects), size=size, scores=[score for *_, score in objects]
    )


TILES = [Tile(0, 0, 40, 60), Tile(0, 40, 40, 100)]


def test_a_candidate_over_two_neighbours_does_not_make_them_one() -> None:
    both = columns((40, 100), (24, 42, 0.95), (42, 56, 0.93), (24, 56, 0.1))
    right = columns((40, 100), (40, 42, 0.9), (42, 56, 0.9))
    found = join([both, right], TILES)
    sure = found.chosen(found.scores >= 0.5)
    assert sorted(sure.boxes[:, [0, 2]].tolist()) == [[24, 42], [42, 56]]


def test_an_object_within_another_stays_one_of_its_own() -> None:
    left = columns((40, 100), (20, 60, 0.9), (44, 52, 0.8))
    right = columns((40, 100), (40, 75, 0.9), (44, 52, 0.8))
    found = join([left, right], TILES)
    assert sorted(found.boxes[:, [0, 2]].tolist()) == [[20, 75], [44, 52]]


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0, 10.0])
def test_what_is_cut_off_is_known_on_every_grid(scale: float) -> None:
    """Masks end up to two of the network's pixels before the edge of their tile."""
    labels = np.zeros((40, 100), np.int32)
    labels[10:30, 20:90] = 1

    def network(batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found = Oracle(labels)(batch)
        for one in found:  # drawn in at the edges of the tile
            one["boxes"][:, 0] = one["boxes"][:, 0].clamp(min=1.5)
            one["boxes"][:, 2] = one["boxes"][:, 2].clamp(max=batch.shape[-1] - 1.5)
        return found

    size = (round(40 * scale), round(100 * scale))
    image = torch.tensor(labels, dtype=torch.float32)[None]
    found = ObjectInferer((40, 60), overlap=0.3).find(image, network, Onto(size, (scale, scale)))
    assert len(found) == 1
    assert found.boxes[0, [0, 2]].tolist() == pytest.approx([20 * scale, 90 * scale], abs=scale)
