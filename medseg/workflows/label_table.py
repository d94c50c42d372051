"""What the values of masks mean that are scored against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.data.mask_pairs import MaskPair
from medseg.errors import InputError, Problem, UsageError
from medseg.io.labels import JSON_NAME, read_labels
from medseg.metrics.segmentation import LabelScore, Mask, score_masks
from medseg.volume import Label

GivenNames = Mapping[int, str] | Sequence[str] | Path


@dataclass(frozen=True)
class LabelTable:
    """Names of values.

    Attributes:
        names: By value.
        inside: Of regions that others lie within, all values inside, by the value in `names`.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    inside: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, labels: Sequence[Label]) -> "LabelTable":
        """Return the table of labels.

        Args:
            labels: The structures.

        Returns:
            The table.
        """
        inside = {one.index: one.inside for one in labels if one.inside != (one.index,)}
        return cls({one.index: one.name for one in labels}, inside)

    @classmethod
    def given(cls, labels: GivenNames) -> "LabelTable":
        """Return the table that a user gives.

        Args:
            labels: Names by value, names in order from value 1, or a `labels.json`.

        Returns:
            The table.

        Raises:
            InputError: If two values have one name (`duplicate-name`), or the file is none.
            UsageError: If a value is out of range.
        """
        if isinstance(labels, Path):
            table = cls.of(read_labels(labels))
        elif isinstance(labels, Mapping):
            table = cls(dict(labels))
        else:
            table = cls(dict(enumerate(labels, start=1)))
        table = table.without(0)
        wrong = [index for index in table.names if not 0 < index < 65536]
        if wrong:
            msg = f"labels must have indices from 1 to 65535, got {wrong[0]}."
            raise UsageError(msg)
        table.require_unique()
        return table

    @classmethod
    def beside(cls, mask: Path | None) -> "LabelTable":
        """Return the table that lies beside a mask.

        Args:
            mask: The file.

        Returns:
            The table; empty without one.
        """
        path = mask.parent / JSON_NAME if mask else None
        return cls.of(read_labels(path)) if path and path.is_file() else cls()

    @classmethod
    def of_pair(cls, pair: MaskPair) -> "LabelTable":
        """Return what the tables beside two masks say.

        Args:
            pair: The masks.

        Returns:
            The table.

        Raises:
            InputError: If the two contradict each other (`label-mismatch`).
        """
        ours = cls.beside(pair.pred)
        theirs = cls(dict(pair.names), dict(pair.inside)) if pair.names else cls.beside(pair.label)
        both = ours.names.keys() & theirs.names.keys()
        differ = [index for index in both if ours.names[index] != theirs.names[index]]
        if differ:
            index = min(differ)
            msg = (
                "pred and label must give their values the same names, got"
                f" {ours.names[index]!r} and {theirs.names[index]!r} for {index}."
                " Give the names (--labels)."
            )
            raise InputError(msg, code="label-mismatch")
        return cls({**theirs.names, **ours.names}, {**ours.inside, **theirs.inside})

    def without(self, index: int | None) -> "LabelTable":
        """Return the table without one value.

        Args:
            index: The value; None changes nothing.

        Returns:
            The table.
        """
        names = {value: name for value, name in self.names.items() if value != index}
        inside = {value: all_ for value, all_ in self.inside.items() if value != index}
        return LabelTable(names, inside)

    def completed(self, found: set[int]) -> tuple["LabelTable", list[Problem]]:
        """Name every value to score; those the table does not know keep their number.

        Args:
            found: Values in either mask.

        Returns:
            The table by rising value, and a warning where it knew others but not these.
        """
        known = self.names.keys() | {value for values in self.inside.values() for value in values}
        unknown = sorted(found - known)
        warnings = []
        if self.names and unknown:
            message = f"values without a name are scored under their number: {unknown[:20]}"
            warnings.append(Problem("unnamed-label", message, "warning"))
        names = {**self.names, **{index: str(index) for index in unknown}}
        table = LabelTable(dict(sorted(names.items())), self.inside)
        table.require_unique()
        return table, warnings

    def require_unique(self) -> None:
        """Raise if two values have one name.

        Raises:
            InputError: With code `duplicate-name`.
        """
        names = list(self.names.values())
        if len(set(names)) < len(names):
            double = next(name for name in names if names.count(name) > 1)
            msg = f"labels must have different names, got {double!r} twice."
            raise InputError(msg, code="duplicate-name")

    def score(
        self,
        pred: Mask,
        label: Mask,
        spacing_mm: Sequence[float] | None,
        *,
        nsd_tolerance_mm: float,
        ignore_index: int | None,
    ) -> dict[str, LabelScore]:
        """Score each label of the table; a region with all that lies within it.

        Args:
            pred: As `score_masks`.
            label: As `score_masks`.
            spacing_mm: As `score_masks`.
            nsd_tolerance_mm: As `score_masks`.
            ignore_index: As `score_masks`.

        Returns:
            Scores by name, in the order of the table.
        """
        plain = [index for index in self.names if index not in self.inside]
        scores = score_masks(
            pred, label, spacing_mm, plain,
            nsd_tolerance_mm=nsd_tolerance_mm, ignore_index=ignore_index,
        )  # fmt: skip
        by_index = {score.index: score for score in scores}
        counted = True if ignore_index is None else label != ignore_index
        for index, values in self.inside.items():
            if index not in self.names:
                continue
            ours, theirs = (
                (np.isin(mask, values) & counted).astype(np.uint8) for mask in (pred, label)
            )
            [score] = score_masks(ours, theirs, spacing_mm, [1], nsd_tolerance_mm=nsd_tolerance_mm)
            by_index[index] = replace(score, index=index)
        return {name: by_index[index] for index, name in self.names.items()}
