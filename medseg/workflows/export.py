"""Export a bundle: its network for other runtimes, its configs as single files."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from medseg.bundle import Bundle, load_bundle
from medseg.bundle.build import InferenceParts, build_inference
from medseg.bundle.export_config import config_files_of, single_config
from medseg.bundle.export_network import (
    Source,
    open_network,
    require_packages,
    write_network,
)
from medseg.bundle.export_parity import (
    STANDARD_RANGE,
    Parity,
    Trial,
    compare,
    make_trials,
    other_shape,
)
from medseg.errors import BundleError, Problem, UsageError
from medseg.io.atomic import atomic_path, json_text, write_text
from medseg.workflows.export_pipeline import ExportedPipeline, write_pipeline
from medseg.workflows.export_targets import ExportOptions, Targets, parts_of, targets_of
from medseg.workflows.exported_network import ExportedNetwork

__all__ = ["ExportOptions", "ExportResult", "ExportedNetwork", "export"]

logger = logging.getLogger(__name__)

SCHEMA = 1
MOST_SAID = 300
"""Characters of an exporter's reason for failing; --debug shows all."""

CPU = torch.device("cpu")

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ExportResult:
    """What came of it.

    Attributes:
        bundle: The bundle.
        networks: Its networks in each format.
        configs: Workflow to file.
        copied: What lies beside the configs.
        pipeline: What is done before and after the networks; None where none was written.
    """

    bundle: Bundle
    networks: tuple[ExportedNetwork, ...]
    configs: Mapping[str, Path]
    copied: tuple[Path, ...] = ()
    pipeline: ExportedPipeline | None = None

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What a user must know of files that were written."""
        missing = self.pipeline.missing if self.pipeline else ()
        if not missing:
            return ()
        reasons = "; ".join(f"{one['key']}: {one['reason']}" for one in missing)
        message = f"the pipeline is not complete, and the runner refuses it: {reasons}"
        return (Problem("incomplete-pipeline", message, "warning"),)

    @property
    def exit_code(self) -> int:
        """0, or 1 when a format failed."""
        return int(any(network.error for network in self.networks))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": SCHEMA,
            "bundle": {
                "name": self.bundle.name,
                "version": self.bundle.version,
                "weights_sha256": self.bundle.weights_sha256(),
            },
            "files": [network.as_json() for network in self.networks],
            "configs": [{"workflow": key, "file": str(file)} for key, file in self.configs.items()],
            "copied": [str(file) for file in self.copied],
            "pipeline": self.pipeline.as_json() if self.pipeline else None,
            "warnings": [{"code": one.code, "message": one.message} for one in self.warnings],
        }


def export(options: ExportOptions, *, progress: Progress | None = None) -> ExportResult:
    """Write a bundle's network for other runtimes, and its configs as single files.

    Each network file is loaded, run and compared with torch before it is put in place; one that
    answers otherwise is not kept.

    Args:
        options: What is asked for.
        progress: Told what is going on.

    Returns:
        The files, and how far each is from torch.

    Raises:
        BundleError: If the bundle has no weights (`no-weights`) or cannot be built.
        DependencyError: If a package is missing.
        UsageError: If the options contradict each other.
        OutputError: If a file is there already (`output-exists`) or cannot be written.
    """
    bundle = load_bundle(options.bundle)
    targets = targets_of(bundle, options)
    for name in targets.formats:
        require_packages(name)
    if targets.networks:
        bundle.require_weights()
    if not options.overwrite:
        targets.refuse_existing()
    texts = {name: _single_text(bundle, name) for name in targets.configs}
    networks, parts = _export_networks(bundle, options, targets, progress or _silent)
    pipeline = write_pipeline(bundle, parts, networks, targets) if parts else None
    for name, file in targets.configs.items():
        write_text(file, texts[name])
    for file, source in targets.copies.items():
        _place(source, file)
    return ExportResult(bundle, networks, targets.configs, tuple(targets.copies), pipeline)


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def _single_text(bundle: Bundle, workflow: str) -> str:
    return json_text(single_config(bundle, config_files_of(bundle, workflow))) + "\n"


def _place(source: Path, final: Path) -> None:
    with atomic_path(final) as part:
        shutil.copyfile(source, part)


def _export_networks(
    bundle: Bundle, options: ExportOptions, targets: Targets, tell: Progress
) -> tuple[tuple[ExportedNetwork, ...], InferenceParts | None]:
    """Write the networks, and return what the first brings to inference with them."""
    exported: list[ExportedNetwork] = []
    reference: tuple[Source, list[Trial]] | None = None
    parts: InferenceParts | None = None
    before: Path | None = None
    for file, (name, weights) in targets.networks.items():
        tell(len(exported), len(targets.networks), f"{name} of {weights.name}")
        if reference is None or weights != before:
            own = build_inference(bundle, CPU, weights=weights, trust=options.trust)
            reference, before, parts = _reference(bundle, options, own), weights, parts or own
        source, trials = reference
        start = ExportedNetwork(
            file=file,
            format=name,
            weights=weights.relative_to(bundle.root).as_posix(),
            input_shape=(1, source.channels, *source.shape),
        )
        exported.append(_export_one(start, source, trials, regions=bundle.regions))
    return tuple(exported), parts


def _reference(
    bundle: Bundle, options: ExportOptions, parts: InferenceParts
) -> tuple[Source, list[Trial]]:
    """Run a network on the inputs that its exports are compared on."""
    network = parts.network.float()
    shape = options.shape or _patch_of(bundle, parts.inferer)
    channels = bundle.input_rule.channels
    shapes = [(1, channels, *shape), (2, channels, *shape)]
    if other := other_shape(network, channels, shape):
        shapes.append((1, channels, *other))
    elif options.dynamic:
        msg = f"network must take a second shape to have dynamic axes, got {shape} alone."
        raise BundleError(msg, code="no-dynamic-axes")
    source = Source(
        network,
        channels,
        shape,
        dynamic=options.dynamic,
        opset=options.opset,
        metadata=bundle.metadata,
        config=single_config(bundle, bundle.config_files),
    )
    return source, make_trials(network, shapes, value_range=_value_range(bundle))


def _patch_of(bundle: Bundle, inferer: Any) -> tuple[int, ...]:
    size = getattr(inferer, "roi_size", None)
    sizes = tuple(size) if isinstance(size, Sequence) else ()
    if not sizes or not all(isinstance(n, int) and n > 0 for n in sizes):
        msg = f"shape must be given for {bundle.name}, whose inferer has no patch, got none."
        raise UsageError(f"{msg} Add --shape I,J,K.")
    return sizes


def _value_range(bundle: Bundle) -> tuple[float, float]:
    stated = bundle.metadata["network_data_format"]["inputs"]["image"].get("value_range")
    try:
        low, high = (float(value) for value in stated)
    except (TypeError, ValueError):
        return STANDARD_RANGE
    return (low, high) if low < high else STANDARD_RANGE


def _export_one(
    start: ExportedNetwork, source: Source, trials: Sequence[Trial], *, regions: bool
) -> ExportedNetwork:
    """Write one file, try it, and put it in place if it answers as torch does."""
    result = start
    with tempfile.TemporaryDirectory(prefix="medseg-export-") as folder:
        file = Path(folder) / start.file.name
        try:
            written = write_network(start.format, source, file)
            tried = [t for t in trials if written.dynamic or t.image.shape[2:] == source.shape]
            others = any(t.image.shape[2:] != source.shape for t in tried)
            result = replace(start, written=replace(written, dynamic=others))
            parity = compare(open_network(start.format, file), tried, regions=regions)
        except Exception as error:  # exporters raise anything
            logger.debug("%s failed", start.format, exc_info=True)
            text = " ".join(str(error).split())[:MOST_SAID] or "no reason"
            reason = (
                f"{start.format} must be able to hold the network, got {type(error).__name__}:"
                f" {text}. Choose another format."
            )
            return replace(result, error=Problem("export-failed", reason))
        result = replace(result, parity=parity)
        if not parity.holds:
            return replace(result, error=Problem("parity", _why_not(parity)))
        for staged, final in zip(parts_of(file), parts_of(start.file), strict=True):
            _place(staged, final)
    return result


def _why_not(parity: Parity) -> str:
    return (
        f"the file must answer as torch does, got outputs {parity.max_abs_difference:.3g} apart"
        f" ({parity.tolerance:.3g} is accepted) and {100 * parity.label_agreement:.3f} % equal"
        " labels. It was not kept."
    )
