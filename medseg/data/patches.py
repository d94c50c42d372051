"""Training samples by number: each the same, whoever makes it and whenever."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor, get_track_meta, set_track_meta
from torch.utils.data import Dataset

from medseg.data.threads import one_thread
from medseg.errors import SampleError, UsageError

FOREGROUND_VOXEL = "foreground_voxel"
"""Key of the voxel that a patch has to contain: (axes,) int. `RandPatchd` heeds it."""

_ENDLESS = 1 << 62  # numbers go on over the whole training; the largest len() allows is 2^63 - 1
_ORDER, _VOXEL, _GLOBAL, _TRANSFORMS = range(4)
"""Streams of random numbers that have nothing to do with each other."""


class Source(Protocol):
    """Where whole cases come from: `CachedDataset`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class PatchDataset(Dataset[dict[str, Any]]):
    """Augmented patches, numbered from 0 over the whole training.

    All that is random follows from the seed and the number alone, so that the sample is the same
    in every worker, with any prefetching and after a resume. A pass over all cases is an epoch:
    each case once, in an order of its own.

    The last positions of each batch have to show foreground, as in nnU-Net: a class that the case
    has, each with equal chance, and a voxel of it are drawn and passed on under
    `FOREGROUND_VOXEL`.

    Args:
        source: Cases: `case`, `image`, `label` and `foreground` (voxel coordinates by class).
        transforms: Instantiated transforms: the first takes the patch, the others augment it.
            They work on plain tensors; MONAI's tracking of metadata is off meanwhile.
        batch_size: Samples in a batch, of all ranks together where each takes a share.
        seed: Of the training.
        foreground_fraction: Share of each batch that has to show foreground; rounded, and at
            least one sample unless it is 0.

    Raises:
        UsageError: If an argument cannot be used.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2.
    """

    def __init__(
        self,
        source: Source,
        transforms: Sequence[Callable[[Any], Any]],
        batch_size: int,
        seed: int,
        foreground_fraction: float = 0.33,
    ) -> None:
        _check("source must hold at least one case", len(source), len(source) > 0)
        _check("batch_size must be at least 1", batch_size, batch_size >= 1)
        _check("seed must be at least 0", seed, seed >= 0)
        _check(
            "foreground_fraction must be from 0 to 1",
            foreground_fraction,
            0 <= foreground_fraction <= 1,
        )
        _check("transforms must be a list of transforms", transforms, not callable(transforms))
        self.source = source
        self.transforms = tuple(transforms)
        self.batch_size = int(batch_size)
        self.seed = int(seed)
        self.forced = _forced(self.batch_size, foreground_fraction)
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        streams = _TRANSFORMS + len(self.transforms)
        self._generators = [np.random.RandomState(0) for _ in range(streams)]

    def __len__(self) -> int:
        return _ENDLESS

    def case_index(self, number: int) -> int:
        """Return which case of the source a sample is taken from.

        Args:
            number: Of the sample, from 0 over the whole training.

        Returns:
            Position in the source.
        """
        epoch, position = divmod(number, len(self.source))
        if self._order[0] != epoch:
            order = self._random(epoch, _ORDER).permutation(len(self.source))
            self._order = (epoch, order.astype(np.int64))
        return int(self._order[1][position])

    def is_forced(self, number: int) -> bool:
        """Tell whether a sample has to show foreground.

        Args:
            number: Of the sample.

        Returns:
            Whether it is among the last of its batch.
        """
        return number % self.batch_size >= self.batch_size - self.forced

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Make a sample.

        Args:
            number: Of the sample, from 0 over the whole training.

        Returns:
            `case`: id; `image`: (C, *patch) float32; `label`: (1 or regions, *patch); and what
            the transforms add.

        Raises:
            SampleError: If a transform fails; names the case and the transform.
        """
        if number < 0:
            msg = f"number must be at least 0, got {number!r}. Count samples over the training."
            raise IndexError(msg)
        data: Any = dict(self.source[self.case_index(number)])
        case = data["case"]
        foreground = data.pop("foreground")
        if self.is_forced(number) and foreground:
            data[FOREGROUND_VOXEL] = _draw(foreground, self._random(number, _VOXEL))
        with one_thread(), _plain_tensors(), _seeded(self._random(number, _GLOBAL)):
            for step, transform in enumerate(self.transforms):
                with _naming(case, number, step, transform):
                    if hasattr(transform, "set_random_state"):
                        transform.set_random_state(state=self._random(number, _TRANSFORMS + step))
                    data = _checked(transform(data))
        data.pop(FOREGROUND_VOXEL, None)
        return {key: _contiguous(value) for key, value in data.items()}

    def _random(self, number: int, stream: int) -> np.random.RandomState:
        """Seed a generator of the kind that MONAI's transforms take; a new one costs more."""
        generator = self._generators[stream]
        generator.seed(np.random.SeedSequence((self.seed, number, stream)).generate_state(4))
        return generator


def _check(rule: str, value: Any, holds: bool) -> None:
    if not holds:
        msg = f"{rule}, got {value!r}."
        raise UsageError(msg)


def _forced(batch_size: int, fraction: float) -> int:
    return max(1, round(batch_size * fraction)) if fraction > 0 else 0


def _draw(
    foreground: Mapping[int, npt.NDArray[np.integer[Any]]], draw: np.random.RandomState
) -> npt.NDArray[np.int64]:
    classes = sorted(foreground)
    voxels = foreground[classes[draw.randint(len(classes))]]
    return np.asarray(voxels[draw.randint(len(voxels))], np.int64)


def _checked(data: Any) -> dict[str, Any]:
    if isinstance(data, Mapping):
        return dict(data)
    msg = f"it must return one sample, got {type(data).__name__}"
    raise TypeError(msg)


def _contiguous(value: Any) -> Any:
    if isinstance(value, MetaTensor):
        value = value.as_tensor()
    return value.contiguous() if isinstance(value, torch.Tensor) else value


@contextmanager
def _naming(case: str, number: int, step: int, transform: Any) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        name = type(transform).__name__
        msg = (
            f"case {case}, sample {number}: {name} (number {step} of the augmentation) failed: "
            f"{type(error).__name__}: {error}"
        )
        raise SampleError(msg) from error


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Have MONAI's transforms return plain tensors: metadata costs more than the augmentation."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


@contextmanager
def _seeded(draw: np.random.RandomState) -> Iterator[None]:
    """Seed the global generators for transforms that use them, and put them back afterwards."""
    seeds = [int(seed) for seed in draw.randint(1 << 31, size=3)]
    kept = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    random.seed(seeds[0])
    np.random.seed(seeds[1])  # noqa: NPY002
    torch.default_generator.manual_seed(seeds[2])  # of the processor alone
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        torch.default_generator.set_state(kept[2])
