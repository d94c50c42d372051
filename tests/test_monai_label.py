"""The MONAI Label app, asked through a server that is started for it."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from medseg.cli.main import call
from medseg.data.phantom import phantom_ct
from medseg.volume import make_labels
from tests.phantoms import write_nifti, write_series

ROOT = Path(__file__).parents[1]
START_S = 120
DICOM_WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("monailabel") is None,
        reason="monailabel is not installed: docs/slicer.md says how",
    ),
]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, log: Path, **environment: str) -> Iterator[None]:
    """Keep a server running that answers at an address, and stop it as Ctrl+C would."""
    with log.open("w") as stream:
        server = subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, **environment}
        )
    try:
        give_up = time.monotonic() + START_S
        while not answers(url):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.2)
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def answers(url: str) -> bool:
    """Tell whether a server is up."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


class Server:
    """A MONAI Label server with the app of the repository."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.load(answer)

    def infer(
        self, model: str, image: str | Path, output: str = "image", **params: Any
    ) -> tuple[int, bytes]:
        """Return the status of the answer, and the answer."""
        query = urlencode({"image": image, "output": output})
        body = urlencode({"params": json.dumps(params)}).encode()
        request = urllib.request.Request(f"{self.url}/infer/{quote(model)}?{query}", body)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def mask(self, folder: Path, image: str | Path, suffix: str, **params: Any) -> Path:
        """Return the file of a mask of `phantom_ct`."""
        status, content = self.infer("phantom_ct", image, result_extension=suffix, **params)
        assert status == 200, content
        file = folder / f"got{suffix}"
        file.write_bytes(content)
        return file


@contextmanager
def label_server(
    folder: Path, studies: str | Path, *conf: str, **environment: str
) -> Iterator[Server]:
    """Start a server on a copy of the app: it makes folders beside it."""
    app = shutil.copytree(
        ROOT / "scripts" / "monailabel", folder / "app", ignore=shutil.ignore_patterns("logs")
    )
    port = free_port()
    command = [
        *(sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app)),
        *("--studies", str(studies), "--host", "127.0.0.1", "--port", str(port)),
        *("--conf", "device", "cpu", *conf),
    ]
    url = f"http://127.0.0.1:{port}"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with running(command, f"{url}/info/", folder / "server.log", PYTHONPATH=paths, **environment):
        yield Server(url)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a phantom as NIfTI and as DICOM, with masks of both, and a folder of bad bundles."""
    folder = tmp_path_factory.mktemp("label")
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    volume = phantom_ct(3, shape=(88, 72, 40), affine=affine)[0]
    write_nifti(volume, folder / "studies" / "scan.nii.gz")
    write_series(volume, folder / "dicom")
    for image, name in (("studies/scan.nii.gz", "of_nifti"), ("dicom", "of_dicom")):
        words = [str(folder / image), "-b", "phantom_ct", "-o", str(folder / name)]
        assert call(["segment", *words, "--device", "cpu", "--outputs", "nifti"]) == 0
    broken = folder / "bundles" / "broken" / "configs" / "metadata.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    return folder


@pytest.fixture(scope="module")
def server(work: Path) -> Iterator[Server]:
    """Start a server with all bundles there are on the folder of the NIfTI."""
    with label_server(work, work / "studies", MEDSEG_BUNDLES=str(work / "bundles")) as started:
        yield started


def expected(work: Path, name: str) -> Any:
    """Return the mask that `medseg segment` wrote."""
    return nib.load(next((work / name).glob("*/segmentation.nii.gz")))


def test_the_models_are_the_bundles_with_weights(server: Server) -> None:
    models = server.get("/info/")["models"]
    assert {"phantom_ct", "hippocampus_mri", "nuclei_semantic"} <= set(models)
    assert not {"broken", "spleen_ct", "nuclei_instances"} & set(models)
    model = models["phantom_ct"]
    assert (model["type"], model["dimension"]) == ("segmentation", 3)
    assert model["labels"] == {"organ": 1, "tumour": 2}
    assert model["label_colors"]["organ"] == [230, 25, 75]
    assert model["config"]["device"][0] == "cpu"


def test_a_mask_is_that_of_segment(server: Server, work: Path, tmp_path: Path) -> None:
    theirs = expected(work, "of_nifti")
    ours = nib.load(server.mask(tmp_path, "scan", ".nii.gz"))
    assert np.asarray(theirs.dataobj).any()
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    assert ours.header == theirs.header


@pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd", ".mha"])
def test_other_files_hold_the_same(server: Server, work: Path, tmp_path: Path, suffix: str) -> None:
    theirs = sitk.ReadImage(next((work / "of_nifti").glob("*/segmentation.nii.gz")))
    ours = sitk.ReadImage(server.mask(tmp_path, "scan", suffix))
    assert np.array_equal(sitk.GetArrayViewFromImage(ours), sitk.GetArrayViewFromImage(theirs))
    assert ours.GetSize() == theirs.GetSize()
    for of in (sitk.Image.GetOrigin, sitk.Image.GetSpacing, sitk.Image.GetDirection):
        assert np.allclose(of(ours), of(theirs), rtol=0, atol=1e-6)  # float32 in NIfTI


