"""From the sizes of a dataset's objects to a bundle that finds them."""

import math
from typing import Any

import numpy as np

from medseg.bundle.spec import TILE, BundleSpec
from medseg.data import LabelledDataset
from medseg.data.object_statistics import QUANTILES, ObjectStatistics
from medseg.errors import InputError
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.normalization import photograph_schemes, scheme_for
from medseg.planning.plan import Choice, Plan, bundle_name, is_photograph, listed
from medseg.planning.spacing import resampled_shape, target_spacing

MASK_RCNN = "mask_rcnn"

GOOD_SIDE_PX = 24.0
"""Side of the median object under which images are enlarged: its mask has 28 x 28 cells."""
MOST_ENLARGED = 2.0
SMALLEST_ANCHOR_PX, LARGEST_FIRST_ANCHOR_PX = 8.0, 32.0
MOST_LEVELS = 4
LARGEST_TILE = 512
STRIDE = 32
TRAINING_BOXES = 128
FEWEST_OBJECTS, MOST_OBJECTS = 100, 1000
SAMPLE_BYTES_PER_PIXEL = 3200.0
"""Memory that one pixel of a training sample takes with ResNet-18 and three levels; bytes. Twice
the 1600 that were measured in bfloat16 on a processor, at 320 x 320 pixels with 30 objects."""


def plan_objects(
    dataset: LabelledDataset,
    fingerprint: Fingerprint,
    statistics: ObjectStatistics,
    *,
    name: str = "",
    memory_gb: float = 8.0,
) -> Plan:
    """Plan a Mask R-CNN for the objects of a dataset of pictures.

    Args:
        dataset: Opened with `objects=True`.
        fingerprint: Of its training cases.
        statistics: Of their objects.
        name: Of the bundle; made of the dataset when empty.
        memory_gb: Memory of the device that trains; GB.

    Returns:
        The plan.

    Raises:
        InputError: If the images are no pictures (`unsupported-dimensions`).

    Source:
        He et al., Mask R-CNN, ICCV 2017; Lin et al., Feature pyramid networks, CVPR 2017, for one
        scale of anchors a level; the rest are medseg's own rules.
    """
    choices: dict[str, Choice] = {}
    spacing, median, enlarged = _grid(fingerprint, statistics, choices)
    patch, batch = _patch(median, memory_gb, choices)
    tile = math.prod(max(TILE, extent) for extent in patch)
    densest = _most_in_a_tile(fingerprint, statistics, tile * math.prod(spacing))
    definition = _network(dataset, statistics, enlarged, densest, choices)
    photograph = is_photograph(dataset, fingerprint)
    schemes = [
        scheme_for(channel.modality, fingerprint.intensities[index], fingerprint.kept_share)
        for index, channel in enumerate(dataset.channels)
    ]
    if photograph:
        schemes = photograph_schemes()
    choices["normalization"] = Choice(
        [scheme for scheme, _ in schemes], "; ".join(rule for _, rule in schemes)
    )
    spec = BundleSpec(
        name=name or bundle_name(dataset),
        task=f"instance segmentation of {listed([s.name for s in dataset.structures])}",
        dataset=dataset.name,
        image_channels=[(channel.name, channel.modality) for channel in dataset.channels],
        labels=[(structure.name, structure.values) for structure in dataset.structures],
        spacing=spacing,
        in_pixels=fingerprint.in_pixels,
        patch_size=patch,
        batch_size=batch,
        network_def=definition,
        schemes=[scheme for scheme, _ in schemes],
        photographs=photograph,
        colors=dataset.colors,
        objects=True,
    )
    choices["tiles"] = Choice(
        {"tile_size": spec.tile_size, "overlap": spec.tile_overlap},
        f"objects are found in tiles of {TILE} pixels, or the patch where that is larger, which"
        " overlap by an eighth; by a quarter where the largest anchor is over a twelfth of a tile",
    )
    return Plan(spec, choices, fingerprint, memory_gb)


def _grid(
    fingerprint: Fingerprint, statistics: ObjectStatistics, choices: dict[str, Choice]
) -> tuple[tuple[float, ...], tuple[int, ...], float]:
    cases = fingerprint.cases
    if len(cases[0].shape) != 2:
        msg = f"network must be of 3D images where they are, got {MASK_RCNN}, which is of pictures."
        raise InputError(msg, code="unsupported-dimensions")
    own, _ = target_spacing([c.spacing for c in cases], [c.shape for c in cases])
    side = _quantile(statistics, 0.5)
    enlarged = min(MOST_ENLARGED, max(1.0, GOOD_SIDE_PX / side))
    enlarged = math.floor(enlarged * 4) / 4
    spacing = tuple(value / enlarged for value in own)
    shapes = [resampled_shape(c.shape, c.spacing, spacing) for c in cases]
    median = tuple(int(value) for value in np.median(np.array(shapes), axis=0))
    choices[fingerprint.spacing_key] = Choice(
        list(spacing),
        "median spacing; up to {MOST_ENLARGED:g} times finer where the median object has a side"
        f" under {GOOD_SIDE_PX:g} pixels",
        {"median_side_px": round(side, 2), "enlarged": enlarged, "median_shape": list(median)},
    )
    return spacing, median, enlarged


