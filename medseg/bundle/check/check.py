"""All checks of a bundle, in one go."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medseg.bundle.check.configs import Workflow, workflows_of
from medseg.bundle.check.documents import get, read_documents
from medseg.bundle.check.fault import Fault
from medseg.bundle.check.files import check_files
from medseg.bundle.check.keys import BY_MONAI, check_keys
from medseg.bundle.check.metadata import METADATA, REQUIRED_BY_ZOO
from medseg.bundle.check.own_part import check_own_part, uses_medseg

FOLLOWS: dict[str, frozenset[str]] = {
    "activation-differs": frozenset(
        {
            "label-differs", "label-missing", "label-surplus", "metric-activation-differs",
            "metric-labels-differ", "regions-differ",
        }
    ),
    "label-differs": frozenset({"metric-labels-differ"}),
    "bad-label": frozenset({"label-missing", "label-value-differs"}),
    "label-value-twice": frozenset({"label-value-differs"}),
    "channels-differ": frozenset({"weights-shape-differs"}),
    "classes-differ": frozenset({"metric-labels-differ", "weights-shape-differs"}),
    "network-differs": frozenset({"weights-shape-differs", "weights-mismatch"}),
    "unparsable": frozenset({"missing-config", "no-weights"}),
}  # fmt: skip
"""Code of a fault to the codes of those that go away with it: they are not reported beside it."""

OF_COMPARISON = frozenset(
    {"needs-trust", "network-differs", "network-not-built", "preprocessing-differs"}
)
"""Codes that are left out where what is compared or built has a fault of its own."""

OF_MEDSEG_OR_ZOO = frozenset(
    {
        "activation-differs", "bad-channel-names", "bad-schema", "bad-version", "empty-text",
        "indivisible-patch", "misspelt-key", "missing-key", "missing-file", "preprocessing-differs",
        "unknown-metric", "version-not-in-changelog",
    }
)  # fmt: skip
"""Errors that are warnings in a bundle that medseg has not written.

