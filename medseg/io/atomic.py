"""Files that appear complete or not at all."""

import errno
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from medseg.errors import OutputError

PART_PREFIX = ".part-"
"""Every unfinished file starts with this; one that is found was left by a killed process."""

_REPLACED = "~"
"""Stands before the name of a folder whose successor is just taking its place."""

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
_LONGEST_NAME = 180  # bytes; file systems allow 255 bytes; leaves room for the prefix


@contextmanager
def atomic_path(final: Path, *, sync: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `final` that becomes `final` when the block succeeds.

    The temporary name keeps the suffix, so writers that choose a format by it work. On any
    exception the temporary file is removed and an older `final` stays as it was. Folders above
    `final` are made. Inside the block there should be writing only: every `OSError` counts as a
    failure to write.

    Args:
        final: The file to write.
        sync: Wait until the data is on the disk, so that even a power cut cannot lose it.

    Yields:
        The path to write to.

    Raises:
        OutputError: If writing fails (`disk-full`, `output-not-writable`, `output`).
    """
    final = Path(final)
    part = final.with_name(f"{_token()}-{_shortened(final.name)}")
    try:
        with output_errors(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            yield part
            if not part.is_file():
                msg = f"{final.name} must be written inside the block, got no file."
                raise OutputError(msg)
            if sync:
                _sync(part)
            part.replace(final)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(final: Path, *, keep: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `final` that takes its place when the block succeeds.

    What `final` held before stays until then, and is gone as a whole afterwards: never a mixture
    of two runs. On any exception the temporary folder is removed.

    Args:
        final: The folder to write.
        keep: A `final` that another process has written meanwhile stays, and the new folder is
            removed: for writers that all write the same.

    Yields:
        The folder to write to.

    Raises:
        OutputError: If writing fails (`disk-full`, `output-not-writable`, `output`).
    """
    final = Path(final)
    token, name = _token(), _shortened(final.name)
    part = final.with_name(f"{token}-{name}")
    replaced = final.with_name(f"{token}{_REPLACED}{name}")
    try:
        with output_errors(final):
            part.mkdir(parents=True)
        yield part
        with output_errors(final):
            if final.exists() and not keep:
                final.rename(replaced)
            try:
                part.rename(final)
            except OSError:
                if replaced.exists() and not final.exists():
                    replaced.rename(final)
                if not (keep and final.is_dir()):
                    raise
    finally:
        for left in (part, replaced):
            shutil.rmtree(left, ignore_errors=True)


def _token() -> str:
    return f"{PART_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _shortened(name: str) -> str:
    return name.encode()[-_LONGEST_NAME:].decode(errors="ignore")  # keeps the suffix


def remove_left_parts(folder: Path, *, older_than_s: float = 0.0, alone: bool = False) -> None:
    """Remove unfinished files and folders of processes that no longer run.

    A folder that was set aside for its successor comes back where the process was killed before
    that one had taken its place.

    Args:
        folder: Folder in which `atomic_path` and `atomic_folder` wrote.
        alone: No other process writes there: whatever is found was left, also where the number of
            its process is in use again, as it always is in a container.
        older_than_s: Leave what was changed later than this; where several machines share the
            folder, because the processes of the others cannot be seen; s.
    """
    for left in folder.glob(f"{PART_PREFIX}*"):
        owner = left.name.removeprefix(PART_PREFIX).split("-")[0]
        if not alone and owner.isdigit() and psutil.pid_exists(int(owner)):
            continue
        with suppress(OSError):  # removed meanwhile
            if older_than_s and time.time() - left.stat().st_mtime < older_than_s:
                continue
        name = _name_of_replaced(left)
        if name and not (folder / name).exists():
            with suppress(OSError):
                left.rename(folder / name)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):  # removed meanwhile, or of another user
                left.unlink()


def _name_of_replaced(left: Path) -> str:
    """Return the name of a folder that was set aside; empty for all else."""
    match = re.fullmatch(
        rf"{re.escape(PART_PREFIX)}\d+-[0-9a-f]{{8}}{_REPLACED}(.+)", left.name, re.DOTALL
    )
    is_whole = match is not None and len(match[1].encode(errors="replace")) < _LONGEST_NAME
    return match[1] if match and is_whole and left.is_dir() else ""


@contextmanager
def output_errors(final: Path) -> Iterator[None]:
    """Turn every `OSError` of a block into an `OutputError` with a code.

    Args:
        final: What is being written; named in the message.

    Yields:
        Nothing.

    Raises:
        OutputError: Codes `disk-full`, `output-not-writable` and `output`.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _DISK_FULL:
            msg = f"{final.parent} must have space for {final.name}, got: {reason}. Free some."
            raise OutputError(msg, code="disk-full") from error
        if error.errno in _NOT_WRITABLE:
            msg = f"{final} must be writable, got: {reason}. Choose another output folder."
            raise OutputError(msg, code="output-not-writable") from error
        msg = f"{final} must be writable, got: {reason}."
        raise OutputError(msg) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 with Unix line ends.

    Args:
        path: The file to write.
        text: Its contents.

    Raises:
        OutputError: If writing fails.
    """
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document atomically: UTF-8, keys in the order given, NaN and Inf as null.

    Args:
        path: The file to write.
        document: Dicts, lists, strings, numbers (also numpy's), paths, None.

    Raises:
        OutputError: If writing fails.
    """
    write_text(path, json_text(document) + "\n")


def json_text(document: Any) -> str:
    """Return a document as strict JSON: NaN and Inf become null, numpy numbers plain ones.

    Args:
        document: Dicts, lists, strings, numbers (also numpy's), paths, None.

    Returns:
        Indented JSON text without a final line end.

    Raises:
        TypeError: If something in the document has no JSON form.

    Examples:
        >>> print(json_text({"dice": float("nan")}))
        {
          "dice": null
        }
    """
    return json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)


def json_line(document: Any) -> str:
    """Return a document as `json_text` does, in one line.

    Args:
        document: As `json_text` takes it.

    Returns:
        JSON text without a line end.

    Raises:
        TypeError: If something in the document has no JSON form.
    """
    return json.dumps(_plain(document), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [_plain(item) for item in items]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
