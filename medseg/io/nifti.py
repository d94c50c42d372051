"""NIfTI-1 and NIfTI-2 files: the one place that touches nibabel."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from medseg.errors import GeometryError, InputError, Problem, UsageError
from medseg.geometry import (
    SAME_GRID_TOLERANCE_VOXELS,
    Affine,
    apply_affine,
    corners,
    grid_difference_voxels,
    orthonormalised,
    spacing_mm,
)
from medseg.io import gzip
from medseg.io.atomic import atomic_path
from medseg.io.voxels import checked_finite, choose_frames, read_voxels, write_voxels
from medseg.volume import NiftiForms, Segmentation, Source, Volume, mask_dtype

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
_SINGLE_MAGIC = (b"n+1", b"n+2")
_PAIR_MAGIC = (b"ni1", b"ni2")
_EXTENSION_FLAG = 4  # bytes after the header; zeros say that no extension follows
_MM_PER_UNIT = {1: 1000.0, 2: 1.0, 3: 0.001}  # metre, millimetre, micrometre
_SECONDS = 8  # unit code of the time axis
_LARGEST_NIFTI1_AXIS = 32767

# What a mask repeats byte for byte of its source's header: geometry, and nothing else.
_KEPT_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


@dataclass(frozen=True)
class NiftiInfo:
    """What the header of a NIfTI file says.

    Attributes:
        shape: Voxels along each axis on disk, 2 to 7 axes.
        dtype: Type on disk, with its byte order.
        affine: (4, 4); RAS, mm.
        forms: What a mask repeats.
        slope: Factor of the stored values.
        inter: Intercept of the stored values.
        problems: Warnings.
        details: The header fields that the forms do not hold exactly.
        data_path: File that holds the voxels.
        data_offset: Bytes before the first voxel.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    affine: Affine
    forms: NiftiForms
    slope: float
    inter: float
    problems: tuple[Problem, ...]
    details: dict[str, Any]
    data_path: Path
    data_offset: int

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along (i, j, k)."""
        return (*self.shape, 1, 1)[:3]

    @property
    def frames(self) -> int:
        """Number of 3D images in the file."""
        return int(np.prod(self.shape[3:], dtype=np.int64))


def read_nifti_info(path: Path) -> NiftiInfo:
    """Read the header of a NIfTI file, and no voxel.

    Args:
        path: `.nii`, `.nii.gz`, or the `.hdr` of a pair.

    Returns:
        Shape, grid and problems.

    Raises:
        InputError: If it is not a NIfTI file, or not one of 2 to 4 axes.
        GeometryError: If its affine is sheared or not finite.
    """
    path = Path(path)
    with gzip.input_errors(path), gzip.open_read(path) as stream:
        header, size = _read_header(stream, path)
    dims = [int(value) for value in header["dim"]]
    shape = _checked_shape(dims, path)
    dtype = _checked_dtype(header, path)
    problems: list[Problem] = []
    with _geometry_errors(path), np.errstate(over="ignore", invalid="ignore"):
        affine, forms = _geometry(header, shape, problems)
    slope, inter = _scaling(header, path)
    single = bytes(header["magic"])[:3] in _SINGLE_MAGIC
    offset = int(header["vox_offset"])
    if single:
        offset = max(offset, size + _EXTENSION_FLAG) if offset <= 0 else offset
    if offset < 0 or (single and offset < size):
        msg = f"vox_offset must lie behind the header, got {offset} in {path.name}."
        raise InputError(msg)
    info = NiftiInfo(
        shape, dtype, affine, forms, slope, inter, tuple(problems), _details(header),
        path if single else _data_file(path), offset,
    )  # fmt: skip
    _check_length(info)
    return info


def read_nifti(
    path: Path, *, frame: int | None = None, channels: int = 1, allow_non_finite: bool = False
) -> Volume:
    """Read a NIfTI image.

    The sform gives the affine where its code is above 0, else the qform. Integers stay integers
    where the rescale allows; everything else is float32. A 2D image becomes one slice. A 4D image
    becomes several channels when its last axis is as long as `channels`; else `frame` has to
    choose.

    Args:
        path: `.nii`, `.nii.gz`, or the `.hdr` of a pair.
        frame: Which 3D image of a 4D file, from 0.
        channels: How many channels the reader of the volume expects.
        allow_non_finite: Keep NaN and infinite voxels, with a warning, instead of refusing them.

    Returns:
        Volume (C, I, J, K).

    Raises:
        InputError: Codes `not-found`, `unreadable`, `truncated`, `needs-frame`,
            `frame-out-of-range`, `unsupported-dimensions`, `unsupported-data-type`, `non-finite`.
        GeometryError: If the affine is sheared (`sheared-affine`) or not finite (`geometry`).
    """
    path = Path(path)
    info = read_nifti_info(path)
    first, count = choose_frames(info.frames, path, frame, channels)
    frame_bytes = int(np.prod(info.size, dtype=np.int64)) * info.dtype.itemsize
    with gzip.input_errors(path), gzip.open_read(info.data_path) as stream:
        gzip.skip(stream, info.data_offset + first * frame_bytes)
        array = read_voxels(
            stream, (*info.size, count), info.dtype, slope=info.slope, inter=info.inter
        )
        gzip.drain(stream)
    problems = (*info.problems, *checked_finite(array, path, allow=allow_non_finite))
    source = Source(
        format="nifti",
        path=path,
        forms=info.forms,
        problems=problems,
        details=info.details,
    )
    return Volume(np.moveaxis(array, -1, 0), info.affine, source)


def write_nifti_mask(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as an integer NIfTI, atomically.

    From a NIfTI source the mask has the shape of the source on disk and repeats sform, qform,
    both codes and units. From other sources both forms hold the affine, code 1. The header says
    nothing else of the source.

    Args:
        segmentation: Mask (I, J, K), or (rows, columns) in 2D.
        path: Ends in `.nii.gz` or `.nii`.

    Raises:
        OutputError: If writing fails; nothing is left behind.
        UsageError: If the path has another suffix.
    """
    largest = max([int(segmentation.array.max()), *(label.index for label in segmentation.labels)])
    array, _ = _in_three_axes(segmentation.array, segmentation.affine)
    dtype = mask_dtype(largest)
    _write(path, _mask_header(segmentation, dtype), array, dtype)


