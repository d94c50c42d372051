"""Case ids that stay: a case keeps the folder it has, whatever other cases come or go."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from medseg.io.cases import Case, fingerprint

if TYPE_CHECKING:
    from medseg.workflows.manifest_log import Entry

_TAKEN = ("cases.csv", "manifest.jsonl")
"""What lies beside the folders of cases."""

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
        repeated: A case may come several times; each time it gets the id that it got first.
    """

    def __init__(self, entries: Mapping[str, "Entry"], *, repeated: bool = False) -> None:
        self._repeated = repeated
        self._named = {entry.source: case for case, entry in entries.items() if entry.source}
        done = {case: entry for case, entry in entries.items() if entry.status == "done"}
        self._given = {case.casefold(): entry for case, entry in done.items()}
        self._here = dict.fromkeys(_TAKEN, "")

    def name(self, case: Case) -> Case:
        """Return a case with its id, and the hash of where it came from.

        Args:
            case: With the id that it would have alone.

        Returns:
            The case.
        """
        place = os.path.realpath(case.path)  # `resolve` raises for links in a circle
        general = general_source(case)
        special = _digest(f"{general} {place}")
        for source in (special, general):
            known = self._named.get(source)
            if known is not None and self._may_have(known, place):
                return self._take(case, known, source, place)
        name = case.case_id
        if not self._is_free(name, case):
            name = f"{case.case_id}_{special[:_SHOWN_DIGITS]}"
            number = 2
            while name.casefold() in self._here:
                name, number = f"{case.case_id}_{special[:_SHOWN_DIGITS]}_{number}", number + 1
        return self._take(case, name, special if general in self._named else general, place)

    def _may_have(self, name: str, place: str) -> bool:
        owner = self._here.get(name.casefold())
        return owner is None or (self._repeated and owner == place)

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

    def _take(self, case: Case, name: str, source: str, place: str) -> Case:
        self._here[name.casefold()] = place
        self._named[source] = name
        return replace(case, case_id=name, source=source)


def general_source(case: Case) -> str:
    """Return a hash of where a case came from: its path within the input, or its series.

    Args:
        case: Any.

    Returns:
        Hexadecimal digits.
    """
    volumes = case.volumes or case.candidates
    series = [
        f"{volume.study_instance_uid} {volume.series_instance_uid} {volume.volume_id}"
        for volume in volumes
        if volume.series_instance_uid
    ]
    return _digest(case.relative or "\n".join(sorted(series)) or case.case_id)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:_DIGITS]
