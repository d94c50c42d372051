"""A list of studies: each stands for itself, a missing one is one failed case."""

import json
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

import pydicom
import pytest

from medseg.errors import InputError
from medseg.workflows import segment_cases
from medseg.workflows.list_input import read_list
from medseg.workflows.segment import SegmentOptions, segment
from medseg.workflows.shard import parse_shard
from medseg.workflows.watch import Watch
from tests.phantoms import write_nifti, write_series
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_segment import blobs


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


def run(bundle: Path, output: Path, *inputs: Path, **options):
    return segment(SegmentOptions(inputs, str(bundle), output, **options))


def listed(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def outcome(result) -> dict[str, str]:
    return {c["case"]: c["error"]["code"] if c["error"] else c["status"] for c in result.cases}


def test_studies_of_every_kind_are_cases_and_what_is_missing_fails_alone(tmp_path, bundle) -> None:
    write_nifti(blobs(), tmp_path / "data" / "a.nii.gz")
    write_nifti(blobs(), tmp_path / "far" / "b.nii.gz")
    write_nifti(blobs(), tmp_path / "data" / "pair" / "c.nii.gz")
    write_nifti(blobs(), tmp_path / "data" / "pair" / "d.nii.gz")
    write_series(blobs(), tmp_path / "data" / "study")
    (tmp_path / "data" / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "z.zip", "w") as archive:
        archive.write(tmp_path / "data" / "a.nii.gz", "sub/a.nii.gz")
    lines = ["# studies", "", "a.nii.gz", f"  {tmp_path / 'far' / 'b.nii.gz'} ", "no.nii.gz"]
    lines += ["pair", "study", "empty", "z.zip", "a.nii.gz", "./pair/../a.nii.gz"]
    result = run(bundle, tmp_path / "out", listed(tmp_path / "data" / "list.txt", *lines[:-1]))
    found = outcome(result)
    dicom = next(name for name in found if name.startswith("CT_"))
    assert found == {
        "a": "done", "b": "done", "no": "not-found", "pair_c": "done", "pair_d": "done",
        dicom: "done", "empty": "no-images", "z_a": "done",
    }  # fmt: skip
    assert result.exit_code == 1
    text = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert str(tmp_path) not in text
    inputs = {line["case"]: line["input"] for line in map(json.loads, text.splitlines())}
    assert inputs["pair_c"] == "pair/c.nii.gz"
    assert inputs["z_a"] == "z.zip/sub/a.nii.gz"


def test_dicom_outputs_refer_to_files_of_archives_while_later_ones_are_read(
    tmp_path, bundle, monkeypatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for number in range(3):
        write_series(blobs(seed=number), tmp_path / f"s{number}", seed=number)
        shutil.make_archive(str(tmp_path / f"s{number}"), "zip", tmp_path / f"s{number}")
    names = [f"s{number}.zip" for number in range(3)]
    for deidentify in (False, True):
        output = tmp_path / f"out-{deidentify}"
        options = {"outputs": ("seg",), "deidentify": deidentify}
        result = run(bundle, output, listed(tmp_path / "list.txt", *names), **options)
        assert [case["status"] for case in result.cases] == ["done"] * 3
        assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("watch", [None, Watch(settle_s=0.2, poll_s=0.1, idle_s=0.5)])
def test_links_in_a_circle_are_failed_cases(tmp_path, bundle, watch) -> None:
    write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "circle").symlink_to(tmp_path / "in" / "circle")
    places = listed(tmp_path / "list.txt", "in/circle", "in/a.nii.gz")
    result = run(bundle, tmp_path / "out", tmp_path / "in" if watch else places, watch=watch)
    assert outcome(result) == {"circle": "not-found", "a": "done"}
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["case"] for line in lines} == {"circle", "a"}


