"""Frames of files whose attributes stand at the top of the header."""

from typing import Any

from medseg.io.dicom import tags
from medseg.io.dicom.header import Frame, Instance

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_LOCALIZER_WORDS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"}
_COMPONENTS = {
    "M": "M",
    "M_FFE": "M",
    "M_SE": "M",
    "M_IR": "M",
    "MAGNITUDE": "M",
    "P": "P",
    "PHASE": "P",
    "PHASE MAP": "P",
    "P_FFE": "P",
    "P_SE": "P",
    "VELOCITY MAP": "P",
    "R": "R",
    "REAL": "R",
    "R_FFE": "R",
    "R_SE": "R",
    "R_IR": "R",
    "I": "I",
    "IMAGINARY": "I",
    "I_FFE": "I",
    "I_SE": "I",
    "I_IR": "I",
    "W": "WATER",
    "WATER": "WATER",
    "F": "FAT",
    "FAT": "FAT",
    "IP": "IN_PHASE",
    "IN_PHASE": "IN_PHASE",
    "OP": "OUT_PHASE",
    "OUT_PHASE": "OUT_PHASE",
    "OPP_PHASE": "OUT_PHASE",
    "FF": "FAT_FRACTION",
    "FAT_FRACTION": "FAT_FRACTION",
}
"""Words of ImageType that name a component of a complex or Dixon acquisition."""

_GE_COMPONENTS = ("M", "P", "R", "I")
_SIEMENS_B, _SIEMENS_GRADIENT = 0x0C, 0x0E
_GE_COMPONENT, _GE_B = 0x2F, 0x39
_PHILIPS_B = 0x03
_UIH_B, _UIH_GRADIENT = 0x09, 0x37
_GE_B_OFFSET = 1e9
"""GE adds this to the b-values of some sequences to mark them."""


def vector(values: list[float], length: int) -> Any:
    """Return a tuple of exactly that many numbers, or None.

    Args:
        values: Numbers read.
        length: How many there must be.

    Returns:
        The tuple or None.
    """
    return tuple(values[:length]) if len(values) >= length else None


def kind_of(image_type: tuple[str, ...], sop_class_uid: str, scan_options: str = "") -> str:
    """Say which kind of image a frame is, by ImageType and SOP class.

    Args:
        image_type: ImageType or FrameType.
        sop_class_uid: SOPClassUID.
        scan_options: ScanOptions.

    Returns:
        `localizer`, `secondary`, `derived` or `original`.
    """
    words = {word for value in image_type for word in value.split()}
    if words & _LOCALIZER_WORDS or _LOCALIZER_WORDS & set(scan_options.upper().split()):
        return "localizer"
    if sop_class_uid == SECONDARY_CAPTURE or sop_class_uid.startswith(SECONDARY_CAPTURE + "."):
        return "secondary"
    return "derived" if image_type[:1] == ("DERIVED",) else "original"


def component_of(image_type: tuple[str, ...], complex_component: str) -> str:
    """Name the component that a frame shows.

    Args:
        image_type: ImageType or FrameType.
        complex_component: ComplexImageComponent, or "".

    Returns:
        A value of the table of components, or "".
    """
    found = [_COMPONENTS[word] for word in image_type[2:] if word in _COMPONENTS]
    stated = _COMPONENTS.get(complex_component.upper(), "")
    names = sorted({*found, stated} - {""})
    return "+".join(names)


def private_component(ds: tags.Header) -> str:
    """Return GE's component (magnitude, phase, real, imaginary), or "".

    Args:
        ds: Header.

    Returns:
        One letter or "".
    """
    tag = tags.private(ds, "GEMS_PARM_01", _GE_COMPONENT)
    if tag is None:
        return ""
    value = tags.integer(ds, tag, 0, "SS")
    return _GE_COMPONENTS[value] if 0 <= value < 4 else ""


def b_value_of(ds: tags.Header) -> float | None:
    """Return the diffusion b-value, from the standard tag or a vendor's.

    Args:
        ds: Header.

    Returns:
        b-value, s/mm2, or None.
    """
    found = tags.number(ds, "DiffusionBValue", "FD")
    places = (
        ("SIEMENS MR HEADER", _SIEMENS_B, "IS"),
        ("Philips Imaging DD 001", _PHILIPS_B, "FL"),
        ("UIH", _UIH_B, "FD"),
        ("GEMS_PARM_01", _GE_B, "IS"),
    )
    for creator, place, vr in places:
        if found is not None:
            break
        tag = tags.private(ds, creator, place)
        found = None if tag is None else tags.number(ds, tag, vr)
    if found is None or found < 0:
        return None
    return found % _GE_B_OFFSET if found >= _GE_B_OFFSET else found


def gradient_of(ds: tags.Header) -> Any:
    """Return the diffusion gradient direction, or None.

    Args:
        ds: Header.

    Returns:
        (3,) direction or None.
    """
    found = vector(tags.numbers(ds, "DiffusionGradientOrientation", "FD"), 3)
    for creator, place in (
        ("SIEMENS MR HEADER", _SIEMENS_GRADIENT),
        ("UIH", _UIH_GRADIENT),
    ):
        tag = None if found else tags.private(ds, creator, place)
        if tag is not None:
            found = vector(tags.numbers(ds, tag, "FD"), 3)
    return found


