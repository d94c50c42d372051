"""A DICOM dataset is planned for and preprocessed exactly as the same images in NIfTI."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from medseg.data import CachedDataset, open_dataset
from medseg.io.nifti import write_nifti_image
from medseg.io.read import read
from medseg.volume import Volume
from medseg.workflows.plan import PlanOptions, plan
from tests.data.dicom_sets import oblique_affine, write_dicom_case
from tests.real_data import data_folder

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
    for keyword in ("patch_size", "batch_size", "spacing_mm", "fingerprint"):
        assert keyword in documents[0]
    first, second = (json.dumps(document, sort_keys=True) for document in documents)
    assert json.loads(first) == pytest.approx(json.loads(second)) or first == second
    for case in cached[1]:  # ids differ: of DICOM they come from the series
        same = [c for c in cached[0] if c["image"].shape == case["image"].shape]
        nearest = min(same, key=lambda c: float((c["image"] - case["image"]).abs().max()))
        assert float((nearest["image"] - case["image"]).abs().max()) < 1e-3
        assert torch.equal(nearest["label"], case["label"])
        assert set(case["foreground"]) == {1, 2}
