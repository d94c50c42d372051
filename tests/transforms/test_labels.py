from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import InputError, UsageError
from medseg.transforms import LabelRegionsd, MapLabelsd, RegionsToLabelsd


def _label(values: Any, dtype: torch.dtype = torch.float32) -> MetaTensor:
    meta = {"filename_or_obj": "case_7.nii.gz"}
    return MetaTensor(torch.tensor(values, dtype=dtype)[None], meta=meta)


def test_any_integers_become_class_numbers() -> None:
    label = _label([[0, 10, 200], [200, -3, 0]])
    result = MapLabelsd("label", [[0], [10], [200, -3]])({"label": label})["label"]
    assert result[0].tolist() == [[0, 1, 2], [2, 2, 0]]
    assert result.dtype == torch.uint8


def test_over_256_classes_take_16_bits() -> None:
    label = _label([[0, 300]])
    result = MapLabelsd("label", [[value] for value in range(301)])({"label": label})["label"]
    assert result.dtype == torch.uint16
    assert result.numpy()[0].tolist() == [[0, 300]]


def test_a_value_of_no_class_is_named_with_its_file() -> None:
    label = _label([[0, 1, 7]])
    with pytest.raises(InputError, match=r"only \[0, 1\], got 7 in case_7.nii.gz") as caught:
        MapLabelsd("label", [[0], [1]])({"label": label})
    assert caught.value.code == "unknown-label"


def test_fractions_are_no_labels() -> None:
    with pytest.raises(InputError, match=r"whole numbers, got 0\.5") as caught:
        MapLabelsd("label", [[0], [1]])({"label": _label([[0, 0.5]])})
    assert caught.value.code == "not-a-mask"


def test_nan_is_no_label() -> None:
    with pytest.raises(InputError), np.errstate(invalid="ignore"):
        MapLabelsd("label", [[0], [1]])({"label": _label([[0, float("nan")]])})


def test_a_value_of_two_classes_is_refused() -> None:
    with pytest.raises(UsageError, match="must share no value"):
        MapLabelsd("label", [[0], [1], [1, 2]])


def test_metadata_and_operations_go_along_and_the_input_stays() -> None:
    label = _label([[0, 10]])
    label.applied_operations.append({"class": "Flip"})
    result = MapLabelsd("label", [[0], [10]])({"label": label})["label"]
    assert result.meta["filename_or_obj"] == "case_7.nii.gz"
    assert result.applied_operations == [{"class": "Flip"}]
    assert label[0].tolist() == [[0, 10]]


def test_nested_regions_become_channels_and_paint_back_to_the_label() -> None:
    label = _label([[0, 1, 2, 4]])
    transform = LabelRegionsd("label", [[1, 2, 4], [2, 4], [4]])
    regions = transform({"label": label})["label"]
    assert regions.tolist() == [[[0, 1, 1, 1]], [[0, 0, 1, 1]], [[0, 0, 0, 1]]]
    back = RegionsToLabelsd("label", [1, 2, 4], threshold=0.5)({"label": regions.float()})
    assert back["label"][0].tolist() == [[0, 1, 2, 4]]


def test_a_value_of_no_region_is_refused_unless_known() -> None:
    label = _label([[0, 1, 9]])
    with pytest.raises(InputError, match="got 9"):
        LabelRegionsd("label", [[1]])({"label": label})
    regions = LabelRegionsd("label", [[1]], known=[0, 9])({"label": label})["label"]
    assert regions.tolist() == [[[0, 1, 0]]]


def test_regions_without_a_value_each_are_refused() -> None:
    with pytest.raises(UsageError, match="a value a region"):
        RegionsToLabelsd("pred", [1, 2])({"pred": torch.zeros(3, 4, 4)})


def test_a_missing_key_is_passed_over_where_that_is_allowed() -> None:
    assert MapLabelsd("label", [[0]], allow_missing_keys=True)({"image": 1}) == {"image": 1}
    with pytest.raises(KeyError):
        MapLabelsd("label", [[0]])({"image": 1})


def test_ignored_values_become_255_and_unknown_ones_stay_errors() -> None:
    transform = MapLabelsd("label", [[0], [1], [7]], ignored=(255, 11))
    result = transform({"label": _label([[0, 1, 7], [255, 11, 7]])})["label"]
    assert result[0].tolist() == [[0, 1, 2], [255, 255, 2]]
    assert result.dtype == torch.uint8
    with pytest.raises(InputError, match=r"got 3 in case_7\.nii\.gz") as caught:
        transform({"label": _label([[0, 3, 255]])})
    assert caught.value.code == "unknown-label"


def test_ignored_values_are_of_no_class_and_255_is_free_for_them() -> None:
    with pytest.raises(UsageError, match=r"must share no value.* and \(1,\)"):
        MapLabelsd("label", [[0], [1]], ignored=(1,))
    classes = [[value] for value in range(256)]
    assert len(MapLabelsd("label", classes[:255], ignored=(255,)).classes) == 255
    with pytest.raises(UsageError, match=r"at most 255 where values are ignored, got 256"):
        MapLabelsd("label", classes, ignored=(300,))


def test_the_name_of_a_file_in_a_message_is_that_of_the_file() -> None:
    label = MetaTensor(
        torch.tensor([[[3]]]), meta={"filename_or_obj": "/d/a.json?kind=labelme&codes=cat:1"}
    )
    with pytest.raises(InputError, match=r"got 3 in /d/a\.json\. "):
        MapLabelsd("label", [[0], [1]])({"label": label})
