"""What lies under a path: DICOM series, image files, archives, and files that are neither."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from medseg.errors import InputError, Problem
from medseg.io.archive import extract_zip
from medseg.io.atomic import PART_PREFIX
from medseg.io.dicom import DicomVolume, Rejected, Scan, Series, find_series
from medseg.io.files import file_stem, is_image_file, natural_order, unique_ids

Tick = Callable[[int, int], None]
"""Called with the steps done and their total."""

ARCHIVE_SUFFIX = ".zip"

OPERATING_SYSTEM_FILES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
"""Left out of every listing: nobody put them there."""


TRUTHS = {
    "images": ("masks", "labels"),
    "imagestr": ("labelstr",),
    "imagests": ("labelsts",),
    **{part: (f"{part}annot",) for part in ("train", "val", "test")},
    "image": ("label", "labels", "mask", "masks"),
    "jpegimages": ("segmentationclass", "segmentationobject"),
}
"""Folder of a dataset's images, and folders beside it that hold what is true of them."""

UNREADABLE_FOLDER = "unreadable-folder"
"""Code of a folder that cannot be listed: what it holds is not known."""

RESULT_RECORD = "case.json"
"""A folder that holds it is a case that `segment` has written."""

_RESULT_TABLES = re.compile(r"cases\.csv|manifest(?:\.\d+-of-\d+)?\.jsonl")
"""What `segment` writes beside the folders of its cases."""


@dataclass(frozen=True)
class ImageFile:
    """An image file that is not DICOM.

    Attributes:
        volume_id: File stem; parent folders are prepended where stems collide.
        path: The file, unpacked where it came in an archive.
        shown: Its path relative to what was asked for.
        origin: The file as the operator knows it: within its archive, not where it was unpacked.
    """

    volume_id: str
    path: Path
    shown: str
    origin: Path


DAMAGED = ("unreadable", "truncated", "empty-file")
"""Codes of files that may have been slices."""


@dataclass(frozen=True)
class Sources:
    """Everything found under the paths.

    Attributes:
        series: DICOM series.
        files: Other image files, sorted by path.
        rejected: Files that are neither; paths relative to what was asked for.
        damaged: Folders to the number of files in them that may have been slices of DICOM.
    """

    series: tuple[Series, ...]
    files: tuple[ImageFile, ...]
    rejected: tuple[Rejected, ...]
    damaged: Mapping[Path, int] = field(default_factory=dict)

    @property
    def volumes(self) -> tuple[DicomVolume, ...]:
        """The volumes of all series, in the order of the series."""
        return tuple(volume for series in self.series for volume in series.volumes)


@contextmanager
def open_sources(
    paths: Path | Sequence[Path], *, output: Path | None = None, progress: Tick | None = None
) -> Iterator[Sources]:
    """Find what paths hold; archives are unpacked for as long as the block lasts.

    Only headers are read. Links to folders are not followed, archives in archives not opened.
    Results are no sources: folders below a path that `segment` wrote, or that are the output of
    this run, are left out and listed. So are the masks of a dataset, in a folder beside its images.

    Args:
        paths: DICOM folder, file or .zip; image file; folder of any mixture; or several of them.
        output: The folder that this run writes to.
        progress: Called with the files scanned and their total.

    Yields:
        What was found.

    Raises:
        InputError: If there is nothing there (`not-found`, `no-images`), or the path is an archive
            that is unsafe or broken.
    """
    named = [paths] if isinstance(paths, Path) else list(paths)
    for path in named:
        if not path.exists():
            msg = f"path must be a file or folder, got {str(path)!r}, which does not exist."
            raise InputError(msg, code="not-found")
    with ExitStack() as stack:
        rejected: list[Rejected] = []
        archives: dict[Path, Path] = {}
        roots = {path: Path() if path.is_dir() else Path(path.name) for path in named}
        search = partial(_files, output=output and output.resolve(), rejected=rejected)
        found = list(dict.fromkeys(file for path in named for file in search(path)))
        for archive in [file for file in found if _is_archive(file)]:
            folder = _unpacked(archive, named, rejected, stack)
            if folder is not None:
                roots[folder] = _shown(archive, roots)
                archives[folder] = archive
                found += search(folder)
        images = [file for file in found if is_image_file(file)]
        others = [file for file in found if not is_image_file(file) and not _is_archive(file)]
        if not images and not others and not rejected:
            names = " and ".join(repr(str(path)) for path in named)
            msg = f"path must hold at least one file, got {names}, which is empty."
            raise InputError(msg, code="no-images")
        known_as = {file: _shown(file, roots).as_posix() for file in others}
        scan = find_series(others, names=known_as, progress=progress) if others else Scan((), ())
        rejected += scan.rejected
        damaged = Counter(item.path.parent for item in scan.rejected if item.code in DAMAGED)
        shown = tuple(replace(item, path=_shown(item.path, roots)) for item in rejected)
        files = _named([(file, _shown(file, roots)) for file in images], archives)
        yield Sources(scan.series, files, shown, damaged)


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() == ARCHIVE_SUFFIX


