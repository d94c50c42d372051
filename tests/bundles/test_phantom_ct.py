"""The phantom bundle as it is shipped, on patients that nothing was decided by."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.bundle import load_bundle
from medseg.data.phantom import TUMOUR
from medseg.data.phantom_msd import write_phantom_msd
from medseg.geometry import voxel_volume_ml
from medseg.workflows.segment import SegmentOptions, segment

BUNDLE = Path(__file__).parents[2] / "bundles" / "phantom_ct"
FIRST_SEED = 4001  # neither trained on, nor chosen by, nor scored in the card


def _dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def test_weights_take_less_than_a_megabyte() -> None:
    assert (BUNDLE / "models" / "model.pt").stat().st_size < 1_000_000


def test_only_ct_with_enough_thin_slices_is_taken() -> None:
    rule = load_bundle(BUNDLE).input_rule
    assert rule.modality == ("CT",)
    assert rule.min_slices == 8
    assert rule.max_spacing_mm == 6.0


@pytest.mark.slow
def test_shipped_weights_find_organ_and_tumours_of_fresh_patients(tmp_path: Path) -> None:
    dataset = write_phantom_msd(tmp_path / "data", 3, first_seed=FIRST_SEED)
    done = segment(
        SegmentOptions((dataset / "imagesTr",), str(BUNDLE), tmp_path / "out", ("nifti",))
    )
    assert done.exit_code == 0
    tumours = []
    for path in sorted((tmp_path / "out").glob("*/segmentation.nii.gz")):
        image = nibabel.load(path)
        mask = np.asarray(image.dataobj)
        truth = nibabel.load(dataset / "labelsTr" / f"{path.parent.name}.nii.gz").get_fdata()
        assert _dice(mask > 0, truth > 0) > 0.95
        if (truth == TUMOUR).any():
            tumours.append(_dice(mask == TUMOUR, truth == TUMOUR))
        else:
            false_ml = (mask == TUMOUR).sum() * voxel_volume_ml(image.affine)
            assert false_ml < 1, "a patient without a tumour"
    assert len(tumours) == 2
    assert np.mean(tumours) > 0.75
