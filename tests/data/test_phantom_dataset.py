import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, EnsureChannelFirstd, Orientationd, Spacingd

from medseg.data.phantom import phantom_ct
from medseg.data.phantom_dataset import LoadPhantomd, phantom_cases


def test_a_case_is_the_phantom_of_its_seed():
    case = LoadPhantomd()({"seed": 5})
    volume, mask = phantom_ct(5)
    assert np.array_equal(case["image"].numpy(), volume.array)
    assert np.array_equal(case["label"].numpy()[0], mask)
    assert case["image"].affine.numpy().tolist() == volume.affine.tolist()


def test_it_takes_the_place_of_loading_in_a_cached_dataset():
    keys = ["image", "label"]
    transform = Compose(
        [
            LoadPhantomd(),
            EnsureChannelFirstd(keys),
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(keys, pixdim=(6.0, 6.0, 6.0), mode=("bilinear", "nearest")),
        ]
    )
    dataset = CacheDataset(phantom_cases(3, 1), transform, progress=False)
    case = dataset[0]
    assert case["image"].shape == case["label"].shape
    assert torch.equal(dataset[0]["image"], case["image"])
    np.testing.assert_allclose(case["image"].pixdim, 6.0, rtol=1e-5)
    assert set(case["label"].unique().tolist()) <= {0.0, 1.0, 2.0}
    assert 600 < float((case["label"] > 0).sum()) * 0.216 < 2200
