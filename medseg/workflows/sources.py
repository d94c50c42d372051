"""What lies under a path: DICOM series, image files, and files that are neither."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import InputError, Problem
from medseg.io.cases import open_inputs
from medseg.io.dicom import DicomVolume, Rejected, Scan, Series, find_series
from medseg.io.files import file_stem, unique_ids

Tick = Callable[[int, int], None]
"""Called with the steps done and their total."""


@dataclass(frozen=True)
class ImageFile:
    """An image file that is not DICOM.

    Attributes:
        volume_id: File stem; parent folders are prepended where stems collide.
        path: The file.
        shown: Its path relative to what was asked for.
    """

    volume_id: str
    path: Path
    shown: str


@dataclass(frozen=True)
class Sources:
    """Everything found under one path.

    Attributes:
        series: DICOM series.
        files: Other image files, sorted by path.
        rejected: Files that are neither; paths relative to what was asked for.
    """

    series: tuple[Series, ...]
    files: tuple[ImageFile, ...]
    rejected: tuple[Rejected, ...]

    @property
    def volumes(self) -> tuple[DicomVolume, ...]:
        """The volumes of all series, in the order of the series."""
        return tuple(volume for series in self.series for volume in series.volumes)


@contextmanager
def open_sources(path: Path, *, progress: Tick | None = None) -> Iterator[Sources]:
    """Find what a path holds; an archive is unpacked for as long as the block lasts.

    Only headers are read.

    Args:
        path: A DICOM folder, file or .zip; an image file; or a folder of any mixture.
        progress: Called with the files scanned and their total.

    Yields:
        What was found.

    Raises:
        InputError: If there is nothing there (`not-found`, `no-images`), or the path is an archive
            that is unsafe or broken.
    """
    with ExitStack() as stack:
        inputs = open_inputs([path], stack)
        if not inputs.images and not inputs.others and not inputs.rejected:
            msg = f"PATH must hold images, got {str(path)!r} without any file. Check the folder."
            raise InputError(msg, code="no-images")
        others = [file for file, _ in inputs.others]
        scan = find_series(others, progress=progress) if others else Scan((), ())
        roots = {root for _, root in (*inputs.images, *inputs.others)}
        rejected = tuple(
            replace(item, path=_shown(item.path, path, roots))
            for item in (*inputs.rejected, *scan.rejected)
        )
        images = [(file, _shown(file, path, roots)) for file, _ in inputs.images]
        yield Sources(scan.series, _named(images), rejected)


def _shown(file: Path, path: Path, roots: set[Path]) -> Path:
    """Return a file's path relative to what was asked for; inside an archive, after its name."""
    prefix = Path() if path.is_dir() else Path(path.name)
    for root in (path, *roots):
        if file.is_relative_to(root):
            return prefix / file.relative_to(root)
    return Path(file.name)


def _named(images: Sequence[tuple[Path, Path]]) -> tuple[ImageFile, ...]:
    ids = unique_ids([(file_stem(file), shown) for file, shown in images])
    return tuple(
        ImageFile(name, file, shown.as_posix())
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
