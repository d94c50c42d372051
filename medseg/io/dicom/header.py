"""What is kept of a DICOM header: one record a file, one a frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Triple = tuple[float, float, float]
PixelKind = Literal["integer", "float", "double"]


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How the stored pixel values of a file are laid out.

    Attributes:
        rows: Rows of a stored frame.
        columns: Columns of a stored frame.
        samples: SamplesPerPixel.
        photometric: PhotometricInterpretation.
        planar: Whether colour planes follow each other.
        bits_allocated: Bits of a stored sample.
        bits_stored: Bits of it that hold the value.
        high_bit: Most significant bit of the value.
        signed: Whether values are two's complement.
        kind: Integers, or IEEE floats of 32 or 64 bits.
        frames: NumberOfFrames, 1 when absent.
        has_modality_lut: Whether a Modality LUT Sequence stands in for slope and intercept.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    kind: PixelKind = "integer"
    frames: int = 1
    has_modality_lut: bool = False

    @property
    def frame_bytes(self) -> int:
        """Size of an uncompressed frame."""
        return (self.rows * self.columns * self.samples * self.bits_allocated + 7) // 8


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One DICOM file that holds, or should hold, an image.

    Attributes:
        path: The file.
        name: Its path relative to the input it was found under.
        folder: Folder part of `name`.
        transfer_syntax: UID; guessed from the encoding where the file states none.
        pixels: Layout of the pixels.
        pixel_offset: First byte of the pixel value in the file, -1 when there is none.
        pixel_bytes: Length of the value, -1 for encapsulated or deflated pixels.
        fault: Code of what makes the pixels unreadable, empty when nothing is known.
    """

    path: Path
    name: str
    folder: str
    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    series_number: int
    instance_number: int | None
    modality: str
    description: str
    frame_of_reference_uid: str
    temporal_positions: int
    pixels: PixelFormat
    pixel_offset: int
    pixel_bytes: int
    fault: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One slice: a file's only frame, one of its many, or a tile of a mosaic.

    Attributes:
        instance: The file.
        index: Frame in the file, from 0.
        rows: Rows of the slice.
        columns: Columns of the slice.
        tile: First row and column of the slice in a mosaic.
        position: ImagePositionPatient; LPS, mm.
        orientation: ImageOrientationPatient.
        spacing: PixelSpacing, between rows and between columns; mm.
        slope: RescaleSlope, or None when the header states none.
        intercept: RescaleIntercept, or None when the header states none.
        units: RescaleType, or Units of PET.
        image_type: ImageType or FrameType.
        kind: `original`, `derived`, `secondary` or `localizer`.
        component: `M`, `P`, `R`, `I`, a Dixon component, or empty.
        echo: EchoNumbers and EchoTime, in text.
        b_value: Diffusion weighting; s/mm2.
        gradient: Diffusion gradient direction.
        variant: Further tags that tell one volume from another at the same positions.
        times: Tags that tell one time point from another, in the order of `TIME_KEYS`.
        padding: Lowest and highest value that marks pixels outside the image, rescaled.
    """

    instance: Instance
    index: int
    rows: int
    columns: int
    tile: tuple[int, int] | None
    position: Triple | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    slope: float | None
    intercept: float | None
    units: str
    image_type: tuple[str, ...]
    kind: str
    component: str
    echo: str
    b_value: float | None
    gradient: Triple | None
    variant: tuple[str, ...]
    times: tuple[float | None, ...]
    padding: tuple[float, float] | None = None

    @property
    def rescale(self) -> tuple[float, float]:
        """Slope and intercept, 1 and 0 where the header states none."""
        return (
            1.0 if self.slope is None else self.slope,
            0.0 if self.intercept is None else self.intercept,
        )

    @property
    def label(self) -> str:
        """What a message calls the slice: its file and, in multi-frame files, its frame."""
        if self.instance.pixels.frames > 1:
            return f"{self.instance.name} frame {self.index + 1}"
        return self.instance.name


TIME_KEYS = (
    "TemporalPosition",
    "TriggerTime",
    "AcquisitionNumber",
    "TemporalOffset",
    "AcquisitionTime",
    "FrameReferenceTime",
    "ContentTime",
)
"""Meaning of `Frame.times`, most explicit first."""
