"""Which predicted mask belongs to which label mask: by case id, and never by guessing."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.data.dataset_labels import DatasetLabels
from medseg.errors import Problem, UsageError
from medseg.io.files import file_stem, is_image_file

SEGMENTATION = "segmentation"
"""Stem of the mask in a case folder that `segment` writes."""

SUFFIXES = ("_segmentation", "_seg", "_labels", "_label", "_prediction", "_pred", "_mask")
"""Endings of a file's stem that are no part of its case id, longest first."""


@dataclass(frozen=True, slots=True)
class MaskPair:
    """A case to score, or one that cannot be.

    Attributes:
        case: Case id.
        pred: Predicted mask, if there is one.
        label: Label mask, if there is one.
        problem: Why the case cannot be scored.
        names: Names of the label's values, where a dataset gives them.
        inside: Of regions, the value in `names` and all values inside.
    """

    case: str
    pred: Path | None
    label: Path | None
    problem: Problem | None = None
    names: tuple[tuple[int, str], ...] = ()
    inside: tuple[tuple[int, tuple[int, ...]], ...] = ()


def pair_masks(pred: Path, label: Path) -> tuple[MaskPair, ...]:
    """Pair predictions with labels.

    Two files are one case. In a folder, `CASE/segmentation.*` (as `segment` writes it, at any
    depth) and image files directly in it are masks; ids are the folder or the file's stem. Equal
    ids are a pair; among the rest, ids that are equal without one of `SUFFIXES`, where that is
    unambiguous.

    Args:
        pred: A predicted mask, or a folder of them.
        label: A label mask, or a folder of them.

    Returns:
        All cases by rising id. A mask without a partner is a case with the problem
        `no-label`, `no-prediction` or `ambiguous-pair`.

    Raises:
        UsageError: If a path does not exist (`not-found`), a file is given with a folder, or a
            folder holds no mask or none that has a partner (`no-cases`).
    """
    for name, path in (("pred", pred), ("label", label)):
        if not path.exists():
            msg = f"{name} must exist, got {str(path)!r}."
            raise UsageError(msg, code="not-found")
    if pred.is_file() and label.is_file():
        return (MaskPair(_case_id(pred), pred, label),)
    if pred.is_file() or label.is_file():
        msg = f"pred and label must be two files or two folders, got {str(pred)!r}, {str(label)!r}."
        raise UsageError(msg)
    found = find_masks(pred), find_masks(label)
    for name, path, masks in zip(("pred", "label"), (pred, label), found, strict=True):
        if not masks:
            msg = f"{name} must hold masks, got none in {str(path)!r}."
            raise UsageError(msg, code="no-cases")
    pairs = _pair(*found)
    if not any(pair.pred and pair.label for pair in pairs):
        examples = [sorted(masks)[0] for masks in found]
        msg = (
            "pred and label must hold masks of the same names, got none that fit"
            f" (for example {examples[0]!r} and {examples[1]!r})."
        )
        raise UsageError(msg, code="no-cases")
    return pairs


def pair_with_dataset(pred: Path, labels: DatasetLabels) -> tuple[MaskPair, ...]:
    """Pair predictions with the labels of a dataset, by case id.

    Args:
        pred: A folder of predicted masks.
        labels: Of the dataset.

    Returns:
        As `pair_masks`; a labelled case without a prediction is one with a problem.

    Raises:
        UsageError: If `pred` is no folder with masks, or none has a partner (`no-cases`).
    """
    masks = find_masks(pred) if pred.is_dir() else {}
    pairs = _pair(masks, dict(labels.masks))
    if not any(pair.pred and pair.label for pair in pairs):
        examples = [repr(min(ids)) if ids else "none" for ids in (masks, labels.masks)]
        msg = (
            "pred must be a folder with masks of the cases of the dataset, got none that fit (for"
            f" example {examples[0]} and {examples[1]})."
        )
        raise UsageError(msg, code="no-cases")
    names, inside = tuple(labels.names.items()), tuple(labels.inside.items())
    return tuple(replace(pair, names=names, inside=inside) for pair in pairs)


def _case_id(path: Path) -> str:
    return path.parent.name if file_stem(path) == SEGMENTATION else file_stem(path)


def find_masks(folder: Path) -> dict[str, Path]:
    """Find the masks of a folder by case id.

    Args:
        folder: As `segment` writes it, or of flat files.

    Returns:
        Path by id. Where one case has its mask in several formats, the first of NIfTI, NRRD, MHA,
        others. Hidden files are left out.

    Raises:
        UsageError: With code `ambiguous-pair` if two flat files have one stem.
    """
    nested: dict[str, list[Path]] = defaultdict(list)
    flat: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob(f"{SEGMENTATION}.*")):
        if path.is_file() and is_image_file(path) and file_stem(path) == SEGMENTATION:
            case = path.parent.relative_to(folder).as_posix()
            nested[folder.name if case == "." else case].append(path)
    for path in sorted(folder.iterdir()):
        if path.is_file() and is_image_file(path) and not path.name.startswith("."):
            stem = file_stem(path)
            if stem != SEGMENTATION:
                flat[stem].append(path)
    masks = {case: min(paths, key=_preference) for case, paths in nested.items()}
    for stem, paths in flat.items():
        if len(paths) > 1 or stem in masks:
            names = ", ".join(path.name for path in [*paths, *nested.get(stem, [])])
            msg = f"masks must have different names, got {names} for the case {stem!r}."
            raise UsageError(msg, code="ambiguous-pair")
        masks[stem] = paths[0]
    return masks


def _preference(path: Path) -> tuple[int, str]:
    endings = (".nii.gz", ".nii", ".nrrd", ".mha")
    rank = next((i for i, end in enumerate(endings) if path.name.lower().endswith(end)), 9)
    return rank, path.name


def _pair(preds: dict[str, Path], labels: dict[str, Path]) -> tuple[MaskPair, ...]:
    pairs = [MaskPair(case, preds[case], labels[case]) for case in preds.keys() & labels.keys()]
    rest = preds.keys() - labels.keys(), labels.keys() - preds.keys()
    groups = [_group(part, _without_suffix) for part in rest]
    for key in groups[0].keys() | groups[1].keys():
        mine, theirs = groups[0].get(key, []), groups[1].get(key, [])
        if len(mine) == 1 and len(theirs) == 1:
            pairs.append(MaskPair(key, preds[mine[0]], labels[theirs[0]]))
            continue
        problems = (_no_partner("label", theirs), _no_partner("prediction", mine))
        pairs += [MaskPair(case, preds[case], None, problems[0]) for case in mine]
        pairs += [MaskPair(case, None, labels[case], problems[1]) for case in theirs]
    return tuple(sorted(pairs, key=lambda pair: (pair.case, pair.pred is None)))


def _group(ids: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for case in sorted(ids):
        groups[key(case)].append(case)
    return groups


def _without_suffix(case: str) -> str:
    suffix = next((s for s in SUFFIXES if case.lower().endswith(s) and len(case) > len(s)), "")
    return case[: len(case) - len(suffix)]


def _no_partner(what: str, candidates: list[str]) -> Problem:
    if candidates:
        names = ", ".join(repr(name) for name in candidates)
        return Problem("ambiguous-pair", f"more than one mask may belong together: {names}")
    return Problem(f"no-{what}", f"there is no {what} of this name")
