"""Which series are of one patient, without saying who it is."""

import hashlib
import warnings
from pathlib import Path

from pydicom import dcmread

from medseg.io.dicom.instance import PARSE_ERRORS


def patient_key(path: Path) -> str:
    """Return a digest of a file's PatientID, to tell patients apart in memory; never to be written.

    Args:
        path: A DICOM file.

    Returns:
        Hexadecimal digits; empty where the file has no PatientID.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's on odd values
            ds = dcmread(path, specific_tags=["PatientID"], stop_before_pixels=True)
            known = str(ds.get("PatientID") or "").strip()
    except PARSE_ERRORS:
        return ""
    return hashlib.sha256(known.encode()).hexdigest() if known else ""
