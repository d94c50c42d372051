"""Volume and Segmentation: an image on a grid, and the labels found in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from medseg.errors import Problem
from medseg.geometry import (
    SAME_GRID_TOLERANCE_VOXELS,
    Affine,
    axis_codes,
    grid_difference_voxels,
    reorientation,
    spacing_mm,
)

Format = Literal["dicom", "nifti", "itk", "raster", "memory"]

IGNORED = 255
"""Class number of pixels that are left out: no loss and no score counts them."""

DEFAULT_COLORS = (
    (230, 25, 75),
    (60, 180, 75),
    (255, 225, 25),
    (0, 130, 200),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
    (0, 128, 128),
    (170, 110, 40),
)
"""Twelve colours that stay apart on grey images; they repeat for more labels."""


@dataclass(frozen=True)
class NiftiForms:
    """What a NIfTI mask repeats of its source's header.

    Attributes:
        sform: (4, 4) as stored; RAS, mm.
        qform: (4, 4) as stored; RAS, mm.
        sform_code: NIfTI code, 0 when the sform is not set.
        qform_code: NIfTI code, 0 when the qform is not set.
        shape: Shape of the image on disk (2 to 4 axes).
        xyzt_units: The header's unit byte.
    """

    sform: Affine
    qform: Affine
    sform_code: int
    qform_code: int
    shape: tuple[int, ...]
    xyzt_units: int = 2


@dataclass(frozen=True)
class Source:
    """Where a volume came from, and what writing a mask back needs of it.

    Attributes:
        format: Family of the reader.
        path: File, or folder of a series. For the operator only: never written to an output.
        modality: DICOM modality (`CT`, `MR`, ...); empty when the format does not say.
        study_instance_uid: Of a DICOM source; for the operator and for DICOM outputs only.
        series_instance_uid: Of a DICOM source; for the operator and for DICOM outputs only.
        volume_id: The DICOM volume's id, which is also its case id.
        forms: Header forms of a NIfTI source.
        instances: DICOM files, in the order of the last voxel axis.
        has_spacing: False for a 2D image that states no physical pixel size.
        problems: Warnings met on reading.
        details: What one reader needs to give back to its own writer.
    """

    format: Format = "memory"
    path: Path | None = None
    modality: str = ""
    study_instance_uid: str = field(default="", repr=False)
    series_instance_uid: str = field(default="", repr=False)
    volume_id: str = ""
    forms: NiftiForms | None = field(default=None, repr=False)
    instances: tuple[Path, ...] = field(default=(), repr=False)
    has_spacing: bool = True
    problems: tuple[Problem, ...] = ()
    details: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, eq=False)
class Volume:
    """An image on a grid.

    Attributes:
        array: (C, I, J, K) in 3D, (C, rows, columns) in 2D; stored intensities (HU for CT).
        affine: (4, 4) from (i, j, k) to RAS mm; in 2D (3, 3) from (row, column) to mm from the
            centre of the first pixel.
        source: Where it came from.
    """

    array: npt.NDArray[Any]
    affine: Affine
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        dims = self.array.ndim - 1
        if dims not in (2, 3) or self.affine.shape != (dims + 1, dims + 1):
            msg = (
                "array must be (C, I, J, K) with a (4, 4) affine or (C, rows, columns) with a"
                f" (3, 3) affine, got {self.array.shape} with {self.affine.shape}"
            )
            raise ValueError(msg)

    def __repr__(self) -> str:
        """Say what it is in one line, not every voxel."""
        spacing = " x ".join(f"{value:.4g}" for value in self.spacing_mm)
        grid = f"{self.array.shape} {self.array.dtype}, {spacing} mm {self.orientation}".rstrip()
        return f"Volume({grid}, {self.source.format})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return self.array.shape[1:]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    @property
    def is_2d(self) -> bool:
        """Whether the volume is a 2D image of rows and columns."""
        return self.array.ndim == 3

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between voxel centres along each axis; mm."""
        return tuple(float(value) for value in spacing_mm(self.affine))

    @property
    def orientation(self) -> str:
        """Axis codes such as `RAS`; empty in 2D."""
        return "" if self.is_2d else axis_codes(self.affine)


def reoriented(volume: Volume, codes: str) -> Volume:
    """Return a view of a 3D volume whose axes point to given directions.

    Args:
        volume: The volume.
        codes: Three letters such as `RAS`, nearest to which the axes are brought.

    Returns:
        The volume; shares its memory.

    Raises:
        ValueError: If the letters do not name three directions.
    """
    axes, flips = reorientation(volume.affine, codes)
    array = volume.array.transpose(0, *(axis + 1 for axis in axes))
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        step[axis, new] = -1 if flip else 1
        if flip:
            array = np.flip(array, new + 1)
            step[axis, 3] = volume.shape[axis] - 1
    return replace(volume, array=array, affine=volume.affine @ step)


def ras_axes(volume: Volume) -> list[int]:
    """Return the axes of a volume in the order right-left, front-back, head-foot.

    Args:
        volume: The volume.

    Returns:
        Three axes; rows and columns of a 2D image.

    Examples:
        >>> ras_axes(Volume(np.zeros((1, 2, 3, 4)), np.eye(4)[[2, 0, 1, 3]]))
        [2, 0, 1]
    """
    if volume.is_2d:
        return [0, 1]
    codes = volume.orientation
    return [next(i for i, code in enumerate(codes) if code in pair) for pair in ("RL", "AP", "SI")]


