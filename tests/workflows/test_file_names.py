"""Names of DICOM files do not reach what is written."""

from pathlib import Path

from medseg.errors import Problem
from medseg.io.cases import Case, Choice, Rule, find_cases
from medseg.io.sources import open_sources
from medseg.workflows.file_names import without_file_names
from tests.phantoms import write_series
from tests.workflows.test_segment import blobs


def test_names_of_files_and_folders_are_taken_out(tmp_path: Path) -> None:
    folder = write_series(blobs(), tmp_path / "in" / "MUELLER" / "DOE JANE (1950)")
    names = ("doe_1.dcm", "doe_1", "7", "1950031")
    for file, name in zip(sorted(folder.iterdir()), names, strict=False):
        file.rename(folder / name)
    with open_sources(tmp_path / "in") as sources:
        rule = Rule(lambda volume: None)  # noqa: ARG005
        (case,) = find_cases(sources, [tmp_path / "in"], rule, Choice())
    text = "doe_1.dcm lies where doe_1 does, in MUELLER/DOE JANE (1950): 7 of 17, 1950031 doe_12"
    given = Problem("duplicate-position", text, "warning")
    (found,) = without_file_names([given], case)
    assert found.message == ("(file) lies where (file) does, in (file): 7 of 17, (file) doe_12")
    assert (found.code, found.severity) == ("duplicate-position", "warning")
    image = Case("a", tmp_path / "a.nii.gz", files=(tmp_path / "a.nii.gz",))
    assert without_file_names([given], image) == (given,)
