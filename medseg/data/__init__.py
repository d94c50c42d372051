"""Datasets and splits. Importing it is light: what needs torch is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.data.cache import CachedDataset, remove_unused, unused_entries
    from medseg.data.patches import PatchDataset

_HOME = {
    "CachedDataset": "medseg.data.cache",
    "PatchDataset": "medseg.data.patches",
    "remove_unused": "medseg.data.cache",
    "unused_entries": "medseg.data.cache",
}

__all__ = ["CachedDataset", "PatchDataset", "remove_unused", "unused_entries"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        msg = f"module 'medseg.data' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
