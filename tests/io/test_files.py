"""Which files are images, what they are called, how they are grouped and dispatched."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medseg.errors import InputError, MedsegError
from medseg.io.files import (
    SUFFIXES,
    describe_file,
    file_stem,
    group_channels,
    is_image_file,
    natural_order,
    read_file,
    unique_ids,
)


def _write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    if ".nii" in path.name:
        nib.save(nib.Nifti1Image(array, np.diag([-1, -1, 2, 1])), path)
    elif path.suffix == ".hdr":
        nib.save(nib.Nifti1Pair(array, np.diag([-1, -1, 2, 1])), path)
    elif SUFFIXES[path.suffix if path.suffix != ".gz" else ".gipl.gz"] == "itk":
        image = sitk.GetImageFromArray(array.T)
        image.SetSpacing((1, 1, 2))
        sitk.WriteImage(image, str(path))
    else:
        Image.fromarray(array[0].astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize("suffix", sorted(set(SUFFIXES) - {".hdr.gz"}))
def test_every_suffix_is_known_read_and_described(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path / f"case{suffix}")
    assert is_image_file(path)
    assert file_stem(path) == "case"
    volume = read_file(path)
    record = describe_file(path)
    assert record.size == volume.shape
    assert record.frames == 1
    assert record.orientation == volume.orientation
    assert record.problems == volume.source.problems
    assert volume.source.path == path
    if volume.is_2d:
        assert record.spacing_mm == ()
    else:
        assert record.spacing_mm == volume.spacing_mm == (1, 1, 2)
        assert volume.orientation == "LPS"
        assert np.array_equal(volume.array[0].ravel(), np.arange(60))


def test_suffixes_are_known_in_capitals(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.nii.gz").rename(tmp_path / "A.NII.GZ")
    assert is_image_file(path)
    assert file_stem(path) == "A"
    assert read_file(path).shape == (3, 4, 5)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.nii.gz", "a"),
        ("a.b.c.nii", "a.b.c"),
        ("a.gipl.gz", "a"),
        ("1.2.840.113", "1.2.840.113"),
        ("scan.dcm", "scan"),
        ("scan.zip", "scan"),
        ("IM0001", "IM0001"),
        (".png", ".png"),
        ("a.tar.gz", "a.tar.gz"),
    ],
)
def test_stems_lose_their_suffix_and_nothing_else(name: str, stem: str) -> None:
    assert file_stem(Path(name)) == stem


def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    for function in (read_file, describe_file):
        call: Any = function
        with pytest.raises(InputError, match=r"\.nrrd") as caught:
            call(tmp_path / "a.xyz")
        assert caught.value.code == "unknown-suffix"


def test_frames_and_channels_reach_the_reader(tmp_path: Path) -> None:
    array = np.arange(120, dtype=np.int16).reshape(3, 4, 5, 2)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    assert read_file(tmp_path / "a.nii", channels=2).channels == 2
    assert np.array_equal(read_file(tmp_path / "a.nii", frame=1).array[0], array[..., 1])
    with pytest.raises(InputError) as caught:
        read_file(tmp_path / "a.nii")
    assert caught.value.code == "needs-frame"
    assert describe_file(tmp_path / "a.nii").frames == 2


def test_channels_of_a_case_are_grouped_in_their_order() -> None:
    names = ["b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz", "c.nii.gz"]
    groups = group_channels(Path("x") / name for name in names)
    assert {key: [path.name for path in paths] for key, paths in groups.items()} == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
        "c": ["c.nii.gz"],
    }
    assert list(groups) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "names",
    [
        ["a_0000.nii", "a_0002.nii"],
        ["a_0001.nii", "a_0002.nii"],
        ["a_0000.nii", "a_0001.nrrd"],
        ["x/a_0000.nii", "y/a_0001.nii"],
    ],
)
def test_an_incomplete_run_is_never_a_group(names: list[str]) -> None:
    groups = group_channels(map(Path, names))
    assert sorted(path for paths in groups.values() for path in paths) == sorted(map(Path, names))
    assert all(len(paths) == 1 for paths in groups.values())


def test_colliding_stems_get_their_parents_and_nothing_is_lost() -> None:
    names = ["p1/ct.nii", "p2/ct.nii", "q/p2/ct.nii", "r/other.nii", "s/CT.nrrd", "s/CT.mha"]
    groups = group_channels(map(Path, names))
    assert len(groups) == len(names)
    assert groups["p1_ct"] == [Path("p1/ct.nii")]
    assert groups["q_p2_ct"] == [Path("q/p2/ct.nii")]
    assert groups["other"] == [Path("r/other.nii")]
    assert groups["s_CT_nrrd"] == [Path("s/CT.nrrd")]


def test_ids_stay_different_whatever_the_names() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        parts = rng.choice(["a", "b", "a_b", "A"], (30, 3))
        paths = sorted({Path(*row[:2]) / f"{row[2]}.nii" for row in parts.tolist()})
        ids = unique_ids([(file_stem(path), path) for path in paths])
        assert len({name.casefold() for name in ids}) == len(paths)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd", ".png", ".jpg", ".tif"])
def test_damaged_bytes_end_in_an_image_or_in_an_error_with_a_code(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"a{suffix}"
    content = _write(tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    outcomes = set()
    messages = []
    for _ in range(60):
        damaged = bytearray(content)
        for position in rng.integers(0, min(len(content), 400), 2):
            damaged[position] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(damaged)
        for function in (read_file, describe_file):
            call: Any = function
            try:
                call(tmp_path / name)
                outcomes.add("read")
            except MedsegError as error:
                outcomes.add(error.code)
                messages.append(str(error))
    assert all(len(message.splitlines()) == 1 for message in messages)
    assert outcomes - {"read"}
    capfd.readouterr()  # complaints of the C libraries


@pytest.mark.parametrize(
    "names",
    [
        ["frame_2.png", "frame_10.png", "frame_100.png"],
        ["a/1.png", "a/2.png", "a/11.png", "b/0.png"],
        ["2.png", "10.png", "a.png"],
        ["x", "x01b", "x1"],
    ],
)
def test_numbers_in_names_count(names: list[str]) -> None:
    paths = [Path(name) for name in names]
    shuffled = sorted(paths, key=lambda path: path.name[::-1], reverse=True)
    assert sorted(shuffled, key=natural_order) == paths