def mask_header(segmentation: Segmentation) -> bytes:
    """Return what comes before the voxels in a uint8 mask on the grid of a segmentation.

    Args:
        segmentation: Its grid and source are used.

    Returns:
        The same header as `write_nifti_mask` writes of at most 255 labels.
    """
    header = _mask_header(segmentation, np.dtype(np.uint8))
    return bytes(header.binaryblock) + bytes(_EXTENSION_FLAG)


def write_shares(
    segmentation: Segmentation,
    maps: Iterable[npt.NDArray[np.uint16]],
    count: int,
    path: Path,
    *,
    largest: int,
) -> None:
    """Write maps of shares on the grid of a segmentation as one NIfTI of four axes, atomically.

    Args:
        segmentation: Its grid and source are used.
        maps: In the shape of the grid, one after the other; 0 to `largest`.
        count: Of maps.
        path: Ends in `.nii.gz` or `.nii`.
        largest: What stands for 1; the header scales by it.

    Raises:
        OutputError: If writing fails; nothing is left behind.
    """
    dtype = np.dtype("<u2")
    spatial, _ = _in_three_axes(segmentation.array, segmentation.affine)
    header = _mask_header(segmentation, dtype)
    header.set_data_shape((*spatial.shape, count))
    header["scl_slope"], header["scl_inter"] = 1 / largest, 0
    with atomic_path(path) as part, gzip.open_write(part) as stream:
        stream.write(header.binaryblock + bytes(_EXTENSION_FLAG))
        for one in maps:
            ordered, _ = _in_three_axes(one, segmentation.affine)
            for plane in np.moveaxis(ordered, -1, 0):
                stream.write(np.ascontiguousarray(plane.T, dtype).data)


def write_nifti_image(volume: Volume, path: Path, *, time_step_s: float | None = None) -> None:
    """Write a volume as NIfTI with the type it has, atomically; channels become the fourth axis.

    Args:
        volume: Image (C, I, J, K), or (C, rows, columns) in 2D.
        path: Ends in `.nii.gz` or `.nii`.
        time_step_s: Time between the channels of an acquisition in time; s.

    Raises:
        OutputError: If writing fails; nothing is left behind.
        UsageError: If the path has another suffix, or NIfTI cannot hold the type.
    """
    first, affine = _in_three_axes(volume.array[0], volume.affine)
    spatial = first.shape
    dtype = _image_dtype(volume.array.dtype)
    kept = _kept_forms(volume.source, spatial, affine)
    shape = spatial if kept is None else _spatial_shape(kept.shape)
    if volume.channels > 1:
        shape = (*spatial, volume.channels)
    header = _new_header(shape, dtype, affine, volume.source, kept)
    if volume.channels > 1 and time_step_s is not None:
        header["pixdim"][4] = time_step_s
        header["xyzt_units"] = int(header["xyzt_units"]) & 7 | _SECONDS
    stacked = np.swapaxes(volume.array, 1, 2)[..., None] if volume.is_2d else volume.array
    _write(path, header, np.moveaxis(stacked, 0, -1), dtype)


