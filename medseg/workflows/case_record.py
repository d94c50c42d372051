"""The record of one case in the JSON documents of `segment` and `classical`."""

from typing import Any

from medseg.errors import MedsegError, Problem
from medseg.io.cases import Case

_OUT_OF_MEMORY = ("out of memory", "allocate")


def empty_record(case: Case) -> dict[str, Any]:
    """Return the record of a case of which nothing is done.

    Args:
        case: As it was found.

    Returns:
        As in the JSON document, with the status `failed`.
    """
    volume = case.volume
    return {
        "case": case.case_id,
        "input": str(case.path),
        "series_instance_uid": volume.series_instance_uid if volume else None,
        "status": "failed",
        "error": None,
        "warnings": [problem.as_json() for problem in case.warnings],
        "outputs": {},
        "labels": [],
        "seconds": {},
    }


def problem_of(error: Exception) -> Problem:
    """Return what is told of an error that ended a case.

    Args:
        error: Any.

    Returns:
        Its code and message; `out-of-memory`, `unreadable` and `internal` for those that are not
        medseg's.
    """
    if isinstance(error, MedsegError):
        return Problem(error.code, str(error))
    if isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY):
        return Problem("out-of-memory", "not enough memory for this case")
    if isinstance(error, OSError) and error.strerror:
        message = f"the files of the case must be readable until it is done, got: {error.strerror}"
        return Problem("unreadable", message)
    return Problem("internal", f"{type(error).__name__}: {error}")
