"""Watching: nothing is taken before it is whole, everything once for each of its states."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from medseg.cli.main import call
from medseg.errors import UsageError
from medseg.workflows import segment_cases
from medseg.workflows.entries import Entry
from medseg.workflows.segment import SegmentOptions, SegmentResult, segment
from medseg.workflows.watch import Watch, Watcher, watch_of
from tests.phantoms import write_nifti, write_series
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_segment import blobs

QUICK = Watch(settle_s=0.3, poll_s=0.05)
PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]


def wait_for(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


class Taken:
    """What a watcher takes, in a thread of its own."""

    def __init__(self, watcher: Watcher) -> None:
        self.entries: list[Entry] = []
        self.sizes: list[int] = []
        self._watcher = watcher
        self.thread = threading.Thread(target=self._take)
        self.thread.start()

    def _take(self) -> None:
        for entry in self._watcher.entries():
            files = [entry.path, *entry.path.rglob("*")]
            self.sizes.append(sum(file.stat().st_size for file in files if file.is_file()))
            self.entries.append(entry)

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self.entries]


@contextmanager
def watching(*folders: Path, output: Path, watch: Watch = QUICK) -> Iterator[Taken]:
    stop = threading.Event()
    taken = Taken(Watcher(folders, watch, output, stop))
    try:
        yield taken
    finally:
        stop.set()
        taken.thread.join(PATIENCE_S)
        assert not taken.thread.is_alive()


def test_a_file_that_grows_is_taken_once_and_whole(tmp_path) -> None:
    incoming = tmp_path / "in"
    incoming.mkdir()
    with watching(incoming, output=tmp_path / "out") as taken:
        with (incoming / "a.nii").open("wb") as stream:
            for _ in range(12):
                stream.write(bytes(1000))
                stream.flush()
                time.sleep(0.1)
        wait_for(lambda: bool(taken.entries))
        time.sleep(0.5)
    assert taken.names == ["a"]
    assert taken.sizes == [12_000]


def test_a_study_is_taken_when_its_last_slice_has_come_and_again_when_one_more_does(
    tmp_path,
) -> None:
    series = tmp_path / "in" / "study" / "series"
    series.mkdir(parents=True)
    with watching(tmp_path / "in", output=tmp_path / "out") as taken:
        for number in range(8):
            (series / str(number)).write_bytes(bytes(100))
            time.sleep(0.1)
        wait_for(lambda: bool(taken.entries))
        (series / "late").write_bytes(bytes(100))
        wait_for(lambda: len(taken.entries) > 1)
        time.sleep(0.5)
    assert taken.names == ["study", "study"]
    assert taken.sizes == [800, 900]


def test_what_is_no_study_or_vanishes_is_left_alone(tmp_path) -> None:
    incoming = tmp_path / "in"
    (incoming / "empty").mkdir(parents=True)
    (incoming / ".hidden").write_bytes(b"x")
    (incoming / "Thumbs.db").write_bytes(b"x")
    (incoming / "out" / "a").mkdir(parents=True)
    (incoming / "out" / "a" / "mask.nii").write_bytes(b"x")
    (incoming / "result").mkdir()
    (incoming / "result" / "case.json").write_text("{}")
    (incoming / "gone").write_bytes(b"x")
    (incoming / "stays").write_bytes(b"x")
    with watching(incoming, output=incoming / "out") as taken:
        time.sleep(0.1)
        (incoming / "gone").unlink()
        wait_for(lambda: bool(taken.entries))
        time.sleep(0.5)
    assert taken.names == ["stays"]


def test_a_folder_that_is_away_for_a_while_brings_nothing_new(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii").write_bytes(b"x")
    with watching(tmp_path / "in", output=tmp_path / "out") as taken:
        wait_for(lambda: bool(taken.entries))
        (tmp_path / "in").rename(tmp_path / "away")
        time.sleep(0.3)
        (tmp_path / "away").rename(tmp_path / "in")
        (tmp_path / "in" / "b.nii").write_bytes(b"x")
        wait_for(lambda: len(taken.entries) > 1)
        time.sleep(0.3)
    assert "a" in taken.names
    assert "b" in taken.names


def test_a_folder_that_may_not_be_entered_hides_no_other(tmp_path, monkeypatch) -> None:
    incoming = tmp_path / "in"
    (incoming / "closed").mkdir(parents=True)
    (incoming / "closed" / "file").write_bytes(b"x")
    is_file = Path.is_file

    def refused(path):  # tests may be run by root, whom nothing is forbidden
        if path == incoming / "closed" / "case.json":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    with watching(incoming, output=tmp_path / "out") as taken:
        for name in ("a.nii", "z.nii"):
            (incoming / name).write_bytes(b"x")
        wait_for(lambda: len(taken.entries) > 2)
    assert sorted(taken.names) == ["a", "closed", "z"]


def test_an_error_of_the_run_ends_the_watch(tmp_path) -> None:
    write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")

    def tell(done: int, total: int, what: str = "") -> None:  # noqa: ARG001
        if what.startswith("segmenting"):
            raise BrokenPipeError(32, "Broken pipe")

    raised: list[Exception] = []

    def run() -> None:
        bundle = str(write_toy_bundle(tmp_path / "toy"))
        options = SegmentOptions((tmp_path / "in",), bundle, tmp_path / "out", watch=QUICK)
        try:
            segment(options, progress=tell)
        except BrokenPipeError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert raised


def test_it_ends_when_there_is_nothing_to_do_but_not_before(tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii").write_bytes(b"x")
    watch = replace(QUICK, idle_s=0.2)  # shorter than the time to settle
    with watching(tmp_path / "in", output=tmp_path / "out", watch=watch) as taken:
        taken.thread.join(PATIENCE_S)
        assert not taken.thread.is_alive()
    assert taken.names == ["a"]


@pytest.mark.parametrize(
    "times", [{"settle_s": -1.0}, {"poll_s": 0.0}, {"idle_s": float("nan")}, {"settle_s": 1e30}]
)
def test_times_out_of_range_are_refused(times) -> None:
    nothing = {"settle_s": None, "poll_s": None, "idle_s": None}
    with pytest.raises(UsageError, match="seconds"):
        watch_of(wanted=True, **{**nothing, **times})
    with pytest.raises(UsageError, match="--watch"):
        watch_of(wanted=False, **{**nothing, "settle_s": 5.0})
    assert watch_of(wanted=True, **nothing) == Watch(30.0, 5.0, None)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


class Batch:
    """A watching run in a thread of its own."""

    def __init__(self, bundle: Path, output: Path, *inputs: Path, **options) -> None:
        self.output = output
        self.result: SegmentResult | None = None
        watch = replace(QUICK, idle_s=1.5)
        self._options = SegmentOptions(inputs, str(bundle), output, watch=watch, **options)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.result = segment(self._options)

    def lines(self) -> list[dict]:
        try:
            text = (self.output / "manifest.jsonl").read_text()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in text.splitlines()]

    def wait_for_lines(self, number: int) -> None:
        wait_for(lambda: len(self.lines()) >= number)

    def end(self) -> SegmentResult:
        self._thread.join(PATIENCE_S)
        assert self.result is not None
        return self.result


@pytest.mark.slow
def test_a_study_that_gets_more_slices_is_done_again_in_its_folder(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", modality=("CT",), rule={"min_slices": 4})
    whole = write_series(blobs(), tmp_path / "whole")
    slices = sorted(whole.iterdir(), key=lambda file: pydicom.dcmread(file).InstanceNumber)
    (tmp_path / "in" / "study").mkdir(parents=True)
    for file in slices[:9]:
        shutil.copy(file, tmp_path / "in" / "study")
    batch = Batch(bundle, tmp_path / "out", tmp_path / "in")
    batch.wait_for_lines(1)
    for file in slices[9:]:
        shutil.copy(file, tmp_path / "in" / "study")
    batch.wait_for_lines(2)
    result = batch.end()
    first, second = batch.lines()
    assert (first["case"], first["again"]) == (second["case"], None)
    assert second["again"] == "input-changed"
    assert first["outputs"] != second["outputs"]
    [case] = result.cases
    assert case["status"] == "done"
    assert json.loads(Path(case["outputs"]["report"]).read_text())["source"]["size"][2] == 13
    again = Batch(bundle, tmp_path / "out", tmp_path / "in", resume=True)
    assert [case["status"] for case in again.end().cases] == ["skipped"]
    assert len(again.lines()) == 2


def test_what_failed_is_tried_again_only_when_it_changes(tmp_path, bundle, monkeypatch) -> None:
    tries: list[str] = []
    read = segment_cases.read_case

    def counting(case, **options):
        tries.append(case.case_id)
        return read(case, **options)

    monkeypatch.setattr(segment_cases, "read_case", counting)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(b"no image")
    batch = Batch(bundle, tmp_path / "out", tmp_path / "in")
    batch.wait_for_lines(1)
    time.sleep(1)
    assert tries == ["a"]
    write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")
    batch.wait_for_lines(2)
    assert batch.end().exit_code == 0
    assert [(line["status"], line["again"]) for line in batch.lines()] == [
        ("failed", None), ("done", "failed-before"),
    ]  # fmt: skip


def test_studies_of_one_name_in_two_folders_are_two_cases(tmp_path, bundle) -> None:
    for number, name in enumerate(("one", "two")):
        write_nifti(blobs(seed=number), tmp_path / name / "p1" / "scan.nii.gz")
    batch = Batch(bundle, tmp_path / "out", tmp_path / "one", tmp_path / "two")
    named = {case["input"]: case["case"] for case in batch.end().cases}
    assert len(set(named.values())) == 2
    again = Batch(bundle, tmp_path / "out", tmp_path / "two", tmp_path / "one", resume=True)
    assert {case["input"]: case["case"] for case in again.end().cases} == named
    assert len(again.lines()) == 2


def test_only_folders_are_watched_and_nothing_is_replaced(tmp_path, bundle, capsys) -> None:
    source = write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")
    words = ["-b", str(bundle), "-o", str(tmp_path / "out"), "--watch", "--json"]
    assert call(["segment", str(source), *words]) == 2
    assert "folders" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert call(["segment", str(tmp_path / "in"), *words, "--overwrite"]) == 2
    assert "overwrite" in json.loads(capsys.readouterr().out)["error"]["message"]
    quick = ["--settle", "0.2", "--poll", "0.05", "--watch-idle", "0.5"]
    assert call(["segment", str(tmp_path / "in"), *words, *quick]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [case["case"] for case in document["cases"]] == ["a"]
    assert call(["segment", str(tmp_path / "in"), *words, *quick]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "output-exists"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_case_at_hand(tmp_path, bundle, number) -> None:
    write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")
    words = [sys.executable, "-m", "medseg", "segment", str(tmp_path / "in"), "-b", str(bundle)]
    words += ["-o", str(tmp_path / "out"), "--watch", "--settle", "0.2", "--poll", "0.1", "--json"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    wait_for((tmp_path / "out" / "a" / "case.json").is_file)
    write_nifti(blobs(), tmp_path / "in" / "b.nii.gz")
    wait_for((tmp_path / "out" / "b" / "case.json").is_file)
    os.kill(process.pid, number)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert [case["status"] for case in json.loads(out)["cases"]] == ["done", "done"]
    assert (tmp_path / "out" / "cases.csv").read_text().count("\n") == 5


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(tmp_path, bundle) -> None:
    write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")
    code = (
        "import sys, time; from medseg.workflows import segment_cases, results\n"
        "from medseg.cli.main import call\n"
        "read = segment_cases.read_case\n"
        "def slow(case, **options):\n"
        "    if case.case_id == 'b':\n"
        "        print('reading', flush=True, file=sys.stderr)\n"
        "        time.sleep(99)\n"
        "    return read(case, **options)\n"
        "segment_cases.read_case = slow\n"
        "call(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", code, "segment", str(tmp_path / "in"), "-b", str(bundle)]
    words += ["-o", str(tmp_path / "out"), "--watch", "--settle", "0.2", "--poll", "0.1", "--quiet"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    wait_for((tmp_path / "out" / "a" / "case.json").is_file)
    write_nifti(blobs(), tmp_path / "in" / "b.nii.gz")
    assert process.stderr is not None
    while process.stderr.readline().strip() != "reading":
        pass
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(PATIENCE_S) == -signal.SIGTERM
    process.stderr.close()
    again = Batch(bundle, tmp_path / "out", tmp_path / "in", resume=True)
    assert [case["status"] for case in again.end().cases] == ["skipped", "done"]
    assert [line["case"] for line in again.lines()] == ["a", "b"]
