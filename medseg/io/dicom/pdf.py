"""A PDF document as a DICOM object, for archives that show nothing else."""

import datetime
import warnings

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage

from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.derived import Made, new_object, now, series_of
from medseg.io.dicom.source_headers import SourceHeaders, source_headers
from medseg.volume import Source


def encapsulated_pdf(
    document: bytes,
    source: Source,
    algorithm: Algorithm,
    *,
    made_at: datetime.datetime | None = None,
) -> Made:
    """Make an Encapsulated PDF of a document, of the patient and study of its source.

    Args:
        document: PDF; must not identify the patient.
        source: Of the volume that it is about; DICOM.
        algorithm: What made the segmentation.
        made_at: When; the present if None.

    Returns:
        The object, and a warning where the source lacks UIDs (`made-up-uid`).

    Raises:
        ValueError: If the document is no PDF.
        DicomError: If the source is no DICOM (`no-dicom-source`) or states no UIDs (`no-uid`).

    Source:
        DICOM PS3.3 A.45.1 and C.24.
    """
    if not document.startswith(b"%PDF-"):
        msg = f"document must be PDF, got {document[:8]!r}"
        raise ValueError(msg)
    headers = source_headers(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on values of the source, which are copied as they are
        series = series_of(headers, "pdf", algorithm, made_at or now())
        dataset = new_object(headers, EncapsulatedPDFStorage, "DOC", series)
    dataset.AcquisitionDateTime = None
    dataset.DocumentTitle = f"Segmentation by {algorithm.name}"[:1024]
    dataset.ConceptNameCodeSequence = [CodedConcept.from_code(codes.LN.DiagnosticImagingReport)]
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.SourceInstanceSequence = _sources(headers)
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    dataset.EncapsulatedDocumentLength = len(document)
    return Made(dataset, headers.problems())


def _sources(headers: SourceHeaders) -> list[Dataset]:
    items = []
    for source in headers.datasets:
        item = Dataset()
        item.ReferencedSOPClassUID = source.SOPClassUID
        item.ReferencedSOPInstanceUID = source.SOPInstanceUID
        items.append(item)
    return items
