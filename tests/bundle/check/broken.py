"""Break a copy of the whole bundle at one place."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.bundle.check import Fault, check_bundle
from tests.whole_bundle import write_whole_bundle

REMOVED = object()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Write a bundle without faults."""
    return write_whole_bundle(tmp_path / "whole")


def change(bundle: Path, stem: str, key: str, value: Any) -> None:
    """Set or remove one key of one file; keys are nested with `/`, so that `a#b` stays a key."""
    path = bundle / "configs" / (f"{stem}.json" if stem == "metadata" else f"{stem}.yaml")
    document = yaml.safe_load(path.read_text())  # JSON is YAML
    parts: list[Any] = [int(part) if part.isdigit() else part for part in key.split("/")]
    parent = document
    for part in parts[:-1]:
        parent = parent[part] if isinstance(parent, list) else parent[str(part)]
    last = parts[-1] if isinstance(parent, list) else str(parts[-1])
    if value is REMOVED:
        del parent[last]
    else:
        parent[last] = value
    text = json.dumps(document) if stem == "metadata" else yaml.safe_dump(document, sort_keys=False)
    path.write_text(text)


def only(bundle: Path) -> Fault:
    """Return the one fault of a bundle."""
    faults = check_bundle(bundle)
    assert len(faults) == 1, "\n".join(line for fault in faults for line in fault.lines())
    return faults[0]
