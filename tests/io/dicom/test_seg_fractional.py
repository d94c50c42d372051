"""Probabilities as fractional DICOM SEG, read back with pydicom alone and by highdicom."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import highdicom as hd
import numpy as np
import psutil
import pydicom
import pytest

from medseg.errors import InputError
from medseg.io.dicom.read import read_volume
from medseg.io.dicom.seg_write import write_segmentation
from medseg.io.probabilities import ProbabilityStore
from medseg.volume import Segmentation, Volume
from tests.io.dicom.test_seg_write import (
    MADE_BY,
    NAMES,
    _said,
    frames_of,
    only,
    segmented,
    series_of,
)
from tests.real_data import data_folder

STEP = 1 / 255


def _with_probabilities(volume: Volume, seed: int = 0) -> tuple[Segmentation, np.ndarray]:
    """Return a segmentation, and the probabilities (C, I, J, K) that it is made of."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([1.0] * 4, volume.shape).astype(np.float32)
    shares[..., 3] *= shares[..., 3] > 0.3
    shares[:, :, -1] = (1, 0, 0, 0)  # nothing there
    shares = np.moveaxis(shares / shares.sum(-1, keepdims=True), -1, 0)
    channels = [(0, "background"), *enumerate(NAMES, start=1)]
    store = ProbabilityStore(volume.shape, channels, exclusive=True)
    store.put([slice(0, n) for n in volume.shape], shares)
    mask = replace(segmented(volume), array=shares.argmax(0).astype(np.uint8))
    return replace(mask, probabilities=store), shares


@pytest.mark.parametrize("kind", ["oblique", "descending", "enhanced"])
def test_every_probability_comes_back(tmp_path: Path, kind: str) -> None:
    volume = read_volume(only(series_of(tmp_path, kind)))
    segmentation, shares = _with_probabilities(volume)
    assert write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY, "fractional") == ()
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (ds.SegmentationType, ds.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert ds.MaximumFractionalValue == 255
    places = {tuple(one["position"]): n for n, one in enumerate(volume.source.details["slices"])}
    back = np.zeros((4, len(places), *volume.shape[1::-1]))
    for number, position, pixels, _ in frames_of(ds):
        nearest = min(places, key=lambda one: np.linalg.norm(np.array(one) - np.float64(position)))
        back[number, places[nearest]] = pixels / 255
    expected = shares.transpose(0, 3, 2, 1)
    np.testing.assert_allclose(back[1:], expected[1:], atol=STEP / 2 + 1e-4)
    read = hd.seg.segread(tmp_path / "seg.dcm")
    assert [read.get_segment_description(n).SegmentLabel for n in (1, 2, 3)] == NAMES
    assert len(ds.PerFrameFunctionalGroupsSequence) == 3 * (volume.shape[2] - 1)


def test_what_was_resampled_lies_on_the_slices_as_they_were_acquired(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "tilted")))
    segmentation, _ = _with_probabilities(volume)
    write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY, "fractional")
    ds = pydicom.dcmread(tmp_path / "seg.dcm")
    sources = {pydicom.dcmread(p).SOPInstanceUID for p in volume.source.instances}
    assert {one.ReferencedSOPInstanceUID for _, _, _, one in frames_of(ds)} <= sources
    assert (ds.Rows, ds.Columns) == (
        volume.source.details["slices"][0]["rows"],
        volume.source.details["slices"][0]["columns"],
    )


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is not installed")
@pytest.mark.parametrize(
    "name", ["dicom_qa/mr_philips_enhanced/In", "dicom_qa/mr_philips_classic/In"]
)
def test_a_validator_finds_nothing_that_is_not_in_the_source(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    found = only(data_folder(first) / rest)
    volume = read_volume(found, frame=0 if found.frames > 1 else None)
    segmentation, _ = _with_probabilities(volume)
    write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY, "fractional")
    complaints, known = (
        set(_said(path)) for path in (tmp_path / "seg.dcm", volume.source.instances[0])
    )
    assert complaints - known - {"Segmentation"} == set()


def test_nothing_found_is_one_empty_frame_a_segment(tmp_path: Path) -> None:
    volume = read_volume(only(series_of(tmp_path, "oblique")))
    segmentation, _ = _with_probabilities(volume)
    store = ProbabilityStore(volume.shape, segmentation.probabilities.channels, exclusive=True)
    empty = replace(segmentation, array=np.zeros(volume.shape, np.uint8), probabilities=store)
    write_segmentation(tmp_path / "seg.dcm", empty, MADE_BY, "fractional")
    assert not pydicom.dcmread(tmp_path / "seg.dcm").pixel_array.any()


def test_what_does_not_fit_in_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = read_volume(only(series_of(tmp_path, "oblique")))
    segmentation, _ = _with_probabilities(volume)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(InputError, match="Name fewer") as error:
        write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY, "fractional")
    assert error.value.code == "too-large"
    assert not (tmp_path / "seg.dcm").exists()
