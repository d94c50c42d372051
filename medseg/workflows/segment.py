"""segment: from what the user names to one folder of results a case."""

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medseg.bundle import Bundle, load_bundle
from medseg.bundle.lean_imports import lean_imports
from medseg.data.limits import keep_freed_memory, useful_threads
from medseg.errors import UsageError
from medseg.io.cases import Rule
from medseg.io.channel_choice import ChannelRule
from medseg.workflows import results
from medseg.workflows.case_ids import CaseIds
from medseg.workflows.feed import check_watch, open_feed
from medseg.workflows.label_outputs import MESH_FORMATS
from medseg.workflows.manifest_log import open_manifest, table_problem
from medseg.workflows.outputs import check_outputs, misfits, require_probabilities
from medseg.workflows.segment_cases import CaseRuns
from medseg.workflows.shard import WHOLE, Shard
from medseg.workflows.watch import RecordSpool, Watch, stop_on_signals

if TYPE_CHECKING:  # imported when the input is known to be good: torch and MONAI take seconds
    from medseg.inference import Execution, Predictor
    from medseg.inference.objects import ObjectPredictor

log = logging.getLogger(__name__)

_PARTS_KEPT_S = 24 * 3600.0
"""Unfinished files that may be of a share on another machine are left alone for this long; s."""


class Progress(Protocol):
    """Told how far the work is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take steps done, all steps, and what is being done."""


@dataclass(frozen=True)
class SegmentOptions:
    """What `segment` is asked for.

    Attributes:
        inputs: DICOM files or folders, .zip archives, image files, folders of any of them, or
            manifests (.csv, .json) with a row a case and an image column a channel, or lists
            (.txt) with the path of a study a line.
        bundle: Folder or name of the bundle; of several the probabilities are averaged.
        output: Folder that gets one folder a case.
        outputs: Kinds of output; None for the mask, preview and report, and of picture files a
            palette PNG too.
        labels: Names of the labels to keep; all when empty.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        backend: Library that runs the networks, see `Execution`.
        precision: Of its arithmetic, see `Execution`.
        memory_gb: Memory that a case may take, GiB; what is free when None.
        skip_empty: Run a network once for all windows of the same one value.
        overlap: Overlap of the sliding window; the bundle's own when None.
        tta: Average over mirrorings.
        resume: Skip cases whose results are complete.
        overwrite: Replace results that are there.
        series: SeriesInstanceUID or volume id chosen by hand, or `all`; for a bundle of several
            channels one a channel, with commas between.
        frame: Frame of a 4D image, counted from zero.
        regrid: Resample missing or irregular slices to an even grid.
        resample: Bring channels that lie on other grids to the grid of the first.
        shard: The share of the cases that this run does.
        watch: Take studies as they arrive in the folders of `inputs`, until a signal; results that
            are there are kept as with `resume`, once it is said what becomes of them.
        deidentify: Take out of DICOM outputs what says whose they are.
        mesh_format: Of surfaces: `stl`, `obj` or `ply`.
        mesh_smoothing: Rounds of smoothing of surfaces, 0 for none.
        trust: Run whatever the bundles' configs name, their own code included.
    """

    inputs: tuple[Path, ...]
    bundle: str | tuple[str, ...]
    output: Path
    outputs: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    device: str = "auto"
    backend: str = "auto"
    precision: str = "auto"
    memory_gb: float | None = None
    skip_empty: bool = True
    overlap: float | None = None
    tta: bool = False
    resume: bool = False
    overwrite: bool = False
    series: str | None = None
    frame: int | None = None
    regrid: bool = False
    resample: bool = False
    shard: Shard = WHOLE
    watch: Watch | None = None
    deidentify: bool = False
    mesh_format: str = "stl"
    mesh_smoothing: int = 15
    trust: bool = False

    @property
    def mesh(self) -> dict[str, Any]:
        """Options of `write_meshes`."""
        return {"file_format": self.mesh_format, "smoothing": self.mesh_smoothing}

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the content of the files, besides bundle and image."""
        return {
            "labels": sorted(self.labels),
            "precision": self.precision,
            "overlap": self.overlap,
            "tta": self.tta,
            "frame": self.frame,
            "regrid": self.regrid,
            "resample": self.resample,
            "deidentify": self.deidentify,
            "mesh": self.mesh,
        }


@dataclass(frozen=True)
class SegmentResult:
    """What came of it.

    Attributes:
        bundle: The bundle's name, version and weights hash.
        cases: One record a case, as in the JSON document.
        rejected: Files that belong to no case.
        problems: Of the run as a whole, such as a table that could not be written.
    """

    bundle: dict[str, Any]
    cases: tuple[dict[str, Any], ...]
    rejected: tuple[dict[str, str], ...] = field(default_factory=tuple)
    problems: tuple[dict[str, str], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every case is complete, else 1."""
        return int(bool(self.problems) or any(case["status"] == "failed" for case in self.cases))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": 1,
            "bundle": self.bundle,
            "cases": list(self.cases),
            "rejected": list(self.rejected),
            **({"problems": list(self.problems)} if self.problems else {}),
        }


