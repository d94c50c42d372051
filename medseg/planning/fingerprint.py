"""What a dataset is like: spacings, shapes, intensities, how much of each label there is.

Source: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.data import LabelledDataset, TrainingCase
from medseg.errors import InputError
from medseg.io.label_parts import boxes_of
from medseg.io.masks import read_mask
from medseg.io.objects import read_objects
from medseg.io.read import read_channels
from medseg.volume import Label, ras_axes

SAMPLES = 10_000
"""Foreground voxels of a case whose intensities are looked at."""
SEED = 1234

Statistics = Mapping[str, float]


@dataclass(frozen=True)
class CaseFingerprint:
    """What one case is like; axes in the order of RAS, rows and columns in 2D.

    Attributes:
        case: Its id.
        spacing: Along each axis; mm, or 1 where the images of the dataset are taken in pixels.
        shape: Voxels along each axis.
        cropped_shape: Voxels of the box around what is not zero.
        label_voxels: Voxels of each structure, in order.
        states_spacing: Its image states the size of a pixel.
        label_components: Connected components of each structure, of 3D images.
        foreground_means: Of each channel, the mean inside all structures.
    """

    case: str
    spacing: tuple[float, ...]
    shape: tuple[int, ...]
    cropped_shape: tuple[int, ...]
    label_voxels: tuple[int, ...]
    states_spacing: bool = True
    label_components: tuple[int, ...] = ()
    foreground_means: tuple[float, ...] = ()

    @property
    def kept_share(self) -> float:
        """Share of the voxels that cropping to non-zero keeps."""
        return float(np.prod(self.cropped_shape) / np.prod(self.shape))


@dataclass(frozen=True)
class Fingerprint:
    """What a dataset is like.

    Where one image states no size of its pixels, all are taken in pixels, and the sizes that
    others state are not looked at.

    Attributes:
        cases: One entry a case.
        intensities: For each channel `mean`, `std`, `median`, `min`, `max`, `p00_5` and `p99_5`
            of the foreground of all cases.
        structures: Names, in order.
    """

    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[Statistics, ...]
    structures: tuple[str, ...] = field(default=())

    @property
    def in_pixels(self) -> bool:
        """Whether the spacing is in pixels, since images state no size of them."""
        return not all(case.states_spacing for case in self.cases)

    @property
    def spacing_key(self) -> str:
        """Key of the spacing in `plan.json`, which says its unit."""
        return "spacing_px" if self.in_pixels else "spacing_mm"

    @property
    def steps(self) -> dict[str, tuple[float, ...]]:
        """Size of a voxel of each case in that of the median voxel."""
        median = np.median([case.spacing for case in self.cases], axis=0)
        return {case.case: tuple(case.spacing / median) for case in self.cases}

    @property
    def kept_share(self) -> float:
        """Median share of an image that cropping to non-zero keeps."""
        return float(np.median([case.kept_share for case in self.cases]))

    @property
    def _size_key(self) -> str:
        if self.in_pixels:
            return "median_px"
        return "median_ml" if len(self.cases[0].shape) == 3 else "median_mm2"

    def as_json(self) -> dict[str, Any]:
        """Return the fingerprint as it stands in `plan.json`."""
        spacings = np.array([case.spacing for case in self.cases])
        shapes = np.array([case.cropped_shape for case in self.cases])
        volumes = [
            {
                "name": name,
                "cases": sum(case.label_voxels[index] > 0 for case in self.cases),
                self._size_key: _median_size(self.cases, index),
            }
            for index, name in enumerate(self.structures)
        ]
        return {
            "cases": len(self.cases),
            self.spacing_key: _quartiles(spacings),
            "cropped_shape": _quartiles(shapes),
            "kept_share": self.kept_share,
            "intensities": [dict(channel) for channel in self.intensities],
            "structures": volumes,
        }


def fingerprint(
    dataset: LabelledDataset,
    cases: Sequence[TrainingCase] | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Read every case and describe the dataset.

    Args:
        dataset: The dataset.
        cases: Those to look at; all labelled ones when left out.
        workers: Threads; the number of cores when left out.
        progress: Called with the cases done and their number.

    Returns:
        The fingerprint.

    Raises:
        InputError: If no case has foreground (`no-foreground`), or images are of two and of three
            dimensions (`mixed-dimensions`).
    """
    looked_at = dataset.cases if cases is None else tuple(cases)
    found: list[CaseFingerprint] = []
    samples: list[npt.NDArray[np.float32]] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = pool.map(lambda case: _look_at(case, dataset), looked_at)
        for number, (entry, sample) in enumerate(results, start=1):
            found.append(entry)
            samples.append(sample)
            if progress is not None:
                progress(number, len(looked_at))
    if len({len(entry.shape) for entry in found}) > 1:
        msg = "images must all be of two or all of three dimensions, got both."
        raise InputError(msg, code="mixed-dimensions")
    if not all(entry.states_spacing for entry in found):
        found = [replace(entry, spacing=(1.0,) * len(entry.shape)) for entry in found]
    values = np.concatenate(samples, axis=1)
    if values.shape[1] == 0:
        msg = "labels must hold foreground, got none in any case."
        raise InputError(msg, code="no-foreground")
    return Fingerprint(
        cases=tuple(found),
        intensities=tuple(_statistics(channel) for channel in values),
        structures=tuple(structure.name for structure in dataset.structures),
    )


