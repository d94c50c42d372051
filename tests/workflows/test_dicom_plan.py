"""A DICOM dataset is planned for and preprocessed exactly as the same images in NIfTI."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medseg.data import CachedDataset, cases_of_fold, open_dataset
from medseg.data.bundle_values import with_values_of
from medseg.errors import InputError
from medseg.io.nifti import write_nifti_image
from medseg.io.read import read
from medseg.volume import Volume
from medseg.workflows.plan import PlanOptions, plan
from tests.data.dicom_sets import oblique_affine, write_dicom_case
from tests.real_data import data_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:"),
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),  # never used
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),  # its own changed defaults
]

NAMES = {"Anterior": 1, "Posterior": 2}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Three hippocampi as DICOM series with SEG, and as NIfTI; the last one tilted."""
    source = data_folder("Task04_Hippocampus")
    root = tmp_path_factory.mktemp("sets")
    training = []
    for number, name in enumerate(("hippocampus_001", "hippocampus_003", "hippocampus_004")):
        image = read(source / "imagesTr" / f"{name}.nii.gz")
        label = read(source / "labelsTr" / f"{name}.nii.gz")
        affine = oblique_affine() if number == 2 else image.affine
        volume = Volume(image.array.astype(np.int16), affine)
        masks = {structure: label.array[0] == value for structure, value in NAMES.items()}
        write_dicom_case(root / "dicom" / f"case {number}", volume, masks, name)
        write_nifti_image(volume, root / f"nifti/images/{name}.nii.gz")
        write_nifti_image(
            Volume(label.array.astype(np.uint8), affine), root / f"nifti/labels/{name}.nii.gz"
        )
        training.append({"image": f"images/{name}.nii.gz", "label": f"labels/{name}.nii.gz"})
    labels = {"0": "background", **{str(v): k for k, v in NAMES.items()}}
    description = {"modality": {"0": "MR"}, "labels": labels, "training": training}
    (root / "nifti/dataset.json").write_text(json.dumps({"name": "dicom", **description}))
    return root / "dicom", root / "nifti"


def test_plan_and_cache_equal_those_of_the_same_images_in_nifti(tmp_path, sets) -> None:
    documents, cached = [], []
    for folder in sets:
        result = plan(PlanOptions(folder, tmp_path / folder.name / "bundle"))
        assert result.problems == ()
        documents.append(json.loads((result.bundle / "configs/plan.json").read_text()))
        parser = ConfigParser()
        parser.read_config(str(result.bundle / "configs/common.yaml"))
        transforms = parser.get_parsed_content("preprocessing_transforms")
        data = [case.as_item() for case in open_dataset(folder).cases]
        dataset = CachedDataset(data, transforms, tmp_path / folder.name / "cache", workers=1)
        dataset.prepare()
        cached.append([dataset[number] for number in range(3)])
    _assert_close(*documents)
    for case in cached[1]:  # ids differ: of DICOM they come from the series
        same = [c for c in cached[0] if c["image"].shape == case["image"].shape]
        nearest = min(same, key=lambda c: float((c["image"] - case["image"]).abs().max()))
        assert float((nearest["image"] - case["image"]).abs().max()) < 1e-3
        assert torch.equal(nearest["label"], case["label"])
        assert set(case["foreground"]) == {1, 2}


def _assert_close(one, other) -> None:
    """Compare JSON documents whose numbers may differ by rounding, or by the voxels drawn."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            _assert_close(*pair)
    else:
        assert one == (pytest.approx(other, rel=2e-3) if isinstance(one, float) else other)


def test_a_bundle_gives_its_values_to_the_segments_of_another_dataset(tmp_path, sets) -> None:
    """Without the first structure the second would get its value."""
    bundle = plan(PlanOptions(sets[0], tmp_path / "bundle")).bundle
    for number in range(2):
        volume = Volume(np.arange(4 * 5 * 6, dtype=np.int16).reshape(1, 4, 5, 6), oblique_affine())
        mask = volume.array[0] % 7 == 0
        write_dicom_case(tmp_path / f"other/{number}", volume, {"Posterior": mask}, str(number))
    with pytest.raises(InputError) as caught:
        cases_of_fold(str(tmp_path / "other"), None, 0, "training")
    assert caught.value.code == "no-values"
    splits = str(bundle / "configs/splits.json")
    stated = cases_of_fold(str(sets[0]), splits, 0, "training")  # beside the bundle's metadata
    assert all("segments=Anterior:1,Posterior:2" in str(case["label"]) for case in stated)
    named = with_values_of(tmp_path / "other", bundle / "configs/metadata.json")
    for part in ("training", "validation"):
        for case in cases_of_fold(str(named), None, 0, part):
            label = read(case["label"])
            assert np.array_equal(label.array[0], 2 * mask)
    dataset = open_dataset(named)
    assert [s.values for s in dataset.structures] == [(1,), (2,)]
    write_dicom_case(tmp_path / "other/2", volume, {"Tail": mask}, "2")
    with pytest.raises(InputError, match="among Anterior, Posterior, got Tail"):
        open_dataset(named)
