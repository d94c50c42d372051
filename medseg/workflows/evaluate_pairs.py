"""What is known of the masks to be scored before one is read: pairs, names, values."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.bundle import load_bundle
from medseg.data.class_table import classes_of, find_class_file, read_class_file
from medseg.data.dataset_labels import DatasetLabels, labels_of_dataset
from medseg.data.declared import YAML_NAMES, open_declared
from medseg.data.mask_pairs import MaskPair, find_masks, pair_masks, pair_with_dataset
from medseg.errors import InputError, Problem, UsageError
from medseg.io.files import is_image_file
from medseg.io.labels import JSON_NAME, read_labels
from medseg.io.locator import parse_locator
from medseg.volume import Label
from medseg.workflows.evaluate_semantic import BACKGROUND
from medseg.workflows.label_table import GivenNames, LabelTable
from medseg.workflows.truth_values import TruthValues


@dataclass(frozen=True)
class Known:
    """What is known of the values before a mask is read.

    Attributes:
        table: Names; None to take those beside the masks.
        labels: With colours; empty where nothing gives them.
        background: Name of value 0.
        truth: How the values of true masks are read.
    """

    table: LabelTable | None = None
    labels: tuple[Label, ...] = ()
    background: str = BACKGROUND
    truth: TruthValues = field(default_factory=TruthValues)

    @classmethod
    def of(cls, bundle: str | None, labels: GivenNames | None) -> "Known":
        """Return what a bundle or the user's names tell.

        Args:
            bundle: Folder or name of the bundle that made the predictions.
            labels: Names of the values.

        Raises:
            BundleError: If the bundle cannot be read.
            InputError: If the names cannot be read, or are not different.
        """
        if bundle is not None:
            found = load_bundle(bundle)
            pred = found.metadata["network_data_format"]["outputs"]["pred"]
            background = BACKGROUND if found.regions else str(pred["channel_def"]["0"])
            table, truth = LabelTable.of(found.labels), TruthValues.of_bundle(found)
            return cls(table, found.labels, background, truth)
        if labels is None:
            return cls()
        given = read_labels(labels) if isinstance(labels, Path) else ()
        return cls(LabelTable.given(labels), given)

    def beside(self, pair: MaskPair) -> tuple[Label, ...]:
        """Return labels with colours; those beside a mask where none are known.

        Args:
            pair: The masks.
        """
        path = pair.pred and pair.pred.parent / JSON_NAME
        return self.labels or (read_labels(path) if path and path.is_file() else ())

    def paired(
        self, pred: Path, label: Path, ignore: int | None
    ) -> tuple[tuple[MaskPair, ...], "Known", tuple[Problem, ...]]:
        """Pair masks with masks, or with the labels of a dataset, which knows its own values.

        Args:
            pred: A predicted mask, or a folder of them.
            label: A true mask, a folder of them, or a dataset.
            ignore: Value in the files of true masks that counts for nobody; None for what the
                dataset, the bundle, or a file of classes beside the masks says.

        Returns:
            The pairs, what is known then, and warnings.

        Raises:
            UsageError: If nothing can be paired, classes have other names (`label-mismatch`), or
                values other meanings (`dataset-says`).
        """
        labels = None
        if label.exists() and pred.exists() and not _holds_masks(label):
            preds = find_masks(pred) if pred.is_dir() else {"": pred}
            table = self.table or LabelTable.beside(next(iter(preds.values()), pred))
            labels = labels_of_dataset(label, table.names)
        if labels is None:
            pairs = pair_masks(pred, label)
            truth = _with_what_lies_beside(self.truth, label).without(ignore)
            return pairs, replace(self, truth=truth), ()
        if labels.recoded and ignore is not None:
            msg = (
                "ignore must be left out where the dataset gives its labels values of their own,"
                f" got {ignore}. Say in the dataset what is left out (docs/datasets.md)."
            )
            raise UsageError(msg, code="dataset-says")
        labels, others = labels.counted(find_masks(pred) if pred.is_dir() else ())
        return self._of_dataset(pred, labels, table, ignore, others)

    def _of_dataset(
        self,
        pred: Path,
        labels: DatasetLabels,
        table: LabelTable,
        ignore: int | None,
        others: Sequence[str],
    ) -> tuple[tuple[MaskPair, ...], "Known", tuple[Problem, ...]]:
        pairs = pair_with_dataset(pred, labels)
        truth = TruthValues.of_dataset(labels, table.names)
        if table.names and labels.classes:  # both go by the values of the predictions now
            pairs = tuple(replace(pair, names=()) for pair in pairs)
        known = replace(self, truth=truth.without(ignore))
        if self.table is None:
            known = replace(known, background=labels.background_name)
        problems = tuple(
            Problem(
                "not-predicted", f"no case of {part} has a prediction: none is scored", "warning"
            )
            for part in others
        )
        return pairs, known, problems


def _holds_masks(label: Path) -> bool:
    if label.is_file():
        return is_image_file(label)
    if not label.is_dir() or not find_masks(label):
        return False
    # annotations beside images make a dataset
    return (label / JSON_NAME).exists() or not any(label.glob("*.json"))


def _with_what_lies_beside(truth: TruthValues, label: Path) -> TruthValues:
    """Add what a file of classes in the folder of masks, or in the one above, leaves out.

    Raises:
        UsageError: If values mean something else than they say (`dataset-says`): such masks are
            read through their dataset alone.
    """
    folder = label if label.is_dir() else label.parent
    declared = [folder / name for name in YAML_NAMES] + [folder.parent / n for n in YAML_NAMES]
    path = next((file for file in declared if file.is_file()), None)
    try:
        if path is not None:
            dataset = open_declared(path)
            masks = [case.label for case in dataset.cases if case.label]
            recoded = any(parse_locator(mask).codes for mask in masks)
            ignored = dataset.ignored
        else:
            path = find_class_file(folder, folder.parent)
            if path is None:
                return truth
            classes = classes_of(read_class_file(path))
            recoded, ignored = bool(classes.codes), classes.ignored
    except InputError:  # a file of that name for another purpose
        return truth
    if recoded:
        dataset_path = path if path.name in YAML_NAMES else path.parent
        msg = (
            f"label must be the dataset whose {path.name} gives the values of these masks other"
            f" numbers, got {folder.name}. Give {dataset_path} in its place."
        )
        raise UsageError(msg, code="dataset-says")
    return truth if truth.left_out else replace(truth, left_out=tuple(ignored))
