"""Names of DICOM files are kept out of what is written: exports name them by the patient."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medseg.errors import Problem
from medseg.io.cases import Case

FEWEST_DIGITS = 5
"""Of a name of digits alone that may be a number of a patient; shorter ones are counts."""


def without_file_names(problems: Sequence[Problem], case: Case) -> tuple[Problem, ...]:
    """Take the names of DICOM files and folders out of messages.

    Args:
        problems: What was noticed of a case.
        case: The case; one that is no DICOM changes nothing.

    Returns:
        The same with `(file)` in place of any name in the folders of its files, and of those
        folders below what the user named.
    """
    volumes = case.volumes or case.candidates
    stacks = [stack for volume in volumes for stack in volume.stacks]
    folders = {frame.instance.path.parent for stack in stacks for frame in stack}
    names = {name for folder in folders for name in _names_in(folder, case.path)}
    told = sorted((name for name in names if not _is_count(name)), key=len, reverse=True)
    if not told:
        return tuple(problems)
    name = f"(?:{'|'.join(map(re.escape, told))})"
    named = re.compile(rf"(?<!\w){name}(?:/{name})*(?!\w)")
    return tuple(replace(one, message=named.sub("(file)", one.message)) for one in problems)


def _names_in(folder: Path, root: Path) -> set[str]:
    above = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    try:
        files = list(folder.iterdir())
    except OSError:  # gone meanwhile
        files = []
    return {folder.name, *above, *(name for file in files for name in (file.name, file.stem))}


def _is_count(name: str) -> bool:
    return not name or (name.isdigit() and len(name) < FEWEST_DIGITS)
