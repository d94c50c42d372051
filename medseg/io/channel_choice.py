"""Which series of a study is which channel of a network that wants several."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from medseg.errors import Problem
from medseg.io.dicom import DicomVolume

MANNER = (  # noqa: SIM905 -- words are easier to read without quotes
    "ax axial tra trans transverse transversal sag sagittal cor coronal obl oblique iso isotropic"
    " se tse fse tfe mprage mpr spgr fspgr bravo brain head neck prostate pelvis abdomen liver knee"
    " spine heart cardiac breast whole body"
).split()
"""Words of a series description that do not change what a volume of one weighting shows."""
_MANNER = re.compile(r"[23]d|\d+mm")


@dataclass(frozen=True)
class ChannelRule:
    """What one channel is made of.

    Attributes:
        name: For example `T1w`.
        modality: DICOM modality; empty when the bundle does not say.
    """

    name: str
    modality: str = ""


@dataclass(frozen=True)
class ChannelChoice:
    """The volumes of a case, or why there is no choice.

    Attributes:
        volumes: One a channel, in order.
        warnings: How they were chosen.
        error: Why they could not be.
    """

    volumes: tuple[DicomVolume, ...] = ()
    warnings: tuple[Problem, ...] = ()
    error: Problem | None = None


def choose_channels(
    fitting: Sequence[DicomVolume], channels: Sequence[ChannelRule], prefer: str
) -> ChannelChoice:
    """Find the one volume of each channel.

    A channel whose modality no other channel has is the only volume of that modality. Else its
    name must be the series description, or all of it but for words that say how a scan was taken
    and not what it shows: "T1" is "t1_tse AX", and not "T1 post", as "T2" is not "T2 FLAIR".
    Whatever that leaves open is refused.

    Args:
        fitting: Usable volumes of a study.
        channels: What is wanted, in order.
        prefer: Image type that wins where just one of several volumes is of it.

    Returns:
        The choice.
    """
    counts = Counter(channel.modality for channel in channels)
    chosen: list[DicomVolume] = []
    warnings: list[Problem] = []
    faults: list[str] = []
    for channel in channels:
        alone = bool(channel.modality) and counts[channel.modality] == 1
        found = _candidates(fitting, channel, by_modality=alone)
        preferred = [volume for volume in found if prefer in volume.image_type]
        if len(found) > 1 and len(preferred) == 1:
            note = f"{preferred[0].volume_id} is {channel.name} for being the only one {prefer}"
            warnings.append(Problem("preferred-volume", note, "warning"))
            found = preferred
        if len(found) == 1:
            chosen.append(found[0])
        else:
            ids = ", ".join(volume.volume_id for volume in found) or "none"
            faults.append(f"{channel.name}: {ids}")
    if faults:
        return ChannelChoice(error=_open(faults, fitting, channels))
    twice = [v.volume_id for v, count in Counter(chosen).items() if count > 1]
    if twice:
        faults = [f"{twice[0]} for several channels"]
        return ChannelChoice(error=_open(faults, fitting, channels))
    apart = why_apart(chosen)
    if apart:
        return ChannelChoice(error=Problem("other-frame-of-reference", f"{apart}."))
    listed = ", ".join(f"{c.name}: {v.volume_id}" for c, v in zip(channels, chosen, strict=True))
    told = Problem("chosen-channels", f"channels were told apart as {listed}", "warning")
    return ChannelChoice(tuple(chosen), (told, *warnings))


def why_apart(volumes: Sequence[DicomVolume]) -> str:
    """Say why volumes do not share a space.

    Args:
        volumes: The channels of a case.

    Returns:
        A reason, empty where their frames of reference are the same, or not all stated.
    """
    frames = [volume.stacks[0][0].instance.frame_of_reference_uid for volume in volumes]
    if len(set(frames) - {""}) < 2:
        return ""
    ids = " and ".join(volume.volume_id for volume in volumes)
    return f"{ids} have different frames of reference: nothing says that they lie over each other"


def _candidates(
    fitting: Sequence[DicomVolume], channel: ChannelRule, *, by_modality: bool
) -> list[DicomVolume]:
    pool = [v for v in fitting if channel.modality in ("", v.modality)]
    if by_modality and len(pool) == 1:
        return pool
    name = _words(channel.name)
    exact = [volume for volume in pool if _words(volume.description) == name]
    return exact or [volume for volume in pool if _is_but_for_manner(volume.description, name)]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _is_but_for_manner(description: str, name: Sequence[str]) -> bool:
    words = _words(description)
    for start in range(len(words) - len(name) + 1):
        if words[start : start + len(name)] == name:
            rest = [*words[:start], *words[start + len(name) :]]
            return bool(name) and all(w in MANNER or _MANNER.fullmatch(w) for w in rest)
    return False


def _open(
    faults: Sequence[str],
    fitting: Sequence[DicomVolume],
    channels: Sequence[ChannelRule],
) -> Problem:
    names = ", ".join(channel.name for channel in channels)
    listed = ", ".join(volume.volume_id for volume in fitting) or "none"
    message = (
        f"channels must each have one volume, told by modality and series description, got"
        f" {'; '.join(faults)}. Volumes that fit are {listed}; medseg inspect describes them."
        f" Choose with --series ID,ID in the order {names}."
    )
    missing = len(fitting) < len(channels)
    return Problem("no-usable-volume" if missing else "ambiguous-volume", message)
