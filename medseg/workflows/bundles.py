"""What bundles there are, and what each says about itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.bundle import Bundle, list_bundles, load_bundle
from medseg.errors import MedsegError

SCHEMA = 1


@dataclass(frozen=True)
class BundleList:
    """The bundles on the search path.

    Attributes:
        bundles: One document a bundle.
    """

    bundles: tuple[dict[str, Any], ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 when a bundle cannot be read."""
        return int(any(bundle["error"] for bundle in self.bundles))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"schema": SCHEMA, "bundles": list(self.bundles)}


@dataclass(frozen=True)
class BundleCard:
    """Everything one bundle says about itself.

    Attributes:
        bundle: Its document.
    """

    bundle: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """Always 0."""
        return 0

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"schema": SCHEMA, "bundle": self.bundle}


def describe_bundles() -> BundleList:
    """List the bundles on the search path; one that cannot be read is listed with its error.

    Returns:
        One document a bundle.
    """
    documents = []
    for root in list_bundles():
        folder = Path(root)
        try:
            documents.append({**_summary(load_bundle(str(folder))), "error": None})
        except MedsegError as error:
            failure = {"code": error.code, "message": str(error)}
            documents.append({"name": folder.name, "root": str(folder), "error": failure})
    return BundleList(tuple(documents))


def describe_bundle(name: str) -> BundleCard:
    """Describe one bundle.

    Args:
        name: Folder or name of a bundle.

    Returns:
        Its card.

    Raises:
        BundleError: If there is none of that name, or it cannot be read.
    """
    bundle = load_bundle(name)
    facts = _facts(bundle.metadata)
    return BundleCard({**_summary(bundle), **facts, "card": bundle.card})


def _summary(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "version": bundle.version,
        "description": bundle.description,
        "root": str(bundle.root),
        "has_weights": bundle.has_weights,
        "labels": [
            {"index": label.index, "name": label.name, "color": list(label.color)}
            for label in bundle.labels
        ],
    }


def _facts(metadata: Mapping[str, Any]) -> dict[str, Any]:
    own = metadata.get("medseg") or {}
    return {
        "input": own.get("input"),
        "spacing_mm": own.get("spacing_mm"),
        "scores": own.get("scores") or metadata.get("eval_metrics"),
        "data": metadata.get("data_source"),
        "task": metadata.get("task"),
        "license": own.get("license") or metadata.get("license"),
        "copyright": metadata.get("copyright"),
        "intended_use": metadata.get("intended_use"),
        "train_command": own.get("train_command"),
    }
