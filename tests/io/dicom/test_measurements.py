"""Measurement reports: read back with highdicom value by value, and judged by dciodvfy."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.sr.codedict import codes

from medseg.io.dicom.derived import save_object
from medseg.io.dicom.measurements import measurement_report
from medseg.io.dicom.seg_write import segmentation_object
from medseg.report.labels import label_statistics
from medseg.volume import Segmentation, make_labels
from tests.io.dicom.made import (
    MADE_BY,
    REAL,
    ct_volume,
    picture,
    said,
    segmented,
    statistics_of,
    volume_of,
)
from tests.real_data import data_folder


def groups_of(path: Path, *, template: str) -> list[Any]:
    """Return the measurement groups of a file."""
    content = hd.sr.srread(path).content
    return {
        "volumetric": content.get_volumetric_roi_measurement_groups,
        "image": content.get_image_measurement_groups,
    }[template]()


def numbers_of(group: Any) -> dict[tuple[str, str | None], tuple[float, str]]:
    """Return name and derivation of each measurement, and its value and unit."""
    return {
        (one.name.meaning, one.derivation.meaning if one.derivation else None): (
            one.value,
            one.unit.value,
        )
        for one in group.get_measurements()
    }


@pytest.mark.parametrize("with_seg", [True, False])
def test_every_measurement_comes_back(tmp_path: Path, with_seg: bool) -> None:
    segmentation = segmented(ct_volume(tmp_path / "in"))
    rows = statistics_of(segmentation)
    seg = segmentation_object(segmentation, MADE_BY) if with_seg else None
    made = measurement_report(segmentation, rows, MADE_BY, seg=seg)
    assert made.problems == ()
    save_object(made.dataset, tmp_path / "sr.dcm")
    groups = groups_of(tmp_path / "sr.dcm", template="volumetric" if with_seg else "image")
    assert len(groups) == len(rows)
    for group, row in zip(groups, rows, strict=True):
        wanted = {("Volume", None): (row["volume_ml"], "cm3")}
        if row["index"] != 2:
            wanted |= {
                ("Attenuation Coefficient", "Mean"): (row["intensity"]["mean"], "[hnsf'U]"),
                ("Attenuation Coefficient", "Standard Deviation"): (
                    row["intensity"]["sd"],
                    "[hnsf'U]",
                ),
                ("Diameter", "Maximum"): (row["largest_diameter_mm"], "mm"),
            }
        if row["index"] == 1:
            wanted |= {("Long axis", None): (20.5, "mm"), ("Short axis", None): (9.75, "mm")}
        assert numbers_of(group) == wanted
        assert group.tracking_identifier == row["name"]
    assert groups[0].finding_type == codes.SCT.Liver
    assert groups[1].finding_sites[0].laterality == codes.SCT.Left
    assert groups[2].finding_type == codes.SCT.Neoplasm
    assert groups[2].finding_sites[0].topographical_modifier is None
    assert groups[2].finding_sites[0].value == codes.SCT.Liver
    assert groups[3].finding_type.scheme_designator == "99MEDSEG"


def test_each_group_refers_to_the_segment_of_its_label(tmp_path: Path) -> None:
    segmentation = segmented(ct_volume(tmp_path / "in"))
    segmentation.array[segmentation.array == 2] = 0  # segments are numbered without it
    seg = segmentation_object(segmentation, MADE_BY)
    made = measurement_report(segmentation, statistics_of(segmentation), MADE_BY, seg=seg)
    save_object(made.dataset, tmp_path / "sr.dcm")
    groups = groups_of(tmp_path / "sr.dcm", template="volumetric")
    segments = {int(one.SegmentNumber): one for one in seg.dataset.SegmentSequence}
    assert len(groups) == len(segments) == 3
    for group in groups:
        uid, [number] = (
            group.referenced_segment.referenced_sop_instance_uid,
            [group.referenced_segment.referenced_segment_numbers[0]],
        )
        assert uid == seg.dataset.SOPInstanceUID
        assert segments[number].SegmentLabel == group.tracking_identifier
        assert segments[number].TrackingUID == group.tracking_uid
    [evidence] = made.dataset.CurrentRequestedProcedureEvidenceSequence
    named = {
        item.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert seg.dataset.SOPInstanceUID in named
    assert len(named) == 8


def test_of_a_picture_areas_are_stated(tmp_path: Path) -> None:
    segmentation = segmented(picture(tmp_path / "in"))
    rows = label_statistics(segmentation)
    seg = segmentation_object(segmentation, MADE_BY)
    made = measurement_report(segmentation, rows, MADE_BY, seg=seg)
    save_object(made.dataset, tmp_path / "sr.dcm")
    groups = groups_of(tmp_path / "sr.dcm", template="image")
    segments = seg.dataset.SegmentSequence
    for group, row, segment in zip(groups, rows, segments, strict=True):
        assert numbers_of(group) == {("Area", None): (row["voxels"] * 0.125, "mm2")}
        assert group.tracking_uid == segment.TrackingUID


def test_where_nothing_was_found_all_labels_are_listed(tmp_path: Path) -> None:
    segmentation = segmented(ct_volume(tmp_path / "in"))
    empty = replace(segmentation, array=np.zeros_like(segmentation.array))
    made = measurement_report(empty, label_statistics(empty), MADE_BY)
    save_object(made.dataset, tmp_path / "sr.dcm")
    groups = groups_of(tmp_path / "sr.dcm", template="image")
    assert [numbers_of(group)[("Volume", None)][0] for group in groups] == [0.0] * 4


def test_a_hundred_labels_have_a_group_each(tmp_path: Path) -> None:
    volume = ct_volume(tmp_path / "in")
    array = np.arange(np.prod(volume.shape)).reshape(volume.shape) % 101
    labels = make_labels([f"n{n}" for n in range(1, 101)])
    segmentation = Segmentation(array.astype(np.uint8), volume.affine, labels, volume.source)
    seg = segmentation_object(segmentation, MADE_BY)
    rows = label_statistics(segmentation)
    made = measurement_report(segmentation, rows, MADE_BY, seg=seg)
    save_object(made.dataset, tmp_path / "sr.dcm")
    assert len(groups_of(tmp_path / "sr.dcm", template="volumetric")) == 100


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
@pytest.mark.parametrize("name", REAL)
def test_a_validator_finds_nothing_that_is_not_in_the_source(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    volume = volume_of(data_folder(first) / rest)
    segmentation = segmented(volume)
    seg = segmentation_object(segmentation, MADE_BY)
    known = said(volume.source.details["slices"][0]["path"])
    for given in (seg, None):
        rows = statistics_of(segmentation)
        made = measurement_report(segmentation, rows, MADE_BY, seg=given)
        save_object(made.dataset, tmp_path / "sr.dcm")
        assert said(tmp_path / "sr.dcm") - known == set()
    save_object(seg.dataset, tmp_path / "seg.dcm")
    assert said(tmp_path / "seg.dcm") - known == set()
