"""What a batch has done: `manifest.jsonl`, a line a finished case, and `cases.csv` made of it.

Nothing here names a patient, a date of theirs, an institution, a device, a UID or a place on disk.
"""

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, Problem
from medseg.io.atomic import output_errors
from medseg.io.files import natural_order
from medseg.io.json_lines import (
    JsonLines,
    lock,
    open_json_lines,
    read_json_line,
    read_json_lines,
    wait_for_lock,
)
from medseg.report.tables import CASE_COLUMNS, case_rows, label_columns, write_table
from medseg.workflows.results import read_record, without_uids
from medseg.workflows.shard import MANIFESTS, WHOLE, Shard

log = logging.getLogger(__name__)

TABLE = "cases.csv"

TABLE_EVERY_S = 60.0
"""Time between two writings of the table while a batch runs, at least; s."""

_TABLE_SHARE = 0.02
"""Of the time of a long batch that goes into writing the table again."""

_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[/\\][^\s'\",;:)]*[/\\][^\s'\",;:)]*")


@dataclass(frozen=True)
class Entry:
    """What the manifest says of a case last.

    Attributes:
        status: `done` or `failed`.
        source: Hash of where the case came from.
        input_sha256: Hash of its images; None where they could not be read.
        made_by: Bundle and settings.
        outputs: Hashes of the files.
        error: Code of what went wrong.
    """

    status: str
    source: str
    input_sha256: str | None
    made_by: str
    outputs: str
    error: str

    @classmethod
    def of(cls, line: dict[str, Any]) -> "Entry":
        """Return what is kept of a line.

        Args:
            line: Of the manifest.

        Returns:
            Its parts, to be compared.
        """
        made_by = f"{line.get('bundle')} {line.get('settings')}"
        outputs = " ".join(one["sha256"] for _, one in sorted((line.get("outputs") or {}).items()))
        status, source = str(line.get("status")), str(line.get("source") or "")
        error = (line.get("error") or {}).get("code", "")
        return cls(status, source, line.get("input_sha256"), made_by, outputs, error)


