"""The import rules of the layer diagram, who may touch which library, and size limits."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "medseg"
MODULES = sorted(ROOT.rglob("*.py"))
LAYERS = [
    {"errors"},
    {"geometry"},
    {"volume"},
    {"run_lengths"},
    {"objects"},
    {"io", "networks", "losses", "metrics", "classical"},
    {"data", "transforms"},
    {"bundle"},
    {"planning", "inference", "training", "report"},
    {"workflows"},
    {"cli"},
]
LAYER_OF = {name: level for level, names in enumerate(LAYERS) for name in names}
OWNERS = {
    "pydicom": "io/dicom/",
    "highdicom": "io/dicom/",
    "nibabel": ("io/nifti.py", "bundle/runner/"),  # the runner goes where medseg is not
    "torchvision": "networks/",
}
OUTSIDE_THE_LAYERS = {"__init__", "__main__", "_version"}


def _part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:  # relative imports are banned by ruff
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_has_a_layer(path: Path) -> None:
    assert _part(path) in LAYER_OF or _part(path) in OUTSIDE_THE_LAYERS


@pytest.mark.parametrize("path", [p for p in MODULES if _part(p) in LAYER_OF], ids=_name)
def test_imports_point_down(path: Path) -> None:
    here = _part(path)
    others = {name.split(".")[1] for name in _imports(path) if name.startswith("medseg.")}
    wrong = {
        other
        for other in others
        if other in LAYER_OF and other != here and LAYER_OF[other] >= LAYER_OF[here]
    }
    assert not wrong, f"{path.relative_to(ROOT)} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_library_is_touched_by_its_owner_alone(path: Path) -> None:
    wrong = {
        name
        for name in _imports(path)
        if (owner := OWNERS.get(name.split(".")[0])) and not _name(path).startswith(owner)
    }
    assert not wrong, f"{_name(path)} may not import {sorted(wrong)}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500
