"""Zip archives from strangers: extracted without leaving the folder or filling the disk."""

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from medseg.errors import InputError, OutputError, UsageError
from medseg.io.atomic import output_errors

_PIECE_BYTES = 1 << 20
_SPARE_BYTES = 64 << 20  # what extraction leaves free on the disk
_ENCRYPTED = 0x1  # general purpose flag bits of the zip format (APPNOTE.TXT 4.4.4)
_STRONGLY_ENCRYPTED = 0x40
_DRIVE = re.compile(r"^[A-Za-z]:")
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError)


@dataclass(frozen=True)
class ArchiveLimits:
    """How much an archive may unpack to.

    Attributes:
        total_bytes: All members together.
        members: Number of members.
        ratio: Unpacked to packed size of one member ...
        ratio_free_bytes: ... which counts beyond this unpacked size.
    """

    total_bytes: int = 64 << 30
    members: int = 1_000_000
    ratio: float = 200.0
    ratio_free_bytes: int = 64 << 20


def extract_zip(path: Path, into: Path, *, limits: ArchiveLimits | None = None) -> Path:
    """Extract an archive, or nothing of it.

    Every member is checked before the first byte is written, and its real size is counted while
    it is written. Archives within the archive stay packed, as files.

    Args:
        path: The archive.
        into: Folder to fill; missing or empty.
        limits: How much it may unpack to.

    Returns:
        `into`.

    Raises:
        InputError: Codes `not-found`, `unreadable`, `unsafe-archive`, `encrypted-archive`,
            `zip-bomb`.
        OutputError: If it cannot be written (`disk-full`, `output-not-writable`, `output`).
        UsageError: If `into` holds something.
    """
    limits = limits or ArchiveLimits()
    existed = into.exists()
    with output_errors(into):
        if existed and (not into.is_dir() or any(into.iterdir())):
            msg = f"into must be a missing or empty folder, got {str(into)!r}."
            raise UsageError(msg)
        into.mkdir(parents=True, exist_ok=True)
    try:
        with _open(path) as archive:
            members = _checked_members(archive, path, limits)
            _check_space(into, sum(info.file_size for info, _ in members))
            budget = limits.total_bytes
            for info, name in members:
                budget -= _extract(archive, info, into / name, path, limits, budget)
    except BaseException:
        _empty(into, remove=not existed)
        raise
    return into


@contextmanager
def _open(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        msg = f"path must be an existing archive, got {str(path)!r}."
        raise InputError(msg, code="not-found") from error
    except (*_DAMAGED, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = f"path must be a readable zip archive, got {path.name}: {reason}. Get it again."
        raise InputError(msg) from error


def _checked_members(
    archive: zipfile.ZipFile, path: Path, limits: ArchiveLimits
) -> list[tuple[zipfile.ZipInfo, str]]:
    infos = archive.infolist()
    if len(infos) > limits.members:
        raise _bomb(path, f"{len(infos)} members")
    members = [(info, _safe_name(info, path)) for info in infos if not info.is_dir()]
    for info, _ in members:
        if info.flag_bits & (_ENCRYPTED | _STRONGLY_ENCRYPTED):
            msg = f"path must be an archive without password, got {path.name}. Unpack it first."
            raise InputError(msg, code="encrypted-archive")
        _check_ratio(info, info.file_size, path, limits)
    total = sum(info.file_size for info, _ in members)
    if total > limits.total_bytes:
        raise _bomb(path, f"{total} bytes unpacked")
    names = [name.casefold() for _, name in members]
    if len(set(names)) != len(names):
        raise _unsafe(path, "two members of one name")
    return members


def _safe_name(info: zipfile.ZipInfo, path: Path) -> str:
    name = info.filename.replace("\\", "/")
    mode = info.external_attr >> 16
    kind = stat.S_IFMT(mode)
    if name.startswith("/") or _DRIVE.match(name):
        raise _unsafe(path, "a member with an absolute path")
    if ".." in PurePosixPath(name).parts:
        raise _unsafe(path, "a member that leaves the folder")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _unsafe(path, "a link or device")
    if not PurePosixPath(name).name or any(ord(letter) < 32 for letter in name):
        raise _unsafe(path, "a member without a proper name")
    return name


def _extract(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    target: Path,
    path: Path,
    limits: ArchiveLimits,
    budget: int,
) -> int:
    count = 0
    with archive.open(info) as member:
        with output_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            output: IO[bytes] = target.open("xb")
        with output:
            while piece := member.read(_PIECE_BYTES):
                count += len(piece)
                _check_ratio(info, count, path, limits)
                if count > budget:
                    raise _bomb(path, "more bytes than it states")
                with output_errors(target):
                    output.write(piece)
            with output_errors(target):
                output.flush()
    return count


def _check_ratio(info: zipfile.ZipInfo, size: int, path: Path, limits: ArchiveLimits) -> None:
    if size > limits.ratio_free_bytes and size > limits.ratio * max(1, info.compress_size):
        raise _bomb(path, f"a member of {info.compress_size} bytes that unpacks to {size}")


def _check_space(into: Path, needed: int) -> None:
    free = shutil.disk_usage(into).free
    if needed + _SPARE_BYTES > free:
        msg = (
            f"{into} must have space for {needed >> 20} MiB of the archive, got {free >> 20} MiB"
            " free. Free some, or unpack it elsewhere."
        )
        raise OutputError(msg, code="disk-full")


def _empty(folder: Path, *, remove: bool) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    if remove:
        folder.rmdir()


def _unsafe(path: Path, what: str) -> InputError:
    msg = f"path must be an archive of plain files and folders, got {what} in {path.name}."
    return InputError(msg, code="unsafe-archive")


def _bomb(path: Path, what: str) -> InputError:
    msg = (
        f"path must be an archive within the limits, got {what} in {path.name}."
        " If you trust it, unpack it yourself and give the folder."
    )
    return InputError(msg, code="zip-bomb")
