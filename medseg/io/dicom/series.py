"""Series and the volumes they hold, with every problem listed."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from medseg.errors import Problem
from medseg.geometry import axis_codes, spacing_mm
from medseg.io.dicom.decode import DECODABLE
from medseg.io.dicom.grid import Grid, fit_grid
from medseg.io.dicom.group import split_frames
from medseg.io.dicom.header import Frame
from medseg.io.dicom.order import Stack, arrange
from medseg.io.dicom.problems import OVERRIDABLE, problem
from medseg.io.dicom.values import check_hounsfield, check_units, same_pixels

FLAT_MODALITIES = {
    "CR", "DX", "MG", "US", "XA", "RF", "SC", "OT", "IO", "PX", "XC", "ES", "GM", "SM", "OP", "OPT",
    "IVUS", "EPS", "DG", "TG", "RG", "LS", "HC", "DMS", "RTIMAGE", "",
}  # fmt: skip
"""Modalities whose images, when they have no position in the patient, are pictures of their own."""
_SLICED_CLASSES = {
    f"1.2.840.10008.5.1.4.1.1.{number}"
    for number in ("2", "2.1", "2.2", "4", "4.1", "4.3", "4.4", "128", "128.1", "130")
}
"""CT, MR and PET, plain, enhanced and converted: slices whatever their modality says."""
MIN_SLICES = 2


@dataclass(frozen=True, eq=False)
class DicomVolume:
    """One volume, or one picture, of a series.

    Attributes:
        volume_id: Case id: modality, series number and a hash of the series UID.
        study_instance_uid: UID, empty when missing.
        series_instance_uid: UID, empty when missing.
        modality: DICOM modality.
        description: SeriesDescription.
        image_type: ImageType of the first slice.
        size: Columns, rows and slices of the regular grid.
        frames: Time points, 1 for a 3D volume.
        spacing_mm: Distance between voxel centres along columns, rows and slices; 0 where the
            header states none.
        orientation: Axis codes such as `LPS`; empty in 2D and without geometry.
        is_2d: Whether it is a picture without place in the patient.
        problems: Everything found; see `medseg.io.dicom.problems`.
        stacks: Slices by time point and position; what reading needs.
        grid: Regular grid; None in 2D and without geometry.
    """

    volume_id: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    description: str
    image_type: tuple[str, ...]
    size: tuple[int, int, int]
    frames: int
    spacing_mm: tuple[float, float, float]
    orientation: str
    is_2d: bool
    problems: tuple[Problem, ...] = ()
    stacks: tuple[tuple[Frame, ...], ...] = field(default=(), repr=False)
    grid: Grid | None = field(default=None, repr=False)

    @property
    def usable(self) -> bool:
        """Whether no error was found."""
        return not any(found.is_error for found in self.problems)

    @property
    def usable_regridded(self) -> bool:
        """Whether resampling to an even grid would make the volume usable."""
        return not any(found.is_error and found.code not in OVERRIDABLE for found in self.problems)


@dataclass(frozen=True, eq=False)
class Series:
    """All volumes under one SeriesInstanceUID.

    Attributes:
        series_instance_uid: UID, empty when missing.
        study_instance_uid: UID, empty when missing.
        series_number: Smallest SeriesNumber, 0 when missing.
        modality: DICOM modality.
        description: SeriesDescription.
        instances: Files.
        problems: What concerns the whole series.
        volumes: Its volumes; localizers and unusable ones too.
    """

    series_instance_uid: str
    study_instance_uid: str
    series_number: int
    modality: str
    description: str
    instances: int
    problems: tuple[Problem, ...]
    volumes: tuple[DicomVolume, ...]


def group_series(frames: Sequence[Frame]) -> tuple[Series, ...]:
    """Group frames into series and volumes.

    Args:
        frames: All frames found, in any order.

    Returns:
        Series by study, series number and UID.
    """
    groups: dict[tuple[str, str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        instance = frame.instance
        folder = "" if instance.series_instance_uid else instance.folder
        groups[instance.study_instance_uid, instance.series_instance_uid, folder].append(frame)
    series = [
        _series(uid or f"folder:{folder}", group) for (_, uid, folder), group in groups.items()
    ]
    ordered = sorted(
        series, key=lambda s: (s.study_instance_uid, s.series_number, s.series_instance_uid)
    )
    return _unique_ids(ordered)


def _series(hashed: str, frames: list[Frame]) -> Series:
    problems = []
    first = frames[0].instance
    if not first.series_instance_uid:
        message = "Files have no SeriesInstanceUID: those of one folder count as one series."
        problems.append(problem("missing-uid", message))
    volumes = [_volume(stack) for group in split_frames(frames) for stack in _stacks(group)]
    volumes = [replace(volume, problems=(*problems, *volume.problems)) for volume in volumes]
    digest = hashlib.sha256(hashed.encode()).hexdigest()[:8]
    named = tuple(
        replace(
            volume,
            volume_id=f"{_word(volume.modality)}_{_number(volume)}_{digest}"
            + (f"_{place}" if len(volumes) > 1 else ""),
        )
        for place, volume in enumerate(volumes, start=1)
    )
    return Series(
        series_instance_uid=first.series_instance_uid,
        study_instance_uid=first.study_instance_uid,
        series_number=min(frame.instance.series_number for frame in frames),
        modality=first.modality,
        description=first.description,
        instances=len({frame.instance.path for frame in frames}),
        problems=tuple(problems),
        volumes=named,
    )


def _word(modality: str) -> str:
    """Return a modality as it may stand in a folder name."""
    return "".join(letter for letter in modality if letter.isascii() and letter.isalnum()) or "OT"


def _number(volume: DicomVolume) -> int:
    return volume.stacks[0][0].instance.series_number


def _unique_ids(series: Sequence[Series]) -> tuple[Series, ...]:
    """Number volumes on when one series UID stands in several studies."""
    seen: dict[str, int] = defaultdict(int)
    result = []
    for one in series:
        volumes = []
        for volume in one.volumes:
            seen[volume.volume_id] += 1
            count = seen[volume.volume_id]
            name = volume.volume_id if count == 1 else f"{volume.volume_id}_{count}"
            volumes.append(replace(volume, volume_id=name))
        result.append(replace(one, volumes=tuple(volumes)))
    return tuple(result)


def _is_flat(frame: Frame) -> bool:
    placed = frame.position is not None and frame.orientation is not None
    sliced = frame.instance.sop_class_uid in _SLICED_CLASSES
    return (
        frame.kind != "mosaic"
        and not placed
        and (
            (frame.instance.modality in FLAT_MODALITIES and not sliced) or frame.kind == "secondary"
        )
    )


def _stacks(group: list[Frame]) -> list[Stack]:
    first = group[0]
    if _is_flat(first):
        files: dict[str, list[Frame]] = defaultdict(list)
        for frame in group:
            files[frame.instance.name].append(frame)
        names = sorted(files, key=lambda name: _instance_order(files[name][0]))
        return _distinct([files[name] for name in names])
    if first.position is None or first.orientation is None:
        ordered = sorted(group, key=lambda frame: (_instance_order(frame), frame.index))
        return [Stack((tuple(ordered),))]
    return arrange(group, same_pixels)


def _distinct(pictures: list[list[Frame]]) -> list[Stack]:
    """One stack a picture; second copies of an instance are listed with the first."""
    kept: list[Stack] = []
    by_uid: dict[str, Stack] = {}
    for frames in pictures:
        stack = Stack(tuple((frame,) for frame in frames))
        uid = frames[0].instance.sop_instance_uid
        first = by_uid.setdefault(uid, stack) if uid else stack
        pairs = zip(first.frames, stack.frames, strict=False)
        same = len(first.frames) == len(stack.frames) and all(
            same_pixels(one[0], other[0]) for one, other in pairs if first is not stack
        )
        if first is not stack and same:
            text = f"A repeated instance with equal pixels was left out: {frames[0].label}."
            first.problems.append(problem("duplicate-instance", text))
        else:
            kept.append(stack)
    return kept


def _instance_order(frame: Frame) -> tuple[float, str]:
    number = frame.instance.instance_number
    return (float("inf") if number is None else number, frame.instance.name)


def _volume(stack: Stack) -> DicomVolume:
    first = stack.frames[0][0]
    instance = first.instance
    flat = _is_flat(first)
    everything = [frame for time in stack.frames for frame in time]
    problems = [*_faults(everything), *stack.problems]
    if first.kind == "localizer":
        problems.append(problem("localizer", "The image is a localizer, not a volume."))
    grid = None
    if not flat:
        grid, more = _grid(stack.frames[0], localizer=first.kind == "localizer")
        problems += more
        problems += _colour(first)
    problems += check_units(everything)
    if instance.modality == "CT" and not flat and not any(found.is_error for found in problems):
        problems += check_hounsfield(stack.frames[0])
    size = (first.columns, first.rows, 1 if flat else len(stack.frames[0]))
    spacing = (*(first.spacing or (0.0, 0.0))[::-1], 0.0)
    if grid is not None:
        size = grid.size
        x, y, z = spacing_mm(grid.affine).tolist()
        spacing = (x, y, z)
    return DicomVolume(
        volume_id="",
        study_instance_uid=instance.study_instance_uid,
        series_instance_uid=instance.series_instance_uid,
        modality=instance.modality,
        description=instance.description,
        image_type=first.image_type,
        size=size,
        frames=len(stack.frames),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        orientation="" if grid is None else axis_codes(grid.affine),
        is_2d=flat,
        problems=tuple(problems),
        stacks=stack.frames,
        grid=grid,
    )


def _colour(first: Frame) -> list[Problem]:
    pixels = first.instance.pixels
    if pixels.samples == 1 and pixels.photometric != "PALETTE COLOR":
        return []
    return [problem("unsupported-pixels", "Slices in colour hold no intensities of a volume.")]


def _faults(frames: Sequence[Frame]) -> list[Problem]:
    """List what makes pixels unreadable, once a code."""
    files = {frame.instance.name: frame.instance for frame in frames}.values()
    found: dict[str, list[str]] = defaultdict(list)
    for instance in files:
        undecodable = instance.transfer_syntax not in DECODABLE
        fault = instance.fault or ("unsupported-transfer-syntax" if undecodable else "")
        if fault:
            found[fault].append(instance.name)
    wording = {
        "no-pixel-data": "have no pixel data",
        "truncated": "end before their pixel data does",
        "missing-frames": "describe another number of frames than they state",
        "unsupported-pixels": "have pixels of an unsupported layout",
        "unsupported-transfer-syntax": "are compressed in a way that cannot be decoded",
    }
    return [
        problem(code, f"{len(names)} of {len(files)} files {wording[code]}, first {names[0]}.")
        for code, names in found.items()
    ]


def _grid(frames: tuple[Frame, ...], *, localizer: bool) -> tuple[Grid | None, list[Problem]]:
    first = frames[0]
    if first.kind == "mosaic":
        message = "The slices of the mosaic cannot be placed: count, spacing or direction unknown."
        return None, [problem("unreadable-mosaic", message)]
    if first.position is None or first.orientation is None or first.spacing is None:
        message = "The header has no ImagePositionPatient, ImageOrientationPatient or PixelSpacing."
        return None, [problem("no-geometry", message)]
    if len(frames) < MIN_SLICES:
        if localizer:
            return None, []
        message = f"A volume needs at least {MIN_SLICES} slices, this one has {len(frames)}."
        return None, [problem("too-few-slices", message)]
    return fit_grid(frames)
