"""Discovery: every DICOM file below some paths, read header-only."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from medseg.errors import InputError
from medseg.io.dicom import tags
from medseg.io.dicom.adaptive import map_files
from medseg.io.dicom.header import Frame
from medseg.io.dicom.instance import PARSE_ERRORS, Rejected, read_content
from medseg.io.dicom.series import Series, group_series

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Scan:
    """What was found below the paths given.

    Attributes:
        series: Series and their volumes, unusable ones too.
        rejected: Files that are no image, each with the reason.
    """

    series: tuple[Series, ...]
    rejected: tuple[Rejected, ...]


def find_series(paths: Path | Sequence[Path], *, progress: Progress | None = None) -> Scan:
    """Find every series below files and folders, without reading pixels.

    Folders are searched to any depth; names and extensions do not matter. A DICOMDIR given by
    name stands for the files it lists; one met inside a folder is passed over, as the folder's
    files are found anyway. Pixels are read only where instances at one position have to be
    compared, and of at most three slices of a CT volume.

    Args:
        paths: Files, folders and DICOMDIR files.
        progress: Called with (files read, files in all).

    Returns:
        Series with their volumes and problems, and the files rejected.

    Raises:
        InputError: `not-found` when a path does not exist.
    """
    roots = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    files: dict[Path, str] = {}
    rejected: list[Rejected] = []
    for root in roots:
        if not root.exists():
            msg = f"paths must exist, got {str(root)!r}. Check the spelling."
            raise InputError(msg, code="not-found")
        for path, name in _files_below(root):
            files.setdefault(path, name)
    given = {root for root in roots if root.is_file()}
    frames: list[Frame] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's on odd values; each value is judged here
        _read_all(files, given, frames, rejected, progress)
        series = group_series(frames)
    return Scan(series, tuple(rejected))


def _read_all(
    files: dict[Path, str],
    given: set[Path],
    frames: list[Frame],
    rejected: list[Rejected],
    progress: Progress | None,
) -> None:
    queue = list(files.items())
    done = 0
    while queue:
        listed: dict[Path, str] = {}
        contents = map_files(lambda item: read_content(*item), queue)
        for (path, _), content in zip(queue, contents, strict=True):
            frames.extend(content.frames)
            if content.rejected is not None:
                rejected.append(content.rejected)
            if content.directory and path in given:
                found, missing = _listed_files(path)
                rejected.extend(missing)
                listed.update((path, name) for path, name in found if path not in files)
            done += 1
            if progress is not None:
                progress(done, len(files) + len(listed))
        files.update(listed)
        queue = list(listed.items())


def _files_below(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield files and their names relative to the root, sorted, links to folders followed once."""
    if root.is_file():
        yield root, root.name
        return
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            yield path, path.relative_to(root).as_posix()


def _listed_files(dicomdir: Path) -> tuple[list[tuple[Path, str]], list[Rejected]]:
    """Return the files that a DICOMDIR refers to, and those of them that are not there."""
    try:
        records = tags.items(tags.Header(dcmread(dicomdir)), "DirectoryRecordSequence")
    except PARSE_ERRORS:
        return [], [Rejected(dicomdir, "unreadable", "The DICOMDIR is damaged.")]
    present, missing = [], []
    for record in records:
        parts = [part for part in tags.text(record, "ReferencedFileID").split("\\") if part.strip()]
        if not parts:
            continue
        path = _resolve(dicomdir.parent, [part.strip() for part in parts])
        if path is None:
            name = "/".join(parts)
            message = "The DICOMDIR lists the file, but it is not there."
            missing.append(Rejected(dicomdir.parent / name, "missing-file", message))
        else:
            present.append((path, path.relative_to(dicomdir.parent).as_posix()))
    return present, missing


def _resolve(folder: Path, parts: list[str]) -> Path | None:
    """Find a listed file; case may differ on media copied between systems."""
    if ".." in parts:
        return None
    path = folder.joinpath(*parts)
    if path.is_file():
        return path
    here = folder
    for part in parts:
        if not here.is_dir():
            return None
        matches = [entry for entry in sorted(here.iterdir()) if entry.name.upper() == part.upper()]
        if not matches:
            return None
        here = matches[0]
    return here if here.is_file() else None