def test_an_error_before_a_case_is_written_fails_it_alone(tmp_path, bundle, monkeypatch) -> None:
    def gone(problems, case):
        if case.path.name == "one" and not problems:
            raise OSError(2, "No such file or directory")
        return problems

    monkeypatch.setattr(segment_cases, "without_file_names", gone)
    for name, seed in (("one", 1), ("two", 2)):
        write_series(blobs(seed=seed), tmp_path / name, seed=seed)
    places = listed(tmp_path / "list.txt", "one", "two")
    result = run(bundle, tmp_path / "out", places, deidentify=True)
    assert [case["status"] for case in result.cases] == ["failed", "done"]
    assert result.cases[0]["error"]["code"] == "unreadable"


def test_paths_of_one_name_get_their_folders_and_keep_them_in_any_order(tmp_path, bundle) -> None:
    for number, name in enumerate(("p1", "p2", "p3")):
        write_nifti(blobs(seed=number), tmp_path / "data" / name / "scan.nii.gz")
    paths = [str(tmp_path / "data" / name / "scan.nii.gz") for name in ("p1", "p2", "p3")]
    first = run(bundle, tmp_path / "out", listed(tmp_path / "a" / "list.txt", *paths[1:]))
    assert sorted(outcome(first)) == ["p2_scan", "p3_scan"]
    again = run(
        bundle, tmp_path / "out", listed(tmp_path / "b" / "list.txt", *paths[::-1]), resume=True
    )
    assert outcome(again) == {"p3_scan": "skipped", "p2_scan": "skipped", "p1_scan": "done"}


def test_one_series_listed_twice_is_two_cases_that_never_swap(tmp_path, bundle) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        write_series(blobs(seed=seed), tmp_path / name, seed=0)  # equal UIDs, other pixels
    first = run(bundle, tmp_path / "out", listed(tmp_path / "list.txt", "one", "two"))
    named = {case["input"]: case["case"] for case in first.cases}
    assert len(set(named.values())) == 2
    again = run(bundle, tmp_path / "out", listed(tmp_path / "list.txt", "two", "one"), resume=True)
    assert {case["input"]: case["case"] for case in again.cases} == named
    assert {case["status"] for case in again.cases} == {"skipped"}


def test_a_series_is_named_behind_its_folder(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", modality=("CT",), rule={"min_slices": 4})
    for number in (1, 2):
        write_series(blobs(seed=number), tmp_path / "in" / str(number), series_number=number)
    uid = pydicom.dcmread(next((tmp_path / "in" / "2").iterdir())).SeriesInstanceUID
    lines = ["in", f"in?series={uid}"]
    result = run(bundle, tmp_path / "out", listed(tmp_path / "list.txt", *lines))
    assert [case["status"] for case in result.cases] == ["failed", "done"]
    assert result.cases[0]["error"]["code"] == "ambiguous-volume"
    assert result.cases[1]["series_instance_uid"] == uid


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "empty-list"), (b"# no\n\n", "empty-list"), (b"a\0b", "bad-list")]
)
def test_a_list_that_names_nothing_starts_nothing(tmp_path, bundle, content, code) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError) as caught:
        run(bundle, tmp_path / "out", tmp_path / "list.txt")
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_names_that_are_no_valid_text_are_paths_all_the_same(tmp_path) -> None:
    name = os.fsdecode(b"caf\xe9.nii.gz")
    write_nifti(blobs(), tmp_path / "x.nii.gz").rename(tmp_path / name)
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9.nii.gz\r\n")
    [entry] = read_list(tmp_path / "list.txt")
    assert entry.path.is_file()


