"""Whether medseg can segment with a bundle, and without running its own code."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg.bundle.check.configs import Workflow
from medseg.bundle.check.fault import Fault, shown
from medseg.bundle.check.files import SCRIPT
from medseg.bundle.check.metadata import FORMAT, METADATA
from medseg.bundle.foreign import (
    POSTPROCESSING,
    has_own_network,
    is_foreign,
    other_input,
    other_task,
)
from medseg.bundle.removed import without_removed


def check_task(metadata: dict[str, Any], inference: Workflow | None) -> Iterator[Fault]:
    """Find out whether a bundle segments an image.

    Args:
        metadata: Content of metadata.json.
        inference: Inference, if it can be read.

    Yields:
        Warnings `other-task`.
    """
    reason = other_task(metadata)
    if not reason and inference is not None and is_foreign(metadata):
        reason = other_input(inference.content)
    if reason:
        yield Fault(
            "other-task",
            METADATA,
            f"{FORMAT}#outputs",
            shown(reason),
            "an image that is segmented: medseg segment does nothing else",
            "run it with python -m monai.bundle run",
            severity="warning",
        )


def check_trust(root: Path, workflow: Workflow, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Find what inference may run of a bundle only once it is trusted.

    Args:
        root: The bundle's folder.
        workflow: Inference.
        metadata: Content of metadata.json.

    Yields:
        Warnings `needs-trust`.
    """
    from medseg.bundle.safety import unsafe_parts  # noqa: PLC0415  # imports monai

    config = copy.deepcopy(workflow.content)
    without_removed(config)
    parts = ["preprocessing", "inferer"]
    if not (is_foreign(metadata) and has_own_network(config) and (root / SCRIPT).is_file()):
        parts.insert(0, "network_def" if "network_def" in config else "network")
    if is_foreign(metadata) and POSTPROCESSING in config:
        parts.append(POSTPROCESSING)
    for one in unsafe_parts(config, parts):
        yield Fault(
            "needs-trust",
            workflow.file_of(one.key),
            one.key,
            one.value,
            f"what computes and no more: {one.reason}",
            "read it; medseg segment --trust runs it",
            severity="warning",
        )
