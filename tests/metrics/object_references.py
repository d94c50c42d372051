"""Scores of object instances by brute force on masks that are laid out, and by pycocotools."""

import contextlib
import io
import itertools
import math
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from medseg.objects import ObjectInstances


@dataclass
class Scene:
    """Objects of an image with their masks."""

    masks: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)

    def coded(self) -> ObjectInstances:
        return ObjectInstances.of(
            self.masks,
            self.classes,
            size=self.masks.shape[1:],
            scores=self.scores,
            crowd=self.crowd,
        )

    def part(self, which: np.ndarray) -> "Scene":
        return Scene(self.masks[which], self.classes[which], self.scores[which], self.crowd[which])


def scenes(
    seed: int, *, size: tuple[int, int] = (30, 36), objects: int = 6, classes: int = 1, crowds: int
) -> tuple[Scene, Scene]:
    """Make predicted and true objects: shifted, doubled, missed, invented, of the wrong class."""
    rng = np.random.default_rng(seed)
    truth = Scene(
        np.array([_blob(rng, size, 13 if n < crowds else 8) for n in range(objects)]),
        rng.integers(1, classes + 1, objects),
        np.ones(objects, np.float32),
        np.arange(objects) < crowds,
    )
    found = []
    for place in np.r_[rng.permutation(objects)[: objects - 2], rng.integers(0, objects, 2)]:
        mask = np.roll(truth.masks[place], rng.integers(-1, 2, 2), (0, 1))
        found.append((mask & (rng.random(size) < 0.93), truth.classes[place]))
    found += [(_blob(rng, size, 7), rng.integers(1, classes + 1)) for _ in range(2)]
    # scores are exact in float32, and no two alike
    scores = (rng.permutation(64)[: len(found)] + 1).astype(np.float32) / 64
    pred = Scene(
        np.array([mask for mask, _ in found]),
        np.array([number for _, number in found]),
        scores,
        np.zeros(len(found), bool),
    )
    return pred, truth


