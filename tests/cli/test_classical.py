"""`medseg classical`: every format, the outputs of segment, exit codes, and nothing dropped."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from medseg.cli.main import call
from medseg.geometry import apply_affine
from medseg.io.labels import read_labels
from medseg.io.masks import read_mask
from medseg.volume import Volume
from tests.phantoms import oblique_affine, oriented_affine, write_nifti, write_series
from tests.real_data import data_folder

SHAPE = (21, 18, 13)
FILES = {
    "case.json", "labels.csv", "labels.json", "labels_itksnap.txt", "labels_slicer.ctbl",
    "preview.png", "report.html", "report.json", "segmentation.nii.gz",
}  # fmt: skip


def two_organs(affine: npt.ArrayLike | None = None) -> Volume:
    """Return air with two organs of one intensity that do not touch."""
    array = np.full((1, *SHAPE), -900, np.int16)
    array[0, 2:9, 4:12, 2:8] = 60
    array[0, 12:19, 4:12, 2:11] = 60
    return Volume(array, oblique_affine() if affine is None else np.asarray(affine))


def first_organ() -> npt.NDArray[np.bool_]:
    mask = np.zeros(SHAPE, np.bool_)
    mask[2:9, 4:12, 2:8] = True
    return mask


def run(*arguments: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a command with --json and return its document."""
    capsys.readouterr()
    given = call(["classical", *map(str, arguments), "--json"])
    streams = capsys.readouterr()
    assert given == code, streams.err
    document: dict[str, Any] = json.loads(streams.out)
    return document


def mask_of(case: dict[str, Any]) -> npt.NDArray[Any]:
    return np.asarray(nib.load(case["outputs"]["nifti"]).dataobj)


@pytest.mark.parametrize("name", ["superpixels", "grow", "watershed"])
def test_help_imports_nothing_heavy(name: str) -> None:
    heavy = ("torch", "monai", "numpy", "SimpleITK", "skimage", "scipy")
    code = (
        f"import sys; from medseg.cli.main import call; code = call(['classical', {name!r}, '-h']);"
        f"assert code == 0; sys.exit(str([n for n in {heavy!r} if n in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert f"Usage: medseg classical {name}" in done.stdout


def test_grow_on_nifti_writes_what_segment_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_nifti(two_organs(), tmp_path / "knee.nii.gz", code=3)
    out = tmp_path / "out"
    document = run(
        "grow", source, "-o", out, "--seed-voxel", "5,6,4", "--lower", "0", "--label", "liver",
        capsys=capsys,
    )  # fmt: skip
    case = document["cases"][0]
    assert (case["case"], case["status"], case["error"]) == ("knee", "done", None)
    assert {file.name for file in (out / "knee").iterdir()} == FILES
    assert np.array_equal(mask_of(case), first_organ())
    mask, image = nib.load(case["outputs"]["nifti"]), nib.load(source)
    assert mask.get_data_dtype() == np.uint8
    for form in ("sform", "qform"):
        assert np.array_equal(getattr(mask, f"get_{form}")(), getattr(image, f"get_{form}")())
        assert mask.header[f"{form}_code"] == 3
    assert [(row["name"], row["voxels"]) for row in case["labels"]] == [("liver", 7 * 8 * 6)]
    assert [label.name for label in read_labels(out / "knee")] == ["liver"]
    assert document["method"]["name"] == "connected-threshold"
    assert document["method"]["settings"]["seeds"] == {"voxel": [[5, 6, 4]], "mm": []}
    report = json.loads((out / "knee" / "report.json").read_text())
    assert report["bundle"] == {"name": None, "version": None, "weights_sha256": None}
    assert report["method"]["name"] == "connected-threshold"
    assert report["settings"]["lower"] == 0
    assert str(tmp_path) not in (out / "knee" / "report.json").read_text()


@pytest.mark.parametrize("codes", ["LPS", "PIR"])
def test_a_seed_in_mm_finds_the_same_organ_in_dicom_and_nifti(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], codes: str
) -> None:
    volume = two_organs(oblique_affine(codes))
    point = ",".join(f"{value:.4f}" for value in apply_affine(volume.affine, (5, 6, 4)))
    write_series(volume, tmp_path / "dicom")
    write_nifti(volume, tmp_path / "nifti" / "scan.nii.gz")
    places = []
    for kind in ("dicom", "nifti"):
        case = run(
            "grow", tmp_path / kind, "-o", tmp_path / f"out-{kind}", "--seed-mm", point,
            "--lower", "-100", "--upper", "100", capsys=capsys,
        )["cases"][0]  # fmt: skip
        image = nib.load(case["outputs"]["nifti"])
        places.append(apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj))))
    expected = apply_affine(volume.affine, np.argwhere(first_organ()))
    for found in places:
        assert len(found) == len(expected)
        order = [np.lexsort(np.round(points, 1).T) for points in (found, expected)]
        assert np.abs(found[order[0]] - expected[order[1]]).max() < 2e-3