def _read_header(stream: BinaryIO, path: Path) -> tuple[Any, int]:
    start = stream.read(4)
    if len(start) < 4:
        raise EOFError
    sizes = (int.from_bytes(start, "little"), int.from_bytes(start, "big"))
    size = next((size for size in sizes if size in _HEADERS), 0)
    if not size:
        msg = f"path must be a NIfTI file, but {path.name} does not start as one does."
        raise InputError(msg)
    rest = bytearray(size - 4)
    gzip.read_into(stream, rest)
    header = _HEADERS[size].from_fileobj(BytesIO(start + rest), check=False)
    if bytes(header["magic"])[:3] not in (*_SINGLE_MAGIC, *_PAIR_MAGIC):
        msg = f"path must be a NIfTI file, but {path.name} is Analyze or something else."
        raise InputError(msg)
    return header, size


def _checked_shape(dims: list[int], path: Path) -> tuple[int, ...]:
    count = dims[0]
    shape = tuple(dims[1 : count + 1]) if 1 <= count <= 7 else ()
    if not shape or min(shape) < 1:
        msg = f"dim must hold 1 to 7 lengths above 0, got {dims} in {path.name}."
        raise InputError(msg)
    if len(shape) == 1 or any(length > 1 for length in shape[4:]):
        msg = f"image must have 2 to 4 axes, got shape {shape} in {path.name}."
        raise InputError(msg, code="unsupported-dimensions")
    return shape


def _checked_dtype(header: Any, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (HeaderDataError, KeyError):  # a code that nibabel does not know
        dtype = np.dtype("V")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        name = "RGB" if code in (128, 2304) else f"NIfTI type {code}"
        msg = f"voxels must be integers or floats of at most 64 bits, got {name} in {path.name}."
        raise InputError(msg, code="unsupported-data-type")
    return dtype


def _scaling(header: Any, path: Path) -> tuple[float, float]:
    try:
        slope, inter = header.get_slope_inter()
    except HeaderDataError as error:
        msg = f"scl_slope and scl_inter must be finite, got {error} in {path.name}."
        raise InputError(msg) from error
    return (1.0, 0.0) if slope is None else (float(slope), float(inter or 0.0))


def _geometry(
    header: Any, shape: tuple[int, ...], problems: list[Problem]
) -> tuple[Affine, NiftiForms]:
    sform = np.asarray(header.get_sform(), np.float64)
    qform = _qform(header)
    codes = int(header["sform_code"]), int(header["qform_code"])
    units = int(header["xyzt_units"])
    scale = np.diag([_MM_PER_UNIT.get(units & 7, 1.0)] * 3 + [1.0])
    spatial = (*shape, 1, 1)[:3]
    if codes[0] > 0:
        given = sform
        if codes[1] > 0:
            problems.extend(_disagreement(spatial, scale @ sform, qform, scale))
    elif codes[1] > 0:
        if qform is None:
            msg = "qform must hold a rotation and lengths above 0, got neither."
            raise GeometryError(msg)
        given = qform
    else:
        given = np.asarray(header.get_base_affine(), np.float64)
        message = "the header states no orientation (sform and qform codes 0); LAS is assumed"
        problems.append(Problem("no-orientation", message, "warning"))
    if scale[0, 0] != 1:
        message = f"the header's lengths are converted to mm, factor {scale[0, 0]:g}"
        problems.append(Problem("units-converted", message, "warning"))
    scaled = scale @ _with_third_axis(given, spatial)
    affine = orthonormalised(scaled)
    if not np.array_equal(affine, scaled):
        message = "the axes of the affine were not quite perpendicular and are repaired"
        problems.append(Problem("affine-repaired", message, "warning"))
    stored_qform = np.full((4, 4), np.nan) if qform is None else qform
    return affine, NiftiForms(sform, stored_qform, *codes, shape, units)


def _qform(header: Any) -> Affine | None:
    try:
        qform = np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError):  # a quaternion above length 1; a negative pixdim
        return None
    return qform if np.isfinite(qform).all() else None


def _disagreement(
    spatial: tuple[int, ...], affine: Affine, qform: Affine | None, scale: Affine
) -> Iterator[Problem]:
    if qform is None:
        yield Problem("invalid-qform", "the qform is not valid; the sform rules", "warning")
        return
    gap = apply_affine(affine, corners(spatial)) - apply_affine(scale @ qform, corners(spatial))
    smallest = float(spacing_mm(affine).min())
    voxels = float(np.linalg.norm(gap, axis=1).max()) / smallest if smallest > 0 else np.inf
    if not voxels <= SAME_GRID_TOLERANCE_VOXELS:
        message = f"sform and qform differ by up to {voxels:.3g} voxels; the sform rules"
        yield Problem("sform-qform-differ", message, "warning")


def _with_third_axis(affine: Affine, spatial: tuple[int, ...]) -> Affine:
    """Give a single slice without thickness a third axis of 1 mm along its normal."""
    lengths = spacing_mm(affine)
    if spatial[2] > 1 or lengths[2] > 0 or not (lengths[:2] > 0).all():
        return affine
    result = affine.copy()
    result[:3, 2] = np.cross(affine[:3, 0] / lengths[0], affine[:3, 1] / lengths[1])
    return result


