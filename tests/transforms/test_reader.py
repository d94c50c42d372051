"""MONAI loads images through medseg's readers, with their true geometry."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd
from PIL import Image

from medseg.errors import ChoiceError, GeometryError, InputError
from medseg.io.channels import stack_channels
from medseg.io.locator import Locator
from medseg.objects import ObjectInstances
from medseg.transforms import ImageReader, metatensor
from medseg.volume import Volume
from tests.phantoms import numbered, oblique_affine, oriented_affine, write_nifti, write_series

pytestmark = [
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader"),  # an optional codec of MONAI's
    pytest.mark.filterwarnings("ignore:.*Orientationd.*labels:FutureWarning"),  # MONAI's default
]


def load(paths) -> torch.Tensor:
    steps = Compose([LoadImaged("image", reader=ImageReader()), EnsureChannelFirstd("image")])
    return steps({"image": paths})["image"]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "AIR"])
def test_a_nifti_arrives_channel_first_with_its_affine(tmp_path, codes) -> None:
    volume = numbered(affine=oblique_affine(codes))
    image = load(str(write_nifti(volume, tmp_path / "a.nii.gz")))
    assert tuple(image.shape) == volume.array.shape
    assert np.array_equal(image.numpy(), volume.array)
    assert np.abs(image.affine.numpy() - volume.affine).max() < 1e-5


def test_a_dicom_folder_arrives_the_same_way(tmp_path) -> None:
    volume = numbered(affine=oblique_affine("LPS"))
    image = load(str(write_series(volume, tmp_path / "series")))
    assert np.array_equal(image.numpy(), volume.array)
    assert np.abs(image.affine.numpy() - volume.affine).max() < 1e-4


def test_two_series_in_a_folder_are_refused_where_monai_would_stack_them(tmp_path) -> None:
    for number in (1, 2):
        write_series(numbered(), tmp_path / "in" / str(number), seed=1, series_number=number)
    with pytest.raises(RuntimeError) as caught:
        load(str(tmp_path / "in"))
    assert isinstance(caught.value.__cause__, ChoiceError)
    assert caught.value.__cause__.code == "ambiguous-volume"


def test_missing_slices_are_refused_and_no_other_reader_is_tried(tmp_path) -> None:
    files = sorted(write_series(numbered(), tmp_path / "in").iterdir())
    files[len(files) // 2].unlink()
    with pytest.raises(RuntimeError) as caught:
        load(str(tmp_path / "in"))
    assert "missing-slices" in str(caught.value.__cause__)


def test_several_files_become_channels_of_one_grid(tmp_path) -> None:
    paths = [str(write_nifti(numbered(), tmp_path / f"{name}.nii.gz")) for name in "ab"]
    image = load(paths)
    assert image.shape[0] == 2
    other = write_nifti(numbered(affine=oriented_affine("RAS", (1, 1, 1))), tmp_path / "c.nii.gz")
    with pytest.raises(RuntimeError) as caught:
        load([paths[0], str(other)])
    assert "one grid" in str(caught.value) + str(caught.value.__cause__)


def test_orientation_moves_voxels_and_affine_together(tmp_path) -> None:
    volume = numbered(affine=oriented_affine("PIL"))
    image = load(str(write_nifti(volume, tmp_path / "a.nii.gz")))
    turned = Orientationd("image", axcodes="RAS")({"image": image})["image"]
    index = np.array([2, 1, 3])
    value = turned[(0, *index)].item()
    world = turned.affine.numpy() @ [*index, 1]
    origin = np.linalg.inv(volume.affine) @ world
    assert volume.array[(0, *np.round(origin[:3]).astype(int))] == value


def test_a_volume_becomes_a_metatensor_without_being_changed() -> None:
    volume = numbered()
    flipped = Volume(volume.array[:, ::-1], volume.affine)
    tensor = metatensor(flipped)
    tensor += 1
    assert np.array_equal(flipped.array, numbered().array[:, ::-1])


def test_channels_of_another_size_are_refused_or_resampled() -> None:
    first = numbered((6, 5, 4), oriented_affine("RAS", (1, 1, 1)))
    fine = numbered((12, 10, 8), oriented_affine("RAS", (0.5, 0.5, 0.5)))
    with pytest.raises(GeometryError, match="--resample") as caught:
        stack_channels([first, fine])
    assert caught.value.code == "grid-mismatch"
    both = stack_channels([first, fine], resample=True)
    assert both.array.shape == (2, 6, 5, 4)
    assert [problem.code for problem in both.source.problems] == ["resampled-channel"]
    # the fine grid starts at the same voxel centre, so every second voxel is hit exactly
    assert np.array_equal(both.array[1], fine.array[0, ::2, ::2, ::2])


def test_a_missing_file_says_so(tmp_path) -> None:
    with pytest.raises(RuntimeError) as caught:
        load(str(tmp_path / "nothing.nii.gz"))
    assert isinstance(caught.value.__cause__, InputError)
    assert "nothing.nii.gz" in str(caught.value.__cause__)


def test_objects_arrive_as_layers_of_their_numbers(tmp_path) -> None:
    numbers = np.zeros((20, 30), np.uint16)
    numbers[2:9, 3:12], numbers[10:15, 20:28] = 7, 4000
    Image.fromarray(numbers).save(tmp_path / "a.png")
    place = Locator(tmp_path / "a.png", kind="values", codes=(("1-65535", 3),))
    load_label = LoadImaged("label", reader=ImageReader(objects=True), dtype=None)
    steps = Compose([load_label, EnsureChannelFirstd("label")])
    label = steps({"label": str(place.as_path())})["label"]
    assert label.dtype == torch.int32
    objects = ObjectInstances.of_layers(label.numpy())
    assert objects.classes.tolist() == [3, 3]
    assert np.array_equal(objects.label_map() > 0, numbers > 0)
    plain = Locator(tmp_path / "a.png")
    with pytest.raises(InputError, match="must tell objects apart"):
        load_label({"label": str(plain.as_path())})
