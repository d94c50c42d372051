"""segment on picture files: masks, palette PNG, overlay, batches, and files that are odd or bad."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg.cli.main import app
from medseg.errors import ChoiceError, UsageError
from medseg.io.masks import read_mask
from medseg.io.raster import voc_colors
from medseg.workflows.segment import SegmentOptions, segment
from tests.io.dicom.synthetic import header, save, set_pixels
from tests.picture_bundle import BLUER, GREENER, write_picture_bundle
from tests.real_data import data_folder
from tests.toy_bundle import write_toy_bundle

RNG = np.random.default_rng(5)


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_picture_bundle(tmp_path / "known", window=(32, 32))


def pixels(rows: int, columns: int) -> np.ndarray:
    """Blocks of colours, some of each class."""
    blocks = RNG.integers(0, 256, (-(-rows // 4), -(-columns // 4), 3)).astype(np.uint8)
    return np.kron(blocks, np.ones((4, 4, 1), np.uint8))[:rows, :columns]


def known_mask(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    return np.argmax([np.zeros_like(red), green - red - GREENER, blue - red - BLUER], axis=0)


def save_picture(rgb: np.ndarray, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **options)
    return path


def run(bundle: Path, output: Path, *inputs: Path, **options):
    asked = {"backend": "torch", "precision": "fp32", **options}
    return segment(SegmentOptions(inputs, str(bundle), output, **asked))


def test_a_picture_gets_a_palette_png_whose_values_are_classes(tmp_path, bundle) -> None:
    rgb = pixels(45, 70)
    source = save_picture(rgb, tmp_path / "in" / "street.png")
    result = run(bundle, tmp_path / "out", source)
    case = result.cases[0]
    assert (case["case"], case["status"], case["error"]) == ("street", "done", None)
    written = {"html", "labels", "nifti", "png", "preview", "report", "table"}
    assert set(case["outputs"]) == written
    with Image.open(tmp_path / "out" / "street" / "segmentation.png") as image:
        assert image.mode == "P"
        values = np.asarray(image)
        palette = np.asarray(image.getpalette(), np.uint8).reshape(-1, 3)
    expected = known_mask(rgb)
    assert set(np.unique(expected)) == {0, 1, 2}
    assert np.array_equal(values, expected)
    assert np.array_equal(palette[:3], voc_colors(3))
    found = {label["name"]: label["voxels"] for label in case["labels"]}
    assert found == {"grass": (expected == 1).sum(), "sea": (expected == 2).sum()}
    # the NIfTI holds the same: columns first, rows towards the back
    nifti = np.asarray(nib.load(case["outputs"]["nifti"]).dataobj)
    assert np.array_equal(nifti[..., 0].T, expected)
    assert np.array_equal(read_mask(Path(case["outputs"]["png"])).array[0], expected)


def test_the_colours_of_the_metadata_are_those_of_the_palette(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "own", colors={1: [9, 8, 7]})
    source = save_picture(pixels(8, 9), tmp_path / "a.png")
    run(bundle, tmp_path / "out", source, outputs=("png",))
    with Image.open(tmp_path / "out" / "a" / "segmentation.png") as image:
        palette = np.asarray(image.getpalette(), np.uint8).reshape(-1, 3)
    assert palette[1].tolist() == [9, 8, 7]
    assert palette[2].tolist() == [0, 128, 0]


def test_the_overlay_shows_image_and_classes_pixel_for_pixel(tmp_path, bundle) -> None:
    rgb = np.full((600, 40, 3), 100, np.uint8)  # higher than what is painted at once
    rgb[200:400, 10:30] = (100, 250, 100)
    source = save_picture(rgb, tmp_path / "a.png")
    result = run(bundle, tmp_path / "out", source, outputs=("overlay",))
    with Image.open(result.cases[0]["outputs"]["overlay"]) as image:
        shown = np.asarray(image).astype(int)
    assert shown.shape == rgb.shape
    border = np.zeros(rgb.shape[:2], bool)  # outlines are drawn on either side
    border[199:401, 9:31] = True
    assert np.array_equal(shown[~border], rgb[~border])
    grass = np.array([128, 0, 0])  # class 1 in the palette of VOC
    inside = np.round([100, 250, 100] + 0.35 * (grass - [100, 250, 100]))
    assert np.abs(shown[300, 20] - inside).max() <= 1
    assert np.abs(shown[255:258, 20] - inside).max() <= 1  # no outline where two strips meet
    outline = np.round([100, 250, 100] + 0.95 * (grass - [100, 250, 100]))
    for row, column in ((200, 20), (399, 20), (300, 10), (300, 29)):
        assert np.abs(shown[row, column] - outline).max() <= 1


@pytest.mark.parametrize("first", [0, 1])
def test_a_folder_of_frames_is_a_batch_in_order(tmp_path, bundle, first) -> None:
    frames = {f"frame_{n:04d}": pixels(20, 24) for n in range(first, first + 3)}
    for name, rgb in frames.items():
        save_picture(rgb, tmp_path / "video" / f"{name}.png")
    result = run(bundle, tmp_path / "out", tmp_path / "video", outputs=("png",))
    assert [case["case"] for case in result.cases] == list(frames)
    for case in result.cases:
        assert case["status"] == "done"
        mask = read_mask(Path(case["outputs"]["png"])).array[0]
        assert np.array_equal(mask, known_mask(frames[case["case"]]))


def test_odd_pictures_are_read_and_bad_ones_fail_alone(tmp_path, bundle) -> None:
    folder = tmp_path / "in"
    rgb = pixels(24, 36)
    save_picture(rgb, folder / "plain.png")
    save_picture(np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)]), folder / "alpha.png")
    save_picture(rgb[..., 0], folder / "grey.png")
    save_picture(rgb[:1, :1], folder / "one.png")
    save_picture(rgb[:3, :5], folder / "tiny.tif")
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    save_picture(rgb, folder / "turned.png", exif=exif)
    Image.fromarray(rgb).convert("CMYK").save(folder / "ink.jpg", quality=98)
    save_picture(rgb, folder / "cut.jpg", quality=95)
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:1200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    result = run(bundle, tmp_path / "out", folder)
    cases = {case["case"]: case for case in result.cases}
    assert len(cases) == 10
    failed = {name: c["error"]["code"] for name, c in cases.items() if c["status"] == "failed"}
    assert failed == {"cut": "truncated", "empty": "truncated", "text": "unreadable"}
    assert result.exit_code == 1
    codes = {name: [w["code"] for w in case["warnings"]] for name, case in cases.items()}
    assert codes["plain"] == []
    assert codes["alpha"] == ["alpha-dropped"]
    assert codes["grey"] == ["grey-image"]
    assert codes["turned"] == ["exif-rotated"]

    def mask(name: str) -> np.ndarray:
        return read_mask(Path(cases[name]["outputs"]["png"])).array[0]

    expected = known_mask(rgb)
    assert np.array_equal(mask("plain"), expected)
    assert np.array_equal(mask("alpha"), expected)
    assert not mask("grey").any()  # equal colours are of no class
    assert np.array_equal(mask("one"), expected[:1, :1])
    assert np.array_equal(mask("tiny"), expected[:3, :5])
    assert np.array_equal(mask("turned"), np.rot90(expected, -1))
    assert mask("ink").shape == expected.shape


def test_a_failed_frame_is_done_again_on_resume_and_the_others_are_not(tmp_path, bundle) -> None:
    folder = tmp_path / "in"
    rgb = pixels(24, 36)
    save_picture(rgb, folder / "a.png")
    (folder / "b.png").write_text("broken")
    run(bundle, tmp_path / "out", folder)
    save_picture(rgb, folder / "b.png")
    again = run(bundle, tmp_path / "out", folder, resume=True)
    assert [case["status"] for case in again.cases] == ["skipped", "done"]
    # a further kind of output makes it be done again
    more = run(bundle, tmp_path / "out", folder, resume=True, outputs=("png", "overlay"))
    assert [case["status"] for case in more.cases] == ["done", "done"]


def test_pictures_of_volumes_are_refused_before_any_work(tmp_path) -> None:
    solid = write_toy_bundle(tmp_path / "solid")
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 7), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(UsageError, match="png, which only 2D images have"):
        run(solid, tmp_path / "out", tmp_path / "scan.nii.gz", outputs=("nifti", "png"))
    assert not (tmp_path / "out").exists()
    result = run(solid, tmp_path / "out", tmp_path / "scan.nii.gz")
    assert "png" not in result.cases[0]["outputs"]


def test_a_picture_for_a_volume_bundle_and_a_volume_for_a_picture_bundle_fail(
    tmp_path, bundle
) -> None:
    solid = write_toy_bundle(tmp_path / "solid")
    flat = save_picture(pixels(9, 9)[..., 0], tmp_path / "flat.png")
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 7), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    for one, source in ((solid, flat), (bundle, tmp_path / "scan.nii.gz")):
        result = run(one, tmp_path / f"out_{one.name}", source)
        assert result.cases[0]["error"]["code"] == "wrong-dimensions"
        assert result.exit_code == 1


def test_a_page_of_a_tiff_has_to_be_named(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "grey", channels=1, names=("image",))
    pages = [Image.fromarray(RNG.integers(0, 200, (9, 7)).astype(np.uint8)) for _ in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ChoiceError, match="--frame N") as caught:
        run(bundle, tmp_path / "out", tmp_path / "pages.tif")
    assert caught.value.code == "needs-frame"
    result = run(bundle, tmp_path / "out", tmp_path / "pages.tif", frame=1)
    mask = read_mask(Path(result.cases[0]["outputs"]["png"])).array[0]
    assert np.array_equal(mask, np.digitize(np.asarray(pages[1]), (GREENER, BLUER)))


@pytest.mark.parametrize("colour", [False, True])
def test_a_dicom_picture_is_taken_by_a_bundle_of_pictures(tmp_path, colour) -> None:
    names = ("red", "green", "blue") if colour else ("image",)
    bundle = write_picture_bundle(tmp_path / "b", channels=len(names), names=names)
    rgb = pixels(20, 30)
    array = rgb if colour else rgb[..., 0]
    tags = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None}
    ds = header(SOPClassUID="1.2.840.10008.5.1.4.1.1.6.1", Modality="US", **tags)
    set_pixels(ds, array)
    save(ds, tmp_path / "in" / "us")
    result = run(bundle, tmp_path / "out", tmp_path / "in", outputs=("png",))
    [case] = result.cases
    assert (case["status"], case["error"]) == ("done", None)
    expected = known_mask(rgb) if colour else np.digitize(array, (GREENER, BLUER))
    assert np.array_equal(read_mask(Path(case["outputs"]["png"])).array[0], expected)
    solid = write_toy_bundle(tmp_path / "solid")
    with pytest.raises(ChoiceError, match="2D image") as caught:
        run(solid, tmp_path / "other", tmp_path / "in")
    assert caught.value.code == "no-usable-volume"


def test_the_command_lists_pixels_and_files(tmp_path, bundle) -> None:
    source = save_picture(pixels(30, 20), tmp_path / "a.png")
    arguments = ["segment", str(source), "-b", str(bundle), "-o", str(tmp_path / "out")]
    shown = CliRunner().invoke(app, [*arguments, "--backend", "torch", "--outputs", "png,overlay"])
    assert shown.exit_code == 0, shown.output
    assert "grass" in shown.stdout
    assert "pixels" in shown.stdout
    assert "overlay.png" in shown.stdout.replace("\n", "")
    document = json.loads((tmp_path / "out" / "a" / "case.json").read_text())
    assert document["requested"] == ["overlay", "png"]
    assert document["outputs"]["nifti"] == "segmentation.nii.gz"


def test_classical_methods_write_the_same_pictures(tmp_path) -> None:
    source = save_picture(pixels(40, 40), tmp_path / "a.png")
    arguments = ["classical", "superpixels", str(source), "-o", str(tmp_path / "out"), "--json"]
    options = ["--count", "9", "--outputs", "png,overlay"]
    shown = CliRunner().invoke(app, [*arguments, *options])
    assert shown.exit_code == 0, shown.output
    case = json.loads(shown.stdout)["cases"][0]
    assert sorted(case["outputs"]) == ["labels", "nifti", "overlay", "png"]
    mask = read_mask(Path(case["outputs"]["png"])).array[0]
    nifti = np.asarray(nib.load(case["outputs"]["nifti"]).dataobj)[..., 0].T
    assert np.array_equal(mask, nifti)
    assert len(np.unique(mask)) > 3


def test_classical_methods_refuse_pictures_of_volumes(tmp_path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 7), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    arguments = ["classical", "superpixels", str(tmp_path / "scan.nii.gz"), "--json"]
    shown = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "out"), "--outputs", "png"])
    [case] = json.loads(shown.stdout)["cases"]
    assert case["error"]["code"] == "wrong-dimensions"


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("camvid", "val/*.png"), ("dsb2018_nuclei", "images/*.png"), ("voc_subset", "**/*.jpg")],
)
def test_real_pictures_get_masks_of_their_size(tmp_path, bundle, name, pattern) -> None:
    files = sorted(data_folder(name).glob(pattern))[:3]
    result = run(bundle, tmp_path / "out", *files, outputs=("png",))
    assert [case["status"] for case in result.cases] == ["done"] * 3
    for case, file in zip(result.cases, files, strict=True):
        with Image.open(file) as image:
            size, rgb = image.size, np.asarray(image.convert("RGB"))
        mask = read_mask(Path(case["outputs"]["png"])).array[0]
        assert mask.shape == size[::-1]
        assert np.array_equal(mask, known_mask(rgb))
