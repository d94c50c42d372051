"""All checks of a bundle, in one go."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medseg.bundle.check.configs import Workflow, workflows_of
from medseg.bundle.check.documents import read_documents
from medseg.bundle.check.fault import Fault
from medseg.bundle.check.files import check_files


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
    faults += check_files(root, metadata)
    if "metadata" in documents:
        faults += _of_metadata(root, metadata, workflows)
    faults += _of_workflows(root, workflows, metadata)
    return _sorted(faults)


def _of_metadata(
    root: Path, metadata: dict[str, Any], workflows: list[Workflow]
) -> Iterator[Fault]:
    from medseg.bundle.check.channels import check_labels  # noqa: PLC0415
    from medseg.bundle.check.metadata import check_metadata  # noqa: PLC0415
    from medseg.bundle.check.versions import check_packages, check_versions  # noqa: PLC0415

    yield from check_metadata(metadata)
    yield from check_versions(metadata)
    yield from check_packages(root, workflows, metadata)
    yield from check_labels(metadata)


def _of_workflows(
    root: Path, workflows: list[Workflow], metadata: dict[str, Any]
) -> Iterator[Fault]:
    from medseg.bundle.check.expressions import check_expressions  # noqa: PLC0415
    from medseg.bundle.check.overlays import check_metric_names, check_overlays  # noqa: PLC0415
    from medseg.bundle.check.references import check_references  # noqa: PLC0415
    from medseg.bundle.check.targets import Locator, check_targets  # noqa: PLC0415

    if not workflows:
        return
    locator = Locator(root)
    yield from check_references(workflows, metadata)
    for workflow in workflows:
        yield from check_expressions(root, workflow)
        yield from check_targets(locator, workflow)
        if workflow.complete:
            yield from check_metric_names(workflow)
    yield from check_overlays(workflows)
    yield from _of_inference(root, workflows, metadata)


def _of_inference(
    root: Path, workflows: list[Workflow], metadata: dict[str, Any]
) -> Iterator[Fault]:
    from medseg.bundle.check.channels import check_channels, check_patch_size  # noqa: PLC0415
    from medseg.bundle.check.preprocessing import check_preprocessing  # noqa: PLC0415
    from medseg.bundle.check.weights import check_weights  # noqa: PLC0415

    complete = {workflow.name: workflow for workflow in workflows if workflow.complete}
    inference = complete.get("inference")
    if inference is None:
        return
    yield from check_channels(inference, metadata)
    yield from check_patch_size(inference, metadata)
    if "train" in complete:
        yield from check_preprocessing(complete["train"], inference)
    yield from check_weights(root, inference, metadata)


def _sorted(faults: Iterable[Fault]) -> list[Fault]:
    """Leave out what two workflows found at the same place; errors first."""
    first: dict[tuple[str, ...], Fault] = {}
    for fault in faults:
        first.setdefault((fault.code, fault.file, fault.key, fault.value, fault.suggestion), fault)
    return sorted(first.values(), key=lambda fault: fault.severity != "error")
