"""Make a bundle of an nnU-Net v2 results folder."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import BundleError, InputError, UsageError

if TYPE_CHECKING:
    from medseg.bundle.nnunet_model import NnunetModel
    from medseg.bundle.nnunet_weights import NnunetWeights

SCHEMA = 1
CHECKPOINTS = ("final", "best", "latest")
_AXES = ("LR", "AP", "IS")
_LICENCE = (
    "The configuration files of this bundle were written by medseg and may be used under the\n"
    "Apache License 2.0. The licence of the weights is that of the model they were imported from.\n"
)


@dataclass(frozen=True)
class ImportOptions:
    """What to import.

    Attributes:
        source: Results folder of one configuration, or a zip of one.
        output: Folder of the bundle.
        folds: Names of folds; every numbered one when empty.
        checkpoint: `final`, `best` or `latest`; the first of these that is there when None.
        orientation: Three letters that images are turned to; as nnU-Net's reader when empty.
        previous_stage: Results folder of the stage before, of a cascade; that beside `source` of
            the same trainer and plans when None.
        postprocessing: A `postprocessing.json` of nnU-Net, whose steps the bundle takes over; none
            when None, as `nnUNetv2_predict` does without.
        overwrite: Replace a bundle that is there.
    """

    source: Path
    output: Path
    folds: tuple[str, ...] = ()
    checkpoint: str | None = None
    orientation: str = ""
    previous_stage: Path | None = None
    postprocessing: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class ImportResult:
    """The bundle that was made.

    Attributes:
        bundle: Its folder.
        facts: What was imported.
        warnings: Code and text of what could not be taken over.
    """

    bundle: Path
    facts: dict[str, Any]
    warnings: dict[str, str]

    @property
    def exit_code(self) -> int:
        """Always 0."""
        return 0

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        warnings = [{"code": code, "message": text} for code, text in self.warnings.items()]
        return {"schema": SCHEMA, "bundle": str(self.bundle), **self.facts, "warnings": warnings}


def import_nnunet(
    options: ImportOptions, *, progress: Callable[[int, int, str], None] | None = None
) -> ImportResult:
    """Make a bundle of a trained configuration of nnU-Net v2.

    Nothing in the folder is run: checkpoints are loaded as tensors and numbers alone, and pickled
    files are not opened.

    Args:
        options: What to import.
        progress: Told how far it is.

    Returns:
        The bundle.

    Raises:
        BundleError: If the folder is none of nnU-Net v2's (`not-nnunet`), its plans cannot be
            understood (`bad-plans`) or are not supported (`unsupported-nnunet`), the stage before
            it is not there (`no-previous-stage`), or the weights cannot be loaded safely
            (`bad-weights`) or do not fit (`weights-mismatch`).
        InputError: If the source is not there, or a zip that cannot be extracted safely.
        OutputError: If something is at the output already (`output-exists`).
        UsageError: If an option is unknown.
    """
    from medseg.bundle.nnunet_text import PREVIOUS  # noqa: PLC0415  (torch takes seconds)
    from medseg.bundle.write import new_bundle_folder  # noqa: PLC0415

    _check(options)
    tell = progress or _silent
    with ExitStack() as opened:
        tell(0, 2, "reading the model")
        stages = _stages(options, opened)
        steps = _steps(options.postprocessing, stages[0].model)
        tell(1, 2, "writing the bundle")
        output = options.output.absolute()
        with new_bundle_folder(output, overwrite=options.overwrite) as partial:
            for number, stage in enumerate(stages):
                name = options.output.absolute().name if number == 0 else PREVIOUS
                _write(
                    stage,
                    partial.joinpath(*[PREVIOUS] * number),
                    name,
                    options.orientation,
                    steps if number == 0 else [],
                )
    warnings = {code: text for one in reversed(stages) for code, text in one.warnings.items()}
    return ImportResult(options.output.absolute(), _facts(stages, options.orientation), warnings)


@dataclass(frozen=True)
class _Stage:
    """One network of a cascade, or the only one."""

    model: "NnunetModel"
    weights: "NnunetWeights"
    warnings: dict[str, str]


def _stages(options: ImportOptions, opened: ExitStack) -> list[_Stage]:
    """Read the model and, of a cascade, what comes before it; the last stage first."""
    from medseg.bundle.nnunet_model import read_nnunet_model  # noqa: PLC0415
    from medseg.bundle.nnunet_weights import (  # noqa: PLC0415
        read_nnunet_weights,
        stated_configuration,
    )

    folder = opened.enter_context(_results_folder(options.source))
    stages: list[_Stage] = []
    previous = options.previous_stage
    while True:
        model = read_nnunet_model(
            folder,
            checkpoint=options.checkpoint,
            folds=options.folds,
            configuration_of=stated_configuration,
        )
        given = options.postprocessing is not None
        left_out = _left_out(folder, model, given=given)
        stages.append(_Stage(model, read_nnunet_weights(model), left_out))
        if stages[1:]:
            _require_stage_before(model, stages[-2].model)
        if not model.previous:
            break
        beside = folder.with_name(folder.name.removesuffix(model.configuration) + model.previous)
        folder = opened.enter_context(_results_folder(_given_or_beside(previous, beside, model)))
        previous = None
    if previous is not None:
        msg = (
            "previous_stage must be left out for a model that is no second stage of a cascade, got"
            f" it for {stages[0].model.configuration}."
        )
        raise UsageError(msg)
    return stages


def _given_or_beside(given: Path | None, beside: Path, model: "NnunetModel") -> Path:
    if given is None and not beside.is_dir():
        msg = (
            f"{model.configuration} must have the results of the stage before it,"
            f" {model.previous}, beside it, got no folder {beside.name!r}."
            " Name it by --previous-stage FOLDER."
        )
        raise BundleError(msg, code="no-previous-stage")
    return given or beside


def _require_stage_before(model: "NnunetModel", later: "NnunetModel") -> None:
    wanted = (later.previous, later.channels, later.labels)
    if (model.configuration, model.channels, model.labels) != wanted:
        msg = (
            f"previous stage of {later.configuration} must be {later.previous} of the same images"
            f" and labels, got {model.configuration} of {model.dataset}."
        )
        raise BundleError(msg, code="bad-plans")


def _steps(path: Path | None, model: "NnunetModel") -> list[dict[str, Any]]:
    from medseg.bundle.nnunet_postprocessing import read_postprocessing  # noqa: PLC0415

    if path is None:
        return []
    if not path.is_file():
        msg = f"postprocessing must be a postprocessing.json of nnU-Net v2, got {str(path)!r}."
        raise InputError(msg, code="not-found")
    return read_postprocessing(path, model)


def _write(
    stage: _Stage, folder: Path, name: str, orientation: str, steps: list[dict[str, Any]]
) -> None:
    """Write the bundle of one stage."""
    from medseg.bundle import nnunet_text as text  # noqa: PLC0415
    from medseg.io.atomic import write_json, write_text  # noqa: PLC0415

    model, weights = stage.model, stage.weights
    spec = text.nnunet_spec(model, weights, name)
    turned = text.orientation_of(model, orientation)
    configs = folder / "configs"
    write_text(configs / "common.yaml", text.nnunet_common_text(model, spec, turned))
    write_text(configs / "inference.yaml", text.nnunet_inference_text(model, spec))
    document = text.nnunet_metadata(model, weights, spec)
    if steps:
        document["medseg"]["postprocessing"] = steps
    write_json(configs / "metadata.json", document)
    card = text.nnunet_card(model, weights, spec, stage.warnings)
    write_text(folder / "docs" / "README.md", card)
    write_text(folder / "LICENSE", _LICENCE)
    _save(weights.state, folder / "models" / "model.pt")


def _facts(stages: Sequence[_Stage], orientation: str) -> dict[str, Any]:
    from medseg.bundle.nnunet_text import orientation_of  # noqa: PLC0415

    model = stages[0].model
    return {
        "dataset": model.dataset,
        "configuration": model.configuration,
        "trainer": model.trainer,
        "folds": list(stages[0].weights.folds),
        "labels": [
            {"index": value, "name": label}
            for (label, _), value in zip(model.labels, model.paints, strict=True)
        ],
        "orientation": orientation_of(model, orientation) or None,
        "previous_stage": model.previous or None,
    }


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def _check(options: ImportOptions) -> None:
    if options.checkpoint is not None and options.checkpoint not in CHECKPOINTS:
        msg = f"checkpoint must be among {', '.join(CHECKPOINTS)}, got {options.checkpoint!r}."
        raise UsageError(msg)
    letters = options.orientation
    axes = sorted(
        number for letter in letters for number, pair in enumerate(_AXES) if letter in pair
    )
    if letters and (len(letters) != 3 or axes != [0, 1, 2]):
        msg = f"orientation must be three letters such as RAS or LPS, got {letters!r}."
        raise UsageError(msg)


@contextmanager
def _results_folder(source: Path) -> Iterator[Path]:
    """Give the folder with plans.json, extracted where it lies in a zip."""
    from medseg.io.archive import extract_zip  # noqa: PLC0415

    if source.is_dir():
        yield _one_with_plans(source, source.name)
        return
    if not source.is_file():
        msg = f"source must be an nnU-Net v2 results folder or a zip of one, got {str(source)!r}."
        raise InputError(msg, code="not-found")
    with tempfile.TemporaryDirectory() as scratch:
        yield _one_with_plans(extract_zip(source, Path(scratch) / "zip"), source.name)


def _one_with_plans(folder: Path, name: str) -> Path:
    found = sorted({path.parent for path in folder.rglob("plans.json")})
    if folder in found or len(found) == 1:
        return folder if folder in found else found[0]
    listed = ", ".join(path.relative_to(folder).as_posix() for path in found)
    msg = (
        "source must hold the results of one nnU-Net v2 configuration, with plans.json, got"
        f" {f'several in {name!r}: {listed}. Name one' if found else f'none in {name!r}'}."
    )
    raise BundleError(msg, code="not-nnunet")


def _save(state: dict[str, Any], path: Path) -> None:
    import torch  # noqa: PLC0415

    from medseg.io.atomic import output_errors  # noqa: PLC0415

    with output_errors(path):
        path.parent.mkdir(parents=True)
        torch.save(state, path)


def _left_out(folder: Path, model: "NnunetModel", *, given: bool) -> dict[str, str]:
    """Say what of the folder the bundle does not have."""
    found = {}
    places = [folder, *(path.parent for path in model.checkpoints.values())]
    pickled = [p for place in places for p in sorted(place.rglob("postprocessing.pkl"))]
    if pickled and not given:
        found["postprocessing"] = (
            "postprocessing.pkl, which is never opened since it could run anything; give the"
            " postprocessing.json beside it to --postprocessing, or state in the metadata what it"
            " does, as medseg.postprocessing"
        )
    if model.trainer and not model.trainer.startswith("nnUNetTrainer"):
        found["trainer"] = f"what the trainer {model.trainer} may do at inference"
    return found
