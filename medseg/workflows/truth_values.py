"""What the values of true masks stand for, where a dataset or a bundle says it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from medseg.bundle import Bundle
from medseg.bundle.overrides import merge_configs
from medseg.volume import Volume


@dataclass(frozen=True)
class TruthValues:
    """How the values of true masks are read.

    Attributes:
        classes: Values of each class, background first. Predicted masks have the first of them,
            and 0 for background.
        left_out: Values of what counts for nobody.
    """

    classes: Sequence[Sequence[int]] = ()
    left_out: Sequence[int] = ()

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> "TruthValues":
        """Return how the values of label files are read that a bundle was made for.

        Args:
            bundle: The bundle; of medseg, and not of regions, else nothing is known.

        Returns:
            The values.

        Raises:
            BundleError: If its configs cannot be read.
        """
        ours = "medseg" in bundle.metadata and not bundle.regions
        config = merge_configs(bundle.config_files) if ours else {}
        return cls(config.get("label_values") or (), config.get("ignored_values") or ())

    @property
    def ignored(self) -> int | None:
        """The one value that all of `left_out` are read as; None where everything counts."""
        return min(self.left_out, default=None)

    def read(self, mask: Volume) -> Volume:
        """Return a true mask with one value a class, and one for what counts for nobody.

        Args:
            mask: As it lies on the disk.

        Returns:
            The mask; itself where nothing changes.
        """
        becomes = {
            value: values[0] if number else 0
            for number, values in enumerate(self.classes)
            for value in values
        }
        becomes |= dict.fromkeys(self.left_out, self.ignored or 0)
        changed = {value: to for value, to in becomes.items() if value != to}
        present = changed.keys() & {int(value) for value in np.unique(mask.array)}
        if not present:
            return mask
        array = mask.array.copy()
        for value in present:
            array[mask.array == value] = changed[value]
        return replace(mask, array=array)
