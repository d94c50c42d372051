"""Break a copy of a whole bundle at one place."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.bundle.check import Fault, check_bundle
from tests.whole_bundle import write_whole_bundle

REMOVED = object()
LONGEST_FAULT = 10
"""Lines."""


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle without faults, once."""
    return write_whole_bundle(tmp_path_factory.mktemp("bundles") / "whole")


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """Copy the bundle without faults, to be broken."""
    shutil.copytree(whole, tmp_path / "whole")
    return tmp_path / "whole"


def change(bundle: Path, stem: str, key: str, value: Any) -> None:
    """Set or remove one key of one file; keys are nested with `/`, so that `a#b` stays a key."""
    folder = bundle / "configs"
    (path,) = [one for one in folder.iterdir() if one.stem == stem]
    document = yaml.load(path.read_text(), yaml.CSafeLoader)  # JSON is YAML
    parts: list[Any] = [int(part) if part.isdigit() else part for part in key.split("/")]
    parent = document
    for part in parts[:-1]:
        parent = parent[part] if isinstance(parent, list) else parent[str(part)]
    last = parts[-1] if isinstance(parent, list) else str(parts[-1])
    if value is REMOVED:
        del parent[last]
    else:
        parent[last] = value
    is_json = path.suffix == ".json"
    path.write_text(json.dumps(document) if is_json else yaml.safe_dump(document, sort_keys=False))


def rename(bundle: Path, stem: str, old: str, new: str) -> None:
    """Rename one key at the top of a file."""
    (path,) = [one for one in (bundle / "configs").iterdir() if one.stem == stem]
    document = yaml.load(path.read_text(), yaml.CSafeLoader)
    renamed = {new if key == old else key: value for key, value in document.items()}
    is_json = path.suffix == ".json"
    path.write_text(json.dumps(renamed) if is_json else yaml.safe_dump(renamed, sort_keys=False))


def listed(faults: list[Fault]) -> str:
    """Return what a failing test shows."""
    return "\n".join(line for fault in faults for line in fault.lines())


def only(bundle: Path) -> Fault:
    """Return the one fault of a bundle; it has a place, a rule and a way out."""
    faults = check_bundle(bundle)
    assert len(faults) == 1, listed(faults)
    document = faults[0].as_json()
    assert all(text for name, text in document.items() if name != "key"), document
    assert len(faults[0].lines()) <= LONGEST_FAULT
    return faults[0]
