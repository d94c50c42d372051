"""Errors and problems: each has a code that users, tests and JSON documents rely on."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something found in an input: listed, never silently repaired.

    Attributes:
        code: Stable, hyphenated name, for example `missing-slices`.
        message: One sentence for a person; holds no patient identifier.
        severity: `error` makes the volume or file unusable, `warning` does not.
    """

    code: str
    message: str
    severity: Severity = "error"

    @property
    def is_error(self) -> bool:
        """Whether the problem makes its subject unusable."""
        return self.severity == "error"

    def as_json(self) -> dict[str, str]:
        """Return the problem as it stands in the JSON documents."""
        return {"code": self.code, "message": self.message, "severity": self.severity}


class MedsegError(Exception):
    """Base of all errors that medseg raises on purpose.

    Args:
        message: `<argument> must be <rule>, got <value>. <what to do>.`
        code: Stable, hyphenated name; the class's own code when left out.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code or type(self).code


class UsageError(MedsegError):
    """A command or call was asked for something it cannot do; nothing was started."""

    code = "usage"


class InputError(MedsegError):
    """An input file cannot be read, or is not what it should be."""

    code = "unreadable"


class DicomError(InputError):
    """A DICOM file, series or volume cannot be used; the code is the problem's code."""

    code = "dicom"


class GeometryError(InputError):
    """A grid is not one that medseg can place in the patient without guessing."""

    code = "geometry"


class ChoiceError(InputError):
    """No volume, or more than one, fits what was asked for.

    Codes: `no-usable-volume`, `ambiguous-volume`.
    """

    code = "no-usable-volume"


class SampleError(InputError):
    """A training sample cannot be made; the message names the case and the transform.

    The code is the class's own, so that it survives the way out of a data loader's process.
    """

    code = "training-sample"


class BundleError(MedsegError):
    """A bundle is missing, incomplete or does not fit its weights."""

    code = "bundle"


class TrainingError(MedsegError):
    """Training cannot go on; the last checkpoint is kept."""

    code = "training"


class OutputError(MedsegError):
    """A result cannot be written; nothing half-written is left behind."""

    code = "output"


class DependencyError(MedsegError):
    """An optional package is missing; the message names the extra that brings it."""

    code = "missing-dependency"
