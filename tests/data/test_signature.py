"""Transforms are described by all that decides what they compute."""

import functools

import numpy as np
import pytest
import torch
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    EnsureTyped,
    Lambdad,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    RandFlipd,
    ScaleIntensityRanged,
    Spacingd,
)

from medseg.data import signature
from medseg.data.signature import describe_transforms, transforms_signature
from medseg.errors import UsageError
from medseg.transforms import ImageReader
from tests.data.training_cases import write_case

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # optional, MONAI's

KEYS = ["image", "label"]


def chain(**changes):
    window = {"a_min": -100.0, "a_max": 300.0, "b_min": 0.0, "b_max": 1.0, "clip": True} | changes
    return [
        LoadImaged(KEYS, reader=ImageReader()),
        EnsureChannelFirstd(KEYS),
        Orientationd(KEYS, axcodes="RAS", labels=None),
        Spacingd(KEYS, pixdim=(2.0, 2.0, 2.0), mode=("bilinear", "nearest")),
        ScaleIntensityRanged("image", **window),
        EnsureTyped(KEYS, dtype=[torch.float32, torch.uint8]),
    ]


def twice(x):
    return 2 * x


class Slotted:
    __slots__ = ("amount",)

    def __init__(self, amount):
        self.amount = amount

    def __call__(self, data):
        return {key: value * self.amount for key, value in data.items()}


def test_equal_transforms_have_one_signature() -> None:
    assert transforms_signature(chain()) == transforms_signature(chain())


@pytest.mark.parametrize(
    "change", [{"a_min": -101.0}, {"clip": False}, {"b_max": 2.0}, {"dtype": np.float64}]
)
def test_each_parameter_counts(change) -> None:
    assert transforms_signature(chain()) != transforms_signature(chain(**change))


def test_the_order_of_transforms_counts() -> None:
    steps = chain()
    assert transforms_signature(steps) != transforms_signature([*steps[:-2], steps[-1], steps[-2]])


def test_using_transforms_does_not_change_their_signature(tmp_path) -> None:
    item = write_case(tmp_path, "a", shape=(9, 8, 7))
    steps = chain()
    before = describe_transforms(steps)
    Compose(steps)({key: item[key] for key in KEYS})
    assert describe_transforms(steps) == before


def test_arrays_functions_and_slots_are_described_by_value() -> None:
    def of(value):
        return transforms_signature([NormalizeIntensityd("image", subtrahend=value)])

    assert of(np.arange(3.0)) == of(np.arange(3.0))
    assert of(np.arange(3.0)) != of(np.arange(3.0) + 1)
    assert transforms_signature([Lambdad("image", func=twice)]) != transforms_signature(
        [Lambdad("image", func=functools.partial(twice))]
    )
    assert transforms_signature([Slotted(1)]) != transforms_signature([Slotted(2)])
    assert transforms_signature([Slotted(1)]) != transforms_signature([Slotted(1.0)])


def test_the_code_of_a_transform_counts(tmp_path, monkeypatch) -> None:
    source = tmp_path / "scaling_of_this_test.py"
    source.write_text("class Scale:\n    def __call__(self, data):\n        return data\n")
    monkeypatch.syspath_prepend(tmp_path)
    from scaling_of_this_test import Scale  # noqa: PLC0415

    before = transforms_signature([Scale()])
    source.write_text(source.read_text().replace("data\n", "data  # changed\n"))
    signature._code_of.cache_clear()
    assert transforms_signature([Scale()]) != before


@pytest.mark.parametrize(
    ("step", "found"),
    [
        (Lambdad("image", func=lambda x: x + 1), r"a lambda in transforms\[1\]"),
        (lambda data: data, r"a lambda in transforms\[1\]"),
        (RandFlipd("image", prob=0.5), r"random, got RandFlipd in transforms\[1\]"),
        (
            Compose([RandFlipd("image")]),
            r"random, got RandFlipd in transforms\[1\].transforms\[0\]",
        ),
        (Spacingd("image", pixdim=(1, 1, 1), lazy=True), "not be lazy, got Spacingd"),
        (NormalizeIntensityd("image", subtrahend=object()), "an object of builtins.object"),
        (iter([1]), "an object of builtins.list_iterator|describable"),
    ],
)
def test_what_has_no_description_is_refused(step, found) -> None:
    with pytest.raises(UsageError, match=found) as raised:
        describe_transforms([EnsureChannelFirstd("image"), step])
    assert raised.value.code == "transform-not-describable"


def test_a_function_within_a_function_is_refused() -> None:
    def inner(x):
        return x

    with pytest.raises(UsageError, match="which no module names"):
        describe_transforms([Lambdad("image", func=inner)])
