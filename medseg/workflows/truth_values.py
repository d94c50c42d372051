"""What the values of true masks stand for, where a dataset or a bundle says it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from medseg.bundle import Bundle
from medseg.bundle.overrides import merge_configs
from medseg.data.dataset_labels import DatasetLabels
from medseg.errors import InputError, UsageError
from medseg.io.masks import LARGEST_LABEL
from medseg.volume import Volume, mask_dtype


@dataclass(frozen=True)
class TruthValues:
    """How the values of true masks are read.

    Attributes:
        becomes: The value that predicted masks have for each value of true masks; values that are
            not named stay as they are.
        left_out: Values of what counts for nobody.
        closed: Whether other values than these are an error.
    """

    becomes: Mapping[int, int] = field(default_factory=dict)
    left_out: Sequence[int] = ()
    closed: bool = False

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> "TruthValues":
        """Return how the values of label files are read that a bundle was made for.

        Args:
            bundle: The bundle; one of medseg, and not of regions, else nothing is known.

        Returns:
            The values.

        Raises:
            BundleError: If its configs cannot be read.
        """
        ours = "medseg" in bundle.metadata and not bundle.regions
        config = merge_configs(bundle.config_files) if ours else {}
        stated = config.get("label_values") or ()
        becomes = {
            value: target
            for target, values in zip(bundle.values, stated, strict=False)
            for value in values
        }
        return cls(becomes, config.get("ignored_values") or (), closed=bool(becomes))

    @classmethod
    def of_dataset(cls, labels: DatasetLabels, names: Mapping[int, str]) -> "TruthValues":
        """Return how the labels of a dataset are read.

        Args:
            labels: Of the dataset.
            names: Of the values in predicted masks, where they are known: classes go by their
                names then, whatever their values are.

        Returns:
            The values.

        Raises:
            UsageError: If the dataset has a class that the predictions do not know
                (`label-mismatch`).
        """
        value_of = {name: value for value, name in names.items()}
        by_name = bool(names and labels.names and labels.classes)
        becomes: dict[int, int] = {}
        for number, values in enumerate(labels.classes):
            target = values[0] if number else 0
            if number and by_name:
                name = labels.names[target]
                if name not in value_of:
                    msg = (
                        "label must have classes that the predictions know"
                        f" ({', '.join(value_of)}), got {name!r}. Give the bundle that made them,"
                        " or masks in place of the dataset."
                    )
                    raise UsageError(msg, code="label-mismatch")
                target = value_of[name]
            becomes |= dict.fromkeys(values, target)
        return cls(becomes, labels.ignored)

    def without(self, value: int | None) -> "TruthValues":
        """Return these with one more value left out.

        Args:
            value: As true masks have it; None changes nothing.
        """
        return self if value is None else replace(self, left_out=(value, *self.left_out))

    @property
    def ignored(self) -> int | None:
        """The one value that all of `left_out` are read as, no class's; None without any."""
        if not self.left_out:
            return None
        counted = {to for value, to in self.becomes.items() if value not in self.left_out}
        return next((value for value in self.left_out if value not in counted), LARGEST_LABEL)

    def read(self, mask: Volume, name: str) -> Volume:
        """Return a true mask with the values of predicted ones, and one for what is left out.

        Args:
            mask: As it lies on the disk.
            name: Of its file, for the message.

        Returns:
            The mask; itself where nothing changes.

        Raises:
            InputError: If it has a value that nobody knows (`unknown-label`).
        """
        table = {**self.becomes, **dict.fromkeys(self.left_out, self.ignored or 0)}
        present = {int(value) for value in np.unique(mask.array)}
        unknown = sorted(present - table.keys()) if self.closed else []
        if unknown:
            msg = (
                f"label must hold values of the bundle's label files ({_listed(table)}), got"
                f" {_listed(unknown)} in {name}. Give the dataset that the masks belong to, or"
                " leave the bundle out to compare values as they are."
            )
            raise InputError(msg, code="unknown-label")
        changed = {value: table[value] for value in present & table.keys() if table[value] != value}
        if not changed:
            return mask
        array = mask.array.astype(mask_dtype(max(*present, *changed.values())))
        for value, becomes in changed.items():
            array[mask.array == value] = becomes
        return replace(mask, array=array)


def _listed(values: Sequence[int] | Mapping[int, int]) -> str:
    some = [str(value) for value in sorted(values)]
    return ", ".join(some[:20]) + (" ..." if len(some) > 20 else "")
