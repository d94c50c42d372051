"""Converted networks on disk, so that each is converted once."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LARGEST_BYTES = 4 << 30
"""The store is kept below this: what was not used for longest goes first."""

_DONE = "complete"  # file that is written last
_PART = ".part"
_ABANDONED_S = 24 * 3600.0


class ModelStore:
    """A folder of converted networks, shared by processes.

    An entry appears as a whole or not at all. A folder that cannot be written to, or a full disk,
    costs time and nothing else.

    Args:
        root: The folder; it need not exist. None keeps nothing.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root

    @contextmanager
    def folder(self, name: str, write: Callable[[Path], None]) -> Iterator[Path]:
        """Give the folder of an entry, which is written first if it is not there.

        Args:
            name: Of the entry; any text.
            write: Fills an empty folder.

        Yields:
            The folder. It may be gone afterwards.
        """
        entry = None if self.root is None else self.root / _digest(name)
        if entry is not None and (entry / _DONE).is_file():
            with suppress(OSError):
                os.utime(entry / _DONE)
            yield entry
            return
        scratch = self._filled(write)
        try:
            yield self._kept(scratch, entry) or scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def drop(self, name: str) -> bool:
        """Remove an entry.

        Args:
            name: Of the entry.

        Returns:
            Whether there was one, and it is gone.
        """
        entry = None if self.root is None else self.root / _digest(name)
        if entry is None or not entry.is_dir():
            return False
        shutil.rmtree(entry, ignore_errors=True)
        return not entry.exists()

    def read(self, name: str) -> dict[str, Any]:
        """Return what was noted under a name.

        Args:
            name: Any text.

        Returns:
            The note; empty without one, or with one that cannot be read.
        """
        if self.root is None:
            return {}
        try:
            note = json.loads((self.root / f"{_digest(name)}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def note(self, name: str, document: dict[str, Any]) -> None:
        """Keep a note under a name.

        Args:
            name: Any text.
            document: What JSON can hold.
        """
        if self.root is None:
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.root, suffix=_PART, delete=False, encoding="utf-8"
            ) as file:
                json.dump(document, file)
            Path(file.name).replace(self.root / f"{_digest(name)}.json")
        except OSError as error:
            log.info("cache folder %s cannot be written to: %s", self.root, error)

    def _filled(self, write: Callable[[Path], None]) -> Path:
        """Return a filled folder: in the store, so that it can be renamed, or a temporary one."""
        for root in (None,) if self.root is None else (self.root, None):
            scratch: Path | None = None
            try:
                if root is not None:
                    root.mkdir(parents=True, exist_ok=True)
                scratch = Path(tempfile.mkdtemp(dir=root, prefix="medseg-", suffix=_PART))
                write(scratch)
            except BaseException as error:
                if scratch is not None:
                    shutil.rmtree(scratch, ignore_errors=True)
                # a full disk makes some libraries raise errors of their own
                if root is None or not isinstance(error, Exception):
                    raise
                log.info("cache folder %s cannot be written to: %s", root, error)
            else:
                return scratch
        raise AssertionError

    def _kept(self, scratch: Path, entry: Path | None) -> Path | None:
        if entry is None or scratch.parent != entry.parent:
            return None
        try:
            (scratch / _DONE).touch()
            if entry.is_dir() and not (entry / _DONE).is_file():
                shutil.rmtree(entry, ignore_errors=True)  # somebody removed a part of it
            scratch.replace(entry)  # another process may have been quicker
        except OSError:
            return entry if (entry / _DONE).is_file() else None
        self._shrink(entry)
        return entry

    def _shrink(self, kept: Path) -> None:
        """Remove what was not used for longest, and what a killed process left."""
        assert self.root is not None
        with suppress(OSError):
            for left in self.root.glob(f"*{_PART}"):
                if time.time() - left.stat().st_mtime > _ABANDONED_S:
                    shutil.rmtree(left, ignore_errors=True)
            entries = [folder for folder in self.root.iterdir() if (folder / _DONE).is_file()]
            entries.sort(key=lambda folder: (folder / _DONE).stat().st_mtime, reverse=True)
            total = 0
            for folder in entries:
                total += sum(file.stat().st_size for file in folder.iterdir())
                if total > LARGEST_BYTES and folder != kept:
                    shutil.rmtree(folder, ignore_errors=True)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
