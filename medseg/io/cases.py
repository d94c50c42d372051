"""From what the user names to cases: one volume, or one file, a segmentation each.

Nothing is chosen by guessing. A study with exactly one fitting volume is a case; with none or
several it is a case that carries the error and the candidates, and the rest of a batch goes on.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import InputError, Problem
from medseg.io.channel_choice import (
    ChannelChoice,
    ChannelRule,
    choose_channels,
    why_apart,
)
from medseg.io.channels import stack_channels
from medseg.io.dicom import DicomVolume, read_volume
from medseg.io.dicom.adaptive import map_files
from medseg.io.files import describe_file, group_channels, read_file
from medseg.io.sources import Sources
from medseg.volume import Volume

REGRID_CODES = frozenset({"missing-slices", "irregular-spacing"})
"""Errors that resampling to an even grid overrides, when it is asked for."""


@dataclass(frozen=True)
class Rule:
    """Which DICOM volumes a case may be made of.

    Attributes:
        reason_against: Says why a volume does not fit, or nothing.
        prefer: Image type that wins where several volumes fit and just one is of it.
        channels: Channels the network expects.
        channel_rules: What each of several channels is made of.
        file_is_case: A file holds all channels, as colour pictures do: files named `_0000`, `_0001`
            are not channels of one case but frames.
    """

    reason_against: Callable[[DicomVolume], str | None]
    prefer: str = "ORIGINAL"
    channels: int = 1
    channel_rules: tuple[ChannelRule, ...] = ()
    file_is_case: bool = False


@dataclass(frozen=True)
class Choice:
    """What the user decided by hand.

    Attributes:
        series: SeriesInstanceUID or volume id that is taken, or `all` usable volumes; of a network
            of several channels one a channel, with commas between.
        regrid: Missing or irregular slices are resampled to an even grid.
        frame: Frame of a 4D image that is taken, counted from zero.
    """

    series: str | None = None
    regrid: bool = False
    frame: int | None = None

    def blocking(self, volume: DicomVolume) -> Problem | None:
        """Return the first problem that keeps a volume from being read.

        Args:
            volume: The volume.

        Returns:
            The problem, or None for a volume that can be read.
        """
        errors = [problem for problem in volume.problems if problem.is_error]
        if self.regrid:
            errors = [problem for problem in errors if problem.code not in REGRID_CODES]
        return errors[0] if errors else None


@dataclass(frozen=True)
class Case:
    """What one segmentation is made of.

    Attributes:
        case_id: Name of the output folder.
        path: What the user named, for standard output.
        relative: Path relative to the input, for files under the output folder.
        volume: The DICOM volume, if it is one; that of the first channel.
        others: The DICOM volumes of the other channels.
        files: The image files, one a channel, if it is one of files.
        warnings: What was noticed in choosing.
        error: Why it cannot be segmented.
        candidates: Volumes of a study for which there was no single choice.
        source: Hash of where it came from, which stays when its id or its images change.
        unpacked: Keeps the archive unpacked that it lies in, for as long as the case is there.
    """

    case_id: str
    path: Path
    relative: str = ""
    volume: DicomVolume | None = None
    others: tuple[DicomVolume, ...] = ()
    files: tuple[Path, ...] = ()
    warnings: tuple[Problem, ...] = ()
    error: Problem | None = None
    candidates: tuple[DicomVolume, ...] = ()
    source: str = ""
    unpacked: object = field(default=None, repr=False, compare=False)

    @property
    def volumes(self) -> tuple[DicomVolume, ...]:
        """The DICOM volumes, one a channel."""
        return () if self.volume is None else (self.volume, *self.others)


def find_cases(sources: Sources, named: Sequence[Path], rule: Rule, choice: Choice) -> list[Case]:
    """Make the cases of what the user named.

    Args:
        sources: What was found there.
        named: What the user named, for messages and records.
        rule: Which DICOM volumes fit.
        choice: What the user decided by hand.

    Returns:
        Cases in a stable order; `with_unique_ids` tells those apart whose ids are equal.

    Raises:
        InputError: If nothing is an image (code `no-images`).
    """
    path = named[0] if len(named) == 1 else Path(os.path.commonpath([p.resolve() for p in named]))
    cases = _file_cases(sources, rule)
    cases += _dicom_cases(list(sources.volumes), path, rule, choice)
    if not cases:
        counts = Counter(rejected.code for rejected in sources.rejected).most_common(4)
        reasons = ", ".join(f"{count} {code}" for code, count in counts)
        names = " and ".join(repr(str(path)) for path in named)
        msg = (
            f"INPUT must hold at least one image, got {names} with {reasons or 'no'} files."
            " medseg inspect lists them."
        )
        raise InputError(msg, code="no-images")
    cases = [_with_damage_told(case, sources) for case in cases]
    return [_with_frame_checked(case, rule.channels, choice) for case in cases]


def _with_damage_told(case: Case, sources: Sources) -> Case:
    """Warn of files beside the slices of a case that may have been slices of it."""
    stacks = [stack for volume in case.volumes for stack in volume.stacks]
    folders = {frame.instance.path.parent for stack in stacks for frame in stack}
    files = sum(sources.damaged.get(folder, 0) for folder in folders)
    if not files:
        return case
    message = (
        f"{files} {'file' if files == 1 else 'files'} beside its slices cannot be read: slices may"
        " be missing at its ends. medseg inspect lists them."
    )
    return replace(case, warnings=(*case.warnings, Problem("unreadable-files", message, "warning")))


def read_case(
    case: Case,
    *,
    frame: int | None = None,
    channels: int = 1,
    regrid: bool = False,
    resample: bool = False,
) -> Volume:
    """Read the pixels of a case, padding of CT turned to air.

    Args:
        case: The case.
        frame: Frame of a 4D image, counted from zero.
        channels: Channels the network expects.
        regrid: Resample missing or irregular slices to an even grid.
        resample: Bring channels that lie on other grids to the grid of the first.

    Returns:
        The volume.

    Raises:
        InputError: If the pixels cannot be read.
    """
    if case.volume is None:
        volumes = [read_file(file, frame=frame, channels=channels) for file in case.files]
        return stack_channels(volumes, resample=resample)
    volumes = []
    for volume in case.volumes:
        needed = regrid and any(problem.code in REGRID_CODES for problem in volume.problems)
        volumes.append(read_volume(volume, frame=frame, regrid=needed, padding_to_air=True))
    return stack_channels(volumes, resample=resample)


def fingerprint(case: Case) -> str:
    """Return a hash that changes when any byte of the files of a case does, or others make it up.

    Where files lie and what they are called does not matter. Reading them here costs little more
    than the hashing: the system holds them for the reading that follows.

    Args:
        case: The case.

    Returns:
        Hexadecimal digits; they name nothing that was hashed.

    Raises:
        OSError: If a file cannot be read.
    """
    parts = list(map_files(_sha256, case.files))
    for volume in case.volumes:
        frames = [frame for stack in volume.stacks for frame in stack]
        paths = list(dict.fromkeys(frame.instance.path for frame in frames))
        digests = dict(zip(paths, map_files(_sha256, paths), strict=True))
        parts += sorted(f"{digests[frame.instance.path]} {frame.index}" for frame in frames)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _file_cases(sources: Sources, rule: Rule) -> list[Case]:
    named = {file.path: file for file in sources.files}
    if rule.channels == 1 or rule.file_is_case:  # every file is a case, whatever its name
        return [
            Case(file.volume_id, file.origin, file.shown, files=(file.path,))
            for file in sources.files
        ]
    cases = []
    for stem, group in group_channels(list(named)).items():
        first = named[group[0]]
        name = first.volume_id if len(group) == 1 else Path(stem).name
        case = Case(name, first.origin, first.shown, files=tuple(group))
        if len(group) not in (1, rule.channels):
            message = f"{len(group)} channel files found, the bundle needs {rule.channels}"
            case = replace(case, error=Problem("wrong-channels", message))
        cases.append(case)
    return cases


def _dicom_cases(volumes: list[DicomVolume], path: Path, rule: Rule, choice: Choice) -> list[Case]:
    if choice.series is not None and volumes:
        return _by_hand(volumes, path, rule, choice)
    studies: dict[str, list[DicomVolume]] = {}
    for volume in volumes:
        # without a UID, a folder is a study: two series of it are a choice, not two cases
        key = volume.study_instance_uid or f"folder:{volume.stacks[0][0].instance.path.parent}"
        studies.setdefault(key, []).append(volume)
    return [_choose(study, path, rule, choice) for study in studies.values()]


def _by_hand(volumes: list[DicomVolume], path: Path, rule: Rule, choice: Choice) -> list[Case]:
    if rule.channels > 1 and "," in (choice.series or ""):
        return [_channels_by_hand(volumes, path, rule, choice)]
    if choice.series == "all":
        chosen = [volume for volume in volumes if choice.blocking(volume) is None]
    else:
        chosen = [v for v in volumes if choice.series in (v.series_instance_uid, v.volume_id)]
        chosen = [v for v in chosen if choice.blocking(v) is None] or chosen
    if not chosen:
        message = f"--series {choice.series} fits none of {len(volumes)} volumes: " + "; ".join(
            _describe(volume, rule, choice) for volume in volumes
        )
        problem = Problem("no-usable-volume", message)
        return [Case("none", path, error=problem, candidates=tuple(volumes))]
    return [_case_of(volume, path, rule, choice) for volume in chosen]


def _case_of(volume: DicomVolume, path: Path, rule: Rule, choice: Choice) -> Case:
    case = Case(volume.volume_id, path, volume=volume)
    blocking = choice.blocking(volume)
    if blocking is not None:
        return replace(case, error=blocking, candidates=(volume,))
    reason = rule.reason_against(volume)
    if reason:
        warning = Problem("outside-input-rule", f"chosen by hand although {reason}", "warning")
        case = replace(case, warnings=(warning,))
    return case


def _choose(study: list[DicomVolume], path: Path, rule: Rule, choice: Choice) -> Case:
    fitting = [
        volume
        for volume in study
        if choice.blocking(volume) is None and rule.reason_against(volume) is None
    ]
    is_series = len(fitting) == 1 and fitting[0].frames > 1  # its frames are no channels
    if len(rule.channel_rules) > 1 and not rule.file_is_case and fitting and not is_series:
        return _case_of_channels(
            choose_channels(fitting, rule.channel_rules, rule.prefer), study, path
        )
    preferred = [volume for volume in fitting if rule.prefer in volume.image_type]
    # parts of one series may be one scan whose slices are labelled differently: the user decides
    apart = len({volume.series_instance_uid for volume in fitting}) == len(fitting)
    if len(fitting) > 1 and len(preferred) == 1 and apart:
        others = ", ".join(v.volume_id for v in fitting if v is not preferred[0])
        note = f"taken before {others}, which fit as well, for being the only one {rule.prefer}"
        warning = Problem("preferred-volume", note, "warning")
        return replace(_case_of(preferred[0], path, rule, choice), warnings=(warning,))
    if len(fitting) == 1:
        return _case_of(fitting[0], path, rule, choice)
    listed = fitting or study
    lines = "; ".join(_describe(volume, rule, choice) for volume in listed)
    if fitting:
        message = f"{len(fitting)} volumes fit: {lines}. Choose one with --series VOLUME_ID."
        problem = Problem("ambiguous-volume", message)
    else:
        problem = Problem("no-usable-volume", f"no volume of the study can be used: {lines}.")
    return Case(listed[0].volume_id, path, error=problem, candidates=tuple(listed))


def _case_of_channels(chosen: ChannelChoice, study: list[DicomVolume], path: Path) -> Case:
    if chosen.error is not None:
        return Case(study[0].volume_id, path, error=chosen.error, candidates=tuple(study))
    first, *others = chosen.volumes
    return Case(first.volume_id, path, volume=first, others=tuple(others), warnings=chosen.warnings)


def _channels_by_hand(volumes: list[DicomVolume], path: Path, rule: Rule, choice: Choice) -> Case:
    """Make a case of the volumes that the user named, one a channel."""
    names = [name.strip() for name in (choice.series or "").split(",")]
    found = [
        [
            volume
            for volume in volumes
            if name in (volume.series_instance_uid, volume.volume_id)
            and choice.blocking(volume) is None
        ]
        for name in names
    ]
    wrong = [
        f"{name} ({len(ones)} usable)"
        for name, ones in zip(names, found, strict=True)
        if len(ones) != 1
    ]
    if wrong or not len(names) == len(set(names)) == rule.channels:
        message = (
            f"--series must name {rule.channels} different volumes, one a channel, got"
            f" {', '.join(wrong or names)}. medseg inspect lists them."
        )
        problem = Problem("no-usable-volume", message)
        return Case("none", path, error=problem, candidates=tuple(volumes))
    chosen = tuple(ones[0] for ones in found)
    warnings = []
    for volume in chosen:
        reason = rule.reason_against(volume)
        if reason:
            note = f"{volume.volume_id} was chosen by hand although {reason}"
            warnings.append(Problem("outside-input-rule", note, "warning"))
    apart = why_apart(chosen)
    if apart:
        warnings.append(Problem("other-frame-of-reference", apart, "warning"))
    return _case_of_channels(ChannelChoice(chosen, tuple(warnings)), list(chosen), path)


def _describe(volume: DicomVolume, rule: Rule, choice: Choice) -> str:
    size = "x".join(str(extent) for extent in volume.size)
    blocking = choice.blocking(volume)
    if blocking is not None:
        return f"{volume.volume_id} ({size}): {blocking.code}, {blocking.message.rstrip('.')}"
    return f"{volume.volume_id} ({size}): {rule.reason_against(volume) or 'fits'}"


def _with_frame_checked(case: Case, channels: int, choice: Choice) -> Case:
    """Mark a case that is a 4D image whose frame the user has to name."""
    if case.error is not None or len(case.files) > 1:
        return case
    try:
        frames = (
            max(volume.frames for volume in case.volumes)
            if case.volume
            else describe_file(case.files[0]).frames
        )
    except InputError:  # reading it will say why, in the record of the case
        return case
    if choice.frame is not None and choice.frame >= frames:
        message = f"{case.case_id} has {frames} frames, counted from 0; got frame {choice.frame}."
        return replace(case, error=Problem("no-such-frame", message))
    # only a 4D file may be a multi-channel image: time points of a scan are never channels
    fitting = (1,) if case.volume else (1, channels)
    if choice.frame is None and frames not in fitting:
        message = (
            f"{case.case_id} is a 4D image with {frames} frames."
            f" Choose one with --frame N, 0 to {frames - 1}."
        )
        return replace(case, error=Problem("needs-frame", message))
    return case


def with_unique_ids(cases: list[Case]) -> list[Case]:
    """Number on the ids of cases that share one.

    Args:
        cases: Any cases.

    Returns:
        The same, ids unique.
    """
    result: list[Case] = []
    taken: set[str] = set()
    for case in cases:
        name, number = case.case_id, 2
        while name in taken:
            name, number = f"{case.case_id}_{number}", number + 1
        taken.add(name)
        result.append(replace(case, case_id=name))
    return result
