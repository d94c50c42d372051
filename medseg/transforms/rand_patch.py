"""Take a training patch from a whole case, turned and scaled in the same step."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch.nn.functional import affine_grid, grid_sample

FOREGROUND_VOXEL = "foreground_voxel"
"""Key under which `medseg.data.PatchDataset` names a voxel that the patch has to contain."""


@dataclass(frozen=True)
class _Plan:
    """Where the voxels of a patch lie in the volume: at `matrix @ p + offset`.

    Attributes:
        start: (axes,) first voxel where nothing is turned or scaled.
        matrix: (axes, axes); None where nothing is.
        offset: (axes,).
    """

    start: npt.NDArray[np.int64]
    matrix: npt.NDArray[np.float64] | None = None
    offset: npt.NDArray[np.float64] | None = None


class RandPatchd(Randomizable, MapTransform):  # type: ignore[misc]  # monai is untyped
    """Take a patch at a random place, turned and scaled at random, reading only what it needs.

    Turning and scaling are one resampling, and only where they are drawn; else the patch is a
    plain copy. The source region is as large as the turned patch, so corners hold real data;
    outside the volume images are 0, and labels 0 or `label_outside`. Images are interpolated
    linearly, tensors of integers (labels, regions) take the nearest voxel.

    Where the data names a voxel under `FOREGROUND_VOXEL`, the patch is put around it and turned
    about it, so it always contains it. Else every place has equal chance at which the patch
    lies within the volume (in the middle, along an axis on which the volume is the smaller one).

    Returns plain, contiguous tensors of the same types as before.

    Args:
        keys: Tensors on one grid, (C, *spatial) each.
        patch_size: (axes,) voxels; 2 or 3 axes.
        rotate_degrees: Largest angle about each axis, either way; one number for all. In 2D one
            number; with `coarse_axis` only the angle about that axis is used. Degrees, in voxels.
        rotate_prob: How often a patch is turned.
        scale_range: Least and largest magnification: at 2 structures look twice as large. The
            same along all axes, the coarse one left out.
        scale_prob: How often a patch is scaled.
        coarse_axis: Axis whose slices lie far apart: turned about and never interpolated along.
        label_outside: Value of labels outside the volume: the one that losses leave out, where
            class 0 is a thing of its own.

    Raises:
        ValueError: If an argument cannot be used.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 4.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        rotate_degrees: float | Sequence[float] = 0.0,
        rotate_prob: float = 0.0,
        scale_range: Sequence[float] = (1.0, 1.0),
        scale_prob: float = 0.0,
        coarse_axis: int | None = None,
        label_outside: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.label_outside = int(label_outside)
        _check("label_outside must be from 0 to 255", label_outside, 0 <= label_outside <= 255)
        self.patch_size = tuple(int(size) for size in patch_size)
        axes = len(self.patch_size)
        _check("patch_size must be 2 or 3 sizes", patch_size, axes in (2, 3))
        _check("patch_size must be at least 1", patch_size, min(self.patch_size) >= 1)
        angles = [rotate_degrees] if isinstance(rotate_degrees, int | float) else rotate_degrees
        turns = 1 if axes == 2 else 3
        _check(
            f"rotate_degrees must be one number or {turns}",
            rotate_degrees,
            len(angles) in (1, turns),
        )
        self.rotate_degrees = tuple(float(a) for a in angles) * (turns // len(angles))
        for name, prob in (("rotate_prob", rotate_prob), ("scale_prob", scale_prob)):
            _check(f"{name} must be from 0 to 1", prob, 0 <= prob <= 1)
        self.rotate_prob, self.scale_prob = float(rotate_prob), float(scale_prob)
        low, high = (float(value) for value in scale_range)
        _check("scale_range must be two rising numbers above 0", scale_range, 0 < low <= high)
        self.scale_range = (low, high)
        _check(
            "coarse_axis must be an axis of a 3D patch, or None",
            coarse_axis,
            coarse_axis is None or (axes == 3 and coarse_axis in range(axes)),
        )
        self.coarse_axis = coarse_axis
        self._plan = _Plan(np.zeros(axes, np.int64))

    def randomize(
        self, shape: Sequence[int], voxel: npt.NDArray[np.integer[Any]] | None = None
    ) -> None:
        """Draw where the next patch lies, and how it is turned and scaled.

        Args:
            shape: (axes,) spatial shape of the volume.
            voxel: (axes,) voxel that the patch has to contain.
        """
        patch = np.asarray(self.patch_size)
        place = self.R.random_sample(len(patch))
        turned, scaled = self.R.random_sample(2)
        turns = self.R.uniform(-1.0, 1.0, len(self.rotate_degrees))
        scale = self.R.uniform(*self.scale_range)

        room = np.asarray(shape) - patch
        if voxel is None:
            start = np.where(room < 0, room // 2, np.floor(place * (room + 1)).astype(np.int64))
        else:
            around = np.clip(np.asarray(voxel) - patch // 2, 0, np.maximum(room, 0))
            start = np.where(room < 0, room // 2, around)
        angles = np.deg2rad(self.rotate_degrees) * turns if turned < self.rotate_prob else None
        magnified = scale if scaled < self.scale_prob else 1.0
        if angles is None and magnified == 1.0:
            self._plan = _Plan(start)
            return
        matrix = self._matrix(angles, magnified)
        fixed = start + (patch - 1) / 2 if voxel is None else np.asarray(voxel, np.float64)
        self._plan = _Plan(start, matrix, fixed - matrix @ (fixed - start))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Take the patch.

        Args:
            data: Tensors or arrays (C, *spatial) of one spatial shape; maybe a voxel under
                `FOREGROUND_VOXEL`.

        Returns:
            The data with (C, *patch_size) tensors in place of `keys`.

        Raises:
            ValueError: If the shapes differ from each other or from the patch's axes.
        """
        result = dict(data)
        keys = [key for key in self.keys if key in data or not self.allow_missing_keys]
        tensors = {key: _plain(data[key]) for key in keys}
        shapes = {tuple(tensor.shape[1:]) for tensor in tensors.values()}
        shape = shapes.pop()
        if shapes or len(shape) != len(self.patch_size):
            found = {str(key): tuple(tensor.shape) for key, tensor in tensors.items()}
            msg = f"data must have one spatial shape of {len(self.patch_size)} axes, got {found}."
            raise ValueError(msg)
        self.randomize(shape, data.get(FOREGROUND_VOXEL))
        for key, tensor in tensors.items():
            if self.label_outside and not tensor.is_floating_point():
                # outside stays 0, and 0 stands for the value in between
                result[key] = self._taken(tensor ^ self.label_outside) ^ self.label_outside
            else:
                result[key] = self._taken(tensor)
        return result

    def _taken(self, tensor: torch.Tensor) -> torch.Tensor:
        plan = self._plan
        if plan.matrix is None or plan.offset is None:
            return _crop(tensor, plan.start, self.patch_size)
        if self.coarse_axis is None:
            return _resample(tensor, plan.matrix, plan.offset, self.patch_size)
        return self._taken_in_planes(tensor, plan.matrix, plan.offset)

    def _taken_in_planes(
        self,
        tensor: torch.Tensor,
        matrix: npt.NDArray[np.float64],
        offset: npt.NDArray[np.float64],
    ) -> torch.Tensor:
        """Resample slices on their own: their axis becomes channels of a 2D image."""
        coarse = self.coarse_axis
        assert coarse is not None
        start = int(self._plan.start[coarse])
        first, stop = max(start, 0), min(start + self.patch_size[coarse], tensor.shape[coarse + 1])
        slices = tensor.narrow(coarse + 1, first, stop - first).movedim(coarse + 1, 1)
        fine = [axis for axis in range(3) if axis != coarse]
        size = tuple(self.patch_size[axis] for axis in fine)
        flat = _resample(slices, matrix[np.ix_(fine, fine)], offset[fine], size)
        result = flat.new_zeros((tensor.shape[0], self.patch_size[coarse], *size))
        result[:, first - start : stop - start] = flat
        return result.movedim(1, coarse + 1).contiguous()

    def _matrix(
        self, angles: npt.NDArray[np.float64] | None, magnified: float
    ) -> npt.NDArray[np.float64]:
        axes = len(self.patch_size)
        matrix = np.eye(3)
        if angles is not None and axes == 2:
            matrix = _rotation(2, angles[0])
        elif angles is not None:
            turned = range(3) if self.coarse_axis is None else [self.coarse_axis]
            for axis in turned:
                matrix = matrix @ _rotation(axis, angles[axis])
        fine = [axis for axis in range(axes) if axis != self.coarse_axis]
        matrix[np.ix_(fine, fine)] /= magnified
        return matrix[:axes, :axes]


def _check(rule: str, value: Any, holds: bool) -> None:
    if not holds:
        msg = f"{rule}, got {value!r}."
        raise ValueError(msg)


def _plain(value: Any) -> torch.Tensor:
    return torch.as_tensor(value).as_subclass(torch.Tensor)


def _rotation(axis: int, angle: float) -> npt.NDArray[np.float64]:
    """Return the (3, 3) rotation about an axis; radians."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[second, first] = np.sin(angle)
    matrix[first, second] = -matrix[second, first]
    return matrix


def _crop(tensor: torch.Tensor, start: npt.NDArray[np.int64], size: Sequence[int]) -> torch.Tensor:
    """Copy a box, with 0 outside the volume."""
    shape = tensor.shape[1:]
    low = [max(int(first), 0) for first in start]
    high = [min(int(f) + n, whole) for f, n, whole in zip(start, size, shape, strict=True)]
    inside = tensor[(slice(None), *map(slice, low, high))]
    if inside.shape[1:] == tuple(size):
        return inside.clone(memory_format=torch.contiguous_format)
    result = tensor.new_zeros((tensor.shape[0], *size))
    target = [slice(a - int(f), b - int(f)) for a, b, f in zip(low, high, start, strict=True)]
    result[(slice(None), *target)] = inside
    return result


def _resample(
    tensor: torch.Tensor,
    matrix: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
    size: Sequence[int],
) -> torch.Tensor:
    """Sample (..., *spatial) at `matrix @ p + offset` for each voxel p of a box of `size`.

    Only the part of the volume is read that the box covers; outside the volume is 0.
    """
    axes = len(size)
    corners = np.stack(np.meshgrid(*[[0, n - 1] for n in size], indexing="ij"), axis=-1)
    reached = corners.reshape(-1, axes) @ matrix.T + offset
    low = np.maximum(np.floor(reached.min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(reached.max(axis=0)).astype(int) + 2, tensor.shape[-axes:])
    leading = tensor.shape[:-axes]
    if (high <= low).any():
        return tensor.new_zeros((*leading, *size))
    box = tensor
    for axis, first, stop in zip(range(-axes, 0), low.tolist(), high.tolist(), strict=True):
        box = box.narrow(axis, first, stop - first)
    source = box.reshape(1, -1, *box.shape[-axes:])
    grid = _grid(matrix, offset - low, size, box.shape[-axes:])
    nearest = not tensor.is_floating_point()
    sampled = grid_sample(
        source.to(torch.float32),  # holds every uint8 and uint16 exactly
        grid,
        mode="nearest" if nearest else "bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return sampled.to(tensor.dtype).reshape(*leading, *size)


def _grid(
    matrix: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
    size: Sequence[int],
    box: Sequence[int],
) -> torch.Tensor:
    """Return the sampling grid in torch's terms: both boxes span -1 to 1, axes in reverse."""
    patch, source = np.asarray(size, np.float64), np.asarray(box, np.float64)
    # p = (u * patch + patch - 1) / 2 and x = matrix @ p + offset, then v = (2 x + 1) / source - 1
    theta = matrix * patch / source[:, None]
    shift = (matrix @ (patch - 1) + 2 * offset + 1) / source - 1
    whole = np.concatenate([theta[::-1, ::-1], shift[::-1, None]], axis=1)
    return affine_grid(
        torch.from_numpy(whole.astype(np.float32))[None], [1, 1, *size], align_corners=False
    )
