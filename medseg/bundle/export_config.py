"""A bundle's overlays of config files as one JSON file a workflow."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medseg.bundle.load import Bundle
from medseg.errors import BundleError

OVERLAYS = {
    "train": ("common", "train"),
    "evaluate": ("common", "train", "evaluate"),
    "inference": ("common", "inference"),
    "multi_gpu_train": ("common", "train", "multi_gpu_train"),
}
"""The config files of each workflow in loading order; all but the last may be missing."""

_SUFFIXES = (".yaml", ".yml", ".json")


def config_files_of(bundle: Bundle, workflow: str) -> tuple[Path, ...]:
    """Return the config files that a workflow of a bundle is made of.

    Args:
        bundle: The bundle.
        workflow: A key of `OVERLAYS`.

    Returns:
        Files in loading order; none where the bundle does not have the workflow.
    """
    found = [_config_file(bundle.root / "configs", name) for name in OVERLAYS[workflow]]
    if found[-1] is None:
        return ()
    return tuple(file for file in found if file is not None)


def single_config(bundle: Bundle, files: Sequence[Path]) -> dict[str, Any]:
    """Merge config files as MONAI does, and add the metadata.

    Args:
        bundle: The bundle.
        files: Its config files, in loading order.

    Returns:
        Configs that need no other file: macros are replaced by what they stand for, and the
        metadata stand under `_meta_`, where `monai.bundle` looks for them.

    Raises:
        BundleError: If they cannot be merged, or hold what JSON cannot (`bad-config`).
    """
    parser = ConfigParser()
    try:
        parser.read_config([str(file) for file in files])
        parser.resolve_macro_and_relative_ids()
    except Exception as error:  # YAML, missing keys and files
        names = " + ".join(file.name for file in files)
        msg = f"{names} of bundle {bundle.name} must merge, got {type(error).__name__}: {error}"
        raise BundleError(msg, code="bad-config") from error
    config: dict[str, Any] = dict(parser.get())
    config[ConfigParser.meta_key] = bundle.metadata
    _require_json(config, bundle.name)
    return config


def _require_json(config: dict[str, Any], bundle: str) -> None:
    try:
        same = json.loads(json.dumps(config, allow_nan=False)) == config
    except (TypeError, ValueError):
        same = False
    if not same:
        wrong = [key for key, value in config.items() if not _survives(value)]
        msg = (
            f"configs of bundle {bundle} must hold what JSON can, got dates, numbers as keys or"
            f" infinite numbers under {', '.join(wrong)}. Write them as text or expressions."
        )
        raise BundleError(msg, code="bad-config")


def _survives(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _config_file(folder: Path, name: str) -> Path | None:
    for suffix in _SUFFIXES:
        file = folder / f"{name}{suffix}"
        if file.is_file():
            return file
    return None
