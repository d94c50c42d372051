import gc
import shutil
import subprocess
import sys
from pathlib import Path

import monai  # noqa: F401 -- there before medseg wants it
import numpy as np
import pytest
import torch
import yaml

from medseg.bundle import load_bundle
from medseg.bundle.lean_imports import INDEPENDENT, LEFT_OUT, lean_imports, left_out_for
from medseg.data.phantom import phantom_ct
from medseg.io.raster import write_png
from medseg.io.read import read
from medseg.networks import build_network
from tests.phantoms import write_nifti

BUNDLES = Path(__file__).parents[2] / "bundles"
SHIPPED = sorted(path.name for path in BUNDLES.iterdir() if (path / "configs").is_dir())


@pytest.fixture
def edited(tmp_path):
    """Return a function that edits the common config of a copied bundle."""

    def edit(change):
        root = tmp_path / "bundle"
        shutil.copytree(load_bundle(BUNDLES / "phantom_ct").root, root)
        path = root / "configs/common.yaml"
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config))
        return load_bundle(root)

    return edit


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_bundles_are_independent_unless_their_network_is_a_library_s(name):
    wanted = set(LEFT_OUT)
    if name in ("camvid_semantic", "voc_semantic"):
        wanted = set()
    if name in ("nuclei_instances", "voc_instances"):
        wanted -= {"torchvision"}
    assert left_out_for(load_bundle(name)) == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["network_def"].update(_target_="TorchVisionFCModel"),
        lambda config: config["network_def"].update(_target_="scripts.net.UNet"),
        lambda config: config["network_def"].update(_target_="medseg.networks.build_network"),
        lambda config: config["preprocessing_transforms"].append(
            {"_target_": "medseg.classical.Slicd"}
        ),
        lambda config: config["network_def"].update(_target_="$monai.networks.nets.UNet"),
        lambda config: config.update(inferer="$monai.inferers.SimpleInferer()"),
        lambda config: config.update(more_imports=["$import torchvision"]),
        lambda config: config.update(more_imports=["$from monai.engines import Workflow"]),
        lambda config: config["preprocessing_transforms"].append({"_target_": "TorchVisiond"}),
        lambda config: config.update(
            preprocessing="@other", other={"_target_": "Compose", "transforms": "@more"},
            more=[{"_target_": "SavitzkyGolaySmoothd"}],
        ),
    ],
)  # fmt: skip
def test_anything_not_known_is_not_independent(edited, change):
    assert not left_out_for(edited(change))


def test_a_config_that_does_not_parse_is_not_independent(edited):
    bundle = edited(dict.copy)
    (bundle.root / "configs/common.yaml").write_text("a: [")
    assert not left_out_for(bundle)


def test_nothing_is_left_out_where_monai_is_there_already():
    assert "monai" in sys.modules

    finders = list(sys.meta_path)
    with lean_imports([load_bundle("phantom_ct")]):
        assert sys.meta_path == finders
        assert not gc.isenabled()
    assert gc.isenabled()


def run(code, *arguments):
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_independent_classes_are_found_without_the_packages():
    code = """
import gc, sys
from medseg.bundle import load_bundle
from medseg.bundle.lean_imports import INDEPENDENT, lean_imports
with lean_imports([load_bundle("phantom_ct")]):
    import monai
assert gc.isenabled()
assert not {"ignite", "torchvision", "matplotlib", "itk", "scipy.signal"} & set(sys.modules)
import matplotlib, scipy.signal
from monai.bundle import ComponentLocator
locator = ComponentLocator()
print(*[name for name in INDEPENDENT if isinstance(locator.get_component_module_name(name), str)])
"""
    assert set(run(code).split()) == INDEPENDENT


@pytest.mark.slow
def test_the_packages_stay_for_a_bundle_that_may_need_them(edited):
    bundle = edited(lambda config: config.update(more_imports=["$import torchvision"]))
    code = """
import sys
from medseg.bundle import load_bundle
from medseg.bundle.lean_imports import lean_imports
with lean_imports([load_bundle(sys.argv[1])]):
    import monai
print("ignite" in sys.modules)
"""
    assert run(code, bundle.root).split() == ["True"]


@pytest.mark.slow
def test_masks_are_the_same_with_and_without_the_packages(tmp_path):
    image = write_nifti(phantom_ct(5)[0], tmp_path / "in" / "ct.nii.gz")
    code = """
import sys
from pathlib import Path
from medseg.workflows.segment import SegmentOptions, segment
segment(
    SegmentOptions(
        inputs=(Path(sys.argv[1]),), bundle="phantom_ct", output=Path(sys.argv[2]),
        backend="torch",
    ),
    own_process=sys.argv[3] == "lean",
)
print("ignite" in sys.modules)
"""
    masks = []
    for way, loaded in (("lean", "False"), ("full", "True")):
        assert run(code, image, tmp_path / way, way).split()[-1] == loaded
        (path,) = Path(tmp_path / way).rglob("segmentation.nii.gz")
        masks.append(np.asarray(read(path).array))
    assert masks[0].any()
    assert np.array_equal(*masks)


@pytest.mark.slow
def test_a_network_by_name_is_built_in_a_process_of_its_own(tmp_path):
    root = tmp_path / "streets"
    shutil.copytree(BUNDLES / "camvid_semantic", root)
    network = build_network("unet_resnet", in_channels=3, out_channels=11)
    (root / "models").mkdir(exist_ok=True)
    torch.save({"model": network.state_dict()}, root / "models" / "model.pt")
    write_png(np.zeros((48, 64, 3), np.uint8), tmp_path / "street.png")

    command = [sys.executable, "-m", "medseg", "segment", tmp_path / "street.png", "-b", root]
    command += ["-o", tmp_path / "out", "--backend", "torch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("segmentation.png"))) == 1