def _blob(rng: np.random.Generator, size: tuple[int, int], side: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    row, column = (rng.integers(0, length - side) for length in size)
    mask[row : row + rng.integers(4, side + 1), column : column + rng.integers(4, side + 1)] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 0.0


def inside(a: np.ndarray, b: np.ndarray) -> float:
    return int((a & b).sum()) / int(a.sum()) if a.any() else 0.0


def on_one_another(scene: Scene, keys: list[tuple[float, float]]) -> np.ndarray:
    """Give each pixel to the object with the highest key."""
    top = np.full(scene.masks.shape[1:], -1)
    for place in sorted(range(len(scene)), key=lambda n: keys[n]):
        top[scene.masks[place]] = place
    return np.array([top == place for place in range(len(scene))]).reshape(scene.masks.shape)


def segments(pred: Scene, truth: Scene) -> tuple[np.ndarray, np.ndarray]:
    by_score = [(float(pred.scores[n]), -pred.masks[n].sum()) for n in range(len(pred))]
    by_size = [(float(not truth.crowd[n]), -truth.masks[n].sum()) for n in range(len(truth))]
    return on_one_another(pred, by_score), on_one_another(truth, by_size)


def panoptic(pred: Scene, truth: Scene, number: int) -> dict[str, float]:
    """Hits, sum of IoU, false alarms and misses of a class in one image."""
    ours, theirs = segments(pred, truth)
    hits, total, found, met = 0, 0.0, set(), set()
    for i, j in itertools.product(range(len(pred)), range(len(truth))):
        if pred.classes[i] == truth.classes[j] == number and not truth.crowd[j]:
            overlap = iou(ours[i], theirs[j])
            if overlap > 0.5:
                hits, total = hits + 1, total + overlap
                found.add(i)
                met.add(j)
    region = np.zeros(pred.masks.shape[1:], bool)
    for j in range(len(truth)):
        if truth.crowd[j] and truth.classes[j] == number:
            region |= theirs[j]
    alarms = [
        i
        for i in range(len(pred))
        if pred.classes[i] == number and i not in found and ours[i].any()
        if inside(ours[i], region) <= 0.5
    ]
    missed = [
        j
        for j in range(len(truth))
        if truth.classes[j] == number and not truth.crowd[j] and j not in met and theirs[j].any()
    ]
    return {"hits": hits, "iou": total, "alarms": len(alarms), "missed": len(missed)}


def jaccard(pred: Scene, truth: Scene, number: int) -> tuple[int, int]:
    """Aggregated intersection and union of a class in one image."""
    ours, theirs = segments(pred, truth)
    region = np.zeros(pred.masks.shape[1:], bool)
    for j in range(len(truth)):
        if truth.crowd[j] and truth.classes[j] == number:
            region |= theirs[j]
    mine = [i for i in range(len(pred)) if pred.classes[i] == number]
    both, either, used = 0, 0, set()
    for j in range(len(truth)):
        if truth.crowd[j] or truth.classes[j] != number:
            continue
        choices = [(iou(ours[i], theirs[j]), int((ours[i] & theirs[j]).sum()), i) for i in mine]
        overlap, _, best = max(choices, default=(0.0, 0, -1))
        if overlap > 0:
            used.add(best)
            both += int((ours[best] & theirs[j]).sum())
            either += int((ours[best] | theirs[j]).sum())
        else:
            either += int(theirs[j].sum())
    for i in mine:
        if i not in used and inside(ours[i], region) <= 0.5:
            either += int(ours[i].sum())
    return both, either


def pairs(pred: Scene, truth: Scene, number: int) -> tuple[int, int]:
    """Most pairs of an IoU of 0.5 or more, by trying all pairings, and predictions in crowds."""
    mine = [i for i in range(len(pred)) if pred.classes[i] == number]
    real = [j for j in range(len(truth)) if truth.classes[j] == number and not truth.crowd[j]]
    region = [j for j in range(len(truth)) if truth.classes[j] == number and truth.crowd[j]]

    def best(rest: list[int], free: frozenset[int]) -> tuple[int, float, tuple[int, ...]]:
        if not rest:
            return 0, 0.0, ()
        options = [best(rest[1:], free)]
        for j in free:
            overlap = iou(pred.masks[rest[0]], truth.masks[j])
            if overlap >= 0.5:
                count, total, used = best(rest[1:], free - {j})
                options.append((count + 1, total + overlap, (rest[0], *used)))
        return max(options)

    count, _, used = best(mine, frozenset(real))
    excused = [
        i
        for i in mine
        if i not in used and any(inside(pred.masks[i], truth.masks[j]) >= 0.5 for j in region)
    ]
    return count, len(excused)


def ratio(above: float, below: float) -> float:
    return above / below if below else math.nan


def coco_precision(
    images: list[tuple[Scene, Scene]], classes: int, kind: str, most: int
) -> np.ndarray:
    """(T, C) average precision by pycocotools alone, -1 where a class has no object."""
    truths, found = [], []
    for number, (pred, truth) in enumerate(images, 1):
        theirs, ours = truth.coded(), pred.coded()
        for j, coded in enumerate(theirs.coco):
            x0, y0, x1, y1 = theirs.boxes[j].tolist()
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": number,
                    "category_id": int(truth.classes[j]),
                    "segmentation": coded,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": int(truth.masks[j].sum()),
                    "iscrowd": int(truth.crowd[j]),
                }
            )
        found += [
            {
                "image_id": number,
                "category_id": int(pred.classes[i]),
                "segmentation": coded,
                "score": float(pred.scores[i]),
            }
            for i, coded in enumerate(ours.coco)
        ]
    size = images[0][0].masks.shape[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {
            "images": [
                {"id": n, "height": size[0], "width": size[1]} for n in range(1, len(images) + 1)
            ],
            "categories": [{"id": n, "name": str(n)} for n in range(1, classes + 1)],
            "annotations": truths,
        }
        reference.createIndex()
        evaluator = COCOeval(reference, reference.loadRes(found), kind)
        evaluator.params.maxDets = [1, 10, most] if most > 10 else [most]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, classes
    return np.asarray(precision.mean(axis=1))