def moment(ds: tags.Header, name: str) -> float | None:
    """Return `<name>Date` and `<name>Time` as seconds, or None.

    Args:
        ds: Header.
        name: `Acquisition` or `Content`.

    Returns:
        Seconds on one axis, for telling apart and ordering.
    """
    return tags.seconds(tags.text(ds, f"{name}Date"), tags.text(ds, f"{name}Time"))


def acquisition_moment(ds: tags.Header, key: str) -> float | None:
    """Return a DT element as seconds, or None.

    Args:
        ds: Header.
        key: Keyword of a date-time.

    Returns:
        Seconds.
    """
    stamp = tags.text(ds, key).partition("+")[0]
    return tags.seconds(stamp[:8], stamp[8:]) if len(stamp) > 8 else None


def pixel_spacing(ds: tags.Header) -> Any:
    """Return the distance between rows and between columns that the header states.

    Args:
        ds: Header.

    Returns:
        (rows, columns) mm, or None.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        found = vector(tags.numbers(ds, keyword), 2)
        if found and min(found) > 0:
            return found
    return None


def units_of(ds: tags.Header) -> str:
    """Return what the rescaled values are: RescaleType, or Units of PET.

    Args:
        ds: Header.

    Returns:
        Upper-case text or "".
    """
    return (tags.text(ds, "RescaleType") or tags.text(ds, "Units")).upper()


def padding_of(
    ds: tags.Header, signed: bool, slope: float, intercept: float
) -> tuple[float, float] | None:
    """Return the range of values that marks pixels outside the image.

    Args:
        ds: Header.
        signed: PixelRepresentation.
        slope: RescaleSlope.
        intercept: RescaleIntercept.

    Returns:
        Lowest and highest rescaled value, or None.
    """
    vr = "SS" if signed else "US"
    value = tags.number(ds, "PixelPaddingValue", vr)
    if value is None:
        return None
    limit = tags.number(ds, "PixelPaddingRangeLimit", vr)
    stored = [
        end - 65536 if signed and end > 32767 else end  # written unsigned by some
        for end in (value, value if limit is None else limit)
    ]
    ends = [end * slope + intercept for end in stored]
    return min(ends), max(ends)


def classic_fields(instance: Instance, ds: tags.Header) -> dict[str, Any]:
    """Return the fields of a frame that stand at the top of the header.

    Args:
        instance: The file.
        ds: Its header.

    Returns:
        Keyword arguments of `Frame`, all but `index`.
    """
    image_type = tags.texts(ds, "ImageType")
    echo = (tags.text(ds, "EchoNumbers"), *(f"{t:.2f}" for t in tags.numbers(ds, "EchoTime")[:1]))
    slope, intercept = tags.number(ds, "RescaleSlope"), tags.number(ds, "RescaleIntercept")
    temporal = tags.number(ds, "TemporalPositionIdentifier", "IS")
    if temporal is None:
        temporal = tags.number(ds, "TemporalPositionIndex", "UL")
    return {
        "instance": instance,
        "rows": instance.pixels.rows,
        "columns": instance.pixels.columns,
        "tile": None,
        "position": vector(tags.numbers(ds, "ImagePositionPatient"), 3),
        "orientation": vector(tags.numbers(ds, "ImageOrientationPatient"), 6),
        "spacing": pixel_spacing(ds),
        "slope": slope,
        "intercept": intercept,
        "padding": padding_of(ds, instance.pixels.signed, slope or 1.0, intercept or 0.0),
        "units": units_of(ds),
        "image_type": image_type,
        "kind": kind_of(image_type, instance.sop_class_uid, tags.text(ds, "ScanOptions")),
        "component": component_of(image_type, tags.text(ds, "ComplexImageComponent"))
        or private_component(ds),
        "echo": "/".join(echo) if instance.modality == "MR" else "",
        "b_value": b_value_of(ds) if instance.modality == "MR" else None,
        "gradient": gradient_of(ds) if instance.modality == "MR" else None,
        "variant": (
            tags.text(ds, "ConvolutionKernel"),
            tags.text(ds, "SliceThickness"),
            "\\".join(image_type),
            tags.text(ds, "FlipAngle"),
            tags.text(ds, "InversionTime"),
        ),
        "times": (
            temporal,
            tags.number(ds, "TriggerTime"),
            tags.number(ds, "AcquisitionNumber", "IS"),
            None,
            acquisition_moment(ds, "AcquisitionDateTime") or moment(ds, "Acquisition"),
            tags.number(ds, "FrameReferenceTime"),
            moment(ds, "Content"),
        ),
    }


def classic_frames(instance: Instance, ds: tags.Header) -> list[Frame]:
    """Return the frames of a file without functional groups.

    A multi-frame file of this kind (cine, secondary capture) states one geometry at most: it
    places the first frame alone, so frames of such files have none.

    Args:
        instance: The file.
        ds: Its header.

    Returns:
        One frame for each of NumberOfFrames.
    """
    fields = classic_fields(instance, ds)
    count = instance.pixels.frames
    if count > 1:
        fields |= {"position": None, "orientation": None}
    return [Frame(index=index, **fields) for index in range(count)]
