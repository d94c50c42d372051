"""What a training is started with; kept in its logs, so that a resume goes on with it."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from medseg.errors import OutputError, Problem
from medseg.io.atomic import write_json

SETTINGS = "settings.json"


Fold = int | Literal["all"] | None


@dataclass(frozen=True)
class TrainOptions:
    """What `train` is asked for.

    Attributes:
        bundle: Folder or name of the bundle.
        dataset: Folder or manifest of the dataset; the bundle's own setting when None.
        output: Folder that gets a copy of the bundle to train in; the bundle itself when None.
        fold: Fold that validates, `all` for each in turn and a cross-validation over them, None
            for the bundle's own setting.
        resume: Go on from the checkpoint that is there, with the dataset, settings and time budget
            of then where none are given, and start where there is none.
        overwrite: Train anew although there are weights or a checkpoint; they are lost.
        settings: `KEY=VALUE`, over the bundle's configs.
        gpus: Processes of this machine; None for this process alone.
        time_budget_s: Time the training may take: preparing and all folds, and earlier runs of
            it; s.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        deterministic: The same losses in every run.
        strict: Take warnings about the dataset for errors.
        trust: Run whatever the bundle's configs name; see `medseg.bundle.safety`.
    """

    bundle: str
    dataset: Path | None = None
    output: Path | None = None
    fold: Fold = None
    resume: bool = False
    overwrite: bool = False
    settings: tuple[str, ...] = ()
    gpus: int | None = None
    time_budget_s: float | None = None
    device: str = "auto"
    deterministic: bool = False
    strict: bool = False
    trust: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """What decides the course of a training, besides the bundle's configs.

    Attributes:
        settings: `KEY=VALUE`, over the configs.
        dataset: Folder or manifest; None for the bundle's own setting.
        time_budget_s: Time that all of it may take; s.
        deterministic: The same losses in every run.
    """

    settings: tuple[str, ...] = ()
    dataset: str | None = None
    time_budget_s: float | None = None
    deterministic: bool = False

    @classmethod
    def of(cls, options: TrainOptions) -> "TrainSettings":
        """Return the settings among the options of a training.

        Args:
            options: What is asked for.

        Returns:
            The settings.
        """
        dataset = None if options.dataset is None else str(options.dataset.absolute())
        return cls(options.settings, dataset, options.time_budget_s, options.deterministic)

    @classmethod
    def read(cls, logs: Path) -> "TrainSettings | None":
        """Return what was kept.

        Args:
            logs: Folder of the logs.

        Returns:
            The settings; None where none were kept.

        Raises:
            OutputError: If the file is damaged (`bad-settings`).
        """
        path = logs / SETTINGS
        if not path.is_file():
            return None
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            settings = tuple(str(text) for text in document.pop("settings"))
            return cls(settings, **document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            msg = (
                f"logs must hold the settings of the training in {SETTINGS}, got {error}."
                " Remove the file and give them again."
            )
            raise OutputError(msg, code="bad-settings") from error

    def write(self, logs: Path) -> None:
        """Keep the settings.

        Args:
            logs: Folder of the logs; made if need be.

        Raises:
            OutputError: If it cannot be written.
        """
        write_json(logs / SETTINGS, asdict(self))

    def changed_by(self, given: "TrainSettings") -> tuple["TrainSettings", tuple[Problem, ...]]:
        """Return these settings with others given over them.

        Args:
            given: Those of the command that resumes.

        Returns:
            The settings to go on with, and a warning that says what is other than before.
        """
        own, new = ({_key(text): text for text in one.settings} for one in (self, given))
        changes = [
            f"{text} in place of {own.get(key, 'the configs')}"
            for key, text in new.items()
            if own.get(key) != text
        ]
        budget_s = self.time_budget_s if given.time_budget_s is None else given.time_budget_s
        if budget_s != self.time_budget_s:
            before = "none" if self.time_budget_s is None else f"{self.time_budget_s:g} s"
            changes.append(f"a time budget of {budget_s:g} s in place of {before}")
        merged = TrainSettings(
            settings=tuple((own | new).values()),
            dataset=self.dataset if given.dataset is None else given.dataset,
            time_budget_s=budget_s,
            deterministic=self.deterministic or given.deterministic,
        )
        if not changes:
            return merged, ()
        message = f"the training goes on with {', '.join(changes)}"
        return merged, (Problem("changed-settings", message, "warning"),)


def as_before(options: TrainOptions, root: Path) -> tuple[TrainOptions, tuple[Problem, ...]]:
    """Let a training that is resumed go on with what it was started with.

    Args:
        options: What is asked for.
        root: The bundle's folder.

    Returns:
        The options with the settings of then where none are given, and a warning that says what
        is other than before.

    Raises:
        OutputError: As `TrainSettings.read`.
    """
    if not options.resume:
        return options, ()
    logs = root / "logs"
    if options.fold is not None:
        logs /= f"fold_{0 if options.fold == 'all' else options.fold}"
    before = TrainSettings.read(logs)
    if before is None:
        return options, ()
    settings, changes = before.changed_by(TrainSettings.of(options))
    dataset = None if settings.dataset is None else Path(settings.dataset)
    merged = replace(
        options,
        settings=settings.settings,
        dataset=dataset,
        time_budget_s=settings.time_budget_s,
        deterministic=settings.deterministic,
    )
    return merged, changes


def _key(text: str) -> str:
    return text.partition("=")[0].strip().replace("::", "#")