def segment(
    options: SegmentOptions, *, progress: Progress | None = None, own_process: bool = False
) -> SegmentResult:
    """Segment every case of the input; a failing case does not stop the others.

    Args:
        options: What is asked for.
        progress: Told what is going on.
        own_process: The process does nothing else with MONAI: import no more than is needed.

    Returns:
        A record a case.

    Raises:
        MedsegError: If nothing could be started: unknown bundle, no weights, no image, no
            single fitting volume in an input that is one study, output folder not usable.
    """
    tell = progress or _silent
    names = (options.bundle,) if isinstance(options.bundle, str) else options.bundle
    if not names:
        msg = "bundle must name at least one bundle, got none."
        raise UsageError(msg)
    bundles = [load_bundle(name) for name in names]
    bundle = bundles[0]
    _check(options, bundle)
    for one in bundles:
        one.require_weights()
    results.refuse_existing(options.output, resume=options.resume, overwrite=options.overwrite)
    rule = Rule(
        bundle.input_rule.reason_against,
        bundle.input_rule.image_type_prefer,
        bundle.input_rule.channels,
        tuple(ChannelRule(*channel) for channel in bundle.input_rule.channel_rules),
        file_is_case=bundle.input_rule.is_colour,
    )

    def scanning(done: int, total: int) -> None:
        tell(done, total, "reading headers")

    with ExitStack() as stack:
        feed = open_feed(options, rule, stack, scanning)
        tell(0, feed.total, "loading the bundle")
        with lean_imports(bundles) if own_process else nullcontext():
            predictor = _predictor(bundles, options)
        _check_dimensions(options, predictor)
        manifest = stack.enter_context(
            open_manifest(options.output, options.shard, private=options.inputs)
        )
        alone = options.shard == WHOLE
        results.prepare(options.output, older_than_s=0.0 if alone else _PARTS_KEPT_S, alone=alone)
        identity = _identity(bundles)
        resumed = options if options.watch is None else replace(options, resume=True)
        runs = CaseRuns(predictor, resumed, identity, manifest, feed.stop)
        records = stack.enter_context(closing(RecordSpool()))
        try:
            with nullcontext() if options.watch is None else stop_on_signals(feed.stop):
                ids = CaseIds(manifest.entries, repeated=options.watch is not None)
                cases = feed.named(ids, options.shard)
                runs.run(cases, feed.total, tell, records.append)
        finally:
            problem = table_problem(manifest)
        return SegmentResult(
            bundle=identity,
            cases=tuple(records.last_of_each()),
            rejected=tuple(
                {"path": str(r.path), "code": r.code, "message": r.message} for r in feed.rejected
            ),
            problems=() if problem is None else (problem.as_json(),),
        )


