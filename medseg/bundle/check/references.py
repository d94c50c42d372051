"""`@references` that lead nowhere or in a circle."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import is_expression, missing_part, nodes_of, references_of
from medseg.bundle.check.fault import Fault, nearest_key, shown

ROOTS = (
    "initialize", "run", "finalize", "network_def", "preprocessing", "inferer", "imports",
    "training", "evaluating",
)  # fmt: skip
"""Keys that MONAI or medseg evaluates; what they refer to must be there."""


def check_references(workflows: Sequence[Workflow], metadata: dict[str, Any]) -> Iterator[Fault]:
    """Find references to keys that do not exist.

    A reference that one workflow cannot resolve is a fault when that workflow comes to evaluate
    it, or when no workflow can resolve it. What is missing is said once, not at each place.

    Args:
        workflows: Workflows; those of a file on its own are left out.
        metadata: What references to `_meta_` find.

    Yields:
        Faults `unresolved-reference`, `circular-reference` and `reference-as-text`.
    """
    yield from _circular(workflows)
    places: dict[_Place, list[tuple[Workflow, bool, bool]]] = defaultdict(list)
    values: dict[_Place, Any] = {}
    for workflow in workflows:
        if not workflow.complete:
            continue
        known = {key for key, _ in workflow.nodes()}
        known |= {"_meta_", *(key for key, _ in nodes_of(metadata, "_meta_"))}
        used = reached(workflow)
        for key, value in workflow.nodes():
            if isinstance(value, str) and _is_text_with_reference(value):
                yield _as_text(workflow, key, value)
            for target in references_of(value):
                place = (workflow.file_of(key), key, target)
                places[place].append((workflow, target in known, key in used))
                values[place] = value
    by_cause: dict[str, list[tuple[Workflow, _Place]]] = defaultdict(list)
    for place, found in places.items():
        missing = [(workflow, is_used) for workflow, is_there, is_used in found if not is_there]
        in_use = [workflow for workflow, is_used in missing if is_used]
        if in_use or len(missing) == len(found):
            workflow = in_use[0] if in_use else missing[0][0]
            by_cause[missing_part(workflow.content, place[2])].append((workflow, place))
    for cause, among in by_cause.items():
        yield _unresolved(cause, among, values)


_Place = tuple[str, str, str]
"""File, key and what it refers to."""


def _unresolved(
    cause: str, among: list[tuple[Workflow, _Place]], values: dict[_Place, Any]
) -> Fault:
    workflow, place = among[0]
    file, key, target = place
    meant = nearest_key(cause, [other for other, _ in workflow.nodes() if other != key])
    if not meant:
        do = f"define {cause}"
    elif len(among) == 1:
        do = f"write @{meant}{target.removeprefix(cause)}"
    else:
        do = f"rename {meant} to {cause}, or refer to @{meant}"
    keys = list(dict.fromkeys(other[1] for _, other in among[1:]))
    more = f"; so do {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''}" if keys else ""
    rule = f"references to keys of {' + '.join(workflow.files)}; {cause} is none{more}"
    found = shown(values[place])
    return Fault("unresolved-reference", file, key, found, shown(rule), do, cause=cause)


def reached(workflow: Workflow) -> set[str]:
    """Return the keys that are evaluated when a workflow runs.

    Args:
        workflow: The workflow.

    Returns:
        Keys.
    """
    values = dict(workflow.nodes())
    children: dict[str, list[str]] = defaultdict(list)
    for key in values:
        children[key.rpartition("#")[0]].append(key)
    found: set[str] = set()
    waiting = [key for key in ROOTS if key in values]
    while waiting:
        key = waiting.pop()
        if key in found or key not in values:
            continue
        found.add(key)
        waiting += [*references_of(values[key]), *children[key]]
    return found


def _circular(workflows: Sequence[Workflow]) -> Iterator[Fault]:
    """Report one circle of those that share a key."""
    seen: set[str] = set()
    for workflow in workflows:
        for circle in _circles(workflow) if workflow.complete else ():
            if seen.isdisjoint(circle):
                yield _circle(workflow, circle)
            seen.update(circle)


def _circles(workflow: Workflow) -> Iterator[list[str]]:
    """Follow references from key to key; a child counts as needed by its parent."""
    values = dict(workflow.nodes())
    children: dict[str, list[str]] = defaultdict(list)
    for key in values:
        children[key.rpartition("#")[0]].append(key)
    done: set[str] = set()
    for start in children[""]:
        path: list[str] = []
        stack = [(start, False)]
        while stack:
            key, leaving = stack.pop()
            if leaving:
                path.pop()
                done.add(key)
            elif key in path:
                yield [*path[path.index(key) :], key]
            elif key in values and key not in done:
                path.append(key)
                needs = [*references_of(values[key]), *children[key]]
                stack += [(key, True), *((need, False) for need in needs)]


def _circle(workflow: Workflow, keys: list[str]) -> Fault:
    return Fault(
        "circular-reference",
        workflow.file_of(keys[0]),
        keys[0],
        shown(" -> ".join(keys)),
        "references that end somewhere",
        f"give {keys[0]} a value that does not come back to it",
    )


def _is_text_with_reference(value: str) -> bool:
    return value.startswith("@") and not is_expression(value) and not references_of(value)


def _as_text(workflow: Workflow, key: str, value: str) -> Fault:
    return Fault(
        "reference-as-text",
        workflow.file_of(key),
        key,
        shown(value),
        "a reference alone (@key), or an expression ($@key + ...): this stays plain text",
        f"write ${value}",
        severity="warning",
    )