def test_confidence_takes_its_own_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_nifti(two_organs(), tmp_path / "a.nii.gz")
    document = run(
        "grow", source, "-o", tmp_path / "out", "--method", "confidence", "--seed-voxel", "5,6,4",
        "--multiplier", "3", "--iterations", "2", capsys=capsys,
    )  # fmt: skip
    assert np.array_equal(mask_of(document["cases"][0]), first_organ())
    assert document["method"]["settings"]["multiplier"] == 3


def test_superpixels_of_a_colour_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    array = np.zeros((40, 60, 3), np.uint8)
    array[:, 31:] = (200, 40, 40)
    Image.fromarray(array).save(tmp_path / "cell.png")
    out = tmp_path / "out"
    document = run("superpixels", tmp_path / "cell.png", "-o", out, "--count", 24, capsys=capsys)
    case = document["cases"][0]
    mask = mask_of(case)
    assert mask.shape == (60, 40, 1)  # columns, rows, one slice
    assert mask.min() == 1
    assert not set(mask[:31].ravel()) & set(mask[31:].ravel())
    count = case["regions"]["count"]
    assert count == len(case["labels"]) == len(read_labels(out / "cell")) == mask.max()
    assert case["labels"][0]["name"] == "superpixel 1"
    assert (out / "cell" / "preview.png").stat().st_size > 1000


def test_thousands_of_superpixels_are_counted_and_not_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_nifti(two_organs(), tmp_path / "a.nii.gz")
    out = tmp_path / "out"
    arguments = ("superpixels", source, "-o", out, "--count", 1000, "--window", -160, 240)
    case = run(*arguments, capsys=capsys)["cases"][0]
    count = int(mask_of(case).max())
    assert count > 255
    assert mask_of(case).dtype == np.uint16
    assert case["labels"] == []
    assert case["regions"]["count"] == count
    assert case["regions"]["scattered"] == 0
    assert case["regions"]["voxels"]["smallest"] >= 1
    document = json.loads((out / "a" / "labels.json").read_text())
    assert document["labels"] == []
    assert document["regions"] == count
    assert "numbered regions" in document["note"]
    assert len((out / "a" / "labels_slicer.ctbl").read_text().splitlines()) == count + 2
    report = json.loads((out / "a" / "report.json").read_text())
    assert (report["labels"], report["found"]) == ([], count)
    assert report["regions"] == case["regions"]
    again = run(*arguments, "--resume", capsys=capsys)["cases"][0]
    assert again["status"] == "skipped"
    assert again["regions"] == case["regions"]
    other = run(*arguments[:-2], -100, 240, "--resume", capsys=capsys)["cases"][0]
    assert other["status"] == "done"


def test_quickshift_of_a_grey_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = np.zeros((30, 40), np.uint8)
    array[:, 20:] = 200
    Image.fromarray(array).save(tmp_path / "em.png")
    case = run(
        "superpixels", tmp_path / "em.png", "-o", tmp_path / "out", "--method", "quickshift",
        "--kernel-pixels", 2, capsys=capsys,
    )["cases"][0]  # fmt: skip
    mask = mask_of(case)[..., 0]
    assert not set(mask[:20].ravel()) & set(mask[20:].ravel())


