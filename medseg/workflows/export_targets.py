"""What an export is asked for, and which files that comes to."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.bundle import Bundle
from medseg.bundle.export_config import OVERLAYS, config_files_of
from medseg.bundle.export_network import SUFFIXES
from medseg.errors import BundleError, OutputError, UsageError

CONFIG = ".json"
"""Suffix of an output that is one config file."""

PIPELINE, RUNNER = "pipeline.json", "run.py"
"""What lies beside networks: what is done around them as data, and a program that does it."""

_FORMAT_OF = {suffix: name for name, suffix in SUFFIXES.items()}
_ONE_FILE = (*_FORMAT_OF, CONFIG)
_NEITHER = (".pt", ".pth", ".bin", ".yaml", ".yml", ".zip")


@dataclass(frozen=True)
class ExportOptions:
    """What `export` is asked for.

    Attributes:
        bundle: Folder or name.
        output: Folder that is filled like a bundle (`models/`, `configs/`), with `pipeline.json`
            and `run.py`; or one file with the suffix .ts, .onnx, .xml or .json.
        formats: Among `torchscript`, `onnx`, `openvino`; when empty all of them, or none with
            `single_file`.
        single_file: Write the configs of each workflow as one JSON file.
        shape: Spatial shape of the network's input, voxels; the bundle's patch when empty.
        dynamic: Let the files take other spatial shapes.
        opset: Of ONNX; the exporter's own when left out.
        overwrite: Replace files that are there.
        trust: Run whatever the bundle's configs name, its own code included.
    """

    bundle: str | Path
    output: Path
    formats: tuple[str, ...] = ()
    single_file: bool = False
    shape: tuple[int, ...] = ()
    dynamic: bool = False
    opset: int | None = None
    overwrite: bool = False
    trust: bool = False


@dataclass(frozen=True)
class Targets:
    """The files to write.

    Attributes:
        networks: File to its format and the weights that go in.
        configs: Workflow to file.
        copies: File to what it is a copy of: what the configs need beside them.
        pipeline: What is done before and after the networks; None where there are none.
        runner: The program that does it; None where no network is for ONNX Runtime.
    """

    networks: dict[Path, tuple[str, Path]] = field(default_factory=dict)
    configs: dict[str, Path] = field(default_factory=dict)
    copies: dict[Path, Path] = field(default_factory=dict)
    pipeline: Path | None = None
    runner: Path | None = None

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats among them, each once."""
        return tuple(dict.fromkeys(name for name, _ in self.networks.values()))

    def refuse_existing(self) -> None:
        """Raise if one of them is there already.

        Raises:
            OutputError: With the first of them (`output-exists`).
        """
        there = [file for file in self._all() if file.exists()]
        if there:
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            msg = (
                f"output must hold none of the files to be written, got {str(there[0])!r}{more}."
                " Choose another, or add --overwrite."
            )
            raise OutputError(msg, code="output-exists")

    def _all(self) -> Iterable[Path]:
        for file in (*self.networks, *self.configs.values(), *self.copies):
            yield from parts_of(file)
        yield from (file for file in (self.pipeline, self.runner) if file is not None)


def parts_of(network: Path) -> tuple[Path, ...]:
    """Return the files that a network is made of.

    Args:
        network: Its main file.

    Returns:
        OpenVINO's weights, which lie beside it, first; it itself last.
    """
    return (network.with_suffix(".bin"), network) if network.suffix == ".xml" else (network,)


def targets_of(bundle: Bundle, options: ExportOptions) -> Targets:
    """Work out which files to write.

    Args:
        bundle: The bundle.
        options: What is asked for.

    Returns:
        The files.

    Raises:
        UsageError: If the output cannot hold what is asked for, or a format is unknown.
        BundleError: If the bundle lacks what is to be written (`no-config`).
    """
    suffix = options.output.suffix if not options.output.is_dir() else ""
    _check(options, suffix)
    if bundle.finds_objects and suffix != CONFIG and (options.formats or not options.single_file):
        msg = (
            f"bundle must segment classes to be exported, got {bundle.name}, whose network returns"
            " the objects of an image and no tensor. Use --single-file, without --to, for its"
            " configs."
        )
        raise BundleError(msg, code="not-exportable")
    if suffix == CONFIG:
        name = options.output.stem if options.output.stem in OVERLAYS else "inference"
        if not config_files_of(bundle, name):
            msg = f"bundle must have configs/{name}.yaml, got {bundle.name} without."
            raise BundleError(msg, code="no-config")
        return Targets(configs={name: options.output})
    if suffix in _FORMAT_OF:
        if len(bundle.weight_files) > 1:
            msg = (
                f"output must be a folder for the {len(bundle.weight_files)} networks of"
                f" {bundle.name}, got {options.output.name!r}."
            )
            raise UsageError(msg)
        beside = options.output.with_name(options.output.name + CONFIG)
        networks = {options.output: (_FORMAT_OF[suffix], bundle.weight_files[0])}
        return _with_pipeline(Targets(networks), beside)
    names = options.formats or (() if options.single_file else tuple(SUFFIXES))
    networks = {
        options.output / file.relative_to(bundle.root).with_suffix(SUFFIXES[name]): (name, file)
        for file in bundle.weight_files
        for name in names
    }
    targets = _bundle_of_single_files(bundle, options.output) if options.single_file else Targets()
    return _with_pipeline(replace(targets, networks=networks), options.output / PIPELINE)


def _with_pipeline(targets: Targets, pipeline: Path) -> Targets:
    """Add what lies beside networks; of ONNX the program that runs them."""
    if not targets.networks:
        return targets
    runner = pipeline.with_name(RUNNER) if "onnx" in targets.formats else None
    return replace(targets, pipeline=pipeline, runner=runner)


def _check(options: ExportOptions, suffix: str) -> None:
    if unknown := [name for name in options.formats if name not in SUFFIXES]:
        msg = f"format must be among {', '.join(SUFFIXES)}, got {unknown[0]!r}."
        raise UsageError(msg)
    if suffix in _NEITHER or (options.output.is_file() and suffix not in _ONE_FILE):
        known = ", ".join(_ONE_FILE)
        msg = f"output must be a folder or a file with one of {known}, got {options.output.name!r}."
        raise UsageError(msg)
    if suffix not in _ONE_FILE:
        return
    given = {SUFFIXES[name] for name in options.formats} | (
        {CONFIG} if options.single_file else set()
    )
    if given - {suffix}:
        msg = (
            f"output must be a folder for {', '.join(sorted(given))} files, got"
            f" {options.output.name!r}."
        )
        raise UsageError(msg)


def _bundle_of_single_files(bundle: Bundle, output: Path) -> Targets:
    """Return a bundle of its own: JSON configs, metadata, what they name, card and weights."""
    names = [name for name in OVERLAYS if config_files_of(bundle, name)]
    configs = {name: output / "configs" / f"{name}{CONFIG}" for name in names}
    if output.resolve() == bundle.root:
        return Targets(configs=configs)
    # of an ensemble medseg reads the members, MONAI's own commands the file that configs name
    weights = dict.fromkeys((*bundle.weight_files, bundle.weights))
    sources = [file for file in weights if file.is_file()]
    sources += sorted(
        file for file in (bundle.root / "configs").glob("*.json") if file.stem not in OVERLAYS
    )
    sources += [file for file in sorted((bundle.root / "docs").glob("*")) if file.is_file()]
    sources += [file for file in (bundle.root / "LICENSE",) if file.is_file()]
    copies = {output / file.relative_to(bundle.root): file for file in sources}
    return Targets(configs=configs, copies=copies)
