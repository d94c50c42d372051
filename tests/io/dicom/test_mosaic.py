"""Tiled files: unfolded when their slices can be placed, refused when not."""

import struct
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence

from medseg.geometry import apply_affine
from medseg.io.dicom import DicomVolume, find_series, read_volume
from tests.io.dicom.synthetic import ct_pixels, header, item, save, set_pixels

ROWS, COLUMNS, SLICES, ACROSS = 8, 10, 7, 3
OBLIQUE = (1.0, 0.0, 0.0, 0.0, 0.8, -0.6)
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])
FIRST = np.array([-20.0, -30.0, 5.0])
STEP = 3.5


def _picture(slices: np.ndarray) -> np.ndarray:
    picture = np.zeros((ACROSS * ROWS, ACROSS * COLUMNS), slices.dtype)
    for number, plane in enumerate(slices):
        row, column = number // ACROSS * ROWS, number % ACROSS * COLUMNS
        picture[row : row + ROWS, column : column + COLUMNS] = plane
    return picture


def _csa(elements: dict[str, list[float]]) -> bytes:
    data = b"SV10\4\3\2\1" + struct.pack("<II", len(elements), 77)
    for name, values in elements.items():
        data += struct.pack("<64si4siii", name.encode(), len(values), b"FD", 4, len(values), 77)
        for value in values:
            word = f"{value:.8f}".encode() + b"\0"
            data += struct.pack("<4i", len(word), len(word), 77, len(word))
            data += word.ljust((len(word) + 3) // 4 * 4, b"\0")
    return data


def _siemens(slices: np.ndarray, normal: np.ndarray | None, **tags: object) -> FileDataset:
    hidden = (np.array([ACROSS * COLUMNS, ACROSS * ROWS]) - [COLUMNS, ROWS]) / 2
    corner = (
        FIRST - 2.0 * hidden[0] * np.array(OBLIQUE[:3]) - 1.5 * hidden[1] * np.array(OBLIQUE[3:])
    )
    ds = header(
        **{
            "Modality": "MR",
            "Manufacturer": "SIEMENS",
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"],
            "ImagePositionPatient": corner.tolist(),
            "ImageOrientationPatient": list(OBLIQUE),
            "PixelSpacing": [1.5, 2.0],
            "SpacingBetweenSlices": STEP,
            **tags,
        }
    )
    set_pixels(ds, _picture(slices))
    ds.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
    ds.add_new(0x0019100A, "US", len(slices))
    if normal is not None:
        ds.add_new(0x00290010, "LO", "SIEMENS CSA HEADER")
        ds.add_new(0x00291010, "OB", _csa({"EchoTime": [3], "SliceNormalVector": normal.tolist()}))
    return ds


def _only(path: Path) -> DicomVolume:
    (series,) = find_series(path).series
    (volume,) = series.volumes
    return volume


def _slices(seed: int = 0) -> np.ndarray:
    return ct_pixels(SLICES, ROWS, COLUMNS, seed)


@pytest.mark.parametrize("sign", [1, -1])
def test_siemens_tiles_lie_along_the_stated_normal(tmp_path: Path, sign: int) -> None:
    save(_siemens(_slices(), sign * NORMAL), tmp_path / "one")
    volume = read_volume(_only(tmp_path))
    ordered = _slices()[::sign]
    np.testing.assert_array_equal(volume.array[0], ordered.transpose(2, 1, 0))
    world = apply_affine(
        volume.affine, [[0, 0, 0 if sign > 0 else SLICES - 1], [1, 0, 0], [0, 0, 0]]
    )
    np.testing.assert_allclose(world[0], FIRST * [-1, -1, 1], atol=1e-6)
    np.testing.assert_allclose(world[1] - world[2], [-2, 0, 0], atol=1e-9)
    assert volume.spacing_mm == pytest.approx((2.0, 1.5, STEP))


def test_mosaics_in_time_are_frames(tmp_path: Path) -> None:
    for time in range(3):
        save(
            _siemens(_slices(time), NORMAL, AcquisitionNumber=time + 1, InstanceNumber=time + 1),
            tmp_path / str(time),
        )
    volume = _only(tmp_path)
    assert volume.frames == 3
    array = read_volume(volume).array
    for time in range(3):
        np.testing.assert_array_equal(array[time], _slices(time).transpose(2, 1, 0))


@pytest.mark.parametrize("lack", ["normal", "spacing", "damaged"])
def test_mosaic_that_cannot_be_placed_is_refused(tmp_path: Path, lack: str) -> None:
    tags = {"SpacingBetweenSlices": None} if lack == "spacing" else {}
    ds = _siemens(_slices(), None if lack == "normal" else NORMAL, **tags)
    if lack == "damaged":
        ds[0x00291010].value = ds[0x00291010].value[:90]
    save(ds, tmp_path / "one")
    volume = _only(tmp_path)
    assert [p.code for p in volume.problems if p.is_error] == ["unreadable-mosaic"]


def _uih(slices: np.ndarray, positions: list[np.ndarray]) -> FileDataset:
    ds = header(
        Modality="MR",
        Manufacturer="UIH",
        ImageType=["ORIGINAL", "PRIMARY", "M"],
        ImageOrientationPatient=list(OBLIQUE),
        PixelSpacing=[1.5, 2.0],
    )
    set_pixels(ds, _picture(slices))
    ds.add_new(0x00650010, "LO", "Image Private Header")
    ds.add_new(0x00651050, "DS", str(len(slices)))
    tiles: list[Dataset] = [item(ImagePositionPatient=position.tolist()) for position in positions]
    ds.add_new(0x00651051, "SQ", Sequence(tiles))
    return ds


def test_uih_tiles_lie_where_their_list_says(tmp_path: Path) -> None:
    positions = [FIRST + STEP * k * NORMAL for k in range(SLICES)]
    save(_uih(_slices(), positions), tmp_path / "one")
    volume = read_volume(_only(tmp_path))
    np.testing.assert_array_equal(volume.array[0], _slices().transpose(2, 1, 0))
    np.testing.assert_allclose(volume.affine[:3, 3], FIRST * [-1, -1, 1], atol=1e-6)


def test_uih_tiles_without_all_positions_are_refused(tmp_path: Path) -> None:
    save(_uih(_slices(), [FIRST + STEP * k * NORMAL for k in range(SLICES - 1)]), tmp_path / "one")
    assert [p.code for p in _only(tmp_path).problems] == ["unreadable-mosaic"]