They break a rule of medseg or of the model zoo, or look wrong and may be meant; MONAI runs such a
bundle all the same.
"""


def check_bundle(root: Path) -> list[Fault]:
    """Find every fault of a bundle.

    Nothing in the bundle is run: expressions are parsed, components are located and their
    signatures read. Only a network of MONAI, medseg or torch is built, without memory for its
    weights, to compare the shapes of its tensors with the file's.

    Args:
        root: The bundle's folder; it need not hold anything.

    Returns:
        Faults: errors first, each kind in the order of the files.
    """
    documents, faults = read_documents(root)
    metadata = documents.get("metadata", {})
    workflows, found = workflows_of(root, documents)
    faults += found
    faults += check_files(root, imported=get(metadata, "medseg#imported_from") is not None)
    if "metadata" in documents:
        faults += _of_metadata(root, metadata, workflows)
    faults += _of_workflows(root, workflows, metadata)
    faults += _of_inference(root, workflows, metadata)
    is_readable = not any(_is_unreadable_metadata(fault) for fault in faults)
    if is_readable and "medseg" not in metadata and not uses_medseg(workflows):
        faults = [_of_foreign_bundle(fault) for fault in faults]
    return _sorted(_without_followers(faults))


def _of_metadata(
    root: Path, metadata: dict[str, Any], workflows: list[Workflow]
) -> Iterator[Fault]:
    from medseg.bundle.check.case_dice import check_case_dice  # noqa: PLC0415
    from medseg.bundle.check.channels import check_channel_names  # noqa: PLC0415
    from medseg.bundle.check.labels import check_labels  # noqa: PLC0415
    from medseg.bundle.check.metadata import (  # noqa: PLC0415
        check_metadata,
        check_names_of_tensors,
    )
    from medseg.bundle.check.trust import check_task  # noqa: PLC0415
    from medseg.bundle.check.versions import check_packages, check_versions  # noqa: PLC0415

    inference = next((one for one in workflows if one.name == "inference"), None)
    yield from check_task(metadata, inference)
    yield from check_metadata(metadata)
    yield from check_names_of_tensors(metadata)
    yield from check_channel_names(metadata)
    yield from check_own_part(metadata, workflows)
    yield from check_labels(metadata)
    yield from check_case_dice(workflows, metadata)
    yield from check_versions(metadata)
    yield from check_packages(root, workflows, metadata)


def _of_workflows(
    root: Path, workflows: list[Workflow], metadata: dict[str, Any]
) -> Iterator[Fault]:
    from medseg.bundle.check.expressions import check_expressions  # noqa: PLC0415
    from medseg.bundle.check.files import check_named_files  # noqa: PLC0415
    from medseg.bundle.check.overlays import check_metric_names, check_overlays  # noqa: PLC0415
    from medseg.bundle.check.references import check_references  # noqa: PLC0415
    from medseg.bundle.check.targets import Locator, check_targets  # noqa: PLC0415

    if not workflows:
        return
    locator = Locator(root)
    unresolved = list(check_references(workflows, metadata))
    yield from unresolved
    if not any(fault.code == "unresolved-reference" for fault in unresolved):
        yield from check_keys(workflows)
    yield from check_named_files(root, workflows)
    for workflow in workflows:
        found = [*check_expressions(root, workflow), *check_targets(locator, workflow)]
        if workflow.complete:
            found += check_metric_names(workflow)
        yield from _without_copies(workflow, found)
    yield from check_overlays(workflows)


def _without_copies(workflow: Workflow, faults: list[Fault]) -> Iterator[Fault]:
    """Leave out faults of what a macro copied, where the original has them too."""
    places = {(fault.code, fault.key) for fault in faults}
    for fault in faults:
        originals = (
            (fault.code, original + fault.key.removeprefix(copy))
            for copy, original in workflow.copies.items()
            if fault.key == copy or fault.key.startswith(f"{copy}#")
        )
        if not any(original in places for original in originals):
            yield fault


def _of_inference(
    root: Path, workflows: list[Workflow], metadata: dict[str, Any]
) -> Iterator[Fault]:
    from medseg.bundle.check.channels import check_channels, check_patch_size  # noqa: PLC0415
    from medseg.bundle.check.files import check_checkpoints, check_weight_files  # noqa: PLC0415
    from medseg.bundle.check.labels import check_values  # noqa: PLC0415
    from medseg.bundle.check.trust import check_trust  # noqa: PLC0415
    from medseg.bundle.check.weights import check_weights  # noqa: PLC0415

    complete = {workflow.name: workflow for workflow in workflows if workflow.complete}
    inference = complete.get("inference")
    if workflows:
        yield from check_weight_files(root, inference, metadata)
        yield from check_checkpoints(root, workflows, metadata)
    yield from _of_agreement(complete)
    if inference is None:
        return
    yield from check_channels(inference, metadata)
    yield from check_patch_size(inference, metadata)
    yield from check_values(inference, metadata)
    yield from check_weights(root, inference, metadata)
    yield from check_trust(root, inference, metadata)


def _of_agreement(complete: dict[str, Workflow]) -> Iterator[Fault]:
    """Compare what is trained with what is used."""
    from medseg.bundle.check.preprocessing import (  # noqa: PLC0415
        check_network,
        check_preprocessing,
    )

    for name in ("inference", "evaluate") if "train" in complete else ():
        if name in complete:
            yield from check_preprocessing(complete["train"], complete[name])
            yield from check_network(complete["train"], complete[name])


def _of_foreign_bundle(fault: Fault) -> Fault:
    if fault.file == METADATA and fault.code == "missing-file":
        return fault
    if fault.code == "missing-key" and fault.key in BY_MONAI:
        return fault
    if fault.code == "metadata-type" and fault.key.endswith("#value_range"):
        return dataclasses.replace(fault, severity="warning")
    is_of_zoo = fault.code == "metadata-missing" and fault.key in REQUIRED_BY_ZOO
    if fault.code in OF_MEDSEG_OR_ZOO or is_of_zoo:
        return dataclasses.replace(fault, severity="warning")
    return fault


def _is_unreadable_metadata(fault: Fault) -> bool:
    return fault.file == METADATA and fault.code == "unparsable"


def _without_followers(faults: Iterable[Fault]) -> list[Fault]:
    faults = list(faults)
    following = {code for fault in faults for code in FOLLOWS.get(fault.code, ())}
    own = {fault.key for fault in faults if fault.code not in OF_COMPARISON}
    causes: set[str] = set()
    kept = []
    for fault in faults:
        if fault.code in following or (fault.cause and fault.cause in causes):
            continue
        if fault.code in OF_COMPARISON and any(
            f"{key}#".startswith(f"{fault.key}#") for key in own
        ):
            continue
        kept.append(fault)
        causes.add(fault.cause)
    return kept


def _sorted(faults: Iterable[Fault]) -> list[Fault]:
    """Leave out what two workflows found at the same place; errors first."""
    first: dict[tuple[str, ...], Fault] = {}
    for fault in faults:
        first.setdefault((fault.code, fault.file, fault.key, fault.value, fault.suggestion), fault)
    return sorted(first.values(), key=lambda fault: fault.severity != "error")
