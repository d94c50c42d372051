import math
from pathlib import Path
from typing import Any

import pytest

from medseg.data import Channel, LabelledDataset, Structure
from medseg.errors import UsageError
from medseg.planning import Fingerprint, make_plan
from medseg.planning.fingerprint import CaseFingerprint

STATISTICS = {
    "mean": 90.0,
    "std": 30.0,
    "median": 90.0,
    "min": -50.0,
    "max": 300.0,
    "p00_5": 0.0,
    "p99_5": 180.0,
}


def _dataset(*modalities: str, regions: bool = False) -> LabelledDataset:
    structures = (
        (Structure("whole", (1, 2)), Structure("core", (2,)))
        if regions
        else (Structure("liver", (10,)), Structure("tumour", (200,)))
    )
    channels = tuple(Channel(f"c{n}", m) for n, m in enumerate(modalities or ("CT",)))
    return LabelledDataset(Path(), "msd", "Task03_Liver", channels, structures, (), regions=regions)


def _fingerprint(
    spacing: tuple[float, ...], shape: tuple[int, ...], count: int = 20, channels: int = 1
) -> Fingerprint:
    cases = tuple(CaseFingerprint(f"c{n}", spacing, shape, shape, (100, 10)) for n in range(count))
    return Fingerprint(cases, (STATISTICS,) * channels, ("a", "b"))


def test_a_large_ct_gets_3d_and_is_told_of_the_low_resolution() -> None:
    plan = make_plan(_dataset(), _fingerprint((0.8, 0.8, 1.5), (512, 512, 400)))
    choice = plan.choices["configuration"]
    assert choice.value == "3d"
    assert "3d_lowres" in choice.rule
    low = choice.numbers["configurations"]["3d_lowres"]
    assert low["share_of_median_image"] >= 0.25
    assert low["spacing_mm"] > [0.8, 0.8, 1.5]
    assert plan.spec.name == "liver_ct"
    assert plan.spec.schemes[0]["scheme"] == "ct"


def test_a_low_resolution_can_be_chosen() -> None:
    found = _fingerprint((0.8, 0.8, 1.5), (512, 512, 400))
    plan = make_plan(_dataset(), found, configuration="3d_lowres")
    assert min(plan.spec.spacing) > 0.8
    small = _fingerprint((1, 1, 1), (40, 40, 40))
    with pytest.raises(UsageError, match="the 3D patch covers enough"):
        make_plan(_dataset(), small, configuration="3d_lowres")


def test_images_one_slice_thin_are_treated_slice_by_slice() -> None:
    plan = make_plan(_dataset("MR"), _fingerprint((0.7, 0.7, 8.0), (320, 300, 5)))
    assert plan.choices["configuration"].value == "2d"
    assert plan.spec.patch_size[2] == 1
    assert all(stride[2] == 1 for stride in plan.spec.network_def["strides"])
    assert all(kernel[2] == 1 for kernel in plan.spec.network_def["kernel_size"])
    assert plan.spec.in_plane == 2
    with pytest.raises(UsageError, match="dynunet"):
        make_plan(_dataset("MR"), _fingerprint((0.7, 0.7, 8.0), (320, 300, 5)), network="unet")


def test_the_axis_of_few_voxels_is_left_out_whatever_its_spacing() -> None:
    plan = make_plan(_dataset("MR"), _fingerprint((1.2, 1.0, 1.0), (64, 60, 5)))
    assert plan.spec.patch_size[2] == 1
    assert plan.spec.in_plane == 2


@pytest.mark.parametrize("shape", [(3000, 3000, 1), (3000, 3000, 2), (4000, 4000, 3)])
def test_wide_and_thin_images_can_be_planned(shape: tuple[int, int, int]) -> None:
    plan = make_plan(_dataset("MR"), _fingerprint((1.0, 1.0, 1.0), shape))
    assert plan.choices["configuration"].value == "2d"


@pytest.mark.parametrize(
    ("spacing", "shape", "axis"),
    [
        ((1.0, 1.0, 1.0), (40, 40, 220), None),  # long, not thin
        ((1.0, 1.0, 1.0), (220, 220, 24), 2),
        ((0.6, 0.6, 3.6), (320, 320, 20), 2),
        ((3.6, 0.6, 0.6), (20, 320, 320), 0),
        ((1.0, 1.0, 1.0), (128, 128, 128), None),
    ],
)
def test_only_slabs_are_turned_within_their_slices(
    spacing: tuple[float, ...], shape: tuple[int, ...], axis: int | None
) -> None:
    assert make_plan(_dataset("MR"), _fingerprint(spacing, shape)).spec.in_plane == axis


def test_pictures_get_a_2d_network() -> None:
    plan = make_plan(_dataset("RGB"), _fingerprint((1.0, 1.0), (360, 480)))
    assert plan.spec.dims == 2
    assert plan.spec.schemes == [{"scheme": "rescale"}]
    with pytest.raises(UsageError, match="the images are 2D"):
        make_plan(_dataset("RGB"), _fingerprint((1.0, 1.0), (360, 480)), configuration="3d")


def test_regions_are_channels_and_paint_what_no_later_one_covers() -> None:
    plan = make_plan(_dataset("MR", regions=True), _fingerprint((1, 1, 1), (60, 60, 60)))
    assert plan.spec.activation == "sigmoid"
    assert plan.spec.outputs == 2
    assert plan.spec.paints == (1, 2)


def test_values_of_labels_are_what_masks_will_hold() -> None:
    plan = make_plan(_dataset(), _fingerprint((1, 1, 1), (60, 60, 60)))
    assert plan.spec.paints == (10, 200)
    assert plan.spec.outputs == 3


def test_every_choice_says_its_rule_and_numbers() -> None:
    document: dict[str, Any] = make_plan(
        _dataset(), _fingerprint((1, 1, 1), (60, 60, 60))
    ).as_json()
    assert set(document["choices"]) >= {
        "spacing_mm",
        "configuration",
        "patch_size",
        "batch_size",
        "network",
        "normalization",
        "resampling",
        "augmentation",
        "schedule",
    }
    assert all(len(choice["rule"]) > 5 for choice in document["choices"].values())


@pytest.mark.parametrize("network", ["dynunet", "unet", "segresnet"])
def test_the_patch_fits_the_network(network: Any) -> None:
    plan = make_plan(_dataset(), _fingerprint((1, 1, 1), (37, 53, 35)), network=network)
    divisor = 8 if network == "segresnet" else 2
    assert all(edge % divisor == 0 for edge in plan.spec.patch_size)
    assert math.prod(plan.spec.patch_size) >= 37 * 53 * 35
