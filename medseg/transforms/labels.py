"""Between the values in label files, the classes of a network, and regions that overlap."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.errors import InputError, UsageError
from medseg.io.locator import plain_path
from medseg.volume import IGNORED, mask_dtype


class MapLabelsd(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Turn the values in label files into class numbers 0, 1, 2 ...

    Args:
        keys: Of the labels.
        classes: For each class the values that belong to it; the first is background.
        ignored: Values of what is left out; they become 255.
        allow_missing_keys: Pass over keys that are not there.

    Raises:
        UsageError: If a value is given to two classes, or is ignored as well; or values are
            ignored and there are more than 255 classes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        classes: Sequence[Sequence[int]],
        ignored: Sequence[int] = (),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes = tuple(tuple(int(value) for value in values) for values in classes)
        self.ignored = tuple(int(value) for value in ignored)
        values = [*self.ignored, *(value for values in self.classes for value in values)]
        if len(set(values)) != len(values):
            msg = (
                "classes must share no value, among each other and with what is ignored, got"
                f" {self.classes!r} and {self.ignored!r}."
            )
            raise UsageError(msg)
        if self.ignored and len(self.classes) > IGNORED:
            msg = (
                f"classes must be at most {IGNORED} where values are ignored, got"
                f" {len(self.classes)}."
            )
            raise UsageError(msg)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Map the labels of a case.

        Args:
            data: With (1, *spatial) labels.

        Returns:
            The same with (1, *spatial) class numbers, uint8, or uint16 for over 256 classes; 255
            where the label's value is ignored.

        Raises:
            InputError: If a label holds a value that belongs to no class and is not ignored
                (`unknown-label`), or a fraction (`not-a-mask`).
        """
        result = dict(data)
        numbers = {value: n for n, values in enumerate(self.classes) for value in values}
        numbers |= dict.fromkeys(self.ignored, IGNORED)
        for key in self.key_iterator(result):
            label = result[key]
            values = _whole_numbers(label)
            present = np.unique(values)
            _refuse_unknown(present, numbers, label)
            mapped = np.zeros(values.shape, mask_dtype(len(self.classes) - 1))
            for value in present:
                if numbers[int(value)]:
                    mapped[values == value] = numbers[int(value)]
            result[key] = _like(label, mapped)
        return result


class LabelRegionsd(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Turn the values in label files into regions, one channel of 0 and 1 each.

    Args:
        keys: Of the labels.
        regions: For each region the values it covers; regions may share values.
        known: Values besides those of the regions that may occur; background is 0.
        allow_missing_keys: Pass over keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        regions: Sequence[Sequence[int]],
        known: Sequence[int] = (0,),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.regions = tuple(tuple(int(value) for value in values) for values in regions)
        self.known = tuple(int(value) for value in known)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Map the labels of a case.

        Args:
            data: With (1, *spatial) labels.

        Returns:
            The same with (regions, *spatial) uint8.

        Raises:
            InputError: If a label holds a value that belongs to no region and is not known
                (`unknown-label`), or a fraction (`not-a-mask`).
        """
        result = dict(data)
        allowed = {*self.known, *(value for values in self.regions for value in values)}
        for key in self.key_iterator(result):
            label = result[key]
            values = _whole_numbers(label)
            _refuse_unknown(np.unique(values), dict.fromkeys(allowed, 0), label)
            inside = [np.isin(values[0], region) for region in self.regions]
            result[key] = _like(label, np.stack(inside).astype(np.uint8))
        return result


class RegionsToLabelsd(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Paint regions over each other into one integer mask.

    Args:
        keys: Of (regions, *spatial) logits or probabilities.
        paints: The value of each region; later ones lie on top.
        threshold: What a voxel has to exceed: 0 for logits, 0.5 for probabilities.
        allow_missing_keys: Pass over keys that are not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        paints: Sequence[int],
        threshold: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.paints = tuple(int(value) for value in paints)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Paint the regions of a case.

        Args:
            data: With one channel a region.

        Returns:
            The same with (1, *spatial) uint8 or uint16.

        Raises:
            UsageError: If there are other than `paints` channels.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            maps = result[key]
            if len(maps) != len(self.paints):
                msg = f"paints must name a value a region, got {self.paints} for {len(maps)}."
                raise UsageError(msg)
            mask = np.zeros((1, *maps.shape[1:]), mask_dtype(max(self.paints)))
            for value, region in zip(self.paints, maps, strict=True):
                mask[0][_array(region > self.threshold)] = value
            result[key] = _like(maps, mask)
        return result


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    plain = tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
    return np.asarray(plain.cpu() if isinstance(plain, torch.Tensor) else plain)


def _whole_numbers(label: Any) -> np.ndarray[Any, Any]:
    array = _array(label)
    if array.dtype.kind == "f":
        whole = array.astype(np.int64)
        if not np.array_equal(whole, array):
            example = float(array[whole != array].flat[0])
            msg = f"label must hold whole numbers, got {example:g}{_file(label)}."
            raise InputError(msg, code="not-a-mask")
        return whole
    return array


def _refuse_unknown(present: np.ndarray[Any, Any], known: Mapping[int, int], label: Any) -> None:
    unknown = [int(value) for value in present if int(value) not in known]
    if unknown:
        listed = ", ".join(str(value) for value in unknown[:10])
        msg = (
            f"label must hold only {sorted(known)}, got {listed}{_file(label)}."
            " Correct the label or declare the value."
        )
        raise InputError(msg, code="unknown-label")


def _file(label: Any) -> str:
    name = label.meta.get("filename_or_obj") if isinstance(label, MetaTensor) else None
    return f" in {plain_path(name)}" if name else ""


def _like(template: Any, array: np.ndarray[Any, Any]) -> Any:
    """Return an array with the metadata of a tensor."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if not isinstance(template, MetaTensor):
        return tensor
    return MetaTensor(
        tensor, meta=dict(template.meta), applied_operations=list(template.applied_operations)
    )
