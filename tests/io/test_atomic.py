"""A file appears complete or not at all."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import InputError, OutputError
from medseg.io.atomic import (
    PART_PREFIX,
    atomic_folder,
    atomic_path,
    json_text,
    remove_left_parts,
    write_json,
    write_text,
)
from medseg.io.nifti import write_nifti_image
from medseg.volume import Volume

_WRITER = """
import sys, time
from pathlib import Path
from medseg.io.atomic import atomic_path
with atomic_path(Path(sys.argv[1])) as part:
    with part.open("wb") as stream:
        for _ in range(1000):
            stream.write(bytes(1000))
            stream.flush()
            print("wrote", flush=True)
            time.sleep(0.01)
"""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folders" / "mask.nii.gz"
    with atomic_path(target) as part:
        assert part.parent == target.parent
        assert part.name.endswith(".nii.gz")
        assert part.name.startswith(".")
        assert part.name.startswith(PART_PREFIX)
        part.write_bytes(b"voxels")
        assert not target.exists()
    assert target.read_bytes() == b"voxels"
    assert _names(target.parent) == ["mask.nii.gz"]
    assert not target.name.startswith(PART_PREFIX)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, InputError])
def test_on_any_exception_the_older_file_stays_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a.json"
    target.write_text("older")

    def write() -> None:
        with atomic_path(target) as part:
            part.write_text("half")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        write()
    assert target.read_text() == "older"
    assert _names(tmp_path) == ["a.json"]


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, "disk-full"),
        (errno.EDQUOT, "disk-full"),
        (errno.EACCES, "output-not-writable"),
        (errno.EROFS, "output-not-writable"),
        (errno.EPERM, "output-not-writable"),
        (errno.EIO, "output"),
    ],
)
def test_every_failure_of_the_system_has_its_code(tmp_path: Path, number: int, code: str) -> None:
    def write() -> None:
        with atomic_path(tmp_path / "a") as part:
            part.write_text("half")
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=os.strerror(number)) as caught:
        write()
    assert caught.value.code == code
    assert _names(tmp_path) == []


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="got no file"), atomic_path(tmp_path / "a"):
        pass
    assert _names(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_the_longest_names_that_a_file_system_allows_work(tmp_path: Path) -> None:
    for name in ("a" * 248 + ".nii.gz", "肝" * 82 + ".nii.gz"):
        write_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"


def test_a_killed_process_leaves_no_half_written_file(tmp_path: Path) -> None:
    target = tmp_path / "mask.nii.gz"
    target.write_bytes(b"older")
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(target)], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        for _ in range(5):
            assert child.stdout.readline() == b"wrote\n"
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=30)
    assert target.read_bytes() == b"older"
    left = [path for path in tmp_path.iterdir() if path != target]
    assert len(left) == 1
    assert left[0].name.startswith(PART_PREFIX)
    assert left[0].stat().st_size >= 5000


def test_a_full_disk_leaves_nothing_and_keeps_the_older_file(tiny_disk: Path) -> None:
    target = tiny_disk / "a.txt"
    write_text(target, "older")
    with pytest.raises(OutputError, match="space for a") as caught:
        write_text(target, "x" * 200_000)
    assert caught.value.code == "disk-full"
    assert target.read_text() == "older"
    assert _names(tiny_disk) == ["a.txt"]


def test_a_full_disk_stops_a_mask_and_its_threads(tiny_disk: Path) -> None:
    noise = np.random.default_rng(0).integers(-999, 999, (1, 100, 100, 100)).astype(np.int16)
    started = time.monotonic()
    with pytest.raises(OutputError) as caught:
        write_nifti_image(Volume(noise, np.eye(4)), tiny_disk / "a.nii.gz")
    assert caught.value.code == "disk-full"
    assert _names(tiny_disk) == []
    assert time.monotonic() - started < 60  # threads that wait for ever would hang


def test_a_read_only_disk_is_said_to_be_one(tiny_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(OutputError) as caught:
        write_text(tiny_disk / "a.txt", "text")
    assert caught.value.code == "output-not-writable"


def test_json_is_strict_and_readable(tmp_path: Path) -> None:
    document = {
        "b": float("nan"),
        "a": [np.float32(0.5), np.int64(3), np.inf, True, None],
        "path": Path("x") / "y",
        "array": np.array([[1, 2], [3, 4]], np.uint8),
        "name": "Leber groß",
        7: (1, 2),
    }
    write_json(tmp_path / "a.json", document)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "groß" in text
    assert text.endswith("}\n")
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read == {
        "b": None,
        "a": [0.5, 3, None, True, None],
        "path": str(Path("x") / "y"),
        "array": [[1, 2], [3, 4]],
        "name": "Leber groß",
        "7": [1, 2],
    }
    assert list(read) == ["b", "a", "path", "array", "name", "7"]


def test_what_has_no_json_form_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    with pytest.raises(TypeError):
        json_text({"a": b"bytes"})
    assert _names(tmp_path) == []


def test_a_folder_is_exchanged_as_a_whole(tmp_path) -> None:
    final = tmp_path / "case"
    with atomic_folder(final) as part:
        (part / "old").write_text("1")
        assert not final.exists()
    with atomic_folder(final) as part:
        (part / "new").write_text("2")
        assert [file.name for file in final.iterdir()] == ["old"]
    assert [file.name for file in final.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_a_folder_stays_as_it_was_when_the_block_fails(tmp_path) -> None:
    final = tmp_path / "case"
    final.mkdir()
    (final / "old").write_text("1")

    def fail() -> None:
        with atomic_folder(final) as part:
            (part / "new").write_text("2")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["case", "old"]


def test_a_folder_may_have_the_longest_name(tmp_path) -> None:
    final = tmp_path / ("日" * 80)  # 240 bytes
    for text in ("1", "2"):
        with atomic_folder(final) as part:
            (part / "file").write_text(text)
    assert (final / "file").read_text() == "2"


def test_an_earlier_folder_comes_back_when_the_exchange_fails(tmp_path, monkeypatch) -> None:
    final = tmp_path / "case"
    final.mkdir()
    (final / "old").write_text("1")
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if (self / "new").exists():
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(OutputError), atomic_folder(final) as part:
        (part / "new").write_text("2")
    assert [path.name for path in tmp_path.rglob("*")] == ["case", "old"]


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = tmp_path / f"{PART_PREFIX}{child.pid}-00000000-case"
    dead.mkdir()
    (dead / "mask").touch()
    (tmp_path / f"{PART_PREFIX}{child.pid}-00000000-file").touch()
    alive = tmp_path / f"{PART_PREFIX}{os.getpid()}-00000000-case"
    alive.mkdir()
    (tmp_path / "mine").touch()
    remove_left_parts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "mine"]


def test_who_writes_alone_removes_what_a_process_of_its_own_number_left(tmp_path) -> None:
    (tmp_path / f"{PART_PREFIX}{os.getpid()}-00000000-case").mkdir()
    remove_left_parts(tmp_path)
    assert len(_names(tmp_path)) == 1
    remove_left_parts(tmp_path, alone=True)
    assert _names(tmp_path) == []


def test_a_folder_whose_successor_never_took_its_place_comes_back(tmp_path, monkeypatch) -> None:
    final = tmp_path / "case"
    with atomic_folder(final) as part:
        (part / "mask").write_text("1")
    code = (
        "import os, sys; from pathlib import Path; from medseg.io.atomic import atomic_folder\n"
        "final, rename = Path(sys.argv[1]), Path.rename\n"
        "def killed(self, target):\n"
        "    if target == final: os._exit(9)\n"
        "    return rename(self, target)\n"
        "Path.rename = killed\n"
        "with atomic_folder(final) as part: (part / 'mask').write_text('2')\n"
    )
    monkeypatch.chdir(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code, str(final)], check=False)
    assert done.returncode == 9
    assert not final.exists()
    remove_left_parts(tmp_path)
    assert _names(tmp_path) == ["case"]
    assert (final / "mask").read_text() == "1"


def test_an_unfinished_folder_is_never_taken_for_one_that_was_set_aside(tmp_path) -> None:
    for name in ("~case", "-~case", "-old-case"):
        with suppress(KeyError), atomic_folder(tmp_path / name) as part:
            part.rename(tmp_path / part.name.replace(str(os.getpid()), "99999999"))
            raise KeyError
    assert len(_names(tmp_path)) == 3
    remove_left_parts(tmp_path)
    assert _names(tmp_path) == []


def test_a_folder_that_another_process_wrote_first_is_kept(tmp_path) -> None:
    final = tmp_path / "entry"
    with atomic_folder(final, keep=True) as part:
        (part / "mine").write_text("1")
        final.mkdir()
        (final / "theirs").write_text("2")
    assert [path.name for path in final.iterdir()] == ["theirs"]
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_young_parts_of_ended_processes_stay_where_machines_share_a_folder(tmp_path) -> None:
    old, young = (tmp_path / f".part-{2**22 + 1}-{name}" for name in ("old", "young"))
    for part in (old, young):
        part.mkdir()
    os.utime(old, (1e9, 1e9))
    remove_left_parts(tmp_path, older_than_s=3600)
    assert not old.exists()
    assert young.exists()
    remove_left_parts(tmp_path)
    assert not young.exists()


def test_what_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{PART_PREFIX}999999999-{name}").write_bytes(b"x")
    unlink = Path.unlink

    def refused(path: Path, *, missing_ok: bool = False) -> None:
        if path.name.endswith("a"):
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    remove_left_parts(tmp_path)
    assert [left.name for left in tmp_path.iterdir()] == [f"{PART_PREFIX}999999999-a"]
