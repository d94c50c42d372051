"""Discovery: what counts as DICOM, what is listed, and what never appears in a message."""

import gc
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.fileset import FileSet

from medseg.errors import DicomError, InputError
from medseg.io.dicom import Scan, find_series, read_volume
from tests.io.dicom.synthetic import PLANTED, ct_pixels, header, save, write_series


def _codes(scan: Scan) -> dict[str, str]:
    return {rejected.path.name: rejected.code for rejected in scan.rejected}


def test_series_are_found_at_any_depth_in_any_mixture(tmp_path: Path) -> None:
    write_series(tmp_path / "a" / "b" / "c", ct_pixels(), SeriesInstanceUID="1.2.1")
    write_series(tmp_path / "a", ct_pixels(), SeriesInstanceUID="1.2.2")
    paths = write_series(tmp_path / "spread", ct_pixels(), SeriesInstanceUID="1.2.3")
    (tmp_path / "elsewhere").mkdir()
    paths[0].rename(tmp_path / "elsewhere" / "slice")
    scan = find_series(tmp_path)
    assert [s.series_instance_uid for s in scan.series] == ["1.2.1", "1.2.2", "1.2.3"]
    assert all(s.volumes[0].usable and s.instances == 5 for s in scan.series)


def test_several_paths_and_single_files_count_once(tmp_path: Path) -> None:
    paths = write_series(tmp_path, ct_pixels())
    scan = find_series([tmp_path, *paths])
    assert [s.instances for s in scan.series] == [5]
    assert scan.series[0].volumes[0].problems == ()


def test_other_files_are_rejected_with_their_reason(tmp_path: Path) -> None:
    paths = write_series(tmp_path, ct_pixels())
    (tmp_path / "notes.txt").write_text("nothing to see here, at some length " * 9)
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "short").write_bytes(b"\x08\x00")
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(4000))
    (tmp_path / "cut").write_bytes(paths[0].read_bytes()[:140])
    save(header(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Modality="SR"), tmp_path / "report")
    scan = find_series(tmp_path)
    assert _codes(scan) == {
        "notes.txt": "not-dicom",
        "empty.dcm": "empty-file",
        "short": "not-dicom",
        "noise": "not-dicom",
        "cut": "truncated",
        "report": "not-an-image",
    }
    assert scan.series[0].volumes[0].usable


def test_header_cut_short_never_raises(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, ct_pixels(1))
    data = path.read_bytes()
    for end in range(132, len(data), 7):
        path.write_bytes(data[:end])
        scan = find_series(path)
        assert len(scan.rejected) + len(scan.series) == 1
        assert not any(v.usable for s in scan.series for v in s.volumes)


def test_dataset_without_preamble_is_read(tmp_path: Path) -> None:
    for path in write_series(tmp_path, ct_pixels()):
        ds = dcmread(path)
        buffer = io.BytesIO()
        ds.file_meta.clear()
        ds.preamble = None
        ds.save_as(buffer, enforce_file_format=False, implicit_vr=True)
        path.write_bytes(buffer.getvalue())
    (series,) = find_series(tmp_path).series
    volume = read_volume(series.volumes[0])
    np.testing.assert_array_equal(
        volume.array[0], ct_pixels().transpose(2, 1, 0).astype(int) - 1024
    )


def test_folder_without_files_gives_nothing(tmp_path: Path) -> None:
    scan = find_series(tmp_path)
    assert (scan.series, scan.rejected) == ((), ())


def test_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must exist") as caught:
        find_series(tmp_path / "nowhere")
    assert caught.value.code == "not-found"


def _media(folder: Path, source: Path) -> Path:
    files = FileSet()
    for path in write_series(
        source,
        ct_pixels(),
        StudyDate="20200101",
        StudyTime="120000",
        StudyID="1",
        AccessionNumber="",
    ):
        files.add(path)
    files.write(folder)
    with warnings.catch_warnings():  # pydicom leaves its temporary folder to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        del files
        gc.collect()
    return folder / "DICOMDIR"


def test_dicomdir_stands_for_the_files_it_lists(tmp_path: Path) -> None:
    directory = _media(tmp_path / "media", tmp_path / "source")
    write_series(tmp_path / "media" / "unlisted", ct_pixels(), SeriesInstanceUID="1.2.99")
    scan = find_series(directory)
    (series,) = scan.series
    assert (series.instances, series.volumes[0].usable, scan.rejected) == (5, True, ())


def test_file_missing_from_a_dicomdir_is_listed(tmp_path: Path) -> None:
    directory = _media(tmp_path / "media", tmp_path / "source")
    files = [p for p in (tmp_path / "media").rglob("*") if p.is_file() and p != directory]
    files[0].unlink()
    scan = find_series(directory)
    assert [r.code for r in scan.rejected] == ["missing-file"]
    assert scan.series[0].instances == 4


def test_dicomdir_inside_a_folder_is_neither_image_nor_error(tmp_path: Path) -> None:
    directory = _media(tmp_path / "media", tmp_path / "source")
    scan = find_series(directory.parent)
    assert scan.rejected == ()
    assert [s.instances for s in scan.series] == [5]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_series(tmp_path / "a", ct_pixels())
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    assert [s.instances for s in find_series(tmp_path).series] == [5]


def test_progress_counts_every_file(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels())
    seen: list[tuple[int, int]] = []
    find_series(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]


def test_no_message_holds_a_patient_identifier_or_the_folder(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "gap", ct_pixels(8), SeriesInstanceUID="1.2.1")
    paths[3].unlink()
    write_series(tmp_path / "clash", ct_pixels(seed=1), SeriesInstanceUID="1.2.2")
    write_series(tmp_path / "clash2", ct_pixels(seed=2), SeriesInstanceUID="1.2.2")
    (cut, *_) = write_series(tmp_path / "cut", ct_pixels(), SeriesInstanceUID="1.2.3")
    cut.write_bytes(cut.read_bytes()[:-9])
    write_series(tmp_path / "one", ct_pixels(1), SeriesInstanceUID="1.2.4")
    write_series(tmp_path / "raw", ct_pixels(), SeriesInstanceUID="1.2.5", RescaleIntercept=0)
    write_series(tmp_path / "nogeo", ct_pixels(), SeriesInstanceUID="1.2.6", PixelSpacing=None)
    save(header(Modality="SR", SOPClassUID="1.2.3"), tmp_path / "report")
    scan = find_series(tmp_path)
    messages = [r.message for r in scan.rejected]
    for volume in (v for s in scan.series for v in s.volumes):
        messages += [p.message for p in (*volume.problems,)]
        with pytest.raises(DicomError) as caught:
            read_volume(volume)
        messages.append(str(caught.value))
    assert len(messages) >= 13
    for message in messages:
        assert not any(planted in message for planted in PLANTED), message
        assert str(tmp_path) not in message


def test_inputs_are_not_written_to(tmp_path: Path) -> None:
    paths = write_series(tmp_path, ct_pixels())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths]
    read_volume(find_series(tmp_path).series[0].volumes[0])
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in paths] == before
