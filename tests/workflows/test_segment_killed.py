"""Killed at any moment and resumed: every case once, none half-written, nothing left over."""

import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from medseg.workflows.segment import SegmentOptions, segment
from tests.phantoms import write_nifti
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_segment import blobs

CASES = 30
KILLS = 20
LATEST_S = 0.7
"""Of a kill after the first case was begun; all cases together take several times that."""

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from pathlib import Path
from medseg.workflows.segment import SegmentOptions, segment

def tell(done, total, what=""):
    if what.startswith("segmenting"):
        print("begun", flush=True)

source, bundle, output = map(Path, sys.argv[1:4])
options = SegmentOptions((source,), str(bundle), output, resume=True)
segment(options, progress=tell, own_process=True)
"""
TIMES = ("seconds", "started", "ended", "versions", "inference")


def child(*paths: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, *map(str, paths)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def contents(output: Path) -> dict[str, object]:
    """Return what an output folder holds, without the times that documents state."""
    found: dict[str, object] = {}
    for file in sorted(file for file in output.rglob("*") if file.is_file()):
        name = file.relative_to(output).as_posix()
        if name in ("manifest.jsonl", "cases.csv"):
            continue
        if file.suffix == ".html":  # states times
            found[name] = file.read_text().endswith("</html>\n")
            continue
        if file.suffix != ".json":
            found[name] = file.read_bytes()
            continue
        document = json.loads(file.read_text())
        for key in TIMES:
            document.pop(key, None)
        if files := document.get("files"):
            for own in ("report.json", "report.html"):  # state times themselves
                del files[own]
        found[name] = document
    return found


@pytest.mark.slow
def test_twenty_kills_leave_every_case_once_and_whole(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy")
    source, output, undisturbed = (tmp_path / name for name in ("in", "out", "undisturbed"))
    for number in range(CASES):
        write_nifti(blobs(seed=number), source / f"case_{number:02d}.nii.gz")
    chance = random.Random(7)
    unfinished = 0
    for _ in range(KILLS):
        process = child(source, bundle, output)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, LATEST_S))
        process.kill()
        process.communicate()
        unfinished += len(list(output.glob("*/case.json"))) < CASES
    assert unfinished > KILLS / 2, "the kills came too late to test anything"
    last = child(source, bundle, output)
    last.communicate()
    assert last.returncode == 0
    lines = [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]
    assert Counter(line["case"] for line in lines) == {
        f"case_{number:02d}": 1 for number in range(CASES)
    }
    assert {line["status"] for line in lines} == {"done"}
    assert not [path.name for path in output.rglob("*") if path.name.startswith(".")]
    segment(SegmentOptions((source,), str(bundle), undisturbed))
    assert contents(output) == contents(undisturbed)
    names = [path.name for path in sorted(output.iterdir())]
    assert names == [path.name for path in sorted(undisturbed.iterdir())]


def test_contents_tell_two_masks_apart(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy")
    for name, seed in (("one", 0), ("two", 0), ("three", 200)):
        source = write_nifti(blobs(seed=seed), tmp_path / name / "a.nii.gz")
        segment(SegmentOptions((source,), str(bundle), tmp_path / "out" / name))
    one, two, three = (contents(tmp_path / "out" / name) for name in ("one", "two", "three"))
    assert one == two
    assert [name for name in one if one[name] != three[name]]
