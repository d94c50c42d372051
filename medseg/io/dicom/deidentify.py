"""DICOM objects that no longer say whose they are."""

import hmac
import secrets
import uuid
from collections.abc import Mapping

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

import medseg

PROFILE = ("113100", "Basic Application Confidentiality Profile")
"""Code and meaning, of CID 7050; stated here, as pydicom's tables of codes are slow to import."""

STANDARD_ROOT = "1.2.840.10008."
"""Of UIDs that the standard defines: classes, syntaxes, schemes."""

CLASS_UIDS = frozenset(
    {"SOPClassUID", "ReferencedSOPClassUID", "TransferSyntaxUID", "CodingSchemeUID", "ContextUID"}
)
"""UIDs that name a kind of thing, also where a vendor defines it."""

REMOVED_GROUPS = frozenset({0x0010, 0x0012, 0x0032, 0x0038, 0x4008})
"""Patient, clinical trial, requests, visits, interpretations: whatever their values are."""

NUMBERS = frozenset(
    {"AT", "DS", "FD", "FL", "IS", "OB", "OD", "OF", "OL", "OV", "OW", "SL", "SS", "SV"}
    | {"UL", "US", "UV", "OB or OW", "US or SS"}
)
"""Value representations that hold pixels, places and counts."""

EMPTIED = frozenset(
    {
        *("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
        *("ReferringPhysicianName", "OperatorsName", "ContentCreatorName", "ROIInterpreter"),
        *("PositionReferenceIndicator", "Laterality", "PatientOrientation", "AcquisitionDateTime"),
        *("StructureSetDate", "StructureSetTime", "PerformedProcedureCodeSequence"),
        "ReferencedPerformedProcedureStepSequence",
    }
)
"""What an object has to state, be it empty: action Z of the profile."""

DUMMIES: Mapping[str, str] = {"ContentDate": "19000101", "ContentTime": "000000"}
"""What some objects must not leave empty: action D of the profile."""

KEPT = frozenset((
    "AlgorithmFamilyCodeSequence", "AlgorithmName", "AlgorithmParameters", "AlgorithmVersion",
    "AnatomicRegionModifierSequence", "AnatomicRegionSequence", "ApprovalStatus",
    "BurnedInAnnotation", "CodeMeaning", "CodeValue", "CodingSchemeDesignator",
    "CodingSchemeIdentificationSequence", "CodingSchemeName",
    "CodingSchemeResponsibleOrganization", "CodingSchemeVersion", "CompletionFlag",
    "ConceptCodeSequence", "ConceptNameCodeSequence", "ContentDescription", "ContentLabel",
    "ContentSequence", "ContentTemplateSequence", "ContinuityOfContent",
    "ContourGeometricType", "ContourImageSequence", "ContourSequence", "ConversionType",
    "CurrentRequestedProcedureEvidenceSequence", "DerivationCodeSequence",
    "DerivationDescription", "DerivationImageSequence", "DeviceSerialNumber",
    "DimensionDescriptionLabel", "DimensionIndexSequence", "DimensionOrganizationSequence",
    "DimensionOrganizationType", "DocumentTitle", "FrameContentSequence", "FrameLabel",
    "FrameType", "ImageType", "LossyImageCompression", "MIMETypeOfEncapsulatedDocument",
    "Manufacturer", "ManufacturerModelName", "MappingResource", "MeasuredValueSequence",
    "MeasurementUnitsCodeSequence", "Modality", "PerFrameFunctionalGroupsSequence",
    "PertinentOtherEvidenceSequence", "PhotometricInterpretation", "PixelMeasuresSequence",
    "PlaneOrientationSequence", "PlanePositionSequence", "PreliminaryFlag",
    "PresentationLUTShape", "PurposeOfReferenceCodeSequence", "ROIContourSequence",
    "ROIGenerationAlgorithm", "ROIGenerationDescription", "ROIName", "ROIObservationLabel",
    "RTROIIdentificationCodeSequence", "RTROIInterpretedType", "RTROIObservationsSequence",
    "RTReferencedSeriesSequence", "RTReferencedStudySequence",
    "ReferencedFrameOfReferenceSequence", "ReferencedInstanceSequence",
    "ReferencedSOPSequence", "ReferencedSeriesSequence", "RelationshipType",
    "SegmentAlgorithmName", "SegmentAlgorithmType", "SegmentDescription",
    "SegmentIdentificationSequence", "SegmentLabel", "SegmentSequence",
    "SegmentationAlgorithmIdentificationSequence", "SegmentationType",
    "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence",
    "SegmentedPropertyTypeModifierCodeSequence", "SegmentsOverlap", "SeriesDescription",
    "SharedFunctionalGroupsSequence", "SoftwareVersions", "SourceImageSequence",
    "SourceInstanceSequence", "SpatialLocationsPreserved", "SpecificCharacterSet",
    "StructureSetDescription", "StructureSetLabel", "StructureSetName",
    "StructureSetROISequence", "TemplateIdentifier", "TextValue", "TrackingID", "ValueType",
    "VerificationFlag",
))  # fmt: skip
"""Texts and sequences of which medseg itself says what they hold, and codes of the standard."""


class Deidentifier:
    """Takes out of DICOM objects what says whose they are.

    Whatever the Basic Application Confidentiality Profile names is removed, emptied or replaced,
    and so is every text, date, name and sequence that is not known to be medseg's own: what a
    source states in an unexpected place goes as well. UIDs are replaced by keyed hashes: equal ones
    by equal ones as long as the deidentifier lives, and none can be traced back without the key,
    which is kept nowhere. Pixels, geometry and numbers stay.

    Args:
        key: Of the hashes; random when None.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    def uid(self, uid: str) -> str:
        """Return what a UID is replaced by.

        Args:
            uid: Any.

        Returns:
            A UID under `2.25`; the same one if the standard defines it, or it is empty.

        Examples:
            >>> one, other = Deidentifier(b"a"), Deidentifier(b"b")
            >>> one.uid("1.2.3") == one.uid("1.2.3") != other.uid("1.2.3")
            True
            >>> one.uid("1.2.840.10008.1.2")
            '1.2.840.10008.1.2'
        """
        if not uid or uid.startswith(STANDARD_ROOT):
            return uid
        return f"2.25.{uuid.UUID(bytes=self._digest(uid)[:16], version=5).int}"

    def __call__(self, dataset: Dataset) -> None:
        """Take out what says whose an object is.

        Args:
            dataset: A finished object with the header of a file; is changed.

        Source:
            DICOM PS3.15 Annex E, table E.1-1.
        """
        known = dataset.get("PatientID") or dataset.get("PatientName") or dataset.StudyInstanceUID
        patient = self._digest(str(known)).hex()[:12].upper()
        self._clean(dataset, set())
        dataset.PatientID = f"ANON-{patient}"
        dataset.PatientName = f"ANON^{patient}"
        for keyword in ("PatientBirthDate", "PatientSex"):
            setattr(dataset, keyword, None)
        dataset.PatientIdentityRemoved = "YES"
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        dataset.DeidentificationMethod = f"medseg {medseg.__version__}: {PROFILE[1]}"[:64]
        method = Dataset()
        method.CodeValue, method.CodeMeaning = PROFILE
        method.CodingSchemeDesignator = "DCM"
        dataset.DeidentificationMethodCodeSequence = [method]
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._key, text.encode(), "sha256")

    def _clean(self, dataset: Dataset, seen: set[int]) -> None:
        """Clean a dataset once: an item may stand in several places."""
        if id(dataset) in seen:
            return
        seen.add(id(dataset))
        for tag in list(dataset.keys()):
            if tag.is_private or tag.group in REMOVED_GROUPS:
                del dataset[tag]
            elif str(dataset.get_item(tag).VR) not in NUMBERS:  # numbers need no decoding
                self._clean_element(dataset, tag, seen)

    def _clean_element(self, dataset: Dataset, tag: BaseTag, seen: set[int]) -> None:
        element = dataset[tag]
        if element.VR == "UI":
            self._map(element)
        elif element.keyword in EMPTIED:
            element.value = [] if element.VR == "SQ" else None
        elif element.keyword in DUMMIES:
            element.value = DUMMIES[element.keyword]
        elif element.keyword not in KEPT:
            del dataset[tag]
        elif element.VR == "SQ":
            for item in element.value:
                self._clean(item, seen)

    def _map(self, element: DataElement) -> None:
        if element.keyword in CLASS_UIDS or not element.value:
            return
        several = element.VM > 1
        element.value = (
            [self.uid(str(one)) for one in element.value] if several else self.uid(element.value)
        )
