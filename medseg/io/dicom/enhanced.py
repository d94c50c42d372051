"""Frames of enhanced multi-frame files: shared and per-frame functional groups."""

from typing import Any

from medseg.io.dicom import tags
from medseg.io.dicom.frames import (
    acquisition_moment,
    classic_fields,
    component_of,
    kind_of,
    vector,
)
from medseg.io.dicom.header import Frame, Instance

_FRAME_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XAXRFFrameCharacteristicsSequence",
    "USImageDescriptionSequence",
    "ParametricMapFrameTypeSequence",
)
_POSITIONS = (0x00209056, 0x00209057, 0x00200032)
"""Dimension index pointers that say where a frame lies: stack, position in it, coordinates."""


class _Groups:
    """Functional groups of one frame: per-frame ones first, then the shared ones."""

    def __init__(self, frame: tags.Header, shared: tags.Header) -> None:
        self._levels = (frame, shared)

    def group(self, keyword: str) -> tags.Header:
        """Return the group's item, empty when there is none."""
        for level in self._levels:
            found = tags.items(level, keyword)
            if found:
                return found[0]
        return tags.Header()


def functional_group_frames(instance: Instance, ds: tags.Header) -> list[Frame]:
    """Return the frames of an enhanced multi-frame file.

    Args:
        instance: The file.
        ds: Its header.

    Returns:
        One frame for each item of the per-frame functional groups.
    """
    shared = (tags.items(ds, "SharedFunctionalGroupsSequence") or [tags.Header()])[0]
    per_frame = tags.items(ds, "PerFrameFunctionalGroupsSequence")
    base = classic_fields(instance, ds)
    other_dimensions = _other_dimensions(ds)
    return [
        Frame(**{**base, **_fields(_Groups(item, shared), base, other_dimensions), "index": index})
        for index, item in enumerate(per_frame[: instance.pixels.frames])
    ]


def _other_dimensions(ds: tags.Header) -> list[int]:
    """Return the places in DimensionIndexValues that do not say where a frame lies."""
    pointers = [
        int(tags.number(item, "DimensionIndexPointer", "UL") or 0)
        for item in tags.items(ds, "DimensionIndexSequence")
    ]
    return [place for place, pointer in enumerate(pointers) if pointer not in _POSITIONS]


def _fields(groups: _Groups, base: dict[str, Any], other_dimensions: list[int]) -> dict[str, Any]:
    measures = groups.group("PixelMeasuresSequence")
    orientation = groups.group("PlaneOrientationSequence")
    position = groups.group("PlanePositionSequence")
    content = groups.group("FrameContentSequence")
    fields = _values(groups, base) | _contrast(groups, base)
    indices = tags.numbers(content, "DimensionIndexValues", "UL")
    fields |= {
        "position": vector(tags.numbers(position, "ImagePositionPatient"), 3) or base["position"],
        "orientation": vector(tags.numbers(orientation, "ImageOrientationPatient"), 6)
        or base["orientation"],
        "spacing": vector(tags.numbers(measures, "PixelSpacing"), 2) or base["spacing"],
        "times": _times(groups, content, base),
    }
    fields["variant"] = (
        *base["variant"][:2],
        "\\".join(fields["image_type"]),
        *base["variant"][3:],
        tags.text(content, "StackID"),
        *(str(indices[place]) for place in other_dimensions if place < len(indices)),
    )
    return fields


def _values(groups: _Groups, base: dict[str, Any]) -> dict[str, Any]:
    transform = groups.group("PixelValueTransformationSequence")
    slope = tags.number(transform, "RescaleSlope")
    if slope is None:
        return {}
    return {
        "slope": slope,
        "intercept": tags.number(transform, "RescaleIntercept"),
        "units": tags.text(transform, "RescaleType").upper() or base["units"],
    }


def _contrast(groups: _Groups, base: dict[str, Any]) -> dict[str, Any]:
    """Return what tells one volume from another: kind, component, echo, b-value."""
    frame_type = tags.Header()
    for keyword in _FRAME_TYPES:
        if not len(frame_type):
            frame_type = groups.group(keyword)
    image_type = tags.texts(frame_type, "FrameType") or base["image_type"]
    diffusion = groups.group("MRDiffusionSequence")
    direction = (tags.items(diffusion, "DiffusionGradientDirectionSequence") or [tags.Header()])[0]
    echo = tags.number(groups.group("MREchoSequence"), "EffectiveEchoTime", "FD")
    b_value = tags.number(diffusion, "DiffusionBValue", "FD")
    sop_class = base["instance"].sop_class_uid
    return {
        "image_type": image_type,
        "kind": kind_of(image_type, sop_class),
        "component": component_of(image_type, tags.text(frame_type, "ComplexImageComponent")),
        "echo": base["echo"] if echo is None else f"{echo:.2f}",
        "b_value": base["b_value"] if b_value is None else b_value,
        "gradient": vector(tags.numbers(direction, "DiffusionGradientOrientation", "FD"), 3)
        or base["gradient"],
    }


def _times(groups: _Groups, content: tags.Header, base: dict[str, Any]) -> tuple[float | None, ...]:
    cardiac = groups.group("CardiacSynchronizationSequence")
    offset = groups.group("TemporalPositionSequence")
    index = tags.number(content, "TemporalPositionIndex", "UL")
    stated = (
        index,
        tags.number(cardiac, "NominalCardiacTriggerDelayTime", "FD"),
        tags.number(content, "FrameAcquisitionNumber", "US"),
        tags.number(offset, "TemporalPositionTimeOffset", "FD"),
        acquisition_moment(content, "FrameAcquisitionDateTime"),
        acquisition_moment(content, "FrameReferenceDateTime"),
        None,
    )
    return tuple(
        ours if ours is not None else theirs
        for ours, theirs in zip(stated, base["times"], strict=True)
    )