def _most_in_a_tile(
    fingerprint: Fingerprint, statistics: ObjectStatistics, tile_area: float
) -> int:
    """Return how many objects a tile would hold that is as dense as the densest image.

    An image smaller than the median one counts as large as that: a single object that fills a
    small crop says nothing of a whole tile.
    """
    areas = {
        case.case: math.prod(case.shape) * math.prod(case.spacing) for case in fingerprint.cases
    }
    median = float(np.median(list(areas.values())))
    most = max(
        sum(counts) * max(1.0, tile_area / max(areas[case], median))
        for case, counts in statistics.counts.items()
    )
    return math.ceil(most)


def _patch(
    median: tuple[int, ...], memory_gb: float, choices: dict[str, Choice]
) -> tuple[tuple[int, ...], int]:
    patch = tuple(
        min(LARGEST_TILE, max(STRIDE, math.ceil(extent / STRIDE) * STRIDE)) for extent in median
    )
    batch = int(memory_gb * 1e9 / 2 / (SAMPLE_BYTES_PER_PIXEL * math.prod(patch)))
    batch = max(1, min(8, batch))
    choices["patch_size"] = Choice(
        list(patch),
        f"the median image in multiples of {STRIDE} pixels, at most {LARGEST_TILE}; of training:"
        " objects are found in larger tiles, those of the inferer",
        {"median_shape": list(median)},
    )
    choices["batch_size"] = Choice(
        batch,
        "as many as half of the memory holds, at most 8",
        {"bytes_per_pixel": SAMPLE_BYTES_PER_PIXEL},
    )
    return patch, batch


def _network(
    dataset: LabelledDataset,
    statistics: ObjectStatistics,
    enlarged: float,
    densest: int,
    choices: dict[str, Choice],
) -> dict[str, Any]:
    low, high = (_quantile(statistics, q) * enlarged for q in (0.05, 0.95))
    first = min(LARGEST_FIRST_ANCHOR_PX, max(SMALLEST_ANCHOR_PX, low))
    levels = min(MOST_LEVELS, max(2, math.ceil(math.log2(max(high / first, 1.0)))))
    anchors = [[round(first * 2**level, 1)] for level in range(levels + 1)]
    ratios = [dict(zip(QUANTILES, statistics.all.ratios, strict=True))[q] for q in (0.05, 0.95)]
    aspect = [round(min(0.5, max(0.2, ratios[0])), 2), 1.0, round(max(2.0, min(5.0, ratios[1])), 2)]
    most = min(MOST_OBJECTS, max(FEWEST_OBJECTS, 2 * densest))
    choices["anchors"] = Choice(
        {"sizes_px": anchors, "aspect_ratios": aspect},
        "one size a level, doubling from the side that 5 % of the objects fall short of (from"
        f" {SMALLEST_ANCHOR_PX:g} to {LARGEST_FIRST_ANCHOR_PX:g}) to that of 95 %; aspect ratios of"
        " 1/2, 1 and 2, or what 5 % and 95 % of the boxes have where that is more",
        {"side_p05_px": round(low, 2), "side_p95_px": round(high, 2)},
    )
    choices["most_objects"] = Choice(
        most,
        f"twice what a tile as dense as the densest image holds, from {FEWEST_OBJECTS} to"
        f" {MOST_OBJECTS}",
        {"most_in_an_image": statistics.all.most_in_an_image, "most_in_a_tile": densest},
    )
    definition = {
        "_target_": "medseg.networks.MaskRcnn",
        "in_channels": len(dataset.channels),
        "num_classes": "@num_classes",
        "encoder": "resnet18",
        "levels": levels,
        "norm": "group",
        "channels": 128,
        "box_features": 512,
        "anchor_sizes": anchors,
        "aspect_ratios": aspect,
        "training_boxes": TRAINING_BOXES,
        "most_objects": most,
    }
    choices["network"] = Choice(
        definition,
        "mask_rcnn: ResNet-18 with group normalisation, which learns from random weights, and its"
        f" stages as far as the anchors reach; its heads learn from {TRAINING_BOXES} boxes an"
        " image, which takes a processor half the time of the 512 of the paper",
    )
    choices["objects"] = Choice(
        statistics.all.as_json(), "counts, sides, ratios and areas of the objects"
    )
    return definition


def _quantile(statistics: ObjectStatistics, quantile: float) -> float:
    return dict(zip(QUANTILES, statistics.all.sides, strict=True))[quantile]
