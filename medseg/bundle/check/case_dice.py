"""Whether the metric of validation scores the labels that the bundle has."""

from collections.abc import Iterator, Sequence
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get, references_of, target_key
from medseg.bundle.check.fault import Fault, shown
from medseg.bundle.check.labels import ACTIVATIONS, NAMES, labels_by_index

CASE_DICE = "CaseDice"


def check_case_dice(workflows: Sequence[Workflow], metadata: dict[str, Any]) -> Iterator[Fault]:
    """Compare the labels and the activation of each `medseg.training.CaseDice` with the metadata.

    Args:
        workflows: Workflows; those of a file on its own are left out.
        metadata: Content of metadata.json.

    Yields:
        Faults `metric-labels-differ` and `metric-activation-differs`.
    """
    own = metadata.get("medseg")
    activation = own.get("activation", "softmax") if isinstance(own, dict) else None
    if activation not in ACTIVATIONS:
        return
    wanted = [*labels_by_index(metadata, is_sigmoid=activation == "sigmoid").values()]
    for workflow in workflows:
        for key, value in workflow.nodes() if workflow.complete else ():
            target = str(value.get("_target_")) if isinstance(value, dict) else ""
            if target.startswith("medseg.") and target.rpartition(".")[2] == CASE_DICE:
                yield from _names(workflow, key, wanted)
                yield from _activation(workflow, key, activation)


def _names(workflow: Workflow, key: str, wanted: list[str]) -> Iterator[Fault]:
    place = target_key(workflow.content, f"{key}#names")
    stated = get(workflow.content, place)
    if not isinstance(stated, list) or not stated or not wanted:  # without names it numbers them
        return
    names = [get(workflow.content, f"{place}#{number}") for number in range(len(stated))]
    if names != wanted and not any(references_of(name) or _is_code(name) for name in names):
        yield Fault(
            "metric-labels-differ",
            workflow.file_of(place),
            place,
            shown(names),
            shown(f"{shown(wanted)}, in this order, as {NAMES} of metadata.json says"),
            f"write {shown(wanted)}",
        )


def _is_code(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("$", "%"))


def _activation(workflow: Workflow, key: str, wanted: str) -> Iterator[Fault]:
    place = target_key(workflow.content, f"{key}#activation")
    found = get(workflow.content, place, "softmax")
    if found != wanted and not _is_code(found):
        yield Fault(
            "metric-activation-differs",
            workflow.file_of(place),
            place,
            shown(found),
            f"{wanted}, as medseg#activation of metadata.json says",
            f"write {wanted}",
        )
