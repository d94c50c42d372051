"""The YAML of a planned bundle: each fact once, with a word on what it is."""

import json
from collections.abc import Sequence
from typing import Any

from medseg.bundle import yaml_objects
from medseg.bundle.augmentation import augmentation_of
from medseg.bundle.spec import BundleSpec
from medseg.volume import IGNORED

PATHS = """\
# --- paths and hardware ---
bundle_root: .
dataset_dir: $@bundle_root + '/data'
output_dir: $@bundle_root + '/eval'
model_dir: $@bundle_root + '/models'
ckpt_path: $@model_dir + '/model.pt'
device: $torch.device('cuda' if torch.cuda.is_available() else 'cpu')
num_workers: 1"""
"""Where a bundle keeps what, and what it runs on; the same in all."""


def flow(value: Any) -> str:
    """Return a value on one line of YAML.

    Args:
        value: Plain value.

    Returns:
        Text.

    Examples:
        >>> flow({"a": [1, "@b"], "c": None})
        "{a: [1, '@b'], c: null}"
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        plain = value.replace("_", "").replace(".", "").replace("-", "").isalnum()
        word = plain and not value[0].isdigit() and value.lower() not in _RESERVED
        return value if word else "'" + value.replace("'", "''") + "'"
    text = json.dumps(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        return text.replace("e", ".0e")  # YAML 1.1 takes 1e-05 for a word
    return text


_RESERVED = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan"}


def common_text(spec: BundleSpec) -> str:
    """Return `common.yaml`: what training, evaluation and inference agree on.

    Args:
        spec: The bundle.

    Returns:
        YAML.
    """
    names = ", ".join(
        f"{i} {n}" for i, (n, _) in enumerate(spec.labels, spec.outputs - len(spec.labels))
    )
    background = (
        f"0 {spec.first_class}, " if spec.activation == "softmax" else "regions that may overlap: "
    )
    values = [list(v) for _, v in spec.labels]
    reading, label_order = "mask: true}", 1
    if spec.objects:
        labels = "objects: true                 # labels are layers of them: medseg.objects"
        mapping, reading, label_order = "", "objects: true}, dtype: null", 0
    elif spec.activation == "softmax":
        labels = (
            f"label_values: {flow([list(spec.background), *values])}"
            "  # values in label files, class by class"
        )
        ignored = ""
        if spec.ignored:
            labels += (
                f"\nignored_values: {flow(list(spec.ignored))}  # left out; {IGNORED} from here on"
            )
            ignored = " ignored: '@ignored_values',"
        mapping = (
            "- {_target_: medseg.transforms.MapLabelsd, keys: label, classes: '@label_values',"
            f"{ignored} allow_missing_keys: true}}\n"
        )
    else:
        labels = f"region_values: {flow(values)}  # values in label files that a region covers"
        mapping = (
            "- {_target_: medseg.transforms.LabelRegionsd, keys: label, regions: '@region_values',"
            f" known: {flow(list(spec.background))}, allow_missing_keys: true}}\n"
        )
    network = "\n".join(f"  {key}: {flow(value)}" for key, value in spec.network_def.items())
    chosen = _CHOSEN.format(name=spec.network_name) if spec.network_name else ""
    orientation = (
        "- {_target_: Orientationd, keys: '@grid_keys', axcodes: RAS, labels: null}\n"
        if spec.dims == 3
        else ""
    )
    key = spec.spacing_key
    after = "after reorientation to RAS" if spec.dims == 3 else "rows, columns"
    if spec.in_pixels:
        after += "; in pixels of the file, whatever size it states"
    small = spec.outputs <= 256 and not spec.objects
    types = "[float32, uint8]" if small else "[float32, int32]"
    deep = "" if spec.objects else "deep_supervision: false       # train.yaml may switch it on\n"
    return f"""\
# Everything that training, evaluation and inference must agree on, stated once.
# Loaded first:  --config_file "['configs/common.yaml','configs/<train|inference>.yaml']"

{PATHS}

# --- the contract between data and network (units in the name) ---
keys: [image, label]          # inference.yaml narrows this to [image]
grid_keys: '@keys'            # what is reoriented and resampled; evaluate.yaml leaves labels as they are
types: {types}
num_classes: {spec.outputs}                # {background}{names}
{labels}
{key}: {flow(_rounded(spec.spacing))}   # {after}
patch_size: {flow(list(spec.patch_size))}     # voxels at {key}

