"""Plan a bundle for a labelled dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from medseg.bundle.write import write_bundle
from medseg.data import DatasetProblem, check_dataset, make_folds, open_dataset
from medseg.data.object_statistics import object_statistics
from medseg.errors import InputError, UsageError
from medseg.planning import Plan, fingerprint, make_plan
from medseg.planning.network import NETWORKS, Network
from medseg.planning.objects import MASK_RCNN, plan_objects
from medseg.planning.plan import CONFIGURATIONS, Configuration

MOST_LISTED = 20
"""Problems that the message of an error lists; `--json` has all in its message as well."""


class Progress(Protocol):
    """Told how far the work is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take steps done, all steps, and what is being done."""


@dataclass(frozen=True)
class PlanOptions:
    """What `plan` is asked for.

    Attributes:
        dataset: Folder or manifest.
        output: Folder of the bundle.
        name: Of the bundle; that of its folder when empty.
        network: `dynunet`, `unet` or `segresnet`; for pictures any of `network_names`.
        memory_gb: Memory of the device that trains; GB.
        configuration: `auto`, `2d`, `3d` or `3d_lowres`.
        folds: For cross-validation.
        seed: Of the folds.
        overwrite: Replace a bundle that is there.
        strict: Take warnings about the dataset for errors.
    """

    dataset: Path
    output: Path
    name: str = ""
    network: Network = "dynunet"
    memory_gb: float = 8.0
    configuration: Configuration = "auto"
    folds: int = 5
    seed: int = 12345
    overwrite: bool = False
    strict: bool = False


@dataclass(frozen=True)
class PlanResult:
    """What came of it.

    Attributes:
        bundle: Folder of the bundle.
        plan: The plan.
        problems: Warnings about the dataset.
    """

    bundle: Path
    plan: Plan
    problems: tuple[DatasetProblem, ...]

    @property
    def exit_code(self) -> int:
        """0: a plan that was made is complete."""
        return 0

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            **self.plan.as_json(),
            "bundle": {"name": self.plan.spec.name, "path": str(self.bundle)},
            "problems": [problem.as_json() for problem in self.problems],
        }


def plan(options: PlanOptions, *, progress: Progress | None = None) -> PlanResult:
    """Check and fingerprint a dataset, and write a trainable bundle for it.

    Args:
        options: What is asked for.
        progress: Told what is going on.

    Returns:
        The plan and where the bundle lies.

    Raises:
        InputError: If the dataset has faults (`bad-dataset`): all are listed.
        UsageError: If an option is unknown.
        OutputError: If the bundle cannot be written.
    """
    tell = progress or _silent
    _check(options)
    objects = options.network == MASK_RCNN
    dataset = open_dataset(options.dataset, objects=objects)
    splits = make_folds(dataset.cases, options.folds, options.seed)
    problems = check_dataset(
        dataset, splits=splits, progress=lambda done, total: tell(done, total, "checking cases")
    )
    raise_for_errors(problems, strict=options.strict)
    test = set(splits["test"])
    cases = [case for case in dataset.cases if case.case_id not in test]
    found = fingerprint(
        dataset, cases, progress=lambda done, total: tell(done, total, "measuring cases")
    )
    if found.in_pixels and (stating := sum(case.states_spacing for case in found.cases)):
        text = (
            f"{stating} of {len(found.cases)} images state the size of their pixels and the others"
            " do not: the network takes all in pixels, and the sizes are not looked at"
        )
        unused = DatasetProblem("pixel-size-unused", dataset.name, text, "warning")
        raise_for_errors((unused,), strict=options.strict)
        problems = (*problems, unused)
    name = options.name or options.output.absolute().name
    if objects:
        sizes = object_statistics(replace(dataset, cases=tuple(cases)), found.steps)
        made = plan_objects(dataset, found, sizes, name=name, memory_gb=options.memory_gb)
    else:
        made = make_plan(
            dataset,
            found,
            name=name,
            network=options.network,
            memory_gb=options.memory_gb,
            configuration=options.configuration,
        )
    folder = write_bundle(
        made.spec,
        options.output,
        plan=made.as_json(),
        splits=splits,
        overwrite=options.overwrite,
    )
    return PlanResult(folder, made, problems)


def raise_for_errors(problems: tuple[DatasetProblem, ...], *, strict: bool = False) -> None:
    """Raise one error that lists all errors of a dataset, if there are any.

    Args:
        problems: As `check_dataset` found them.
        strict: Warnings are errors.

    Raises:
        InputError: If one of them is an error (`bad-dataset`).
    """
    errors = [problem for problem in problems if strict or problem.severity == "error"]
    if not errors:
        return
    lines = [f"{p.case}: {p.message} [{p.code}]" for p in errors[:MOST_LISTED]]
    if len(errors) > MOST_LISTED:
        lines.append(f"and {len(errors) - MOST_LISTED} more")
    worst = sum(problem.severity == "error" for problem in errors)
    parts = ((worst, "error"), (len(errors) - worst, "warning"))
    count = " and ".join(f"{n} {word}{'s' * (n > 1)}" for n, word in parts if n)
    msg = f"dataset must be in order, got {count}:\n" + "\n".join(lines)
    raise InputError(msg, code="bad-dataset")


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def _check(options: PlanOptions) -> None:
    from medseg.networks import network_names  # noqa: PLC0415  # torch takes seconds

    networks = list(dict.fromkeys([*NETWORKS, MASK_RCNN, *network_names()]))
    for value, known, what in (
        (options.network, networks, "network"),
        (options.configuration, CONFIGURATIONS, "configuration"),
    ):
        if value not in known:
            msg = f"{what} must be among {', '.join(known)}, got {value!r}."
            raise UsageError(msg)
    if options.memory_gb <= 0 or options.folds < 2:
        msg = (
            "memory_gb must be positive and folds at least 2, got"
            f" {options.memory_gb!r} and {options.folds!r}."
        )
        raise UsageError(msg)
