"""What a volume and a segmentation say about themselves."""

from pathlib import Path

import numpy as np

from medseg.volume import Segmentation, Source, Volume, make_labels


def test_a_volume_shows_its_grid_and_neither_voxels_nor_uids() -> None:
    source = Source("dicom", Path("in"), "CT", "1.2.3", "4.5.6", details={"slices": (1,) * 500})
    volume = Volume(np.zeros((1, 30, 20, 10), np.int16), np.diag([-0.5, -0.75, 2, 1]), source)
    assert repr(volume) == "Volume((1, 30, 20, 10) int16, 0.5 x 0.75 x 2 mm LPS, dicom)"
    assert "1.2.3" not in repr(source)
    assert len(repr(source)) < 300


def test_a_picture_shows_no_orientation() -> None:
    assert repr(Volume(np.zeros((3, 4, 5), np.uint8), np.eye(3))) == (
        "Volume((3, 4, 5) uint8, 1 x 1 mm, memory)"
    )


def test_a_segmentation_shows_its_labels() -> None:
    mask = Segmentation(np.zeros((3, 4, 5), np.uint8), np.eye(4), make_labels(["liver", "tumour"]))
    assert repr(mask) == "Segmentation((3, 4, 5) uint8, labels: 1 liver, 2 tumour)"
