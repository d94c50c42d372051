"""From what the user names to cases: one volume, or one file, a segmentation each.

Nothing is chosen by guessing. A study with exactly one fitting volume is a case; with none or
several it is a case that carries the error and the candidates, and the rest of a batch goes on.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from medseg.errors import InputError, Problem
from medseg.io.archive import extract_zip
from medseg.io.channels import stack_channels
from medseg.io.dicom import DicomVolume, Rejected, find_series, read_volume
from medseg.io.files import file_stem, group_channels, is_image_file, read_file
from medseg.volume import Volume

Progress = Callable[[int, int], None]

OPERATING_SYSTEM_FILES = {".ds_store", "thumbs.db", "desktop.ini"}
"""Left out of every listing: no one put them there."""


@dataclass(frozen=True)
class Rule:
    """Which DICOM volumes a case may be made of.

    Attributes:
        reason_against: Says why a volume does not fit, or nothing.
        prefer: Image type that wins where several volumes fit and just one is of it.
        channels: Channels the network expects.
    """

    reason_against: Callable[[DicomVolume], str | None]
    prefer: str = "ORIGINAL"
    channels: int = 1


@dataclass(frozen=True)
class Case:
    """What one segmentation is made of.

    Attributes:
        case_id: Name of the output folder.
        path: What the user named, for standard output.
        relative: Path relative to the input, for files under the output folder.
        volume: The DICOM volume, if it is one.
        files: The image files, one a channel, if it is one of files.
        warnings: What was noticed in choosing.
        error: Why it cannot be segmented.
        candidates: Volumes of a study for which there was no single choice.
    """

    case_id: str
    path: Path
    relative: str = ""
    volume: DicomVolume | None = None
    files: tuple[Path, ...] = ()
    warnings: tuple[Problem, ...] = ()
    error: Problem | None = None
    candidates: tuple[DicomVolume, ...] = ()


@dataclass(frozen=True)
class Inputs:
    """The files under what the user named.

    Attributes:
        images: Image files of known suffix, with the input each came from.
        others: Files that may be DICOM, with the input each came from.
        rejected: Files that are neither.
    """

    images: tuple[tuple[Path, Path], ...]
    others: tuple[tuple[Path, Path], ...]
    rejected: tuple[Rejected, ...] = ()


def open_inputs(paths: Sequence[Path], stack: ExitStack) -> Inputs:
    """List the files under files, folders and .zip archives.

    Args:
        paths: What the user named.
        stack: Keeps the temporary folders of extracted archives until it is closed.

    Returns:
        The files; folders are walked in sorted order and links to folders are not followed.

    Raises:
        InputError: If a path does not exist (code `not-found`) or an archive is refused.
    """
    images: list[tuple[Path, Path]] = []
    others: list[tuple[Path, Path]] = []
    rejected: list[Rejected] = []
    for path in paths:
        if not path.exists():
            msg = f"INPUT must be a file or folder, got {str(path)!r}, which does not exist."
            raise InputError(msg, code="not-found")
        root = path
        if path.suffix.lower() == ".zip" and path.is_file():
            root = Path(stack.enter_context(TemporaryDirectory(prefix="medseg-")))
            extract_zip(path, root)
        for file in [root] if root.is_file() else _walk(root):
            if is_image_file(file):
                images.append((file, root))
            elif file.suffix.lower() == ".zip":
                message = "an archive inside the input is not opened; name it as INPUT"
                rejected.append(Rejected(file, "nested-archive", message))
            else:
                others.append((file, root))
    return Inputs(tuple(images), tuple(others), tuple(rejected))


def find_cases(
    paths: Sequence[Path],
    rule: Rule,
    stack: ExitStack,
    *,
    series: str | None = None,
    progress: Progress | None = None,
) -> tuple[list[Case], list[Rejected]]:
    """Make the cases of what the user named; reads headers only.

    Args:
        paths: DICOM files or folders, .zip archives, image files, or folders of any of them.
        rule: Which DICOM volumes fit.
        stack: Keeps the temporary folders of extracted archives.
        series: SeriesInstanceUID or volume id that is taken by hand, or `all` usable ones.
        progress: Called with (files done, files in all).

    Returns:
        Cases in a stable order, and the files that belong to none.

    Raises:
        InputError: If nothing under the paths is an image (code `no-images`).
    """
    inputs = open_inputs(paths, stack)
    roots = dict(inputs.images) | dict(inputs.others)
    cases = _file_cases([file for file, _ in inputs.images], roots, rule.channels)
    rejected = list(inputs.rejected)
    if inputs.others:
        scan = find_series([file for file, _ in inputs.others], progress=progress)
        rejected += scan.rejected
        volumes = [volume for found in scan.series for volume in found.volumes]
        path = (
            paths[0] if len(paths) == 1 else Path(os.path.commonpath([p.resolve() for p in paths]))
        )
        cases += _dicom_cases(volumes, path, rule, series)
    if not cases:
        reasons = ", ".join(
            f"{count} {code}" for code, count in Counter(r.code for r in rejected).most_common(4)
        )
        names = " ".join(str(path) for path in paths)
        msg = (
            f"INPUT must hold at least one image, got {names} with "
            f"{reasons or 'no files'}. List what is there with: medseg inspect {names}"
        )
        raise InputError(msg, code="no-images")
    return _with_unique_ids(cases), rejected


def read_case(
    case: Case, *, frame: int | None = None, channels: int = 1, regrid: bool = False
) -> Volume:
    """Read the pixels of a case, padding of CT turned to air.

    Args:
        case: The case.
        frame: Frame of a 4D image, counted from zero.
        channels: Channels the network expects.
        regrid: Resample missing or irregular slices to an even grid.

    Returns:
        The volume.

    Raises:
        InputError: If the pixels cannot be read, or a 4D acquisition is met without a frame.
    """
    if case.volume is None:
        volumes = [read_file(file, frame=frame, channels=channels) for file in case.files]
        return stack_channels(volumes)
    if case.volume.frames > 1 and frame is None and case.volume.frames != channels:
        msg = (
            f"frame must be given for a 4D acquisition, got {case.volume.volume_id} with"
            f" {case.volume.frames} frames. Add --frame N, counted from 0."
        )
        raise InputError(msg, code="needs-frame")
    return read_volume(case.volume, frame=frame, regrid=regrid, padding_to_air=True)


def _walk(root: Path) -> Iterable[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders.sort()
        for name in sorted(files):
            if name.lower() not in OPERATING_SYSTEM_FILES and not name.startswith("._"):
                yield Path(folder) / name


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else path.name


def _file_cases(files: list[Path], roots: dict[Path, Path], channels: int) -> list[Case]:
    groups = group_channels(files) if channels > 1 else {str(file): [file] for file in files}
    cases = []
    for stem, group in groups.items():
        first = group[0]
        name = file_stem(first) if len(group) == 1 else Path(stem).name
        case = Case(name, first, _relative(first, roots[first]), files=tuple(group))
        if len(group) not in (1, channels):
            message = f"{len(group)} channel files found, the bundle needs {channels}"
            case = replace(case, error=Problem("wrong-channels", message))
        cases.append(case)
    return cases


def _dicom_cases(
    volumes: list[DicomVolume], path: Path, rule: Rule, series: str | None
) -> list[Case]:
    if series is not None:
        return _by_hand(volumes, path, rule, series)
    studies: dict[str, list[DicomVolume]] = {}
    for volume in volumes:
        key = volume.study_instance_uid or volume.series_instance_uid or volume.volume_id
        studies.setdefault(key, []).append(volume)
    return [_choose(study, path, rule) for study in studies.values()]


def _by_hand(volumes: list[DicomVolume], path: Path, rule: Rule, series: str) -> list[Case]:
    if series == "all":
        chosen = [volume for volume in volumes if volume.usable]
    else:
        chosen = [v for v in volumes if series in (v.series_instance_uid, v.volume_id)]
        usable = [volume for volume in chosen if volume.usable]
        chosen = usable or chosen
    if not chosen:
        message = f"--series {series} fits none of the {len(volumes)} volumes"
        problem = Problem("no-usable-volume", message)
        return [Case("none", path, error=problem, candidates=tuple(volumes))]
    return [_case_of(volume, path, rule) for volume in chosen]


def _case_of(volume: DicomVolume, path: Path, rule: Rule) -> Case:
    case = Case(volume.volume_id, path, volume=volume)
    if not volume.usable:
        return replace(case, error=_first_error(volume), candidates=(volume,))
    reason = rule.reason_against(volume)
    if reason:
        warning = Problem("outside-input-rule", f"chosen by hand although {reason}", "warning")
        case = replace(case, warnings=(warning,))
    return case


def _first_error(volume: DicomVolume) -> Problem:
    return next(problem for problem in volume.problems if problem.is_error)


def _choose(study: list[DicomVolume], path: Path, rule: Rule) -> Case:
    fitting = [v for v in study if v.usable and rule.reason_against(v) is None]
    preferred = [volume for volume in fitting if rule.prefer in volume.image_type]
    if len(fitting) > 1 and len(preferred) == 1:
        note = f"taken before {len(fitting) - 1} other fitting volumes as the one {rule.prefer}"
        warning = Problem("preferred-volume", note, "warning")
        return replace(_case_of(preferred[0], path, rule), warnings=(warning,))
    if len(fitting) == 1:
        return _case_of(fitting[0], path, rule)
    code = "ambiguous-volume" if fitting else "no-usable-volume"
    listed = fitting or study
    lines = "; ".join(_describe(volume, rule) for volume in listed)
    message = (
        f"{len(fitting)} volumes fit, exactly one must: {lines}. Choose with --series VOLUME_ID."
        if fitting
        else f"no volume of the study can be used: {lines}."
    )
    return Case(listed[0].volume_id, path, error=Problem(code, message), candidates=tuple(listed))


def _describe(volume: DicomVolume, rule: Rule) -> str:
    size = "x".join(str(extent) for extent in volume.size)
    if not volume.usable:
        codes = ", ".join(problem.code for problem in volume.problems if problem.is_error)
        return f"{volume.volume_id} ({size}): {codes}"
    return f"{volume.volume_id} ({size}): {rule.reason_against(volume) or 'fits'}"


def _with_unique_ids(cases: list[Case]) -> list[Case]:
    counts = Counter(case.case_id for case in cases)
    result: list[Case] = []
    taken: set[str] = set()
    for case in cases:
        name = case.case_id
        if counts[name] > 1 and case.files:
            parents = Path(case.relative).parent.parts
            name = "_".join([*parents, name])
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.add(candidate)
        result.append(replace(case, case_id=candidate))
    return result