def _details(header: Any) -> dict[str, Any]:
    fields = {name: np.array(header[name]) for name in _KEPT_FIELDS}
    fields["pixdim"] = np.array(header["pixdim"])
    return {"nifti_header": fields, "nifti_2": int(header["sizeof_hdr"]) == 540}


def _data_file(header_path: Path) -> Path:
    stem = header_path.with_suffix("") if header_path.suffix.lower() == ".gz" else header_path
    candidates = [stem.with_suffix(suffix) for suffix in (".img", ".img.gz", ".IMG")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    msg = f"path must have its voxels beside it, got no {candidates[0].name}."
    raise InputError(msg, code="not-found")


def _check_length(info: NiftiInfo) -> None:
    needed = info.data_offset + int(np.prod(info.shape, dtype=object)) * info.dtype.itemsize
    if needed > gzip.largest_uncompressed(info.data_path):
        raise gzip.truncated(info.data_path)


def _in_three_axes(array: npt.NDArray[Any], affine: Affine) -> tuple[npt.NDArray[Any], Affine]:
    """Turn (rows, columns) into (columns, rows, 1), its first row at the back; 3D stays."""
    if array.ndim == 3:
        return array, affine
    rows_mm, columns_mm = spacing_mm(affine)
    return array.T[..., None], np.diag([-columns_mm, -rows_mm, 1.0, 1.0])


def _spatial_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    frames = int(np.prod(shape[3:], dtype=np.int64))
    return shape[:3] if frames > 1 else shape


def _kept_forms(source: Source, spatial: tuple[int, ...], affine: Affine) -> NiftiForms | None:
    """Return the source's forms where the array still lies on the source's grid."""
    forms = source.forms
    if forms is None or (*forms.shape, 1, 1)[:3] != tuple(spatial):
        return None
    header = nib.Nifti2Header()
    header.set_data_shape(forms.shape[:3])
    _repeat_forms(header, forms, source.details)
    known, _ = _geometry(header, forms.shape[:3], [])
    same = grid_difference_voxels(spatial, known, affine) <= SAME_GRID_TOLERANCE_VOXELS
    return forms if same else None


def _repeat_forms(header: Any, forms: NiftiForms, details: dict[str, Any]) -> None:
    fields = details.get("nifti_header")
    if fields is None:
        if np.isfinite(forms.qform).all():  # sets the voxel size too
            header.set_qform(forms.qform, forms.qform_code)
        header.set_sform(forms.sform, forms.sform_code)
        header["xyzt_units"] = forms.xyzt_units
        return
    for name in _KEPT_FIELDS:
        header[name] = fields[name]
    axes = min(len(forms.shape), 4) + 1
    header["pixdim"][: max(axes, 4)] = fields["pixdim"][: max(axes, 4)]


def _mask_header(segmentation: Segmentation, dtype: np.dtype[Any]) -> Any:
    array, affine = _in_three_axes(segmentation.array, segmentation.affine)
    kept = _kept_forms(segmentation.source, array.shape, affine)
    shape = array.shape if kept is None else _spatial_shape(kept.shape)
    return _new_header(shape, dtype, affine, segmentation.source, kept)


def _new_header(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    affine: Affine,
    source: Source,
    kept: NiftiForms | None,
) -> Any:
    wide = max(shape) > _LARGEST_NIFTI1_AXIS or (kept and source.details.get("nifti_2", False))
    header = (nib.Nifti2Header if wide else nib.Nifti1Header)(endianness="<")
    header.set_data_dtype(dtype.newbyteorder("<"))
    header.set_data_shape(shape)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.sizeof_hdr + _EXTENSION_FLAG
    if kept is not None:
        _repeat_forms(header, kept, source.details)
        return header
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    header.set_xyzt_units("mm")
    return header


def _image_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    if dtype == np.float16:
        return np.dtype(np.float32)
    if dtype.kind in "iuf" and dtype.itemsize <= 8:
        return dtype
    msg = f"array must be of integers or floats of at most 64 bits, got {dtype}."
    raise UsageError(msg)


def _write(path: Path, header: Any, array: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    path = Path(path)
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        msg = f"path must end in .nii.gz or .nii, got {path.name!r}."
        raise UsageError(msg)
    with atomic_path(path) as part, gzip.open_write(part) as stream:
        stream.write(header.binaryblock + bytes(_EXTENSION_FLAG))
        write_voxels(stream, array, dtype.newbyteorder("<"))


@contextmanager
def _geometry_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except GeometryError as error:
        msg = f"{error} In {path.name}."
        raise GeometryError(msg, code=error.code) from error
