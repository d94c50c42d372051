"""Labelled datasets: what they are made of, however they lie on the disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medseg.errors import InputError, Problem
from medseg.io.locator import Table, parse_locator
from medseg.io.masks import LARGEST_LABEL


@dataclass(frozen=True)
class Channel:
    """One image channel of every case.

    Attributes:
        name: For example `T1w`.
        modality: DICOM modality (`CT`, `MR`, `PT` ...); empty when it is not known.
    """

    name: str
    modality: str = ""


@dataclass(frozen=True)
class Structure:
    """One thing that is labelled.

    Attributes:
        name: For example `liver`.
        values: Values in the label files; several for a region.
    """

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class TrainingCase:
    """One image and its label.

    Attributes:
        case_id: Unique in the dataset.
        images: One path a channel, or one path with all channels; a file or a DICOM folder, or a
            `Locator` as a path, which says more.
        label: Path of the label; None for a case without.
        split: `training`, `validation`, `test`, the number of a fold as text, or empty.
        group: Cases of one group, of one patient for example, go into one fold; empty: its own.
    """

    case_id: str
    images: tuple[Path, ...]
    label: Path | None = None
    split: str = ""
    group: str = field(default="", repr=False)

    def as_item(self) -> dict[str, object]:
        """Return the case as MONAI's datasets want it."""
        image = [str(path) for path in self.images]
        return {
            "case": self.case_id,
            "image": image if len(image) > 1 else image[0],
            "label": str(self.label),
        }


@dataclass(frozen=True)
class LabelledDataset:
    """A dataset to train on.

    Attributes:
        root: Its folder, or the folder of its manifest.
        kind: `msd`, `nnunet`, `manifest`, `folders`, `voc`, `camvid`, `coco`, `labelme`,
            `objects` or `dicom`.
        name: What it is called.
        channels: Of every image.
        structures: In the order of their classes, background left out.
        cases: With a label, by rising id.
        unlabelled: Without.
        regions: Structures overlap: each is a channel of its own.
        background: Values in label files that are background.
        values_dealt: The values are of this dataset alone: it names structures, as DICOM SEG do,
            and states no values. Another one without the first structure gives other values.
        ignored: Values in label files of what is left out: no loss and no score counts it.
        background_name: Of class 0. Where every pixel is of a class, as in street scenes, it is
            one like any other (`Sky`).
        colors: Red, green, blue by the name of a class, where the dataset states them.
        problems: Warnings about the dataset as a whole; `check_dataset` lists them.
        objects: `read_objects` reads the objects of every label, whose classes count from 1 in
            the order of the structures.
    """

    root: Path
    kind: str
    name: str
    channels: tuple[Channel, ...]
    structures: tuple[Structure, ...]
    cases: tuple[TrainingCase, ...]
    unlabelled: tuple[TrainingCase, ...] = ()
    regions: bool = False
    background: tuple[int, ...] = field(default=(0,))
    values_dealt: bool = False
    ignored: tuple[int, ...] = ()
    background_name: str = "background"
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    objects: bool = False

    def __post_init__(self) -> None:
        """Refuse background that is labelled, and what is left out and is labelled.

        Raises:
            InputError: If a label has a value of the background, or a value that is left out is
                one of either, or there are regions as well (`bad-dataset`).
        """
        labelled = {v for s in self.structures for v in s.values}
        shared = sorted(labelled & set(self.background))
        if shared:
            msg = f"labels must have values other than the background's, got {shared}."
            raise InputError(msg, code="bad-dataset")
        used = sorted((labelled | set(self.background)) & set(self.ignored))
        if used or (self.regions and self.ignored):
            got = used or "regions that overlap"
            msg = f"values that are left out must be of no class, got {got}."
            raise InputError(msg, code="bad-dataset")

    @property
    def class_values(self) -> list[list[int]]:
        """Values of each class, background first, for `MapLabelsd`."""
        return [list(self.background), *(list(s.values) for s in self.structures)]

    @property
    def region_values(self) -> list[list[int]]:
        """Values of each region, for `LabelRegionsd`."""
        return [list(structure.values) for structure in self.structures]

    @property
    def known_values(self) -> set[int]:
        """Every value that label files may hold."""
        return {
            *self.background,
            *self.ignored,
            *(v for s in self.structures for v in s.values),
        }


