"""Studies one after the other: each is looked at when its turn comes, and stands for itself."""

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.errors import InputError
from medseg.io.cases import Case, Choice, Rule, find_cases
from medseg.io.dicom import Rejected
from medseg.io.sources import UNREADABLE_FOLDER, open_sources
from medseg.workflows.case_record import problem_of


@dataclass(frozen=True)
class Entry:
    """A file or folder that is a study, or several.

    Attributes:
        path: Where it lies.
        relative: What files under the output folder may call it.
        name: Id of a case that has no other; begins the ids of image files in a folder.
        series: Series chosen in it; as `Choice` has it.
    """

    path: Path
    relative: str
    name: str
    series: str = ""


def cases_of(
    entries: Iterable[Entry],
    rule: Rule,
    choice: Choice,
    output: Path | None = None,
    left_out: Callable[[Sequence[Rejected]], None] = lambda rejected: None,  # noqa: ARG005
) -> Generator[Case, None, None]:
    """Make the cases of entries, one entry at a time.

    An entry that cannot be used is a case that says why. Archives stay unpacked for as long as
    anything refers to a case of them: what is written refers to files after the next case was
    asked for.

    Args:
        entries: Any number.
        rule: Which DICOM volumes fit.
        choice: What the user decided by hand.
        output: The folder that this run writes to.
        left_out: Told of the files of each entry that belong to no case.

    Yields:
        Cases; ids that several entries share are left to the caller.
    """
    for entry in entries:
        try:
            yield from _cases_of_one(entry, rule, choice, output, left_out)
        except Exception as error:  # noqa: BLE001 -- one bad study must not stop a batch
            yield Case(entry.name, entry.path, entry.relative, error=problem_of(error))


def _cases_of_one(
    entry: Entry,
    rule: Rule,
    choice: Choice,
    output: Path | None,
    left_out: Callable[[Sequence[Rejected]], None],
) -> Iterator[Case]:
    if entry.series:
        choice = replace(choice, series=entry.series)
    with ExitStack() as opened:
        sources = opened.enter_context(open_sources([entry.path], output=output))
        left_out(sources.rejected)
        for one in sources.rejected:
            if one.code == UNREADABLE_FOLDER:
                raise InputError(f"{one.path}: {one.message}", code="unreadable")
        cases = find_cases(sources, [entry.path], rule, choice)
        files = _Unpacked(opened.pop_all())
    is_folder = entry.path.is_dir()
    for case in cases:
        yield replace(_named(case, entry, is_folder=is_folder), unpacked=files)


class _Unpacked:
    """Archives that stay unpacked until nothing refers to this any more."""

    def __init__(self, opened: ExitStack) -> None:
        weakref.finalize(self, opened.close)


def _named(case: Case, entry: Entry, *, is_folder: bool) -> Case:
    """Put what a case is called within its entry behind what the entry is called."""
    if not case.files:
        # the name of a folder of DICOM is often that of a patient
        return case if case.volumes or case.candidates else replace(case, case_id=entry.name)
    parts = Path(case.relative).parts
    below = parts if is_folder else parts[1:]  # of an archive, the way within it
    name = f"{entry.name}_{case.case_id}" if below else entry.name
    return replace(case, case_id=name, relative="/".join((entry.relative, *below)))
