"""Bad input, whole commands: the exact error code, the exit code, and nothing half-written."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from medseg.cli.main import call
from medseg.io.files import natural_order
from tests.phantoms import write_localizer, write_nifti, write_series
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_segment import blobs

Maker = Callable[[Path], object]


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def text_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("no scan here")
    (folder / "table").write_text("a;b;c\n1;2;3\n" * 50)


def series(folder: Path) -> list[Path]:
    write_series(blobs(), folder)
    return sorted(files_of(folder), key=lambda file: pydicom.dcmread(file).InstanceNumber)


def truncated(folder: Path) -> None:
    for file in series(folder):
        file.write_bytes(file.read_bytes()[:-100])


def without_pixels(folder: Path) -> None:
    for file in series(folder):
        dataset = pydicom.dcmread(file)
        del dataset.PixelData
        dataset.save_as(file)


def missing_slice(folder: Path) -> None:
    series(folder)[5].unlink()


def other_pixels_at_one_position(folder: Path) -> None:
    dataset = pydicom.dcmread(series(folder)[5])
    dataset.SOPInstanceUID += ".1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(folder / "again")


def two_series_interleaved(folder: Path) -> None:
    write_series(blobs(), folder / "1", seed=1, series_number=1)
    write_series(blobs(seed=5), folder / "2", seed=1, series_number=2)
    for number, name in enumerate(("1", "2")):
        for file in files_of(folder / name):
            file.rename(folder / f"{file.name}{number}")
        (folder / name).rmdir()


def nan_voxel(folder: Path) -> None:
    array = blobs().array[0].astype(np.float32)
    array[2, 2, 2] = np.nan
    folder.mkdir()
    nib.save(nib.Nifti1Image(array, np.eye(4)), folder / "scan.nii.gz")


def four_d(folder: Path) -> None:
    folder.mkdir()
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), folder / "scan.nii.gz")


def sheared(folder: Path) -> None:
    folder.mkdir()
    affine = np.eye(4)
    affine[0, 2] = 0.3
    image = nib.Nifti1Image(blobs().array[0], None)
    image.set_sform(affine, 1)
    nib.save(image, folder / "scan.nii")


def zip_that_climbs(folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        archive.writestr("../../climbed.dcm", b"x" * 100)


def zip_bomb(folder: Path) -> None:
    folder.mkdir()
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.dcm", bytes(300 << 20))


REFUSED: list[tuple[str, Maker, str, int, str, str]] = [
    # name, maker, input below the folder, exit code, error code, part of the message
    ("no file", lambda folder: None, "", 2, "not-found", "does not exist"),  # noqa: ARG005
    ("empty folder", Path.mkdir, "", 2, "no-images", "which is empty"),
    ("text files", text_files, "", 2, "no-images", "2 not-dicom"),
    ("truncated", truncated, "", 2, "no-usable-volume", "truncated"),
    ("no pixel data", without_pixels, "", 2, "no-images|no-usable-volume", "no-pixel-data"),
    ("missing slice", missing_slice, "", 2, "no-usable-volume", "missing-slices"),
    ("same position", other_pixels_at_one_position, "", 2, "no-usable-volume", "duplicate-pos"),
    ("two series", two_series_interleaved, "", 2, "ambiguous-volume", "--series"),
    ("NaN", nan_voxel, "scan.nii.gz", 1, "non-finite", "1 "),
    ("4D", four_d, "scan.nii.gz", 2, "needs-frame", "--frame"),
    ("sheared affine", sheared, "scan.nii", 1, "sheared-affine", "perpendicular"),
    ("zip that climbs", zip_that_climbs, "study.zip", 2, "unsafe-archive", ""),
    ("zip bomb", zip_bomb, "study.zip", 2, "zip-bomb", ""),
]


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_toy_bundle(tmp_path / "toy", rule={"min_slices": 4})


def segment(bundle: Path, tmp_path: Path, source: Path, capsys, *more: str) -> tuple[int, dict]:
    arguments = ["segment", str(source), "-b", str(bundle), "-o", str(tmp_path / "out"), "--json"]
    code = call([*arguments, *more])
    streams = capsys.readouterr()
    assert "Traceback" not in streams.err
    return code, json.loads(streams.out)


@pytest.mark.parametrize(
    ("maker", "below", "exit_code", "code", "message"),
    [row[1:] for row in REFUSED],
    ids=[row[0] for row in REFUSED],
)
def test_segment_refuses(tmp_path, bundle, capsys, maker, below, exit_code, code, message) -> None:
    maker(tmp_path / "in")
    before = {file: file.read_bytes() for file in files_of(tmp_path)}
    got, document = segment(bundle, tmp_path, tmp_path / "in" / below, capsys)
    error = document["error"] if exit_code == 2 else document["cases"][0]["error"]
    assert (got, error["code"] in code.split("|")) == (exit_code, True), error
    assert any(part in error["message"] for part in message.split("|")), error
    if exit_code == 2:
        assert not (tmp_path / "out").exists()
    after = {file: file.read_bytes() for file in files_of(tmp_path) if file.parent.name != "out"}
    assert after == before


@pytest.mark.parametrize(
    ("maker", "below", "message"),
    [(row[1], row[2], row[5]) for row in REFUSED if row[3] == 2],
    ids=[row[0] for row in REFUSED if row[3] == 2],
)
def test_the_error_on_screen_is_short(tmp_path, bundle, capsys, maker, below, message) -> None:
    maker(tmp_path / "in")
    source = str(tmp_path / "in" / below)
    assert call(["segment", source, "-b", str(bundle), "-o", str(tmp_path / "out")]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("error")
    assert 1 <= streams.err.count("\n") <= 3
    assert any(part in streams.err.replace("\n", " ") for part in message.split("|"))


def test_a_missing_slice_is_resampled_only_when_asked(tmp_path, bundle, capsys) -> None:
    missing_slice(tmp_path / "in")
    code, document = segment(bundle, tmp_path, tmp_path / "in", capsys, "--regrid")
    assert code == 0
    codes = [warning["code"] for warning in document["cases"][0]["warnings"]]
    assert codes, "the resampling must be reported"
    mask = nib.load(document["cases"][0]["outputs"]["nifti"])
    assert mask.shape[2] == blobs().shape[2]


def test_a_localizer_in_the_series_never_joins_the_volume(tmp_path, bundle, capsys) -> None:
    series(tmp_path / "in")
    uid = pydicom.dcmread(files_of(tmp_path / "in")[0]).SeriesInstanceUID
    write_localizer(tmp_path / "in" / "scout")
    for file in files_of(tmp_path / "in" / "scout"):
        dataset = pydicom.dcmread(file)
        dataset.SeriesInstanceUID, dataset.SeriesNumber = uid, 1
        dataset.StudyInstanceUID = pydicom.dcmread(files_of(tmp_path / "in")[0]).StudyInstanceUID
        dataset.save_as(file)
    code, document = segment(bundle, tmp_path, tmp_path / "in", capsys)
    assert code == 0
    assert nib.load(document["cases"][0]["outputs"]["nifti"]).shape == blobs().shape[:3]
    assert call(["inspect", str(tmp_path / "in"), "--json"]) == 0
    volumes = json.loads(capsys.readouterr().out)["series"][0]["volumes"]
    assert sorted(p["code"] for v in volumes for p in v["problems"]) == ["localizer"]


def test_a_batch_goes_on_past_an_ambiguous_study(tmp_path, bundle, capsys) -> None:
    two_series_interleaved(tmp_path / "in" / "a")
    write_series(blobs(), tmp_path / "in" / "b", seed=2)
    code, document = segment(bundle, tmp_path, tmp_path / "in", capsys)
    assert code == 1
    assert sorted(case["status"] for case in document["cases"]) == ["done", "failed"]
    failed = next(case for case in document["cases"] if case["status"] == "failed")
    assert failed["error"]["code"] == "ambiguous-volume"


def test_a_bundle_without_weights(tmp_path, capsys) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", weights=False)
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    code, document = segment(bundle, tmp_path, source, capsys)
    assert (code, document["error"]["code"]) == (2, "no-weights")
    assert "monai.bundle run" in document["error"]["message"]
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network(tmp_path, bundle, capsys) -> None:
    torch.save(torch.nn.Conv3d(1, 3, 3).state_dict(), bundle / "models" / "model.pt")
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    code, document = segment(bundle, tmp_path, source, capsys)
    assert (code, document["error"]["code"]) == (2, "weights-mismatch")
    assert not (tmp_path / "out").exists()


def _mount(folder: Path, *options: str) -> None:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")


@pytest.fixture
def read_only(tmp_path):
    _mount(tmp_path / "ro", "-o", "ro")
    yield tmp_path / "ro"
    subprocess.run(["umount", str(tmp_path / "ro")], check=True)


@pytest.fixture
def tiny(tmp_path):
    _mount(tmp_path / "tiny", "-o", "size=64k")
    yield tmp_path / "tiny"
    subprocess.run(["umount", str(tmp_path / "tiny")], check=True)


def test_a_read_only_output_folder(tmp_path, bundle, capsys, read_only) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    arguments = ["segment", str(source), "-b", str(bundle), "-o", str(read_only / "out"), "--json"]
    assert call(arguments) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "output-not-writable"


def test_a_full_disk(tmp_path, bundle, capsys, tiny) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    (tiny / "filler").write_bytes(bytes(40 << 10))
    arguments = ["segment", str(source), "-b", str(bundle), "-o", str(tiny / "out"), "--json"]
    assert call(arguments) == 1
    case = json.loads(capsys.readouterr().out)["cases"][0]
    assert case["error"]["code"] == "disk-full"
    left = files_of(tiny / "out")
    assert not [file for file in left if file.name in ("case.json", "preview.png")]
    for mask in (file for file in left if file.name.endswith(".nii.gz")):
        assert np.asarray(nib.load(mask).dataobj).shape == blobs().shape[:3]
    shutil.rmtree(tiny / "out")
    assert call([*arguments[:5], str(tmp_path / "elsewhere"), "--json"]) == 0


def test_a_disk_that_fills_up_midway_keeps_what_is_done_and_resumes(
    tmp_path, bundle, capsys
) -> None:
    for name in "abcd":
        write_nifti(blobs(), tmp_path / "in" / f"{name}.nii.gz")
    _mount(tmp_path / "small", "-o", "size=192k")
    arguments = ["segment", str(tmp_path / "in"), "-b", str(bundle), "--json"]
    arguments += ["-o", str(tmp_path / "small" / "out")]
    try:
        assert call(arguments) == 1
        cases = json.loads(capsys.readouterr().out)["cases"]
        codes = [case["error"] and case["error"]["code"] for case in cases]
        assert codes[0] is None
        assert codes[-1] == "disk-full"
        lines = (tmp_path / "small" / "out" / "manifest.jsonl").read_text().splitlines()
        done = {line["case"] for line in map(json.loads, lines) if line["status"] == "done"}
        whole = {file.parent.name for file in (tmp_path / "small" / "out").glob("*/case.json")}
        assert done == whole == {c["case"] for c in cases if c["status"] == "done"}
        assert not list((tmp_path / "small" / "out").glob(".part-*"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path / "small")], check=True)
        assert call([*arguments, "--resume"]) == 0
        again = json.loads(capsys.readouterr().out)["cases"]
        assert {c["case"] for c in again if c["status"] == "skipped"} == whole
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


@pytest.mark.slow
def test_a_file_size_limit_is_a_full_disk_too(tmp_path, bundle) -> None:
    array = np.random.default_rng(0).integers(0, 300, (64, 64, 64)).astype(np.int16)
    source = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(array, np.eye(4)), source)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    command = [sys.executable, "-m", "medseg", "segment", str(source), "-b", str(bundle)]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "out"), "--json"],
        capture_output=True, text=True, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 1
    case = json.loads(done.stdout)["cases"][0]
    assert case["error"]["code"] in {"output", "disk-full"}
    left = {file.name for file in files_of(tmp_path / "out")}
    assert left == {"cases.csv", "manifest.jsonl"}


@pytest.mark.slow
def test_a_killed_run_leaves_whole_masks_and_resumes(tmp_path, bundle) -> None:
    names = [f"case{number}" for number in range(12)]
    for name in names:
        write_nifti(blobs(), tmp_path / "in" / f"{name}.nii.gz")
    command = [sys.executable, "-m", "medseg", "segment", str(tmp_path / "in"), "-b", str(bundle)]
    command += ["-o", str(tmp_path / "out"), "--json"]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "out").glob("*/case.json"))) < 3:
        assert child.poll() is None, "the run ended before it could be killed"
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    masks = list((tmp_path / "out").glob("*/segmentation.nii.gz"))
    assert 3 <= len(masks) < len(names)
    for mask in masks:
        assert np.asarray(nib.load(mask).dataobj).max() == 2
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    cases = json.loads(done.stdout)["cases"]
    assert [Path(case["case"]) for case in cases] == sorted(map(Path, names), key=natural_order)
    statuses = [case["status"] for case in cases]
    assert statuses.count("skipped") >= 3
    assert statuses.count("failed") == 0
    assert not [file for file in files_of(tmp_path / "out") if file.name.startswith(".part")]