def test_dicom_files_are_read_by_medseg(server: Server, work: Path, tmp_path: Path) -> None:
    theirs = expected(work, "of_dicom")
    ours = nib.load(server.mask(tmp_path, work / "dicom", ".nii.gz"))
    assert np.array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
    seg = dcmread(server.mask(tmp_path, work / "dicom", ".dcm"))
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["organ", "tumour"]
    assert int(seg.pixel_array.sum()) == np.count_nonzero(np.asarray(theirs.dataobj))


def test_what_is_said_names_the_labels(server: Server, work: Path) -> None:
    status, content = server.infer("phantom_ct", "scan", "json", tta=False)
    answer = json.loads(content)
    counts = np.bincount(np.asarray(expected(work, "of_nifti").dataobj).ravel(), minlength=3)
    assert status == 200
    assert answer["label_names"] == {"organ": 1, "tumour": 2}
    assert [label["voxels"] for label in answer["labels"]] == counts[1:].tolist()


def test_names_are_counted_as_slicers_plug_in_counts_them() -> None:
    spec = importlib.util.spec_from_file_location("app", ROOT / "scripts/monailabel/main.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MONAI Label and what it imports
        spec.loader.exec_module(app)
    names = app.names_by_value(make_labels({2: "liver", 4: "tumour", 5: "cyst"}))
    assert list(names) == ["(no label 1)", "liver", "(no label 3)", "tumour", "cyst"]
    assert list(names.values()) == [1, 2, 3, 4, 5]


def test_all_images_are_segmented_at_one_request(server: Server, work: Path) -> None:
    url = f"{server.url}/batch/infer/phantom_ct?run_sync=true"
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert set(json.load(answer)) == {"scan"}
    saved = nib.load(work / "studies" / "labels" / "original" / "scan.nii.gz")
    theirs = expected(work, "of_nifti")
    assert np.array_equal(np.asarray(saved.dataobj), np.asarray(theirs.dataobj))


@pytest.mark.parametrize(
    ("model", "image", "params", "status", "text"),
    [
        ("phantom_ct", "nothing", {}, 404, "GET /datastore/ lists"),
        ("nothing", "scan", {}, 404, "no model 'nothing'"),
        ("phantom_ct", "scan", {"result_extension": ".png"}, 422, "must be among .nii.gz"),
        ("phantom_ct", "scan", {"result_extension": ".dcm"}, 422, "must be among .nii.gz"),
        ("phantom_ct", "scan", {"device": "abacus"}, 422, "device must be auto"),
        ("nuclei_semantic", "scan", {}, 422, "wrong-"),
    ],
)
def test_a_refusal_is_a_sentence(
    server: Server, model: str, image: str, params: dict[str, str], status: int, text: str
) -> None:
    got, content = server.infer(model, image, **params)
    assert got == status
    assert text in json.loads(content)["detail"]


def test_a_series_is_not_given_to_a_bundle_for_others(server: Server, work: Path) -> None:
    status, content = server.infer("hippocampus_mri", work / "dicom")
    assert (status, b"it is CT, the bundle wants MR" in content) == (422, True)


def test_a_bundle_that_is_named_must_be_there(work: Path, tmp_path: Path) -> None:
    conf = ("--conf", "bundles", "phantom_ct,nothing")
    with (
        pytest.raises(AssertionError, match=r"bundle must be a folder or one of"),
        label_server(tmp_path, work / "studies", *conf),
    ):
        pass


@pytest.mark.skipif(
    shutil.which("Orthanc") is None or not DICOM_WEB.is_file(),
    reason="there is no DICOMweb server: Debian's orthanc and orthanc-dicomweb are one",
)
def test_masks_of_a_dicomweb_store_have_its_grid(work: Path, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = tmp_path / "orthanc.json"
    config.write_text(
        json.dumps(
            {
                **dict.fromkeys(("StorageDirectory", "IndexDirectory"), str(tmp_path / "db")),
                "HttpPort": port,
                "DicomServerEnabled": False,
                "Plugins": [str(DICOM_WEB)],
            }
        )
    )
    files = sorted((work / "dicom").iterdir())
    uid = dcmread(files[0], stop_before_pixels=True).SeriesInstanceUID
    cache = tmp_path / "cache"
    with running(["Orthanc", str(config)], f"{url}/system", tmp_path / "orthanc.log"):
        for file in files:
            urllib.request.urlopen(f"{url}/instances", file.read_bytes()).close()
        where = {"MONAI_LABEL_DICOMWEB_CACHE_PATH": str(cache)}
        with label_server(
            tmp_path, f"{url}/dicom-web", "--conf", "bundles", "phantom_ct", **where
        ) as server:
            ours = nib.load(server.mask(tmp_path, uid, ".nii.gz"))
            status, content = server.infer("phantom_ct", "2.25.1")
    kept = nib.load(next(cache.glob("*/*.nii.gz")))
    assert np.allclose(ours.affine, kept.affine, rtol=0, atol=1e-4)
    theirs = expected(work, "of_dicom")
    same = nib.as_closest_canonical
    assert np.array_equal(same(ours).dataobj, same(theirs).dataobj)
    assert (status, b"UID of a series" in content) == (404, True)
