"""Training on MONAI's engines: what a bundle's train.yaml adds to them."""

from medseg.data.process_end import end_process
from medseg.training.autocast import AutocastInferer
from medseg.training.average import WeightAverage
from medseg.training.case_dice import CaseDice
from medseg.training.checkpoint import BestWeightsWriter, CheckpointKeeper
from medseg.training.dataset_iou import DatasetIoU
from medseg.training.distances import HausdorffDistanceMm
from medseg.training.numbers import BatchNumbers, ShardSampler
from medseg.training.object_precision import ObjectPrecision
from medseg.training.objects import ObjectStep, SumOfLosses, stack_layers
from medseg.training.processes import leave_processes
from medseg.training.run_log import RunLog, TrainingState
from medseg.training.schedule import Schedule
from medseg.training.set_up import set_up, useful_workers
from medseg.training.step import TrainingStep, channels_innermost
from medseg.training.stopping import outlive_signals
from medseg.training.validation import Validation

__all__ = [
    "AutocastInferer",
    "BatchNumbers",
    "BestWeightsWriter",
    "CaseDice",
    "CheckpointKeeper",
    "DatasetIoU",
    "HausdorffDistanceMm",
    "ObjectPrecision",
    "ObjectStep",
    "RunLog",
    "Schedule",
    "ShardSampler",
    "SumOfLosses",
    "TrainingState",
    "TrainingStep",
    "Validation",
    "WeightAverage",
    "channels_innermost",
    "end_process",
    "leave_processes",
    "outlive_signals",
    "set_up",
    "stack_layers",
    "useful_workers",
]
