"""From a fingerprint to a plan: every choice with its rule and its numbers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from medseg.bundle.spec import BundleSpec
from medseg.data import LabelledDataset
from medseg.errors import UsageError
from medseg.planning.fingerprint import Fingerprint
from medseg.planning.network import (
    NETWORKS,
    Network,
    network_def,
    padded_patch,
    patch_divisors,
    supervised_levels,
)
from medseg.planning.normalization import photograph_schemes, scheme_for
from medseg.planning.patch import PatchPlan, plan_patch
from medseg.planning.seen import seen_in_training
from medseg.planning.spacing import (
    LOWRES_GAIN,
    LOWRES_THRESHOLD,
    coarser,
    resampled_shape,
    target_spacing,
)
from medseg.planning.topology import Topology

Configuration = Literal["auto", "2d", "3d", "3d_lowres"]
CONFIGURATIONS: tuple[Configuration, ...] = ("auto", "2d", "3d", "3d_lowres")

PHOTOGRAPHS = ("voc", "camvid", "coco", "labelme")
"""Kinds of datasets whose images have an up and a down, and classes that count alike."""
THINNEST_3D = 8
"""Images of fewer voxels along an axis, at the network's spacing, are treated slice by slice: a
3D network could not pool along it even once."""
ISOTROPIC_RATIO = 1.01
"""Axes of spacings nearer to each other than this are none coarser than the other."""
FEWEST_SLICES = 4
"""Images of fewer slices are not segmented, unless the network works slice by slice."""
IN_PLANE_RATIO = 3.0
"""Ratio of patch edges above which patches are turned within slices alone. Source: nnU-Net."""


@dataclass(frozen=True)
class Choice:
    """One choice of a plan.

    Attributes:
        value: What was chosen.
        rule: Why, in words.
        numbers: What the rule was applied to.
    """

    value: Any
    rule: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the choice as it stands in `plan.json`."""
        return {"value": self.value, "rule": self.rule, "numbers": self.numbers}


@dataclass(frozen=True)
class Plan:
    """A plan.

    Attributes:
        spec: The bundle that follows from it.
        choices: By name.
        fingerprint: What it was made from.
        memory_gb: Memory it was made for; GB.
    """

    spec: BundleSpec
    choices: dict[str, Choice]
    fingerprint: Fingerprint
    memory_gb: float

    def as_json(self) -> dict[str, Any]:
        """Return the document of `plan.json`."""
        return {
            "schema": 1,
            "memory_gb": self.memory_gb,
            "choices": {name: choice.as_json() for name, choice in self.choices.items()},
            "fingerprint": self.fingerprint.as_json(),
        }


@dataclass(frozen=True)
class _Grid:
    """A grid to plan a network on."""

    spacing: tuple[float, ...]
    median_shape: tuple[int, ...]
    plan: PatchPlan
    flat_axis: int | None = None

    @property
    def covered(self) -> float:
        return math.prod(self.plan.topology.patch_size) / math.prod(self.median_shape)