def test_mean_shift_finds_the_organs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_nifti(two_organs(), tmp_path / "a.nii.gz")
    case = run(
        "superpixels", source, "-o", tmp_path / "out", "--method", "mean-shift", "--radius-mm", 1.5,
        capsys=capsys,
    )["cases"][0]  # fmt: skip
    mask = mask_of(case)
    assert [label["voxels"] for label in case["labels"]].count(7 * 8 * 6) == 1
    assert len(case["labels"]) == 3
    assert np.array_equal(mask == mask[5, 6, 4], first_organ())


def test_watershed_parts_touching_cells_of_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, columns = np.mgrid[:40, :60]
    cells = [(rows - 20) ** 2 + (columns - c) ** 2 <= 144 for c in (18, 38)]
    Image.fromarray((cells[0] | cells[1]).astype(np.uint8) * 180).save(tmp_path / "cells.png")
    case = run(
        "watershed", tmp_path / "cells.png", "-o", tmp_path / "out", "--relief", "distance",
        "--lower", 90, "--label", "cell", capsys=capsys,
    )["cases"][0]  # fmt: skip
    mask = mask_of(case)[..., 0].T
    assert [label["name"] for label in case["labels"]] == ["cell 1", "cell 2"]
    assert np.array_equal(mask > 0, cells[0] | cells[1])
    assert mask[20, 18] != mask[20, 38]
    assert case["labels"][0]["volume_ml"] is None
    assert [warning["code"] for warning in case["warnings"]] == ["no-pixel-size"]


def test_watershed_from_a_mask_of_markers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = two_organs()
    source = write_nifti(volume, tmp_path / "a.nii.gz")
    seeds = np.zeros((1, *SHAPE), np.uint8)
    seeds[0, 5, 6, 4], seeds[0, 15, 6, 4], seeds[0, 0, 0, 0] = 1, 2, 5
    markers = write_nifti(Volume(seeds, volume.affine), tmp_path / "markers.nii.gz")
    document = run("watershed", source, "-o", tmp_path / "out", "--markers", markers, capsys=capsys)
    mask = mask_of(document["cases"][0])
    assert set(np.unique(mask)) == {1, 2, 5}
    inner = ndimage.binary_erosion(first_organ())
    assert (mask[inner] == 1).all()
    assert (mask[:, 0] == 5).all()
    assert len(document["method"]["settings"]["markers_sha256"]) == 64
    assert str(tmp_path) not in json.dumps(document["method"])


def test_a_failing_case_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nifti(two_organs(), tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"no image")
    small = Volume(two_organs().array[:, :4], oriented_affine())
    write_nifti(small, tmp_path / "in" / "c.nii.gz")
    cases = run(
        "grow", tmp_path / "in", "-o", tmp_path / "out", "--seed-voxel", "5,6,4", "--lower", 0,
        code=1, capsys=capsys,
    )["cases"]  # fmt: skip
    assert [case["status"] for case in cases] == ["done", "failed", "failed"]
    assert cases[2]["error"]["code"] == "seed-outside"
    assert not (tmp_path / "out" / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["grow", "--lower", "0"], "no-seeds", "--seed-mm"),
        (["grow", "--seed-voxel", "1,2,3"], "usage", "--lower"),
        (["grow", "--seed-voxel", "1,2,3", "--lower", "5", "--upper", "1"], "usage", "Swap"),
        (["grow", "--seed-voxel", "one", "--lower", "5"], "usage", "such as 10,20,5"),
        (["grow", "--seed-mm", "1,2,x", "--lower", "5"], "usage", "seed-mm"),
        (["grow", "--seed-voxel", "1.5,2,3", "--lower", "5"], "usage", "whole numbers"),
        (["grow", "--seed-voxel", "1,2,3", "--multiplier", "2"], "usage", "--multiplier"),
        (["grow", "--method", "magic", "--seed-voxel", "1,2,3"], "usage", "threshold, confidence"),
        (["superpixels", "--method", "mean"], "usage", "slic, mean-shift, quickshift"),
        (["superpixels", "--kernel-pixels", "3"], "usage", "--kernel-pixels"),
        (["superpixels", "--method", "quickshift", "--count", "3"], "usage", "--count"),
        (["superpixels", "--count", "70000"], "too-many-regions", "65535"),
        (["superpixels", "--outputs", "vtk"], "usage", "outputs"),
        (["superpixels", "--resume", "--overwrite"], "usage", "resume"),
        (["watershed", "--relief", "distance"], "usage", "--lower"),
        (["watershed", "--markers", "no.nii"], "not-found", "no.nii"),
        (["watershed", "--markers", "no.nii", "--seed-voxel", "1,2,3"], "usage", "markers"),
    ],
    ids=" ".join,
)
def test_wrong_usage_starts_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: str,
    text: str,
) -> None:
    source = write_nifti(two_organs(), tmp_path / "a.nii.gz")
    command, *options = arguments
    document = run(command, source, "-o", tmp_path / "out", *options, code=2, capsys=capsys)
    assert document["error"]["code"] == code
    assert text in document["error"]["message"]
    assert not (tmp_path / "out").exists()