def _predictor(bundles: Sequence[Bundle], options: SegmentOptions) -> "Predictor | ObjectPredictor":
    """Load the bundles; the process is set up for running networks."""
    import torch  # noqa: PLC0415

    from medseg.inference import Execution, Predictor  # noqa: PLC0415

    execution = Execution(options.backend, options.precision, options.skip_empty, options.memory_gb)
    keep_freed_memory()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(useful_threads())
    if any(bundle.finds_objects for bundle in bundles):
        require_probabilities(options.outputs, bundles[0].name)
        return _object_predictor(bundles, options, execution)
    return Predictor(
        bundles,
        device=options.device,
        overlap=options.overlap,
        tta=options.tta,
        execution=execution,
        trust=options.trust,
    )


def _object_predictor(
    bundles: Sequence[Bundle], options: SegmentOptions, execution: "Execution"
) -> "ObjectPredictor":
    from medseg.inference.objects import ObjectPredictor  # noqa: PLC0415

    if len(bundles) > 1 or options.tta:
        rule, got = "one bundle alone must be given", f"{len(bundles)} bundles"
        if options.tta:
            rule, got = "tta must be left out", f"it for {bundles[0].name}"
        msg = f"{rule} where objects are found, got {got}."
        raise UsageError(msg)
    return ObjectPredictor(
        bundles[0],
        device=options.device,
        overlap=options.overlap,
        execution=execution,
        trust=options.trust,
    )


def _identity(bundles: Sequence[Bundle]) -> dict[str, Any]:
    """Return what the masks were made with; of several bundles a name and hash of all."""
    members = [
        {"name": b.name, "version": b.version, "weights_sha256": b.weights_sha256()}
        for b in bundles
    ]
    if len(members) == 1:
        return members[0]
    digests = "\n".join(str(member["weights_sha256"]) for member in members)
    return {
        "name": "+".join(str(member["name"]) for member in members),
        "version": "+".join(str(member["version"]) for member in members),
        "weights_sha256": hashlib.sha256(digests.encode()).hexdigest(),
        "members": members,
    }


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def _check(options: SegmentOptions, bundle: Bundle) -> None:
    check_outputs(options.outputs)
    names = [label.name for label in bundle.labels]
    unknown = sorted(set(options.labels) - set(names))
    if unknown:
        msg = f"labels must be among {', '.join(names)}, got {', '.join(unknown)}."
        raise UsageError(msg, code="unknown-label")
    if options.resume and options.overwrite:
        msg = "resume and overwrite must not be given together."
        raise UsageError(msg)
    if any(path.is_dir() and _same(path, options.output) for path in options.inputs):
        msg = (
            f"output must not be the folder of the images, got {str(options.output)!r} for both."
            f" Choose a folder of its own, such as {str(options.output / 'results')!r}."
        )
        raise UsageError(msg, code="output-is-input")
    check_watch(options)
    if options.mesh_format not in MESH_FORMATS:
        msg = f"mesh_format must be one of {', '.join(MESH_FORMATS)}, got {options.mesh_format!r}."
        raise UsageError(msg)
    if options.mesh_smoothing < 0:
        msg = f"mesh_smoothing must be 0 or more rounds, got {options.mesh_smoothing}."
        raise UsageError(msg)
    if options.frame is not None and options.frame < 0:
        msg = f"frame must be 0 or more, got {options.frame}."
        raise UsageError(msg)


def _check_dimensions(options: SegmentOptions, predictor: "Predictor | ObjectPredictor") -> None:
    is_solid = predictor.intake.dims == 3
    wrong = misfits(options.outputs or (), is_solid=is_solid)
    if wrong:
        own, other = ("3D volumes", "2D images") if is_solid else ("2D images", "3D volumes")
        msg = (
            f"outputs must be of {own} for {predictor.bundle.name}, got {' and '.join(wrong)},"
            f" which only {other} have. Leave them out."
        )
        raise UsageError(msg)


def _same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve()
