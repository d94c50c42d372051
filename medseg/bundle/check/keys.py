"""Keys that a workflow must have."""

from collections.abc import Iterator, Sequence

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import look_up
from medseg.bundle.check.fault import Fault, nearest_key

RUN = "run"
OLD_NAMES = {"train": "training", "evaluate": "evaluating", "inference": "evaluating"}
"""What `run` was called in bundles of MONAI 1.0 and before."""

NEEDED = {
    "train": (RUN, "train#trainer"),
    "evaluate": (RUN,),
    "inference": (RUN, "network_def", "preprocessing", "inferer"),
}
"""Workflow to what is looked for by name: by MONAI's `run`, `verify_net_in_out` and by medseg."""

BY_MONAI = {RUN: "monai.bundle run", "train#trainer": "monai.bundle run"}


def check_keys(workflows: Sequence[Workflow]) -> Iterator[Fault]:
    """Find keys that MONAI or medseg look for by name and that are not there.

    Args:
        workflows: Workflows; those of a file on its own are left out.

    Yields:
        Faults `missing-key`.
    """
    for workflow in workflows:
        if not workflow.complete:
            continue
        known = [key for key, _ in workflow.nodes()]
        for key in NEEDED.get(workflow.name, ()):
            if not _has(workflow, key):
                yield _missing(workflow, key, known)


def _has(workflow: Workflow, key: str) -> bool:
    try:
        look_up(workflow.content, key)
    except KeyError:
        return False
    return True


def _missing(workflow: Workflow, key: str, known: list[str]) -> Fault:
    old = OLD_NAMES.get(workflow.name) if key == RUN else None
    similar = [other for other in known if other.count("#") == key.count("#")]
    meant = old if old in known else nearest_key(key, similar)
    return Fault(
        "missing-key",
        workflow.files[-1],
        key,
        "(none)",
        f"the key {key}, which {BY_MONAI.get(key, 'medseg')} looks for",
        f"rename {meant} to {key}" if meant else f"add {key}",
        severity="warning" if old in known else "error",
    )
