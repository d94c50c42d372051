"""What docs/pictures.md tells one to type is typed here."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.cli.main import call
from medseg.io.raster import write_palette_png
from medseg.workflows.outputs import OUTPUTS
from tests.picture_bundle import write_picture_bundle

PAGE = (Path(__file__).parents[1] / "docs" / "pictures.md").read_text(encoding="utf-8")
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("medseg ")]


def test_the_commands_work_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    write_picture_bundle(tmp_path / "streets")
    for name in ("frames", "labels"):
        (tmp_path / name).mkdir()
    for number in range(3):
        pixels = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
        truth = rng.integers(0, 3, (30, 40)).astype(np.uint8)
        truth[:3] = 255
        Image.fromarray(pixels).save(tmp_path / "frames" / f"frame_{number:04d}.png")
        write_palette_png(truth, (), tmp_path / "labels" / f"frame_{number:04d}.png")
    Image.fromarray(pixels).save(tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS:
        assert call(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert sorted(file.name for file in Path("masks/frame_0002").iterdir()) == [
        "case.json", "labels.json", "labels_itksnap.txt", "labels_slicer.ctbl", "overlay.png",
        "segmentation.nii.gz", "segmentation.png",
    ]  # fmt: skip
    document = json.loads(Path("scores/summary.json").read_text())
    assert list(document["semantic"]["labels"]) == ["background", "grass", "sea"]
    for name in re.findall(r"`(\w+\.(?:png|csv|json))`", PAGE.partition("## Scores")[2]):
        assert name == "labels.json" or (tmp_path / "scores" / name).is_file()


def test_the_page_names_every_output() -> None:
    assert all(f"`{kind}`" in PAGE for kind in OUTPUTS if kind != "nifti")
