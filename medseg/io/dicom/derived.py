"""What all DICOM objects that are made of a series have in common."""

import datetime
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

import medseg
from medseg.errors import Problem
from medseg.io.atomic import atomic_path
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.source_headers import SourceHeaders
from medseg.io.dicom.structure_codes import PRIVATE_SCHEME

Kind = Literal["seg", "rtstruct", "seg-labelmap", "sc", "sr", "pdf", "seg-fractional"]

SERIES_NUMBERS: Mapping[Kind, int] = {
    "seg": 5000,
    "rtstruct": 6000,
    "seg-labelmap": 7000,
    "sc": 8000,
    "sr": 9000,
    "pdf": 10000,
    "seg-fractional": 11000,
}
"""Of the series that is made, plus that of its source: it sorts behind those of the scanner."""

NOTICE = "Made by a machine. Not a medical device, not for diagnosis."
"""What an object for people's eyes says of itself."""


class Made(NamedTuple):
    """A DICOM object, and what there is to be said of it.

    Attributes:
        dataset: Ready to be saved.
        problems: Warnings.
        segments: Number of the segment of each label's index, in a DICOM SEG.
    """

    dataset: Dataset
    problems: tuple[Problem, ...] = ()
    segments: Mapping[int, int] = {}


def now() -> datetime.datetime:
    """Return the present as DICOM states it: local, in whole seconds."""
    return datetime.datetime.now(datetime.UTC).astimezone().replace(microsecond=0, tzinfo=None)


def series_of(
    headers: SourceHeaders, kind: Kind, algorithm: Algorithm, made_at: datetime.datetime
) -> dict[str, Any]:
    """Return what an object says of its series, device and time, as highdicom's classes take it.

    Args:
        headers: Of the source.
        kind: Of the object; each has a series of its own.
        algorithm: What made it.
        made_at: When; one time for all objects of a case.

    Returns:
        Keyword arguments of `highdicom.base.SOPClass`.
    """
    number = SERIES_NUMBERS[kind] + int(headers.datasets[0].get("SeriesNumber") or 0)
    return {
        "series_instance_uid": generate_uid(),
        "series_number": max(number, 1),
        "series_description": f"medseg {algorithm.name}"[:64],
        "series_date": made_at.date(),
        "series_time": made_at.time(),
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "content_date": made_at.date(),
        "content_time": made_at.time(),
        "manufacturer": "medseg",
        "manufacturer_model_name": algorithm.name[:64],
        "software_versions": medseg.__version__,
        "device_serial_number": algorithm.version[:64] or "0",
    }


def new_object(
    headers: SourceHeaders, sop_class: str, modality: str, series: Mapping[str, Any]
) -> Dataset:
    """Return an object of the patient and the study of a source, without content.

    Args:
        headers: Of the source.
        sop_class: UID of its class.
        modality: Of its series.
        series: What `series_of` returned.

    Returns:
        The dataset, with the header of a file.
    """
    first = headers.datasets[0]
    dataset = hd.base.SOPClass(
        study_instance_uid=first.StudyInstanceUID,
        sop_class_uid=sop_class,
        modality=modality,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        specific_character_set="ISO_IR 192",
        **series,
    )
    dataset.copy_patient_and_study_information(first)
    date_of_creation(dataset, series)
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "NO"
    result: Dataset = dataset
    return result


def date_of_creation(dataset: Dataset, series: Mapping[str, Any]) -> None:
    """State the time of a series as that of the instance's creation too.

    Args:
        dataset: Is changed.
        series: What `series_of` returned.
    """
    dataset.InstanceCreationDate = series["content_date"].strftime("%Y%m%d")
    dataset.InstanceCreationTime = series["content_time"].strftime("%H%M%S")


def source_images(headers: SourceHeaders) -> list[Dataset]:
    """Return references to all images that an object was made of.

    Args:
        headers: Of the source.

    Returns:
        Items of SourceImageSequence.
    """
    purpose = hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    items = []
    for source in headers.datasets:
        item = Dataset()
        item.ReferencedSOPClassUID = source.SOPClassUID
        item.ReferencedSOPInstanceUID = source.SOPInstanceUID
        item.PurposeOfReferenceCodeSequence = [purpose]
        items.append(item)
    return items


def declare_private_scheme(dataset: Dataset) -> None:
    """Say what the scheme of private codes is.

    Args:
        dataset: Is changed.
    """
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Names of structures in medseg bundles"
    item.CodingSchemeResponsibleOrganization = "medseg"
    dataset.CodingSchemeIdentificationSequence = [item]


def save_object(dataset: Dataset, path: Path) -> None:
    """Write an object as a DICOM file, atomically.

    Args:
        dataset: With the header of a file.
        path: The file.

    Raises:
        OutputError: If it cannot be written; nothing is left behind.
    """
    with warnings.catch_warnings(), atomic_path(path) as part:
        warnings.simplefilter("ignore")  # on values of the source, which are copied as they are
        dataset.save_as(part, enforce_file_format=True)