def grid_difference(volume: Volume, other: Volume) -> str:
    """Say how the grids of two volumes differ, if they do.

    Grids are the same when they have one shape and no corner voxel differs by more than
    1e-3 voxel. 2D images without a pixel size are compared by shape alone.

    Args:
        volume: The first grid.
        other: The second.

    Returns:
        What differs; empty when nothing does.
    """
    if volume.shape != other.shape:
        return f"size {size_text(volume.shape)} against {size_text(other.shape)}"
    if volume.is_2d:
        comparable = volume.source.has_spacing and other.source.has_spacing
        same = np.allclose(volume.spacing_mm, other.spacing_mm, rtol=1e-4, atol=0)
        return "" if same or not comparable else _spacings(volume, other)
    gap = grid_difference_voxels(volume.shape, volume.affine, other.affine)
    if gap <= SAME_GRID_TOLERANCE_VOXELS:
        return ""
    if volume.orientation != other.orientation:
        return f"axes stored as {volume.orientation} against {other.orientation}"
    if not np.allclose(volume.spacing_mm, other.spacing_mm, rtol=1e-4, atol=0):
        return _spacings(volume, other)
    return f"the corners of the grids lie up to {gap:.3g} voxels apart"


def size_text(shape: Sequence[int]) -> str:
    """Return a shape as a user reads it.

    Args:
        shape: Voxels of each axis.

    Returns:
        Such as `512x512x40`.
    """
    return "x".join(str(n) for n in shape)


def _spacings(volume: Volume, other: Volume) -> str:
    texts = [" x ".join(f"{value:.4g}" for value in v.spacing_mm) for v in (volume, other)]
    return f"spacing {texts[0]} mm against {texts[1]} mm"


class Concept(NamedTuple):
    """A code of a terminology.

    Attributes:
        value: The code.
        scheme: Designator of the terminology in DICOM: `SCT` for SNOMED CT.
        meaning: What it means, for people.
    """

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Label:
    """One structure of a segmentation.

    Attributes:
        index: Value in the mask, from 1.
        name: The structure's name.
        color: Red, green, blue; 0 to 255.
        values: Of a region that others lie within: all values inside it, in masks and in label
            files; empty where that is `index` alone.
        code: What the structure is; None where only its name says so.
        category: What kind of structure it is, of DICOM's CID 7150.
    """

    index: int
    name: str
    color: tuple[int, int, int]
    values: tuple[int, ...] = ()
    code: Concept | None = None
    category: Concept | None = None

    @property
    def inside(self) -> tuple[int, ...]:
        """Values of the voxels that belong to the structure."""
        return self.values or (self.index,)


def make_labels(names: Sequence[str] | dict[int, str]) -> tuple[Label, ...]:
    """Give names indices from 1 and colours that stay apart.

    Args:
        names: Names in order of their index from 1, or index to name; index 0 is left out.

    Returns:
        Labels by rising index.

    Examples:
        >>> [label.index for label in make_labels(["liver", "tumour"])]
        [1, 2]
    """
    table = dict(enumerate(names, start=1)) if not isinstance(names, dict) else names
    return tuple(
        Label(index, table[index], DEFAULT_COLORS[(index - 1) % len(DEFAULT_COLORS)])
        for index in sorted(table)
        if index > 0
    )


def mask_dtype(largest_label: int) -> np.dtype[Any]:
    """Return the mask type that holds a label: uint8 up to 255, else uint16.

    Args:
        largest_label: Largest value in the mask.

    Returns:
        The numpy type.
    """
    return np.dtype(np.uint8 if largest_label <= 255 else np.uint16)


class Probabilities(Protocol):
    """Probabilities of classes or regions on the grid of a volume.

    Attributes:
        channels: Value in masks and name of each; of classes background is the first.
        exclusive: They are classes, which add up to 1; else regions.
    """

    channels: tuple[tuple[int, str], ...]
    exclusive: bool

    def channel(self, number: int) -> npt.NDArray[np.uint16]:
        """Return those of one class or region.

        Args:
            number: In the order of `channels`.

        Returns:
            In the shape of the grid; 0 to 65535, which stands for 1.
        """


@dataclass(frozen=True, eq=False)
class Segmentation:
    """All labels of a case, on the grid of its source.

    Attributes:
        array: (I, J, K) or (rows, columns); uint8 or uint16, 0 is background.
        affine: As of the source volume; RAS, mm.
        labels: The structures the mask can hold, background left out.
        source: Of the volume that was segmented.
        seconds: Time spent by stage; s.
        inference: How the networks were run: library, windows, memory.
        confidence: Label index to `{"probability", "entropy"}`, means over its voxels, where a
            network of classes or regions made the mask: `probability` of the label and `entropy` of
            all classes, 0 to 1, at the nearest voxel of the network's grid. Where another class is
            more probable there, the label is given no more than that class leaves. Of several
            bundles the mean.
        probabilities: Of every class in every voxel, where they were asked for.
    """

    array: npt.NDArray[Any]
    affine: Affine
    labels: tuple[Label, ...]
    source: Source = field(default_factory=Source)
    seconds: dict[str, float] = field(default_factory=dict)
    inference: dict[str, Any] = field(default_factory=dict)
    confidence: dict[int, dict[str, float]] = field(default_factory=dict)
    probabilities: "Probabilities | None" = None

    def __post_init__(self) -> None:
        if self.array.dtype not in (np.uint8, np.uint16):
            msg = f"array must be uint8 or uint16, got {self.array.dtype}"
            raise ValueError(msg)
        if self.affine.shape != (self.array.ndim + 1,) * 2:
            msg = f"affine must fit {self.array.ndim} axes, got shape {self.affine.shape}"
            raise ValueError(msg)

    def __repr__(self) -> str:
        """Say what it is in one line, not every voxel."""
        names = ", ".join(f"{label.index} {label.name}" for label in self.labels)
        return f"Segmentation({self.array.shape} {self.array.dtype}, labels: {names or 'none'})"
