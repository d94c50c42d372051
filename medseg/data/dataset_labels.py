"""The labels of a dataset as true masks to score predictions against."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.data.dataset import open_dataset, painted_values
from medseg.errors import InputError, UsageError
from medseg.io.locator import Locator, parse_locator

MANIFEST_SUFFIXES = (".csv", ".tsv", ".json", ".yaml", ".yml")


@dataclass(frozen=True)
class DatasetLabels:
    """Masks of a dataset.

    Attributes:
        masks: Path of the label, for `read_mask`, by case id.
        names: Of the values; of regions that of the value which masks have for each.
        inside: Of regions, all values inside each, by the same value.
        classes: Values of each class, background first; none of regions.
        ignored: Values of what is left out of every score.
        background_name: Of class 0.
        recoded: Whether values are others than in the label files.
        parts: Part of its split that each case is in, where the dataset is split.
    """

    masks: Mapping[str, Path]
    names: Mapping[int, str]
    inside: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    classes: Sequence[Sequence[int]] = ()
    ignored: tuple[int, ...] = ()
    background_name: str = "background"
    recoded: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)

    def counted(self, predicted: Collection[str]) -> tuple["DatasetLabels", tuple[str, ...]]:
        """Return the labels without the parts of a split of which nothing was predicted.

        Args:
            predicted: Ids of the cases that have predictions.

        Returns:
            The labels, and the names of the parts that are left out.
        """
        seen = {self.parts.get(case, "") for case in predicted if case in self.masks}
        others = {part for part in self.parts.values() if part and part not in seen}
        if not seen:
            return self, ()
        masks = {c: mask for c, mask in self.masks.items() if self.parts.get(c) not in others}
        return replace(self, masks=masks), tuple(sorted(others))


def labels_of_dataset(path: Path, names: Mapping[int, str]) -> DatasetLabels | None:
    """Open a dataset for its labels.

    Args:
        path: What the user named as labels.
        names: Values and names of the predictions: segments of a DICOM SEG have names alone, and
            get the values of the same names.

    Returns:
        The labels; None where the path is no dataset.

    Raises:
        InputError: As `open_dataset`.
        UsageError: If segments have names alone, and those of the predictions are not known
            (`no-values`).
    """
    if path.is_file() and path.suffix.lower() not in MANIFEST_SUFFIXES:
        return None
    values = tuple((name, (index,)) for index, name in sorted(names.items()))
    try:
        dataset = open_dataset(Locator(path, segments=values).as_path())
    except InputError as error:
        if error.code == "no-dataset":
            return None
        raise
    if dataset.values_dealt:
        msg = (
            "pred must name its values to be compared with segments, got none beside the masks."
            f" Give the names (--labels) in the order of the values; {path.name} has"
            f" {', '.join(structure.name for structure in dataset.structures)}."
        )
        raise UsageError(msg, code="no-values")
    structures = dataset.structures
    masks = {c.case_id: c.label for c in dataset.cases if c.label}
    if dataset.regions:
        pairs = list(zip(painted_values([s.values for s in structures]), structures, strict=True))
        names_of_regions = {value: structure.name for value, structure in pairs}
        return DatasetLabels(masks, names_of_regions, {value: s.values for value, s in pairs})
    table = {s.values[0]: s.name for s in structures}
    if all(name == f"label_{value}" for value, name in table.items()):
        table = {}  # names that nobody gave
    return DatasetLabels(
        masks,
        table,
        classes=dataset.class_values,
        ignored=dataset.ignored,
        background_name=dataset.background_name,
        recoded=any(parse_locator(mask).codes for mask in masks.values()),
        parts={case.case_id: case.split for case in dataset.cases if case.label},
    )
