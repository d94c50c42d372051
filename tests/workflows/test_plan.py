import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonschema import validate
from monai.bundle import ConfigParser

from medseg.bundle import load_bundle
from medseg.errors import InputError, OutputError, UsageError
from medseg.workflows.plan import PlanOptions, plan
from tests.data.datasets import case_arrays, write_image, write_msd, write_nnunet
from tests.real_data import data_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:parsing config_file:"),
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),  # never used
    pytest.mark.filterwarnings("ignore::FutureWarning:monai"),  # its own changed defaults
]
BUDGETS = {"common": 60, "train": 80, "evaluate": 20, "inference": 40, "multi_gpu_train": 40}


def _kinds(root: Path) -> dict[str, Path]:
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    return {
        "classes": write_msd(root / "classes", values=(10, 200)),
        "channels": write_msd(root / "channels", modality=("FLAIR", "T1w")),
        "regions": write_nnunet(root / "regions", regions),
    }


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("plans")
    return {
        kind: plan(PlanOptions(dataset, root / f"bundle_{kind}")).bundle
        for kind, dataset in _kinds(root).items()
    }


def _config(bundle: Path, *names: str) -> Any:
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.yaml") for name in ("common", *names)])
    parser["bundle_root"] = str(bundle)
    return parser


@pytest.mark.parametrize("kind", ["classes", "channels", "regions"])
class TestEveryPlannedBundle:
    def test_configs_are_short(self, bundles: dict[str, Path], kind: str) -> None:
        for name, budget in BUDGETS.items():
            lines = (bundles[kind] / "configs" / f"{name}.yaml").read_text().splitlines()
            assert len(lines) <= budget, name

    def test_the_network_takes_its_patch(self, bundles: dict[str, Path], kind: str) -> None:
        parser = _config(bundles[kind])
        network = parser.get_parsed_content("network_def").eval()
        channels = 1 if kind == "classes" else 2
        with torch.no_grad():
            result = network(torch.zeros(1, channels, *parser["patch_size"]))
        assert result.shape == (1, parser["num_classes"], *parser["patch_size"])

    def test_the_metadata_follows_monais_schema(self, bundles: dict[str, Path], kind: str) -> None:
        path = Path(os.environ.get("MEDSEG_SCHEMA", data_folder("").parent / "schema"))
        schema = path / "meta_schema_20240725.json"
        if not schema.is_file():
            pytest.skip("the schema of MONAI's metadata is not here")
        validate(
            json.loads((bundles[kind] / "configs/metadata.json").read_text()),
            json.loads(schema.read_text()),
        )

    def test_values_are_normalised_before_splines_make_others(
        self, bundles: dict[str, Path], kind: str
    ) -> None:
        steps = [step["_target_"] for step in _config(bundles[kind])["preprocessing_transforms"]]
        assert steps.index("medseg.transforms.NormalizeChannelsd") < steps.index(
            "medseg.transforms.Resampled"
        )

    def test_training_has_all_its_parts(self, bundles: dict[str, Path], kind: str) -> None:
        parser = _config(bundles[kind], "train")
        parser["dataset_dir"] = str(bundles[kind].parent / kind)
        parser["num_workers"] = 0
        cases = parser.get_parsed_content("train_cases")
        assert cases
        trainer = parser.get_parsed_content("train#trainer")
        assert trainer.state.epoch_length == 250

    def test_medseg_can_load_it(self, bundles: dict[str, Path], kind: str) -> None:
        bundle = load_bundle(bundles[kind])
        assert bundle.labels
        assert not bundle.has_weights
        assert bundle.train_command.startswith("medseg train")

    def test_every_case_validates_once(self, bundles: dict[str, Path], kind: str) -> None:
        splits = json.loads((bundles[kind] / "configs/splits.json").read_text())
        validated = [case for fold in splits["folds"] for case in fold["validation"]]
        assert len(validated) == len(set(validated)) == (4 if kind == "regions" else 6)


def test_the_hippocampus_plan_is_nnunets(tmp_path: Path) -> None:
    result = plan(PlanOptions(data_folder("Task04_Hippocampus"), tmp_path / "hippocampus_mri"))
    config = yaml.safe_load((result.bundle / "configs/common.yaml").read_text())
    assert config["spacing_mm"] == [1.0, 1.0, 1.0]
    assert config["patch_size"] == [40, 56, 40]
    assert config["network_def"]["filters"] == [32, 64, 128, 256]
    assert result.plan.choices["network"].numbers["poolings"] == [3, 3, 3]
    # nnU-Net's 9 is for the 260 cases of the whole Decathlon: a twentieth of the voxels of these
    numbers = result.plan.choices["batch_size"].numbers
    cases = result.plan.fingerprint.as_json()["cases"]
    assert numbers["by_twentieth"] == round(0.05 * cases * 36 * 50 * 35 / (40 * 56 * 40))
    assert result.plan.spec.batch_size == numbers["by_twentieth"]


def test_all_faults_of_a_dataset_are_listed_and_nothing_is_written(tmp_path: Path) -> None:
    root = write_msd(tmp_path / "data")
    _, label = case_arrays(0)
    write_image(root / "labelsTr/toy_000.nii.gz", label + 6)
    write_image(root / "labelsTr/toy_001.nii.gz", label[:-2])
    with pytest.raises(InputError) as caught:
        plan(PlanOptions(root, tmp_path / "bundle"))
    assert caught.value.code == "bad-dataset"
    for part in ("2 errors", "toy_000", "unknown-label", "toy_001", "grid-mismatch"):
        assert part in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_with_something_in_it_is_kept(tmp_path: Path) -> None:
    root = write_msd(tmp_path / "data")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="must be a new folder"):
            plan(PlanOptions(root, tmp_path / "mine", overwrite=overwrite))
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_a_bundle_is_replaced_on_demand_alone(tmp_path: Path) -> None:
    root = write_msd(tmp_path / "data")
    plan(PlanOptions(root, tmp_path / "bundle"))
    with pytest.raises(OutputError):
        plan(PlanOptions(root, tmp_path / "bundle", network="unet"))
    plan(PlanOptions(root, tmp_path / "bundle", network="unet", overwrite=True))
    config = yaml.safe_load((tmp_path / "bundle/configs/common.yaml").read_text())
    assert config["network_def"]["_target_"] == "UNet"


@pytest.mark.parametrize(
    "options", [{"network": "vnet"}, {"configuration": "4d"}, {"memory_gb": 0.0}, {"folds": 1}]
)
def test_unknown_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        plan(PlanOptions(tmp_path, tmp_path / "bundle", **options))
