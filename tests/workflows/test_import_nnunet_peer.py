"""Imported models give the masks that nnU-Net v2 itself gives, where it is installed."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

import medseg
from medseg.inference import Execution, Predictor
from medseg.workflows.import_nnunet import ImportOptions, import_nnunet
from tests.nnunet_folder import configuration, write_results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # those of nnU-Net and of what it imports
]

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": 2},
    "regions_class_order": [1, 2],
}


def _peer() -> tuple[Any, Any]:
    reason = "compares with nnU-Net v2: pip install nnunetv2"
    module = pytest.importorskip("nnunetv2.inference.predict_from_raw_data", reason=reason)
    readers = pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer", reason=reason)
    predictor = module.nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), perform_everything_on_device=False
    )
    return predictor, readers.SimpleITKIO()


def _write_image(path: Path, spacing: tuple[float, ...]) -> None:
    noise = np.random.default_rng(1).normal(size=(52, 61, 33))
    array = ndimage.gaussian_filter(noise, (3, 3, 1)).astype(np.float32) * 300 + 10
    array[:4] = array[:, -3:] = array[..., :1] = 0
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    nib.save(nib.Nifti1Image(array, affine), path)


@pytest.mark.parametrize("spacing", [(1.0, 1.2, 2.1), (0.8, 0.8, 4.0)])
@pytest.mark.parametrize(
    ("dims", "options"),
    [
        (3, {"transpose": (1, 2, 0)}),
        (3, {"folds": ("0", "1")}),
        (3, {"dataset": REGIONS}),
        (2, {"configuration_name": "2d"}),
    ],
)
def test_masks_are_those_of_nnunet(
    tmp_path: Path,
    dims: int,
    options: dict[str, Any],
    spacing: tuple[float, ...],
) -> None:
    predictor, reader = _peer()
    folder, _ = write_results(tmp_path, configuration(dims), **options)
    path = tmp_path / "image.nii.gz"
    _write_image(path, spacing)
    folds = tuple(int(fold) for fold in options.get("folds", ("0",)))
    predictor.initialize_from_trained_model_folder(str(folder), folds, "checkpoint_final.pth")
    image, properties = reader.read_images([str(path)])
    wanted = predictor.predict_single_npy_array(image, properties, None, None, False)
    bundle = import_nnunet(ImportOptions(folder, tmp_path / "bundle")).bundle
    execution = Execution(backend="torch", precision="fp32", cache=None)
    found = Predictor(bundle, device="cpu", execution=execution)(medseg.read(path)).array
    # of several folds nnU-Net rounds the logits of each to half precision, medseg their mean
    _require_equal(found, wanted.transpose(2, 1, 0), unequal=1e-4 if len(folds) == 1 else 1e-3)


def _require_equal(found: np.ndarray, wanted: np.ndarray, *, unequal: float = 1e-4) -> None:
    assert len(np.unique(wanted)) > 1
    assert (found != wanted).mean() <= unequal
    for value in np.unique(wanted):
        both = np.count_nonzero((found == value) & (wanted == value))
        dice = 2 * both / (np.count_nonzero(found == value) + np.count_nonzero(wanted == value))
        assert dice >= 0.999


@pytest.mark.parametrize("spacing", [(1.0, 1.2, 2.1), (0.8, 0.8, 4.0), (1.2, 1.0, 2.5)])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0)])
def test_a_cascade_gives_the_masks_of_nnunet(
    tmp_path: Path, transpose: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    _, reader = _peer()
    path = tmp_path / "image.nii.gz"
    _write_image(path, spacing)
    image, properties = reader.read_images([str(path)])
    second = configuration(previous_stage="3d_lowres")
    mask = None
    for name, settings in (
        ("3d_lowres", configuration(spacing=[4.0, 2.0, 2.4])),
        ("3d_cascade_fullres", second),
    ):
        predictor, _ = _peer()
        folder, _ = write_results(tmp_path, settings, configuration_name=name, transpose=transpose)
        predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
        before = None if mask is None else mask[None].astype(np.int8)  # as nnU-Net reads it
        mask = predictor.predict_single_npy_array(image, dict(properties), before, None, False)
        assert len(np.unique(mask)) > 1
    bundle = import_nnunet(ImportOptions(folder, tmp_path / "bundle")).bundle
    execution = Execution(backend="torch", precision="fp32", cache=None)
    found = Predictor(bundle, device="cpu", execution=execution)(medseg.read(path)).array
    _require_equal(found, mask.transpose(2, 1, 0))
