"""The cases of a run as they come: found at once, or looked for while others are segmented."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from medseg.errors import ChoiceError, Problem, UsageError
from medseg.io.cases import Case, Choice, Rule, find_cases
from medseg.io.dicom import Rejected
from medseg.io.sources import UNREADABLE_FOLDER, Tick, open_sources
from medseg.workflows.case_ids import CaseIds, general_source
from medseg.workflows.entries import cases_of
from medseg.workflows.list_input import is_list, read_list
from medseg.workflows.manifest_input import is_manifest, manifest_cases
from medseg.workflows.shard import Shard
from medseg.workflows.watch import Watcher

if TYPE_CHECKING:
    from medseg.workflows.segment import SegmentOptions


@dataclass
class Feed:
    """Where the cases of a run come from.

    Attributes:
        found: Cases that were found at the start.
        later: Cases that are looked for when their turn comes.
        total: How many there are; 0 when not known, a guess where an entry may hold several.
        rejected: Files that belong to no case; not kept of watched folders.
        stop: Set to begin no further case.
    """

    found: list[Case] = field(default_factory=list)
    later: Iterator[Case] = field(default_factory=lambda: iter(()))
    total: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def named(self, ids: CaseIds, shard: Shard) -> Iterator[Case]:
        """Return the cases of a share, each with an id of its own.

        Args:
            ids: Gives the ids; those found at the start all get theirs, whatever the share.
            shard: The share. What is looked for later is of the share already.

        Yields:
            The cases.
        """
        # ids first: they must not depend on the share
        sources = [(general_source(case), ids.name(case)) for case in self.found]
        self.found.clear()
        mine = (case for source, case in sources if shard.holds(source))
        yield from chain(mine, map(ids.name, self.later))


def open_feed(options: "SegmentOptions", rule: Rule, stack: ExitStack, scanning: Tick) -> Feed:
    """Find the cases of everything that the user named.

    Args:
        options: What `segment` is asked for.
        rule: Which DICOM volumes fit.
        stack: Archives stay unpacked for as long as it is open.
        scanning: Told how many headers are read.

    Returns:
        The cases: of lists and watched folders later, of everything else now.

    Raises:
        MedsegError: If there is nothing to segment, or no single fitting volume in an input that
            is one study.
    """
    choice = Choice(options.series, options.regrid, options.frame)
    if options.watch is not None:
        feed = Feed()
        watcher = Watcher(options.inputs, options.watch, options.output, feed.stop, options.shard)
        feed.later = stack.enter_context(
            closing(cases_of(watcher.entries(), rule, choice, options.output))
        )
        return feed
    tables = [path for path in options.inputs if is_manifest(path)]
    lists = [path for path in options.inputs if is_list(path)]
    others = [path for path in options.inputs if path not in (*tables, *lists)]
    feed = Feed()
    if others or not options.inputs:
        sources = stack.enter_context(
            open_sources(others, output=options.output, progress=scanning)
        )
        feed.found = find_cases(sources, others, rule, choice)
        feed.rejected += sources.rejected
        feed.found += _unreadable(sources.rejected)
    for path in tables:
        feed.found += manifest_cases(path, rule, choice)
    entries = [entry for path in lists for entry in read_list(path)]
    if not entries:
        _raise_for_a_single_study(feed.found)
    mine = [entry for entry in entries if options.shard.holds(entry.relative)]
    feed.later = stack.enter_context(
        closing(cases_of(mine, rule, choice, options.output, feed.rejected.extend))
    )
    feed.total = len(feed.found) + len(mine)
    return feed


def check_watch(options: "SegmentOptions") -> None:
    """Refuse to watch what cannot be watched.

    Args:
        options: What `segment` is asked for.

    Raises:
        UsageError: If something that is no folder is to be watched, or results are to be replaced
            meanwhile.
    """
    if options.watch is None:
        return
    wrong = [str(path) for path in options.inputs if not path.is_dir()]
    if wrong or not options.inputs:
        msg = f"watch must be given folders, got {', '.join(wrong) or 'none'}. Make them first."
        raise UsageError(msg)
    if options.overwrite:
        msg = "watch and overwrite must not be given together. Use --resume."
        raise UsageError(msg)


def _unreadable(rejected: Sequence[Rejected]) -> list[Case]:
    """Return a failed case for each folder that may hold a study and cannot be listed."""
    return [
        Case(
            "_".join(one.path.parts) or "input",
            one.path,
            one.path.as_posix(),
            error=Problem("unreadable", one.message),
        )
        for one in rejected
        if one.code == UNREADABLE_FOLDER
    ]


def _raise_for_a_single_study(cases: list[Case]) -> None:
    if len(cases) == 1 and cases[0].error is not None:
        error = cases[0].error
        raise ChoiceError(error.message, code=error.code)
