import csv
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medseg.errors import InputError
from medseg.metrics.object_scores import CLASS_METRICS, ObjectScores
from medseg.metrics.objects import ObjectMetrics
from medseg.objects import ObjectInstances
from tests.metrics import object_references as reference
from tests.metrics.object_references import Scene, scenes
from tests.real_data import data_folder

NONE = ObjectInstances((1, 12))
SEEDS = range(12)
ONE = pytest.approx(1, abs=1e-12)
"""pycocotools divides by the number of predictions and 2e-16."""


def line(*spans: tuple[int, int], scores: list[float] | None = None, crowd: int = 0) -> Scene:
    """Objects of one row of twelve pixels, from a column to before another; crowds come last."""
    masks = np.zeros((len(spans), 1, 12), bool)
    for mask, (start, end) in zip(masks, spans, strict=True):
        mask[0, start:end] = True
    count = len(spans)
    values = np.ones(count) if scores is None else np.array(scores)
    return Scene(masks, np.ones(count, int), values, np.arange(count) >= count - crowd)


def scored(pred: Scene, truth: Scene, **options: float) -> ObjectScores:
    metrics = ObjectMetrics(["cell"], **options)
    metrics.add("a", pred.coded(), truth.coded())
    return metrics.scores()


def many(images: list[tuple[Scene, Scene]], classes: int, **options: float) -> ObjectMetrics:
    metrics = ObjectMetrics([f"class {n}" for n in range(classes)], **options)
    for number, (pred, truth) in enumerate(images):
        metrics.add(f"{number:03}", pred.coded(), truth.coded())
    return metrics


def images_of(classes: int, crowds: int = 1) -> list[tuple[Scene, Scene]]:
    found = [scenes(seed, classes=classes, crowds=crowds) for seed in SEEDS]
    nothing = np.zeros(0, int)
    found[3] = found[3][0], found[3][1].part(nothing)  # false alarms alone
    found[4] = found[4][0].part(nothing), found[4][1]  # all missed
    found[5] = found[5][0].part(nothing), found[5][1].part(nothing)
    return found


@pytest.mark.parametrize("most", [1000, 3])
@pytest.mark.parametrize(("kind", "prefix"), [("segm", "ap"), ("bbox", "box_ap")])
@pytest.mark.parametrize(("classes", "crowds"), [(1, 0), (1, 2), (3, 2)])
def test_average_precision_is_that_of_cocoeval(
    kind: str, prefix: str, classes: int, crowds: int, most: int
) -> None:
    images = images_of(classes, crowds)
    expected = reference.coco_precision(images, classes, kind, most)
    assert 0.05 < expected.mean() < 0.95
    scores = many(images, classes, most_objects=most).scores()
    # the two add up the same numbers in another order
    assert np.allclose(scores.of_class[prefix], expected.mean(axis=0), rtol=0, atol=1e-12)
    assert np.allclose(scores.of_class[f"{prefix}50"], expected[0], rtol=0, atol=1e-12)
    assert np.allclose(scores.of_class[f"{prefix}75"], expected[5], rtol=0, atol=1e-12)
    assert math.isclose(scores.mean[prefix], expected.mean(), abs_tol=1e-12)
    assert scores.counts["unranked"].sum() == (
        sum(
            max(0, (pred.classes == number).sum() - most)
            for pred, _ in images
            for number in range(1, classes + 1)
        )
    )


def test_average_precision_has_cocoeval_s_order_of_equal_scores_and_overlaps() -> None:
    rng = np.random.default_rng(5)
    images = []
    for seed in SEEDS:
        pred, truth = scenes(seed, crowds=1)
        doubled = np.r_[np.arange(len(truth)), rng.integers(0, len(truth), 3)]
        images.append(
            (
                Scene(pred.masks, pred.classes, np.round(pred.scores * 3) / 3, pred.crowd),
                truth.part(doubled),
            )
        )
    scores = many(images, 1).scores()
    for kind, prefix in (("segm", "ap"), ("bbox", "box_ap")):
        expected = reference.coco_precision(images, 1, kind, 1000)
        assert math.isclose(scores.mean[prefix], expected.mean(), abs_tol=1e-12)


