"""Objects of a label, gathered one by one, and what had to be left out."""

from collections.abc import Mapping

import numpy as np

from medseg.errors import InputError, Problem
from medseg.io.locator import Codes
from medseg.objects import ANY_CLASS, ObjectInstances
from medseg.volume import IGNORED


class FoundObjects:
    """Objects that are gathered from a label file.

    Args:
        size: Rows and columns of the image.
        codes: Values of what stands for the classes. 0 is background; 255 is what is left out,
            unless there are classes beyond.
        strict: Raise an error in place of leaving something out.
    """

    def __init__(self, size: tuple[int, int], codes: Codes, *, strict: bool) -> None:
        values = {value for _, value in codes}
        self.size = size
        self.ignored = 0 if max(values, default=0) > IGNORED else IGNORED
        self.classes = sorted(values - {0, self.ignored})
        self.problems: list[Problem] = []
        self._strict = strict
        self._masks: list[bytes] = []
        self._of_class: list[int] = []
        self._scores: list[float] = []
        self._crowd: list[bool] = []

    def add(self, mask: bytes, value: int, *, crowd: bool = False, score: float = 1.0) -> None:
        """Add an object.

        Args:
            mask: Compressed run lengths.
            value: Its class. What is left out becomes a crowd of any class: whatever is found
                there is no false alarm.
            crowd: Whether it is a region of many objects.
            score: From 0 to 1.
        """
        left_out = value == self.ignored
        self._masks.append(mask)
        self._of_class.append(ANY_CLASS if left_out else value)
        self._scores.append(score)
        self._crowd.append(crowd or left_out)

    def leave_out(self, code: str, message: str) -> None:
        """List something that is not used, or not as a whole.

        Args:
            code: Of the problem.
            message: Names the file and what of it.

        Raises:
            InputError: Where nothing may be left out.
        """
        if self._strict:
            raise InputError(f"{message}.", code=code)
        self.problems.append(Problem(code, message, "warning"))

    def finished(self) -> tuple[ObjectInstances, tuple[Problem, ...]]:
        """Return the objects in the order in which they were added, and what was left out."""
        objects = ObjectInstances(
            self.size,
            tuple(self._masks),
            np.array(self._of_class, np.int32),
            np.array(self._scores, np.float32),
            np.array(self._crowd, np.bool_),
        )
        return objects, tuple(self.problems)


def known_value(values: Mapping[str, int], code: object, what: str) -> int:
    """Return the value of a code.

    Args:
        values: By code.
        code: A name or a category id.
        what: Names the annotation.

    Returns:
        The value.

    Raises:
        InputError: If there is none (`unknown-label`).
    """
    if str(code) not in values:
        msg = f"{what} is of {code!r}, which is not among the classes"
        raise InputError(msg, code="unknown-label")
    return values[str(code)]
