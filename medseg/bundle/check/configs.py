"""Merge the configs of a bundle into workflows as MONAI does, without running anything."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.bundle.check.documents import (
    WORKFLOWS,
    config_paths,
    look_up,
    missing_part,
    nodes_of,
    read_document,
    set_key,
)
from medseg.bundle.check.fault import Fault, nearest_key, shown

_RELATIVE = re.compile(r"(?:@|%)#+")
_MACRO_FILE = re.compile(r"(.*\.(?:json|yaml|yml))(?:#(.*))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Workflow:
    """The files of one workflow, merged; macros and relative references are resolved.

    Attributes:
        name: Its name, as of its last file.
        files: Files below the bundle's folder, in loading order.
        content: The merged configs.
        origins: Key to the file that set it.
        added: Keys that a later file sets and no earlier one has; key to what is known there.
        copies: Key that a macro fills to the key it copies.
        complete: False for a file on its own, whose workflow lacks another file.
    """

    name: str
    files: tuple[str, ...]
    content: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    added: dict[str, tuple[str, ...]] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    complete: bool = True

    def file_of(self, key: str) -> str:
        """Return the file that says what stands at a key.

        Args:
            key: Key, parts joined by `#`.

        Returns:
            File below the bundle's folder.
        """
        parts = key.split("#")
        for length in range(len(parts), 0, -1):
            if file := self.origins.get("#".join(parts[:length])):
                return file
        return self.files[-1]

    def nodes(self) -> Iterator[tuple[str, Any]]:
        """Yield every key of every depth with its value."""
        return nodes_of(self.content)


def workflows_of(
    root: Path, documents: dict[str, dict[str, Any]]
) -> tuple[list[Workflow], list[Fault]]:
    """Merge the files of every workflow that a bundle has.

    Args:
        root: The bundle's folder.
        documents: Stem to content of the files that parse.

    Returns:
        The workflows, files on their own last; and the faults met while merging.
    """
    paths = config_paths(root)
    workflows: list[Workflow] = []
    faults: list[Fault] = []
    merged: set[str] = set()
    for name, stems in WORKFLOWS.items():
        there = [stem for stem in stems if stem in paths]
        if name not in there or not all(stem in documents for stem in there):
            continue
        files = {stem: paths[stem].relative_to(root).as_posix() for stem in there}
        workflow, found = _merge(root, name, files, documents)
        workflows.append(workflow)
        faults += found
        merged.update(there)
    for stem, document in documents.items():
        if stem not in merged and stem != "metadata":
            file = paths[stem].relative_to(root).as_posix()
            workflows.append(Workflow(stem, (file,), copy.deepcopy(document), complete=False))
    return workflows, faults


def _merge(
    root: Path, name: str, files: dict[str, str], documents: dict[str, dict[str, Any]]
) -> tuple[Workflow, list[Fault]]:
    workflow = Workflow(name, tuple(files.values()), {})
    faults: list[Fault] = []
    for stem, file in files.items():
        for key, value in copy.deepcopy(documents[stem]).items():
            plain = str(key).replace("::", "#")
            if fault := _put(workflow, file, plain, value):
                faults.append(fault)
    faults += _resolve_macros(root, workflow)
    return workflow, faults


def _put(workflow: Workflow, file: str, key: str, value: Any) -> Fault | None:
    """Set a key as MONAI does: `a#b` reaches into `a`, `+a` adds to `a`."""
    plain = key.removeprefix("+")
    above, _, last = plain.rpartition("#")
    try:
        siblings = _children(look_up(workflow.content, above))
        set_key(workflow.content, key, value)
    except KeyError:
        known = [other for other, _ in workflow.nodes()]
        meant = nearest_key(plain, known) or nearest_key(above, known)
        return Fault(
            "unknown-override",
            file,
            plain,
            shown(value),
            "a key whose parent an earlier file has",
            f"write {meant}" if meant else f"define {above or plain} first, or remove the key",
            cause=missing_part(workflow.content, plain),
        )
    if last not in siblings and file != workflow.files[0]:
        workflow.added[plain] = siblings
    if plain == key:  # with + the earlier file's part stays its own
        for other in [other for other in workflow.origins if other.startswith(f"{plain}#")]:
            del workflow.origins[other]
        workflow.origins[plain] = file
    return None


def _children(parent: Any) -> tuple[str, ...]:
    if isinstance(parent, dict):
        return tuple(str(name) for name in parent)
    if isinstance(parent, list):
        return tuple(str(index) for index in range(len(parent)))
    msg = f"{type(parent).__name__} has no keys"
    raise KeyError(msg)


def _resolve_macros(root: Path, workflow: Workflow) -> list[Fault]:
    faults: list[Fault] = []

    def resolved(value: Any, key: str) -> Any:
        if isinstance(value, dict | list):
            for name, child in list(value.items() if isinstance(value, dict) else enumerate(value)):
                value[name] = resolved(child, f"{key}#{name}" if key else str(name))
            return value
        if not isinstance(value, str):
            return value
        text = _absolute(value.replace("::", "#"), key) if _RELATIVE.search(value) else value
        if not text.startswith("%"):
            return text
        content, fault = _macro(root, workflow, key, text)
        if fault:
            faults.append(fault)
        else:
            workflow.copies[key] = text[1:].replace("::", "#")
        return content

    resolved(workflow.content, "")
    return faults


def _absolute(text: str, key: str) -> str:
    """Turn `@#a` (same level) and `@##a` (one level up) into absolute keys."""
    parts = key.split("#")

    def replace(match: re.Match[str]) -> str:
        kept = parts[: max(len(parts) - (len(match[0]) - 1), 0)]
        return match[0][0] + ("#".join(kept) + "#" if kept else "")

    return _RELATIVE.sub(replace, text)


def _macro(root: Path, workflow: Workflow, key: str, text: str) -> tuple[Any, Fault | None]:
    target = text[1:].replace("::", "#")
    content: Any = workflow.content
    if not target:
        place = (workflow.file_of(key), key, shown(text))
        return text, Fault("unresolved-macro", *place, "a key after the %", "name the key to copy")
    of_file = _MACRO_FILE.match(target)
    where = "the merged configs"
    if of_file:
        path = root / of_file[1]
        document, faults = read_document(path, of_file[1]) if path.is_file() else (None, [])
        if document is None:
            rule = "a file that parses" if faults else "a file below the bundle's folder"
            do = f"correct {of_file[1]}" if faults else f"add {of_file[1]}, or correct the path"
            file = workflow.file_of(key)
            return text, Fault("missing-macro-file", file, key, shown(text), rule, do)
        content, target, where = document, of_file[2] or "", of_file[1]
    try:
        return copy.deepcopy(look_up(content, target)), None
    except KeyError:
        known = [other for other, _ in nodes_of(content) if of_file or other != key]
        meant = nearest_key(target, known)
        return text, Fault(
            "unresolved-macro",
            workflow.file_of(key),
            key,
            shown(text),
            f"a key of {where}",
            f"write {text.replace('::', '#').removesuffix(target)}{meant}"
            if meant
            else f"define {target} in {where}",
            cause=missing_part(content, target),
        )
