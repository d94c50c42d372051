"""Models of nnU-Net v2 give the same in medseg as in the library that they come from."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.bundle import load_bundle
from medseg.bundle.build import build_inference
from medseg.bundle.check import check_bundle
from medseg.bundle.lean_imports import LEFT_OUT, left_out_for
from medseg.cli.main import call
from medseg.errors import BundleError, MedsegError, OutputError, UsageError
from medseg.inference import Execution, Predictor
from medseg.inference.backends import probe as probing
from medseg.inference.postprocess import keep_largest
from medseg.inference.predictor import preprocessed
from medseg.volume import Source, Volume
from medseg.workflows.import_nnunet import ImportOptions, import_nnunet
from tests.nnunet_folder import configuration, write_results

pytest.importorskip(
    "dynamic_network_architectures", reason="writes networks of nnU-Net: pip install medseg[nnunet]"
)
skimage_transform = pytest.importorskip("skimage.transform")

TORCH = Execution(backend="torch", precision="fp32", cache=None)


def _imported(folder: Path, tmp_path: Path, **options: Any) -> Path:
    return import_nnunet(ImportOptions(folder, tmp_path / "bundle", **options)).bundle


def _network(bundle: Path) -> torch.nn.Module:
    return build_inference(load_bundle(bundle), torch.device("cpu")).network


def _volume(spacing: tuple[float, float, float], seed: int = 0) -> Volume:
    """Return a smooth image with a border of zeros; (1, 26, 30, 15)."""
    noise = np.random.default_rng(seed).normal(size=(1, 26, 30, 15))
    array = ndimage.gaussian_filter(noise, (0, 2, 2, 1)).astype(np.float32) * 100 + 20
    array[:, :3] = array[:, :, -2:] = array[..., :1] = 0
    return Volume(array, np.diag([*spacing, 1.0]), Source(format="nifti"))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_network_gives_what_that_of_nnunet_gives(
    tmp_path: Path, residual: bool, transpose: tuple[int, ...]
) -> None:
    settings = configuration(residual=residual)
    folder, (network,) = write_results(tmp_path, settings, transpose=transpose)
    own = _network(_imported(folder, tmp_path))
    x = torch.randn(2, 1, *settings["patch_size"])
    # of nnU-Net's axes K, J, I, turned by `transpose`, back to I, J, K
    places = [transpose.index(2 - axis) + 2 for axis in range(3)]
    with torch.inference_mode():
        wanted = network(x).permute(0, 1, *places)
        assert torch.allclose(own(x.permute(0, 1, *places)), wanted, atol=2e-5)


def test_2d_network_of_volumes_runs_on_each_slice(tmp_path: Path) -> None:
    folder, (network,) = write_results(tmp_path, configuration(2), configuration_name="2d")
    own = _network(_imported(folder, tmp_path))
    x = torch.randn(1, 1, 12, 16, 1)
    with torch.inference_mode():
        wanted = network(x[..., 0].transpose(2, 3)).transpose(2, 3)
        assert torch.allclose(own(x)[..., 0], wanted, atol=2e-5)


def test_plans_of_the_older_form_give_the_same_network(tmp_path: Path) -> None:
    settings = configuration()
    settings["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 10]
    folder, (network,) = write_results(tmp_path, settings)
    plans = json.loads((folder / "plans.json").read_text())
    older = plans["configurations"]["3d_fullres"]
    given = older.pop("architecture")["arch_kwargs"]
    older |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 10,
        "n_conv_per_stage_encoder": given["n_conv_per_stage"],
        "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 2, 1],
        "pool_op_kernel_sizes": given["strides"],
        "conv_kernel_sizes": given["kernel_sizes"],
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    own = _network(_imported(folder, tmp_path))
    x = torch.randn(1, 1, 8, 16, 12)
    with torch.inference_mode():
        assert torch.allclose(own(x.transpose(2, 4)), network(x).transpose(2, 4), atol=2e-5)


def test_logits_of_folds_are_averaged(tmp_path: Path) -> None:
    folder, networks = write_results(tmp_path, configuration(), folds=("0", "1", "3"))
    own = _network(_imported(folder, tmp_path))
    x = torch.randn(1, 1, 8, 16, 12)
    with torch.inference_mode():
        wanted = torch.stack([network(x) for network in networks]).mean(0).transpose(2, 4)
        assert torch.allclose(own(x.transpose(2, 4)), wanted, atol=2e-5)


def test_chosen_folds_alone_are_taken(tmp_path: Path) -> None:
    folder, networks = write_results(tmp_path, configuration(), folds=("0", "1"))
    own = _network(_imported(folder, tmp_path, folds=("1",)))
    x = torch.randn(1, 1, 8, 16, 12)
    with torch.inference_mode():
        assert torch.allclose(own(x.transpose(2, 4)), networks[1](x).transpose(2, 4), atol=2e-5)


def _cropped(array: np.ndarray) -> tuple[np.ndarray, tuple[slice, ...]]:
    inside = np.argwhere((array != 0).any(axis=0))
    box = tuple(slice(a, b + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True))
    return array[(slice(None), *box)], box


def _resized(array: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    options = {"order": order, "mode": "edge", "anti_aliasing": False}
    return np.stack([skimage_transform.resize(one, shape, **options) for one in array])


SCHEMES = {
    "ZScoreNormalization": lambda x: (x - x.mean()) / x.std(),
    "RescaleTo01Normalization": lambda x: (x - x.min()) / (x.max() - x.min()),
    "NoNormalization": lambda x: x,
    "CTNormalization": lambda x: (x.clip(-150, 250) - 40) / 80,
}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_images_are_cropped_normalised_and_resampled_in_this_order(
    tmp_path: Path, scheme: str
) -> None:
    folder, _ = write_results(tmp_path, configuration(normalization_schemes=[scheme]))
    parts = build_inference(load_bundle(_imported(folder, tmp_path)), torch.device("cpu"))
    volume = _volume((0.9, 1.5, 2.0))
    before = volume.array.copy()
    found = preprocessed(volume, parts).numpy()
    image, _ = _cropped(volume.array.astype(np.float64))
    shape = tuple(
        round(n * own / new)
        for n, own, new in zip(image.shape[1:], (0.9, 1.5, 2.0), (1.2, 1.0, 2.5), strict=True)
    )
    wanted = _resized(SCHEMES[scheme](image), shape, order=3)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 1e-4 * np.ptp(wanted)
    assert np.array_equal(volume.array, before)


def test_intensities_of_a_masked_scheme_are_those_inside(tmp_path: Path) -> None:
    settings = configuration(use_mask_for_norm=[True], spacing=[2.0, 1.5, 0.9])
    folder, _ = write_results(tmp_path, settings)
    parts = build_inference(load_bundle(_imported(folder, tmp_path)), torch.device("cpu"))
    volume = _volume((0.9, 1.5, 2.0))
    volume.array[:, 3:8, :8, 1:6] = 0  # a corner of the box, open to the outside
    found = preprocessed(volume, parts).numpy()
    image, _ = _cropped(volume.array)
    inside = ndimage.binary_fill_holes(image[0] != 0)
    values = image[0][inside].astype(np.float64)
    wanted = np.where(inside, (image[0] - values.mean()) / values.std(), 0)
    assert np.allclose(found[0], wanted, atol=1e-4)


def _windows(extent: int, size: int) -> list[int]:
    count = int(np.ceil((extent - size) / (size / 2))) + 1
    step = (extent - size) / max(1, count - 1)
    return [round(step * number) for number in range(count)]


def _slid(network: Any, image: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Run a network as nnU-Net's sliding window does, in half precision; (C, K, J, I)."""
    impulse = np.zeros(size)
    impulse[tuple(extent // 2 for extent in size)] = 1
    bell = ndimage.gaussian_filter(impulse, [n / 8 for n in size], mode="constant")
    bell = np.maximum(bell / bell.max() * 10, 1e-7).astype(np.float16)
    sums: Any = 0
    weights = np.zeros(image.shape[1:], np.float16)
    for start in np.ndindex(
        *(len(_windows(n, s)) for n, s in zip(image.shape[1:], size, strict=True))
    ):
        box = tuple(
            slice(_windows(n, s)[i], _windows(n, s)[i] + s)
            for n, s, i in zip(image.shape[1:], size, start, strict=True)
        )
        with torch.inference_mode():
            part = network(torch.from_numpy(image[(None, slice(None), *box)]).float())[0].numpy()
        if isinstance(sums, int):
            sums = np.zeros((len(part), *image.shape[1:]), np.float16)
        sums[(slice(None), *box)] += (part * bell.astype(np.float32)).astype(np.float16)
        weights[box] += bell
    return np.asarray(sums / weights, np.float64)


@pytest.mark.parametrize("regions", [False, True])
def test_masks_are_those_of_a_plain_account_of_nnunet(tmp_path: Path, regions: bool) -> None:
    dataset = None
    if regions:
        dataset = {
            "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3},
            "regions_class_order": [5, 2, 7],
        }
    folder, (network,) = write_results(tmp_path, configuration(), dataset=dataset)
    spacing = (0.9, 1.5, 2.0)
    volume = _volume(spacing)
    found = Predictor(_imported(folder, tmp_path), device="cpu", execution=TORCH)(volume).array

    image, box = _cropped(volume.array.astype(np.float64))
    image = image.transpose(0, 3, 2, 1)
    shape = tuple(
        round(n * own / new)
        for n, own, new in zip(image.shape[1:], spacing[::-1], (2.5, 1.0, 1.2), strict=True)
    )
    ready = _resized((image - image.mean()) / image.std(), shape, order=3)
    logits = _resized(_slid(network, ready, (8, 16, 12)), image.shape[1:], order=1)
    logits = logits.astype(np.float16)
    if regions:
        decided = np.zeros(logits.shape[1:], int)
        for one, value in zip(logits, (5, 2, 7), strict=True):
            decided[one > 0] = value
    else:
        decided = logits.argmax(axis=0)
    wanted = np.zeros(volume.array.shape[1:], int)
    wanted[box] = decided.transpose(2, 1, 0)
    assert len(np.unique(wanted)) >= 3
    assert (found == wanted).mean() >= 0.999


def test_a_coarse_axis_takes_the_nearest_slice(tmp_path: Path) -> None:
    settings = configuration(spacing=[1.0, 1.0, 1.0])
    folder, (network,) = write_results(tmp_path, settings)
    volume = _volume((1.0, 1.0, 4.0))
    found = Predictor(_imported(folder, tmp_path), device="cpu", execution=TORCH)(volume).array
    image, box = _cropped(volume.array.astype(np.float64))
    image = (image.transpose(0, 3, 2, 1) - image.mean()) / image.std()
    logits = _slid(network, image.repeat(4, axis=1), (8, 16, 12))
    # slice k is the middle of its four: of two equally near planes the upper
    wanted = np.zeros(volume.array.shape[1:], int)
    wanted[box] = logits[:, 2::4].argmax(axis=0).transpose(2, 1, 0)
    assert (found == wanted).mean() >= 0.999


def test_mirroring_takes_the_axes_that_the_checkpoint_allows(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    # of nnU-Net's axes 0 and 1, which are K and J
    assert load_bundle(_imported(folder, tmp_path)).mirror_axes == (1, 2)


def test_half_precision_is_taken_only_where_its_labels_are_those_of_single(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = write_results(tmp_path, configuration())
    bundle = _imported(folder, tmp_path)
    monkeypatch.setattr(
        probing, "label_dice", lambda *_, **__: (0.9990, 10**6)
    )  # of other bundles enough
    volume = _volume((1.0, 1.0, 1.0))
    execution = Execution(backend="torch", cache=None)
    [run] = Predictor(bundle, device="cpu", execution=execution)(volume).inference["networks"]
    assert run["precision"] == "fp32"
    reasons = [one["reason"] for one in run["refused"]]
    half = Execution(backend="torch", precision="bf16", cache=None)
    [run] = Predictor(bundle, device="cpu", execution=half)(volume).inference["networks"]
    if run["precision"] == "bf16":  # else it is refused for what is asked of every bundle
        assert any("mean Dice of 0.9990" in reason for reason in reasons)


def test_bundle_has_no_faults_and_says_where_it_comes_from(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration(), dataset={"channel_names": {"0": "CT"}})
    bundle = _imported(folder, tmp_path)
    assert check_bundle(bundle) == []
    rule = load_bundle(bundle).input_rule
    assert rule.modality == ("CT",)
    assert "Dataset004_Toy" in load_bundle(bundle).card
    written = [path for path in bundle.rglob("*") if path.suffix in (".yaml", ".json", ".md")]
    assert all(str(tmp_path) not in path.read_text() for path in written)


def test_a_network_for_pictures_takes_pictures(tmp_path: Path) -> None:
    settings = configuration(
        2,
        spacing=[1.0, 1.0],
        normalization_schemes=["RGBTo01Normalization"] * 3,
        use_mask_for_norm=[False] * 3,
    )
    dataset = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png"}
    folder, (network,) = write_results(
        tmp_path, settings, configuration_name="2d", dataset=dataset, reader="NaturalImage2DIO"
    )
    array = np.random.default_rng(0).integers(1, 255, (3, 40, 27)).astype(np.uint8)
    source = Source(format="raster", has_spacing=False)
    predictor = Predictor(_imported(folder, tmp_path), device="cpu", execution=TORCH)
    found = predictor(Volume(array, np.eye(3), source)).array
    wanted = _slid(network, array / 255.0, (16, 12)).argmax(axis=0)
    assert len(np.unique(wanted)) > 1
    assert (found == wanted).mean() >= 0.999


def test_ignored_label_is_no_output(tmp_path: Path) -> None:
    labels = {"background": 0, "organ": 1, "ignore": 2}
    folder, _ = write_results(tmp_path, configuration(), dataset={"labels": labels})
    bundle = load_bundle(_imported(folder, tmp_path))
    assert [label.name for label in bundle.labels] == ["organ"]


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIOWithReorient"])
def test_images_are_turned_as_the_reader_of_the_plans_does(tmp_path: Path, reader: str) -> None:
    folder, _ = write_results(tmp_path, configuration(), reader=reader)
    text = (_imported(folder, tmp_path) / "configs" / "common.yaml").read_text()
    assert ("axcodes: RAS" in text) == (reader == "NibabelIOWithReorient")


def test_a_zip_is_imported_as_its_folder(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    archive = shutil.make_archive(str(tmp_path / "weights"), "zip", folder.parents[1])
    result = import_nnunet(ImportOptions(Path(archive), tmp_path / "zipped"))
    own = _network(_imported(folder, tmp_path)).state_dict()
    other = _network(result.bundle).state_dict()
    assert all(torch.equal(own[key], other[key]) for key in own)


class _Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "logging": _Runs(tmp_path / "ran")}, path)
    with pytest.raises(BundleError, match="loaded safely") as caught:
        _imported(folder, tmp_path)
    assert caught.value.code == "bad-weights"
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "bundle").exists()


def test_pickled_postprocessing_is_named_and_not_opened(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    with (folder / "postprocessing.pkl").open("wb") as file:
        pickle.dump(_Runs(tmp_path / "ran"), file)
    result = import_nnunet(ImportOptions(folder, tmp_path / "bundle"))
    assert "postprocessing" in result.warnings
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "code", "match"),
    [
        ({"normalization_schemes": ["MyOwn"]}, "unsupported-nnunet", "normalisation must be"),
        ({"preprocessor_name": "MyOwn"}, "unsupported-nnunet", "preprocessor_name must be"),
        ({"resampling_fn_data": "my_own"}, "unsupported-nnunet", "resampling_fn_data must be"),
        ({"patch_size": "large"}, "bad-plans", "must be those of nnU-Net v2"),
        ({"spacing": [1.0]}, "bad-plans", "patch size and a spacing"),
    ],
)
def test_what_is_not_supported_is_refused(
    tmp_path: Path, changes: dict[str, Any], code: str, match: str
) -> None:
    folder, _ = write_results(tmp_path, configuration())
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"] |= changes
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(BundleError, match=match) as caught:
        _imported(folder, tmp_path)
    assert caught.value.code == code
    assert not (tmp_path / "bundle").exists()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    plans = json.loads((folder / "plans.json").read_text())
    given = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    given["features_per_stage"] = [4, 6, 10]
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(BundleError, match="must fit the network of plans") as caught:
        _imported(folder, tmp_path)
    assert caught.value.code == "weights-mismatch"


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"folds": ("4",)}, BundleError, "fold_4"),
        ({"checkpoint": "worst"}, UsageError, "checkpoint must be among"),
        ({"checkpoint": "best"}, BundleError, r"checkpoint_best\.pth"),
        ({"orientation": "RAP"}, UsageError, "orientation must be"),
    ],
)
def test_options_that_name_nothing_are_refused(
    tmp_path: Path, options: dict[str, Any], kind: type[MedsegError], match: str
) -> None:
    folder, _ = write_results(tmp_path, configuration())
    with pytest.raises(kind, match=match):
        _imported(folder, tmp_path, **options)


