"""Classes that configs may have built, by kind."""

import pytest

from medseg.bundle.safety.targets import reason_against


@pytest.mark.parametrize(
    "target",
    [
        "UNet", "monai.networks.nets.SegResNet", "torch.nn.Conv3d", "Compose", "Invertd",
        "monai.transforms.LoadImaged", "SlidingWindowInferer", "medseg.transforms.ImageReader",
        "medseg.transforms.NormalizeChannelsd", "medseg.networks.DynUNet", "DiceCELoss",
        "medseg.networks.build_network", "medseg.inference.MaskInferer", "resnet50",
        "monai.networks.blocks.Convolution",
    ],
)  # fmt: skip
def test_networks_transforms_and_inferers_may_be_built(target: str) -> None:
    assert reason_against(target) == ""


@pytest.mark.parametrize(
    "target",
    [
        "os.system", "subprocess.run", "builtins.eval", "scripts.net.Net", "torch.load",
        "torch.hub.load", "torch.os.system", "monai.bundle.run", "monai.bundle.download",
        "monai.apps.download_url", "monai.utils.optional_import", "monai.data.PersistentDataset",
        "monai.networks.utils.os.system", "TorchVisiond", "TorchIOd", "PerceptualLoss",
        "monai.networks.nets.BertPreTrainedModel", "medseg.data.cases_of_fold", "NoSuchClass",
        "eval", "this",
        "medseg.workflows.segment.segment", "medseg.networks.torch.load", "ConfigParser",
        "monai.losses.perceptual.MedicalNetPerceptualSimilarity",
        "monai.losses.perceptual.RadImageNetPerceptualSimilarity",
        "monai.losses.perceptual.TorchvisionModelPerceptualSimilarity",
        "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet",
        "monai.networks.nets.hovernet._remap_standard_resnet_model",
        "monai.networks.nets.senet._load_state_dict",
        "medseg.networks.encoder_weights.load_encoder_weights",
        "monai.transforms", "SupervisedEvaluator", "torch.utils.data.DataLoader", "",
        "WriteFileMapping", "WriteFileMappingd", "SaveClassificationd", "PatchInferer",
        "CellSamWrapper",
    ],
)  # fmt: skip
def test_all_else_is_refused(target: str) -> None:
    assert reason_against(target)
