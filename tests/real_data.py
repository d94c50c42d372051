"""Real scans for tests: used where they are present, never part of the repository."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("MEDSEG_DATA", Path(__file__).parents[2] / "shared" / "data"))


def data_folder(name: str) -> Path:
    """Return a folder of real data, or skip the calling test with the reason."""
    folder = DATA / name
    if not folder.exists():
        pytest.skip(f"real data not present: no folder {name} under MEDSEG_DATA")
    return folder