def test_shares_of_a_list_do_each_case_once_and_share_one_table(tmp_path, bundle) -> None:
    names = [f"s{number}.nii.gz" for number in range(9)]
    for name in names:
        write_nifti(blobs(), tmp_path / "in" / name)
    everything = listed(tmp_path / "in" / "list.txt", *names, "missing.nii.gz")
    done = [
        run(bundle, tmp_path / "out", everything, shard=parse_shard(f"{n}/3"), resume=n > 1)
        for n in (1, 2, 3)
    ]
    cases = [case["case"] for result in done for case in result.cases]
    assert sorted(cases) == ["missing", *(f"s{number}" for number in range(9))]
    rows = (tmp_path / "out" / "cases.csv").read_text().splitlines()[1:]
    assert sorted({row.split(",")[0] for row in rows}) == sorted(cases)
    manifests = sorted(file.name for file in (tmp_path / "out").glob("*.jsonl"))
    assert manifests == [f"manifest.{n}-of-3.jsonl" for n in (1, 2, 3)]
    whole = run(bundle, tmp_path / "out", everything, resume=True)
    assert sorted({case["status"] for case in whole.cases}) == ["failed", "skipped"]
    folder = run(bundle, tmp_path / "all", tmp_path / "in", shard=parse_shard("1/2"))
    other = run(bundle, tmp_path / "all", tmp_path / "in", shard=parse_shard("2/2"), resume=True)
    assert sorted(c["case"] for c in (*folder.cases, *other.cases)) == sorted(
        f"s{number}" for number in range(9)
    )


def test_what_breaks_a_study_breaks_it_alone(tmp_path, bundle, monkeypatch) -> None:
    for number in range(6):
        write_series(blobs(), tmp_path / f"s{number}", seed=number)
    write_nifti(blobs(), tmp_path / "n.nii.gz")
    for file in (tmp_path / "s1").iterdir():  # cut within its pixels
        file.write_bytes(file.read_bytes()[:-100])
    for file in (tmp_path / "s2").iterdir():  # cut within its header
        file.write_bytes(file.read_bytes()[:200])

    read, hashed = segment_cases.read_case, segment_cases.fingerprint

    def hashed_or_not(case):
        if case.path.name == "s5":
            shutil.rmtree(case.path)
        return hashed(case)

    def read_or_not(case, **options):
        if case.path.name == "s3":  # goes between looking and reading
            shutil.rmtree(case.path)
        if case.path.name == "s4":
            raise MemoryError
        return read(case, **options)

    monkeypatch.setattr(segment_cases, "read_case", read_or_not)
    monkeypatch.setattr(segment_cases, "fingerprint", hashed_or_not)
    names = [*(f"s{number}" for number in range(6)), "n.nii.gz"]
    result = run(bundle, tmp_path / "out", listed(tmp_path / "list.txt", *names))
    codes = [case["error"] and case["error"]["code"] for case in result.cases]
    assert codes == [
        None, "no-usable-volume", "no-images", "unreadable", "out-of-memory", "unreadable", None,
    ]  # fmt: skip
    assert "truncated" in result.cases[1]["error"]["message"]


def test_a_folder_that_cannot_be_listed_is_a_failed_case(tmp_path, bundle, monkeypatch) -> None:
    write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")
    locked = tmp_path / "in" / "ward" / "locked"
    locked.mkdir(parents=True)
    scan = os.scandir

    def refused(path):  # tests may be run by root, whom nothing is forbidden
        if os.fspath(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(locked))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    result = run(bundle, tmp_path / "out", tmp_path / "in")
    assert outcome(result) == {"a": "done", "ward_locked": "unreadable"}
    assert "Permission denied" in result.cases[1]["error"]["message"]
    assert result.exit_code == 1
    of_list = run(bundle, tmp_path / "other", listed(tmp_path / "list.txt", "in/a.nii.gz", "in"))
    assert outcome(of_list) == {"a": "done", "in": "unreadable"}


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_a_file_that_cannot_be_read_is_a_warning_of_the_case_beside_it(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", modality=("CT",), rule={"min_slices": 4})
    folder = write_series(blobs(), tmp_path / "in")
    last = max(folder.iterdir(), key=lambda file: pydicom.dcmread(file).InstanceNumber)
    last.unlink()
    last.symlink_to("/proc/self/mem")  # a file whose reading fails, for root as well
    result = run(bundle, tmp_path / "out", listed(tmp_path / "list.txt", "in"))
    [case] = result.cases
    assert case["status"] == "done"
    [rejected] = result.as_json()["rejected"]
    assert (rejected["path"], rejected["code"]) == (last.name, "unreadable")
    assert "unreadable-files" in [warning["code"] for warning in case["warnings"]]
