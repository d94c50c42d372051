"""The page of a case in a real browser: what is drawn, what moves, and what is never asked for."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.report.labels import label_statistics
from medseg.report.page import write_page
from medseg.report.page_levels import choose_levels
from medseg.report.planes import display_window, plane_layouts, plane_of
from medseg.volume import Label, Segmentation, Source, Volume, make_labels
from tests.phantoms import all_orientations, oblique_affine, oriented_affine
from tests.report.chromium import Page

SHAPE = (24, 18, 13)
SPACING = (0.75, 1.25, 3.5)
ORIENTATIONS = all_orientations()[::7]
PLANES = ("axial", "coronal", "sagittal")
ROUNDING = 3
"""Of 255: the canvas rounds once for the image, once for the colour over it."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as browser:
        browser.size(1400, 1000)
        yield browser


def _phantom(affine: npt.NDArray[Any], modality: str = "MR") -> tuple[Volume, Segmentation]:
    """Every plane of the image differs from every other, and two boxes lie off its centre."""
    i, j, k = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    image = (5 * i + 3 * j + 4 * k + 40 * ((i // 6 + j // 6 + k // 4) % 2)).astype(np.int16)
    if modality == "CT":
        image = (image.astype(np.int16) - 100) * 2
    labels = np.zeros(SHAPE, np.uint8)
    labels[3:15, 2:12, 1:8] = 1
    labels[12:22, 8:16, 6:12] = 2
    source = Source(format="nifti", modality=modality)
    return Volume(image[None], affine, source), Segmentation(
        labels, affine, make_labels(["liver", "tumour"])
    )


def _opened(page: Page, tmp_path: Path, volume: Volume, seg: Segmentation, **context: Any) -> None:
    path = tmp_path / "report.html"
    context = {"case": "case", "warnings": [], "seconds": {}, **context}
    write_page(path, volume, seg, statistics=label_statistics(seg), context=context)
    page.open(path)


def _canvas(page: Page, name: str) -> npt.NDArray[Any]:
    """Return what a canvas shows, (rows, columns, 3)."""
    text = page.value(f"document.querySelector('[data-plane=\"{name}\"] canvas').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(text.split(",")[1]))) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def _centres(picture: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """Return the pixels in the middle of each voxel."""
    rows, columns = (
        ((np.arange(n) + 0.5) * size / n).astype(int)
        for n, size in zip(shape, picture.shape[:2], strict=True)
    )
    return np.asarray(picture[np.ix_(rows, columns)])


def _expected(volume: Volume, seg: Segmentation, name: str, index: int) -> npt.NDArray[Any]:
    """Paint a plane a voxel a pixel, without outlines."""
    layout = next(each for each in plane_layouts(volume.affine, volume.shape) if each.name == name)
    levels = choose_levels(volume)
    low, high = display_window(volume)
    values = levels.values[levels.encode(plane_of(volume.array[0], layout, index))]
    grey = np.clip((values - low) / (high - low) * 255, 0, 255)[..., None].repeat(3, axis=2)
    labels = plane_of(seg.array, layout, index)
    for label in seg.labels:
        inside = labels == label.index
        grey[inside] += (np.array(label.color) - grey[inside]) * 0.35
    return grey


def _flat_places(expected: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mark voxels whose neighbours differ little: there the browser's smoothing changes little."""
    flat = np.ones(expected.shape[:2], bool)
    for axis in (0, 1):
        step = np.abs(np.diff(expected, axis=axis)).max(axis=2) > 12
        before = [(0, 0), (0, 0)]
        before[axis] = (1, 0)
        after = [(0, 0), (0, 0)]
        after[axis] = (0, 1)
        flat &= ~(np.pad(step, before) | np.pad(step, after))
    return flat


def _assert_shows(page: Page, volume: Volume, seg: Segmentation, name: str, index: int) -> None:
    expected = _expected(volume, seg, name, index)
    shown = _centres(_canvas(page, name), (expected.shape[0], expected.shape[1]))
    flat = _flat_places(expected)
    assert flat.mean() > 0.2
    np.testing.assert_allclose(shown[flat], expected[flat], atol=8)


def _slide(page: Page, name: str, index: int) -> None:
    page.value(
        f"""(() => {{
            const slider = document.querySelector('[data-plane="{name}"] .slice');
            slider.value = "{index}";
            slider.dispatchEvent(new Event("input"));
        }})()"""
    )
    page.drawn()


def _position(page: Page) -> dict[str, int]:
    return {
        name: int(page.value(f"document.querySelector('[data-plane=\"{name}\"] .slice').value"))
        for name in PLANES
    }


def _set(page: Page, element: str, event: str, assignment: str) -> None:
    page.value(
        f'(() => {{ const e = document.querySelector("{element}"); e.{assignment};'
        f' e.dispatchEvent(new Event("{event}")); }})()'
    )
    page.drawn()


def _box(page: Page, name: str) -> tuple[float, float, float, float]:
    """Return left, top, width and height of a canvas in the window, scrolled into view."""
    left, top, width, height = page.value(
        f"""(() => {{
            const canvas = document.querySelector('[data-plane="{name}"] canvas');
            canvas.scrollIntoView({{ block: "center" }});
            const box = canvas.getBoundingClientRect();
            return [box.left, box.top, box.width, box.height];
        }})()"""
    )
    return left, top, width, height


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_each_plane_shows_its_slice_in_any_orientation(
    page: Page, tmp_path: Path, codes: str
) -> None:
    volume, seg = _phantom(oriented_affine(codes, SPACING))
    _opened(page, tmp_path, volume, seg)
    start = _position(page)
    for layout in plane_layouts(volume.affine, SHAPE):
        _assert_shows(page, volume, seg, layout.name, start[layout.name])
        _slide(page, layout.name, 2)
        _assert_shows(page, volume, seg, layout.name, 2)
    letters = page.value(
        "[...document.querySelectorAll('[data-plane=axial] .letter')].map((e) => e.textContent)"
    )
    assert letters == ["R", "L", "A", "P"]
    assert page.problems == []


def test_an_oblique_grid_of_uneven_spacing_keeps_its_proportions(
    page: Page, tmp_path: Path
) -> None:
    volume, seg = _phantom(oblique_affine("LIP", SPACING), "CT")
    _opened(page, tmp_path, volume, seg)
    for layout in plane_layouts(volume.affine, SHAPE):
        _slide(page, layout.name, SHAPE[layout.axis] - 3)
        _assert_shows(page, volume, seg, layout.name, SHAPE[layout.axis] - 3)
        rows, columns = (SHAPE[axis] * SPACING[axis] for axis in layout.axes)
        _, _, width, height = _box(page, layout.name)
        assert width / height == pytest.approx(columns / rows, abs=0.02)
    text = page.value("document.querySelector('[data-plane=axial] .letter-top').textContent")
    assert text == next(iter(plane_layouts(volume.affine, SHAPE))).edges[2]
    assert len(text) > 1


def test_nothing_is_asked_of_a_network_and_nothing_is_complained_about(
    page: Page, tmp_path: Path
) -> None:
    _opened(page, tmp_path, *_phantom(oriented_affine("LPS", SPACING)))
    assert page.requests == [(tmp_path / "report.html").as_uri()]
    assert page.problems == []
    refused = page.value('fetch("https://example.org").then(() => "sent", () => "refused")')
    assert refused == "refused"
    assert any("Content Security Policy" in problem for problem in page.problems)


def test_a_click_moves_the_other_planes(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("LAS", SPACING))
    _opened(page, tmp_path, volume, seg)
    before = _position(page)
    left, top, width, height = _box(page, "axial")
    page.click(left + width * (4.5 / SHAPE[0]), top + height * (3.5 / SHAPE[1]))
    # LAS: the first axis runs to the left as the screen does, the second to the top
    after = {"axial": before["axial"], "sagittal": 4, "coronal": SHAPE[1] - 1 - 3}
    assert _position(page) == after
    for name in PLANES:
        _assert_shows(page, volume, seg, name, after[name])


def test_wheel_and_keys_change_the_slice(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("RAS", SPACING))
    _opened(page, tmp_path, volume, seg)
    _slide(page, "axial", 4)
    left, top, width, height = _box(page, "axial")
    page.mouse("mouseWheel", left + width / 2, top + height / 2, deltaX=0, deltaY=100)
    page.wait("document.querySelector('[data-plane=axial] .slice').value === '5'")
    page.value("document.querySelector('[data-plane=axial] canvas').focus()")
    page.key("ArrowUp")
    page.key("ArrowUp")
    assert _position(page)["axial"] == 3
    page.key("End")
    assert _position(page)["axial"] == SHAPE[2] - 1
    page.key("ArrowDown")
    assert _position(page)["axial"] == SHAPE[2] - 1
    _assert_shows(page, volume, seg, "axial", SHAPE[2] - 1)


def test_values_and_names_under_the_pointer_are_said(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("LPS", SPACING))
    _opened(page, tmp_path, volume, seg)
    _slide(page, "axial", 5)
    left, top, width, height = _box(page, "axial")
    x, y = left + width * (10.5 / SHAPE[0]), top + height * (6.5 / SHAPE[1])
    page.mouse("mouseMoved", x, y)
    place, value, label = (
        page.value(f'document.getElementById("read-{part}").textContent')
        for part in ("place", "value", "label")
    )
    world = volume.affine @ [10, 6, 5, 1]
    numbers = [float(number) for number in re.findall(r"\d+\.\d+", place)]
    assert numbers == pytest.approx(np.abs(world[:3]), abs=0.051)
    assert re.findall("[A-Z]", place) == [
        "LR"[int(world[0] >= 0)], "PA"[int(world[1] >= 0)], "IS"[int(world[2] >= 0)]
    ]  # fmt: skip
    assert value == str(volume.array[0, 10, 6, 5])
    assert label == "liver"


def test_labels_are_switched_off_and_made_transparent(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("LPS", SPACING))
    _opened(page, tmp_path, volume, seg)
    _slide(page, "axial", 7)
    both = _canvas(page, "axial")
    page.value("document.querySelectorAll('#labels input')[1].click()")
    page.drawn()
    first = Segmentation(np.where(seg.array == 1, 1, 0).astype(np.uint8), seg.affine, seg.labels)
    _assert_shows(page, volume, first, "axial", 7)
    page.value("document.getElementById('all').click()")
    page.drawn()
    np.testing.assert_allclose(_canvas(page, "axial"), both, atol=ROUNDING)
    page.value("document.getElementById('none').click()")
    page.drawn()
    none = _canvas(page, "axial")
    page.value("document.getElementById('all').click()")
    _set(page, "#opacity", "input", "value = 0")
    np.testing.assert_allclose(_canvas(page, "axial"), none, atol=ROUNDING)
    _set(page, "#opacity", "input", "value = 100")
    middle = _centres(_canvas(page, "axial"), (SHAPE[1], SHAPE[0]))[5, 8]
    np.testing.assert_allclose(middle, seg.labels[0].color, atol=ROUNDING)
    _set(page, "#outline", "change", "checked = true")
    outlined = _canvas(page, "axial")
    inner = _centres(outlined, (SHAPE[1], SHAPE[0]))[5, 8]
    unpainted = _centres(none, (SHAPE[1], SHAPE[0]))[5, 8]
    np.testing.assert_allclose(inner, unpainted, atol=ROUNDING)
    assert 0 < (np.abs(outlined - none) > 20).any(axis=2).mean() < 0.1


def test_a_region_within_another_shows_what_it_lies_in_when_it_is_off(
    page: Page, tmp_path: Path
) -> None:
    volume, seg = _phantom(oriented_affine("LPS", SPACING))
    seg.array[:] = 0
    seg.array[3:21, 3:15, 2:11] = 1
    seg.array[8:16, 6:12, 4:9] = 2
    labels = (Label(1, "whole", (255, 0, 0), (1, 2)), Label(2, "core", (0, 0, 255)))
    nested = Segmentation(seg.array, seg.affine, labels)
    _opened(page, tmp_path, volume, nested)
    _set(page, "#opacity", "input", "value = 100")
    _slide(page, "axial", 6)
    at = (9, 12)
    shape = (SHAPE[1], SHAPE[0])
    assert _centres(_canvas(page, "axial"), shape)[at].tolist() == [0, 0, 255]
    page.value("document.querySelectorAll('#labels input')[1].click()")
    page.drawn()
    assert _centres(_canvas(page, "axial"), shape)[at].tolist() == [255, 0, 0]


def test_windows_brightness_and_contrast_change_the_grey(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("LPS", SPACING), "CT")
    seg.array[:] = 0
    _opened(page, tmp_path, volume, seg)
    before = _canvas(page, "axial").mean()
    chosen = page.value("document.getElementById('preset').selectedOptions[0].textContent")
    assert chosen == "Soft tissue (-160 to 240 HU)"
    bone = page.value(
        "[...document.querySelectorAll('#preset option')].find((o) => /^Bone/.test(o.text)).value"
    )
    _set(page, "#preset", "change", f"value = '{bone}'")
    assert page.value("document.getElementById('width-text').textContent") == "1800"
    grey = _canvas(page, "axial")
    assert np.ptp(grey) < 60  # 400 HU of the phantom are less of a wide window
    _set(page, "#level", "input", "stepUp(200)")
    assert _canvas(page, "axial").mean() > grey.mean() + 20
    assert page.value("document.getElementById('preset').value") == "custom"
    _set(page, "#preset", "change", "value = '0'")
    assert _canvas(page, "axial").mean() == pytest.approx(before, abs=0.01)


def test_a_name_in_the_table_leads_to_its_largest_slices(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("LPS", SPACING))
    seg.array[seg.array == 2] = 0
    seg.array[17:21, 13:16, 11] = 2
    _opened(page, tmp_path, volume, seg)
    page.value("document.querySelector('table button[data-label=\"2\"]').click()")
    page.drawn()
    position = _position(page)
    assert position["axial"] == 11
    assert position["sagittal"] in range(17, 21)
    assert position["coronal"] in range(13, 16)
    _assert_shows(page, volume, seg, "axial", 11)


def test_a_hostile_name_is_only_a_name(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("LPS", SPACING))
    name = "</script><img src=x onerror=document.title='owned'><script>document.title='owned'//"
    hostile = Segmentation(seg.array, seg.affine, make_labels([name, "<b>bold</b>"]))
    warning = {"code": "w", "message": name}
    finding = {"code": "f", "message": name, "label": name}
    _opened(
        page, tmp_path, volume, hostile,
        case=name, input=name, warnings=[warning], findings=[finding],
        bundle={"name": name, "version": name, "weights_sha256": name},
    )  # fmt: skip
    assert page.value("document.images.length") == 0
    assert page.value("document.querySelectorAll('b').length") == 0
    assert page.value("document.querySelector('#labels .go').textContent") == name
    assert page.value("document.querySelector('td .go').textContent") == name
    assert page.value("document.querySelector('.findings li').textContent") == name
    assert page.value("document.title") == f"{name} - medseg"
    assert page.problems == []


def test_a_large_ct_is_seen_before_it_is_decoded(page: Page, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shape = (256, 256, 120)
    image = rng.normal(40, 20, shape).astype(np.int16)
    image[:20] = -1000
    labels = np.zeros(shape, np.uint8)
    labels[100:150, 80:200, 30:90] = 1
    affine = oriented_affine("LPS", (0.8, 0.8, 2.0))
    volume = Volume(image[None], affine, Source(modality="CT"))
    _opened(page, tmp_path, volume, Segmentation(labels, affine, make_labels(["organ"])))
    first, complete = (
        float(page.value(f"document.getElementById('viewer').dataset.{state}"))
        for state in ("first", "complete")
    )
    assert first < complete
    assert page.value("document.querySelectorAll('script.slices').length") == 0
    assert page.value("document.querySelector('.loading').hidden")
    _slide(page, "coronal", 140)
    picture = _canvas(page, "coronal")
    colored = (np.ptp(picture, axis=2) > 20).mean()
    assert colored == pytest.approx(50 * 60 / (256 * 120), abs=0.01)


def test_a_colour_picture_is_shown_as_it_is(page: Page, tmp_path: Path) -> None:
    rows, columns = np.mgrid[:60, :90]
    image = np.stack([2 * rows, 2 * columns, 255 - rows - columns]).astype(np.uint8)
    labels = np.zeros((60, 90), np.uint8)
    labels[10:30, 40:80] = 1
    source = Source(format="raster", has_spacing=False)
    seg = Segmentation(labels, np.eye(3), make_labels(["thing"]))
    _opened(page, tmp_path, Volume(image, np.eye(3), source), seg)
    shown = _centres(_canvas(page, "image"), (60, 90))
    expected = np.moveaxis(image, 0, -1).astype(float)
    np.testing.assert_allclose(shown[45, 20], expected[45, 20], atol=ROUNDING)
    color = np.array(seg.labels[0].color)
    mixed = expected[20, 60] + 0.35 * (color - expected[20, 60])
    np.testing.assert_allclose(shown[20, 60], mixed, atol=ROUNDING)
    assert page.value("document.querySelector('.slice').hidden")
    assert page.value("document.querySelector('.scale').textContent") == "20 px"
    assert page.problems == []


def test_objects_of_one_class_have_colours_and_names_of_their_own(
    page: Page, tmp_path: Path
) -> None:
    masks = [np.zeros((40, 50), bool) for _ in range(2)]
    masks[0][5:15, 5:20] = True
    masks[1][20:35, 25:45] = True
    found = ObjectInstances.of(masks, [1, 1], size=(40, 50), scores=[0.9, 0.8])
    seg = ObjectSegmentation(
        (masks[0] | masks[1]).astype(np.uint8), np.eye(3), make_labels(["nucleus"]),
        slices=(found,), numbers=(np.array([1, 2], np.int32),),
    )  # fmt: skip
    image = np.full((1, 40, 50), 80, np.uint8)
    _opened(page, tmp_path, Volume(image, np.eye(3), Source(has_spacing=False)), seg)
    shown = _centres(_canvas(page, "image"), (40, 50))
    assert np.abs(shown[10, 12] - shown[27, 35]).max() > 30
    left, top, width, height = _box(page, "image")
    page.mouse("mouseMoved", left + width * 0.7, top + height * 0.7)
    assert page.value("document.getElementById('read-label').textContent") == "nucleus 2"
    page.value("document.querySelector('#labels input').click()")
    page.drawn()
    assert np.ptp(_canvas(page, "image")) == 0


def test_thousands_of_regions_are_painted_and_not_listed(page: Page, tmp_path: Path) -> None:
    labels = (np.arange(60 * 50).reshape(60, 50) + 1).astype(np.uint16)
    seg = Segmentation(labels, np.eye(3), make_labels({n: f"region {n}" for n in range(1, 3001)}))
    image = np.zeros((1, 60, 50), np.uint8)
    summary = {
        "count": 3000, "voxels": {"smallest": 1, "median": 1.0, "largest": 1}, "scattered": 0
    }  # fmt: skip
    source = Source(has_spacing=False)
    _opened(page, tmp_path, Volume(image, np.eye(3), source), seg, regions=summary)
    assert page.value("document.querySelectorAll('#labels li').length") == 1
    _set(page, "#opacity", "input", "value = 100")
    _set(page, "#outline", "change", "checked = false")
    shown = _centres(_canvas(page, "image"), (60, 50))
    assert shown[30, 21].tolist() == list(seg.labels[30 * 50 + 21].color)


@pytest.mark.parametrize("width", [390, 820, 1400])
def test_no_window_is_too_narrow(page: Page, tmp_path: Path, width: int) -> None:
    page.size(width, 900)
    _opened(page, tmp_path, *_phantom(oriented_affine("LPS", SPACING)))
    assert page.value("document.documentElement.scrollWidth") <= width
    for name in PLANES:
        left, _, wide, high = _box(page, name)
        assert left >= 0
        assert left + wide <= width
        assert min(wide, high) > 40
    page.size(1400, 1000)


def test_a_plane_is_magnified_about_the_crosshair(page: Page, tmp_path: Path) -> None:
    volume, seg = _phantom(oriented_affine("LPS", SPACING))
    seg.array[:] = 0
    _opened(page, tmp_path, volume, seg)
    _slide(page, "sagittal", 10)
    _slide(page, "coronal", 8)
    _slide(page, "axial", 5)
    before = _canvas(page, "axial")
    _, _, width, height = _box(page, "axial")
    x, y = width * 10.5 / SHAPE[0], height * 8.5 / SHAPE[1]
    for _ in range(2):
        page.value("document.querySelector('[data-plane=axial] .zoom-in').click()")
    page.drawn()
    after = _canvas(page, "axial")
    scale = 1.5**2
    for right, down in ((0, 0), (90, 0), (-80, 60), (40, -100)):
        shown = after[int(y + down), int(x + right)]
        there = before[int(y + down / scale), int(x + right / scale)]
        np.testing.assert_allclose(shown, there, atol=8)
    left, top, *_ = _box(page, "axial")
    page.click(left + x + 2 * scale * width / SHAPE[0], top + y - 3 * scale * height / SHAPE[1])
    assert _position(page) == {"axial": 5, "sagittal": 12, "coronal": 5}
    bar, text = page.value(
        """(() => { const bar = document.querySelector("[data-plane=axial] .scale");
        return [bar.getBoundingClientRect().width, bar.textContent]; })()"""
    )
    assert bar / float(text.split()[0]) == pytest.approx(scale * width / (24 * 0.75), rel=0.02)
    for _ in range(3):
        page.value("document.querySelector('[data-plane=axial] .zoom-out').click()")
    page.drawn()
    np.testing.assert_allclose(_canvas(page, "axial"), before, atol=ROUNDING)
    assert page.problems == []


def test_the_crosshair_stays_in_view_and_can_be_hidden(page: Page, tmp_path: Path) -> None:
    _opened(page, tmp_path, *_phantom(oriented_affine("LPS", SPACING)))
    for _ in range(4):
        page.value("document.querySelector('[data-plane=axial] .zoom-in').click()")
    for index in (0, SHAPE[0] - 1):
        _slide(page, "sagittal", index)
        share = page.value(
            "parseFloat(document.querySelector('[data-plane=axial] .line-down').style.left)"
        )
        assert 0 <= share <= 100
    shown = "getComputedStyle(document.querySelector('[data-plane=axial] .line-down')).display"
    assert page.value(shown) == "block"
    page.value("document.getElementById('crosshair').click()")
    assert page.value(shown) == "none"


def test_the_wheel_magnifies_a_picture_and_dragging_moves_it(page: Page, tmp_path: Path) -> None:
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 40:48, 16:24] = 255
    seg = Segmentation(np.zeros((64, 64), np.uint8), np.eye(3), make_labels(["a"]))
    _opened(page, tmp_path, Volume(image, np.eye(3)), seg)
    left, top, width, height = _box(page, "image")
    x, y = left + width * 20 / 64, top + height * 44 / 64
    before = (_canvas(page, "image") > 128).mean()
    page.mouse("mouseMoved", x, y)
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    page.drawn()
    white = _canvas(page, "image") > 128
    assert white.mean() == pytest.approx(before * 1.5**2, rel=0.05)
    assert white[int(y - top), int(x - left)].all()
    columns = np.flatnonzero(white[..., 0].any(axis=0)).mean()
    page.mouse("mousePressed", x, y, button="left", clickCount=1)
    page.mouse("mouseMoved", x - 30, y, button="left", buttons=1)
    page.mouse("mouseReleased", x - 30, y, button="left", clickCount=1)
    page.drawn()
    moved = np.flatnonzero((_canvas(page, "image") > 128)[..., 0].any(axis=0)).mean()
    assert moved == pytest.approx(columns - 30, abs=2)
