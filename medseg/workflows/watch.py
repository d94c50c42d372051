"""Incoming folders: studies are taken when nothing about their files has changed for a while."""

import hashlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from medseg.errors import UsageError
from medseg.io.atomic import json_line
from medseg.io.files import file_stem, natural_order
from medseg.io.sources import RESULT_RECORD, is_system_file
from medseg.workflows.entries import Entry
from medseg.workflows.shard import WHOLE, Shard

_LOOKING_SHARE = 0.1
"""Of the time that may go into looking, where folders are large."""


@dataclass(frozen=True)
class Watch:
    """How incoming folders are watched.

    Attributes:
        settle_s: A study is taken when its files have stayed the same for this long; s.
        poll_s: Time between two looks; s.
        idle_s: End when there has been nothing to do for this long; never when None; s.
    """

    settle_s: float = 30.0
    poll_s: float = 5.0
    idle_s: float | None = None


def watch_of(
    *, wanted: bool, settle_s: float | None, poll_s: float | None, idle_s: float | None
) -> Watch | None:
    """Make what was typed into how to watch.

    Args:
        wanted: Whether to watch at all.
        settle_s: As `Watch`; None where nothing was typed.
        poll_s: As `Watch`; None where nothing was typed.
        idle_s: As `Watch`.

    Returns:
        How to watch, or None.

    Raises:
        UsageError: If a time is out of range, or given without watching.
    """
    times = {"settle": settle_s, "poll": poll_s, "watch-idle": idle_s}
    for name, seconds in times.items():
        if seconds is not None and not wanted:
            msg = f"{name} must be given with watch, got it alone. Add --watch."
            raise UsageError(msg)
        least = 0.01 if name == "poll" else 0
        if seconds is not None and not least <= seconds < threading.TIMEOUT_MAX:
            msg = f"{name} must be at least {least} seconds, got {seconds}."
            raise UsageError(msg)
    if not wanted:
        return None
    default = Watch()
    return Watch(
        default.settle_s if settle_s is None else settle_s,
        default.poll_s if poll_s is None else poll_s,
        idle_s,
    )


@dataclass
class _Seen:
    """What is known of an entry.

    Attributes:
        signature: Hash of names, sizes and times of its files.
        since_s: When it was seen like this first; s.
        taken: Its signature when it was taken; empty before.
    """

    signature: str
    since_s: float
    taken: str = ""


class Watcher:
    """Looks at incoming folders; each thing directly below them is an entry.

    Args:
        folders: The folders.
        watch: How.
        output: The folder of this run, which is no entry.
        stop: Ends it.
        shard: Which entries are taken, by their names.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        watch: Watch,
        output: Path,
        stop: threading.Event,
        shard: Shard = WHOLE,
    ) -> None:
        self._folders = tuple(folders)
        self._watch = watch
        self._output = os.path.realpath(output)
        self._stop = stop
        self._shard = shard
        self._seen: dict[Path, _Seen] = {}

    def entries(self) -> Iterator[Entry]:
        """Return entries as they settle, again when they have changed since they were taken.

        Yields:
            Entries. What vanishes before its turn is left out.
        """
        busy_s = time.monotonic()
        while not self._stop.is_set():
            began_s = time.monotonic()
            settled = self._look()
            took_s = time.monotonic() - began_s
            for path in settled:
                seen = self._seen[path]
                if self._stop.is_set():
                    return
                if _signature(path) == seen.signature:  # those before it took their time
                    seen.taken = seen.signature
                    yield Entry(path, path.name, file_stem(path))
                busy_s = time.monotonic()
            if any(seen.taken != seen.signature for seen in self._seen.values()):
                busy_s = time.monotonic()
            idle_s = self._watch.idle_s
            if idle_s is not None and time.monotonic() - busy_s >= idle_s:
                return
            self._stop.wait(max(self._watch.poll_s, took_s / _LOOKING_SHARE))

    def _look(self) -> list[Path]:
        """Look at every entry once; return those that have settled and were not taken like this."""
        now_s = time.monotonic()
        here: set[Path] = set()
        for folder in self._folders:
            try:
                here.update(path for path in folder.iterdir() if self._is_entry(path))
            except OSError:  # a share that is away for a while: its studies are not new afterwards
                here.update(path for path in self._seen if path.parent == folder)
        for path in self._seen.keys() - here:
            del self._seen[path]
        settled = []
        for path in sorted(here, key=natural_order):
            signature = _signature(path)
            if not signature:  # nothing in it yet, or gone
                self._seen.pop(path, None)
                continue
            seen = self._seen.setdefault(path, _Seen(signature, now_s))
            if seen.signature != signature:
                seen.signature, seen.since_s = signature, now_s
            if seen.taken != signature and now_s - seen.since_s >= self._watch.settle_s:
                settled.append(path)
        return settled

    def _is_entry(self, path: Path) -> bool:
        if path.name.startswith(".") or is_system_file(path) or not self._shard.holds(path.name):
            return False
        if os.path.realpath(path) == self._output:  # `resolve` raises for links in a circle
            return False
        try:
            return not (path / RESULT_RECORD).is_file()
        except OSError:  # a folder that may not be entered: reading it will say why
            return True


def _signature(path: Path) -> str:
    """Return a hash of names, sizes and times of all files of an entry; empty where there is none.

    What cannot be listed counts as a file: reading it will say why.
    """
    parts: list[str] = []
    if not path.is_dir():
        _add(parts, path)
    unreadable: list[OSError] = []
    for folder, below, names in os.walk(path, onerror=unreadable.append):
        below.sort()
        for name in sorted(names):
            _add(parts, Path(folder, name))
    parts += [f"{error.filename} {error.errno}" for error in unreadable if path.is_dir()]
    text = "\n".join(parts)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest() if parts else ""


def _add(parts: list[str], file: Path) -> None:
    try:
        status = file.stat()
    except OSError:  # gone meanwhile, or a link that leads nowhere
        if file.is_symlink():
            parts.append(f"{file} link")
        return
    parts.append(f"{file} {status.st_size} {status.st_mtime_ns}")


@contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """Let the first SIGINT or SIGTERM end the work in good order, and the second at once.

    Args:
        stop: Set by the first signal.

    Yields:
        Nothing. Outside of the main thread signals do what they did before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def first(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()
        for one in signals:
            signal.signal(one, signal.SIG_DFL)

    before = {one: signal.signal(one, first) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


IN_MEMORY_BYTES = 1 << 26
"""Of records, beyond which they are kept on the disk."""


class RecordSpool:
    """Records of cases, many of them in a file without a name: a watch may go on for months."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 -- `close` closes it
            IN_MEMORY_BYTES, "w+", encoding="utf-8", errors="backslashreplace"
        )

    def append(self, record: dict[str, Any]) -> None:
        """Keep a record.

        Args:
            record: As in the JSON document.
        """
        self._file.write(json_line(record) + "\n")

    def last_of_each(self) -> list[dict[str, Any]]:
        """Return the last record of each case, in the order in which the cases came first."""
        self._file.seek(0)
        records: dict[str, dict[str, Any]] = {}
        for line in self._file:
            record = json.loads(line)
            records[record["case"]] = record
        return list(records.values())

    def close(self) -> None:
        """Drop the file."""
        self._file.close()
