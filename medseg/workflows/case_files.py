"""The files of a finished case, by what they hold: how `--resume` knows that they are whole."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def file_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what identifies each file below a folder.

    Args:
        folder: The folder of a case.

    Returns:
        `{"sha256", "bytes"}` by the path relative to the folder, sorted.

    Raises:
        OSError: If a file cannot be read.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        file.relative_to(folder).as_posix(): {
            "sha256": _sha256(file),
            "bytes": file.stat().st_size,
        }
        for file in files
    }


def are_whole(folder: Path, digests: Mapping[str, Mapping[str, Any]]) -> bool:
    """Say whether the files of a case are those that were written.

    Args:
        folder: The folder of the case.
        digests: What `file_digests` returned then.

    Returns:
        False when one is missing, cannot be read, or holds something else.
    """
    try:
        return all(
            (folder / name).stat().st_size == digest["bytes"]
            and _sha256(folder / name) == digest["sha256"]
            for name, digest in digests.items()
        )
    except OSError:
        return False


def utc_now() -> str:
    """Return the time, UTC, to the second, as ISO 8601 has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
