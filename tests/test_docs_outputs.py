"""What docs/outputs.md tells one to type is typed here."""

import shlex
from pathlib import Path

import pytest

from medseg.cli.main import call
from medseg.workflows.outputs import OUTPUTS
from tests.phantoms import abdomen, write_nifti

PAGE = (Path(__file__).parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("medseg ")]


def test_the_commands_write_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nifti(abdomen()[0], tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    for line in COMMANDS:
        assert call(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    assert Path("out/scan/segmentation.seg.nrrd").is_file()
    assert Path("out/scan/meshes/organ.stl").is_file()
    names = sorted(path.name for path in Path("parts/scan/labels").iterdir())
    assert names == ["organ.nii.gz", "tumour.nii.gz"]


def test_the_page_names_every_output() -> None:
    assert all(f"`{kind}`" in PAGE for kind in OUTPUTS)
