"""The dataset of a training as a bundle's configs name it, seen to before anything is trained."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg.data import CachedDataset, LabelledDataset, check_dataset, open_dataset
from medseg.data.folds import folds_for
from medseg.errors import BundleError, InputError, Problem
from medseg.io.atomic import output_errors, write_json
from medseg.workflows.plan import raise_for_errors
from medseg.workflows.train_fold import Progress, quiet_monai

CHECKED = "checked.json"
"""In the cache folder: names of the entries whose files were found right."""


@dataclass(frozen=True)
class TrainingData:
    """What a bundle is trained on.

    Attributes:
        dataset: The dataset.
        folds: `training` and `validation` case ids of each fold.
        test: Case ids that no fold has.
    """

    dataset: LabelledDataset
    folds: tuple[Mapping[str, list[str]], ...]
    test: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckedData:
    """What came of a check.

    Attributes:
        warnings: What does not keep the dataset from being trained on.
        entries: Names of the cache entries of the fold's cases, which stand for the contents of
            their files.
        folder: Of the cache; None where there is none.
    """

    warnings: tuple[Problem, ...] = ()
    entries: frozenset[str] = frozenset()
    folder: Path | None = None

    @property
    def is_known(self) -> bool:
        """Whether these very files passed a check before."""
        return bool(self.entries) and self.entries <= self._remembered()

    def remember(self) -> None:
        """Note that these files passed the check.

        Raises:
            OutputError: If the note cannot be written.
        """
        if self.folder is not None and not self.is_known:
            names = sorted(self.entries | self._remembered())
            with output_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / CHECKED, names)

    def _remembered(self) -> set[str]:
        try:
            return set(json.loads((self.folder or Path()).joinpath(CHECKED).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return set()


def training_data(config: Mapping[str, Any]) -> TrainingData | None:
    """Open the dataset of a bundle.

    Args:
        config: Merged configs with all overrides.

    Returns:
        The dataset; None for a bundle that has its own way of finding cases.

    Raises:
        BundleError: If the configs cannot be evaluated (`bad-config`).
        InputError: If the dataset or the file of folds cannot be read.
    """
    from monai.bundle import ConfigParser  # noqa: PLC0415  # takes seconds

    if "splits_file" not in config or "dataset_dir" not in config:
        return None
    parser = ConfigParser(deepcopy(dict(config)))  # it resolves nested values in place
    folder, splits = (_evaluated(parser, key) for key in ("dataset_dir", "splits_file"))
    dataset = open_dataset(folder, objects=bool(config.get("objects")))
    folds = folds_for(dataset, splits)
    return TrainingData(dataset, tuple(folds["folds"]), tuple(folds.get("test", ())))


def check_training_data(
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    tell: Progress,
    *,
    strict: bool = False,
) -> CheckedData:
    """Read the whole dataset and list what is wrong with it, unless it was found right before.

    Args:
        config: Merged configs with all overrides.
        metadata: Of the bundle.
        tell: Told how far it is.
        strict: Warnings about the dataset are errors.

    Returns:
        Warnings, and what the next training of the same files need not read again.

    Raises:
        InputError: If the dataset gives the bundle's labels other values (`other-labels`) or has
            other channels (`other-channels`), or has errors (`bad-dataset`); the message lists
            them.
    """
    data = training_data(config)
    if data is None:
        return CheckedData()
    medseg = metadata.get("medseg", {})
    warnings = _check_labels(data.dataset, config, medseg.get("labels", []))
    _check_channels(data.dataset, medseg.get("input", {}).get("channels", []))
    result = CheckedData(warnings, *_entries(config))
    if result.is_known and not strict:
        return result
    found = check_dataset(
        data.dataset,
        splits={"folds": list(data.folds), "test": list(data.test)},
        progress=lambda done, total: tell(done, total, "checking cases"),
    )
    raise_for_errors(found, strict=strict)
    more = (Problem(p.code, f"{p.case}: {p.message}", "warning") for p in found)
    return replace(result, warnings=(*warnings, *more))


def _check_labels(
    dataset: LabelledDataset, config: Mapping[str, Any], labels: Sequence[Mapping[str, Any]]
) -> tuple[Problem, ...]:
    """Compare names and values of the labels with those that the bundle was planned with."""
    values = config.get("region_values") or list(config.get("label_values", []))[1:]
    if config.get("objects"):  # classes are counted from 1
        values = [[label["index"]] for label in labels]
    wanted = {
        str(label["name"]).casefold(): sorted(int(v) for v in own)
        for label, own in zip(labels, values, strict=False)
    }
    found = {s.name.casefold(): sorted(s.values) for s in dataset.structures}
    wrong = [
        f"{name} {found[name]} for {wanted[name]}"
        for name in found
        if name in wanted and found[name] != wanted[name]
    ]
    if wrong:
        msg = (
            f"labels must have the values of the bundle, got {', '.join(wrong)}. Plan a bundle for"
            " this dataset, or state its labels in a manifest."
        )
        raise InputError(msg, code="other-labels")
    strangers = [name for name in found if name not in wanted]
    if not wanted or not strangers or dataset.kind == "folders":  # folders have no names
        return ()
    message = (
        f"the dataset calls its labels {', '.join(found)}, the bundle {', '.join(wanted)}: their"
        " values decide"
    )
    return (Problem("other-label-names", message, "warning"),)


def _check_channels(dataset: LabelledDataset, channels: Sequence[Mapping[str, Any]]) -> None:
    """Compare number, order and modality of the channels with those of the bundle."""
    wanted = [str(channel.get("name", "")).casefold() for channel in channels]
    found = [channel.name.casefold() for channel in dataset.channels]
    pairs = zip(dataset.channels, channels, strict=False)
    modalities = [
        f"{own.modality} for {other['modality']}"
        for own, other in pairs
        if own.modality and other.get("modality") and own.modality != other["modality"]
    ]
    wrong = ""
    if wanted and len(found) != len(wanted):
        wrong = f"{len(found)} for {len(wanted)}"
    elif found != wanted and sorted(found) == sorted(wanted):
        wrong = f"the order {', '.join(found)} for {', '.join(wanted)}"
    elif modalities:
        wrong = ", ".join(modalities)
    if wrong:
        msg = (
            f"channels must be those of the bundle, got {wrong}. Plan a bundle for this dataset, or"
            " state its channels in a manifest."
        )
        raise InputError(msg, code="other-channels")


def _evaluated(parser: Any, key: str) -> Any:
    try:
        value = parser.get_parsed_content(key)
    except Exception as error:  # an expression can raise anything
        msg = f"{key} must be a path, got {parser.config.get(key)!r}: {error}."
        raise BundleError(msg, code="bad-config") from error
    return None if value is None else Path(str(value))


def _entries(config: Mapping[str, Any]) -> tuple[frozenset[str], Path | None]:
    """Return the names of the cache entries of a fold, and the folder of the cache."""
    from monai.bundle import ConfigParser  # noqa: PLC0415

    parser = ConfigParser(deepcopy(dict(config)))
    names: set[str] = set()
    folder = None
    for key in ("train#source", "validate#dataset"):
        try:
            with quiet_monai():
                dataset = parser.get_parsed_content(key)
            if not isinstance(dataset, CachedDataset):
                return frozenset(), None
            names |= {dataset.entry_folder(index).name for index in range(len(dataset))}
        except Exception:  # noqa: BLE001  # the check of the dataset says why, in better words
            return frozenset(), None
        folder = dataset.folder
    return frozenset(names), folder
