"""Image files by their suffix: which there are, what they are called, how they are read."""

import importlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.errors import InputError, Problem
from medseg.geometry import axis_codes, spacing_mm
from medseg.volume import Volume

Family = Literal["nifti", "itk", "raster"]

SUFFIXES: dict[str, Family] = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".hdr": "nifti",
    ".hdr.gz": "nifti",
    ".nrrd": "itk",
    ".nhdr": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".gipl": "itk",
    ".gipl.gz": "itk",
    ".png": "raster",
    ".jpg": "raster",
    ".jpeg": "raster",
    ".tif": "raster",
    ".tiff": "raster",
    ".bmp": "raster",
}
"""Suffixes of image files, lower case. The voxel files of pairs (.img, .raw) are no image files."""

_MODULES: dict[Family, str] = {"nifti": "nifti", "itk": "itk_image", "raster": "raster"}
_OTHER_SUFFIXES = (".dcm", ".dicom", ".ima", ".zip")
_CHANNEL = re.compile(r"^(?P<stem>.+)_(?P<channel>\d{4})$")


@dataclass(frozen=True)
class FileRecord:
    """What the header of an image file says.

    Attributes:
        path: The file.
        size: (i, j, k) voxels, or (rows, columns) of a 2D image.
        frames: Number of 3D images or pages.
        spacing_mm: Along each axis; empty for a natural image.
        orientation: Axis codes such as `RAS`; empty in 2D.
        problems: Warnings.
    """

    path: Path
    size: tuple[int, ...]
    frames: int
    spacing_mm: tuple[float, ...]
    orientation: str
    problems: tuple[Problem, ...] = ()


def file_suffix(path: Path) -> str:
    """Return the suffix that says what a file is, with `.gz` where it belongs to it.

    Args:
        path: Any path.

    Returns:
        The longest known suffix, in lower case; empty if none is known.

    Examples:
        >>> file_suffix(Path("a.b.NII.GZ"))
        '.nii.gz'
    """
    name = path.name.lower()
    known = [
        suffix
        for suffix in (*SUFFIXES, *_OTHER_SUFFIXES)
        if name.endswith(suffix) and name != suffix
    ]
    return max(known, key=len, default="")


def natural_order(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Return a key that sorts paths as people count: `frame_2` before `frame_10`.

    Args:
        path: Any.

    Examples:
        >>> sorted([Path("frame_10.png"), Path("frame_2.png")], key=natural_order)[0].name
        'frame_2.png'
    """
    parts = re.split(r"([0-9]+)", str(path))
    numbers = ((0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part)
    return tuple(numbers)


def file_stem(path: Path) -> str:
    """Return a file's name without its suffix; dots that are no suffix stay.

    Args:
        path: Any path.

    Returns:
        The stem.

    Examples:
        >>> file_stem(Path("scans/case_01.v2.nii.gz"))
        'case_01.v2'
    """
    suffix = file_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.name


def is_image_file(path: Path) -> bool:
    """Tell whether `read_file` reads such a file, by its name.

    Args:
        path: Any path; DICOM is not among them.

    Returns:
        Whether its suffix is one of `SUFFIXES` and it is not hidden.
    """
    return file_suffix(path) in SUFFIXES and not path.name.startswith(".")


def group_channels(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Group the files `<stem>_0000`, `<stem>_0001` ... of a folder into cases of several channels.

    Only a complete run from `_0000` on is a group; any other file is a case of its own. To be
    used where several channels are expected: numbered cases look the same.

    Args:
        files: Image files.

    Returns:
        Case id to its files in the order of the channels. Ids are stems; parent folders are
        prepended where stems collide, and the suffix is appended where that is not enough.
    """
    numbered: dict[tuple[Path, str, str], dict[int, Path]] = defaultdict(dict)
    groups: list[tuple[str, list[Path]]] = []
    for path in files:
        match = _CHANNEL.match(file_stem(path))
        if match:
            key = path.parent, match["stem"], file_suffix(path)
            numbered[key][int(match["channel"])] = path
        else:
            groups.append((file_stem(path), [path]))
    for (_, stem, _), channels in numbered.items():
        if sorted(channels) == list(range(len(channels))):
            groups.append((stem, [channels[index] for index in sorted(channels)]))
        else:
            groups += [(file_stem(path), [path]) for path in channels.values()]
    groups.sort(key=lambda group: group[1][0])
    ids = unique_ids([(stem, paths[0]) for stem, paths in groups])
    return {name: paths for name, (_, paths) in zip(ids, groups, strict=True)}


def unique_ids(named: list[tuple[str, Path]]) -> list[str]:
    """Make case ids different: parent folders are prepended where stems collide.

    Args:
        named: Stem and file of each case.

    Returns:
        One id a case, joined by `_`.

    Examples:
        >>> unique_ids([("ct", Path("a/ct.nii")), ("ct", Path("b/ct.nii")), ("x", Path("x.nii"))])
        ['a_ct', 'b_ct', 'x']
    """
    ids = [stem for stem, _ in named]
    parents = [[part for part in path.parent.parts[::-1] if part != "/"] for _, path in named]
    for level in range(max(map(len, parents), default=0)):
        doubled = _doubled(ids)
        for at in doubled:
            ids[at] = "_".join([*parents[at][level : level + 1], ids[at]])
    for at in _doubled(ids):
        ids[at] += file_suffix(named[at][1]).replace(".", "_")
    for at in _doubled(ids):
        ids[at] += f"_{at}"
    return ids


def read_file(path: Path, *, frame: int | None = None, channels: int = 1) -> Volume:
    """Read an image file of any known suffix.

    Args:
        path: The file.
        frame: Which 3D image of a 4D file, or page of a TIFF, from 0.
        channels: How many channels are expected.

    Returns:
        Volume (C, I, J, K), or (C, rows, columns).

    Raises:
        InputError: If the suffix is not known (`unknown-suffix`), or the file cannot be read.
        GeometryError: If its grid cannot be placed.
    """
    path = Path(path)
    volume: Volume = _reader(path).read(path, frame=frame, channels=channels)
    return volume


def describe_file(path: Path) -> FileRecord:
    """Read what the header of an image file says, and no voxel.

    Args:
        path: The file.

    Returns:
        Size, grid and warnings.

    Raises:
        InputError: As `read_file`.
        GeometryError: As `read_file`.
    """
    path = Path(path)
    info = _reader(path).info(path)
    if info.affine is None:
        return FileRecord(path, info.size, info.frames, (), "", info.problems)
    spacing = tuple(float(value) for value in spacing_mm(info.affine))
    codes = axis_codes(info.affine) if len(info.size) == 3 else ""
    return FileRecord(path, info.size, info.frames, spacing, codes, info.problems)


@dataclass(frozen=True)
class _Reader:
    read: Callable[..., Volume]
    info: Callable[..., Any]


def _reader(path: Path) -> _Reader:
    """Import the reader of a file: only that one, for their libraries take time to start."""
    family = SUFFIXES.get(file_suffix(path))
    if family is None:
        known = " ".join(SUFFIXES)
        msg = f"path must end in one of {known}, got {path.name!r}."
        raise InputError(msg, code="unknown-suffix")
    module = importlib.import_module(f"medseg.io.{_MODULES[family]}")
    return _Reader(
        getattr(module, f"read_{_MODULES[family]}"), getattr(module, f"read_{family}_info")
    )


def _doubled(ids: list[str]) -> list[int]:
    positions: dict[str, list[int]] = defaultdict(list)
    for at, name in enumerate(ids):
        positions[name.casefold()].append(at)
    return [at for same in positions.values() if len(same) > 1 for at in same]
