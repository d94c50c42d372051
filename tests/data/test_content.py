"""Digests follow what files hold, and are remembered for each state of a file."""

import os
import time

import pytest

from medseg.data import content
from medseg.data.content import ContentDigests
from medseg.errors import InputError, OutputError
from medseg.io.locator import Locator


@pytest.fixture
def counted(monkeypatch):
    """Count the files that are really read."""
    taken = []
    whole = content._digest
    monkeypatch.setattr(content, "_digest", lambda *a: taken.append(a[0]) or whole(*a))
    return taken


@pytest.fixture
def later(monkeypatch):
    """Let the clock run an hour ahead, so that files are not fresh any more."""
    now = time.time_ns
    monkeypatch.setattr(content.time, "time_ns", lambda: now() + 3600 * 10**9)


@pytest.mark.usefixtures("later")
def test_a_file_is_read_once_for_each_state(tmp_path, counted) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    first = ContentDigests(tmp_path / "memo").digest([file])
    assert ContentDigests(tmp_path / "memo").digest([file]) == first
    assert len(counted) == 1
    file.write_bytes(b"two")
    assert ContentDigests(tmp_path / "memo").digest([file]) != first
    assert len(counted) == 2


@pytest.mark.usefixtures("later")
def test_the_same_size_and_time_do_not_hide_a_change(tmp_path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    first = ContentDigests(tmp_path / "memo").digest([file])
    file.write_bytes(b"two")
    os.utime(file, ns=(10**18, 10**18))
    assert ContentDigests(tmp_path / "memo").digest([file]) != first


def test_a_file_changed_a_moment_ago_is_not_remembered(tmp_path, counted) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    digests = ContentDigests(tmp_path / "memo")
    assert digests.digest([file]) == digests.digest([file])
    assert len(counted) == 2


def test_equal_contents_have_one_digest_wherever_they_lie(tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "deeper").mkdir(parents=True)
        (tmp_path / name / "deeper" / "1.dcm").write_bytes(b"slice")
    digests = ContentDigests(tmp_path / "memo")
    a, b = tmp_path / "a", tmp_path / "b"
    assert digests.digest([a]) == digests.digest([b])
    (b / "deeper" / "2.dcm").write_bytes(b"slice")
    assert digests.digest([a]) != digests.digest([b])
    assert digests.digest([a, b]) != digests.digest([b, a])


@pytest.mark.parametrize(
    ("header", "voxels", "text"),
    [
        ("a.hdr", "a.img", b""),
        ("a.mhd", "a.zraw", b"ElementDataFile = LOCAL"),
        ("a.mhd", "other.raw", b"ElementDataFile = other.raw"),
        ("a.nhdr", "slice07.raw", b"data file: slice%02d.raw 7 7 1"),
    ],
)
def test_the_voxels_beside_a_header_count(tmp_path, header, voxels, text) -> None:
    (tmp_path / header).write_bytes(text)
    (tmp_path / voxels).write_bytes(b"one")
    (tmp_path / "unrelated.txt").write_bytes(b"x")
    digests = ContentDigests(tmp_path / "memo")
    first = digests.digest([tmp_path / header])
    (tmp_path / voxels).write_bytes(b"two")
    assert digests.digest([tmp_path / header]) != first


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"gone\.nii") as raised:
        ContentDigests(tmp_path / "memo").digest([tmp_path / "gone.nii"])
    assert raised.value.code == "not-found"


@pytest.mark.usefixtures("later")
def test_a_broken_memory_is_not_used(tmp_path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    digests = ContentDigests(tmp_path / "memo")
    first = digests.digest([file])
    (memo,) = (tmp_path / "memo").glob("*.json")
    memo.write_text('{"path": ')
    assert digests.digest([file]) == first


@pytest.mark.usefixtures("later")
def test_a_memory_that_cannot_be_written_is_an_output_error(tmp_path) -> None:
    file = tmp_path / "a.nii"
    file.write_bytes(b"one")
    (tmp_path / "memo").write_text("a file in the way")
    with pytest.raises(OutputError, match="memo"):
        ContentDigests(tmp_path / "memo").digest([file])


def test_how_a_label_is_read_is_part_of_its_contents(tmp_path) -> None:
    file = tmp_path / "a.json"
    file.write_text("{}")
    digests = ContentDigests(tmp_path / "memo")
    places = [
        Locator(file),
        Locator(file, kind="labelme", codes=(("cat", 1),)),
        Locator(file, kind="labelme", codes=(("cat", 2),)),
        Locator(file, kind="coco", entry="1", codes=(("cat", 1),)),
        Locator(file, kind="coco", entry="2", codes=(("cat", 1),)),
    ]
    found = {digests.digest([place.as_path()]) for place in places}
    assert len(found) == len(places)


def test_both_masks_of_objects_with_classes_count(tmp_path) -> None:
    for folder in ("classes", "objects"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(b"one")
    place = Locator(tmp_path / "classes" / "a.png", kind="voc-objects", entry="../objects/a.png")
    digests = ContentDigests(tmp_path / "memo")
    seen = [digests.digest([place.as_path()])]
    for folder in ("classes", "objects"):
        (tmp_path / folder / "a.png").write_bytes(b"two")
        seen.append(digests.digest([place.as_path()]))
    assert len(set(seen)) == 3