def make_plan(
    dataset: LabelledDataset,
    fingerprint: Fingerprint,
    *,
    name: str = "",
    network: Network = "dynunet",
    memory_gb: float = 8.0,
    configuration: Configuration = "auto",
) -> Plan:
    """Plan a bundle for a dataset.

    Args:
        dataset: The dataset.
        fingerprint: Of its training cases.
        name: Of the bundle; made of dataset and modality when empty.
        network: Which network.
        memory_gb: Memory of the device; GB.
        configuration: `2d` (slice by slice), `3d`, `3d_lowres`, or `auto`.

    Returns:
        The plan.

    Raises:
        UsageError: If the configuration does not go with the images.
    """
    classes = len(dataset.structures) + (not dataset.regions)
    choices: dict[str, Choice] = {}
    grids = _grids(fingerprint, classes, memory_gb, choices)
    chosen = _choose(configuration, grids, choices, fingerprint.spacing_key)
    grid = grids[chosen]
    topology = _with_flat_axis(grid.plan.topology, grid.flat_axis)
    patch = padded_patch(topology.patch_size, _divisors(network, topology, grid.flat_axis))
    definition = network_def(network, topology, channels=len(dataset.channels))
    _explain_patch(grid, patch, choices)
    choices["network"] = Choice(
        definition,
        f"{network}: 32 features doubling, at most {320 if len(patch) == 3 else 512}; an axis is"
        " pooled while 4 voxels are left and its spacing is less than twice the finest"
        if network in NETWORKS
        else f"{network}: chosen by hand, as its paper has it",
        {
            "poolings": list(grid.plan.topology.poolings),
            "supervised_levels": supervised_levels(topology) if network == "dynunet" else 0,
        },
    )
    schemes = [
        scheme_for(channel.modality, fingerprint.intensities[index], fingerprint.kept_share)
        for index, channel in enumerate(dataset.channels)
    ]
    if is_photograph(dataset, fingerprint):
        schemes = photograph_schemes()
    choices["normalization"] = Choice(
        [scheme for scheme, _ in schemes],
        "; ".join(rule for _, rule in schemes),
        {"kept_share_after_cropping": fingerprint.kept_share},
    )
    coarse = choices[fingerprint.spacing_key].numbers.get("coarse_axis")
    choices["resampling"] = Choice(
        {"image": 3, "label": 1, "coarse_axis": 0},
        "cubic splines, labels by their linearly interpolated masks; nearest across the slices of"
        " images whose coarsest spacing is over three times their finest",
        {"coarse_axis": coarse},
    )
    in_plane = grid.flat_axis
    if in_plane is None and len(patch) == 3:
        in_plane = _slab_axis(patch, grid.spacing)
    choices["augmentation"] = Choice(
        "in plane" if in_plane is not None or len(patch) == 2 else "3d",
        "patches over three times longer than thick, across the coarsest axis, are turned within"
        " their slices alone",
        {"patch_size": list(patch)},
    )
    choices["schedule"] = Choice(
        {"epochs": 1000, "iterations_per_epoch": 250, "lr": 0.002},
        "AdamW, a warm-up over 3 % of the training and a decay by half a cosine; under a time"
        " budget the share is that of the time",
    )
    spec = BundleSpec(
        name=name or bundle_name(dataset),
        task=f"segmentation of {listed([s.name for s in dataset.structures])}",
        dataset=dataset.name,
        image_channels=[(channel.name, channel.modality) for channel in dataset.channels],
        labels=[(structure.name, structure.values) for structure in dataset.structures],
        background=dataset.background,
        activation="sigmoid" if dataset.regions else "softmax",
        spacing=grid.spacing,
        in_pixels=fingerprint.in_pixels,
        seen=seen_in_training(fingerprint, absolute=_is_ct(dataset)),
        patch_size=patch,
        batch_size=grid.plan.batch_size,
        network_def=definition,
        schemes=[scheme for scheme, _ in schemes],
        coarse_axis=coarse,
        in_plane=in_plane,
        min_slices=1 if grid.flat_axis is not None else FEWEST_SLICES,
        ignored=dataset.ignored,
        first_class=dataset.background_name,
        photographs=dataset.kind in PHOTOGRAPHS,
        network_name="" if network in NETWORKS else network,
        colors=dataset.colors,
    )
    return Plan(spec, choices, fingerprint, memory_gb)


def _is_ct(dataset: LabelledDataset) -> bool:
    return all(channel.modality == "CT" for channel in dataset.channels)


def is_photograph(dataset: LabelledDataset, fingerprint: Fingerprint) -> bool:
    """Say whether images are photographs of 8 bits in colour.

    Args:
        dataset: The dataset.
        fingerprint: Of its training cases.
    """
    if dataset.kind not in PHOTOGRAPHS or len(dataset.channels) != 3:
        return False
    return all(channel["max"] <= 255 for channel in fingerprint.intensities)


def _slab_axis(patch: Sequence[int], spacing: Sequence[float]) -> int | None:
    """Return the axis that a patch is thin along, if it is."""
    if max(spacing) / min(spacing) >= ISOTROPIC_RATIO:
        axis = int(np.argmax(spacing))
        return axis if max(patch) / patch[axis] > IN_PLANE_RATIO else None
    thin, middle, _ = sorted(patch)  # a long patch is thin along two axes: it is no slab
    return int(np.argmin(patch)) if middle / thin > IN_PLANE_RATIO else None


def bundle_name(dataset: LabelledDataset) -> str:
    """Return a name of the form `<what>_<modality>`.

    Args:
        dataset: The dataset.

    Returns:
        Lower-case letters, digits and underscores.
    """
    what = re.sub(r"[^a-z0-9]+", "_", re.sub(r"^(Task|Dataset)\d+_", "", dataset.name).lower())
    kinds = dict.fromkeys(channel.modality.lower() for channel in dataset.channels)
    modality = "".join(kind for kind in kinds if kind)
    parts = [what.strip("_") or "bundle", {"mr": "mri", "pt": "pet"}.get(modality, modality)]
    return "_".join(part for part in parts if part)


def _grids(
    fingerprint: Fingerprint, classes: int, memory_gb: float, choices: dict[str, Choice]
) -> dict[str, _Grid]:
    cases = fingerprint.cases
    spacing, coarse = target_spacing(
        [case.spacing for case in cases], [case.cropped_shape for case in cases]
    )
    shapes = [resampled_shape(c.cropped_shape, c.spacing, spacing) for c in cases]
    median = tuple(int(value) for value in np.median(np.array(shapes), axis=0))
    voxels = float(math.prod(median)) * len(cases)
    choices[fingerprint.spacing_key] = Choice(
        list(spacing),
        "median spacing; along the coarse axis of anisotropic data (over three times the others,"
        " with under a third of their voxels) the 10th percentile",
        {"coarse_axis": coarse, "median_shape": list(median), "cases": len(cases)},
    )
    full = _Grid(
        spacing,
        median,
        plan_patch(spacing, median, dataset_voxels=voxels, classes=classes, memory_gb=memory_gb),
    )
    if len(spacing) == 2:
        return {"2d": full}
    grids = {"3d": full, "2d": _slices(spacing, median, voxels, classes, memory_gb)}
    low = _low_resolution(full, voxels, classes, memory_gb)
    if low is not None:
        grids["3d_lowres"] = low
    return grids


