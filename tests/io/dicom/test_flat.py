"""Pictures without a place in the patient."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from medseg.errors import UsageError
from medseg.io.dicom import DicomVolume, find_series, read_volume
from tests.io.dicom.synthetic import header, save, set_pixels

FLAT = {
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    "Modality": "CR",
    "ImagePositionPatient": None,
    "ImageOrientationPatient": None,
    "PixelSpacing": None,
}


def _picture(
    path: Path, pixels: np.ndarray, layout: dict[str, Any] | None = None, **tags: Any
) -> DicomVolume:
    ds = header(**{**FLAT, **tags})
    set_pixels(ds, pixels, **(layout or {}))
    save(ds, path / "picture")
    (series,) = find_series(path).series
    (volume,) = series.volumes
    return volume


def _grey(dtype: type = np.uint16, high: int = 4095) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, (20, 30)).astype(dtype)


def _colour() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)


@pytest.mark.parametrize("modality", ["CR", "DX", "MG", "US", "OT", "XA"])
def test_picture_is_usable_with_its_spacing(tmp_path: Path, modality: str) -> None:
    found = _picture(tmp_path, _grey(), Modality=modality, ImagerPixelSpacing=[0.2, 0.3])
    assert (found.is_2d, found.usable, found.orientation) == (True, True, "")
    assert found.size == (30, 20, 1)
    assert found.spacing_mm == pytest.approx((0.3, 0.2, 0))
    volume = read_volume(found)
    assert volume.is_2d
    assert volume.source.has_spacing
    np.testing.assert_array_equal(volume.array[0], _grey())
    np.testing.assert_allclose(volume.affine, np.diag([0.2, 0.3, 1]))


def test_pixel_spacing_goes_before_the_detectors(tmp_path: Path) -> None:
    found = _picture(tmp_path, _grey(), PixelSpacing=[0.1, 0.15], ImagerPixelSpacing=[0.2, 0.3])
    assert read_volume(found).spacing_mm == pytest.approx((0.1, 0.15))


def test_picture_without_spacing_says_so(tmp_path: Path) -> None:
    found = _picture(tmp_path, _grey())
    volume = read_volume(found)
    assert found.spacing_mm == (0, 0, 0)
    assert not volume.source.has_spacing
    np.testing.assert_array_equal(volume.affine, np.eye(3))


def test_monochrome1_is_turned_round(tmp_path: Path) -> None:
    layout = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12}
    volume = read_volume(_picture(tmp_path, _grey(), layout))
    np.testing.assert_array_equal(volume.array[0], 4095 - _grey())


def test_rgb_gives_three_channels(tmp_path: Path) -> None:
    volume = read_volume(_picture(tmp_path, _colour()))
    np.testing.assert_array_equal(volume.array, _colour().transpose(2, 0, 1))


def test_planar_rgb_gives_three_channels(tmp_path: Path) -> None:
    ds = header(**FLAT)
    set_pixels(ds, _colour(), PlanarConfiguration=1)
    ds.PixelData = _colour().transpose(2, 0, 1).tobytes()
    save(ds, tmp_path / "picture")
    volume = find_series(tmp_path).series[0].volumes[0]
    np.testing.assert_array_equal(read_volume(volume).array, _colour().transpose(2, 0, 1))


@pytest.mark.parametrize("photometric", ["YBR_FULL", "RGB"])
def test_colours_agree_with_simpleitk(tmp_path: Path, photometric: str) -> None:
    found = _picture(tmp_path, _colour(), {"PhotometricInterpretation": photometric})
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "picture")))
    difference = read_volume(found).array.astype(int) - expected.squeeze().transpose(2, 0, 1)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_jpeg_colours_agree_with_the_original_within_loss(tmp_path: Path, photometric: str) -> None:
    x, y = np.mgrid[:32, :48]
    colour = np.stack([x * 8, 255 - x * 7, y * 5], -1).astype(np.uint8)
    space = "YCBCR" if photometric == "YBR_FULL_422" else "RGB"
    ds = header(**FLAT, TransferSyntaxUID="1.2.840.10008.1.2.4.50")
    set_pixels(ds, colour, PhotometricInterpretation=photometric)
    stream = imagecodecs.jpeg8_encode(colour, level=98, colorspace="RGB", outcolorspace=space)
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    save(ds, tmp_path / "picture")
    array = read_volume(find_series(tmp_path).series[0].volumes[0]).array
    assert np.abs(array.transpose(1, 2, 0).astype(int) - colour).max() < 12


def test_run_length_colours(tmp_path: Path) -> None:
    ds = header(**FLAT)
    set_pixels(ds, _colour())
    ds.compress(RLELossless, generate_instance_uid=False)
    save(ds, tmp_path / "picture")
    volume = find_series(tmp_path).series[0].volumes[0]
    np.testing.assert_array_equal(read_volume(volume).array, _colour().transpose(2, 0, 1))


def test_palette_is_looked_up(tmp_path: Path) -> None:
    indices = _grey(np.uint8, 4)
    table = np.array([[0, 10, 20], [30, 40, 50], [60, 70, 80], [90, 100, 255]], np.uint16)
    palettes = {
        f"{name}PaletteColorLookupTable{what}": value
        for column, name in enumerate(("Red", "Green", "Blue"))
        for what, value in (
            ("Descriptor", [4, 0, 16]),
            ("Data", (table[:, column] << 8).astype("<u2").tobytes()),
        )
    }
    layout = {"PhotometricInterpretation": "PALETTE COLOR"}
    volume = read_volume(_picture(tmp_path, indices, layout, **palettes))
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array, table[indices].transpose(2, 0, 1))


def test_cine_frames_are_channels(tmp_path: Path) -> None:
    cine = np.stack([_grey() // (k + 1) for k in range(4)])
    found = _picture(tmp_path, cine, Modality="XA")
    assert (found.frames, found.size) == (4, (30, 20, 1))
    np.testing.assert_array_equal(read_volume(found).array, cine)
    np.testing.assert_array_equal(read_volume(found, frame=2).array, cine[2:3])


def test_colour_cine_is_read_a_frame_at_a_time(tmp_path: Path) -> None:
    cine = np.stack([_colour(), _colour()[::-1]])
    found = _picture(tmp_path, cine, Modality="US")
    with pytest.raises(UsageError, match="frame must be given"):
        read_volume(found)
    np.testing.assert_array_equal(read_volume(found, frame=1).array, cine[1].transpose(2, 0, 1))
    with pytest.raises(UsageError, match="0 to 1, got 2"):
        read_volume(found, frame=2)


def test_pictures_of_one_series_are_volumes_of_their_own(tmp_path: Path) -> None:
    for number in range(3):
        ds = header(**FLAT, InstanceNumber=number)
        set_pixels(ds, _grey() // (number + 1))
        save(ds, tmp_path / str(number))
    (series,) = find_series(tmp_path).series
    assert [v.usable for v in series.volumes] == [True] * 3
    for number, volume in enumerate(series.volumes):
        np.testing.assert_array_equal(read_volume(volume).array[0], _grey() // (number + 1))


def test_secondary_capture_of_a_ct_is_a_picture_apart_from_the_volume(tmp_path: Path) -> None:
    found = _picture(tmp_path, _colour(), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.7")
    assert (found.is_2d, found.usable) == (True, True)