def test_of_equal_overlaps_a_prediction_takes_the_last_object_as_in_cocoeval() -> None:
    truth, pred = line((0, 6), (2, 8)), line((1, 7), (3, 8), scores=[0.75, 0.5])
    overlaps = [reference.iou(pred.masks[0], mask) for mask in truth.masks]
    assert overlaps[0] == overlaps[1] == 5 / 7
    found = []
    for order in ([0, 1], [1, 0]):
        image = (pred, truth.part(np.array(order)))
        expected = reference.coco_precision([image], 1, "segm", 1000)
        found.append(scored(*image).mean["ap50"])
        assert math.isclose(found[-1], expected[0].item())
    assert found[0] < found[1] == ONE


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize(("classes", "crowds"), [(1, 0), (1, 2), (3, 2)])
def test_panoptic_quality_jaccard_index_and_f1_are_those_of_the_masks(
    classes: int, crowds: int, threshold: float
) -> None:
    images = images_of(classes, crowds)
    scores = many(images, classes, score_threshold=threshold).scores()
    sure = [(pred.part(pred.scores >= threshold), truth) for pred, truth in images]
    overall = np.zeros(2)
    for place in range(classes):
        number = place + 1
        parts = [reference.panoptic(*image, number) for image in sure]
        hits, iou, alarms, missed = (
            sum(part[key] for part in parts) for key in ("hits", "iou", "alarms", "missed")
        )
        assert min(hits, alarms, missed) > 0
        for name, expected in {
            "pq": iou / (hits + (alarms + missed) / 2),
            "sq": iou / hits,
            "rq": hits / (hits + (alarms + missed) / 2),
        }.items():
            assert math.isclose(scores.of_class[name][place], expected)

        areas = np.array([reference.jaccard(*image, number) for image in sure])
        overall += areas.sum(axis=0)
        each = areas[areas[:, 1] > 0]
        assert math.isclose(scores.of_class["aji"][place], (each[:, 0] / each[:, 1]).mean())
        pooled = areas[:, 0].sum() / areas[:, 1].sum()
        assert math.isclose(scores.of_class["aji_pooled"][place], pooled)

        matched, ignored = np.sum([reference.pairs(*image, number) for image in sure], axis=0)
        found = sum((pred.classes == number).sum() for pred, _ in sure) - ignored
        real = sum(((truth.classes == number) & ~truth.crowd).sum() for _, truth in sure)
        counts = {key: int(values[place]) for key, values in scores.counts.items()}
        assert [counts[key] for key in ("truth", "predicted", "matched", "ignored")] == [
            real,
            found,
            matched,
            ignored,
        ]
        assert math.isclose(scores.of_class["precision"][place], matched / found)
        assert math.isclose(scores.of_class["recall"][place], matched / real)
        assert math.isclose(scores.of_class["f1"][place], 2 * matched / (found + real))
    assert math.isclose(scores.aji_pooled, overall[0] / overall[1])


def test_each_image_is_scored_with_its_classes_together() -> None:
    images = images_of(2)
    scores = many(images, 2, score_threshold=0).scores()
    aji, errors = [], []
    for case, image in zip(scores.cases, images, strict=True):
        both, either = np.sum([reference.jaccard(*image, n) for n in (1, 2)], axis=0)
        parts = [reference.panoptic(*image, n) for n in (1, 2)]
        matched, ignored = np.sum([reference.pairs(*image, n) for n in (1, 2)], axis=0)
        hits, iou, wrong = (
            sum(part[key] for part in parts for key in keys)
            for keys in (("hits",), ("iou",), ("alarms", "missed"))
        )
        expected = [
            reference.ratio(both, either),
            reference.ratio(iou, hits + wrong / 2),
            reference.ratio(2 * matched, case.predicted + case.truth),
        ]
        assert np.allclose([case.aji, case.pq, case.f1], expected, equal_nan=True)
        assert case.truth == (~image[1].crowd).sum()
        assert case.predicted == len(image[0]) - ignored
        assert case.ignored == ignored
        aji.append(expected[0])
        errors.append(case.predicted - case.truth)
    assert math.isclose(scores.mean["aji"], np.nanmean(aji))
    assert scores.counted["aji"] == np.isfinite(aji).sum() < len(images)
    assert math.isclose(scores.mean["count_error"], np.mean(errors))
    assert math.isclose(scores.mean["absolute_count_error"], np.abs(errors).mean())
    assert min(errors) < 0 < max(errors)


