"""What a bundle may train with unless it is trusted, and what it may not."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.bundle.find import list_bundles
from medseg.bundle.overrides import merge_configs
from medseg.bundle.safety import unsafe_training
from medseg.bundle.safety.targets import may_fetch, training_reason_against
from medseg.cli.main import call
from medseg.errors import BundleError
from medseg.workflows.train import TrainOptions, train
from medseg.workflows.train_overrides import require_safe_training

NAMES = ("common", "train", "multi_gpu_train")


def configs(name: str) -> dict[str, Any]:
    files = [list_bundles()[name] / f"configs/{stem}.yaml" for stem in NAMES]
    return merge_configs([file for file in files if file.is_file()])


@pytest.mark.parametrize("name", list(list_bundles()))
def test_bundles_of_medseg_train_without_trust(name: str, tmp_path: Path) -> None:
    require_safe_training(configs(name), tmp_path)


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.SGD", "torch.optim.lr_scheduler.CosineAnnealingLR", "Novograd", "DiceLoss",
        "CacheDataset", "monai.data.DataLoader", "torch.utils.data.WeightedRandomSampler",
        "MeanDice", "ignite.metrics.Accuracy", "StatsHandler", "LrScheduleHandler",
        "ignite.handlers.EarlyStopping", "SupervisedTrainer", "medseg.training.set_up", "UNet",
    ],
)  # fmt: skip
def test_parts_of_a_training_are_known(target: str) -> None:
    assert training_reason_against(target) == ""


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "torch.hub.load", "monai.apps.download_url", "monai.bundle.run",
        "MLFlowHandler", "ignite.handlers.wandb_logger.WandBLogger", "PersistentDataset",
        "monai.data.LMDBDataset", "CSVDataset", "torch.utils.data.datapipes.iter.RoutedDecoder",
        "torch.utils.data.get_worker_info",
        "monai.losses.perceptual.MedicalNetPerceptualSimilarity", "medseg.data.prepare.serve",
        "monai.networks.nets.hovernet._remap_standard_resnet_model",
        "monai.data.utils.pickle_hashing", "TorchVisiond", "scripts.mine.Loss",
    ],
)  # fmt: skip
def test_what_runs_fetches_or_unpickles_is_no_part_of_a_training(target: str) -> None:
    assert training_reason_against(target) != ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("imports", ["$import subprocess"]),
        ("imports", ["$from scripts.mine import loss"]),
        ("initialize", ["$__import__('os').system('true')"]),
        ("initialize", ["$torch.distributed.init_process_group('gloo', 'tcp://host:1')"]),
        ("initialize", ["$torch.distributed.init_process_group('gloo', init_method='tcp://h:1')"]),
        ("loss", {"_target_": "scripts.mine.Loss"}),
        ("network_def", {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0"}),
        ("network_def", {"_target_": "FlexibleUNet", "backbone": "resnet18", "pretrained": True}),
        ("network_def", "$monai.networks.nets.EfficientNetBN('efficientnet-b0')"),
        ("reading", {"_target_": "LoadImaged", "keys": "image", "reader": "scripts.mine.Reader"}),
        (
            "reading",
            {"_target_": "LoadImaged", "keys": "image", "reader": "$'scripts.mine.Reader'"},
        ),
        ("reading", {"_target_": "SaveImaged", "keys": "pred", "writer": "mine"}),
        ("reading", {"_target_": "LoadImaged", "keys": "image", "allow_pickle": True}),
        ("reader", {"_target_": "NumpyReader", "allow_pickle": "@deep_supervision"}),
        ("reader", "$monai.data.NumpyReader(allow_pickle=True)"),
        ("dataset", {"_target_": "monai.data.ImageDataset", "reader": "os.system", "command": "1"}),
        ("metric", {"_target_": "ignite.metrics.FID"}),
        ("unused", "$open('file', 'w')"),
    ],
)
def test_what_may_run_anything_is_named(key: str, value: Any, tmp_path: Path) -> None:
    config = copy.deepcopy(configs("phantom_ct"))
    config[key] = [*config["imports"], *value] if key == "imports" else value
    with pytest.raises(BundleError, match=rf"^{key}.*must be known to train") as caught:
        require_safe_training(config, tmp_path)
    assert caught.value.code == "needs-trust"


@pytest.mark.parametrize("reader", ["ITKReader", "nibabelreader", "$monai.data.PILReader"])
def test_readers_of_monai_may_be_named(reader: str) -> None:
    config = {"reading": {"_target_": "LoadImaged", "keys": "image", "reader": reader}}
    assert unsafe_training(config) == []


def test_a_training_that_is_refused_has_run_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "mark"
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs/metadata.json").write_text("{}")
    (bundle / "configs/common.yaml").write_text("bundle_root: .\n")
    attack = {"dataset_dir": f"$__import__('pathlib').Path({str(mark)!r}).touch()"}
    (bundle / "configs/train.yaml").write_text(yaml.safe_dump(attack))
    with pytest.raises(BundleError, match=r"^dataset_dir"):
        train(TrainOptions(str(bundle), fold=0, device="cpu"))
    assert call(["train", str(bundle), "--fold", "0"]) == 2
    assert "Add --trust" in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "given", "off", "fetches"),
    [
        ("monai.networks.nets.EfficientNetBN", 1, frozenset(), True),
        ("monai.networks.nets.EfficientNetBN", 1, frozenset({"pretrained"}), False),
        ("monai.networks.nets.resnet18", 0, frozenset(), False),
        ("monai.networks.nets.resnet18", 1, frozenset(), True),
        ("monai.networks.nets.UNet", 5, frozenset(), False),
    ],
)
def test_weights_that_a_call_would_fetch_are_told(
    name: str, given: int, off: frozenset[str], *, fetches: bool
) -> None:
    assert may_fetch(name, given, off) == fetches
