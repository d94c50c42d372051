"""Archives: good ones come out whole, bad ones leave nothing."""

import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.errors import InputError, OutputError, UsageError
from medseg.io.archive import ArchiveLimits, extract_zip


def _zip(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo()
            info.filename = name  # past the constructor, which tidies names
            info.compress_type = kind
            archive.writestr(info, content)
    return path


def _refused(path: Path, code: str, **limits: Any) -> InputError:
    into = path.parent / "out"
    with pytest.raises(InputError) as caught:
        extract_zip(path, into, limits=ArchiveLimits(**limits))
    assert caught.value.code == code
    assert not into.exists()
    return caught.value


def test_a_good_archive_comes_out_whole(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3_000_000)
    inner = _zip(tmp_path / "inner.zip", {"x": b"y"}).read_bytes()
    members = {"a/b/IM0": noise, "a/DICOMDIR": b"DICM", "ä ö.txt": b"", "inner.zip": inner}
    path = _zip(tmp_path / "a.zip", members)
    into = extract_zip(path, tmp_path / "out")
    assert into == tmp_path / "out"
    files = {
        file.relative_to(into).as_posix(): file.read_bytes()
        for file in into.rglob("*")
        if file.is_file()
    }
    assert files == members


def test_folders_and_windows_separators_are_understood(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"folder/": b"", "folder\\sub\\file": b"1"})
    extract_zip(path, tmp_path / "out")
    assert (tmp_path / "out" / "folder" / "sub" / "file").read_bytes() == b"1"


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil", "c:evil", "\\\\host\\x", "a\nb"],
)
def test_members_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    _refused(_zip(work / "a.zip", {"good": b"1", name: b"2"}), "unsafe-archive")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "work"]


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    _refused(tmp_path / "a.zip", "unsafe-archive")


def test_two_members_of_one_name_are_refused_not_overwritten(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("IM0", b"1")
        archive.writestr("im0", b"2")  # one file where case does not count
    _refused(tmp_path / "a.zip", "unsafe-archive")


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    content = bytearray(_zip(tmp_path / "a.zip", {"IM0": b"1234"}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    error = _refused(tmp_path / "a.zip", "encrypted-archive")
    assert "password" in str(error)


def test_a_bomb_is_refused_by_its_ratio_its_size_and_its_count(tmp_path: Path) -> None:
    zeros = _zip(tmp_path / "zeros.zip", {"a": bytes(70 << 20)})
    assert "unpacks to" in str(_refused(zeros, "zip-bomb"))
    several = _zip(tmp_path / "several.zip", {str(index): bytes(1000) for index in range(5)})
    _refused(several, "zip-bomb", total_bytes=4999)
    _refused(several, "zip-bomb", members=4)
    extract_zip(several, tmp_path / "fits", limits=ArchiveLimits(total_bytes=5000, members=5))


def test_a_bomb_that_lies_about_its_size_never_gets_past_it(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"a": bytes(20 << 20)})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 1000)
    path.write_bytes(content)
    _refused(path, "unreadable")


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "bit"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, damage: str) -> None:
    members = {"first": b"good", "second": np.random.default_rng(0).bytes(100_000)}
    content = bytearray(_zip(tmp_path / "a.zip", members, zipfile.ZIP_STORED).read_bytes())
    if damage == "bit":
        content[50_000] ^= 1
    damaged = {"empty": b"", "text": b"text " * 100, "cut": content[:-300], "bit": content}[damage]
    (tmp_path / "a.zip").write_bytes(damaged)
    error = _refused(tmp_path / "a.zip", "unreadable")
    assert "\n" not in str(error)


def test_an_unknown_compression_is_refused(tmp_path: Path) -> None:
    content = bytearray(_zip(tmp_path / "a.zip", {"a": b"1234"}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        struct.pack_into("<H", content, content.index(signature) + offset, 9)  # deflate64
    (tmp_path / "a.zip").write_bytes(content)
    assert "compression" in str(_refused(tmp_path / "a.zip", "unreadable"))


def test_a_missing_archive_is_said_to_be_missing(tmp_path: Path) -> None:
    _refused(tmp_path / "a.zip", "not-found")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.zip", {"a": b"1"})
    with pytest.raises(UsageError, match="empty folder"):
        extract_zip(path, tmp_path)
    assert path.exists()


def test_an_existing_empty_folder_stays_and_is_empty_after_failure(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = _zip(tmp_path / "a.zip", {"d/a": b"1", "d": b"2"})  # a file where a folder is
    with pytest.raises(OutputError):
        extract_zip(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_too_little_space_is_found_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _zip(tmp_path / "a.zip", {"a": bytes(1000)})
    usage = type("Usage", (), {"free": 50 << 20})()
    monkeypatch.setattr("medseg.io.archive.shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="MiB") as caught:
        extract_zip(path, tmp_path / "out")
    assert caught.value.code == "disk-full"
    assert not (tmp_path / "out").exists()


def test_archives_of_another_program_are_read(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "sub" / "IM0").write_bytes(os.urandom(5000))
    command = [sys.executable, "-m", "zipfile", "-c", "a.zip", "in"]
    subprocess.run(command, cwd=tmp_path, check=True)
    extract_zip(tmp_path / "a.zip", tmp_path / "out")
    written = tmp_path / "out" / "in" / "sub" / "IM0"
    assert written.read_bytes() == (tmp_path / "in" / "sub" / "IM0").read_bytes()
    assert zipfile.is_zipfile(io.BytesIO((tmp_path / "a.zip").read_bytes()))