def is_system_file(path: Path) -> bool:
    """Say whether an operating system put a file there, and not a person.

    Args:
        path: Any file.

    Returns:
        Whether to leave it out of listings.
    """
    return path.name.lower() in OPERATING_SYSTEM_FILES or path.name.startswith("._")


def _files(path: Path, *, output: Path | None, rejected: list[Rejected]) -> list[Path]:
    if path.is_file():
        return [path]
    unreadable: list[OSError] = []
    found: list[Path] = []
    for folder, below, names in os.walk(path, onerror=unreadable.append):
        below.sort()
        links = [Path(folder, name) for name in below if Path(folder, name).is_symlink()]
        text = "links to folders are not followed; name the folder itself"
        rejected += [Rejected(link, "link", text) for link in links]
        results = [name for name in below if _is_result(Path(folder, name), output)]
        below[:] = [name for name in below if name not in results]  # not walked into
        text = "The folder holds results. To use a mask as an image, name its file."
        rejected += [Rejected(Path(folder, name), "result", text) for name in results]
        truths = _truths(below)
        below[:] = [name for name in below if name not in truths]
        text = "The folder holds the masks of the images beside it. To use them as images, name it."
        rejected += [Rejected(Path(folder, name), "masks", text) for name in truths]
        tables = sorted(name for name in names if results and _RESULT_TABLES.fullmatch(name))
        rejected += [Rejected(Path(folder, name), "result", "It lists results.") for name in tables]
        others = sorted({*names} - {*tables})
        seen = [Path(folder, name) for name in others if not name.startswith(PART_PREFIX)]
        found += [file for file in seen if not is_system_file(file)]
    files = sorted((file for file in found if file.is_file()), key=natural_order)
    text = "it is no file: a link that leads nowhere, or a device"
    rejected += [Rejected(item, "not-a-file", text) for item in sorted({*found} - {*files})]
    for error in unreadable:
        text = f"the folder must be readable, got: {error.strerror}"
        rejected.append(Rejected(Path(os.fsdecode(error.filename)), UNREADABLE_FOLDER, text))
    return files


def _truths(folders: Sequence[str]) -> list[str]:
    """Return which of the folders beside each other hold the masks of a dataset's images."""
    beside = {truth for name in folders for truth in TRUTHS.get(name.lower(), ())}
    return [name for name in folders if name.lower() in beside]


def _is_result(folder: Path, output: Path | None) -> bool:
    if folder.name.startswith(PART_PREFIX) or folder.resolve() == output:
        return True
    try:
        record = json.loads((folder / RESULT_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and {"bundle", "requested", "outputs"} <= record.keys()


def _unpacked(
    archive: Path, named: Sequence[Path], rejected: list[Rejected], stack: ExitStack
) -> Path | None:
    into = Path(stack.enter_context(TemporaryDirectory(prefix="medseg-")))
    try:
        return extract_zip(archive, into)
    except InputError as error:
        if archive in named:
            raise
        rejected.append(Rejected(archive, error.code, str(error)))
        return None


def _shown(file: Path, roots: dict[Path, Path]) -> Path:
    """Return the path as the operator knows it: relative to what was named."""
    for folder, name in reversed(roots.items()):
        if file.is_relative_to(folder):
            return name / file.relative_to(folder)
    return file


def _named(
    images: Sequence[tuple[Path, Path]], archives: dict[Path, Path]
) -> tuple[ImageFile, ...]:
    ids = unique_ids([(file_stem(file), shown) for file, shown in images])
    return tuple(
        ImageFile(name, file, shown.as_posix(), _shown(file, archives))
        for name, (file, shown) in zip(ids, images, strict=True)
    )


def first_error(problems: Sequence[Problem]) -> Problem | None:
    """Return the first problem that makes its subject unusable.

    Args:
        problems: Any problems.

    Returns:
        The problem, or None.
    """
    return next((problem for problem in problems if problem.is_error), None)
