"""Datasets of DICOM series and DICOM SEG objects, in folders of any depth and any names."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medseg.data.dataset import Channel, LabelledDataset, Structure, TrainingCase
from medseg.errors import InputError, MedsegError
from medseg.io.dicom import (
    DicomVolume,
    Scan,
    SegmentationHeader,
    find_series,
    is_segmentation,
    patient_key,
    read_combinations,
    read_segmentation_header,
)
from medseg.io.locator import Locator, Table

MOST_LISTED = 20


def open_dicom(root: Path, values: Table = ()) -> LabelledDataset | None:
    """Open a folder that holds DICOM series and DICOM SEG objects that were made on them.

    A SEG belongs to the volume whose instances it refers to; names of files and folders do not
    matter. Structures are the names of segments. Structures that lie within another in every case
    are regions; other overlaps are refused. Cases are named as `segment` names them, and those of
    one patient form a group.

    Args:
        root: The folder, searched to any depth.
        values: Of the structures; dealt by name when left out.

    Returns:
        The dataset; None where no DICOM SEG is found.

    Raises:
        InputError: If a SEG belongs to no series or to several, several belong to one series,
            structures are named ambiguously or overlap (`bad-dataset`): all faults are listed.
    """
    scan = find_series(root)
    files = [r.path for r in scan.rejected if r.code == "not-an-image" and is_segmentation(r.path)]
    if not files:
        return None
    faults: list[str] = []
    headers = _headers(files, root, faults)
    pairs = _pairs(headers, scan, root, faults)
    faults += naming_faults(headers, root)
    faults += unknown_names(headers, values, root)
    _refuse(faults, root)
    structures, regions = structures_of(headers, values)
    table = tuple((structure.name, structure.values) for structure in structures)
    volumes = [volume for series in scan.series for volume in series.volumes]
    modalities = sorted({volume.modality for volume, _ in pairs})
    if len(modalities) > 1:
        _refuse([f"series of several modalities have a SEG: {', '.join(modalities)}"], root)
    labelled = {id(volume) for volume, _ in pairs}
    places = _places(volumes)
    groups = _groups([volume for volume, _ in pairs])
    return LabelledDataset(
        root=root,
        kind="dicom",
        name=root.resolve().name,
        channels=(Channel(modalities[0] or "image", modalities[0]),),
        structures=structures,
        cases=tuple(
            sorted(
                (
                    _case(volume, places[id(volume)], header, table, groups[id(volume)])
                    for volume, header in pairs
                ),
                key=lambda case: case.case_id,
            )
        ),
        unlabelled=tuple(
            _case(volume, places[id(volume)])
            for volume in volumes
            if id(volume) not in labelled
            and volume.usable
            and not volume.is_2d
            and volume.modality in modalities
        ),
        regions=regions,
        values_dealt=not values,
    )


def _headers(files: Iterable[Path], root: Path, faults: list[str]) -> list[SegmentationHeader]:
    headers = []
    for path in files:
        try:
            headers.append(read_segmentation_header(path))
        except MedsegError as error:
            faults.append(f"{os.path.relpath(path, root)}: {error}")
    return headers


def _pairs(
    headers: Iterable[SegmentationHeader], scan: Scan, root: Path, faults: list[str]
) -> list[tuple[DicomVolume, SegmentationHeader]]:
    """Pair each SEG with the volume that holds the instances it refers to."""
    volumes = [volume for series in scan.series for volume in series.volumes]
    of_instance: dict[str, list[DicomVolume]] = defaultdict(list)
    for volume in volumes:
        for uid in {f.instance.sop_instance_uid for stack in volume.stacks for f in stack}:
            of_instance[uid].append(volume)
    claims: dict[int, list[SegmentationHeader]] = defaultdict(list)
    by_id = {id(volume): volume for volume in volumes}
    for header in headers:
        found = {id(v): v for uid in header.instance_uids for v in of_instance.get(uid, ())}
        if not header.instance_uids:
            found = {
                id(v): v for v in volumes if v.series_instance_uid in set(header.series_uids) - {""}
            }
        name = os.path.relpath(header.path, root)
        if not found:
            faults.append(f"{name}: the series that it was made on is not there")
        elif len(found) > 1:
            listed = ", ".join(sorted(volume.volume_id for volume in found.values()))
            faults.append(f"{name}: it was made on several volumes, {listed}; a manifest decides")
        else:
            claims[next(iter(found))].append(header)
    for key, rivals in claims.items():
        if len(rivals) > 1:
            listed = ", ".join(os.path.relpath(rival.path, root) for rival in rivals)
            faults.append(
                f"{by_id[key].volume_id}: {len(rivals)} segmentations of one series, {listed};"
                " name one a case in a manifest"
            )
    return [(by_id[key], rivals[0]) for key, rivals in claims.items()]


def naming_faults(headers: Iterable[SegmentationHeader], root: Path) -> list[str]:
    """Find names that only differ in writing: one structure would be taken for two.

    Args:
        headers: Of segmentations.
        root: What paths are shown relative to.

    Returns:
        A sentence a fault.
    """
    spellings: dict[str, dict[str, Path]] = defaultdict(dict)
    for header in headers:
        for name in header.names:
            plain = "".join(letter for letter in name.casefold() if letter.isalnum())
            spellings[plain].setdefault(name, header.path)
    faults = [
        "segments are called "
        + " and ".join(f"{n!r} in {os.path.relpath(p, root)}" for n, p in same.items())
        for same in spellings.values()
        if len(same) > 1
    ]
    if "background" in spellings:
        path = next(iter(spellings["background"].values()))
        faults.append(f"{os.path.relpath(path, root)}: a segment is called background")
    return faults


def _refuse(faults: Sequence[str], root: Path) -> None:
    if faults:
        more = [f"and {len(faults) - MOST_LISTED} more"] if len(faults) > MOST_LISTED else []
        lines = "\n".join([*faults[:MOST_LISTED], *more])
        msg = f"DICOM dataset must be unambiguous, got in {root}:\n{lines}"
        raise InputError(msg, code="bad-dataset")


def unknown_names(headers: Iterable[SegmentationHeader], values: Table, root: Path) -> list[str]:
    """Find segments whose names have no value.

    Args:
        headers: Of segmentations.
        values: Of the structures; none: every name gets one.
        root: What paths are shown relative to.

    Returns:
        A sentence a file.
    """
    known = [name for name, _ in values]
    return [
        f"{os.path.relpath(header.path, root)}: segments must be among {', '.join(known)}, got"
        f" {', '.join(unknown)}"
        for header in headers
        if known and (unknown := [name for name in header.names if name not in known])
    ]


def structures_of(
    headers: Sequence[SegmentationHeader], values: Table = ()
) -> tuple[tuple[Structure, ...], bool]:
    """Give the structures of segmentations values: one each, by name.

    Args:
        headers: Of all segmentations of a dataset.
        values: Of the structures, where they are known.

    Returns:
        The structures, and whether they are regions: with some that lie within others, which
        stand before them and have their values too.

    Raises:
        InputError: If structures overlap and none lies within the other in every file
            (`bad-dataset`).
    """
    if values:
        every = [value for _, own in values for value in own]
        return tuple(Structure(*entry) for entry in values), len(set(every)) < len(every)
    names = sorted({n for header in headers for n in header.names}, key=lambda n: (n.casefold(), n))
    unsure = [header for header in headers if header.may_overlap and len(header.names) > 1]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda header: read_combinations(header.path), unsure))
    if not any(len(combination) > 1 for one in found for combination in one):
        return tuple(Structure(name, (n,)) for n, name in enumerate(names, start=1)), False
    # a file that is known to have no overlaps still has structures outside others
    alone = [
        frozenset([name]) for header in headers if header not in unsure for name in header.names
    ]
    files = {header.path.name: one for header, one in zip(unsure, found, strict=True)}
    outer = _outer_structures(names, [*(c for one in found for c in one), *alone], files)
    ordered = sorted(names, key=lambda name: (len(outer[name]), names.index(name)))
    value = {name: n for n, name in enumerate(ordered, start=1)}
    return tuple(
        Structure(name, (value[name], *(value[o] for o in ordered if name in outer[o])))
        for name in ordered
    ), True


def _outer_structures(
    names: Sequence[str],
    combinations: Sequence[frozenset[str]],
    files: Mapping[str, frozenset[frozenset[str]]],
) -> dict[str, set[str]]:
    """Return for each structure those that it lies within, wherever it occurs."""
    outer: dict[str, set[str]] = {name: set() for name in names}
    for name in names:
        holding = [combination for combination in combinations if name in combination]
        outer[name] = set(frozenset.intersection(*holding) - {name}) if holding else set()
    wrong = {}
    for combination in combinations:
        pairs = [(a, b) for a in combination for b in combination if a < b]
        for a, b in pairs:
            if (a in outer[b]) == (b in outer[a]):
                wrong[a, b] = next(f for f, one in files.items() if combination in one)
    if wrong:
        listed = "; ".join(f"{a} and {b} in {file}" for (a, b), file in sorted(wrong.items())[:10])
        msg = (
            "segments must have voxels of their own, or lie within another in every file, got"
            f" overlaps of {listed}. Correct the segmentations."
        )
        raise InputError(msg, code="bad-dataset")
    return outer


def _case(
    volume: DicomVolume,
    place: Locator,
    header: SegmentationHeader | None = None,
    table: Table = (),
    group: str = "",
) -> TrainingCase:
    label = None
    if header is not None:
        label = Locator(header.path, place.series, place.path, table).as_path()
    return TrainingCase(volume.volume_id, (place.as_path(),), label, group=group)


def _places(volumes: Sequence[DicomVolume]) -> dict[int, Locator]:
    """Return the smallest folder, or file, of each volume, with its id where others lie there."""
    folders, places = {}, {}
    for volume in volumes:
        files = {frame.instance.path for stack in volume.stacks for frame in stack}
        parents = {file.parent for file in files}
        folders[id(volume)] = files if len(files) == 1 else parents
        places[id(volume)] = (
            next(iter(files)) if len(files) == 1 else Path(os.path.commonpath(parents))
        )
    tenants = Counter(
        place for below in folders.values() for place in {p for f in below for p in (f, *f.parents)}
    )
    return {
        id(volume): Locator(place, volume.volume_id if tenants[place] > 1 else "")
        for volume in volumes
        for place in [places[id(volume)]]
    }


def _groups(volumes: Sequence[DicomVolume]) -> dict[int, str]:
    """Return what keeps the series of one patient in one fold; of one study if all are of one."""
    patients = {id(v): patient_key(v.stacks[0][0].instance.path) for v in volumes}
    studies = {id(v): v.study_instance_uid for v in volumes}
    for keys in (patients, studies):
        if len(set(keys.values())) > 1:
            return keys
    return dict.fromkeys(patients, "")