def test_a_study_of_two_usable_series_needs_a_choice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(two_organs(), tmp_path / "in" / "1", seed=1, series_number=1)
    write_series(two_organs(), tmp_path / "in" / "2", seed=1, series_number=2)
    arguments = ("superpixels", tmp_path / "in", "-o", tmp_path / "out", "--count", 9)
    document = run(*arguments, code=2, capsys=capsys)
    assert document["error"]["code"] == "ambiguous-volume"
    both = run(*arguments, "--series", "all", capsys=capsys)["cases"]
    assert [case["status"] for case in both] == ["done", "done"]


def test_results_are_never_replaced_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_nifti(two_organs(), tmp_path / "a.nii.gz")
    arguments = ("superpixels", source, "-o", tmp_path / "out", "--count", 9)
    run(*arguments, capsys=capsys)
    before = (tmp_path / "out" / "a" / "segmentation.nii.gz").stat().st_mtime_ns
    assert run(*arguments, code=2, capsys=capsys)["error"]["code"] == "output-exists"
    assert (tmp_path / "out" / "a" / "segmentation.nii.gz").stat().st_mtime_ns == before
    run(*arguments, "--overwrite", capsys=capsys)
    assert (tmp_path / "out" / "a" / "segmentation.nii.gz").stat().st_mtime_ns != before


def test_a_person_is_shown_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_nifti(two_organs(np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    seed = ["--seed-mm", "-10,-12,-8"]
    assert call(["classical", "grow", str(source), "-o", str(tmp_path / "o"), *seed]) == 2
    seed = ["--seed-mm", "10,12,8", "--lower=-100"]
    assert call(["classical", "grow", str(source), "-o", str(tmp_path / "o"), *seed]) == 0
    streams = capsys.readouterr()
    assert "region 2.7 ml" in streams.out
    assert "segmentation.nii.gz" in streams.out
    out = str(tmp_path / "s")
    assert call(["classical", "superpixels", str(source), "-o", out, "--count", "9"]) == 0
    assert "regions, median " in capsys.readouterr().out


def test_superpixels_of_real_nuclei_keep_to_their_edges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_folder("dsb2018_nuclei")
    shares = []
    for image in sorted((folder / "images").glob("*.png"))[:6]:
        document = run(
            "superpixels", image, "-o", tmp_path / image.stem, "--count", 600, capsys=capsys
        )
        found = mask_of(document["cases"][0])[..., 0].T
        truth = read_mask(folder / "masks" / image.name).array[0] > 0
        assert found.shape == truth.shape
        votes = np.zeros((found.max() + 1, 2), int)
        np.add.at(votes, (found, truth.astype(int)), 1)
        shares.append(votes.max(axis=1).sum() / found.size)
    assert np.mean(shares) > 0.97  # 0.981 when written; 0.973 by scikit-image's slic
