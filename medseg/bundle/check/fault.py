"""What is wrong at one place of a bundle."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from medseg.errors import Severity

LONGEST_TEXT = 160
"""Characters of a value or of an expectation that are shown; a fault stays within ten lines."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a bundle, with the place and the way out.

    Attributes:
        code: Stable, hyphenated name, for example `unresolved-reference`.
        file: File below the bundle's folder, in POSIX form.
        key: Path of the key within the file, its parts joined by `#`; or `line 3`; or empty.
        value: What stands there, shortened.
        expected: The rule it breaks.
        suggestion: What to do about it.
        severity: `error` keeps a command from working, or a mask from being right.
        cause: Key whose absence is behind it; of faults with the same one the first is reported.
    """

    code: str
    file: str
    key: str
    value: str
    expected: str
    suggestion: str
    severity: Severity = "error"
    cause: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the fault as it stands in the JSON document."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.file,
            "key": self.key,
            "value": self.value,
            "expected": self.expected,
            "suggestion": self.suggestion,
        }

    def lines(self) -> list[str]:
        """Return the fault for a person: four lines."""
        place = f"{self.file}: {self.key}" if self.key else self.file
        return [
            f"{self.severity}: {place} [{self.code}]",
            f"    value:    {self.value}",
            f"    expected: {self.expected}",
            f"    do:       {self.suggestion}",
        ]


def shown(value: Any) -> str:
    """Write a value on one line, shortened.

    Args:
        value: Anything.

    Returns:
        At most `LONGEST_TEXT` characters.

    Examples:
        >>> shown([1, "two"])
        '[1, "two"]'
        >>> shown("")
        '""'
        >>> shown("as it is")
        'as it is'
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    text = " ".join(text.split()) or '""'
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 4]} ..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant.

    Args:
        name: What was written.
        known: What could have been.

    Returns:
        The most similar name, or None where nothing is similar.

    Examples:
        >>> nearest("train#datset", ["train#dataset", "train#sampler"])
        'train#dataset'
        >>> nearest("dataset", ["train#dataset"])
        'train#dataset'
        >>> nearest("xyz", ["train#dataset"]) is None
        True
    """
    names = list(known)
    close = get_close_matches(name.lower(), {other.lower() for other in names}, n=1, cutoff=0.65)
    if close:
        spelt = [other for other in names if other.lower() == close[0]]
        return max(spelt, key=lambda other: SequenceMatcher(None, name, other).ratio())
    last = _last(name).lower()
    same_end = [other for other in names if _last(other).lower() == last]
    return min(same_end, key=len) if same_end else None


def nearest_key(key: str, known: Iterable[str]) -> str | None:
    """Return the key that was probably meant; none that merely lies above it.

    Args:
        key: What was written, its parts joined by `#`.
        known: Keys that exist.

    Returns:
        The most similar key, or None where nothing is similar.

    Examples:
        >>> nearest_key("train#datset", ["train", "train#dataset"])
        'train#dataset'
        >>> nearest_key("train#post", ["train", "run"]) is None
        True
    """
    return nearest(key, [other for other in known if not key.startswith(f"{other}#")])


def _last(name: str) -> str:
    return re.split(r"[#.]", name)[-1]
