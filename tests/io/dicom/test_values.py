"""Rescaled values: types, per-slice slopes, units, padding, and the check for HU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.io.dicom import DicomVolume, find_series, read_volume
from tests.io.dicom.synthetic import ct_pixels, item, write_series


def _only(path: Path) -> DicomVolume:
    (series,) = find_series(path).series
    (volume,) = series.volumes
    return volume


def _errors(volume: DicomVolume) -> list[str]:
    return [p.code for p in volume.problems if p.is_error]


def test_ct_is_int16_hounsfield_units(tmp_path: Path) -> None:
    pixels = ct_pixels()
    write_series(tmp_path, pixels)
    array = read_volume(_only(tmp_path)).array
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array[0], pixels.transpose(2, 1, 0).astype(int) - 1024)


def test_ct_with_an_integer_slope_is_int16(tmp_path: Path) -> None:
    pixels = ct_pixels()
    write_series(tmp_path, pixels, RescaleSlope=2)
    array = read_volume(_only(tmp_path)).array
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array[0], pixels.transpose(2, 1, 0).astype(int) * 2 - 1024)


def test_ct_beyond_int16_becomes_float32_rather_than_wrong(tmp_path: Path) -> None:
    pixels = ct_pixels()
    pixels[2, 3, 4] = 65000
    write_series(tmp_path, pixels)
    array = read_volume(_only(tmp_path)).array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array[0], pixels.transpose(2, 1, 0).astype(int) - 1024)


@pytest.mark.parametrize("modality", ["PT", "MR"])
def test_slope_of_each_slice_is_applied(tmp_path: Path, modality: str) -> None:
    pixels = ct_pixels()
    slopes = [0.5, 1.25, 2.0, 3.1, 0.07]
    write_series(
        tmp_path,
        pixels,
        per_slice=[{"RescaleSlope": slope, "RescaleIntercept": 0} for slope in slopes],
        Modality=modality,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.128"
        if modality == "PT"
        else "1.2.840.10008.5.1.4.1.1.4",
        Units="BQML" if modality == "PT" else None,
    )
    array = read_volume(_only(tmp_path)).array
    assert array.dtype == np.float32
    expected = pixels.transpose(2, 1, 0) * np.float32(slopes)
    np.testing.assert_allclose(array[0], expected, rtol=1e-6)


def test_integer_intercepts_of_each_slice_are_applied_in_place(tmp_path: Path) -> None:
    pixels = ct_pixels()
    intercepts = [-1024, -1000, -1024, -900, -1024]
    write_series(tmp_path, pixels, per_slice=[{"RescaleIntercept": b} for b in intercepts])
    array = read_volume(_only(tmp_path)).array
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array[0], pixels.transpose(2, 1, 0) + np.array(intercepts))


def test_unsigned_16_bit_mr_keeps_its_values(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65535, (4, 8, 9), np.uint16)
    write_series(tmp_path, pixels, Modality="MR")
    array = read_volume(_only(tmp_path)).array
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array[0], pixels.transpose(2, 1, 0))


@pytest.mark.parametrize(
    "per_slice",
    [
        [{"RescaleType": "HU"}] * 3 + [{"RescaleType": "US"}] * 2,
        [{}] * 3 + [{"RescaleSlope": None, "RescaleIntercept": None}] * 2,
    ],
    ids=["two units", "some without rescale"],
)
def test_slices_of_different_units_are_refused(
    tmp_path: Path, per_slice: list[dict[str, Any]]
) -> None:
    write_series(tmp_path, ct_pixels(), per_slice=per_slice)
    assert _errors(_only(tmp_path)) == ["mixed-units"]


def test_slope_of_zero_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), RescaleSlope=0)
    assert _errors(_only(tmp_path)) == ["bad-rescale"]


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleSlope": None, "RescaleIntercept": None},
        {"RescaleIntercept": 0},
        {"RescaleType": "US"},
        {"RescaleIntercept": 8000},
        {"RescaleIntercept": -32000},
        {
            "ModalityLUTSequence": [
                item(LUTDescriptor=[4, 0, 16], ModalityLUTType="HU", LUTData=b"\0\0\1\0\2\0\3\0")
            ]
        },
    ],
    ids=["no rescale", "no intercept", "other unit", "too dense", "too thin", "look-up table"],
)
def test_ct_that_is_not_in_hounsfield_units_is_refused(
    tmp_path: Path, tags: dict[str, Any]
) -> None:
    write_series(tmp_path, ct_pixels(), **tags)
    assert _errors(_only(tmp_path)) == ["not-hu-like"]


@pytest.mark.parametrize(
    "values",
    [
        np.full((5, 9, 9), -1000),  # air
        np.random.default_rng(0).normal(40, 15, (5, 9, 9)),  # inside an organ, noise below zero
        np.random.default_rng(0).normal(-800, 60, (5, 9, 9)),  # lung
        np.where(np.arange(9) < 5, -3024, 100) * np.ones((5, 9, 1)),  # padding beside tissue
        np.where(np.arange(9) < 5, -1024, 3071) * np.ones((5, 9, 1)),  # metal
    ],
    ids=["air", "organ", "lung", "padding", "metal"],
)
def test_plausible_ct_is_accepted(tmp_path: Path, values: np.ndarray) -> None:
    write_series(tmp_path, values.astype(np.int16), RescaleIntercept=0)
    assert _errors(_only(tmp_path)) == []


def test_signed_ct_without_rescale_is_accepted_when_its_values_are_hu(tmp_path: Path) -> None:
    values = (ct_pixels().astype(int) - 1024).astype(np.int16)
    write_series(tmp_path, values, RescaleSlope=None, RescaleIntercept=None)
    np.testing.assert_array_equal(read_volume(_only(tmp_path)).array[0], values.transpose(2, 1, 0))


def test_padding_stays_unless_it_is_to_become_air(tmp_path: Path) -> None:
    values = (ct_pixels().astype(int) - 1024).astype(np.int16)
    values[:, :2] = -2000
    values[:, 2, 0] = -1500
    values[:, 3, 0] = 3071
    write_series(tmp_path, values, RescaleIntercept=0, PixelPaddingValue=3071)
    kept = read_volume(_only(tmp_path)).array
    np.testing.assert_array_equal(kept[0], values.transpose(2, 1, 0))
    air = read_volume(_only(tmp_path), padding_to_air=True).array
    expected = np.where(values == 3071, -1024, np.maximum(values, -1024)).transpose(2, 1, 0)
    np.testing.assert_array_equal(air[0], expected)


def test_modality_lut_of_mr_is_applied(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(0, 4, (4, 8, 10), np.uint8)
    table = np.array([5, 50, 500, 5000], np.uint16)
    lut = item(LUTDescriptor=[4, 0, 16], ModalityLUTType="US", LUTData=table.tobytes())
    write_series(tmp_path, stored, Modality="MR", ModalityLUTSequence=[lut])
    np.testing.assert_array_equal(
        read_volume(_only(tmp_path)).array[0], table[stored].transpose(2, 1, 0)
    )
