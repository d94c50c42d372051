"""What image files hold, as a digest that is taken once for each state of a file."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from medseg.data.signature import text_digest
from medseg.errors import InputError
from medseg.io.atomic import write_json
from medseg.io.files import file_stem, file_suffix
from medseg.io.locator import Locator, parse_locator

MEMO_FOLDER = "hashes"
"""Folder below the cache that remembers digests."""

_HEADER_SUFFIXES = (".hdr", ".hdr.gz", ".nhdr", ".mhd")
_HEADER_BYTES = 1 << 16
_BLOCK_BYTES = 1 << 20
_CLOCK_STEP_NS = 2_000_000_000  # the coarsest time stamps of file systems: FAT's 2 s


class ContentDigests:
    """SHA-256 of files and folders, remembered by path, size and times of change.

    The memory is a small file for each path, so that any number of processes may share it. A file
    that was changed a moment ago is not remembered: a second change could bear the same time.

    Args:
        folder: Where the memory lies; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def digest(self, paths: Sequence[Path]) -> str:
        """Return the digest of an image: of one file or folder, or of several in their order.

        Args:
            paths: Files, or folders whose files count all. The voxel files of a header belong
                to it.

        Returns:
            Hexadecimal SHA-256.

        Raises:
            InputError: If a path is missing or cannot be read.
            OutputError: If the memory cannot be written.
        """
        return text_digest([self._located(path) for path in paths])

    def _located(self, path: Path) -> Any:
        place = parse_locator(path)
        if place == Locator(path):
            return self._one(path)
        digests = [self._one(one) for one in (place.path, place.grid) if one is not None]
        if place.kind == "voc-objects":
            digests.append(self._one(place.path.parent / place.entry))
        how = [place.kind, place.entry, *map(list, place.codes)] if place.kind else []
        table = [[name, *values] for name, values in place.segments]
        return [*digests, place.series, table, *how]

    def _one(self, path: Path) -> str:
        try:
            files = sorted(_files(path))
            state = text_digest([[str(name), *_stamp(file)] for name, file in files])
            memo = self._folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
            known = _remembered(memo, path, state)
            if known:
                return known
            digest = _digest(path, files)
            newest_ns = max((max(_stamp(file)[1:]) for _, file in files), default=0)
        except OSError as error:
            msg = f"path must be readable, got {error.strerror or error} for {path}."
            raise InputError(msg) from error
        if time.time_ns() - newest_ns > _CLOCK_STEP_NS:
            write_json(memo, {"path": str(path), "state": state, "sha256": digest})
        return digest


def _files(path: Path) -> Iterable[tuple[str, Path]]:
    """Return the files of an image under the names that count: relative to a folder."""
    if path.is_dir():
        below = [file for file in path.rglob("*") if file.is_file()]
        return [(file.relative_to(path).as_posix(), file) for file in below]
    if not path.is_file():
        msg = f"path must be a file or folder, got {path}, which does not exist."
        raise InputError(msg, code="not-found")
    others = _voxel_files(path) if file_suffix(path) in _HEADER_SUFFIXES else []
    return [("", path), *((file.name, file) for file in others)]


def _voxel_files(header: Path) -> list[Path]:
    """Return the files beside a header that its voxels may lie in, rather one too many."""
    with header.open("rb") as stream:
        text = stream.read(_HEADER_BYTES)
    stem = file_stem(header) + "."
    return [
        file
        for file in header.parent.iterdir()
        if file != header
        and file.is_file()
        and (file.name.startswith(stem) or os.fsencode(file.name) in text or b"%" in text)
    ]


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: Path, files: Iterable[tuple[str, Path]]) -> str:
    digests = []
    for name, file in files:
        total = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                total.update(block)
        digests.append([name, total.hexdigest()])
    return text_digest(["folder" if path.is_dir() else "file", digests])


def _remembered(memo: Path, path: Path, state: str) -> str:
    try:
        document = json.loads(memo.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    fits = isinstance(document, dict) and document.get("path") == str(path)
    return str(document["sha256"]) if fits and document.get("state") == state else ""