def test_a_match_of_half_is_one_for_f1_and_ap50_but_not_for_panoptic_quality() -> None:
    scores = scored(line((0, 2)), line((0, 4)))
    assert (scores.mean["f1"], scores.mean["ap50"]) == (1, ONE)
    assert (scores.mean["pq"], scores.mean["rq"]) == (0, 0)
    assert math.isnan(scores.mean["sq"])
    assert scored(line((0, 3)), line((0, 5))).mean["pq"] == 0.6


def test_jaccard_index_gives_one_prediction_to_several_objects() -> None:
    scores = scored(line((0, 8)), line((0, 4), (4, 6)))
    assert scores.mean["aji"] == (4 + 2) / (8 + 8)


def test_jaccard_index_adds_what_nobody_took() -> None:
    # 3 of 4 shared by one pair; an object without and a prediction without
    scores = scored(line((0, 3), (6, 8)), line((0, 4), (9, 12)))
    assert scores.mean["aji"] == 3 / (4 + 3 + 2)


def test_f1_takes_the_pairing_of_most_pairs_whatever_the_scores() -> None:
    # the surest prediction overlaps both objects, the other one only the object it fits best
    truth, pred = line((0, 6), (3, 8)), line((1, 7), (0, 4), scores=[0.9, 0.8])
    assert reference.iou(pred.masks[0], truth.masks[0]) == 5 / 7
    assert reference.iou(pred.masks[0], truth.masks[1]) == 4 / 7
    assert reference.iou(pred.masks[1], truth.masks[0]) == 4 / 6
    assert reference.iou(pred.masks[1], truth.masks[1]) < 0.5
    scores = scored(pred, truth)
    assert scores.mean["f1"] == 1
    assert scores.mean["ap50"] < 0.51  # COCO's surest takes its best, and leaves the other nothing


def test_f1_prefers_three_poor_pairs_to_two_perfect_ones() -> None:
    truth, pred = line((2, 4), (0, 4), (0, 8)), line((2, 3), (2, 4), (0, 4))
    assert scored(pred, truth).mean["f1"] == 1


def test_f1_takes_of_two_predictions_the_one_that_fits_better() -> None:
    # the other lies in the crowd by three quarters, and this one by two fifths
    scores = scored(line((2, 6), (0, 5)), line((0, 6), (3, 12), crowd=1))
    assert (scores.mean["f1"], scores.counts["ignored"].tolist()) == (1, [1])


def test_the_same_object_found_twice_is_a_false_alarm_which_panoptic_quality_cannot_see() -> None:
    scores = scored(line((0, 4), (0, 4), scores=[0.9, 0.8]), line((0, 4)))
    assert (scores.mean["precision"], scores.mean["recall"]) == (0.5, 1)
    assert scores.counts["hidden"].tolist() == [1]
    assert (scores.mean["pq"], scores.mean["aji"], scores.mean["count_error"]) == (1, 1, 1)


def test_of_overlapping_predictions_the_surer_keeps_its_pixels() -> None:
    scores = scored(line((0, 6), (2, 10), scores=[0.9, 0.8]), line((0, 6), (6, 10)))
    assert (scores.mean["pq"], scores.mean["aji"], scores.counts["hidden"].sum()) == (1, 1, 0)
    other = scored(line((0, 6), (2, 10), scores=[0.8, 0.9]), line((0, 6), (6, 10)))
    # both objects take the wide one, and nobody the two pixels that it leaves of the other
    assert other.mean["aji"] == (4 + 4) / (10 + 8 + 2)


def test_what_is_less_sure_than_the_threshold_counts_for_average_precision_alone() -> None:
    pred, truth = line((0, 4), (5, 9), scores=[0.7, 0.5]), line((0, 4), (5, 9))
    assert scored(pred, truth).mean["f1"] == 1
    scores = scored(pred, truth, score_threshold=0.6)
    assert scores.mean["ap"] == ONE
    for name in ("recall", "pq", "aji"):
        assert scores.mean[name] == {"recall": 0.5, "pq": 2 / 3, "aji": 0.5}[name]
    assert scores.counts["predicted"].tolist() == [1]


