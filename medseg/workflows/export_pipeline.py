"""Write what is done around exported networks: as data, and as a program."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle import Bundle
from medseg.bundle.build import InferenceParts
from medseg.bundle.export_network import INPUT, OUTPUT
from medseg.bundle.export_runner import runner_source
from medseg.inference.pipeline import pipeline_document
from medseg.io.atomic import json_text, write_text
from medseg.workflows.export_targets import Targets, parts_of
from medseg.workflows.exported_network import ExportedNetwork


@dataclass(frozen=True)
class ExportedPipeline:
    """What was written beside networks.

    Attributes:
        file: The JSON document.
        runner: The program; None where no network is for ONNX Runtime.
        missing: Key and reason of what the document cannot state.
    """

    file: Path
    runner: Path | None = None
    missing: tuple[dict[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document of the command."""
        return {
            "file": str(self.file),
            "runner": str(self.runner) if self.runner else None,
            "complete": not self.missing,
            "missing": list(self.missing),
        }


def write_pipeline(
    bundle: Bundle, parts: InferenceParts, networks: Sequence[ExportedNetwork], targets: Targets
) -> ExportedPipeline | None:
    """Write `pipeline.json`, and `run.py` where a network is for ONNX Runtime.

    Args:
        bundle: The bundle.
        parts: What it brings to inference.
        networks: Its networks; those that failed are left out.
        targets: Where to write.

    Returns:
        What was written; None where no network was.

    Raises:
        OutputError: If a file cannot be written.
    """
    done = [network for network in networks if network.error is None]
    if targets.pipeline is None or not done:
        return None
    stated = _stated(networks, targets.pipeline.parent)
    document = pipeline_document(bundle, parts, stated)
    write_text(targets.pipeline, json_text(document) + "\n")
    runner = targets.runner if any(network.format == "onnx" for network in done) else None
    if runner is not None:
        write_text(runner, runner_source())
    return ExportedPipeline(targets.pipeline, runner, tuple(document["missing"]))


def _stated(networks: Sequence[ExportedNetwork], folder: Path) -> list[dict[str, Any]]:
    """Return what is said of each network, all its formats together."""
    files: dict[str, dict[str, Any]] = {}
    for network in networks:
        formats = files.setdefault(network.weights, {})  # of those that failed there is no file
        if network.error is not None:
            continue
        formats[network.format] = {
            "file": network.file.relative_to(folder).as_posix(),
            "parts": [part.relative_to(folder).as_posix() for part in parts_of(network.file)],
            "sha256": _sha256(network.file),
            "input_shape": list(network.input_shape),
            "dynamic_axes": network.dynamic_axes,
        }
    return [
        {"weights": weights, "input": INPUT, "output": OUTPUT, "files": own}
        for weights, own in files.items()
    ]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
