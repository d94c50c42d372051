"""A file of JSON documents, one a line, that one process at a time appends to."""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from medseg.errors import UsageError
from medseg.io.atomic import json_line, output_errors

log = logging.getLogger(__name__)


class JsonLines:
    """An open file of lines.

    Args:
        path: Where it lies.
        descriptor: Of the open file, for reading and appending.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def append(self, document: dict[str, Any]) -> int:
        """Add a line; it is on the disk when this returns, and not at all where it fails.

        Args:
            document: As `json_text` takes it.

        Returns:
            Where the line begins; bytes.

        Raises:
            OutputError: If it cannot be written (`disk-full`, `output-not-writable`, `output`).
        """
        rest = json_line(document).encode(errors="backslashreplace") + b"\n"
        with output_errors(self.path):
            before = os.fstat(self._descriptor).st_size
            try:
                while rest:  # once, unless the disk is full: then the second time says so
                    rest = rest[os.write(self._descriptor, rest) :]
                os.fsync(self._descriptor)
            except OSError:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, before)
                raise
        return before

    def repair(self) -> None:
        """Cut off a last line that is not whole: its process was killed, or its machine stopped.

        Raises:
            OutputError: If the file cannot be written.
        """
        with output_errors(self.path):
            size = os.fstat(self._descriptor).st_size
            whole = size
            while whole and os.pread(self._descriptor, 1, whole - 1) != b"\n":
                start = max(0, whole - _BLOCK)
                block = os.pread(self._descriptor, whole - start, start)
                whole = start + block.rfind(b"\n") + 1
            if whole < size:
                os.ftruncate(self._descriptor, whole)


_BLOCK = 1 << 16


@contextmanager
def open_json_lines(path: Path) -> Iterator[JsonLines]:
    """Open a file of lines for appending; it is made where there is none, and repaired.

    Args:
        path: The file, in a folder that exists.

    Yields:
        The file, which no other process can open like this meanwhile.

    Raises:
        UsageError: If another process has it open (`output-in-use`).
        OutputError: If it cannot be written.
    """
    with ExitStack() as stack:
        with output_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        stack.callback(os.close, descriptor)
        lock(descriptor, path)
        lines = JsonLines(path, descriptor)
        lines.repair()
        yield lines


def lock(descriptor: int, path: Path, *, shared: bool = False) -> None:
    """Lock an open file until it is closed; the system unlocks it for a process that is killed.

    Args:
        descriptor: Of the file, open for reading and writing.
        path: Its path, for the message.
        shared: Others may lock it like this as well.

    Raises:
        UsageError: If another process has locked it (`output-in-use`).
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        msg = (
            f"output must be used by one run at a time, got {path.parent}, which another one is"
            " writing to. Wait for it, or choose another folder."
        )
        raise UsageError(msg, code="output-in-use") from error
    except OSError as error:  # a file system without locks
        log.warning("%s cannot be locked: %s", path.name, error.strerror)


def wait_for_lock(descriptor: int) -> None:
    """Lock an open file or folder until it is closed; wait while another process has it locked.

    Args:
        descriptor: Of the file or folder. Where the file system has no locks nothing is done.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        log.warning("the output folder cannot be locked: %s", error.strerror)


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read the lines of a file.

    Args:
        path: The file; another process may be appending to it.

    Yields:
        Where a line begins, bytes, and its document. Lines that are not whole are left out.
    """
    start = 0
    with path.open("rb") as stream:
        for line in stream:
            document = _document(line)
            if document is not None:
                yield start, document
            start += len(line)


def read_json_line(path: Path, start: int) -> dict[str, Any]:
    """Read one line of a file.

    Args:
        path: The file.
        start: Where the line begins; bytes.

    Returns:
        Its document; empty where there is none.
    """
    with path.open("rb") as stream:
        stream.seek(start)
        return _document(stream.readline()) or {}


def _document(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        document = json.loads(line)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
