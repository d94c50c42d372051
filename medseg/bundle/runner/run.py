"""Segment an image with an exported network, as the pipeline.json beside this file says.

    python run.py IMAGE.nii.gz MASK.nii.gz
    python run.py T1.nii.gz FLAIR.nii.gz MASK.nii.gz        (a file a channel)

Needs numpy, nibabel and onnxruntime. Volumes are NIfTI files, with the channels as files of their
own or as the fourth axis. Pictures are .npy arrays, (rows, columns) or (rows, columns, channels),
or what Pillow reads where it is installed.
"""

import argparse
import gzip
import hashlib
import importlib
import json
import math
import sys
import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from medseg.bundle.runner.grid import Array, Image, Network, PipelineError, Step
from medseg.bundle.runner.maps import segment

SCHEMA = 1
MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""By NIfTI's code of the unit: metre and micrometre."""

ALMOST_PERPENDICULAR, PERPENDICULAR = 1e-4, 1e-6
"""Error of the axes of an affine from which on it is refused, and repaired."""

SAME_GRID_VOXELS = 1e-3
PIECE_BYTES = 1 << 20
GEOMETRY_FIELDS = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "xyzt_units"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, segment, and write the mask.

    Args:
        arguments: Of the command line.

    Returns:
        Exit code: 0, or 2 where something cannot be used.
    """
    parser = argparse.ArgumentParser(description="Segment an image with an exported network.")
    parser.add_argument("images", nargs="+", help="IMAGE, or one a channel")
    parser.add_argument("mask", help="file to write: .nii.gz or .nii; of pictures .npy or .png")
    parser.add_argument("--network", action="append", help="ONNX file; of several networks each")
    parser.add_argument("--pipeline", help="pipeline.json beside this file when left out")
    parser.add_argument("--overwrite", action="store_true", help="replace a mask that exists")
    given = parser.parse_args(arguments)
    try:
        _require_new(Path(given.mask), given.overwrite)
        path = Path(given.pipeline or _beside())
        pipeline = read_pipeline(path)
        image, source = read_image([Path(name) for name in given.images], pipeline["input"])
        networks = open_networks(pipeline, path.parent, given.network or [])
        write_mask(segment(image, pipeline, networks), source, Path(given.mask))
    except (PipelineError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _require_new(mask: Path, overwrite: bool) -> None:
    """Refuse to replace a file that nobody asked to replace: an image whose mask was not named."""
    if mask.is_file() and not overwrite:
        msg = f"mask must be a new file, got {mask.name}. Choose another, or add --overwrite."
        raise PipelineError(msg)


def _beside() -> Path:
    """Return the pipeline beside this file: pipeline.json, or the only one of an ONNX file."""
    folder = Path(__file__).parent
    found = [folder / "pipeline.json", *sorted(folder.glob("*.onnx.json"))]
    found = [path for path in found if path.is_file()]
    if len(found) == 1 or (found and found[0].name == "pipeline.json"):
        return found[0]
    msg = f"--pipeline must name a file, got {len(found)} pipelines beside {Path(__file__).name}."
    raise PipelineError(msg)


def read_pipeline(path: Path) -> dict[str, Any]:
    """Read a pipeline that can be run.

    Args:
        path: The JSON file.

    Returns:
        The document.

    Raises:
        PipelineError: If it is none, of another schema, or does not state all.
    """
    try:
        pipeline = json.loads(path.read_text(encoding="utf-8"))
        schema, complete = pipeline["schema"], pipeline["complete"]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"pipeline must be what medseg bundle export writes, got {type(error).__name__}."
        raise PipelineError(msg) from error
    if schema != SCHEMA:
        msg = f"schema of the pipeline must be {SCHEMA}, got {schema}. Take the runner beside it."
        raise PipelineError(msg)
    if not complete:
        missing = "; ".join(f"{one['key']}: {one['reason']}" for one in pipeline["missing"])
        msg = f"pipeline must be complete, got one that cannot state {missing}."
        raise PipelineError(msg)
    return dict(pipeline)


def open_networks(pipeline: Step, folder: Path, given: Sequence[str]) -> list[Network]:
    """Load the networks of a pipeline with ONNX Runtime.

    Args:
        pipeline: The document.
        folder: That its files lie in.
        given: ONNX files to take instead.

    Returns:
        Functions of (1, C, *window).

    Raises:
        PipelineError: If a file is missing or another one than was exported.
    """
    stated = pipeline["networks"]
    if given and len(given) != len(stated):
        msg = f"--network must be given for each of {len(stated)} networks, got {len(given)}."
        raise PipelineError(msg)
    networks = []
    for number, one in enumerate(stated):
        file = one["files"].get("onnx")
        if not given and file is None:
            msg = f"network {one['weights']} must be there as ONNX. Export it: --to onnx."
            raise PipelineError(msg)
        path = Path(given[number]) if given else folder / file["file"]
        data = path.read_bytes()
        if not given and hashlib.sha256(data).hexdigest() != file["sha256"]:
            msg = f"{path.name} must be the file that was exported, got another. Export again."
            raise PipelineError(msg)
        networks.append(_network(data, one, path.name))
    return networks


def _network(data: bytes, stated: Step, name: str) -> Network:
    runtime = importlib.import_module("onnxruntime")
    try:
        session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    except Exception as error:
        msg = f"network must be an ONNX file, got {name}: {error}"
        raise PipelineError(msg) from error

    def run(window: Array) -> Array:
        try:
            return np.asarray(session.run([stated["output"]], {stated["input"]: window})[0])
        except Exception as error:
            msg = f"network must take windows {window.shape}, got {name}: {error}"
            raise PipelineError(msg) from error

    return run


# --- files ---


def read_image(paths: Sequence[Path], rule: Step) -> tuple[Image, Any]:
    """Read a volume or a picture.

    Args:
        paths: One file, or one a channel.
        rule: `input` of the pipeline.

    Returns:
        The image, and what writing its mask needs of the first file.

    Raises:
        PipelineError: If a file cannot be read or used.
    """
    channels = len(rule["channels"])
    if rule["dims"] == 2:
        return _read_picture(paths, channels, rule)
    files = [_load(path) for path in paths]
    affine = _affine(files[0], paths[0])
    shape = _size(files[0])
    arrays = []
    for file, path in zip(files, paths, strict=True):
        frames = math.prod(file.shape[3:])
        wanted = channels if len(files) == 1 else 1
        if frames not in (1, wanted) or any(extent > 1 for extent in file.shape[4:]):
            msg = f"{path.name} must hold {wanted} image(s), got {frames} along its further axes."
            raise PipelineError(msg)
        if _size(file) != shape or _apart(shape, affine, _affine(file, path)) > SAME_GRID_VOXELS:
            msg = f"channels must lie on one grid, got {path.name} off {paths[0].name}."
            raise PipelineError(msg)
        arrays.append(_voxels(file, (*shape, frames), path))
    array = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return Image(array, affine), files[0]


def _load(path: Path) -> Any:
    try:
        file: Any = nib.load(path)
    except FileNotFoundError:
        raise
    except Exception as error:
        msg = f"image must be a NIfTI file, got {path.name}: {error}"
        raise PipelineError(msg) from error
    if not isinstance(file, nib.Nifti1Pair) or file.get_data_dtype().kind not in "iuf":
        msg = f"image must be a NIfTI file of numbers, got {path.name}."
        raise PipelineError(msg)
    return file


def _size(file: Any) -> tuple[int, ...]:
    return (*file.shape, 1, 1)[:3]


def _voxels(file: Any, shape: tuple[int, ...], path: Path) -> Array:
    """Return (C, I, J, K) float32, rescaled a plane at a time."""
    try:
        if path.suffix.lower() == ".gz":
            _read_through(path)
        stored = np.asarray(file.dataobj.get_unscaled()).reshape(shape, order="A")
    except (EOFError, OSError, ValueError, zlib.error) as error:  # by kind of file and damage
        msg = f"image must be a complete file, got {path.name}: {error}"
        raise PipelineError(msg) from error
    slope, inter = np.float64(file.dataobj.slope), np.float64(file.dataobj.inter)
    exact = bool(slope == 1 and inter == 0)
    array = np.empty((shape[3], *shape[:3]), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused later
        for frame, plane in product(range(shape[3]), range(shape[2])):
            values = stored[:, :, plane, frame]
            array[frame, :, :, plane] = values if exact else values * slope + inter
    return array


def _read_through(path: Path) -> None:
    """Have the checksum at the end of a gzip file checked, which nibabel does not reach."""
    with gzip.open(path) as stream:
        while stream.read(PIECE_BYTES):
            pass


def _affine(file: Any, path: Path) -> Array:
    """Return the affine in mm, its axes made perpendicular within rounding, or refuse."""
    affine = np.array(file.affine, np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if _size(file)[2] == 1 and lengths[2] == 0 and (lengths[:2] > 0).all():
        affine[:3, 2] = np.cross(affine[:3, 0] / lengths[0], affine[:3, 1] / lengths[1])
    affine[:3] *= MM_PER_UNIT.get(int(file.header["xyzt_units"]) & 7, 1.0)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        msg = f"affine must be finite with axes above 0, got another in {path.name}."
        raise PipelineError(msg)
    cosines = affine[:3, :3] / lengths
    error = float(np.abs(cosines.T @ cosines - np.eye(3)).max())
    if error > ALMOST_PERPENDICULAR:
        msg = f"affine must have perpendicular axes, got a shear of {error:.2g} in {path.name}."
        raise PipelineError(msg)
    if error >= PERPENDICULAR:
        left, _, right = np.linalg.svd(cosines)
        affine[:3, :3] = (left @ right) * lengths
    return affine


def _apart(shape: Sequence[int], affine: Array, other: Array) -> float:
    """Return how far the corners of two grids lie apart, in voxels."""
    corners = np.array([(*place, 1) for place in product(*((0, n - 1) for n in shape))])
    gap = np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max()
    return float(gap / np.linalg.norm(affine[:3, :3], axis=0).min())


def _read_picture(paths: Sequence[Path], channels: int, rule: Step) -> tuple[Image, Any]:
    if len(paths) != 1:
        msg = f"picture must be one file, got {len(paths)}."
        raise PipelineError(msg)
    (path,) = paths
    pixels = _array(path) if path.suffix == ".npy" else _pillow_pixels(path)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.dtype.kind not in "iuf":
        msg = (
            f"picture must be (rows, columns, channels) numbers, got {pixels.dtype} {pixels.shape}."
        )
        raise PipelineError(msg)
    if rule["eight_bit"] and (pixels.dtype.kind == "f" or pixels.max() > 255):
        msg = f"picture must have values of 8 bits, got {pixels.dtype} up to {pixels.max():g}."
        raise PipelineError(msg)
    samples = pixels.shape[2]
    if samples == 1 and rule["colour"]:
        pixels = np.repeat(pixels, channels, axis=2)
    elif samples == 3 and channels == 1 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    return Image(np.moveaxis(pixels, -1, 0).astype(np.float32), np.eye(3)), None


def _array(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (EOFError, ValueError) as error:
        msg = f"picture must be an array as numpy.save writes it, got {path.name}: {error}"
        raise PipelineError(msg) from error


def _pillow_pixels(path: Path) -> Array:
    try:
        pillow: Any = importlib.import_module("PIL.Image")
        turn: Any = importlib.import_module("PIL.ImageOps").exif_transpose
    except ImportError as error:
        msg = f"picture must be a .npy array where Pillow is missing, got {path.name}."
        raise PipelineError(msg) from error
    with pillow.open(path) as picture:
        kinds = {"L": "L", "LA": "L", "RGB": "RGB", "RGBA": "RGB", "P": "RGB"}
        if picture.mode not in kinds:
            msg = f"picture must have 8 bits a channel, got mode {picture.mode}. Give it as .npy."
            raise PipelineError(msg)
        return np.asarray(turn(picture).convert(kinds[picture.mode]))


def write_mask(mask: Array, source: Any, path: Path) -> None:
    """Write a mask: NIfTI with the geometry of its source, or a picture.

    Args:
        mask: Values.
        source: First file of a volume; None of a picture.
        path: The file to write.

    Raises:
        PipelineError: If the suffix is another one.
    """
    wanted = (".npy", ".png") if source is None else (".nii.gz", ".nii")
    if not path.name.endswith(wanted):
        msg = f"mask must end in {' or '.join(wanted)}, got {path.name!r}."
        raise PipelineError(msg)
    part = path.with_name(f".part-{path.name}")
    try:
        if path.suffix == ".npy":
            np.save(part, mask)
        elif source is None:
            importlib.import_module("PIL.Image").fromarray(mask).save(part)
        else:
            nib.save(_nifti(mask, source), part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _nifti(mask: Array, source: Any) -> Any:
    """Return an image that repeats the geometry of its source, and nothing else of its header."""
    wide = int(source.header["sizeof_hdr"]) == 540
    header = (nib.Nifti2Header if wide else nib.Nifti1Header)()
    header.set_data_dtype(mask.dtype)
    for name in GEOMETRY_FIELDS:
        header[name] = source.header[name]
    shape = source.shape if math.prod(source.shape[3:]) == 1 else source.shape[:3]
    axes = max(min(len(source.shape), 4) + 1, 4)
    header["pixdim"][:axes] = source.header["pixdim"][:axes]
    kind = nib.Nifti2Image if wide else nib.Nifti1Image
    return kind(mask.reshape(shape), None, header)


if __name__ == "__main__":
    sys.exit(main())
