"""What docs/slicer.md tells one to type is typed here, and what it says of files is looked up."""

import re
import shlex
from pathlib import Path

import pytest
import SimpleITK as sitk
from PIL import Image

from medseg.cli.main import call
from medseg.data.phantom_study import write_phantom_study
from medseg.io.labels import SLICER_NAME, slicer_text
from medseg.io.nifti import write_nifti_image
from medseg.volume import make_labels

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "slicer.md").read_text(encoding="utf-8")
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("medseg ")]
PICTURES = re.findall(r"\]\((pictures/[^)]+)\)", PAGE)
LARGEST_BYTES = 200_000


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a phantom as a study and as one file."""
    folder = tmp_path_factory.mktemp("slicer")
    phantom = write_phantom_study(folder / "phantom")
    phantom.dicom.rename(folder / "study")
    write_nifti_image(phantom.volume, folder / "scan.nii.gz")
    return folder


@pytest.mark.slow
def test_the_commands_write_what_the_page_says(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    assert len(COMMANDS) == 2
    for line in COMMANDS:
        assert call(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    for name in re.findall(r"`((?:segmentation|labels_|image)[\w.]+)`", PAGE):
        assert next(Path("of_study").glob(f"*/{name}")).is_file()
    table = next(Path("out").glob(f"*/{SLICER_NAME}")).read_text(encoding="utf-8")
    assert f"```\n{table}```" in PAGE
    header = sitk.ImageFileReader()
    header.SetFileName(str(next(Path("out").glob("*/segmentation.seg.nrrd"))))
    header.ReadImageInformation()
    fields = {key.replace("Segment0_", "SegmentN_") for key in header.GetMetaDataKeys()}
    said = set(re.findall(r"`(Segment(?:N|ation)_\w+)`", PAGE))
    assert said == {key for key in fields if key.startswith(("SegmentN_", "Segmentation_"))} - {
        "SegmentN_Tags"  # holds nothing
    }


def test_the_colour_table_is_the_one_on_the_page() -> None:
    colours = {1: (230, 25, 75), 2: (60, 180, 75)}
    labels = make_labels(["organ", "tumour"])
    assert {label.index: label.color for label in labels} == colours
    assert slicer_text(labels) in PAGE


def test_the_pictures_are_there_and_small() -> None:
    assert sorted(PICTURES) == sorted(f"pictures/{file.name}" for file in DOCS.glob("pictures/*"))
    for name in PICTURES:
        assert (DOCS / name).stat().st_size < LARGEST_BYTES
        with Image.open(DOCS / name) as picture:
            assert picture.format == "PNG"
            assert not picture.info.keys() - {"transparency", "dpi"}