def open_dataset(path: Path, *, objects: bool = False) -> LabelledDataset:
    """Find out how a dataset lies on the disk, and list its cases.

    Known are `dataset.json` of the Medical Segmentation Decathlon and of nnU-Net, manifests in
    CSV and JSON, `dataset.yaml` beside images and labels, PASCAL VOC, CamVid, COCO, Labelme, two
    folders of images and labels with equal stems, folders with a mask of each object, and folders
    of DICOM series and DICOM SEG objects, of whose pixels no more is read than tells whether
    segments overlap.

    Args:
        path: Folder, or manifest; as a `Locator` with the values of structures that it names.
        objects: Open it for its objects: labels are such that `medseg.io.objects.read_objects`
            reads them. Annotations that are none, and images of a COCO file that are not there,
            are problems of the dataset in place of errors.

    Returns:
        The dataset.

    Raises:
        InputError: If there is no dataset (`no-dataset`), its description is wrong
            (`bad-dataset`), or objects are asked for and its labels do not tell them apart
            (`no-objects`).
    """
    place = parse_locator(path)
    path, values = place.path, place.segments
    found = None
    if path.is_file():
        found = _open_file(path, values, objects=objects)
    elif path.is_dir():
        found = _open_folder(path, values, objects=objects)
    if found is None:
        msg = f"dataset must be {KNOWN}, got {str(path)!r}."
        raise InputError(msg, code="no-dataset")
    if not objects:
        return found
    from medseg.data.object_labels import with_object_labels  # noqa: PLC0415

    return with_object_labels(found)


KNOWN = (
    "a folder with dataset.json or dataset.yaml, a manifest (.csv, .json), a folder with images and"
    " labels in two subfolders, a PASCAL VOC folder (JPEGImages, SegmentationClass), a CamVid"
    " folder (train, trainannot), a COCO file (annotations.json), a folder of Labelme files, a"
    " folder with images and masks for each image, or a folder of DICOM series with DICOM SEG"
)


def _open_file(path: Path, values: Table, *, objects: bool) -> LabelledDataset | None:
    from medseg.data.coco import open_coco  # noqa: PLC0415
    from medseg.data.declared import YAML_SUFFIXES, open_declared  # noqa: PLC0415
    from medseg.data.manifest import open_manifest  # noqa: PLC0415
    from medseg.data.msd import DESCRIPTION, open_described  # noqa: PLC0415

    suffix = path.suffix.lower()
    if path.name == DESCRIPTION:
        return open_described(path.parent)
    if suffix in YAML_SUFFIXES:
        return open_declared(path)
    if suffix == ".json":
        return open_coco(path, objects=objects) or open_manifest(path, values)
    return open_manifest(path, values) if suffix in (".csv", ".tsv") else None


def _open_folder(path: Path, values: Table, *, objects: bool) -> LabelledDataset | None:
    from medseg.data.camvid import open_camvid  # noqa: PLC0415
    from medseg.data.coco import open_coco  # noqa: PLC0415
    from medseg.data.declared import YAML_NAMES, open_declared  # noqa: PLC0415
    from medseg.data.dicom_dataset import open_dicom  # noqa: PLC0415
    from medseg.data.labelme import open_labelme  # noqa: PLC0415
    from medseg.data.manifest import MANIFEST_NAMES, open_manifest  # noqa: PLC0415
    from medseg.data.msd import DESCRIPTION, open_described  # noqa: PLC0415
    from medseg.data.object_masks import open_object_masks  # noqa: PLC0415
    from medseg.data.paired_folders import open_folders  # noqa: PLC0415
    from medseg.data.voc import open_voc  # noqa: PLC0415

    if (path / DESCRIPTION).is_file():
        return open_described(path)
    for name in YAML_NAMES:
        if (path / name).is_file():
            return open_declared(path / name)
    for name in MANIFEST_NAMES:
        if (path / name).is_file():
            return open_manifest(path / name, values)
    kinds: tuple[Callable[[Path], LabelledDataset | None], ...] = (
        open_voc,
        open_camvid,
        partial(open_coco, objects=objects),
        open_folders,
        open_object_masks,
        partial(open_labelme, objects=objects),
    )
    found = next((dataset for kind in kinds if (dataset := kind(path)) is not None), None)
    return found or open_dicom(path, values)


