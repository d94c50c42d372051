"""Keys of a later file that override nothing: usually a typing error that has no effect."""

from collections.abc import Iterator, Sequence
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.documents import get, missing_part, references_of
from medseg.bundle.check.fault import Fault, nearest, shown
from medseg.bundle.check.references import ROOTS

KNOWN_TO_MONAI = {
    *ROOTS,
    "bundle_root", "ckpt_path", "dataset_dir", "device", "displayable_configs", "evaluator",
    "handlers", "key_metric", "output_dir", "postprocessing", "train", "val_interval", "validate",
    "_meta_",
}  # fmt: skip
"""Keys that MONAI 1.6's workflows look for themselves, beside those they evaluate."""

KNOWN_PARTS = {
    "dataset", "dataloader", "deterministic_transforms", "evaluator", "handlers", "inferer",
    "key_metric", "additional_metrics", "postprocessing", "preprocessing", "random_transforms",
    "trainer",
}  # fmt: skip
"""Keys below `train` and `validate` that have a meaning of their own."""

METRIC_ARGUMENTS = ("key_val_metric", "key_train_metric", "additional_metrics", "key_metric")


def check_overlays(workflows: Sequence[Workflow]) -> Iterator[Fault]:
    """Find keys that a later file adds and nothing uses.

    A key counts as used when any workflow that its file belongs to uses it. While a reference
    leads nowhere, nothing is said of keys without use: one of them may be what was meant.

    Args:
        workflows: Workflows; those of a file on its own are left out.

    Yields:
        Faults `misspelt-key` where a similar key exists, else warnings `unused-key`.
    """
    found: dict[tuple[str, str], list[Fault | None]] = {}
    lost: set[str] = set()
    for workflow in workflows:
        if not workflow.complete:
            continue
        keys = {key for key, _ in workflow.nodes()}
        targets = {target for _, value in workflow.nodes() for target in references_of(value)}
        missing = {target for target in targets - keys if not target.startswith("_meta_")}
        lost |= missing | {missing_part(workflow.content, target) for target in missing}
        for key, siblings in workflow.added.items():
            file = workflow.file_of(key)
            fault = None if _has_use(workflow, key, targets) else _unused(workflow, key, siblings)
            found.setdefault((file, key), []).append(fault)
    for faults in found.values():
        fault = faults[0]
        if fault and all(faults) and not _may_be_meant(fault, lost):
            yield fault


def _may_be_meant(fault: Fault, lost: set[str]) -> bool:
    """Whether the key may be what a reference that leads nowhere was to lead to."""
    if fault.code == "unused-key":
        return bool(lost)
    return any(nearest(target, [fault.key]) for target in lost)


def _has_use(workflow: Workflow, key: str, targets: set[str]) -> bool:
    return _is_known(key) or _is_used(key, targets) or _is_argument(workflow, key)


def _unused(workflow: Workflow, key: str, siblings: Sequence[str]) -> Fault:
    place = (workflow.file_of(key), key, shown(get(workflow.content, key)))
    above, _, last = key.rpartition("#")
    meant = nearest(last, siblings)
    if meant:
        rule = "a key that an earlier file has, or that something refers to"
        full = f"{above}#{meant}" if above else meant
        return Fault("misspelt-key", *place, rule, f"write {full}")
    return Fault(
        "unused-key",
        *place,
        "a key that something refers to",
        f"use it as @{key}, or remove it",
        severity="warning",
    )


def _is_known(key: str) -> bool:
    first, _, rest = key.partition("#")
    return key in KNOWN_TO_MONAI or (first in {"train", "validate"} and rest in KNOWN_PARTS)


def _is_used(key: str, targets: set[str]) -> bool:
    parts = key.split("#")
    above = {"#".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return bool(above & targets) or any(target.startswith(f"{key}#") for target in targets)


def _is_argument(workflow: Workflow, key: str) -> bool:
    """Whether the key lies within a component, whose arguments are checked elsewhere."""
    parts = key.split("#")[:-1]
    above = ("#".join(parts[:length]) for length in range(1, len(parts) + 1))
    values = (get(workflow.content, one) for one in above)
    return any(isinstance(value, dict) and "_target_" in value for value in values)


def check_metric_names(workflow: Workflow) -> Iterator[Fault]:
    """Find handlers that wait for a metric that none defines: MONAI drops the name silently.

    Args:
        workflow: The workflow.

    Yields:
        Faults `unknown-metric`.
    """
    defined = _metric_names(workflow)
    if defined is None or not workflow.complete:
        return
    for key, value in workflow.nodes():
        if not isinstance(value, dict):
            continue
        for argument in _WANTING.get(str(value.get("_target_")).rpartition(".")[2], ()):
            for name in _names(value.get(argument)):
                if name in defined or name == "*":
                    continue
                meant = nearest(name, defined)
                place = f"{key}#{argument}"
                yield Fault(
                    "unknown-metric",
                    workflow.file_of(place),
                    place,
                    shown(value[argument]),
                    f"metrics of the evaluator: {', '.join(sorted(defined)) or 'there is none'}",
                    f"write {meant}, or '*' for all" if meant else "write '*' for all",
                )


_WANTING = {"MetricsSaver": ("metrics", "metric_details"), "CheckpointSaver": ("key_metric_name",)}


def _names(value: Any) -> Sequence[str]:
    if isinstance(value, str):
        return () if value.startswith(("$", "@")) else (value,)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else ()


def _metric_names(workflow: Workflow) -> set[str] | None:
    """Return the metrics of all engines; None where an expression makes them."""
    names: set[str] = set()
    for key, _ in workflow.nodes():
        if key.rpartition("#")[2] not in METRIC_ARGUMENTS:
            continue
        metrics = get(workflow.content, key)
        if isinstance(metrics, dict):
            names |= {str(name) for name in metrics}
        elif metrics is not None:
            return None
    return names
