"""classical: superpixels, region growing and watershed, from files to one folder a case."""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg._version import __version__
from medseg.errors import ChoiceError, InputError, UsageError
from medseg.io.cases import Case, Choice, Rule, find_cases, fingerprint, read_case, with_unique_ids
from medseg.io.masks import read_mask
from medseg.io.sources import open_sources
from medseg.workflows import results
from medseg.workflows.case_record import empty_record, problem_of
from medseg.workflows.outputs import (
    check_outputs,
    outputs_of,
    require_fit,
    require_probabilities,
)

if TYPE_CHECKING:  # SimpleITK and scikit-image are imported when a method is made
    from medseg.classical import Method
    from medseg.volume import Volume

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ClassicalOptions:
    """What is asked for.

    Attributes:
        inputs: DICOM files or folders, .zip archives, image files, or folders of any of them.
        output: Folder that gets one folder a case.
        method: What segments, with its settings: one of `medseg.classical`.
        markers: Mask whose labels a `Watershed` method started from; for the record of the case.
        outputs: Kinds of output; None for the mask, preview and report, and of picture files a
            palette PNG too.
        resume: Skip cases whose results are complete.
        overwrite: Replace results that are there.
        series: SeriesInstanceUID or volume id chosen by hand, or `all`.
        frame: Frame of a 4D image, or page of a TIFF, counted from zero.
        regrid: Resample missing or irregular slices to an even grid.
    """

    inputs: tuple[Path, ...]
    output: Path
    method: "Method"
    markers: Path | None = None
    outputs: tuple[str, ...] | None = None
    resume: bool = False
    overwrite: bool = False
    series: str | None = None
    frame: int | None = None
    regrid: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels of a mask, besides the image."""
        digest = None
        if self.markers is not None:
            digest = hashlib.sha256(self.markers.read_bytes()).hexdigest()
        return {
            **self.method.settings,
            "markers_sha256": digest,
            "frame": self.frame,
            "regrid": self.regrid,
        }


@dataclass(frozen=True)
class ClassicalResult:
    """What came of it.

    Attributes:
        method: Name of the method, its settings, and medseg's version.
        cases: One record a case, as in the JSON document.
        rejected: Files that belong to no case.
    """

    method: dict[str, Any]
    cases: tuple[dict[str, Any], ...]
    rejected: tuple[dict[str, str], ...] = field(default_factory=tuple)

    @property
    def exit_code(self) -> int:
        """0 when every case is complete, else 1."""
        return int(any(case["status"] == "failed" for case in self.cases))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document: as that of `segment`, with `method` in place of `bundle`."""
        return {
            "schema": 1,
            "method": self.method,
            "cases": list(self.cases),
            "rejected": list(self.rejected),
        }


def classical(options: ClassicalOptions, *, progress: Progress | None = None) -> ClassicalResult:
    """Segment every case of the input; a failing case does not stop the others.

    Args:
        options: What is asked for.
        progress: Told what is going on.

    Returns:
        A record a case.

    Raises:
        MedsegError: If nothing could be started: no image, no single usable volume in an input
            that is one study, output folder not usable.
    """
    tell = progress or _silent
    _check(options)
    results.refuse_existing(options.output, resume=options.resume, overwrite=options.overwrite)
    settings = options.settings
    choice = Choice(options.series, options.regrid, options.frame)
    rule = Rule(lambda volume: None)  # noqa: ARG005  # every usable volume fits
    with open_sources(
        options.inputs,
        output=options.output,
        progress=lambda done, total: tell(done, total, "reading headers"),
    ) as sources:
        cases = with_unique_ids(find_cases(sources, options.inputs, rule, choice))
        if len(cases) == 1 and cases[0].error is not None:
            raise ChoiceError(cases[0].error.message, code=cases[0].error.code)
        results.prepare(options.output)
        records = []
        for number, case in enumerate(cases):
            tell(number, len(cases), f"segmenting {case.case_id}")
            records.append(_one_case(case, options, settings))
        tell(len(cases), len(cases), "done")
    return ClassicalResult(
        {"name": options.method.method, "version": __version__, "settings": settings},
        tuple(records),
        tuple(
            {"path": str(item.path), "code": item.code, "message": item.message}
            for item in sources.rejected
        ),
    )


def read_markers(path: Path) -> "Volume":
    """Read the mask that a watershed starts from.

    Args:
        path: Any image file of labels.

    Returns:
        Its labels on their grid.

    Raises:
        InputError: If it is no mask.
    """
    if not path.exists():
        msg = f"markers must be an existing file, got {str(path)!r}."
        raise InputError(msg, code="not-found")
    return read_mask(path)


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def _check(options: ClassicalOptions) -> None:
    check_outputs(options.outputs)
    require_probabilities(options.outputs, "classical")
    if options.resume and options.overwrite:
        msg = "resume and overwrite must not be given together."
        raise UsageError(msg)
    if options.frame is not None and options.frame < 0:
        msg = f"frame must be 0 or more, got {options.frame}."
        raise UsageError(msg)
    output = options.output.resolve()
    if any(path.is_dir() and path.resolve() == output for path in options.inputs):
        msg = (
            f"output must not be the folder of the images, got {str(options.output)!r} for both."
            f" Choose a folder of its own, such as {str(options.output / 'results')!r}."
        )
        raise UsageError(msg, code="output-is-input")


def _one_case(case: Case, options: ClassicalOptions, settings: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    record = empty_record(case)
    folder = options.output / case.case_id
    method, outputs = options.method, outputs_of(case, options.outputs)
    try:
        if case.error is not None:
            raise InputError(case.error.message, code=case.error.code)
        made_by = {
            "bundle": None,
            "method": {"name": method.method, "version": __version__},
            "settings": settings,
            "input_sha256": fingerprint(case),
        }
        done = results.complete(folder, outputs, made_by) if options.resume else None
        if done is not None:
            return {**record, **done, "status": "skipped"}
        results.refuse_foreign(folder)
        volume = read_case(case, frame=options.frame, regrid=options.regrid)
        require_fit(outputs, volume)
        read = time.perf_counter()
        segmentation = method(volume)
        seconds = {"read": read - started, "method": time.perf_counter() - read}
        problems = (*case.warnings, *segmentation.source.problems)
        record["warnings"] = [problem.as_json() for problem in problems]
        context = {
            **made_by,
            "input": case.relative,
            "warnings": record["warnings"],
            "seconds": seconds,
        }
        written = results.write(
            folder, volume, segmentation, outputs, context, numbered=method.numbered
        )
    except Exception as error:  # one bad case must not stop a batch
        log.debug("case %s failed", case.case_id, exc_info=True)
        problem = problem_of(error)
        error_record = {"code": problem.code, "message": problem.message}
        return {**record, "status": "failed", "error": error_record}
    seconds |= {**written["seconds"], "total": time.perf_counter() - started}
    return {**record, **written, "status": "done", "seconds": seconds}
