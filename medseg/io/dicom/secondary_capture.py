"""A picture of a segmentation as DICOM Secondary Capture, for archives without DICOM SEG."""

import datetime
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.derived import Made, new_object, now, series_of, source_images
from medseg.io.dicom.source_headers import SourceHeaders, source_headers
from medseg.volume import Source

LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")
"""What a picture made of images that lost something repeats of them."""


def secondary_capture(
    picture: npt.NDArray[np.uint8],
    source: Source,
    algorithm: Algorithm,
    *,
    made_at: datetime.datetime | None = None,
) -> Made:
    """Make a Secondary Capture image of a picture, of the patient and study of its source.

    Args:
        picture: (rows, columns, 3) in RGB; must not identify the patient.
        source: Of the volume that it shows; DICOM.
        algorithm: What made the segmentation.
        made_at: When; the present if None.

    Returns:
        The object, and a warning where the source lacks UIDs (`made-up-uid`).

    Raises:
        ValueError: If the picture is not of three bytes a pixel.
        DicomError: If the source is no DICOM (`no-dicom-source`) or states no UIDs (`no-uid`).

    Source:
        DICOM PS3.3 A.8.1 and C.8.6.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
        msg = f"picture must be (rows, columns, 3) of uint8, got {picture.shape} {picture.dtype}"
        raise ValueError(msg)
    headers = source_headers(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on values of the source, which are copied as they are
        series = series_of(headers, "sc", algorithm, made_at or now())
        dataset = new_object(headers, SecondaryCaptureImageStorage, "OT", series)
        for keyword, value in _said(headers, algorithm).items():
            setattr(dataset, keyword, value)
        dataset.set_pixel_data(np.ascontiguousarray(picture), "RGB", 8, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return Made(dataset, headers.problems())


def _said(headers: SourceHeaders, algorithm: Algorithm) -> dict[str, Any]:
    """Return what the image says of how it came to be."""
    first = headers.datasets[0]
    is_lossy = first.get("LossyImageCompression") == "01"
    said = {
        "ImageType": ["DERIVED", "SECONDARY"],
        "Laterality": first.get("Laterality"),  # empty where the source does not say
        "PatientOrientation": None,  # planes of several orientations
        "DerivationDescription": f"Picture of a segmentation made by {algorithm.text}"[:1024],
        "DerivationCodeSequence": [CodedConcept.from_code(codes.DCM.Segmentation)],
        "SourceImageSequence": source_images(headers),
        "LossyImageCompression": "01" if is_lossy else "00",
    }
    if is_lossy:
        said |= {keyword: first[keyword].value for keyword in LOSSY if keyword in first}
    return said
