"""NRRD, MetaImage and GIPL files, through SimpleITK."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from medseg.errors import InputError, Problem
from medseg.geometry import LPS_TO_RAS, Affine, orthonormalised
from medseg.io import gzip
from medseg.io.voxels import checked_finite, choose_frames
from medseg.volume import Source, Volume

_GIPL_HEADER_BYTES = 256
_HEADER_BYTES = 1 << 16  # longer than any text header without its voxels
_NRRD_BLANK_LINE = re.compile(rb"\r?\n\r?\n")

# ITK turns three of NRRD's 3D spaces into LPS, and leaves those with time as they are.
_NRRD_SPACE_TO_RAS = {
    "left-posterior-superior": (-1.0, -1.0, 1.0),
    "left-posterior-superior-time": (-1.0, -1.0, 1.0),
    "left-anterior-superior-time": (-1.0, 1.0, 1.0),
    "right-anterior-superior-time": (1.0, 1.0, 1.0),
}


@dataclass(frozen=True)
class ItkInfo:
    """What the header of an ITK file says.

    Attributes:
        size: Voxels along each spatial axis: (I, J, K), or (rows, columns) in 2D.
        frames: Length of the fourth axis, 1 without one.
        components: Values a voxel.
        affine: (4, 4) RAS, mm; (3, 3) from (row, column) to mm in 2D.
        problems: Warnings.
    """

    size: tuple[int, ...]
    frames: int
    components: int
    affine: Affine
    problems: tuple[Problem, ...]


def read_itk_info(path: Path) -> ItkInfo:
    """Read the header of an ITK file, and no voxel.

    Args:
        path: `.nrrd`, `.nhdr`, `.mha`, `.mhd` or `.gipl`.

    Returns:
        Shape, grid and problems.

    Raises:
        InputError: As `read_itk_image`.
        GeometryError: As `read_itk_image`.
    """
    with _itk_errors(path):
        return _info(_header(path), path)


def read_itk_image(
    path: Path, *, frame: int | None = None, channels: int = 1, allow_non_finite: bool = False
) -> Volume:
    """Read an NRRD, MetaImage or GIPL file.

    The values of a vector image are its channels. A fourth axis becomes the channels when it is as
    long as `channels`; else `frame` has to choose. 64-bit floats become float32.

    Args:
        path: `.nrrd`, `.nhdr`, `.mha`, `.mhd` or `.gipl`.
        frame: Which 3D image of a 4D file, from 0.
        channels: How many channels the reader of the volume expects.
        allow_non_finite: Keep NaN and infinite voxels, with a warning, instead of refusing them.

    Returns:
        Volume (C, I, J, K), or (C, rows, columns) of a 2D file.

    Raises:
        InputError: Codes `not-found`, `unreadable`, `truncated`, `needs-frame`,
            `frame-out-of-range`, `unsupported-dimensions`, `unsupported-data-type`,
            `unsupported-units`, `non-finite`.
        GeometryError: If the affine is sheared (`sheared-affine`) or has no third axis.
    """
    path = Path(path)
    with _itk_errors(path):
        reader = _header(path)
        info = _info(reader, path)
        first, count = choose_frames(info.frames, path, frame, channels)
        _check_gipl_length(reader, path)
        # (frames, K, J, I, components), the axes that the file lacks left out
        array = sitk.GetArrayFromImage(reader.Execute())
    spatial = len(info.size)
    if info.components == 1:
        array = array[..., None]
    if array.ndim == spatial + 1:
        array = array[None]
    array = array[first : first + count]
    if count < info.frames:
        array = array.copy()  # lets the other frames go
    if count > 1 and info.components > 1:
        msg = f"image must have one axis of channels, got two in {path.name}. Choose a frame."
        raise InputError(msg, code="needs-frame")
    array = array[..., 0] if info.components == 1 else np.moveaxis(array[0], -1, 0)
    if spatial == 3:
        array = array.transpose(0, 3, 2, 1)
    problems = (*info.problems, *checked_finite(array, path, allow=allow_non_finite))
    return Volume(array, info.affine, Source(format="itk", path=path, problems=problems))


def _header(path: Path) -> Any:
    with gzip.input_errors(path), path.open("rb") as stream:
        if not stream.read(1):
            raise EOFError
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    pixel = reader.GetPixelID()
    scalar, vector64 = sitk.sitkFloat64, sitk.sitkVectorFloat64
    if pixel in (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64):
        msg = f"voxels must be integers or floats, got complex numbers in {path.name}."
        raise InputError(msg, code="unsupported-data-type")
    if pixel in (scalar, vector64):
        reader.SetOutputPixelType(sitk.sitkFloat32 if pixel == scalar else sitk.sitkVectorFloat32)
    return reader


def _info(reader: Any, path: Path) -> ItkInfo:
    dims = int(reader.GetDimension())
    size = tuple(int(value) for value in reader.GetSize())
    components = int(reader.GetNumberOfComponents())
    if dims not in (2, 3, 4) or min(size) < 1:
        msg = f"image must have 2 to 4 axes above length 0, got {size} in {path.name}."
        raise InputError(msg, code="unsupported-dimensions")
    spacing = np.asarray(reader.GetSpacing())
    direction = np.asarray(reader.GetDirection()).reshape(dims, dims)
    problems = list(_header_problems(reader, path))
    if dims == 2:
        if not np.allclose(direction, np.eye(2)):
            message = "a 2D image has no place in the patient: its direction is not used"
            problems.append(Problem("orientation-ignored", message, "warning"))
        affine = np.diag([spacing[1], spacing[0], 1.0])
        return ItkInfo(size[::-1], 1, components, affine, tuple(problems))
    if np.abs([direction[3:, :3], direction[:3, 3:].T]).any():
        msg = f"time must be apart from space in direction, got {direction.tolist()}."
        raise InputError(msg, code="unsupported-dimensions")
    matrix = np.eye(4)
    matrix[:3, :3] = direction[:3, :3] * spacing[:3]
    matrix[:3, 3] = reader.GetOrigin()[:3]
    affine = orthonormalised(_to_ras(reader) @ matrix)
    frames = size[3] if dims == 4 else 1
    return ItkInfo(size[:3], frames, components, affine, tuple(problems))


def _to_ras(reader: Any) -> Affine:
    signs = _NRRD_SPACE_TO_RAS.get(_nrrd_space(reader))
    return LPS_TO_RAS if signs is None else np.diag([*signs, 1.0])


def _nrrd_space(reader: Any) -> str:
    return str(reader.GetMetaData("NRRD_space")) if reader.HasMetaDataKey("NRRD_space") else ""


def _header_problems(reader: Any, path: Path) -> Iterator[Problem]:
    """Tell what the file leaves to be assumed; ITK fills it in silently."""
    suffix = path.suffix.lower()
    text = _header_text(path)
    if suffix in (".nrrd", ".nhdr"):
        units = re.search(r"^space units:\s*(.*)$", text, re.MULTILINE | re.IGNORECASE)
        names = set(re.findall(r'"([^"]*)"', units.group(1))) if units else set()
        if names - {"mm", "s", "ms", "sec", ""}:
            msg = f"space units must be mm, got {sorted(names)} in {path.name}. Convert it first."
            raise InputError(msg, code="unsupported-units")
        known = _nrrd_space(reader) in _NRRD_SPACE_TO_RAS and "space directions:" in text
    elif suffix in (".mha", ".mhd"):
        matrix = r"^(TransformMatrix|Rotation|Orientation)\s*="
        known = re.search(matrix, text, re.MULTILINE) is not None
    else:
        known = False
    if not known and reader.GetDimension() > 2:
        message = "the header states no orientation in the patient; LPS axes are assumed"
        yield Problem("no-orientation", message, "warning")


def _header_text(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(_HEADER_BYTES)
    if start.startswith(b"NRRD"):
        start = _NRRD_BLANK_LINE.split(start, maxsplit=1)[0]
    else:
        head, _, _ = start.partition(b"ElementDataFile")
        start = head
    return start.decode("latin-1").replace("\r\n", "\n")


def _check_gipl_length(reader: Any, path: Path) -> None:
    """ITK reads a GIPL file that ends too early without a word."""
    if ".gipl" not in path.name.lower():
        return
    voxels = int(np.prod(reader.GetSize(), dtype=np.int64)) * reader.GetNumberOfComponents()
    item = sitk.GetArrayFromImage(sitk.Image([1] * 3, reader.GetPixelID())).dtype.itemsize
    with gzip.input_errors(path), gzip.open_read(path) as stream:
        gzip.skip(stream, _GIPL_HEADER_BYTES + voxels * item)
        gzip.drain(stream)


@contextmanager
def _itk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        short = re.search(r"fread got only|expected \d+ bytes but received", str(error))
        if short:
            raise gzip.truncated(path) from error
        reason = lines[-1] if lines else type(error).__name__
        msg = f"path must be a readable image, got {path.name}: {reason[:200]}. Get it again."
        raise InputError(msg) from error
