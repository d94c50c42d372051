"""Exported folders at work: run.py, in a process without torch, MONAI, scipy and medseg."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

import medseg
from medseg.bundle import load_bundle
from medseg.cli.main import call
from medseg.errors import OutputError
from medseg.inference import Execution, Predictor
from medseg.io.nifti import write_nifti_image, write_nifti_mask
from medseg.workflows import export as workflow
from medseg.workflows.export import ExportOptions, export
from tests.exported import balanced, picture, structures
from tests.phantoms import abdomen, oblique_affine, write_nifti
from tests.picture_bundle import write_picture_bundle
from tests.toy_bundle import write_toy_bundle
from tests.zoo_style import DYNUNET, write_style

pytest.importorskip("onnxruntime", reason="the onnx extra is missing")

BUNDLES = Path(__file__).parents[2] / "bundles"
LEAST_AGREEMENT = 0.9999
GEOMETRY = ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "pixdim")

pytestmark = [
    # MONAI 1.6.1 warns that configs are code, each time one is read
    pytest.mark.filterwarnings("ignore:parsing config_file:"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.load.*"),
]

CLEAN = """
import runpy, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "monai", "scipy", "medseg", "skimage", "SimpleITK"):
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Run the runner of a folder where only its own packages can be imported."""
    command = [sys.executable, "-I", "-c", CLEAN, folder / "run.py", *arguments]
    return subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=300
    )


def segmented(folder: Path, mask: Path, *images: Path) -> nib.Nifti1Image:
    done = run(folder, *images, mask, "--overwrite")
    assert done.returncode == 0, done.stderr
    return nib.load(mask)


def expected(bundle: Path, image: Path, mask: Path) -> nib.Nifti1Image:
    """Segment by medseg with torch in float32, and read the mask that it writes."""
    predictor = Predictor(bundle, device="cpu", execution=Execution("torch", "fp32", cache=None))
    channels = predictor.bundle.input_rule.channels
    write_nifti_mask(predictor(medseg.read(image, channels=channels)), mask)
    return nib.load(mask)


def require_same(found: nib.Nifti1Image, wanted: nib.Nifti1Image, labels: int = 3) -> None:
    values, others = np.asarray(found.dataobj), np.asarray(wanted.dataobj)
    assert values.dtype == others.dtype
    assert values.shape == others.shape
    assert len(np.unique(others)) == labels
    assert (values == others).mean() >= LEAST_AGREEMENT
    for name in GEOMETRY:
        assert np.array_equal(found.header[name], wanted.header[name]), name


@pytest.fixture(scope="module")
def hippocampus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hippocampus")
    assert export(ExportOptions("hippocampus_mri", out, ("onnx",))).exit_code == 0
    return out


@pytest.fixture(scope="module")
def grey_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grey_toy")
    bundle = write_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy")
    assert export(ExportOptions(bundle, out, ("onnx",))).exit_code == 0
    return out


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("bundles") / "toy", channels=2)


@pytest.fixture(scope="module")
def exported_toy(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy")
    assert export(ExportOptions(toy, out, ("onnx", "torchscript"))).exit_code == 0
    return out


@pytest.mark.slow
def test_hippocampus_gets_the_labels_and_the_header_of_medseg(
    hippocampus: Path, tmp_path: Path
) -> None:
    image = write_nifti(structures((33, 27, 19), (1.4, 0.8, 2.3), "SLA"), tmp_path / "a.nii.gz")
    found = segmented(hippocampus, tmp_path / "mask.nii.gz", image)
    require_same(found, expected(BUNDLES / "hippocampus_mri", image, tmp_path / "b.nii.gz"))


@pytest.mark.slow
def test_ct_gets_the_labels_of_medseg(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(ExportOptions("phantom_ct", out, ("onnx",)))
    volume = replace(abdomen()[0], affine=oblique_affine("SPL", (6.0, 7.5, 5.0)))
    image = write_nifti(volume, tmp_path / "a.nii", code=2)
    found = segmented(out, tmp_path / "mask.nii", image)
    require_same(found, expected(BUNDLES / "phantom_ct", image, tmp_path / "b.nii"))
    shifted = write_nifti(replace(volume, array=volume.array + 2000), tmp_path / "c.nii")
    done = run(out, shifted, tmp_path / "none.nii")
    assert done.returncode == 2
    assert "must hold Hounsfield units" in done.stderr


def test_channels_are_one_file_or_several(exported_toy: Path, toy: Path, tmp_path: Path) -> None:
    volume = structures((20, 18, 17), (1.5, 1.0, 2.0), channels=2)
    both = tmp_path / "both.nii.gz"
    write_nifti_image(volume, both)
    singles = []
    for number, channel in enumerate(volume.array):
        singles.append(tmp_path / f"{number}.nii.gz")
        write_nifti_image(replace(volume, array=channel[None]), singles[-1])
    wanted = expected(toy, both, tmp_path / "b.nii.gz")
    for images in ([both], singles):
        found = segmented(exported_toy, tmp_path / "mask.nii.gz", *images)
        require_same(found, wanted)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_files_of_every_kind_get_a_mask_with_their_header(
    exported_toy: Path, toy: Path, tmp_path: Path, kind: Any
) -> None:
    volume = structures((20, 18, 17), (1.5, 1.0, 2.0), channels=2)
    stored = np.rint(np.moveaxis(volume.array, 0, -1)).astype(">i2")
    image = kind(stored, volume.affine)
    image.header.set_data_dtype(">i2")
    image.header["descrip"] = b"of a patient"
    image.header.set_slope_inter(0.7, 3.0)
    image.header.set_xyzt_units(1)  # metres
    image.set_sform(np.diag([1e-3, 1e-3, 1e-3, 1]) @ volume.affine, 2)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "a.nii.gz")
    found = segmented(exported_toy, tmp_path / "mask.nii.gz", tmp_path / "a.nii.gz")
    require_same(found, expected(toy, tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"))
    assert isinstance(found, kind)
    assert found.header["descrip"] == b""


def test_what_the_runner_cannot_use_is_refused(
    exported_toy: Path, grey_toy: Path, tmp_path: Path
) -> None:
    volume = structures((20, 18, 17), (1.5, 1.0, 2.0))
    good = write_nifti(volume, tmp_path / "good.nii.gz")
    further = volume.affine.copy()
    further[:3, 3] += 1
    moved = write_nifti(replace(volume, affine=further), tmp_path / "moved.nii")
    hollow = volume.array.copy()
    hollow[0, 3, 3, 3] = np.nan
    hollow_file = write_nifti(replace(volume, array=hollow), tmp_path / "hollow.nii.gz")
    sheared = volume.affine.copy()
    sheared[0, 1] += 0.3
    sheared_file = tmp_path / "sheared.nii.gz"
    nib.save(nib.Nifti1Image(volume.array[0], sheared), sheared_file)
    write_nifti_image(structures((9, 8, 7), (1, 1, 1), channels=3), tmp_path / "three.nii.gz")
    (tmp_path / "text.nii").write_text("no image")
    mask = tmp_path / "mask.nii.gz"
    for folder, images, said in [
        (exported_toy, [good], "must have 2 channels"),
        (exported_toy, [tmp_path / "three.nii.gz"], "must hold 2 image(s), got 3"),
        (exported_toy, [good, moved], "must lie on one grid, got moved.nii off good.nii.gz"),
        (grey_toy, [hollow_file], "must be finite"),
        (grey_toy, [sheared_file], "perpendicular axes"),
        (grey_toy, [tmp_path / "text.nii"], "must be a NIfTI file"),
        (grey_toy, [tmp_path / "none.nii"], "No such file"),
    ]:
        done = run(folder, *images, mask)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    done = run(grey_toy, good, tmp_path / "mask.png")
    assert "must end in .nii.gz or .nii" in done.stderr
    assert not mask.exists()


def test_another_network_is_taken_only_on_demand(exported_toy: Path, tmp_path: Path) -> None:
    volume = structures((20, 18, 17), (1.5, 1.0, 2.0), channels=2)
    write_nifti_image(volume, tmp_path / "a.nii.gz")
    folder = tmp_path / "copy"
    (folder / "models").mkdir(parents=True)
    for name in ("run.py", "pipeline.json"):
        (folder / name).write_bytes((exported_toy / name).read_bytes())
    network = (exported_toy / "models/model.onnx").read_bytes()
    (folder / "models/model.onnx").write_bytes(network + b"\x00")
    done = run(folder, tmp_path / "a.nii.gz", tmp_path / "mask.nii.gz")
    assert done.returncode == 2
    assert "must be the file that was exported" in done.stderr
    options = ["--network", exported_toy / "models/model.onnx"]
    assert run(folder, tmp_path / "a.nii.gz", tmp_path / "mask.nii.gz", *options).returncode == 0
    done = run(folder, tmp_path / "a.nii.gz", tmp_path / "other.nii.gz", *options, *options)
    assert "must be given for each of 1 networks, got 2" in done.stderr


@pytest.mark.slow
def test_pictures_are_arrays_or_files(tmp_path: Path) -> None:
    bundle = balanced(write_picture_bundle(tmp_path / "b", network="unet", channels=3))
    out = tmp_path / "out"
    export(ExportOptions(bundle, out, ("onnx",)))
    volume = picture((41, 57), 3)
    pixels = np.moveaxis(volume.array, 0, -1)
    np.save(tmp_path / "a.npy", pixels)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    execution = Execution("torch", "fp32", cache=None)
    wanted = Predictor(bundle, device="cpu", execution=execution)(volume).array
    assert len(np.unique(wanted)) > 1
    for name in ("a.npy", "a.png"):
        done = run(out, tmp_path / name, tmp_path / f"mask-{name}")
        assert done.returncode == 0, done.stderr
    found = [np.load(tmp_path / "mask-a.npy"), np.asarray(Image.open(tmp_path / "mask-a.png"))]
    for mask in found:
        assert (mask == wanted).mean() >= LEAST_AGREEMENT
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(tmp_path / "deep.png")
    done = run(out, tmp_path / "deep.png", tmp_path / "mask.png")
    assert "must have 8 bits a channel" in done.stderr


def test_networks_of_an_ensemble_are_averaged(tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", spacing_mm=[2.0, 1.5, 2.5])
    names = [f"models/fold_{fold}/model.pt" for fold in range(2)]
    for name, (first, second) in zip(names, [(80.0, 420.0), (60.0, 560.0)], strict=True):
        (bundle / name).parent.mkdir(parents=True)
        weight = torch.tensor([0, 0.02, 0.04]).reshape(3, 1, 1, 1, 1)
        bias = torch.tensor([0.0, -0.02 * first, -0.02 * (first + second)])
        torch.save({"weight": weight, "bias": bias}, bundle / name)
    path = bundle / "configs/metadata.json"
    document = json.loads(path.read_text())
    document["medseg"]["ensemble"] = names
    path.write_text(json.dumps(document))
    out = tmp_path / "out"
    export(ExportOptions(bundle, out, ("onnx",)))
    image = write_nifti(structures((20, 18, 17), (1.5, 1.0, 2.0)), tmp_path / "a.nii.gz")
    found = segmented(out, tmp_path / "mask.nii.gz", image)
    require_same(found, expected(bundle, image, tmp_path / "b.nii.gz"))


# --- what is written ---


def test_the_document_names_every_file_and_no_path(exported_toy: Path, toy: Path) -> None:
    text = (exported_toy / "pipeline.json").read_text()
    document = json.loads(text)
    assert str(toy.parent) not in text
    assert str(exported_toy) not in text
    assert document["bundle"]["weights_sha256"] == load_bundle(toy).weights_sha256()
    (network,) = document["networks"]
    assert set(network["files"]) == {"onnx", "torchscript"}
    for stated in network["files"].values():
        data = (exported_toy / stated["file"]).read_bytes()
        assert stated["sha256"] == hashlib.sha256(data).hexdigest()
        assert stated["input_shape"] == [1, 2, 16, 16, 16]


def test_one_file_has_a_document_of_its_own(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model.ts", "model.onnx"):
        arguments = ["bundle", "export", str(toy), "-o", str(tmp_path / name), "--json"]
        assert call(arguments) == 0
        pipeline = json.loads(capsys.readouterr().out)["pipeline"]
        assert pipeline["file"] == str(tmp_path / f"{name}.json")
        runner = str(tmp_path / "run.py") if name == "model.onnx" else None
        assert pipeline == {**pipeline, "runner": runner, "complete": True, "missing": []}
    volume = structures((20, 18, 17), (1.5, 1.0, 2.0), channels=2)
    write_nifti_image(volume, tmp_path / "a.nii.gz")
    found = segmented(tmp_path, tmp_path / "mask.nii.gz", tmp_path / "a.nii.gz")
    require_same(found, expected(toy, tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"))


@pytest.mark.parametrize("name", ["pipeline.json", "run.py"])
def test_what_is_there_is_replaced_only_on_demand(toy: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    options = ExportOptions(toy, tmp_path, ("onnx",))
    with pytest.raises(OutputError, match=name) as caught:
        export(options)
    assert caught.value.code == "output-exists"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert export(replace(options, overwrite=True)).exit_code == 0
    assert (tmp_path / name).read_text() != "mine"


@pytest.mark.slow
def test_a_pipeline_that_cannot_be_stated_is_a_warning_and_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, out = write_style(tmp_path / "zoo", DYNUNET), tmp_path / "out"
    assert call(["bundle", "export", str(bundle), "-o", str(out), "--to", "onnx"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "warning: the pipeline is not complete" in shown
    assert "CropForegroundd has no statement" in shown
    image = write_nifti(structures((20, 18, 17), (1.5, 1.0, 2.0)), tmp_path / "a.nii.gz")
    done = run(out, image, tmp_path / "mask.nii.gz")
    assert done.returncode == 2
    assert "CropForegroundd has no statement" in done.stderr


def test_a_file_that_does_not_take_the_windows_is_said(toy: Path, tmp_path: Path) -> None:
    result = export(ExportOptions(toy, tmp_path, ("onnx",), shape=(8, 16, 16)))
    assert result.exit_code == 0
    (warning,) = result.warnings
    assert warning.code == "incomplete-pipeline"
    assert "onnx takes [1, 2, 8, 16, 16], windows have [16, 16, 16]" in warning.message
    result = export(ExportOptions(toy, tmp_path / "b", ("onnx",), shape=(8, 16, 16), dynamic=True))
    assert result.warnings == ()


def test_without_a_network_there_is_no_pipeline(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        msg = "no such operator"
        raise RuntimeError(msg)

    monkeypatch.setattr(workflow, "write_network", fail)
    result = export(ExportOptions(toy, tmp_path / "out", ("onnx",)))
    assert result.exit_code == 1
    assert result.as_json()["pipeline"] is None
    assert not (tmp_path / "out").exists()
