"""Natural images against Pillow and tifffile; palette masks back by index."""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image, ImageOps

from medseg.errors import InputError, OutputError, UsageError
from medseg.io.raster import (
    read_raster,
    read_raster_info,
    voc_colors,
    write_palette_png,
    write_png,
)
from medseg.volume import Label, make_labels

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 255, (7, 11)).astype(np.uint8)
RGB = RNG.integers(0, 255, (7, 11, 3)).astype(np.uint8)
RGBA = RNG.integers(0, 255, (7, 11, 4)).astype(np.uint8)
DEEP = RNG.integers(0, 65535, (7, 11)).astype(np.uint16)
DEEP_RGB = RNG.integers(0, 65535, (7, 11, 3)).astype(np.uint16)


def _codes(volume: Any) -> list[str]:
    return [problem.code for problem in volume.source.problems]


def _channels_first(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_8_bit_images_come_with_channels_first(
    tmp_path: Path, suffix: str, pixels: npt.NDArray[Any]
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(pixels).save(path)
    volume = read_raster(path)
    assert volume.array.dtype == np.uint8
    assert np.array_equal(volume.array, _channels_first(pixels))
    assert volume.array.flags.c_contiguous
    assert not volume.source.has_spacing
    assert volume.spacing_mm == (1, 1)
    assert _codes(volume) == []
    info = read_raster_info(path)
    assert (info.size, info.frames) == ((7, 11), 1)


def test_a_jpeg_decodes_as_pillow_does(tmp_path: Path) -> None:
    for name, pixels in (("a.jpg", RGB), ("b.jpeg", GREY)):
        Image.fromarray(pixels).save(tmp_path / name)
        expected = np.asarray(Image.open(tmp_path / name))
        assert np.array_equal(read_raster(tmp_path / name).array, _channels_first(expected))


def test_16_bits_stay_in_png_and_tiff(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "grey.png")
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(DEEP_RGB))
    tifffile.imwrite(tmp_path / "grey.tif", DEEP)
    tifffile.imwrite(tmp_path / "rgb.tif", DEEP_RGB, photometric="rgb")
    for name, pixels in (
        ("grey.png", DEEP),
        ("rgb.png", DEEP_RGB),
        ("grey.tif", DEEP),
        ("rgb.tif", DEEP_RGB),
    ):
        volume = read_raster(tmp_path / name)
        assert volume.array.dtype == np.uint16, name
        assert np.array_equal(volume.array, _channels_first(pixels)), name


def test_alpha_is_left_out_and_said(tmp_path: Path) -> None:
    Image.fromarray(RGBA).save(tmp_path / "rgba.png")
    Image.fromarray(RGBA).save(tmp_path / "rgba.tif")
    deep = np.dstack([DEEP_RGB, DEEP])
    (tmp_path / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    for name, pixels in (("rgba.png", RGBA), ("rgba.tif", RGBA), ("deep.png", deep)):
        volume = read_raster(tmp_path / name)
        assert np.array_equal(volume.array, _channels_first(pixels[..., :3])), name
        assert _codes(volume) == ["alpha-dropped"], name
    grey = Image.fromarray(GREY).convert("LA")
    grey.save(tmp_path / "la.png")
    volume = read_raster(tmp_path / "la.png")
    assert np.array_equal(volume.array[0], GREY)
    assert _codes(volume) == ["alpha-dropped"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_palette_is_read_as_its_colours(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(GREY % 9).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(voc_colors(256).tobytes())
    image.save(tmp_path / f"a{suffix}")
    volume = read_raster(tmp_path / f"a{suffix}")
    assert np.array_equal(volume.array, _channels_first(voc_colors(256)[GREY % 9]))


def test_cmyk_is_read_as_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    image.save(tmp_path / "a.jpg", quality=95)
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert np.array_equal(read_raster(tmp_path / "a.jpg").array, _channels_first(expected))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_bit_images_are_black_and_white(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(GREY).convert("1")
    image.save(tmp_path / f"a{suffix}")
    expected = np.asarray(image.convert("L"))
    assert set(np.unique(expected)) == {0, 255}
    assert np.array_equal(read_raster(tmp_path / f"a{suffix}").array[0], expected)


def test_inverted_tiffs_are_turned_over(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "b.tif", DEEP, photometric="miniswhite")
    assert np.array_equal(read_raster(tmp_path / "a.tif").array[0], 255 - GREY)
    assert np.array_equal(read_raster(tmp_path / "b.tif").array[0], 65535 - DEEP)
    pillow = np.asarray(Image.open(tmp_path / "a.tif"))
    assert np.array_equal(pillow, 255 - GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_orientation_tags_turn_the_image_upright(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    if suffix == ".tif":
        Image.fromarray(RGB).save(path, tiffinfo={274: orientation})
    else:
        Image.fromarray(RGB).save(path, exif=exif)
    if suffix == ".tif":  # Pillow turns TIFFs by itself
        expected = np.asarray(Image.open(path))
    else:
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    if suffix != ".jpg":
        assert np.array_equal(expected, RGB) is (orientation == 1)
    volume = read_raster(path)
    assert np.array_equal(volume.array, _channels_first(expected))
    assert _codes(volume) == ([] if orientation == 1 else ["exif-rotated"])
    assert read_raster_info(path).size == expected.shape[:2]


def test_several_pages_need_a_frame_or_as_many_channels(tmp_path: Path) -> None:
    pages = RNG.integers(0, 4095, (3, 7, 11)).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pages, photometric="minisblack")
    with pytest.raises(InputError, match="3 frames") as caught:
        read_raster(path)
    assert caught.value.code == "needs-frame"
    with pytest.raises(InputError, match="0 to 2") as caught:
        read_raster(path, frame=3)
    assert caught.value.code == "frame-out-of-range"
    assert np.array_equal(read_raster(path, frame=2).array[0], pages[2])
    assert np.array_equal(read_raster(path, channels=3).array, pages)
    assert read_raster_info(path).frames == 3


def test_an_animation_needs_a_frame(tmp_path: Path) -> None:
    first, second = Image.fromarray(GREY), Image.fromarray(255 - GREY)
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(InputError, match="2 frames"):
        read_raster(tmp_path / "a.png")
    assert np.array_equal(read_raster(tmp_path / "a.png", frame=1).array[0], 255 - GREY)


def test_imagej_and_ome_state_the_size_of_a_pixel(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "imagej.tif",
        DEEP,
        imagej=True,
        resolution=(4.0, 2.0),
        metadata={"unit": "um"},
    )
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        DEEP,
        ome=True,
        metadata={"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5},
    )
    for name in ("imagej.tif", "a.ome.tif"):
        volume = read_raster(tmp_path / name)
        assert volume.source.has_spacing, name
        assert volume.spacing_mm == pytest.approx((0.0005, 0.00025)), name
        assert np.array_equal(volume.array[0], DEEP)


def test_a_printing_resolution_is_no_spacing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(300, 300), resolutionunit="INCH")
    Image.fromarray(GREY).save(tmp_path / "a.png", dpi=(300, 300))
    for name in ("a.tif", "a.png"):
        assert not read_raster(tmp_path / name).source.has_spacing


def test_floats_are_kept_and_must_be_finite(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY.astype(np.float64) / 7)
    volume = read_raster(tmp_path / "a.tif")
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array[0], (GREY / 7).astype(np.float32))
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 4), np.nan, np.float32))
    with pytest.raises(InputError, match="12 of 12") as caught:
        read_raster(tmp_path / "a.tif")
    assert caught.value.code == "non-finite"


def test_colours_without_a_meaning_are_refused(tmp_path: Path) -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    cmyk.save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="SEPARATED") as caught:
        read_raster(tmp_path / "a.tif")
    assert caught.value.code == "unsupported-data-type"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RNG.integers(0, 255, (90, 80, 3)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    for damaged, codes in (
        (content[: len(content) // 2], ("truncated", "unreadable")),
        (content[:10], ("truncated", "unreadable")),
        (b"no image at all", ("unreadable",)),
        (b"", ("truncated",)),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=path.name) as caught:
            read_raster(path)
        assert caught.value.code in codes
        assert "\n" not in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    for suffix in (".png", ".tif"):
        with pytest.raises(InputError) as caught:
            read_raster(tmp_path / f"a{suffix}")
        assert caught.value.code == "not-found"


def test_an_image_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    assert np.array_equal(read_raster(tmp_path / "a.png").array[0], GREY)  # 77 of 120
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    monkeypatch.setattr("medseg.io.tiff._MOST_PIXELS", 60)
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    for name in ("a.png", "a.tif"):
        with pytest.raises(InputError) as caught:
            read_raster(tmp_path / name)
        assert caught.value.code == "too-large"


def test_a_tiff_that_promises_more_than_it_holds_is_truncated(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        tif.pages[0].tags["ImageLength"].overwrite(100_000)
    with pytest.raises(InputError) as caught:
        read_raster(tmp_path / "a.tif")
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("largest", [1, 3, 20, 255])
def test_the_pixels_of_a_palette_mask_are_class_indices(tmp_path: Path, largest: int) -> None:
    mask = RNG.integers(0, largest + 1, (9, 13)).astype(np.uint8)
    labels = make_labels({1: "a", largest: "b"})
    write_palette_png(mask, labels, tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), mask)
        colors = np.asarray(image.convert("RGB"))
    for label in labels:
        shown = colors[mask == label.index]
        assert (shown == label.color).all()
    assert (colors[mask == 0] == 0).all()
    decoded = imagecodecs.png_decode((tmp_path / "m.png").read_bytes())  # another decoder
    assert np.array_equal(decoded, colors) or np.array_equal(decoded, mask)


def test_many_labels_make_a_16_bit_grey_mask(tmp_path: Path) -> None:
    mask = RNG.integers(0, 1000, (9, 13)).astype(np.uint16)
    write_palette_png(mask, make_labels({999: "a"}), tmp_path / "m.png")
    decoded = imagecodecs.png_decode((tmp_path / "m.png").read_bytes())
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, mask)
    few = (mask % 5).astype(np.uint16)
    write_palette_png(few, [Label(4, "a", (1, 2, 3))], tmp_path / "few.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "few.png")), few)


def test_pictures_are_written_as_they_are(tmp_path: Path) -> None:
    for pixels in (RGB, GREY):
        write_png(pixels, tmp_path / "a.png")
        assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)


def test_other_arrays_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rows, columns"):
        write_palette_png(np.zeros((3, 4, 5), np.uint8), [], tmp_path / "m.png")
    with pytest.raises(UsageError, match="float"):
        write_palette_png(np.zeros((3, 4)), [], tmp_path / "m.png")
    with pytest.raises(UsageError, match="uint8"):
        write_png(DEEP_RGB, tmp_path / "m.png")
    with pytest.raises(UsageError, match="uint8"):
        write_png(RGBA, tmp_path / "m.png")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_png(GREY, tmp_path / "file" / "a.png")


def test_voc_colours_are_those_of_the_challenge() -> None:
    # PASCAL VOC 2012: aeroplane, bicycle, bird, ..., tv monitor, and the void border
    known = {1: (128, 0, 0), 2: (0, 128, 0), 9: (192, 0, 0), 20: (0, 64, 128), 255: (224, 224, 192)}
    table = voc_colors(256)
    assert {index: tuple(table[index].tolist()) for index in known} == known


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "CYX", ""])
def test_slices_and_moments_are_never_taken_for_colours(tmp_path: Path, axes: str) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (3, 20, 30), np.uint8)
    stated = {"imagej": True, "metadata": {"axes": axes}} if axes else {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", stack, **stated)
    if axes in ("ZYX", "TYX"):
        with pytest.raises(InputError) as caught:
            read_raster(tmp_path / "a.tif", channels=3)
        assert caught.value.code == "needs-frame"
        chosen = read_raster(tmp_path / "a.tif", frame=1)
        np.testing.assert_array_equal(chosen.array[0], stack[1])
    else:
        np.testing.assert_array_equal(read_raster(tmp_path / "a.tif", channels=3).array, stack)
