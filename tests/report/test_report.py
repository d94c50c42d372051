"""The report of a case: complete, strict JSON, and without anything that identifies."""

import json
from pathlib import Path

import numpy as np
import torch

from medseg.report.labels import label_statistics
from medseg.report.report import write_report
from medseg.volume import Segmentation, Source, Volume, make_labels


def _written(volume: Volume, path: Path, **context: object) -> dict[str, object]:
    array = np.zeros(volume.shape, np.uint8)
    array[1:3, 1:3] = 1
    seg = Segmentation(
        array, volume.affine, make_labels(["organ", "lesion"]), volume.source, {"network": 1.23456}
    )
    statistics = label_statistics(seg)
    write_report(path, volume, seg, statistics=statistics, context=context)
    document: dict[str, object] = json.loads(path.read_text(), parse_constant=_refuse)
    assert document["labels"] == statistics
    return document


def _refuse(constant: str) -> None:
    raise AssertionError(constant)


def test_a_report_says_what_was_found_where_and_by_what(tmp_path: Path) -> None:
    affine = np.diag([-0.7, -0.7, 2.5, 1.0])
    volume = Volume(np.zeros((1, 8, 7, 5), np.int16), affine, Source(format="dicom", modality="CT"))
    bundle = {"name": "phantom_ct", "version": "0.1.0", "weights_sha256": "ab12", "path": "/secret"}
    warning = {"code": "duplicate-instance", "message": "one instance twice"}
    document = _written(
        volume,
        tmp_path / "report.json",
        bundle=bundle,
        input="study",
        warnings=[warning],
        seconds={"read": 0.5, "total": float("nan")},
    )
    assert document["schema"] == 1
    assert document["bundle"] == {
        "name": "phantom_ct",
        "version": "0.1.0",
        "weights_sha256": "ab12",
    }
    assert document["input"] == "study"
    assert document["source"] == {
        "format": "dicom",
        "modality": "CT",
        "size": [8, 7, 5],
        "spacing_mm": [0.7, 0.7, 2.5],
        "orientation": "LPS",
        "channels": 1,
        "intensity_unit": "HU",
    }
    assert document["found"] == 1
    assert document["warnings"] == [warning]
    assert document["seconds"] == {"network": 1.235, "read": 0.5, "total": None}
    assert document["versions"]["torch"] == torch.__version__.split("+")[0]  # type: ignore[index]


def test_nothing_of_the_source_that_identifies_is_written(tmp_path: Path) -> None:
    secrets = {
        "path": Path("/archive/DOE_JOHN/1"),
        "study_instance_uid": "1.2.840.1",
        "series_instance_uid": "1.2.840.2",
        "volume_id": "CT_3_deadbeef",
        "instances": (Path("/archive/DOE_JOHN/1/IM1"),),
        "details": {"PatientName": "DOE^JOHN"},
    }
    volume = Volume(np.zeros((1, 6, 6, 6)), np.eye(4), Source(**secrets))  # type: ignore[arg-type]
    _written(volume, tmp_path / "report.json", bundle=None)
    text = (tmp_path / "report.json").read_text()
    for secret in ("DOE", "1.2.840", "deadbeef", "archive"):
        assert secret not in text


def test_a_2d_image_without_pixel_size_says_so(tmp_path: Path) -> None:
    source = Source(format="raster", has_spacing=False)
    volume = Volume(np.zeros((3, 6, 9), np.uint8), np.eye(3), source)
    described = _written(volume, tmp_path / "report.json")["source"]
    assert described == {
        "format": "raster",
        "modality": "",
        "size": [6, 9],
        "spacing_mm": None,
        "orientation": "",
        "channels": 3,
        "intensity_unit": "",
    }