def test_a_folder_without_plans_and_one_with_several_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="got none in"):
        _imported(tmp_path, tmp_path)
    for name in ("2d", "3d_fullres"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results" / name / "plans.json").write_text("{}")
    with pytest.raises(BundleError, match="2d, 3d_fullres"):
        _imported(tmp_path / "results", tmp_path)


def test_a_bundle_that_is_there_stays_unless_told_otherwise(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    bundle = _imported(folder, tmp_path)
    with pytest.raises(OutputError, match="--overwrite"):
        _imported(folder, tmp_path)
    assert _imported(folder, tmp_path, overwrite=True) == bundle


def test_the_command_says_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = write_results(tmp_path, configuration(), folds=("0", "1"))
    bundle = tmp_path / "bundle"
    arguments = ["bundle", "import-nnunet", str(folder), "-o", str(bundle), "--folds", "1"]
    assert call([*arguments, "--orientation", "las", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folds"] == ["1"]
    assert document["orientation"] == "LAS"
    assert [label["name"] for label in document["labels"]] == ["organ", "tumour"]
    assert load_bundle(bundle).has_weights
    assert call([*arguments, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "output-exists"


def _cascade(parent: Path, *, elsewhere: Path | None = None) -> tuple[Path, Path]:
    """Write both stages of a cascade, and return the folders of the first and of the second."""
    first, _ = write_results(
        elsewhere or parent, configuration(spacing=[5.0, 2.0, 2.4]), configuration_name="3d_lowres"
    )
    second, _ = write_results(
        parent,
        configuration(previous_stage="3d_lowres"),
        configuration_name="3d_cascade_fullres",
    )
    return first, second


def test_a_cascade_is_one_bundle_that_runs_both_stages(tmp_path: Path) -> None:
    first, second = _cascade(tmp_path)
    result = import_nnunet(ImportOptions(second, tmp_path / "bundle"))
    alone = import_nnunet(ImportOptions(first, tmp_path / "alone")).bundle
    assert result.facts["previous_stage"] == "3d_lowres"
    assert check_bundle(result.bundle) == []
    assert check_bundle(result.bundle / "previous") == []
    assert load_bundle(result.bundle).input_rule.channels == 1
    predictor = Predictor(result.bundle, device="cpu", execution=TORCH)
    volume = _volume((0.9, 1.5, 2.0))
    found = predictor(volume).array
    [parts] = predictor._members[0].parts
    prepared = preprocessed(volume, parts)
    network = predictor._members[0].parts[0].network
    assert prepared.shape[0] == 3
    assert set(prepared[1:].unique().tolist()) == {0.0, 1.0}
    assert len(np.unique(found)) > 1
    mask = Predictor(alone, device="cpu", execution=TORCH)(volume).array
    shares = [np.count_nonzero(mask == label) / np.count_nonzero(mask) for label in (1, 2)]
    given = [float(one.sum() / prepared[1:].sum()) for one in prepared[1:]]
    assert np.allclose(given, shares, atol=0.05)
    assert next(network.parameters()).shape[1] == 3


def test_the_first_stage_is_run_as_the_second(tmp_path: Path) -> None:
    _, second = _cascade(tmp_path)
    predictor = Predictor(_imported(second, tmp_path), device="cpu", execution=TORCH, tta=True)
    [stage] = predictor.previous_stages
    assert (stage.run.execution, stage.run.tta) == (TORCH, True)


def test_no_more_is_imported_than_for_bundles_of_our_own(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration(), folds=("0", "1"))
    assert left_out_for(load_bundle(_imported(folder, tmp_path))) == set(LEFT_OUT)


def test_a_stage_that_has_one_before_it_is_not_run_for_ever(tmp_path: Path) -> None:
    _, second = _cascade(tmp_path)
    bundle = _imported(second, tmp_path)
    shutil.rmtree(bundle / "previous")
    (bundle / "previous").symlink_to(bundle, target_is_directory=True)
    predictor = Predictor(bundle, device="cpu", execution=TORCH)
    with pytest.raises(BundleError, match="must have two stages") as caught:
        predictor(_volume((0.9, 1.5, 2.0)))
    assert caught.value.code == "nested-stages"


def test_the_first_stage_may_lie_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = _cascade(tmp_path / "a", elsewhere=tmp_path / "b")
    with pytest.raises(BundleError, match="--previous-stage FOLDER") as caught:
        _imported(second, tmp_path)
    assert caught.value.code == "no-previous-stage"
    arguments = ["bundle", "import-nnunet", str(second), "-o", str(tmp_path / "bundle"), "--json"]
    assert call([*arguments, "--previous-stage", str(first)]) == 0
    assert json.loads(capsys.readouterr().out)["previous_stage"] == "3d_lowres"
    with pytest.raises(UsageError, match="must be left out"):
        _imported(first, tmp_path / "c", previous_stage=second)
    with pytest.raises(BundleError, match="previous stage of 3d_cascade_fullres must be 3d_lowres"):
        _imported(second, tmp_path / "d", previous_stage=second)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_distributed_or_compiled_training_are_taken(tmp_path: Path, prefix: str) -> None:
    folder, _ = write_results(tmp_path, configuration())
    plain = _network(_imported(folder, tmp_path / "plain")).state_dict()
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    weights = checkpoint["network_weights"]
    checkpoint["network_weights"] = {prefix + name: value for name, value in weights.items()}
    torch.save(checkpoint, path)
    found = _network(_imported(folder, tmp_path / "prefixed")).state_dict()
    assert all(torch.equal(plain[name], found[name]) for name in plain)


def test_numbers_and_arrays_of_numpy_in_a_checkpoint_are_no_reason_against_it(
    tmp_path: Path,
) -> None:
    folder, _ = write_results(tmp_path, configuration())
    path = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["logging"] = {
        "val_losses": [np.array(-0.2, np.float32), np.float64("nan"), np.int64(3), np.bool_(True)],
        "dice_per_class_or_region": [np.arange(3.0), np.arange(3, dtype=np.uint8)],
    }
    checkpoint["init_args"]["device"] = torch.device("cuda:0")
    torch.save(checkpoint, path)
    assert load_bundle(_imported(folder, tmp_path)).has_weights


def test_an_array_of_objects_in_a_checkpoint_is_refused(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "logging": np.array([{}, None], object)}, path)
    with pytest.raises(BundleError, match="loaded safely"):
        _imported(folder, tmp_path)


@pytest.mark.parametrize(
    ("there", "chosen", "wanted"),
    [
        (("all",), (), ["all"]),
        (("0", "2", "all"), (), ["0", "2"]),
        (("0", "2", "all"), ("all",), ["all"]),
        (("0", "2"), ("2", "2"), ["2"]),
    ],
)
def test_folds_that_are_there_are_taken(
    tmp_path: Path, there: tuple[str, ...], chosen: tuple[str, ...], wanted: list[str]
) -> None:
    folder, _ = write_results(tmp_path, configuration(), folds=there)
    result = import_nnunet(ImportOptions(folder, tmp_path / "bundle", folds=chosen))
    assert result.facts["folds"] == wanted


def test_the_best_checkpoint_is_taken_where_there_is_no_final_one(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    final = folder / "fold_0" / "checkpoint_final.pth"
    final.rename(final.with_name("checkpoint_best.pth"))
    assert load_bundle(_imported(folder, tmp_path)).has_weights


def test_a_configuration_inherits_from_another(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    plans = json.loads((folder / "plans.json").read_text())
    known = plans["configurations"]
    known["base"] = known.pop("3d_fullres") | {"patch_size": [16, 16, 16]}
    known["3d_fullres"] = {"inherits_from": "base", "patch_size": [8, 16, 12]}
    known["2d"] = {"spacing": [1.0, 1.0]}
    (folder / "plans.json").write_text(json.dumps(plans))
    text = (_imported(folder, tmp_path) / "configs" / "common.yaml").read_text()
    assert "patch_size: [12, 16, 8]" in text


def test_labels_with_a_gap_are_refused(tmp_path: Path) -> None:
    labels = {"background": 0, "organ": 1, "tumour": 3}
    folder, _ = write_results(tmp_path, configuration(), dataset={"labels": labels})
    with pytest.raises(BundleError, match="numbered from 1 without a gap"):
        _imported(folder, tmp_path)


def _write_postprocessing(folder: Path, *regions: Any) -> Path:
    name = "remove_all_but_largest_component_from_segmentation"
    document = {
        "postprocessing_fns": [name] * len(regions),
        "postprocessing_kwargs": [{"labels_or_regions": region} for region in regions],
    }
    path = folder / "postprocessing.json"
    path.write_text(json.dumps(document))
    return path


def test_postprocessing_is_taken_over_where_it_is_given(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    path = _write_postprocessing(folder, [1, 2], 1)
    assert not load_bundle(_imported(folder, tmp_path / "without")).postprocessing
    bundle = _imported(folder, tmp_path, postprocessing=path)
    both, one = load_bundle(bundle).postprocessing
    assert (both["labels"], one["labels"]) == (["organ", "tumour"], ["organ"])
    assert check_bundle(bundle) == []
    found = Predictor(bundle, device="cpu", execution=TORCH)(_volume((0.9, 1.5, 2.0))).array
    plain = tmp_path / "without" / "bundle"
    before = Predictor(plain, device="cpu", execution=TORCH)(_volume((0.9, 1.5, 2.0))).array
    wanted, _ = keep_largest(keep_largest(before, [1, 2])[0], [1])
    assert np.array_equal(found, wanted)
    assert not np.array_equal(found, before)


def test_postprocessing_of_regions_names_what_masks_hold(tmp_path: Path) -> None:
    dataset = {
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
    }
    folder, _ = write_results(tmp_path, configuration(), dataset=dataset)
    path = _write_postprocessing(folder, [[1, 2]])
    [step] = load_bundle(_imported(folder, tmp_path, postprocessing=path)).postprocessing
    assert step["labels"] == ["whole", "core"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[]", "bad-plans"),
        ('{"postprocessing_fns": ["mine"], "postprocessing_kwargs": [{}]}', "unsupported-nnunet"),
    ],
)
def test_other_postprocessing_is_refused(tmp_path: Path, text: str, code: str) -> None:
    folder, _ = write_results(tmp_path, configuration())
    (tmp_path / "postprocessing.json").write_text(text)
    with pytest.raises(BundleError) as caught:
        _imported(folder, tmp_path, postprocessing=tmp_path / "postprocessing.json")
    assert caught.value.code == code


def test_a_folder_of_another_name_is_what_its_checkpoint_says(tmp_path: Path) -> None:
    folder, _ = write_results(tmp_path, configuration())
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2d"] = {"inherits_from": "3d_fullres"}
    (folder / "plans.json").write_text(json.dumps(plans))
    renamed = folder.rename(tmp_path / "hippocampus model")
    facts = import_nnunet(ImportOptions(renamed, tmp_path / "bundle")).facts
    assert facts["configuration"] == "3d_fullres"
    [path] = renamed.glob("fold_0/*.pth")
    checkpoint = torch.load(path, weights_only=False)
    torch.save(checkpoint | {"init_args": {}}, path)
    with pytest.raises(BundleError, match=r"or its checkpoint state it, one of 2d, 3d_fullres"):
        import_nnunet(ImportOptions(renamed, tmp_path / "other"))
