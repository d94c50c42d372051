"""Datasets and splits. Importing it is light: what needs torch is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.data.cache import CachedDataset, remove_unused, unused_entries
    from medseg.data.check import DatasetProblem, check_dataset
    from medseg.data.dataset import (
        Channel,
        LabelledDataset,
        Structure,
        TrainingCase,
        open_dataset,
    )
    from medseg.data.folds import cases_of_fold, make_folds
    from medseg.data.images import images_in
    from medseg.data.patches import PatchDataset

_HOME = {
    "CachedDataset": "medseg.data.cache",
    "Channel": "medseg.data.dataset",
    "DatasetProblem": "medseg.data.check",
    "LabelledDataset": "medseg.data.dataset",
    "PatchDataset": "medseg.data.patches",
    "Structure": "medseg.data.dataset",
    "TrainingCase": "medseg.data.dataset",
    "cases_of_fold": "medseg.data.folds",
    "check_dataset": "medseg.data.check",
    "images_in": "medseg.data.images",
    "make_folds": "medseg.data.folds",
    "open_dataset": "medseg.data.dataset",
    "remove_unused": "medseg.data.cache",
    "unused_entries": "medseg.data.cache",
}

__all__ = [
    "CachedDataset",
    "Channel",
    "DatasetProblem",
    "LabelledDataset",
    "PatchDataset",
    "Structure",
    "TrainingCase",
    "cases_of_fold",
    "check_dataset",
    "images_in",
    "make_folds",
    "open_dataset",
    "remove_unused",
    "unused_entries",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'medseg.data' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