{deep}{chosen}network_def:
{network}
network: $@network_def.to(@device)

preprocessing_transforms:
- {{_target_: LoadImaged, keys: image, reader: {{_target_: medseg.transforms.ImageReader, channels: {spec.channels}}}}}
- {{_target_: LoadImaged, keys: label, reader: {{_target_: medseg.transforms.ImageReader, {reading}, allow_missing_keys: true}}
- {{_target_: EnsureChannelFirstd, keys: '@keys'}}
{mapping}{orientation}- _target_: medseg.transforms.NormalizeChannelsd
  keys: image
  schemes: {flow([dict(s) for s in spec.schemes])}
- _target_: medseg.transforms.Resampled    # spline orders; coarse_order across the slices of anisotropic images
  keys: '@grid_keys'
  {key}: '@{key}'
  orders: {{image: 3, label: {label_order}}}
  coarse_order: {{image: 0, label: 0}}
- {{_target_: EnsureTyped, keys: '@keys', dtype: '@types'}}
preprocessing: {{_target_: Compose, transforms: '@preprocessing_transforms'}}

inferer: {_inferer(spec)}
checkpoint: {{_target_: CheckpointLoader, load_path: '@ckpt_path', load_dict: {{model: '@network'}}, map_location: '@device'}}
"""


def _inferer(spec: BundleSpec) -> str:
    if spec.objects:
        return (
            f"{{_target_: medseg.inference.objects.ObjectInferer, tile_size: {flow(spec.tile_size)},"
            f" overlap: {spec.tile_overlap}, batch_size: 1}}"
        )
    return (
        "{_target_: SlidingWindowInferer, roi_size: '@patch_size', sw_batch_size: 2,"
        " overlap: 0.5, mode: gaussian}"
    )


_CHOSEN = """\
network_name: {name}    # any of medseg.networks.network_names(): medseg train --set network=NAME
encoder: null                 # of the network, its own default when null
encoder_weights: null         # to start training from: file of a state dict, or imagenet
"""
_TRAINED = "encoder_weights: null         # models/model.pt has them\n"


def train_text(spec: BundleSpec) -> str:
    """Return `train.yaml`, an overlay on `common.yaml`.

    Args:
        spec: The bundle.

    Returns:
        YAML.
    """
    augmentation = "\n".join(f"  - {flow(line)}" for line in augmentation_of(spec))
    deep = "" if spec.objects else f"deep_supervision: {flow(spec.deep)}\n"
    step, more, collate, apart = "TrainingStep", "", "", ""
    if spec.objects:
        step, more, apart = (
            "ObjectStep",
            ", $from medseg.training import stack_layers",
            ", @objects",
        )
        collate = " collate_fn: $stack_layers,"
    foreground = 0.0 if spec.photographs else 0.33
    splits = "null             # five folds are dealt from the sorted ids of the cases"
    if spec.fixed_splits:
        splits = "$@bundle_root + '/configs/splits.json'"
    return f"""\
# Training with validation. Needs common.yaml first.
imports: [$from medseg.data import cases_of_fold, $from medseg.training import set_up, $from medseg.training import useful_workers{more}]
fold: 0
splits_file: {splits}
epochs: {spec.epochs}
iterations_per_epoch: 250
batch_size: {spec.batch_size}                 # over all processes
lr: {0.001 if spec.objects else 0.002}
val_interval: 5               # epochs; twenty times where there is a time budget
patience: null                # validations without a better one before training ends
time_budget_s: null           # then the learning rate falls with the time that is spent
seed: 0
deterministic: false
amp: bf16                     # bf16, fp16 (GPU only) or null
compile: false                # torch.compile: half a minute once, then faster
num_workers: $useful_workers()
{deep}cache_dir: $@bundle_root + '/cache'
log_dir: $@bundle_root + '/logs'
train_cases: $cases_of_fold(@dataset_dir, @splits_file, @fold, 'training'{apart})
val_cases: $cases_of_fold(@dataset_dir, @splits_file, @fold, 'validation'{apart})
loss: {_loss(spec)}
# nnU-Net's: {{_target_: torch.optim.SGD, params: $@network.parameters(), lr: '@lr', momentum: 0.99, nesterov: true, weight_decay: 3.0e-5}}, lr 0.01, shape poly
optimizer: {{_target_: torch.optim.AdamW, params: $@network.parameters(), lr: '@lr', weight_decay: 0.01}}
schedule: {{_target_: medseg.training.Schedule, optimizer: '@optimizer', shape: cosine, warmup: 0.03, iterations: $@epochs * @iterations_per_epoch, time_budget_s: '@time_budget_s'}}
average: {{_target_: medseg.training.WeightAverage, network: '@network', decay: 0.999}}
step: {{_target_: medseg.training.{step}, schedule: '@schedule', average: '@average', amp: '@amp', clip_norm: 12.0, seed: '@seed', compile: '@compile'}}

train:
  source: {{_target_: medseg.data.CachedDataset, data: '@train_cases', transforms: '@preprocessing_transforms', folder: '@cache_dir'}}
  augmentation:
{augmentation}
  dataset: {{_target_: medseg.data.PatchDataset, source: '@train#source', transforms: '@train#augmentation', batch_size: '@batch_size', seed: '@seed', foreground_fraction: {foreground}}}
  sampler: {{_target_: medseg.training.BatchNumbers, batch_size: '@batch_size', iterations: $@epochs * @iterations_per_epoch}}
  dataloader: {{_target_: DataLoader, dataset: '@train#dataset', batch_sampler: '@train#sampler', num_workers: '@num_workers',{collate} worker_init_fn: {{_target_: medseg.training.outlive_signals, _mode_: callable}}, pin_memory: $@device.type == 'cuda'}}
  log: {{_target_: medseg.training.RunLog, folder: '@log_dir', evaluator: '@validate#evaluator', schedule: '@schedule'}}
  validation: {{_target_: medseg.training.Validation, evaluator: '@validate#evaluator', schedule: '@schedule', interval: '@val_interval', patience: '@patience'}}
  checkpoint:                 # all that a resume needs; written every epoch, every ten minutes and on SIGTERM
    _target_: medseg.training.CheckpointKeeper
    path: $@model_dir + '/checkpoint.pt'
    objects: {{network: '@network', optimizer: '@optimizer', schedule: '@schedule', step: '@step', average: '@average', validation: '@train#validation', log: '@train#log', best: '@validate#best'}}
    starts: ['@train#sampler', '@train#log']
  trainer:
    _target_: SupervisedTrainer
    max_epochs: '@epochs'
    epoch_length: '@iterations_per_epoch'
    device: '@device'
    decollate: false
    train_data_loader: '@train#dataloader'
    network: '@network'
    loss_function: '@loss'
    optimizer: '@optimizer'
    iteration_update: '@step'
    train_handlers: ['@train#log', '@train#validation', '@train#checkpoint']

validate:
  dataset: {{_target_: medseg.data.CachedDataset, data: '@val_cases', transforms: '@preprocessing_transforms', folder: '@cache_dir'}}
  dataloader: {{_target_: DataLoader, dataset: '@validate#dataset', batch_size: 1, sampler: {{_target_: medseg.training.ShardSampler, size: $len(@val_cases)}}}}
  best: {{_target_: medseg.training.BestWeightsWriter, path: '@ckpt_path', network: $@average.module}}
  evaluator:
    _target_: SupervisedEvaluator
    device: '@device'
    val_data_loader: '@validate#dataloader'
    network: $@average.module
    inferer: {{_target_: medseg.training.AutocastInferer, enabled: $@amp is not None, inferer: '@inferer'}}
    key_val_metric: {{{_key_metric(spec)}}}
    val_handlers: ['@validate#best']
    decollate: false
initialize: ['$set_up(seed=@seed, deterministic=@deterministic)']
run: [$@train#source.prepare(), $@validate#dataset.prepare(), $@train#trainer.run()]
"""


def _loss(spec: BundleSpec) -> str:
    if spec.objects:
        return "{_target_: medseg.training.SumOfLosses}   # those that the network returns"
    return f"{{_target_: medseg.losses.DeepSupervisionLoss, loss: {_loss_of_pixels(spec)}}}"


def _loss_of_pixels(spec: BundleSpec) -> str:
    if spec.activation == "sigmoid":
        return "{_target_: DiceCELoss, sigmoid: true, batch: true}"
    if spec.ignore_index is None:
        return "{_target_: DiceCELoss, to_onehot_y: true, softmax: true, include_background: false, batch: true}"
    background = str(spec.photographs).lower()
    return (
        "{_target_: medseg.losses.DiceCELoss, "
        f"include_background: {background}, batch: true, ignore_index: {spec.ignore_index}}}"
    )


def _key_metric(spec: BundleSpec) -> str:
    names = [name for name, _ in spec.labels]
    if spec.objects:
        precision = f"{{_target_: medseg.training.ObjectPrecision, names: {flow(names)}}}"
        return f"val_mean_ap50: {precision}"
    if spec.photographs:
        return (
            "val_mean_iou: {_target_: medseg.training.DatasetIoU,"
            f" names: {flow([spec.first_class, *names])}, ignore_index: {spec.ignore_index}}}"
        )
    ignored = "" if spec.ignore_index is None else f", ignore_index: {spec.ignore_index}"
    return (
        "val_mean_dice: {_target_: medseg.training.CaseDice,"
        f" names: {flow(names)}, activation: {spec.activation}{ignored}}}"
    )


def evaluate_text(spec: BundleSpec) -> str:
    """Return `evaluate.yaml`, an overlay on `common.yaml` and `train.yaml`.

    Args:
        spec: The bundle.

    Returns:
        YAML.
    """
    if spec.objects:
        return yaml_objects.EVALUATE.format(metric=_key_metric(spec))
    if spec.activation == "softmax":
        discrete = "{_target_: AsDiscreted, keys: [pred, label], argmax: [true, false], to_onehot: '@num_classes'}"
        background = "false"
    else:
        discrete = "{_target_: AsDiscreted, keys: pred, threshold: 0.0}"
        background = "true"
    metric = f"include_background: {background}, output_transform: '$monai.handlers.from_engine([''pred'', ''label''])'"
    trained = _TRAINED if spec.network_name else ""
    if spec.ignore_index is not None:
        return _EVALUATE_PICTURES.format(metric=_key_metric(spec), trained=trained)
    return f"""\
# Score models/model.pt on the validation cases of the fold, on the grid of their labels.
# Overlay: --config_file "['configs/common.yaml','configs/train.yaml','configs/evaluate.yaml']"
deep_supervision: false
{trained}grid_keys: [image]
validate#dataset: {{_target_: Dataset, data: '@val_cases', transform: '@preprocessing'}}
validate#evaluator#network: '@network'
validate#evaluator#decollate: true
validate#evaluator#postprocessing:
  _target_: Compose
  transforms:
  - {{_target_: Invertd, keys: pred, transform: '@preprocessing', orig_keys: image, nearest_interp: false}}
  - {discrete}
validate#evaluator#key_val_metric: {{val_mean_dice: {{_target_: MeanDice, {metric}}}}}
validate#evaluator#additional_metrics: {{val_hd95_mm: {{_target_: medseg.training.HausdorffDistanceMm, percentile: 95, {metric}}}}}
validate#evaluator#val_handlers:
- '@checkpoint'
- {{_target_: StatsHandler, iteration_log: false}}
- {{_target_: MetricsSaver, save_dir: '@output_dir', metrics: '*', metric_details: '*', batch_transform: '$lambda batch: [item[''image''].meta for item in batch]'}}
initialize: ['$set_up(seed=@seed)']
run: [$@validate#evaluator.run()]
"""


_EVALUATE_PICTURES = """\
# Score models/model.pt on the validation cases of the fold, on the grid of their labels.
# Overlay: --config_file "['configs/common.yaml','configs/train.yaml','configs/evaluate.yaml']"
# `medseg evaluate` gives all scores, tables and pictures.
deep_supervision: false
{trained}grid_keys: [image]
validate#dataset: {{_target_: Dataset, data: '@val_cases', transform: '@preprocessing'}}
validate#evaluator#network: '@network'
validate#evaluator#decollate: true
validate#evaluator#postprocessing: {{_target_: Invertd, keys: pred, transform: '@preprocessing', orig_keys: image, nearest_interp: false}}
validate#evaluator#key_val_metric: {{{metric}}}
validate#evaluator#val_handlers: ['@checkpoint', {{_target_: StatsHandler, iteration_log: false}}]
initialize: ['$set_up(seed=@seed)']
run: [$@validate#evaluator.run()]
"""


def inference_text(spec: BundleSpec) -> str:
    """Return `inference.yaml`, an overlay on `common.yaml`.

    Args:
        spec: The bundle.

    Returns:
        YAML.
    """
    if spec.objects:
        return yaml_objects.INFERENCE.format(names=flow([name for name, _ in spec.labels]))
    regions = spec.activation == "sigmoid"
    values = list(spec.paints) if regions else [spec.background[0], *spec.paints]
    trained = _TRAINED if spec.network_name else ""
    imports, files = "$import glob", "$sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz'))"
    if spec.dims == 2:
        imports = "$from medseg.data import images_in"
        files = "$images_in(@dataset_dir + '/imagesTs', several=False)"
    elif spec.channels > 1:  # case_0000.nii.gz, case_0001.nii.gz, or a 4D file
        imports = "$from medseg.data import images_in"
        files = "$images_in(@dataset_dir + '/imagesTs')"
    return f"""\
# Segment every image of dataset_dir/imagesTs with MONAI alone. Needs common.yaml first.
# `medseg segment` takes network, preprocessing and inferer from here and brings the rest itself.
imports: [{imports}]
keys: [image]
types: [float32]
{trained}datalist: {files}

dataset: {{_target_: Dataset, data: '$[{{''image'': i}} for i in @datalist]', transform: '@preprocessing'}}
dataloader: {{_target_: DataLoader, dataset: '@dataset', batch_size: 1, num_workers: '@num_workers'}}
# from the windows to the mask on the grid of the file: nothing is left to be inverted or decided
mask_inferer: {{_target_: medseg.inference.MaskInferer, inferer: '@inferer', values: {flow(values)}, regions: {str(regions).lower()}}}
postprocessing:
  _target_: Compose
  transforms:
  - {_saving(spec)}
handlers:
- '@checkpoint'
- {{_target_: StatsHandler, iteration_log: false}}
evaluator:
  _target_: SupervisedEvaluator
  device: '@device'
  val_data_loader: '@dataloader'
  network: '@network'
  inferer: '@mask_inferer'
  postprocessing: '@postprocessing'
  val_handlers: '@handlers'

initialize: [$monai.utils.set_determinism(seed=123)]
run: [$@evaluator.run()]
"""


def _saving(spec: BundleSpec) -> str:
    if spec.dims == 2:
        colors = flow([list(color) for color in spec.label_colors])
        return (
            "{_target_: medseg.transforms.SavePaletted, keys: pred, output_dir: '@output_dir',"
            f" colors: {colors}}}"
        )
    dtype = "uint8" if max(spec.paints) <= 255 else "uint16"
    return (
        "{_target_: SaveImaged, keys: pred, output_dir: '@output_dir', output_postfix: seg,"
        f" output_dtype: {dtype}, resample: false, print_log: false}}"
    )


def several_text(spec: BundleSpec) -> str:
    """Return `multi_gpu_train.yaml`, an overlay on `common.yaml` and `train.yaml`.

    Args:
        spec: The bundle.

    Returns:
        YAML.
    """
    stacking = ", $from medseg.training import stack_layers" if spec.objects else ""
    return f"""\
# Train on all GPUs of a node, or in several CPU processes. Needs common.yaml and train.yaml first:
# torchrun --standalone --nproc_per_node=N -m monai.bundle run --config_file "['configs/common.yaml','configs/train.yaml','configs/multi_gpu_train.yaml']"
imports: [$import os, $from medseg.data import cases_of_fold, $from medseg.training import channels_innermost, $from medseg.training import end_process, $from medseg.training import leave_processes, $from medseg.training import set_up, $from medseg.training import useful_workers{stacking}]
has_gpu: $torch.cuda.is_available()
device: "$torch.device('cuda', int(os.environ['LOCAL_RANK'])) if @has_gpu else torch.device('cpu')"
network:
  _target_: torch.nn.parallel.DistributedDataParallel
  module: $channels_innermost(@network_def.to(@device))
  device_ids: '$[@device] if @has_gpu else None'
average#network: $@network.module
train#checkpoint#objects#network: $@network.module
initialize:
- $torch.cuda.set_device(@device) if @has_gpu else None
- "$torch.distributed.init_process_group('nccl' if @has_gpu else 'gloo')"
- $set_up(seed=@seed, deterministic=@deterministic)
finalize: [$leave_processes(), $end_process()]
"""


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 6) for value in values]