def _slices(
    spacing: Sequence[float],
    median: Sequence[int],
    voxels: float,
    classes: int,
    memory_gb: float,
) -> _Grid:
    """Plan a network that works slice by slice, across the coarsest axis, or one of few voxels."""
    isotropic = max(spacing) / min(spacing) < ISOTROPIC_RATIO
    thin = isotropic or min(median) < THINNEST_3D
    axis = int(np.argmin(median)) if thin else int(np.argmax(spacing))
    rest = [other for other in range(3) if other != axis]
    plan = plan_patch(
        [spacing[other] for other in rest],
        [median[other] for other in rest],
        dataset_voxels=voxels,
        classes=classes,
        memory_gb=memory_gb,
    )
    return _Grid(tuple(spacing), tuple(median), plan, flat_axis=axis)


def _low_resolution(full: _Grid, voxels: float, classes: int, memory_gb: float) -> _Grid | None:
    """Make the grid coarser until the patch covers a quarter of the median image."""
    if full.covered >= LOWRES_THRESHOLD:
        return None
    grid = full
    while grid.covered < LOWRES_THRESHOLD:
        spacing = coarser(grid.spacing)
        median = resampled_shape(full.median_shape, full.spacing, spacing)
        if max(median) < THINNEST_3D:
            return None
        plan = plan_patch(
            spacing, median, dataset_voxels=voxels, classes=classes, memory_gb=memory_gb
        )
        grid = _Grid(spacing, median, plan)
    gain = math.prod(full.median_shape) / math.prod(grid.median_shape)
    return grid if gain >= LOWRES_GAIN else None


def _choose(
    configuration: Configuration,
    grids: dict[str, _Grid],
    choices: dict[str, Choice],
    spacing_key: str,
) -> str:
    numbers = {
        "configurations": {
            name: {
                spacing_key: [round(v, 4) for v in grid.spacing],
                "patch_size": list(grid.plan.topology.patch_size),
                "batch_size": grid.plan.batch_size,
                "share_of_median_image": round(
                    math.prod(grid.plan.topology.patch_size) / math.prod(grid.median_shape), 4
                ),
            }
            for name, grid in grids.items()
        }
    }
    if configuration != "auto":
        if configuration not in grids:
            reason = "the images are 2D" if "3d" not in grids else "the 3D patch covers enough"
            msg = f"configuration must be among {', '.join(grids)}, got {configuration}: {reason}."
            raise UsageError(msg, code="no-such-configuration")
        choices["configuration"] = Choice(configuration, "chosen by hand", numbers)
        return configuration
    if "3d" not in grids:
        chosen, rule = "2d", "the images are 2D"
    elif min(grids["3d"].median_shape) < THINNEST_3D:
        chosen, rule = "2d", f"the median image has under {THINNEST_3D} voxels along an axis"
    else:
        chosen = "3d"
        rule = "3D at full resolution"
        if "3d_lowres" in grids:
            rule += (
                "; its patch covers under a quarter of the median image: compare with"
                " --configuration 3d_lowres"
            )
    choices["configuration"] = Choice(chosen, rule, numbers)
    return chosen


def _with_flat_axis(topology: Topology, axis: int | None) -> Topology:
    """Put an axis of single slices into a 2D topology."""
    if axis is None:
        return topology

    def put(values: Sequence[int]) -> tuple[int, ...]:
        return (*values[:axis], 1, *values[axis:])

    return Topology(
        put(topology.patch_size),
        tuple(put(stride) for stride in topology.strides),
        tuple(put(kernel) for kernel in topology.kernels),
        (*topology.poolings[:axis], 0, *topology.poolings[axis:]),
    )


def _divisors(network: Network, topology: Topology, flat_axis: int | None) -> tuple[int, ...]:
    if network != "dynunet" and flat_axis is not None:
        msg = f"network must be dynunet to work slice by slice in 3D, got {network}."
        raise UsageError(msg, code="no-such-configuration")
    return patch_divisors(network, topology)


def _explain_patch(grid: _Grid, patch: Sequence[int], choices: dict[str, Choice]) -> None:
    plan = grid.plan
    choices["patch_size"] = Choice(
        list(patch),
        "as wide in mm along each axis, within the median image; padded for the poolings, and"
        " shortened where it covers most of the image until the feature maps fit the memory",
        {
            "start": list(plan.start),
            "median_shape": list(grid.median_shape),
            "feature_map_voxels": plan.voxels,
            "budget_voxels": plan.budget,
        },
    )
    choices["batch_size"] = Choice(
        plan.batch_size,
        "as many as the memory holds, at most a twentieth of the dataset's voxels, at least 2",
        {"by_memory": plan.batch_by_memory, "by_twentieth": plan.batch_by_share},
    )


def listed(names: Sequence[str]) -> str:
    """Return names as a text has them: `a, b and c`.

    Args:
        names: At least one.
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