class ManifestLog:
    """The manifest of a run, open for more lines.

    Args:
        output: The output folder.
        lines: The manifest.
        private: Paths of this machine that no line may hold.
    """

    def __init__(self, output: Path, lines: JsonLines, private: Sequence[Path] = ()) -> None:
        self.output = output
        self._lines = lines
        self._private = tuple(private)
        self.entries: dict[str, Entry] = {}
        for file in manifests(output):
            for _, line in read_json_lines(file):
                if isinstance(line.get("case"), str):
                    self.entries[line["case"]] = Entry.of(line)
        self._written_s = time.monotonic()
        self._took_s = 0.0

    def note(self, record: dict[str, Any], about: dict[str, Any]) -> None:
        """Add the line of a case that has ended.

        None is added of a case that was skipped or failed where its last line says the same.

        Args:
            record: Of the case, as in the JSON document.
            about: `source`, `input`, `started` and `ended`, and `input_sha256` where it is known;
                `deidentified` where nothing may be told of the names of files.

        Raises:
            OutputError: If it cannot be written.
        """
        if record["status"] == "failed":
            line = self._failed(record, about)
        else:
            line = _done(record["case"], read_record(self.output / record["case"]))
        entry, before = Entry.of(line), self.entries.get(record["case"])
        if record["status"] != "done" and entry == before:
            return
        again = None if before is None else _why_again(before, entry)
        line = {"case": line.pop("case"), "status": line.pop("status"), "again": again} | line
        self._lines.append(line)
        self.entries[record["case"]] = entry
        waited = time.monotonic() - self._written_s
        if waited > max(TABLE_EVERY_S, self._took_s / _TABLE_SHARE):
            self._try_table()

    def write_table(self) -> None:
        """Write `cases.csv` of the last line of each case, those of other shares included.

        Raises:
            OutputError: If it cannot be written.
        """
        started = time.monotonic()
        with _one_writer(self.output, self._lines.path):
            columns, places = _survey(self.output)
            ordered = sorted(places, key=lambda case: natural_order(Path(case)))
            rows = (
                row
                for case in ordered
                for row in case_rows(read_json_line(*places[case]) | {"case": case})
            )
            write_table(self.output / TABLE, columns, rows)
        self._written_s = time.monotonic()
        self._took_s = self._written_s - started

    def _try_table(self) -> None:
        try:
            self.write_table()
        except MedsegError as error:  # the end of the run tries again, and says so
            log.debug("%s: %s", TABLE, error)
            self._written_s = time.monotonic()

    def _failed(self, record: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        error = record["error"]
        message = self._public(error["message"], Path(record["input"]))
        if error["code"] == "internal":  # what other libraries say may quote a header
            message = message.split(":")[0]
        if about.get("deidentified"):
            message = "left out, for messages name files"
        return {
            "case": record["case"],
            "status": "failed",
            "error": {"code": error["code"], "message": message},
            "input": about["input"],
            "source": about["source"],
            **{key: about.get(key) for key in ("bundle", "settings", "input_sha256")},
            "outputs": {},
            "labels": [],
            "seconds": {},
            "started": about["started"],
            "ended": about["ended"],
        }

    def _public(self, message: str, given: Path) -> str:
        """Take out UIDs, and turn paths into names."""
        paths = {place for path in (given, *self._private, self.output) for place in _forms(path)}
        for path in sorted(paths, key=len, reverse=True):
            message = message.replace(path, Path(path).name)
        return _PATH.sub("(path)", without_uids(message))


@contextmanager
def open_manifest(
    output: Path, shard: Shard = WHOLE, private: Sequence[Path] = ()
) -> Iterator[ManifestLog]:
    """Open the manifest of an output folder; no other run can write there meanwhile.

    The shares of one batch can, each with a manifest of its own.

    Args:
        output: The output folder; it is made.
        shard: The share that this run does.
        private: Paths of this machine that no line may hold, such as the input.

    Yields:
        The manifest. At the end of the block `write_table` is left to the caller.

    Raises:
        UsageError: If another run writes there (`output-in-use`).
        OutputError: If it cannot be written.
    """
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        own = output / shard.manifest
        lines = stack.enter_context(open_json_lines(own))
        whole = output / WHOLE.manifest
        others = [whole] if shard != WHOLE else manifests(output)
        for other in others:
            if other != own and other.exists():
                descriptor = os.open(other, os.O_RDWR)
                stack.callback(os.close, descriptor)
                lock(descriptor, other, shared=shard != WHOLE)
        yield ManifestLog(output, lines, private)


def manifests(output: Path) -> list[Path]:
    """Return the manifests in an output folder.

    Args:
        output: The folder.

    Returns:
        Of a whole run and of shares, sorted.
    """
    return sorted(output.glob(MANIFESTS))


def table_problem(manifest: ManifestLog) -> Problem | None:
    """Write the table at the end of a run, when nothing may be lost by it any more.

    Args:
        manifest: Of the run.

    Returns:
        Why it could not be written, or None.
    """
    try:
        manifest.write_table()
    except MedsegError as error:
        return Problem(error.code, str(error))
    return None


@contextmanager
def _one_writer(output: Path, own: Path) -> Iterator[None]:
    """Let shares write the table one after the other: the last one to end has seen all lines."""
    if own.name == WHOLE.manifest:
        yield
        return
    descriptor = os.open(output, os.O_RDONLY)
    try:
        wait_for_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _survey(output: Path) -> tuple[list[str], dict[str, tuple[Path, int]]]:
    """Return the columns of all rows, and where the last line of each case lies."""
    columns = label_columns((), CASE_COLUMNS)
    last: dict[str, tuple[str, Path, int]] = {}
    for file in manifests(output):
        for start, line in read_json_lines(file):
            case, ended = line.get("case"), str(line.get("ended") or "")
            if not isinstance(case, str) or "status" not in line:  # somebody's own line
                continue
            if case in last and ended < last[case][0]:
                continue
            last[case] = ended, file, start
            columns = list(dict.fromkeys([*columns, *label_columns(case_rows(line))]))
    return columns, {case: (file, start) for case, (_, file, start) in last.items()}


def _done(case: str, record: dict[str, Any]) -> dict[str, Any]:
    return {
        "case": case,
        "status": "done",
        "error": None,
        **{key: record.get(key) for key in ("input", "source", "bundle", "settings")},
        "input_sha256": record.get("input_sha256"),
        "outputs": record.get("files", {}),
        "labels": record.get("numbers", []),
        "warnings": sorted({warning["code"] for warning in record.get("warnings", ())}),
        **{key: record.get(key) for key in ("seconds", "started", "ended")},
    }


def _why_again(before: Entry, now: Entry) -> str:
    """Say why a case that had a line has another one."""
    if before.status == "failed":
        return "failed-before"
    if now.input_sha256 != before.input_sha256:
        return "input-changed"
    return "made-otherwise" if now.made_by != before.made_by else "repeated"


def _forms(path: Path) -> Iterator[str]:
    """Return a path as messages may have it, except those that are no more than a name."""
    for form in {str(path), str(path.absolute()), os.path.realpath(path)}:
        if len(Path(form).parts) > 1:
            yield form
