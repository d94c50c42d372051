"""What the header of a source says is looked for in every file of a run, byte by byte."""

import gzip
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset

from medseg.workflows.dicom_outputs import DICOM_FILES, DICOM_OUTPUTS
from medseg.workflows.outputs import OUTPUTS, PICTURES, SOLIDS
from medseg.workflows.segment import SegmentOptions, segment
from tests.io.dicom.synthetic import ct_pixels, header, save, set_pixels
from tests.picture_bundle import write_picture_bundle
from tests.toy_bundle import write_toy_bundle

MARKER = "XMARKX"
DATE, TIME, AGE = "19121212", "121212.121212", "077Y"
SECRET_UID = "1.2.826.0.1.987654321"  # of all UIDs of the source
SECRETS = [
    text.encode() for text in (MARKER, MARKER.lower(), DATE, TIME[:6], AGE, SECRET_UID, "19121213")
]
OF_STRINGS = {
    **dict.fromkeys(("AE", "CS", "SH"), MARKER),
    **dict.fromkeys(("LO", "LT", "ST", "UC", "UT"), f"{MARKER} some text"),
    "PN": f"{MARKER}^{MARKER}",
    "UR": f"http://{MARKER}.example",
    "DA": DATE,
    "TM": TIME,
    "DT": f"{DATE}{TIME}",
    "AS": AGE,
}
NEEDED = frozenset(
    """
    SpecificCharacterSet Modality ImageType PhotometricInterpretation PatientSex Laterality
    PatientOrientation RescaleType LossyImageCompression LossyImageCompressionMethod
    FrameType BodyPartExamined CodingSchemeDesignator
    """.split()  # noqa: SIM905
)
"""What decides how a file is read or has a form of its own."""


GROUPS = frozenset({*range(0x08, 0x28, 2), 0x32, 0x38, 0x40})
"""Of attributes that images have."""


def planted(**tags: Any) -> Dataset:
    """Return a header with a marker in every attribute of text, in items and in private tags."""
    ds = header(**tags)
    for tag in sorted(DicomDictionary):
        kind, keyword = dictionary_VR(tag), keyword_for_tag(tag)
        group = tag >> 16
        if keyword in NEEDED or keyword in tags or group not in GROUPS:
            continue
        if kind in OF_STRINGS:
            ds.add_new(tag, kind, OF_STRINGS[kind])
        elif kind == "SQ" and group in (0x08, 0x10, 0x12, 0x32, 0x38) and keyword:
            item = Dataset()
            item.CodeMeaning, item.PatientID, item.RetrieveAETitle = (MARKER,) * 3
            item.PersonName, item.ReferencedSOPInstanceUID = MARKER, f"{SECRET_UID}.77"
            item.add_new((0x0009, 0x0010), "LO", MARKER)
            ds.add_new(tag, "SQ", [item])
    ds.add_new((0x0009, 0x0010), "LO", MARKER)
    ds.add_new((0x0009, 0x1001), "UN", MARKER.encode())
    ds.add_new((0x0029, 0x0010), "LO", MARKER)
    ds.add_new((0x0029, 0x1010), "OB", MARKER.encode())
    return ds


def write_source(folder: Path, *, is_solid: bool) -> Path:
    """Write a series of seven slices, or a radiograph, with the marker in names of files."""
    uids = {
        "StudyInstanceUID": f"{SECRET_UID}.1",
        "SeriesInstanceUID": f"{SECRET_UID}.2",
        "FrameOfReferenceUID": f"{SECRET_UID}.3",
    }
    flat = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "Modality": "DX",
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "FrameOfReferenceUID": None,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's on markers where codes are due
        for k, pixels in enumerate(ct_pixels(7 if is_solid else 1, 24, 28)):
            place = {"ImagePositionPatient": [0.0, 0.0, 2.0 * k]} if is_solid else {}
            own = {"InstanceNumber": k + 1, "SOPInstanceUID": f"{SECRET_UID}.5.{k}"}
            ds = planted(**{**uids, **own, **place, **({} if is_solid else flat)})
            set_pixels(ds, pixels)
            save(ds, folder / f"{MARKER}-of" / f"{MARKER}_{k}.dcm")
    return folder


def unpacked(path: Path) -> Iterator[bytes]:
    """Yield all that a file holds, compressed parts as they are and without the compression."""
    content = path.read_bytes()
    yield content
    if content[:2] == b"\x1f\x8b":
        yield gzip.decompress(content)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    if content[:4] == b"\x89PNG":
        with Image.open(path) as image:
            image.load()
            yield repr(image.info).encode() + repr(getattr(image, "text", "")).encode()
    yield from streams(content)


