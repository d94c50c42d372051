from pathlib import Path

import numpy as np

from medseg.data import check_dataset, open_dataset
from medseg.data.phantom import phantom_ct
from medseg.data.phantom_msd import write_phantom_msd
from medseg.io.masks import read_mask
from medseg.io.read import read


def test_phantoms_become_a_dataset_in_order(tmp_path: Path) -> None:
    dataset = open_dataset(write_phantom_msd(tmp_path, 2, first_seed=5))
    assert check_dataset(dataset) == ()
    assert [structure.name for structure in dataset.structures] == ["organ", "tumour"]
    assert [channel.modality for channel in dataset.channels] == ["CT"]
    volume, mask = phantom_ct(5)
    image, label = read(dataset.cases[0].images[0]), read_mask(dataset.cases[0].label)
    assert np.array_equal(image.array, volume.array)
    assert np.array_equal(label.array[0], mask)
    assert np.allclose(image.affine, volume.affine, atol=1e-4)


def test_organ_and_tumour_can_be_one_label(tmp_path: Path) -> None:
    write_phantom_msd(tmp_path, 1, first_seed=5, labels={"spleen": (1, 2)})
    label = read_mask(tmp_path / "labelsTr/phantom_00005.nii.gz").array[0]
    assert np.array_equal(label > 0, phantom_ct(5)[1] > 0)
    assert label.max() == 1


def test_a_box_keeps_its_place_in_the_patient(tmp_path: Path) -> None:
    write_phantom_msd(tmp_path, 1, first_seed=5, box=(40, 36, 12))
    volume, mask = phantom_ct(5)
    part = read(tmp_path / "imagesTr/phantom_00005.nii.gz")
    label = read_mask(tmp_path / "labelsTr/phantom_00005.nii.gz").array[0]
    assert part.shape == (40, 36, 12)
    start = np.rint(np.linalg.inv(volume.affine) @ part.affine[:, 3])[:3].astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(start, part.shape, strict=True))
    assert np.array_equal(part.array[0], volume.array[(0, *box)])
    assert np.array_equal(label, mask[box])
    assert label.max() == mask.max()
