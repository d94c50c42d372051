"""Case ids that stay: a case keeps the folder it has, whatever other cases come or go."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from medseg.io.cases import Case, fingerprint

if TYPE_CHECKING:
    from medseg.workflows.manifest_log import Entry

_DIGITS = 16
_SHOWN_DIGITS = 8


class CaseIds:
    """Gives each case an id of its own, the one that it had where the manifest knows it.

    A case is known again by where it came from: the UIDs of its series, or its path relative to
    what the user named; where these are shared, by its place on disk too. One that came from
    nowhere known takes the id that it would have alone; if that belongs to another case, a hash
    of its place is added, which does not depend on the order in which cases are found.

    Args:
        entries: Of the manifest, by case id.
    """

    def __init__(self, entries: Mapping[str, "Entry"]) -> None:
        self._named = {entry.source: case for case, entry in entries.items() if entry.source}
        done = {case: entry for case, entry in entries.items() if entry.status == "done"}
        self._given = {case.casefold(): entry for case, entry in done.items()}
        self._here: set[str] = set()

    def name(self, case: Case) -> Case:
        """Return a case with its id, and the hash of where it came from.

        Args:
            case: With the id that it would have alone. Each case of a run is named once.

        Returns:
            The case.
        """
        general = general_source(case)
        special = _digest(f"{general} {_place(case)}")
        for source in (special, general):
            known = self._named.get(source)
            if known is not None and known.casefold() not in self._here:
                return self._take(case, known, source)
        name = case.case_id
        if not self._is_free(name, case):
            name = f"{case.case_id}_{special[:_SHOWN_DIGITS]}"
            number = 2
            while name.casefold() in self._here:
                name, number = f"{case.case_id}_{special[:_SHOWN_DIGITS]}_{number}", number + 1
        return self._take(case, name, special if general in self._named else general)

    def _is_free(self, name: str, case: Case) -> bool:
        """Say whether no other case has the id; one of the same images is the same case, moved."""
        if name.casefold() in self._here:
            return False
        given = self._given.get(name.casefold())
        if given is None or not given.source:
            return True
        try:
            return given.input_sha256 == fingerprint(case)
        except OSError:
            return False

    def _take(self, case: Case, name: str, source: str) -> Case:
        self._here.add(name.casefold())
        self._named[source] = name
        return replace(case, case_id=name, source=source)


def general_source(case: Case) -> str:
    """Return a hash of where a case came from: its series, or its path within the input.

    Args:
        case: Any.

    Returns:
        Hexadecimal digits.
    """
    volumes = case.volumes or case.candidates
    series = [f"{v.series_instance_uid} {v.volume_id}" for v in volumes if v.series_instance_uid]
    return _digest("\n".join(sorted(series)) if series else case.relative or case.case_id)


def _place(case: Case) -> str:
    if case.volume is not None and case.volume.stacks:
        return str(case.volume.stacks[0][0].instance.path.resolve().parent)
    return str((case.files[0] if case.files else case.path).resolve())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]