def _look_at(
    case: TrainingCase, dataset: LabelledDataset
) -> tuple[CaseFingerprint, npt.NDArray[np.float32]]:
    image = read_channels(case.images, channels=len(dataset.channels))
    label = _values_of(case.label, dataset) if case.label else None
    order = ras_axes(image)
    voxels, sample = (0,) * len(dataset.structures), np.empty((image.channels, 0), np.float32)
    components: tuple[int, ...] = ()
    if label is not None:
        voxels = _label_voxels(label, dataset)
        components = _label_components(label, dataset)
        sample = _sample(case.case_id, image.array, label, dataset)
    cropped = _cropped_shape(image.array)
    entry = CaseFingerprint(
        case=case.case_id,
        spacing=tuple(image.spacing_mm[axis] for axis in order),
        shape=tuple(image.shape[axis] for axis in order),
        cropped_shape=tuple(cropped[axis] for axis in order),
        label_voxels=voxels,
        states_spacing=image.source.has_spacing,
        label_components=components,
        foreground_means=tuple(float(one.mean()) for one in sample if len(one)),
    )
    return entry, sample


def _values_of(label: Path, dataset: LabelledDataset) -> npt.NDArray[Any]:
    """Return the value of each voxel; of objects that of the one seen, the bad ones left out."""
    if not dataset.objects:
        values: npt.NDArray[Any] = read_mask(label).array[0]
        return values
    objects, _ = read_objects(label)
    single = objects.chosen(~objects.crowd)
    return single.painted(single.classes)


def _cropped_shape(array: npt.NDArray[Any]) -> tuple[int, ...]:
    inside = (array != 0).any(axis=0)
    shape = []
    for axis in range(inside.ndim):
        others = tuple(other for other in range(inside.ndim) if other != axis)
        positions = np.flatnonzero(inside.any(axis=others))
        shape.append(
            int(positions[-1] - positions[0] + 1) if len(positions) else inside.shape[axis]
        )
    return tuple(shape)


def _label_voxels(label: npt.NDArray[Any], dataset: LabelledDataset) -> tuple[int, ...]:
    values, counts = np.unique(label, return_counts=True)
    count_of = dict(zip((int(value) for value in values), counts.tolist(), strict=True))
    return tuple(sum(count_of.get(v, 0) for v in s.values) for s in dataset.structures)


def _label_components(label: npt.NDArray[Any], dataset: LabelledDataset) -> tuple[int, ...]:
    """Count the components of each structure; voxels that share a corner are connected."""
    if label.ndim == 2:
        return ()
    labels = [Label(1, one.name, (0, 0, 0), tuple(one.values)) for one in dataset.structures]
    counts = []
    for structure, box in zip(labels, boxes_of(label, labels), strict=True):
        inside = () if box is None else np.isin(label[box], structure.inside)
        counts.append(ndimage.label(inside, np.ones((3, 3, 3)))[1] if box is not None else 0)
    return tuple(counts)


def _sample(
    case: str, image: npt.NDArray[Any], label: npt.NDArray[Any], dataset: LabelledDataset
) -> npt.NDArray[np.float32]:
    """Return (C, N) intensities of foreground voxels, drawn by the name of the case."""
    foreground = np.flatnonzero(~np.isin(label, (*dataset.background, *dataset.ignored)))
    rng = np.random.default_rng((SEED, *case.encode()))
    if len(foreground):  # as many of every case, however small its structures are
        whole, rest = divmod(SAMPLES, len(foreground))
        drawn = rng.choice(foreground, rest, replace=False)
        foreground = np.concatenate([np.tile(foreground, whole), drawn])
    return image.reshape(len(image), -1)[:, foreground].astype(np.float32)


def _statistics(values: npt.NDArray[np.float32]) -> Statistics:
    low, median, high = np.percentile(values, [0.5, 50, 99.5])
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "median": float(median),
        "min": float(values.min()),
        "max": float(values.max()),
        "p00_5": float(low),
        "p99_5": float(high),
    }


def _quartiles(table: npt.NDArray[Any]) -> dict[str, list[float]]:
    names = {"min": 0, "p10": 10, "median": 50, "p90": 90, "max": 100}
    return {
        name: [round(float(v), 4) for v in np.percentile(table, percent, axis=0)]
        for name, percent in names.items()
    }


def _median_size(cases: Sequence[CaseFingerprint], index: int) -> float | None:
    """Return the median of a structure where it is; ml, mm2 or px."""
    sizes = [
        case.label_voxels[index] * float(np.prod(case.spacing))
        for case in cases
        if case.label_voxels[index]
    ]
    if not sizes:
        return None
    in_ml = len(cases[0].shape) == 3
    return round(float(np.median(sizes)) / (1000 if in_ml else 1), 4)
