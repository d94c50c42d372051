"""Every code that DICOM intake can give, with its severity."""

from medseg.errors import Problem, Severity

SEVERITY: dict[str, Severity] = {
    # The object is not an image that can be segmented.
    "localizer": "error",
    "not-an-image": "error",
    "no-pixel-data": "error",
    "unsupported-transfer-syntax": "error",
    "unsupported-pixels": "error",
    "truncated": "error",
    "unreadable": "error",
    # The grid cannot be placed in the patient.
    "no-geometry": "error",
    "too-few-slices": "error",
    "missing-slices": "error",
    "irregular-spacing": "error",
    "duplicate-position": "error",
    "missing-frames": "error",
    "unreadable-mosaic": "error",
    # The values mean something else, or not the same throughout.
    "mixed-units": "error",
    "bad-rescale": "error",
    "not-hu-like": "error",
    # Listed, and handled.
    "gantry-tilt": "warning",
    "slice-jitter": "warning",
    "missing-uid": "warning",
    "duplicate-instance": "warning",
    "fewer-frames": "warning",
    "regridded": "warning",
}
"""Code to severity; a volume with an error is not usable."""

OVERRIDABLE = frozenset({"missing-slices", "irregular-spacing"})
"""Errors that resampling to an even grid overrides."""


def problem(code: str, message: str) -> Problem:
    """Build a problem whose severity the table knows.

    Args:
        code: A key of `SEVERITY`.
        message: One sentence for a person; no patient identifier.

    Returns:
        The problem.
    """
    return Problem(code, message, SEVERITY[code])
