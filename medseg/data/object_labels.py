"""A dataset opened for its objects: labels that tell them apart, or a refusal."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medseg.data.dataset import LabelledDataset, TrainingCase
from medseg.data.pictures import images_by_stem, named
from medseg.errors import InputError
from medseg.io.locator import Codes, Locator, parse_locator
from medseg.io.objects import HOW, tells_objects_apart
from medseg.volume import IGNORED

VOC_OBJECTS = "SegmentationObject"


def with_object_labels(dataset: LabelledDataset) -> LabelledDataset:
    """Return a dataset whose labels `read_objects` reads.

    Labels of PASCAL VOC's classes become those of its objects; all others stay.

    Args:
        dataset: As it was opened.

    Returns:
        The dataset for objects.

    Raises:
        InputError: If labels are masks of classes, structures overlap, or objects of VOC have no
            mask (`no-objects`); if classes do not count from 1 (`bad-dataset`).
    """
    if dataset.kind == "voc":
        dataset = replace(dataset, cases=_of_voc(dataset))
    classes = [
        case.case_id
        for case in dataset.cases
        if case.label is None or not tells_objects_apart(case.label)
    ]
    if classes or dataset.regions:
        which = f"of {len(classes)} cases" if classes else "of regions"
        msg = (
            f"dataset must tell objects apart, got masks {which} that hold classes in"
            f" {dataset.name} ({dataset.kind}). {HOW}."
        )
        raise InputError(msg, code="no-objects")
    values = [structure.values for structure in dataset.structures]
    counted = [(number,) for number in range(1, len(values) + 1)]
    if values != counted or (len(values) == IGNORED and not dataset.ignored):
        msg = (
            f"classes of objects must count from 1 and not be {IGNORED} in all, got"
            f" {len(values)} with the values {named(values)} in {dataset.name}."
        )
        raise InputError(msg, code="bad-dataset")
    return replace(dataset, objects=True)


def _of_voc(dataset: LabelledDataset) -> tuple[TrainingCase, ...]:
    codes = _voc_codes(dataset)
    places = [(case, parse_locator(case.label or "")) for case in dataset.cases]
    folders = {place.path.parents[1] / VOC_OBJECTS for _, place in places}
    found = {folder: images_by_stem(folder) for folder in folders}
    cases, missing = [], []
    for case, place in places:
        own = found[place.path.parents[1] / VOC_OBJECTS].get(case.case_id)
        if own is None or place.kind == "colors":
            missing.append(case.case_id)
        else:
            cases.append(replace(case, label=_voc_label(place.path, own, place.codes or codes)))
    if missing:
        msg = (
            f"{VOC_OBJECTS} must hold a mask of each image, and masks must be palette or grey PNG,"
            f" got {len(missing)} of {len(places)} without: {named(missing)}."
        )
        raise InputError(msg, code="no-objects")
    return tuple(cases)


def _voc_label(classes: Path, objects: Path, codes: Codes) -> Path:
    entry = f"../{VOC_OBJECTS}/{objects.name}"
    return Locator(classes, kind="voc-objects", entry=entry, codes=codes).as_path()


def _voc_codes(dataset: LabelledDataset) -> Codes:
    """Return what the values of masks of classes are."""

    def coded(values: Sequence[int], value: int) -> list[tuple[str, int]]:
        return [(str(one), value) for one in values]

    codes = coded(dataset.background, 0) + coded(dataset.ignored, IGNORED)
    for number, structure in enumerate(dataset.structures, start=1):
        codes += coded(structure.values, number)
    return tuple(codes)
