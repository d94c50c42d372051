"""Files that a bundle must have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg.bundle.check.documents import config_paths
from medseg.bundle.check.fault import Fault

LARGE_FILES = ("large_files.yml", "large_files.yaml", "large_files.json")
"""Where a bundle of the model zoo says what is to be downloaded, weights among it."""


def check_files(root: Path, metadata: dict[str, Any]) -> Iterator[Fault]:
    """Find what is missing in the bundle's folder.

    Args:
        root: The bundle's folder.
        metadata: Content of metadata.json; empty if there is none.

    Yields:
        Faults `missing-file` and `missing-config`, warnings `no-weights`.
    """
    if not (root / "configs").is_dir():
        yield _missing("configs", "a folder with the bundle's configs", "add it")
        return
    for name, what, do in (
        ("configs/metadata.json", "the bundle's metadata", "add it: version, authors, labels ..."),
        ("LICENSE", "the licence of weights and configs", "add the text of the licence"),
        ("docs/README.md", "the bundle's card", "say what it does, what it was trained on, scores"),
    ):
        if not (root / name).is_file():
            yield _missing(name, what, do)
        elif not (root / name).stat().st_size:
            yield Fault("missing-file", name, "", "empty", what, do)
    paths = config_paths(root)
    if "inference" not in paths:
        yield Fault(
            "missing-config",
            "configs/inference.yaml",
            "",
            "(no file)",
            "a config of inference, as YAML or JSON",
            "add it",
        )
    for name in ("train", "evaluate"):
        if name not in paths:
            yield Fault(
                "missing-config",
                f"configs/{name}.yaml",
                "",
                "(no file)",
                f"a config for {name}",
                f"add it, or do without {name}",
                severity="warning",
            )
    yield from _named_in_card(root)
    yield from _weights(root, metadata)


def _missing(name: str, what: str, do: str) -> Fault:
    return Fault("missing-file", name, "", "(no file)", what, do)


def _named_in_card(root: Path) -> Iterator[Fault]:
    card = root / "docs" / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    for name in sorted(set(re.findall(r"(?<![\w/])configs/\w+\.(?:yaml|yml|json)", text))):
        if not (root / name).is_file():
            yield Fault(
                "missing-file",
                "docs/README.md",
                "",
                name,
                "files that the bundle has",
                f"add {name}, or correct the card",
                severity="warning",
            )


def _weights(root: Path, metadata: dict[str, Any]) -> Iterator[Fault]:
    own = metadata.get("medseg")
    own = own if isinstance(own, dict) else {}
    members = own.get("ensemble")
    for name in members if isinstance(members, list) else ["models/model.pt"]:
        if (root / str(name)).is_file():
            continue
        if any((root / large).is_file() for large in LARGE_FILES):
            do = "python -m monai.bundle download_large_files --bundle_path ."
        else:
            do = f"train it: {own.get('train_command') or 'see docs/README.md'}"
        yield Fault(
            "no-weights", str(name), "", "(no file)", "trained weights", do, severity="warning"
        )
