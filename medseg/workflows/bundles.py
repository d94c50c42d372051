"""What bundles there are, and what each says about itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

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
    for name, root in list_bundles().items():
        try:
            documents.append({**_summary(load_bundle(root)), "error": None})
        except MedsegError as error:
            failure = {"code": error.code, "message": str(error)}
            documents.append({"name": name, "root": str(root), "error": failure})
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
    return BundleCard({**_summary(bundle), **_facts(bundle), "card": bundle.card})


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


def _facts(bundle: Bundle) -> dict[str, Any]:
    metadata = bundle.metadata
    own = metadata.get("medseg") or {}
    return {
        "input": own.get("input"),
        "spacing_mm": _stated(bundle.config_files, "spacing_mm"),
        "spacing_px": _stated(bundle.config_files, "spacing_px"),
        "scores": metadata.get("eval_metrics") or None,
        "data": metadata.get("data_source"),
        "task": metadata.get("task"),
        "license": own.get("licence") or own.get("license") or metadata.get("license"),
        "copyright": metadata.get("copyright"),
        "intended_use": metadata.get("intended_use"),
        "train_command": bundle.train_command or None,
    }


def _stated(config_files: Sequence[Path], key: str) -> Any:
    """Return a value that a config file states as it stands; None for one that is computed."""
    values = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in config_files)
    stated = [config[key] for config in values if isinstance(config, dict) and key in config]
    return stated[-1] if stated and not isinstance(stated[-1], str) else None
