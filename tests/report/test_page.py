"""The page of a case: what it holds of image and labels, what it says, and what it keeps out."""

import base64
import hashlib
import io
import json
import re
import zlib
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.report import page_pixels
from medseg.report.labels import label_statistics
from medseg.report.measures import label_numbers
from medseg.report.page import write_page
from medseg.report.page_levels import Levels, choose_levels, choose_windows
from medseg.report.page_tables import CUT_OFF
from medseg.report.regions import region_summary
from medseg.volume import Label, Segmentation, Source, Volume, make_labels
from tests.phantoms import abdomen, numbered, oblique_affine, oriented_affine

CT = Source(format="dicom", modality="CT")
MOST_BYTES = 15_000_000


def _case(shape: tuple[int, ...] = (12, 10, 8)) -> tuple[Volume, Segmentation]:
    rng = np.random.default_rng(0)
    affine = oblique_affine("LPS") if len(shape) == 3 else np.eye(3)
    labels = np.zeros(shape, np.uint8)
    labels[2:9, 3:8] = 1
    labels[4:6, 4:6] = 2
    image = rng.integers(0, 400, (1, *shape)).astype(np.int16)
    source = Source(format="nifti", modality="MR")
    return Volume(image, affine, source), Segmentation(
        labels, affine, make_labels(["organ", "lesion", "absent"])
    )


def _written(
    tmp_path: Path,
    volume: Volume,
    seg: Segmentation,
    statistics: list[dict[str, Any]] | None = None,
    **context: Any,
) -> str:
    path = tmp_path / "report.html"
    rows = label_statistics(seg) if statistics is None else statistics
    write_page(path, volume, seg, statistics=rows, context={"case": "CT_3_ab", **context})
    assert path.stat().st_size < MOST_BYTES
    return path.read_text(encoding="utf-8")


def _data(text: str) -> dict[str, Any]:
    found = re.search(r'id="page-data">(.*?)</script>', text, re.DOTALL)
    assert found
    document: dict[str, Any] = json.loads(found[1])
    return document


