"""Where the windows of an image lie, and what each of their voxels counts."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  (as all of torch's own code calls it)
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import SlidingWindowInferer
from monai.inferers.utils import _get_scan_interval  # the one rule for the steps
from monai.utils import ensure_tuple_rep, fall_back_tuple

SCATTERED_COST = 2.0
"""Factor of memory that is worth to be spent on planes that do not lie scattered in it."""


MOST_LOOKED_AT = 64
"""Windows among which a lively one is looked for."""


@dataclass(frozen=True)
class Windows:
    """Windows over one image, as MONAI's sliding window places and weighs them.

    Attributes:
        shape: Of the image; voxels.
        size: Of a window; voxels.
        starts: Of each axis, the first voxels of its windows in the padded image, ascending.
        before: Voxels padded before each axis, where the image is smaller than a window.
        importance: (*size) what a voxel counts where windows overlap.
        mode: Of the padding, as `torch.nn.functional.pad` names it.
        value: Of constant padding.
        half_sums: The sums of overlapping windows are rounded to float16, as nnU-Net rounds them.
    """

    shape: tuple[int, ...]
    size: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    before: tuple[int, ...]
    importance: torch.Tensor
    mode: str = "constant"
    value: float = 0.0
    half_sums: bool = False

    @property
    def count(self) -> int:
        """Windows in all."""
        total = 1
        for starts in self.starts:
            total *= len(starts)
        return total

    @property
    def most_over_a_voxel(self) -> int:
        """The largest number of windows that cover a voxel."""
        most = 1
        for starts, size in zip(self.starts, self.size, strict=True):
            most *= max(sum(a <= start < a + size for a in starts) for start in starts)
        return most

    @property
    def padded_shape(self) -> tuple[int, ...]:
        """Of the image with its padding."""
        return tuple(max(pair) for pair in zip(self.shape, self.size, strict=True))

    def padded(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image with its padding.

        Args:
            image: (C, *shape).

        Returns:
            (C, *padded_shape); the image itself where nothing is padded.
        """
        if self.padded_shape == self.shape:
            return image
        amounts = []
        for axis in reversed(range(len(self.shape))):
            whole = self.padded_shape[axis] - self.shape[axis]
            amounts += [self.before[axis], whole - self.before[axis]]
        return F.pad(image[None], amounts, mode=self.mode, value=self.value)[0]

    def row_voxels(self, axis: int) -> int:
        """Return the voxels of one row of windows.

        Args:
            axis: The axis that rows follow on each other along.

        Returns:
            Voxels.
        """
        return math.prod(self.padded_shape) // self.padded_shape[axis] * self.size[axis]

    @property
    def cheapest_walk(self) -> int:
        """The axis along which a row of windows costs least."""
        return min(range(len(self.size)), key=self.walk_cost)

    def walk_cost(self, axis: int) -> float:
        """Return what it costs to walk along an axis.

        Planes across the last axis lie scattered in memory: it is taken only where it saves a lot.

        Args:
            axis: The axis that rows follow on each other along.

        Returns:
            Voxels of a row of windows, more of them along the last axis.
        """
        last = axis == len(self.size) - 1
        return self.row_voxels(axis) * (SCATTERED_COST if last else 1.0)

    def part(self, axis: int, low: int, high: int) -> tuple["Windows", int]:
        """Return the windows that cover some voxels along an axis, as those of a smaller image.

        Args:
            axis: One that is not padded.
            low: The lowest voxel.
            high: The highest voxel.

        Returns:
            The windows, and where the smaller image begins along the axis.
        """
        size = self.size[axis]
        own = [start for start in self.starts[axis] if low - size < start <= high]
        shape, starts = list(self.shape), list(self.starts)
        shape[axis] = own[-1] + size - own[0]
        starts[axis] = tuple(start - own[0] for start in own)
        return replace(self, shape=tuple(shape), starts=tuple(starts)), own[0]

    def widest_strip(self, strips: int) -> "Windows":
        """Return the windows of the strip that takes most, see `restore_mask`.

        Args:
            strips: Strips that the image is cut into.

        Returns:
            The windows; all where they cannot be cut.
        """
        walk = self.cheapest_walk
        axis = max(
            (a for a in range(len(self.size)) if a != walk), key=lambda a: len(self.starts[a])
        )
        if strips == 1 or len(self.starts[axis]) == 1:
            return self
        extent = self.shape[axis]
        bounds = [extent * number // strips for number in range(strips + 1)]
        parts = [self.part(axis, low, min(high, extent - 1))[0] for low, high in pairwise(bounds)]
        return max(parts, key=lambda part: part.row_voxels(part.cheapest_walk))

    def liveliest(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return windows of an image in which there is something to be found.

        Args:
            image: (C, *shape).

        Returns:
            (1, C, *size) each: that in which values vary most, and that in the middle.
        """
        padded = self.padded(image)
        places = list(product(*self.starts))
        middle = tuple(starts[len(starts) // 2] for starts in self.starts)
        several = [*places[:: -(-len(places) // MOST_LOOKED_AT)], middle]
        step = (slice(None), *(slice(None, None, max(1, n // 16)) for n in self.size))

        def spread(place: tuple[int, ...]) -> float:
            return float(self.cut(padded, place)[step].float().std(correction=0))

        best = max(several, key=spread)
        return [self.cut(padded, place)[None] for place in dict.fromkeys((best, middle))]

    def cut(self, padded: torch.Tensor, place: Sequence[int]) -> torch.Tensor:
        """Return the window at a place.

        Args:
            padded: (C, *padded_shape).
            place: Its first voxel.

        Returns:
            (C, *size), a view.
        """
        spans = (slice(a, a + n) for a, n in zip(place, self.size, strict=True))
        return padded[(slice(None), *spans)]

    def across(self, axis: int) -> Iterator[tuple[int, ...]]:
        """Yield the starts of the windows of one row along the other axes.

        Args:
            axis: The axis that rows follow on each other along.

        Yields:
            Starts of each axis; 0 for `axis`.
        """
        yield from product(*((0,) if a == axis else starts for a, starts in enumerate(self.starts)))


def even_starts(extent: int, window: int, overlap: float) -> tuple[int, ...]:
    """Return where windows begin that overlap by the same share or more, all about equally.

    MONAI's begin at multiples of the step, and the last one is moved back into the image.

    Args:
        extent: Of the image, at least a window; voxels.
        window: Its voxels.
        overlap: Smallest share of a window that the next one sees as well, 0 to below 1.

    Returns:
        First voxels, ascending.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, methods ("inference"), and its code.

    Examples:
        >>> even_starts(110, 64, 0.5)
        (0, 23, 46)
    """
    room = extent - window
    steps = math.ceil(room / (window * (1 - overlap)))
    between = (round(room / steps * number) for number in range(steps))
    return tuple(sorted({*between, room}))  # windows of one voxel would come twice


def whole_image(shape: Sequence[int]) -> Windows:
    """Return one window over an image.

    Args:
        shape: Of the image; voxels.

    Returns:
        The window; its voxels have no weights.
    """
    shape, nothing = tuple(int(n) for n in shape), (0,) * len(shape)
    return Windows(shape, shape, tuple((0,) for _ in shape), nothing, torch.empty(0))


def windows_of(
    inferer: SlidingWindowInferer, shape: Sequence[int], device: torch.device
) -> Windows:
    """Return the windows that MONAI's inferer lays over an image.

    Args:
        inferer: With its window, overlap and weights.
        shape: Of the image; voxels.
        device: Where the weights are wanted.

    Returns:
        The windows.
    """
    shape = tuple(int(n) for n in shape)
    size = tuple(int(n) for n in fall_back_tuple(inferer.roi_size, shape))
    padded = tuple(max(pair) for pair in zip(shape, size, strict=True))
    overlap = ensure_tuple_rep(inferer.overlap, len(shape))
    interval = _get_scan_interval(padded, size, len(shape), overlap)
    slices = dense_patch_slices(padded, size, interval)
    starts = tuple(
        tuple(sorted({int(window[axis].start) for window in slices})) for axis in range(len(shape))
    )
    if getattr(inferer, "even_steps", False):
        starts = tuple(
            even_starts(extent, window, share)
            for extent, window, share in zip(padded, size, overlap, strict=True)
        )
    weights: Any = inferer.roi_weight_map
    if weights is None:
        weights = compute_importance_map(
            size, mode=inferer.mode, sigma_scale=inferer.sigma_scale, device="cpu"
        )
    importance = torch.as_tensor(weights, dtype=torch.float32, device=device).reshape(size)
    return Windows(
        shape=shape,
        size=size,
        starts=starts,
        before=tuple((p - n) // 2 for p, n in zip(padded, shape, strict=True)),
        importance=importance,
        mode=str(getattr(inferer.padding_mode, "value", inferer.padding_mode)),
        value=float(inferer.cval),
        half_sums=bool(getattr(inferer, "half_sums", False)),
    )
