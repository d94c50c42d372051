"""The cases of a batch on their way: read ahead, segmented, written behind."""

import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.errors import InputError, Problem
from medseg.io.cases import Case, fingerprint, read_case
from medseg.io.dicom.deidentify import Deidentifier
from medseg.objects import ObjectSegmentation
from medseg.volume import Segmentation, Volume
from medseg.workflows import results
from medseg.workflows.case_files import utc_now
from medseg.workflows.case_record import empty_record, problem_of
from medseg.workflows.file_names import without_file_names
from medseg.workflows.outputs import PROBABILITIES, outputs_of, require_fit

if TYPE_CHECKING:
    from medseg.inference import Predictor
    from medseg.inference.objects import ObjectPredictor
    from medseg.workflows.manifest_log import ManifestLog
    from medseg.workflows.segment import Progress, SegmentOptions

log = logging.getLogger(__name__)


@dataclass
class _OneCase:
    """What is known of one case so far.

    Attributes:
        case: As it was found.
        record: As in the JSON document.
        outputs: Kinds of output that it gets.
        volume: The image, from when it is read until it is written.
        made_by: What its mask is made with.
        about: Where it came from, and when it was begun.
        seconds: Spent on reading; s.
        ended: Whether nothing is left to be done.
    """

    case: Case
    record: dict[str, Any]
    outputs: tuple[str, ...]
    volume: Volume | None = None
    made_by: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    ended: bool = False

    def fail(self, error: Exception) -> None:
        """Note an error: one bad case must not stop a batch."""
        log.debug("case %s failed", self.case.case_id, exc_info=error)
        problem = problem_of(error)
        self.record["status"] = "failed"
        self.record["error"] = {"code": problem.code, "message": problem.message}
        self.volume, self.ended = None, True


