"""The dataset of a training as a bundle's configs name it, seen to before anything is trained."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.data import CachedDataset, LabelledDataset, check_dataset, open_dataset
from medseg.data.folds import folds_for
from medseg.errors import BundleError, InputError, Problem
from medseg.workflows.plan import raise_for_errors
from medseg.workflows.train_fold import Progress


@dataclass(frozen=True)
class TrainingData:
    """What a bundle is trained on.

    Attributes:
        dataset: The dataset.
        folds: `training` and `validation` case ids of each fold.
        test: Case ids that no fold has.
        is_cached: Whether all cases of the fold to train were preprocessed before.
    """

    dataset: LabelledDataset
    folds: tuple[Mapping[str, list[str]], ...]
    test: tuple[str, ...] = ()
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
    folds = folds_for(dataset, splits)
    return TrainingData(
        dataset, tuple(folds["folds"]), tuple(folds.get("test", ())), _is_cached(parser)
    )


def check_training_data(
    config: Mapping[str, Any], metadata: Mapping[str, Any], tell: Progress
) -> tuple[Problem, ...]:
    """Read the whole dataset and list what is wrong with it, unless it was preprocessed before.

    Args:
        config: Merged configs with all overrides.
        metadata: Of the bundle.
        tell: Told how far it is.

    Returns:
        Warnings.

    Raises:
        InputError: If the dataset gives the bundle's labels other values (`other-labels`) or has
            other channels (`other-channels`), or has errors (`bad-dataset`); the message lists
            them.
    """
    data = training_data(config)
    if data is None:
        return ()
    medseg = metadata.get("medseg", {})
    warnings = _check_labels(data.dataset, config, medseg.get("labels", []))
    _check_channels(data.dataset, medseg.get("input", {}).get("channels", []))
    if data.is_cached:
        return warnings
    found = check_dataset(
        data.dataset,
        splits={"folds": list(data.folds), "test": list(data.test)},
        progress=lambda done, total: tell(done, total, "checking cases"),
    )
    raise_for_errors(found)
    more = (Problem(p.code, f"{p.case}: {p.message}", "warning") for p in found)
    return (*warnings, *more)


def _check_labels(
    dataset: LabelledDataset, config: Mapping[str, Any], labels: Sequence[Mapping[str, Any]]
) -> tuple[Problem, ...]:
    """Compare names and values of the labels with those that the bundle was planned with."""
    values = config.get("region_values") or list(config.get("label_values", []))[1:]
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


def _is_cached(parser: Any) -> bool:
    try:
        source = parser.get_parsed_content("train#source")
    except Exception:  # noqa: BLE001  # the check of the dataset says why, in better words
        return False
    return isinstance(source, CachedDataset) and all(
        source.entry(index) is not None for index in range(len(source))
    )
