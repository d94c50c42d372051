"""What lies under a path, and what does not count: results of earlier runs."""

import json
from pathlib import Path

import pytest

from medseg.errors import InputError
from medseg.io.atomic import PART_PREFIX
from medseg.io.sources import open_sources
from tests.phantoms import numbered, oblique_affine, write_nifti

IMAGE = numbered((5, 4, 3), oblique_affine())
RECORD = json.dumps({"schema": 1, "bundle": {}, "requested": [], "outputs": {}})


def found(path: Path, output: Path | None = None) -> tuple[list[str], list[str]]:
    with open_sources(path, output=output) as sources:
        left_out = [item.path.as_posix() for item in sources.rejected if item.code == "result"]
        return [file.shown for file in sources.files], left_out


@pytest.fixture
def images(tmp_path) -> Path:
    for name in ("a", "out/a/segmentation", "deep/b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_nifti(IMAGE, tmp_path / f"{name}.nii")
    return tmp_path


def test_every_image_of_a_folder_is_found(images) -> None:
    assert found(images) == (["a.nii", "deep/b.nii", "out/a/segmentation.nii"], [])


def test_the_output_of_this_run_is_no_input(images) -> None:
    assert found(images, images / "deep" / ".." / "out") == (["a.nii", "deep/b.nii"], ["out"])


def test_the_output_may_lie_around_the_input_or_elsewhere(images) -> None:
    for output in (images.parent, images / "nowhere"):
        assert len(found(images, output)[0]) == 3


def test_results_of_another_run_are_no_input(images) -> None:
    (images / "out" / "a" / "case.json").write_text(RECORD)
    assert found(images) == (["a.nii", "deep/b.nii"], ["out/a"])


@pytest.mark.parametrize("text", ["{}", "[1]", "no json", '{"bundle": 1, "requested": 2}'])
def test_a_record_of_another_program_hides_nothing(images, text) -> None:
    (images / "out" / "a" / "case.json").write_text(text)
    assert len(found(images)[0]) == 3


def test_what_a_killed_run_left_is_no_input(images) -> None:
    left = images / "out" / f"{PART_PREFIX}1-00000000-c"
    left.mkdir()
    write_nifti(IMAGE, left / "segmentation.nii")
    write_nifti(IMAGE, images / f"{PART_PREFIX}1-00000000-d.nii")
    files, left_out = found(images)
    assert files == ["a.nii", "deep/b.nii", "out/a/segmentation.nii"]
    assert left_out == [left.relative_to(images).as_posix()]


def test_a_result_that_is_named_is_an_input(images) -> None:
    folder = images / "out" / "a"
    (folder / "case.json").write_text(RECORD)
    assert found(folder / "segmentation.nii") == (["segmentation.nii"], [])
    assert found(folder)[0] == ["segmentation.nii"]


def test_an_empty_folder_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"at least one file, got '.*', which is empty") as caught:
        found(tmp_path)
    assert caught.value.code == "no-images"


def test_frames_come_in_the_order_of_their_numbers(tmp_path) -> None:
    for number in (1, 2, 10, 11):
        write_nifti(numbered((4, 4, 3), oblique_affine()), tmp_path / f"frame_{number}.nii.gz")
    with open_sources([tmp_path]) as sources:
        names = [file.volume_id for file in sources.files]
    assert names == ["frame_1", "frame_2", "frame_10", "frame_11"]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (("images", "masks"), ["masks"]),
        (("n1/images", "n1/masks", "n2/images", "n2/masks"), ["n1/masks", "n2/masks"]),
        (("imagesTr", "labelsTr", "imagesTs"), ["labelsTr"]),
        (("JPEGImages", "SegmentationClass", "SegmentationObject"),
         ["SegmentationClass", "SegmentationObject"]),
        (("train", "trainannot", "val", "valannot"), ["trainannot", "valannot"]),
        (("image", "label"), ["label"]),
        (("masks", "other"), []),  # beside no images
        (("images/masks",), []),
    ],
)  # fmt: skip
def test_the_masks_of_a_dataset_are_no_input(
    tmp_path: Path, pairs: tuple[str, ...], expected: list[str]
) -> None:
    for folder in pairs:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        write_nifti(IMAGE, tmp_path / folder / "a.nii")
    with open_sources(tmp_path) as sources:
        assert [r.path.as_posix() for r in sources.rejected if r.code == "masks"] == expected
        assert len(sources.files) == len(pairs) - len(expected)
    with open_sources(tmp_path / pairs[-1]) as sources:  # named, they are
        assert len(sources.files) == 1
