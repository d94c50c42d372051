from pathlib import Path

import numpy as np
import pytest

from medseg.data import open_dataset
from medseg.errors import InputError
from medseg.planning import fingerprint
from tests.data.datasets import case_arrays, write_image, write_msd
from tests.real_data import data_folder


def test_axes_come_in_the_order_of_ras(tmp_path: Path) -> None:
    image, label = case_arrays(0)
    affine = np.array([[0, 0, -2.0, 0], [1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])
    for number in range(2):
        write_image(tmp_path / f"images/c{number}.nii.gz", image + number, affine)
        write_image(tmp_path / f"labels/c{number}.nii.gz", label, affine)
    found = fingerprint(open_dataset(tmp_path)).cases[0]
    assert found.spacing == pytest.approx((2.0, 1.0, 1.5))
    assert found.shape == (10, 14, 12)


def test_intensities_are_those_of_the_foreground(tmp_path: Path) -> None:
    dataset = open_dataset(write_msd(tmp_path, count=3))
    found = fingerprint(dataset)
    values = np.concatenate([case_arrays(n)[0][case_arrays(n)[1] > 0] for n in range(3)])
    # 10 000 voxels a case are drawn of 120: each is drawn more or less often
    assert found.intensities[0]["mean"] == pytest.approx(values.mean(), rel=1e-2)
    assert found.intensities[0]["std"] == pytest.approx(values.std(), rel=1e-2)
    assert found.intensities[0]["p99_5"] == pytest.approx(np.percentile(values, 99.5), rel=5e-2)
    assert found.cases[0].label_voxels == (60, 60)


def test_every_case_counts_alike_however_small_its_structures_are(tmp_path: Path) -> None:
    write_msd(tmp_path, count=2, shape=(40, 40, 40))
    for number, (edge, value) in enumerate([(2, 0.0), (30, 100.0)]):
        label = np.zeros((40, 40, 40), np.uint8)
        label[:edge, :edge, :edge] = 1
        name = f"toy_{number:03d}.nii.gz"
        write_image(tmp_path / "imagesTr" / name, np.full(label.shape, value, np.float32))
        write_image(tmp_path / "labelsTr" / name, label)
    found = fingerprint(open_dataset(tmp_path))
    assert found.intensities[0]["mean"] == pytest.approx(50)


def test_the_box_around_what_is_not_zero_is_measured(tmp_path: Path) -> None:
    write_msd(tmp_path, count=2)
    image, _ = case_arrays(0)
    image[:4], image[:, :, 8:] = 0, 0
    write_image(tmp_path / "imagesTr/toy_000.nii.gz", image)
    found = fingerprint(open_dataset(tmp_path)).cases[0]
    assert found.cropped_shape == (10, 12, 8)
    assert found.kept_share == pytest.approx(10 * 12 * 8 / (14 * 12 * 10))


def test_the_same_sample_is_drawn_every_time(tmp_path: Path) -> None:
    dataset = open_dataset(write_msd(tmp_path, count=2, shape=(60, 60, 60)))
    first, second = fingerprint(dataset, workers=1), fingerprint(dataset, workers=2)
    assert first == second


def test_a_dataset_without_foreground_is_refused(tmp_path: Path) -> None:
    write_msd(tmp_path, count=2)
    for number in range(2):
        empty = np.zeros((14, 12, 10), np.uint8)
        write_image(tmp_path / f"labelsTr/toy_{number:03d}.nii.gz", empty)
    with pytest.raises(InputError, match="must hold foreground") as caught:
        fingerprint(open_dataset(tmp_path))
    assert caught.value.code == "no-foreground"


def test_the_hippocampus_is_as_published() -> None:
    document = fingerprint(open_dataset(data_folder("Task04_Hippocampus"))).as_json()
    assert document["cases"] == 220
    assert document["spacing_mm"]["median"] == [1.0, 1.0, 1.0]
    assert document["cropped_shape"]["median"] == [35.0, 50.0, 36.0]
    assert [s["name"] for s in document["structures"]] == ["Anterior", "Posterior"]