def streams(content: bytes) -> Iterator[bytes]:
    """Yield the streams of PDF and NRRD, which are compressed by zlib or gzip."""
    for found in re.finditer(rb"stream\r?\n|encoding: gzip\n(?:.*\n)*?\n", content):
        try:
            yield zlib.decompressobj(47).decompress(content[found.end() :])
        except zlib.error:
            continue


def telling(path: Path) -> list[bytes]:
    """Return which secrets a file gives away."""
    parts = list(unpacked(path))
    return [secret for secret in SECRETS if any(secret in part for part in parts)]


def _radiograph_bundle(folder: Path) -> Path:
    return write_picture_bundle(folder, channels=1, names=("grey",))


def outputs_of(*, is_solid: bool) -> tuple[str, ...]:
    """Return all kinds of output that an image can have."""
    return tuple(kind for kind in OUTPUTS if kind not in (PICTURES if is_solid else SOLIDS))


@pytest.mark.parametrize("is_solid", [True, False])
@pytest.mark.parametrize("deidentify", [False, True])
def test_secrets_of_the_source_are_where_they_may_be(
    tmp_path: Path, is_solid: bool, deidentify: bool
) -> None:
    source = write_source(tmp_path / "in", is_solid=is_solid)
    bundle = (write_toy_bundle if is_solid else _radiograph_bundle)(tmp_path / "bundle")
    options = SegmentOptions(
        (source,),
        str(bundle),
        tmp_path / "out",
        outputs=outputs_of(is_solid=is_solid),
        deidentify=deidentify,
    )
    (case,) = segment(options).cases
    assert case["status"] == "done", case["error"]
    assert set(outputs_of(is_solid=is_solid)) <= case["outputs"].keys()
    files = sorted(path for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert any(path.suffix == ".gz" for path in files)
    told = {path.name: telling(path) for path in files}
    dicom = {DICOM_FILES[kind] for kind in DICOM_OUTPUTS if kind in case["outputs"]}
    if deidentify:
        assert {name: found for name, found in told.items() if found} == {}
    else:
        named = {name for name, found in told.items() if set(found) - {MARKER.encode()}}
        assert named == dicom
        assert all(SECRET_UID.encode() in told[name] for name in dicom)
    assert not any(MARKER in str(path.relative_to(tmp_path)) for path in files)


def test_cases_of_a_run_share_new_uids_and_the_choice_is_part_of_what_resume_compares(
    tmp_path: Path,
) -> None:
    source = write_source(tmp_path / "in", is_solid=True)
    bundle = str(write_toy_bundle(tmp_path / "bundle"))
    again = source / "again"
    for path in sorted((source / f"{MARKER}-of").iterdir()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as above
            ds = pydicom.dcmread(path)
            ds.SeriesInstanceUID = f"{SECRET_UID}.9"
            ds.SOPInstanceUID += ".1"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            save(ds, again / path.name)
    common = {"bundle": bundle, "output": tmp_path / "out", "outputs": ("nifti", "seg", "sr")}
    cases = segment(SegmentOptions((source,), series="all", deidentify=True, **common)).cases
    assert len(cases) == 2
    first, second = (pydicom.dcmread(case["outputs"]["seg"]) for case in cases)
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.PatientID == second.PatientID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    options = SegmentOptions((source,), series="all", resume=True, deidentify=True, **common)
    assert [case["status"] for case in segment(options).cases] == ["skipped"] * 2
    options = SegmentOptions((source,), series="all", resume=True, **common)
    assert [case["status"] for case in segment(options).cases] == ["done"] * 2


def test_a_case_that_fails_names_no_file(tmp_path: Path) -> None:
    source = write_source(tmp_path / "in", is_solid=True)
    cut = sorted((source / f"{MARKER}-of").iterdir())[3]
    cut.write_bytes(cut.read_bytes()[:-300])
    listed = tmp_path / "list.txt"
    listed.write_text(f"in/{MARKER}-of\nin/{MARKER}-missing\n")
    bundle = str(write_toy_bundle(tmp_path / "bundle"))
    options = SegmentOptions((listed,), bundle, tmp_path / "out", deidentify=True)
    cases = segment(options).cases
    assert [case["status"] for case in cases] == ["failed"] * 2
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    errors = [json.loads(line)["error"] for line in lines]
    assert [error["code"] for error in errors] == [case["error"]["code"] for case in cases]
    told = [telling(path) for path in (tmp_path / "out").iterdir()]
    assert len(told) == 2  # manifest.jsonl and cases.csv
    assert not any(told)
