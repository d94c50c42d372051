"""Classical methods in a list of MONAI transforms, and from YAML."""

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd

from medseg.classical import ConnectedThreshold, Seeds, Slic, connected_threshold
from medseg.errors import UsageError
from medseg.geometry import apply_affine
from medseg.transforms import ClassicalRegionsd, metatensor
from medseg.volume import Volume
from tests.phantoms import numbered, oblique_affine


def test_a_transform_gives_the_mask_of_the_function() -> None:
    volume = numbered((7, 9, 5), oblique_affine("LPS"))
    seeds = Seeds(((3, 4, 2),))
    transform = ClassicalRegionsd("image", "grown", ConnectedThreshold(seeds, lower=-900))
    image = metatensor(volume)
    before = image.clone()
    result = transform({"image": image})
    expected = connected_threshold(volume, seeds, lower=-900)
    assert torch.equal(result["image"], before)
    assert result["grown"].dtype == torch.uint8
    assert np.array_equal(result["grown"][0].numpy(), expected.array)
    assert np.allclose(result["grown"].affine, volume.affine)


def test_a_seed_in_mm_follows_the_image_when_its_axes_are_turned() -> None:
    volume = numbered((7, 9, 5), oblique_affine("PIR"))
    point = tuple(apply_affine(volume.affine, (1, 7, 3)).tolist())
    value = float(volume.array[0, 1, 7, 3])
    method = ConnectedThreshold(Seeds(mm=(point,)), lower=value, upper=value)
    steps = Compose(
        [
            Orientationd("image", axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            ClassicalRegionsd("image", "grown", method),
        ]
    )
    result = steps({"image": metatensor(volume)})
    assert int(result["grown"].sum()) == 1
    assert float(result["image"][result["grown"] > 0]) == value


def test_a_plain_tensor_of_a_picture_has_pixels_of_1_mm() -> None:
    image = torch.zeros(1, 40, 40)
    mask = ClassicalRegionsd("image", "parts", Slic(size_mm=10))({"image": image})["parts"]
    assert not isinstance(mask, MetaTensor)
    assert mask.shape == (1, 40, 40)
    assert int(mask.max()) == 16


def test_over_255_regions_are_a_type_that_torch_computes_with() -> None:
    image = torch.rand(1, 60, 60, generator=torch.Generator().manual_seed(0))
    mask = ClassicalRegionsd("image", "parts", Slic(count=400))({"image": image})["parts"]
    assert mask.dtype == torch.int32
    assert int((mask == mask.max()).sum()) > 0


def test_it_can_be_written_in_yaml() -> None:
    config = {
        "step": {
            "_target_": "medseg.transforms.ClassicalRegionsd",
            "keys": "image",
            "new_keys": "grown",
            "method": {
                "_target_": "medseg.classical.ConnectedThreshold",
                "seeds": {"_target_": "medseg.classical.Seeds", "voxel": [[1, 1]]},
                "lower": 5,
            },
        }
    }
    step = ConfigParser(config).get_parsed_content("step")
    image = torch.zeros(1, 4, 4)
    image[0, 1:3, 1:3] = 9
    assert int(step({"image": image})["grown"].sum()) == 4


def test_an_image_is_never_overwritten() -> None:
    with pytest.raises(UsageError, match="new_keys must differ"):
        ClassicalRegionsd("image", "image", Slic())


def test_a_2d_affine_is_kept() -> None:
    volume = Volume(np.zeros((1, 20, 20), np.uint8), np.diag([0.5, 2.0, 1.0]))
    method = Slic(size_mm=10)
    result = ClassicalRegionsd("image", "parts", method)({"image": metatensor(volume)})
    assert method.cell_voxels(volume) == (20, 5)
    assert int(result["parts"].max()) == 4