def test_a_crowd_is_neither_missed_nor_does_it_make_false_alarms() -> None:
    truth = line((0, 3), (5, 12), crowd=1)
    inside = line((0, 3), (5, 7), (8, 11), scores=[0.7, 0.9, 0.8])
    scores = scored(inside, truth)
    for name in CLASS_METRICS:
        assert scores.mean[name] == ONE, name
    assert scores.counts["ignored"].tolist() == [2]
    assert scores.counts["crowds"].tolist() == [1]
    assert scores.cases[0].count_error == 0
    beside = scored(line((0, 3), (3, 6), scores=[0.7, 0.9]), truth)  # a third of it in the crowd
    assert beside.mean["precision"] == 0.5
    assert beside.mean["aji"] == 3 / 6
    assert beside.mean["ap50"] == pytest.approx(0.5)
    half = scored(line((0, 3), (3, 7)), truth)  # enough for F1, one pixel short for the others
    assert (half.mean["f1"], half.mean["pq"], half.mean["aji"]) == (1, 2 / 3, 3 / 7)
    alone = scored(line((5, 9)), line((4, 12), crowd=1))
    assert all(math.isnan(alone.mean[name]) for name in CLASS_METRICS)


def test_a_crowd_excuses_only_its_class() -> None:
    truth = Scene(line((0, 12)).masks, np.array([2]), np.ones(1), np.array([True]))
    metrics = ObjectMetrics(["cell", "other"])
    metrics.add("a", line((0, 4)).coded(), truth.coded())
    scores = metrics.scores()
    assert scores.of_class["precision"].tolist()[0] == 0
    assert scores.of_class["pq"].tolist()[0] == 0
    assert scores.counts["ignored"].tolist() == [0, 0]


@pytest.mark.parametrize("classes", [1, 3])
def test_a_perfect_prediction_scores_one(classes: int) -> None:
    images = [
        (Scene(truth.masks, truth.classes, truth.scores, truth.crowd), truth)
        for _, truth in (scenes(seed, classes=classes, crowds=0) for seed in SEEDS)
    ]
    # where objects overlap, the smaller is seen in the truth as in the prediction
    scores = many(images, classes).scores()
    for name in CLASS_METRICS:
        assert scores.of_class[name].tolist() == [ONE] * classes, name
    assert scores.aji_pooled == 1
    assert scores.mean["absolute_count_error"] == 0


def test_the_order_of_objects_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    images = images_of(2)
    shuffled = [
        (pred.part(rng.permutation(len(pred))), truth.part(rng.permutation(len(truth))))
        for pred, truth in images
    ]
    a, b = (many(these, 2).scores() for these in (images, shuffled))
    for name in CLASS_METRICS:
        assert np.allclose(a.of_class[name], b.of_class[name], rtol=1e-13), name


def test_the_order_of_images_does_not_matter_and_two_halves_are_the_whole() -> None:
    images = [
        (Scene(p.masks, p.classes, np.round(p.scores * 3) / 3, p.crowd), t) for p, t in images_of(2)
    ]
    whole = many(images, 2).scores().as_json()
    halves = [ObjectMetrics(["class 0", "class 1"]) for _ in range(2)]
    for number in reversed(range(len(images))):
        pred, truth = images[number]
        halves[number % 2].add(f"{number:03}", pred.coded(), truth.coded())
    halves[0].merge(pickle.loads(pickle.dumps(halves[1])))  # as between processes
    assert halves[0].scores().as_json() == whole


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        (NONE, NONE, dict.fromkeys(CLASS_METRICS)),
        (
            NONE,
            line((0, 4)).coded(),
            {**dict.fromkeys(CLASS_METRICS, 0.0), "precision": None, "sq": None},
        ),
        (
            line((0, 4)).coded(),
            NONE,
            {
                **dict.fromkeys(CLASS_METRICS),
                **dict.fromkeys(("precision", "f1", "pq", "rq", "aji", "aji_pooled"), 0.0),
            },
        ),
    ],
    ids=["nothing", "missed", "invented"],
)
def test_without_objects_scores_are_none_where_nothing_can_be_divided(
    pred: ObjectInstances, truth: ObjectInstances, expected: dict[str, float | None]
) -> None:
    metrics = ObjectMetrics(["cell"])
    metrics.add("a", pred, truth)
    document = json.loads(json.dumps(metrics.scores().as_json(), allow_nan=False))
    errors = {"count_error": len(pred) - len(truth), "absolute_count_error": len(pred or truth)}
    assert document["mean"] == {**expected, **errors}
    counted = {name: int(value is not None) for name, value in expected.items()}
    assert {name: document["counted"][name] for name in counted if name != "aji_pooled"} == {
        name: value for name, value in counted.items() if name != "aji_pooled"
    }
    assert document["labels"]["cell"]["truth"] == len(truth)
    assert document["cases"][0]["aji"] == expected["aji"]


