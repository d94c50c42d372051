"""docs/export.md names every key and every value of rules that a document can hold."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medseg.bundle.runner.steps import NORMALIZATIONS, STEPS
from medseg.workflows.import_nnunet import ImportOptions, import_nnunet
from tests.exported import document_of
from tests.nnunet_folder import configuration, write_results
from tests.zoo_style import STYLES, write_style

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)))
FREE = {"code", "category", "networks", "labels", "bundle"}  # their values are the bundle's own

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:")


def words(document: Any) -> Iterator[str]:
    """Yield the keys of a document, and the texts that are rules and no names."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield key
            if key not in FREE:
                yield from words(value)
                if key not in ("name", "modality", "medseg", "axes", "reason", "dtype"):
                    yield from [value] if isinstance(value, str) else []
    elif isinstance(document, list):
        for one in document:
            yield from words(one)


def test_the_page_names_every_step() -> None:
    assert {*STEPS, *NORMALIZATIONS} <= NAMED


@pytest.mark.parametrize("name", ["hippocampus_mri", "phantom_ct", "nuclei_semantic"])
def test_the_page_names_what_bundles_hold(name: str) -> None:
    found = set(words(document_of(ROOT / "bundles" / name)))
    assert len(found) > 40
    assert found - NAMED == set()


def test_the_page_names_what_other_bundles_hold(tmp_path: Path) -> None:
    pytest.importorskip("dynamic_network_architectures", reason="pip install medseg[nnunet]")
    folder, _ = write_results(tmp_path, configuration())
    imported = import_nnunet(ImportOptions(folder, tmp_path / "bundle")).bundle
    for bundle in (imported, write_style(tmp_path / "zoo", STYLES["whole_body"])):
        assert set(words(document_of(bundle))) - NAMED <= {"preprocessing#4"}
