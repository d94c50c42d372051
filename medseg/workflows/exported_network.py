"""One network of a bundle in one format, and what is said of its file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle.export_network import AXES, INPUT, OUTPUT, Written, free_axes, versions_of
from medseg.bundle.export_parity import Parity
from medseg.errors import Problem
from medseg.workflows.export_targets import parts_of


@dataclass(frozen=True)
class ExportedNetwork:
    """One network in one format.

    Attributes:
        file: Where it lies.
        format: `torchscript`, `onnx` or `openvino`.
        weights: The bundle's weight file, relative to it.
        input_shape: (B, C, *spatial).
        written: What was written; None where that failed.
        parity: How far its answers are from torch's; None where it does not run.
        error: Why there is no file.
    """

    file: Path
    format: str
    weights: str
    input_shape: tuple[int, ...]
    written: Written | None = None
    parity: Parity | None = None
    error: Problem | None = None

    @property
    def dynamic_axes(self) -> dict[str, str]:
        """Axes of the input that are free: number to name."""
        if self.written is None:
            return {}
        axes = {"0": "batch"}
        if self.written.dynamic:
            axes |= {str(2 + axis): AXES[axis] for axis in free_axes(self.input_shape[2:])}
        return axes

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        error, written = self.error, self.written
        parts = () if error else parts_of(self.file)
        return {
            "file": str(self.file),
            "format": self.format,
            "status": "failed" if error else "done",
            "error": {"code": error.code, "message": error.message} if error else None,
            "parts": [str(part) for part in parts],
            "bytes": sum(part.stat().st_size for part in parts),
            "weights": self.weights,
            "method": written.method if written else None,
            "opset": written.opset if written else None,
            "input": INPUT,
            "output": OUTPUT,
            "input_shape": list(self.input_shape),
            "dynamic_axes": self.dynamic_axes,
            "parity": self.parity.as_json() if self.parity else None,
            "versions": versions_of(self.format),
        }
