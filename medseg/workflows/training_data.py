"""The dataset of a training as a bundle's configs name it, seen to before anything is trained."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.data import CachedDataset, LabelledDataset, check_dataset, open_dataset
from medseg.data.folds import folds_for
from medseg.errors import BundleError, Problem
from medseg.workflows.plan import raise_for_errors
from medseg.workflows.train_fold import Progress


@dataclass(frozen=True)
class TrainingData:
    """What a bundle is trained on.

    Attributes:
        dataset: The dataset.
        folds: `training` and `validation` case ids of each fold.
        is_cached: Whether all cases of the fold to train were preprocessed before.
    """

    dataset: LabelledDataset
    folds: tuple[Mapping[str, list[str]], ...]
    is_cached: bool = False


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
    dataset = open_dataset(folder)
    return TrainingData(dataset, tuple(folds_for(dataset, splits)["folds"]), _is_cached(parser))


def check_training_data(config: Mapping[str, Any], tell: Progress) -> tuple[Problem, ...]:
    """Read the whole dataset and list what is wrong with it, unless it was preprocessed before.

    Args:
        config: Merged configs with all overrides.
        tell: Told how far it is.

    Returns:
        Warnings.

    Raises:
        InputError: If there are errors (`bad-dataset`); the message lists them.
    """
    data = training_data(config)
    if data is None or data.is_cached:
        return ()
    found = check_dataset(
        data.dataset,
        splits={"folds": list(data.folds)},
        progress=lambda done, total: tell(done, total, "checking cases"),
    )
    raise_for_errors(found)
    return tuple(Problem(p.code, f"{p.case}: {p.message}", "warning") for p in found)


def _evaluated(parser: Any, key: str) -> Any:
    try:
        value = parser.get_parsed_content(key)
    except Exception as error:  # an expression can raise anything
        msg = f"{key} must be a path, got {parser.config.get(key)!r}: {error}."
        raise BundleError(msg, code="bad-config") from error
    return None if value is None else Path(str(value))


def _is_cached(parser: Any) -> bool:
    try:
        source = parser.get_parsed_content("train#source")
    except Exception:  # noqa: BLE001  # the check of the dataset says why, in better words
        return False
    return isinstance(source, CachedDataset) and all(
        source.entry(index) is not None for index in range(len(source))
    )