def _unrowed(stored: bytes, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return np.bitwise_xor.accumulate(
        np.frombuffer(zlib.decompress(stored), kind).reshape(shape), axis=1
    )


def _decoded(text: str) -> tuple[dict[str, Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the data, the levels and the labels of all voxels, with the axes of the volume."""
    data = _data(text)
    slices, rows, columns = (data["stored"][axis] for axis in data["order"])
    kind = {1: "u1", 2: "<u2", 4: "<u4"}[data["labelBytes"]]
    levels, labels = [], []
    chunks = re.findall(r'class="slices" data-first="(\d+)">(.*?)</script>', text, re.DOTALL)
    for first, chunk in chunks:
        stored, *pictures = (base64.b64decode(part) for part in chunk.split())
        assert int(first) == len(levels)
        levels += [np.asarray(Image.open(io.BytesIO(picture))) for picture in pictures]
        labels.append(_unrowed(stored, kind, (len(pictures), rows, columns)))
    assert len(levels) == slices
    order = np.argsort(data["order"])
    rest = range(3, np.ndim(levels[0]) + 1)
    return data, np.stack(levels).transpose(*order, *rest), np.concatenate(labels).transpose(order)


@pytest.mark.parametrize("shape", [(12, 10, 8), (4, 4, 4), (1, 30, 20), (30, 20, 1), (90, 4, 5)])
def test_labels_are_exact_and_small_images_within_a_level(
    tmp_path: Path, shape: tuple[int, int, int]
) -> None:
    volume, seg = _case(shape)
    data, levels, labels = _decoded(_written(tmp_path, volume, seg))
    np.testing.assert_array_equal(labels, seg.array)
    values = np.array(data["values"])[levels]
    step = data["values"][1] - data["values"][0]
    inside = np.clip(volume.array[0], data["values"][0], data["values"][-1])
    assert np.abs(values - inside).max() <= step * 0.51
    assert data["type"] == "image/png"
    assert "JPEG" not in _visible(_written(tmp_path, volume, seg))


def _visible(text: str) -> str:
    """Return the words of the page, without scripts and styles."""
    text = re.sub(r"<(script|style|template)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text)))


def test_first_pictures_are_those_of_the_planes_where_labels_show(tmp_path: Path) -> None:
    volume, seg = _case()
    seg.array[:] = 0
    seg.array[9:11, 2:4, 6] = 1
    data, levels, _ = _decoded(_written(tmp_path, volume, seg))
    for plane in data["planes"]:
        index = plane["start"]
        assert index == data["start"][plane["axis"]]
        cut = np.take(levels, index, plane["axis"])
        cut = cut.T if plane["axes"][0] > plane["axes"][1] else cut
        cut = cut[:: -1 if plane["flips"][0] else 1, :: -1 if plane["flips"][1] else 1]
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(plane["picture"]))))
        np.testing.assert_array_equal(shown, cut)
        labels = _unrowed(base64.b64decode(plane["labels"]), "u1", (1, *cut.shape))
        assert labels.sum() in {2, 4}
    assert data["start"][2] == 6


def test_more_than_255_labels_take_two_bytes(tmp_path: Path) -> None:
    array = np.zeros((20, 20, 20), np.uint16)
    array.ravel()[: 300 * 8] = np.repeat(np.arange(1, 301), 8)
    seg = Segmentation(array, np.eye(4), make_labels([f"part {n}" for n in range(1, 301)]))
    volume = Volume(np.zeros((1, 20, 20, 20), np.float32), np.eye(4))
    data, _, labels = _decoded(_written(tmp_path, volume, seg))
    assert data["labelBytes"] == 2
    np.testing.assert_array_equal(labels, array)
    palette = np.frombuffer(base64.b64decode(data["palette"]), np.uint8).reshape(-1, 3)
    assert tuple(palette[300]) == seg.labels[299].color
    assert len(data["labels"]) == 300


def test_the_budget_costs_quality_then_resolution_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    shape = (96, 80, 60)
    image = rng.normal(0, 300, (1, *shape)).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[10:51, 20:61, 5:41] = 3
    affine = np.diag([0.5, 0.7, 4.0, 1.0])
    volume = Volume(image, affine, Source(modality="MR"))
    seg = Segmentation(labels, affine, make_labels(["a", "b", "c"]))
    monkeypatch.setattr(page_pixels, "LOSSLESS_VALUES", 1000)
    monkeypatch.setattr(page_pixels, "BUDGET_BYTES", 250_000)
    data, levels, stored = _decoded(text := _written(tmp_path, volume, seg))
    assert data["type"] == "image/jpeg"
    assert data["steps"] == [1, 1, 1]
    assert re.search(r"JPEG, quality \d+", _visible(text))
    assert "Reduced" not in _visible(text)
    np.testing.assert_array_equal(stored, labels)
    assert len(text) * 3 / 4 < 250_000 * 1.2 + 60_000

    monkeypatch.setattr(page_pixels, "BUDGET_BYTES", 30_000)
    data, levels, stored = _decoded(text := _written(tmp_path, volume, seg))
    assert data["steps"] != [1, 1, 1]
    assert data["steps"][2] == 1  # the finest axes are thinned
    every = tuple(slice(None, None, step) for step in data["steps"])
    np.testing.assert_array_equal(stored, labels[every])
    assert levels.shape == stored.shape == tuple(data["stored"])
    assert data["shape"] == list(shape)
    assert "Reduced resolution" in _visible(text)
    at = data["labels"][2]["at"]
    assert stored[at[0]].any()
    assert stored[:, :, at[2]].any()


def test_a_ct_is_kept_to_two_hu_in_soft_tissue() -> None:
    volume = numbered((30, 30, 30))
    wide = Volume((volume.array // 9).astype(np.int16) - 900, volume.affine, CT)
    levels = choose_levels(wide)
    values = np.arange(-1024, 2001).astype(np.int16)
    error = np.abs(levels.values[levels.encode(values)] - values)
    assert error[(values >= -20) & (values <= 100)].max() <= 1
    assert error[(values >= -200) & (values <= 300)].max() <= 2
    assert error[values < -200].max() <= 7.5
    assert error.max() <= 19.5
    names = [name for name, _, _ in choose_windows(wide, None)]
    assert names[0] == "Soft tissue"
    assert {"Lung", "Bone", "Brain", "Liver"} <= set(names)
    assert choose_windows(wide, np.full(10, -800))[0][0] == "Lung"


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint32, np.float16, np.float64])
def test_levels_hold_every_kind_of_number(kind: type) -> None:
    values = np.linspace(0, 100, 1000).reshape(1, 10, 10, 10).astype(kind)
    levels = choose_levels(Volume(values, np.eye(4)))
    shown = levels.values[levels.encode(values)]
    assert np.abs(shown - values).max() <= 0.5
    assert levels.exact == (np.dtype(kind).kind in "iu")


def test_what_is_no_number_is_the_smallest_and_what_is_beyond_is_an_end() -> None:
    levels = Levels.of(np.linspace(-10, 10, 256))
    given = np.array([np.nan, -np.inf, np.inf, -99, 99, 0.0])
    assert levels.encode(given).tolist() == [0, 0, 255, 0, 255, 128]
    for empty in (np.full((1, 4, 4, 4), np.nan), np.zeros((1, 4, 4, 4))):
        chosen = choose_levels(Volume(empty, np.eye(4)))
        assert (np.diff(chosen.values) > 0).all()


def test_the_file_needs_nothing_else_and_its_policy_forbids_more(tmp_path: Path) -> None:
    text = _written(tmp_path, *_case())
    outside = re.sub(r'<script type="(text/plain|application/json)".*?</script>', "", text)
    assert not re.search(r"https?:|@import|url\(|\bsrc=|XMLHttpRequest|fetch\(|import\(", outside)
    assert re.findall(r"href=\"([^\"]*)\"", outside) == ["data:,"]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for tag in ("script", "style"):
        code = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        assert code
        digest = base64.b64encode(hashlib.sha256(code[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_what_was_measured_is_in_the_table(tmp_path: Path) -> None:
    volume, seg = _case()
    rows = label_statistics(seg)
    rows[0] |= {
        "intensity": {
            "mean": 51.24, "sd": 7.5, "p05": 40, "p25": 45, "p50": 50.5, "p75": 55, "p95": 60,
            "min": -3, "max": 99.4,
        },
        "box": {"first": [2, 3, 0], "last": [8, 7, 7]},
        "largest_diameter_mm": 31.62, "in_plane_diameter_mm": 12.34, "in_plane_short_mm": 5.6,
        "confidence": {"probability": 0.934, "entropy": 0.12},
    }  # fmt: skip
    rows[1]["intensity"] = rows[1]["confidence"] = None
    text = _visible(
        _written(
            tmp_path, volume, seg, rows, intensity_unit="HU",
            findings=[
                {"code": "parts", "message": "is in 4 parts", "label": "organ"},
                {"code": "volume", "message": "lesion has 9 ml", "label": "lesion"},
            ],
            warnings=[
                {"code": "w", "message": "one instance twice"},
                {"code": "volume", "message": "lesion has 9 ml"},
            ],
            bundle={"name": "organ_mr", "version": "0.3.0", "weights_sha256": "ab12cd"},
            input="study/1", seconds={"network": 1.234},
        )
    )  # fmt: skip
    for said in (
        "Not a medical device", "organ: is in 4 parts", "one instance twice", CUT_OFF, "31.6",
        "12.3 × 5.6", "51.2 ± 7.5", "40 / 45 / 50.5 / 55 / 60", "-3 to 99.4", "0.934", "0.12",  # noqa: RUF001
        "3 to 9, 4 to 8, 1 to 8", "Mean intensity (HU)", "organ_mr", "0.3.0", "ab12cd", "study/1",
        "1.23 s", "12x10x8", "MR", "not found", "monai", "The grid is turned",
    ):  # fmt: skip
        assert said in text, said
    assert text.index("organ: is in 4 parts") < text.index("Measurements")
    assert text.count("lesion has 9 ml") == 1
    assert "lesion: lesion" not in text


def test_objects_are_counted_and_pictures_have_areas(tmp_path: Path) -> None:
    masks = [np.zeros((40, 50), bool) for _ in range(3)]
    for place, mask in enumerate(masks):
        mask[5 + 10 * place : 12 + 10 * place, 5:20] = True
    found = ObjectInstances.of(masks, [1, 1, 2], size=(40, 50))
    classes = (masks[0] | masks[1]) + 2 * masks[2].astype(np.uint8)
    seg = ObjectSegmentation(
        classes.astype(np.uint8), np.diag([0.5, 0.5, 1]), make_labels(["cell", "debris"]),
        slices=(found,), numbers=(np.array([1, 2, 3], np.int32),),
    )  # fmt: skip
    volume = Volume(np.zeros((1, 40, 50), np.uint8), seg.affine)
    text = _written(tmp_path, volume, seg, label_numbers(volume, seg))
    data = _data(text)
    assert [label["values"] for label in data["labels"]] == [[1, 2], [3]]
    assert [label["amount"] for label in data["labels"]] == ["2", "1"]
    assert re.search(r"Objects Pixels Area \(mm²\)", _visible(text))
    assert re.search(r"cell 2 210 52.5 ", _visible(text))


def test_what_was_not_measured_has_no_column(tmp_path: Path) -> None:
    text = _visible(_written(tmp_path, *_case()))
    assert not re.search("diameter|Mean|entropy|Check this result|Warnings", text)
    assert "Nothing found" not in text


def test_nothing_found_is_said(tmp_path: Path) -> None:
    volume, seg = _case()
    seg.array[:] = 0
    text = _written(tmp_path, volume, seg)
    assert "Nothing found" in _visible(text)
    assert [label["found"] for label in _data(text)["labels"]] == [False] * 3
    assert _data(text)["start"] == [6, 5, 4]


def test_names_and_messages_cannot_become_code(tmp_path: Path) -> None:
    volume, seg = _case()
    bad = "</script><img src=x onerror=alert(1)>\"'$style"
    hostile = Segmentation(seg.array, seg.affine, make_labels([bad, bad, bad]))
    text = _written(
        tmp_path, volume, hostile, case=bad, input=bad,
        warnings=[{"code": "a", "message": bad}],
        findings=[{"code": "a", "message": bad, "label": bad}],
        method={"name": bad, "version": bad}, settings={bad: bad},
    )  # fmt: skip
    assert "<img" not in text
    assert text.count("</script>") == 3
    assert _data(text)["labels"][0]["name"] == bad
    assert bad in _visible(text)


def test_a_region_lists_the_values_that_lie_within_it(tmp_path: Path) -> None:
    volume, seg = _case()
    labels = (Label(1, "whole", (1, 2, 3), (1, 2)), Label(2, "core", (4, 5, 6)))
    data = _data(_written(tmp_path, volume, Segmentation(seg.array, seg.affine, labels)))
    assert [label["values"] for label in data["labels"]] == [[1, 2], [2]]
    assert not any(label["own"] for label in data["labels"])


def test_regions_too_many_to_list_are_summed_up(tmp_path: Path) -> None:
    array = (np.arange(40 * 30) + 1).reshape(40, 30).astype(np.uint16)
    seg = Segmentation(array, np.eye(3), make_labels([f"region {n}" for n in range(1, 1201)]))
    rows = label_statistics(seg)
    volume = Volume(np.zeros((1, 40, 30), np.uint8), np.eye(3))
    text = _written(tmp_path, volume, seg, rows, regions=region_summary(rows))
    assert "Regions 1200" in _visible(text)
    assert "region 77" not in text
    data, _, labels = _decoded(text)
    np.testing.assert_array_equal(labels[0], array)
    assert len(data["labels"]) == 1
    assert data["labels"][0]["all"]


def test_a_colour_picture_keeps_its_colours_and_four_channels_show_the_first(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (3, 20, 30)).astype(np.uint8)
    seg = Segmentation(np.ones((20, 30), np.uint8), np.eye(3), make_labels(["a"]))
    volume = Volume(picture, np.eye(3), Source(format="raster", has_spacing=False))
    data, levels, _ = _decoded(_written(tmp_path, volume, seg))
    np.testing.assert_array_equal(levels[0], np.moveaxis(picture, 0, -1))
    assert data["channels"] == 3
    assert data["planes"][0]["unit"] == "px"
    four = np.stack([np.full((6, 7, 8), n, np.uint8) for n in (9, 1, 2, 3)])
    seg = Segmentation(np.ones((6, 7, 8), np.uint8), np.eye(4), make_labels(["a"]))
    _, levels, _ = _decoded(text := _written(tmp_path, Volume(four, np.eye(4)), seg))
    assert (levels == 9).all()
    assert "Channel 1 of 4 is shown" in _visible(text)


def test_nothing_that_identifies_is_written(tmp_path: Path) -> None:
    volume, mask = abdomen()
    secret = Source(
        format="dicom", path=Path("/archive/DOE_JOHN/1"), modality="CT",
        study_instance_uid="1.2.840.1", series_instance_uid="1.2.840.2", volume_id="secret_id",
        instances=(Path("/archive/DOE_JOHN/1/a.dcm"),), details={"PatientName": "DOE^JOHN"},
    )  # fmt: skip
    table = make_labels(["organ", "tumour"])
    seg = Segmentation(mask, volume.affine, table, secret)
    bundle = {"name": "b", "version": "1", "weights_sha256": "ab", "path": "/secret"}
    text = _written(tmp_path, Volume(volume.array, volume.affine, secret), seg, bundle=bundle)
    for word in (
        "DOE_JOHN",
        "DOE^JOHN",
        "/archive",
        "1.2.840",
        "secret_id",
        "/secret",
        str(tmp_path),
    ):
        assert word not in text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_inputs_stay_as_they_are_and_other_grids_are_refused(tmp_path: Path) -> None:
    volume, seg = _case()
    before = volume.array.copy(), seg.array.copy()
    _written(tmp_path, volume, seg)
    np.testing.assert_array_equal(volume.array, before[0])
    np.testing.assert_array_equal(seg.array, before[1])
    moved = Segmentation(seg.array, oriented_affine("RAS"), seg.labels)
    with pytest.raises(ValueError, match="on the grid"):
        write_page(tmp_path / "a.html", volume, moved, statistics=[], context={})
    assert not (tmp_path / "a.html").exists()


def test_slices_are_cut_where_they_need_the_fewest_bytes() -> None:
    rows, columns = np.mgrid[:64, :64]
    flat = (rows + columns).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 120, 64).astype(np.uint8)
    image = flat[None] + noise[:, None, None]  # smooth across its first axis alone
    labels = np.zeros(image.shape, np.uint8)
    levels = Levels.of(np.arange(256.0), exact=True)
    for axis in range(3):
        turned = np.moveaxis(image, 0, axis)
        encoded = page_pixels.encode(turned, np.moveaxis(labels, 0, axis), (1, 1, 1), levels)
        assert encoded.stack.order[0] == axis


def test_a_picture_too_long_for_a_browser_is_thinned_along_that_side_alone(tmp_path: Path) -> None:
    image = np.tile(np.arange(20_000) % 251, (3, 1)).astype(np.uint8)[None]
    seg = Segmentation((image[0] > 99).astype(np.uint8), np.eye(3), make_labels(["a"]))
    data, levels, labels = _decoded(text := _written(tmp_path, Volume(image, np.eye(3)), seg))
    assert data["steps"] == [1, 1, 4]
    assert "3x5000 of 3x20000 pixels are shown, one of every 1x4" in _visible(text)
    np.testing.assert_array_equal(levels[0], image[0, :, ::4])
    np.testing.assert_array_equal(labels[0], seg.array[:, ::4])
    assert data["planes"][0]["pixel"] == [1.0, 4.0]