class CaseRuns:
    """Runs cases one after the other.

    While the networks work on a case the next one is read and the one before is written, each in
    a thread of its own: at most three volumes are held.

    Args:
        predictor: With its bundles loaded.
        options: What `segment` was asked for.
        identity: Name, version and weights hash of the bundles.
        manifest: Gets a line a case.
        stop: No further case is begun once it is set; an error that ends the batch sets it.
    """

    def __init__(
        self,
        predictor: "Predictor | ObjectPredictor",
        options: "SegmentOptions",
        identity: dict[str, Any],
        manifest: "ManifestLog | None" = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.predictor = predictor
        self.options = options
        self.identity = identity
        self.manifest = manifest
        self.stop = stop or threading.Event()
        self.deidentifier = Deidentifier() if options.deidentify else None

    def records(self, cases: Sequence[Case], tell: "Progress") -> list[dict[str, Any]]:
        """Segment cases.

        Args:
            cases: Any number.
            tell: Told what is going on.

        Returns:
            A record a case, as in the JSON document.
        """
        records: list[dict[str, Any]] = []
        self.run(iter(cases), len(cases), tell, records.append)
        return records

    def run(
        self,
        cases: Iterator[Case],
        total: int,
        tell: "Progress",
        ended: Callable[[dict[str, Any]], None],
    ) -> None:
        """Segment cases as they come, and tell of each when it has ended.

        Args:
            cases: Any number; the next one is asked for while the networks work on one, and no
                sooner than the one before has been read.
            total: How many there are; 0 when not known.
            tell: Told what is going on.
            ended: Called with the record of each case in their order, when its files lie in the
                output folder and its line in the manifest.
        """
        with (
            warnings.catch_warnings(),
            ThreadPoolExecutor(1, "read") as reader,
            ThreadPoolExecutor(1, "write") as writer,
            self._stopped_by_errors(),
        ):
            # filters belong to the process: what one thread sets aside, another may bring back
            warnings.simplefilter("ignore")
            number = 0
            ahead = reader.submit(self._next, cases)
            behind: Future[None] | None = None
            while (run := ahead.result()) is not None and not self.stop.is_set():
                ahead = reader.submit(self._next, cases)
                what = f"segmenting {run.case.case_id}"
                tell(number, total and max(total, number + 1), what)

                def say(step: str, number: int = number, what: str = what) -> None:
                    tell(number, total, f"{what} ({step})")

                segmentation = None if run.ended else self._segmented(run, say)
                if behind is not None:
                    behind.result()
                behind = writer.submit(self._end, run, segmentation, ended)
                del run, segmentation  # the next case may be long in coming
                number += 1
            if behind is not None:
                behind.result()
        tell(number, max(total, number), "done")

    @contextmanager
    def _stopped_by_errors(self) -> Iterator[None]:
        """Stop whatever looks for further cases: it may wait for them for ever."""
        try:
            yield
        except BaseException:
            self.stop.set()
            raise

    def _next(self, cases: Iterator[Case]) -> _OneCase | None:
        case = None if self.stop.is_set() else next(cases, None)
        return None if case is None else self._read(case)

    def _end(
        self,
        run: _OneCase,
        segmentation: Segmentation | None,
        ended: Callable[[dict[str, Any]], None],
    ) -> None:
        if segmentation is not None:
            self._write(run, segmentation)
        if self.manifest is not None:
            try:
                about = {**run.made_by, **run.about, "ended": utc_now()}
                record = _with_private_error(run)
                if self.deidentifier is not None:
                    about["deidentified"] = True
                    if record["status"] == "failed" and not run.case.volumes:
                        # its id is the name of a file or folder
                        record = record | {"case": about["source"]}
                self.manifest.note(record, about)
            except Exception as error:  # noqa: BLE001
                run.fail(error)
        ended(run.record)

    def _read(self, case: Case) -> _OneCase:
        started = time.perf_counter()
        options = self.options
        run = _OneCase(case, empty_record(case), outputs_of(case, options.outputs))
        run.about = {
            "source": case.source,
            # names of files often name the patient
            "input": results.without_uids(case.relative) if self.deidentifier is None else None,
            "started": utc_now(),
        }
        folder = options.output / case.case_id
        try:
            if case.error is not None:
                raise InputError(case.error.message, code=case.error.code)
            run.made_by = {
                "bundle": self.identity,
                "settings": options.settings,
                "input_sha256": fingerprint(case),
            }
            if options.resume:
                done = results.complete(folder, run.outputs, run.made_by)
                if done is not None:
                    run.record |= {**done, "status": "skipped"}
                    run.ended = True
                    return run
            results.refuse_foreign(folder)
            results.require_writable(options.output)
            run.volume = read_case(
                case,
                frame=options.frame,
                channels=self.predictor.bundle.input_rule.channels,
                regrid=options.regrid,
                resample=options.resample,
            )
            require_fit(run.outputs, run.volume)
        except Exception as error:  # noqa: BLE001
            run.fail(error)
        run.seconds = time.perf_counter() - started
        return run

    def _segmented(self, run: _OneCase, say: Callable[[str], None]) -> Segmentation | None:
        assert run.volume is not None
        try:
            kept: dict[str, Any] = {}
            if set(run.outputs) & set(PROBABILITIES):
                kept["probabilities"] = self.options.output
            return _keep(self.predictor(run.volume, tell=say, **kept), self.options.labels)
        except Exception as error:  # noqa: BLE001
            run.fail(error)
            return None

    def _write(self, run: _OneCase, segmentation: Segmentation) -> None:
        try:
            self._write_files(run, segmentation)
        except Exception as error:  # noqa: BLE001
            run.fail(error)

    def _write_files(self, run: _OneCase, segmentation: Segmentation) -> None:
        assert run.volume is not None
        problems = (*run.case.warnings, *segmentation.source.problems)
        problems += _not_as_asked(self.options, segmentation.inference["networks"])
        said = [problem.as_json() for problem in problems]
        written_of = without_file_names(problems, run.case)
        seconds = {"read": run.seconds, **segmentation.seconds}
        context = {
            **run.made_by,
            **run.about,
            "deidentifier": self.deidentifier,
            "mesh": self.options.mesh,
            "warnings": [problem.as_json() for problem in written_of],
            "seconds": seconds,
            "inference": segmentation.inference,
            "seen": self.predictor.bundle.seen,
        }
        folder: Path = self.options.output / run.case.case_id
        written = results.write(folder, run.volume, segmentation, run.outputs, context)
        seconds = {**seconds, **written["seconds"]}
        seconds["total"] = sum(seconds.values())
        run.record |= {
            **written,
            "status": "done",
            "seconds": seconds,
            "inference": segmentation.inference,
            # the operator may know the names of files
            "warnings": said + written["warnings"][len(said) :],
        }
        run.volume, run.ended = None, True


def _with_private_error(run: _OneCase) -> dict[str, Any]:
    """Return the record of a case, without names of DICOM files where it failed."""
    error = run.record["error"]
    if error is None:
        return run.record
    (told,) = without_file_names([Problem(error["code"], error["message"])], run.case)
    return run.record | {"error": {"code": told.code, "message": told.message}}


def _not_as_asked(
    options: "SegmentOptions", networks: Sequence[dict[str, Any]]
) -> tuple[Problem, ...]:
    """Return a warning for each network that was not run as it was asked for."""
    problems = []
    for network in networks:
        taken = network["backend"], network["precision"]
        asked = options.backend, options.precision
        library = "torch" if taken[0] == "channels_last" else taken[0]
        if any(a not in ("auto", t) for a, t in zip(asked, (library, taken[1]), strict=True)):
            reasons = "; ".join(f"{one['backend']}: {one['reason']}" for one in network["refused"])
            message = f"{' '.join(taken)} was used in place of {' '.join(asked)} ({reasons})"
            problems.append(Problem("other-backend", message))
    return tuple(problems)


def _keep(segmentation: Segmentation, names: tuple[str, ...]) -> Segmentation:
    """Drop the labels that were not asked for; indices stay.

    What lies within a region that is kept stays as part of it.
    """
    if not names:
        return segmentation
    kept = tuple(label for label in segmentation.labels if label.name in names)
    if isinstance(segmentation, ObjectSegmentation):
        segmentation = segmentation.of_classes([label.index for label in kept])
    array = segmentation.array
    table = np.zeros(int(np.iinfo(array.dtype).max) + 1, array.dtype)
    for label in kept:  # the widest region first
        inside = [value for value in label.inside if value < len(table)]
        table[inside] = label.index
    return replace(segmentation, array=table[array], labels=kept)
