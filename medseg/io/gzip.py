"""Reading and writing gzip streams through isa-l, several times faster than zlib."""

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from isal import igzip, igzip_lib, igzip_threaded, isal_zlib

from medseg.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"
MOST_GZIP_CAN_COMPRESS = 1032
"""Deflate's largest ratio: 258 bytes from two bits (zlib's technical details, zlib.net)."""

BLOCK_BYTES = 1 << 20
_GZIP_LEVEL = 1  # isa-l: about the size of zlib level 2 at a fifth of its time
_MOST_THREADS = 4
_CORRUPT: Any = (zlib.error, isal_zlib.error, igzip_lib.error, igzip.BadGzipFile)


@contextmanager
def input_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a file is read into an `InputError` of one line.

    Args:
        path: The file; named in the message.

    Yields:
        Nothing.

    Raises:
        InputError: Codes `not-found`, `truncated` and `unreadable`.
    """
    try:
        yield
    except FileNotFoundError as error:
        msg = f"path must be an existing file, got {str(path)!r}."
        raise InputError(msg, code="not-found") from error
    except EOFError as error:
        raise truncated(path) from error
    except (*_CORRUPT, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = f"path must be a readable file, got {path.name}: {reason}. Get it again."
        raise InputError(msg) from error


def truncated(path: Path) -> InputError:
    """Return the error for a file that ends too early.

    Args:
        path: The file; its name stands in the message.

    Returns:
        An `InputError` of code `truncated`.
    """
    msg = f"path must be a complete file, but {path.name} ends too early. Get it again."
    return InputError(msg, code="truncated")


@contextmanager
def open_read(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading forwards; gzip is recognised by its first bytes, not its name.

    Args:
        path: The file.

    Yields:
        A binary stream of the uncompressed bytes; its `readinto` makes no copy of the whole.

    Raises:
        OSError: If the file cannot be opened; see `input_errors`.
    """
    with path.open("rb", buffering=0) as raw:
        magic = raw.read(2)
        raw.seek(0)
        if magic != GZIP_MAGIC:
            yield cast(BinaryIO, raw)
            return
        # No thread: inflating costs no less with one, and small files four times as much.
        with igzip.open(raw, "rb") as stream:
            yield cast(BinaryIO, stream)


def is_gzip(path: Path) -> bool:
    """Tell whether a file starts as gzip does.

    Args:
        path: The file.

    Returns:
        Whether its first two bytes are gzip's.
    """
    with path.open("rb") as stream:
        return stream.read(2) == GZIP_MAGIC


def largest_uncompressed(path: Path) -> int:
    """Return how many bytes a file can hold at most, so that a lying header is found early.

    Args:
        path: The file.

    Returns:
        Its size, or the most that gzip can have packed into it.
    """
    size = path.stat().st_size
    return size * MOST_GZIP_CAN_COMPRESS if is_gzip(path) else size


def read_into(stream: BinaryIO, buffer: Any) -> None:
    """Fill a buffer from a stream.

    Args:
        stream: Open binary stream.
        buffer: Writable, C-contiguous buffer.

    Raises:
        EOFError: If the stream ends before the buffer is full.
    """
    view = memoryview(buffer).cast("B")
    done = 0
    while done < len(view):
        count = cast(Any, stream).readinto(view[done : done + BLOCK_BYTES])
        if not count:
            raise EOFError
        done += count


def skip(stream: BinaryIO, count: int) -> None:
    """Read on over some bytes.

    Args:
        stream: Open binary stream.
        count: How many bytes.

    Raises:
        EOFError: If the stream ends before.
    """
    scratch = bytearray(min(count, BLOCK_BYTES))
    while count > 0:
        size = min(count, BLOCK_BYTES)
        read_into(stream, memoryview(scratch)[:size])
        count -= size


def drain(stream: BinaryIO) -> None:
    """Read to the end, which is where gzip's checksum is compared.

    Args:
        stream: Open binary stream.

    Raises:
        OSError: If the checksum is wrong; see `input_errors`.
    """
    while stream.read(BLOCK_BYTES):
        pass


@contextmanager
def open_write(path: Path, *, threads: int | None = None) -> Iterator[IO[bytes]]:
    """Open a new file for writing; a name that ends in `.gz` is compressed on several threads.

    The gzip header holds neither the name nor the time.

    Args:
        path: The file to make.
        threads: That compress, beside the one that writes; 0 for none, which is the fastest for
            what is nearly empty. As many as there are cores, up to 4, when None.

    Yields:
        A binary stream.

    Raises:
        OSError: If writing fails, at the latest when the block ends.
    """
    with path.open("wb") as raw:
        if path.suffix.lower() != ".gz":
            yield raw
            return
        count = _threads() if threads is None else threads
        if count == 0:
            with igzip.IGzipFile(
                "", "wb", fileobj=raw, compresslevel=_GZIP_LEVEL, mtime=0
            ) as stream:
                yield cast(IO[bytes], stream)
            return
        with igzip_threaded.open(
            raw, "wb", compresslevel=_GZIP_LEVEL, threads=count, block_size=BLOCK_BYTES
        ) as stream:
            yield stream


def _threads() -> int:
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)
