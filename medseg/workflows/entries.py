"""Studies one after the other: each is looked at when its turn comes, and stands for itself."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
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

    An entry that cannot be used is a case that says why. Archives stay unpacked until the next
    case is asked for.

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
    with open_sources([entry.path], output=output) as sources:
        is_folder = entry.path.is_dir()
        left_out(sources.rejected)
        for one in sources.rejected:
            if one.code == UNREADABLE_FOLDER:
                raise InputError(f"{one.path}: {one.message}", code="unreadable")
        for case in find_cases(sources, [entry.path], rule, choice):
            yield _named(case, entry, is_folder=is_folder)


def _named(case: Case, entry: Entry, *, is_folder: bool) -> Case:
    """Put what a case is called within its entry behind what the entry is called."""
    if not case.files:
        # the name of a folder of DICOM is often that of a patient
        return case if case.volumes or case.candidates else replace(case, case_id=entry.name)
    parts = Path(case.relative).parts
    below = parts if is_folder else parts[1:]  # of an archive, the way within it
    name = f"{entry.name}_{case.case_id}" if below else entry.name
    return replace(case, case_id=name, relative="/".join((entry.relative, *below)))
