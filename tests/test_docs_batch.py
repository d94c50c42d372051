"""What docs/batch.md tells one to type is typed here."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from medseg.cli.main import call
from medseg.volume import Volume
from tests.phantoms import abdomen, write_nifti, write_series

PAGE = (Path(__file__).parents[1] / "docs" / "batch.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in CONSOLE for line in block.splitlines()]
CLUSTER = next(line for line in PAGE.splitlines() if line.startswith("medseg ") and "SLURM" in line)


@pytest.fixture
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coarse, _ = abdomen()
    volume = Volume(coarse.array, coarse.affine @ np.diag([0.5, 0.5, 0.5, 1]))
    for seed in (1, 2):
        write_series(volume, tmp_path / "studies" / str(seed), seed=seed)
    write_nifti(volume, tmp_path / "incoming" / "scan.nii.gz")
    (tmp_path / "list.txt").write_text("studies/1\nstudies/2\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_inside")
def test_the_commands_do_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    for line in COMMANDS:
        assert call(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
    lines = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done"] * 3
    assert all(f"`{key}`" in PAGE for key in lines[0])
    cases = {line["case"] for line in lines}
    assert {path.parent.name for path in Path("out").glob("*/labels.csv")} == cases
    assert Path("out/cases.csv").read_text().splitlines()[0].startswith("case,status,error,")


@pytest.mark.usefixtures("_inside")
def test_the_shares_of_a_cluster_are_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    counts = []
    for task in range(1, 9):
        line = CLUSTER.replace("$SLURM_ARRAY_TASK_ID", str(task)).replace("mine", "phantom_ct")
        assert call([*shlex.split(line)[1:], "--json"]) == 0
        counts.append(len(json.loads(capsys.readouterr().out)["cases"]))
    assert sum(counts) == 2