def test_a_false_alarm_on_an_empty_image_lowers_every_score_of_the_data_set() -> None:
    metrics = ObjectMetrics(["cell"])
    metrics.add("a", line((0, 4)).coded(), line((0, 4)).coded())
    before = metrics.scores().mean
    metrics.add("b", line((5, 9), scores=[1.0]).coded(), NONE)
    metrics.add("c", line((5, 9), scores=[1.0]).coded(), line((5, 9)).coded())
    after = metrics.scores().mean
    for name in set(CLASS_METRICS) - {"recall", "sq"}:
        assert before[name] == ONE, name
        assert after[name] < 0.9, name


def test_no_image_at_all_scores_nothing() -> None:
    document = ObjectMetrics(["cell", "other"]).scores().as_json()
    assert document["images"] == 0
    assert set(document["mean"].values()) == {None}
    assert document["cases"] == []


def test_a_class_that_is_nowhere_is_left_out_of_means() -> None:
    metrics = ObjectMetrics(["cell", "other"])
    metrics.add("a", line((0, 4)).coded(), line((0, 4)).coded())
    scores = metrics.scores()
    assert (scores.mean["ap"], scores.mean["pq"]) == (ONE, 1)
    assert scores.counted["ap"] == scores.counted["pq"] == 1
    assert scores.as_json()["labels"]["other"]["ap"] is None


def test_masks_without_a_pixel_are_false_alarms_and_misses() -> None:
    scores = scored(line((0, 4), (2, 2)), line((0, 4), (7, 7), (8, 8)))
    assert (scores.mean["precision"], scores.mean["recall"]) == (1 / 2, 1 / 3)
    assert scores.counts["hidden"].tolist() == [1]
    assert scores.counts["truth_hidden"].tolist() == [2]
    assert (scores.mean["pq"], scores.mean["aji"]) == (1, 1)


def test_what_cannot_be_scored_is_refused_and_leaves_nothing() -> None:
    metrics = ObjectMetrics(["cell"])
    good = line((0, 4))
    metrics.add("a", good.coded(), good.coded())
    before = metrics.scores().as_json()
    with pytest.raises(ValueError, match="not there yet, got 'a'"):
        metrics.add("a", good.coded(), good.coded())
    with pytest.raises(InputError, match=r"size of truth, \(1, 12\), got \(3, 4\) in b") as caught:
        metrics.add("b", ObjectInstances((3, 4)), good.coded())
    assert caught.value.code == "grid-mismatch"
    other = Scene(good.masks, np.array([2]), good.scores, good.crowd)
    for pair in ((good, other), (other, good)):
        with pytest.raises(InputError, match=r"must be 1 to 1, got \[2\] in b") as caught:
            metrics.add("b", *(scene.coded() for scene in pair))
        assert caught.value.code == "unknown-label"
    with pytest.raises(ValueError, match="must be single objects, got 1 crowds"):
        metrics.add("b", line((0, 4), crowd=1).coded(), good.coded())
    with pytest.raises(ValueError, match="must be finite"):
        metrics.add("b", line((0, 4), scores=[math.nan]).coded(), good.coded())
    assert metrics.scores().as_json() == before


def test_settings_that_make_no_sense_are_refused() -> None:
    for names in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="each once"):
            ObjectMetrics(names)
    with pytest.raises(ValueError, match=r"from 0 to 1, got 1\.5"):
        ObjectMetrics(["a"], score_threshold=1.5)
    with pytest.raises(ValueError, match="1 or more, got 0"):
        ObjectMetrics(["a"], most_objects=0)
    metrics, same = ObjectMetrics(["a"]), ObjectMetrics(["a"])
    for other in (ObjectMetrics(["b"]), ObjectMetrics(["a"], most_objects=7)):
        with pytest.raises(ValueError, match="must have the settings"):
            metrics.merge(other)
    for one in (metrics, same):
        one.add("x", NONE, NONE)
    with pytest.raises(ValueError, match=r"got \['x'\] in both"):
        metrics.merge(same)


