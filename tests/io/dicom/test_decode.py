"""Every transfer syntax and pixel layout gives the stored values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medseg.errors import DicomError
from medseg.io.dicom import DicomVolume, find_series, read_volume
from tests.io.dicom.synthetic import ct_pixels, enhanced, header, save, set_pixels, write_series

Encoder = Callable[[np.ndarray], bytes]


def _only(path: Path) -> DicomVolume:
    (series,) = find_series(path).series
    (volume,) = series.volumes
    return volume


def _expected(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 1, 0).astype(np.int32) - 1024


def _rewrite(paths: list[Path], syntax: str) -> None:
    for path in paths:
        ds = dcmread(path)
        if syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
            ds.compress(syntax, generate_instance_uid=False)
            ds.save_as(path, enforce_file_format=True)
            continue
        ds.file_meta.TransferSyntaxUID = syntax
        ds.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, enforce_file_format=True)


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
        JPEGLSLossless,
    ],
    ids=lambda uid: uid.name,
)
def test_lossless_syntax_gives_the_stored_values(tmp_path: Path, syntax: str) -> None:
    pixels = ct_pixels(5, 64, 64)
    _rewrite(write_series(tmp_path, pixels), syntax)
    volume = _only(tmp_path)
    assert volume.usable, volume.problems
    array = read_volume(volume).array
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array[0], _expected(pixels))


def test_big_endian_gives_the_stored_values(tmp_path: Path) -> None:
    pixels = ct_pixels()
    write_series(tmp_path, pixels.astype(">u2"), TransferSyntaxUID=ExplicitVRBigEndian)
    np.testing.assert_array_equal(read_volume(_only(tmp_path)).array[0], _expected(pixels))


def _encapsulated_series(
    folder: Path, pixels: np.ndarray, syntax: str, encode: Encoder, **layout: Any
) -> None:
    for k, plane in enumerate(pixels):
        ds = header(
            TransferSyntaxUID=syntax,
            ImagePositionPatient=[0.0, 0.0, 2.0 * k],
            InstanceNumber=k + 1,
            RescaleIntercept=-1024 if pixels.dtype == np.uint16 else -128,
        )
        set_pixels(ds, plane, **layout)
        ds.PixelData = encapsulate([encode(plane)])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        save(ds, folder / f"{k}.dcm")


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        ("1.2.840.10008.1.2.4.57", lambda a: imagecodecs.ljpeg_encode(a, bitspersample=16)),
        (
            "1.2.840.10008.1.2.4.70",
            lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=1, bitspersample=16),
        ),
        (
            "1.2.840.10008.1.2.4.57",
            lambda a: imagecodecs.jpeg8_encode(a, lossless=True, predictor=6, bitspersample=16),
        ),
        ("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode),
        (
            "1.2.840.10008.1.2.4.90",
            lambda a: imagecodecs.jpeg2k_encode(a, level=0, codecformat="j2k"),
        ),
        ("1.2.840.10008.1.2.4.201", lambda a: imagecodecs.htj2k_encode(a, reversible=True)),
    ],
    ids=["lossless 14", "lossless SV1", "predictor 6", "JPEG-LS", "JPEG 2000", "HTJ2K"],
)
def test_code_stream_of_an_independent_encoder_is_decoded(
    tmp_path: Path, syntax: str, encode: Encoder
) -> None:
    pixels = ct_pixels(3, 32, 32)
    _encapsulated_series(tmp_path, pixels, syntax, encode)
    np.testing.assert_array_equal(read_volume(_only(tmp_path)).array[0], _expected(pixels))


@pytest.mark.parametrize("bits", [8, 12])
def test_lossy_jpeg_is_decoded_within_its_loss(tmp_path: Path, bits: int) -> None:
    x, y = np.mgrid[:32, :32]
    smooth = ((x + y) / 64 * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    pixels = np.stack([smooth, smooth.T, smooth[::-1]])
    syntax = "1.2.840.10008.1.2.4.50" if bits == 8 else "1.2.840.10008.1.2.4.51"
    _encapsulated_series(
        tmp_path,
        pixels,
        syntax,
        lambda a: imagecodecs.jpeg8_encode(a, level=98, bitspersample=bits),
        BitsStored=bits,
    )
    array = read_volume(_only(tmp_path)).array[0]
    intercept = 128 if bits == 8 else 1024
    difference = np.abs(array - (pixels.transpose(2, 1, 0).astype(int) - intercept))
    assert difference.max() <= 2 ** (bits - 6)


def _layout_series(folder: Path, stored: np.ndarray, **layout: Any) -> np.ndarray:
    write_series(folder, stored, layout=layout, RescaleIntercept=0)
    return read_volume(_only(folder)).array[0]


def test_twelve_signed_bits_are_extended_and_overlay_bits_cut_off(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-2048, 2047, (4, 10, 12), np.int16)
    overlay = np.random.default_rng(1).integers(0, 16, values.shape, np.uint16) << 12
    stored = ((values.astype(np.uint16) & 0xFFF) | overlay).view(np.int16)
    array = _layout_series(tmp_path, stored, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(array, values.transpose(2, 1, 0))


def test_values_in_the_high_bits_are_shifted_down(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-2048, 2047, (4, 10, 12), np.int16)
    array = _layout_series(tmp_path, values << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(array, values.transpose(2, 1, 0))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_signed_values_of_every_width(tmp_path: Path, dtype: type) -> None:
    stored = np.random.default_rng(0).integers(-120, 120, (4, 10, 12)).astype(dtype)
    array = _layout_series(tmp_path, stored)
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, stored.transpose(2, 1, 0))


def test_signed_jpeg_ls_with_unused_bits(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-2048, 2047, (3, 32, 32), np.int16)
    for k, plane in enumerate(values):
        ds = header(
            TransferSyntaxUID=JPEGLSLossless,
            ImagePositionPatient=[0.0, 0.0, float(k)],
            RescaleIntercept=0,
        )
        set_pixels(ds, plane, BitsStored=12, HighBit=11)
        stream = imagecodecs.jpegls_encode(plane.view(np.uint16) & 0xFFF)
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        save(ds, tmp_path / f"{k}.dcm")
    np.testing.assert_array_equal(read_volume(_only(tmp_path)).array[0], values.transpose(2, 1, 0))


def test_float_pixel_data_stays_float(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(4, 10, 12)).astype(np.float32)
    for k, plane in enumerate(values):
        ds = header(Modality="MR", ImagePositionPatient=[0.0, 0.0, float(k)])
        set_pixels(ds, plane.view(np.uint32), PixelRepresentation=0)
        ds.FloatPixelData = ds.PixelData
        del ds.PixelData
        save(ds, tmp_path / f"{k}.dcm")
    array = read_volume(_only(tmp_path)).array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[0], values.transpose(2, 1, 0))


def test_truncated_native_pixels_are_found_by_the_scan(tmp_path: Path) -> None:
    paths = write_series(tmp_path, ct_pixels(5, 64, 64))
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    volume = _only(tmp_path)
    (found,) = [p for p in volume.problems if p.is_error]
    assert found.code == "truncated"
    assert paths[1].name in found.message
    assert str(tmp_path) not in found.message


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda u: u.name
)
def test_truncated_compressed_file_is_found_by_the_scan(tmp_path: Path, syntax: str) -> None:
    paths = write_series(tmp_path, ct_pixels(5, 64, 64))
    _rewrite(paths, syntax)
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[: len(data) - 60])
    assert "truncated" in [p.code for p in _only(tmp_path).problems]


@pytest.mark.parametrize(
    "syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda u: u.name
)
def test_code_stream_cut_short_inside_a_whole_file_is_refused_on_reading(
    tmp_path: Path, syntax: str
) -> None:
    for k, plane in enumerate(ct_pixels(3, 64, 64)):
        ds = header(ImagePositionPatient=[0.0, 0.0, float(k)], InstanceNumber=k + 1)
        set_pixels(ds, plane)
        ds.compress(syntax, generate_instance_uid=False)
        if k == 0:
            stream = (
                imagecodecs.jpegls_encode(plane)
                if syntax == JPEGLSLossless
                else ds.PixelData[16:-8]
            )
            ds.PixelData = encapsulate([stream[: len(stream) // 2 // 2 * 2]])
            ds["PixelData"].is_undefined_length = True
        save(ds, tmp_path / f"{k}.dcm")
    volume = _only(tmp_path)
    assert volume.usable
    with pytest.raises(DicomError, match=r"0\.dcm") as caught:
        read_volume(volume)
    assert caught.value.code == "truncated"
    assert str(tmp_path) not in str(caught.value)


def test_unknown_transfer_syntax_is_refused(tmp_path: Path) -> None:
    _encapsulated_series(
        tmp_path, ct_pixels(5, 64, 64), "1.2.840.10008.1.2.4.103", lambda _: b"mpeg"
    )
    assert "unsupported-transfer-syntax" in [p.code for p in _only(tmp_path).problems]


def test_slice_without_pixel_data_makes_the_volume_unusable(tmp_path: Path) -> None:
    paths = write_series(tmp_path, ct_pixels(5, 64, 64))
    ds = dcmread(paths[0])
    del ds.PixelData
    ds.save_as(paths[0])
    volume = _only(tmp_path)
    assert [p.code for p in volume.problems if p.is_error] == ["no-pixel-data"]
    assert "1 of 5 files have no pixel data" in volume.problems[0].message


@pytest.mark.parametrize("table", [True, False])
def test_compressed_frames_of_one_file(tmp_path: Path, table: bool) -> None:
    pixels = ct_pixels(6, 32, 32)
    ds = enhanced(pixels, [(0, 0, 3.0 * k) for k in range(6)])
    streams = [imagecodecs.jpeg2k_encode(plane, level=0, codecformat="j2k") for plane in pixels]
    ds.PixelData = encapsulate(streams, fragments_per_frame=2, has_bot=table)
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    save(ds, tmp_path / "a.dcm")
    array = read_volume(_only(tmp_path)).array[0]
    np.testing.assert_array_equal(array, pixels.transpose(2, 1, 0))


def test_compressed_pixels_are_compared_when_positions_repeat(tmp_path: Path) -> None:
    pixels = ct_pixels(5, 64, 64)
    write_series(tmp_path, pixels)
    copies = write_series(tmp_path / "again", pixels)
    _rewrite(copies, JPEG2000Lossless)
    volume = _only(tmp_path)
    assert volume.usable
    assert [p.code for p in volume.problems] == ["duplicate-instance"]


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
def test_signed_twelve_bit_values_survive_compression(tmp_path: Path, syntax: str) -> None:
    values = np.random.default_rng(0).integers(-2048, 2047, (3, 64, 64), np.int16)
    layout = {"BitsStored": 12, "HighBit": 11}
    _rewrite(write_series(tmp_path, values, layout=layout, RescaleIntercept=0), syntax)
    np.testing.assert_array_equal(read_volume(_only(tmp_path)).array[0], values.transpose(2, 1, 0))


def test_file_that_vanishes_after_the_scan_is_an_error_of_its_own(tmp_path: Path) -> None:
    paths = write_series(tmp_path, ct_pixels())
    volume = _only(tmp_path)
    paths[0].unlink()
    with pytest.raises(DicomError, match="must stay readable") as caught:
        read_volume(volume)
    assert caught.value.code == "unreadable"


def test_impossible_number_of_frames_is_refused_at_once(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), layout={"NumberOfFrames": 2_000_000_000})
    assert "truncated" in [p.code for p in _only(tmp_path).problems]
