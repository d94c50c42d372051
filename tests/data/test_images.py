"""Images of a folder, for configs that list what is to be segmented."""

from pathlib import Path

import pytest

from medseg.data import images_in
from medseg.errors import InputError


def touch(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return str(folder)


def test_numbered_files_are_channels_of_a_scan_and_frames_of_a_video(tmp_path: Path) -> None:
    scans = touch(tmp_path / "a", "b_0000.nii.gz", "b_0001.nii.gz", "a.nii.gz", "notes.txt")
    listed = images_in(scans)
    assert [[Path(p).name for p in ([one] if isinstance(one, str) else one)] for one in listed] == [
        ["a.nii.gz"],
        ["b_0000.nii.gz", "b_0001.nii.gz"],
    ]
    frames = touch(tmp_path / "v", "f_0000.png", "f_0001.png")
    names = [Path(str(one)).name for one in images_in(frames, several=False)]
    assert names == ["f_0000.png", "f_0001.png"]


@pytest.mark.parametrize("names", [(), ("notes.txt",)])
def test_nothing_to_segment_is_an_error(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="got none in") as caught:
        images_in(touch(tmp_path / "x", *names))
    assert caught.value.code == "no-cases"
    with pytest.raises(InputError):
        images_in(str(tmp_path / "not there"))