def test_inputs_are_not_changed_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    pred, truth = (scene.coded() for scene in scenes(1, crowds=1))
    before = [(o.masks, o.classes.copy(), o.scores.copy(), o.crowd.copy()) for o in (pred, truth)]
    metrics = ObjectMetrics(["cell"])
    metrics.add("a", pred, truth)
    metrics.scores()
    for objects, (masks, *columns) in zip((pred, truth), before, strict=True):
        assert objects.masks == masks
        found = (objects.classes, objects.scores, objects.crowd)
        assert all(map(np.array_equal, found, columns))
    assert capsys.readouterr() == ("", "")


@pytest.fixture(scope="module")
def nuclei() -> dict[str, np.ndarray]:
    """Label maps of the first images of each kind, small ones."""
    folder = data_folder("dsb2018_nuclei")
    with (folder / "index.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    chosen = [row["id"] for row in rows if 3 <= int(row["instances"]) <= 40][:6]
    return {name: _label_map(folder / "masks" / f"{name}.png") for name in chosen}


def _label_map(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int32)


def test_real_nuclei_against_themselves(nuclei: dict[str, np.ndarray]) -> None:
    metrics = ObjectMetrics(["nucleus"])
    for name, labels in nuclei.items():
        objects = ObjectInstances.of_label_map(labels)
        metrics.add(name, objects, objects)
    scores = metrics.scores()
    assert {scores.mean[name] for name in CLASS_METRICS} == {1.0}
    assert scores.counts["matched"].tolist() == [sum(m.max() for m in nuclei.values())]


def test_real_nuclei_against_smaller_ones(nuclei: dict[str, np.ndarray]) -> None:
    metrics = ObjectMetrics(["nucleus"])
    inter, union, iou = np.zeros(len(nuclei)), np.zeros(len(nuclei)), []
    for place, (name, labels) in enumerate(nuclei.items()):
        whole = ndimage.minimum_filter(labels, 5) == ndimage.maximum_filter(labels, 5)
        eroded = np.where(whole, labels, 0)
        metrics.add(
            name, ObjectInstances.of_label_map(eroded), ObjectInstances.of_label_map(labels)
        )
        # each smaller nucleus lies within its own: pixels of the one over those of the other
        sizes, left = (
            np.bincount(m.ravel(), minlength=labels.max() + 1)[1:] for m in (labels, eroded)
        )
        inter[place], union[place] = left.sum(), sizes.sum()
        iou.append(left / sizes)
    shares, total = np.concatenate(iou), sum(len(part) for part in iou)
    scores = metrics.scores()
    hit = shares > 0.5
    gone = (shares == 0).sum()
    assert 0 < hit.sum() < total
    assert gone < total - hit.sum()  # some are left, but too small to match
    assert math.isclose(scores.mean["aji"], (inter / union).mean())
    assert math.isclose(scores.aji_pooled, inter.sum() / union.sum())
    assert math.isclose(scores.mean["sq"], shares[hit].mean())
    assert math.isclose(scores.mean["pq"], shares[hit].sum() / (total - gone / 2))
    near = (shares >= 0.5).sum()
    assert math.isclose(scores.mean["recall"], near / total)
    assert math.isclose(scores.mean["precision"], near / (total - gone))
    assert scores.mean["count_error"] == -gone / len(nuclei)


@pytest.mark.parametrize("kind", [1, 2])
def test_void_excuses_a_prediction_of_any_class(kind: int) -> None:
    """The second object lies in void: no false alarm for any score, whatever its class."""
    masks = np.zeros((2, 1, 12), bool)
    masks[0, 0, :4], masks[1, 0, 6:10] = True, True
    pred = ObjectInstances.of(masks, [1, kind], size=(1, 12), scores=[0.9, 0.8])
    truth = ObjectInstances.of(masks, [1, 0], size=(1, 12), crowd=[False, True])
    metrics = ObjectMetrics(["cell", "dirt"])
    metrics.add("a", pred, truth)
    scores = metrics.scores()
    for name in ("ap50", "f1", "pq", "aji"):
        assert scores.of_class[name][0] == ONE
    assert scores.counts["ignored"].tolist() == [int(kind == 1), int(kind == 2)]
    alarm = ObjectMetrics(["cell", "dirt"])
    alarm.add("a", pred, truth.chosen([0]))
    assert alarm.scores().mean["aji"] < 0.6
