"""manifest.jsonl: a line a finished case, nothing private, nothing twice; cases.csv made of it."""

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.volume import Volume
from medseg.workflows import results
from medseg.workflows.manifest_log import open_manifest
from medseg.workflows.segment import SegmentOptions, segment
from medseg.workflows.shard import Shard, parse_shard
from tests.phantoms import write_nifti, write_series
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_segment import blobs


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


def run(bundle: Path, output: Path, *inputs: Path, **options):
    return segment(SegmentOptions(inputs, str(bundle), output, **options))


def lines_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def table_of(output: Path) -> list[dict[str, str]]:
    with (output / "cases.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def two_and_a_bad_one(folder: Path) -> Path:
    write_nifti(blobs(), folder / "a.nii.gz")
    (folder / "b.nii.gz").write_bytes(b"no image")
    write_nifti(blobs(seed=3), folder / "c.nii.gz")
    return folder


def test_a_line_a_case_says_what_was_made_of_what(tmp_path, bundle) -> None:
    result = run(bundle, tmp_path / "out", two_and_a_bad_one(tmp_path / "in"))
    lines = lines_of(tmp_path / "out")
    assert [(line["case"], line["status"]) for line in lines] == [
        ("a", "done"), ("b", "failed"), ("c", "done"),
    ]  # fmt: skip
    done, failed = lines[0], lines[1]
    for name, digest in done["outputs"].items():
        content = (tmp_path / "out" / "a" / name).read_bytes()
        assert digest == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert {"segmentation.nii.gz", "report.json", "labels.csv"} <= done["outputs"].keys()
    assert done["bundle"] == result.bundle
    assert [label["name"] for label in done["labels"]] == ["organ", "tumour"]
    assert done["labels"][0]["intensity"]["mean"] > 100
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", done["ended"])
    assert done["started"] <= done["ended"]
    assert done["seconds"].keys() >= {"read", "write"}
    assert done["again"] is None
    assert failed["error"]["code"] == result.cases[1]["error"]["code"]
    assert failed["outputs"] == {}


def test_the_table_has_a_row_a_label_and_one_of_a_failed_case(tmp_path, bundle) -> None:
    run(bundle, tmp_path / "out", two_and_a_bad_one(tmp_path / "in"))
    rows = table_of(tmp_path / "out")
    assert [(row["case"], row["status"], row["name"]) for row in rows] == [
        ("a", "done", "organ"), ("a", "done", "tumour"), ("b", "failed", ""),
        ("c", "done", "organ"), ("c", "done", "tumour"),
    ]  # fmt: skip
    assert float(rows[1]["volume_ml"]) == pytest.approx(18 * 0.75 * 1.25 * 3.5 / 1000, abs=1e-5)
    assert rows[1]["intensity_mean"] == "250.0"
    assert rows[2]["error"]
    assert rows[2]["voxels"] == ""


def test_nothing_private_stands_in_manifest_or_table(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", modality=("CT",), rule={"min_slices": 4})
    uid = "1.2.276.0.7230010.3.1.4.8323329"
    for seed in (1, 2):
        write_series(blobs(seed=seed), tmp_path / "in" / uid / str(seed), seed=seed)
    slices = sorted((tmp_path / "in" / uid / "2").iterdir())
    slices[3].write_bytes(slices[3].read_bytes()[:-40])
    write_nifti(blobs(), tmp_path / "in" / uid / "x.nii.gz")
    (tmp_path / "in" / uid / "y.nii.gz").write_bytes(b"no image")
    result = run(bundle, tmp_path / "out", tmp_path / "in")
    assert {case["status"] for case in result.cases} == {"done", "failed"}
    secrets = [str(tmp_path), uid, "PHANTOM"]
    secrets += [case["series_instance_uid"] or uid for case in result.cases]
    for name in ("manifest.jsonl", "cases.csv"):
        text = (tmp_path / "out" / name).read_text()
        assert not [secret for secret in secrets if secret in text], name


def test_a_resumed_run_adds_a_line_only_for_what_it_did(tmp_path, bundle) -> None:
    folder = two_and_a_bad_one(tmp_path / "in")
    run(bundle, tmp_path / "out", folder)
    write_nifti(blobs(), folder / "b.nii.gz")
    write_nifti(blobs(seed=9), folder / "c.nii.gz")
    result = run(bundle, tmp_path / "out", folder, resume=True)
    assert [case["status"] for case in result.cases] == ["skipped", "done", "done"]
    added = lines_of(tmp_path / "out")[3:]
    assert [(line["case"], line["again"]) for line in added] == [
        ("b", "failed-before"), ("c", "input-changed"),
    ]  # fmt: skip
    assert {row["status"] for row in table_of(tmp_path / "out")} == {"done"}
    (folder / "d.nii.gz").write_bytes(b"no image")
    for _ in range(2):  # the same failure again is no news
        run(bundle, tmp_path / "out", folder, resume=True)
    assert [line["case"] for line in lines_of(tmp_path / "out")[5:]] == ["d"]
    (folder / "d.nii.gz").unlink()
    run(bundle, tmp_path / "out", folder, resume=True, overlap=0.5)
    assert {line["again"] for line in lines_of(tmp_path / "out")[6:]} == {"made-otherwise"}


def test_a_line_that_was_lost_is_made_again_from_the_cases_folder(tmp_path, bundle) -> None:
    folder = two_and_a_bad_one(tmp_path / "in")
    run(bundle, tmp_path / "out", folder)
    before = lines_of(tmp_path / "out")
    text = (tmp_path / "out" / "manifest.jsonl").read_text()
    (tmp_path / "out" / "manifest.jsonl").write_text(text[:-30])  # as a power cut leaves it
    result = run(bundle, tmp_path / "out", folder, resume=True)
    assert [case["status"] for case in result.cases] == ["skipped", "failed", "skipped"]
    assert lines_of(tmp_path / "out")[-1] == before[-1]


@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_an_output_that_is_not_what_was_written_is_done_again(tmp_path, bundle, damage) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    run(bundle, tmp_path / "out", source)
    preview = tmp_path / "out" / "a" / "preview.png"
    content = preview.read_bytes()
    if damage == "gone":
        preview.unlink()
    else:
        other = content[:-1] if damage == "truncated" else content[:-1] + b"\0"
        preview.write_bytes(other)
    again = run(bundle, tmp_path / "out", source, resume=True)
    assert again.cases[0]["status"] == "done"
    assert preview.read_bytes() == content
    assert lines_of(tmp_path / "out")[-1]["again"] == "repeated"
    assert run(bundle, tmp_path / "out", source, resume=True).cases[0]["status"] == "skipped"


def test_a_corrected_slice_of_equal_size_and_age_is_noticed(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", modality=("CT",), rule={"min_slices": 4})
    folder = write_series(blobs(), tmp_path / "in")
    run(bundle, tmp_path / "out", folder)
    assert run(bundle, tmp_path / "out", folder, resume=True).cases[0]["status"] == "skipped"
    file = sorted(folder.iterdir())[4]
    times, content = file.stat(), bytearray(file.read_bytes())
    content[-2] ^= 1  # the last pixel
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run(bundle, tmp_path / "out", folder, resume=True).cases[0]["status"] == "done"


def test_a_second_run_into_the_folder_is_refused(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    (tmp_path / "out").mkdir()
    with open_manifest(tmp_path / "out"):
        with pytest.raises(UsageError) as caught:
            run(bundle, tmp_path / "out", source)
        assert caught.value.code == "output-in-use"
    assert run(bundle, tmp_path / "out", source).exit_code == 0


def test_shares_work_side_by_side_but_not_beside_a_whole_run(tmp_path) -> None:
    with open_manifest(tmp_path, Shard(1, 2)), open_manifest(tmp_path, Shard(2, 2)):
        for shard in (Shard(1, 2), Shard()):
            with pytest.raises(UsageError, match="one run"), open_manifest(tmp_path, shard):
                pass
    with (
        open_manifest(tmp_path),
        pytest.raises(UsageError, match="one run"),
        open_manifest(tmp_path, Shard(1, 2)),
    ):
        pass


def test_every_case_is_in_exactly_one_share() -> None:
    sources = [f"study {number}" for number in range(200)]
    shards = [parse_shard(f"{number}/7") for number in range(1, 8)]
    counts = [sum(shard.holds(source) for source in sources) for shard in shards]
    assert sum(counts) == 200
    assert min(counts) > 10
    assert all(sum(shard.holds(source) for shard in shards) == 1 for source in sources)
    for text in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        with pytest.raises(UsageError, match="I/N"):
            parse_shard(text)


def test_a_table_that_cannot_be_written_is_said_and_loses_nothing(tmp_path, bundle) -> None:
    (tmp_path / "out" / "cases.csv" / "x").mkdir(parents=True)
    result = run(bundle, tmp_path / "out", two_and_a_bad_one(tmp_path / "in"))
    assert result.exit_code == 1
    assert result.as_json()["problems"][0]["code"] == "output"
    assert len(lines_of(tmp_path / "out")) == 3


def test_a_study_that_sorts_before_its_namesake_takes_no_folder_from_it(tmp_path, bundle) -> None:
    write_nifti(blobs(seed=1), tmp_path / "in" / "m" / "scan.nii.gz")
    first = run(bundle, tmp_path / "out", tmp_path / "in")
    assert [case["case"] for case in first.cases] == ["scan"]
    for name in ("a", "z"):
        write_nifti(blobs(seed=2), tmp_path / "in" / name / "scan.nii.gz")
    result = run(bundle, tmp_path / "out", tmp_path / "in", resume=True)
    named = {
        case["case"]: (Path(case["input"]).parent.name, case["status"]) for case in result.cases
    }
    assert named == {"a_scan": ("a", "done"), "scan": ("m", "skipped"), "z_scan": ("z", "done")}
    shutil.rmtree(tmp_path / "in" / "m")
    write_nifti(blobs(seed=4), tmp_path / "in" / "zz" / "scan.nii.gz")
    left = run(bundle, tmp_path / "out", tmp_path / "in", resume=True)
    assert [(case["case"], case["status"]) for case in left.cases] == [
        ("a_scan", "skipped"), ("z_scan", "skipped"), ("zz_scan", "done"),
    ]  # fmt: skip


def test_inputs_of_one_name_keep_their_folders_in_any_order(tmp_path, bundle) -> None:
    one, two = (write_nifti(blobs(seed=n), tmp_path / str(n) / "scan.nii.gz") for n in (1, 2))
    write_nifti(blobs(), tmp_path / "x.nii.gz")
    first = run(bundle, tmp_path / "out", one, two)
    again = run(bundle, tmp_path / "out", tmp_path / "x.nii.gz", two, one, resume=True)
    ids = {case["input"]: case["case"] for case in first.cases}
    assert len(set(ids.values())) == 2
    later = {case["input"]: (case["case"], case["status"]) for case in again.cases}
    assert all(later[path] == (name, "skipped") for path, name in ids.items())


def test_a_dataset_that_was_moved_keeps_its_ids(tmp_path, bundle) -> None:
    write_nifti(blobs(), tmp_path / "in" / "deep" / "scan.nii.gz")
    run(bundle, tmp_path / "out", tmp_path / "in")
    (tmp_path / "in" / "deep").rename(tmp_path / "elsewhere")
    [case] = run(bundle, tmp_path / "out", tmp_path / "elsewhere", resume=True).cases
    assert (case["case"], case["status"]) == ("scan", "skipped")


def test_another_image_of_the_same_name_takes_nobodys_folder(tmp_path, bundle) -> None:
    write_nifti(blobs(), tmp_path / "in" / "one" / "scan.nii.gz")
    run(bundle, tmp_path / "out", tmp_path / "in")
    mask = tmp_path / "out" / "scan" / results.MASK
    before = mask.read_bytes()
    shutil.rmtree(tmp_path / "in" / "one")
    other = Volume(np.full((1, 9, 9, 9), 150, np.int16), np.eye(4))
    write_nifti(other, tmp_path / "in" / "two" / "scan.nii.gz")
    [case] = run(bundle, tmp_path / "out", tmp_path / "in", resume=True).cases
    assert case["case"].startswith("scan_")
    assert mask.read_bytes() == before
