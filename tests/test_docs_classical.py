"""What docs/classical.md tells one to type is typed here."""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from medseg.classical import Method
from medseg.cli.main import call
from medseg.volume import Volume
from tests.phantoms import oriented_affine, write_nifti, write_series

PAGE = (Path(__file__).parents[1] / "docs" / "classical.md").read_text(encoding="utf-8")
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("medseg ")]
SHAPE = (21, 24, 18)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classical")
    array = np.full((1, *SHAPE), -900, np.int16)
    array[0, 4:18, 5:20, 3:15] = 60
    affine = oriented_affine("LPS", (2.0, 2.0, 3.0))
    affine[:3, 3] = (10, 12, 30) - affine[:3, :3] @ (10, 12, 9)
    volume = Volume(array, affine)
    write_series(volume, folder / "study")
    write_nifti(volume, folder / "scan.nii.gz")
    markers = np.zeros((1, *SHAPE), np.uint8)
    markers[0, 10, 12, 9], markers[0, 0, 0, 0] = 1, 2
    write_nifti(Volume(markers, affine), folder / "markers.nii.gz")
    rows, columns = np.mgrid[:60, :80]
    cells = [(rows - 30) ** 2 + (columns - c) ** 2 <= 200 for c in (27, 52)]
    Image.fromarray((cells[0] | cells[1]).astype(np.uint8) * 180).save(folder / "cells.png")
    return folder


@pytest.fixture
def inside(workplace: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(workplace)
    yield workplace
    os.chdir(before)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works(line: str, inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(line)[1:]
    assert call(words) == 0, capsys.readouterr().err
    assert list((inside / words[words.index("-o") + 1]).glob("*/segmentation.nii.gz"))


@pytest.mark.usefixtures("inside")
def test_the_python_example_works(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "classical.md", "exec"), {})
    assert capsys.readouterr().out.split()[1] == str(14 * 15 * 12)


def test_the_yaml_example_is_a_transform() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (step,) = ConfigParser({"steps": yaml.safe_load(block)}).get_parsed_content("steps")
    method: Method = step.method
    assert method.settings["window"] == [-160, 240]


def test_every_method_is_on_the_page() -> None:
    named = set(re.findall(r"`([a-z-]+)`", PAGE))
    assert {"slic", "mean-shift", "quickshift", "gradient", "distance"} <= named