def unique_structures(structures: Sequence[Structure], *, regions: bool) -> tuple[Structure, ...]:
    """Check that structures can be told apart, in label files and in masks.

    A mask has one value a voxel. Regions are painted into it over each other, so they are put in
    an order in which none hides another one that lies within it; the values of the label files
    must then say which regions a voxel belongs to.

    Args:
        structures: As declared.
        regions: Whether they may share values.

    Returns:
        The structures; regions with the widest first.

    Raises:
        InputError: If a name occurs twice or cannot stand in a config, there is none, a value is
            not from 1 to 65535 or belongs to two structures that are no regions, or regions
            overlap so that a mask cannot tell (`bad-dataset`).
    """
    names = [structure.name for structure in structures]
    values = [value for structure in structures for value in structure.values]
    wrong = ""
    if not structures:
        wrong = "none"
    elif len(set(names)) != len(names):
        wrong = f"a name twice in {names}"
    elif not regions and len(set(values)) != len(values):
        wrong = f"a value of two labels in {[(s.name, s.values) for s in structures]}"
    elif len({frozenset(structure.values) for structure in structures}) != len(structures):
        wrong = f"two regions of the same values in {names}"
    elif unusable := [name for name in names if "#" in name or name[:1] in ("", "$", "@", "%")]:
        wrong = f"{unusable[0]!r}: names are not empty, have no # and start with none of $, @, %"
    elif out := sorted(v for v in values if not 0 < v <= LARGEST_LABEL):
        wrong = f"{out[0]}: values are from 1 to {LARGEST_LABEL}"
    if wrong:
        msg = f"labels must have names and values of their own, got {wrong}."
        raise InputError(msg, code="bad-dataset")
    if not regions:
        return tuple(structures)
    ordered = tuple(sorted(structures, key=lambda s: -len(set(s.values))))
    if lost := _hidden(ordered):
        msg = (
            f"regions must be told apart by the values of the labels, got {lost} for"
            f" {[(s.name, s.values) for s in ordered]}. Let regions lie within each other, or"
            " apart, or give what several share a value of its own."
        )
        raise InputError(msg, code="bad-dataset")
    return ordered


def painted_values(regions: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the value that each region has in a mask.

    It is one that no later region covers: regions that are painted over each other in order then
    give the label back.

    Args:
        regions: Values in label files that each covers, the widest first.

    Returns:
        A value a region.

    Examples:
        >>> painted_values([(1, 2, 4), (1, 4), (4,)])  # tumour, its core, and what enhances
        (2, 1, 4)
    """
    found = []
    for index, values in enumerate(regions):
        later = {v for others in regions[index + 1 :] for v in others}
        own = [value for value in values if value not in later]
        found.append(own[0] if own else values[0])
    return tuple(found)


def _hidden(regions: Sequence[Structure]) -> str:
    """Return a value that masks would have in place of another one, in other regions."""
    paints = painted_values([region.values for region in regions])
    for value in sorted({v for region in regions for v in region.values}):
        inside = [index for index, region in enumerate(regions) if value in region.values]
        painted = paints[inside[-1]]
        if [i for i, region in enumerate(regions) if painted in region.values] != inside:
            return f"{painted} in place of {value}"
    return ""
