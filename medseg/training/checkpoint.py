"""Two kinds of weight file: all that a resume needs, and plain weights for inference."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from torch import nn

from medseg.io.atomic import atomic_path

log = logging.getLogger(__name__)


class CheckpointWriter:
    """Handler of a trainer: writes `checkpoint.pt` after every epoch and resumes from it.

    The file is replaced in one step, so that a killed run leaves the last complete one. Of several
    processes only the first writes; all resume.

    Args:
        path: File to write.
        objects: Name to object with `state_dict` and `load_state_dict`: network, optimizer,
            scheduler, trainer ...
        resume: Load the file before the first iteration if it is there.
    """

    def __init__(self, path: str, objects: Mapping[str, Any], resume: bool = True) -> None:
        self.path = Path(path)
        self.objects = dict(objects)
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: The trainer; its own state is saved and restored too.
        """
        self.objects["trainer"] = engine
        if self.resume and self.path.is_file():
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, thing in self.objects.items():
                thing.load_state_dict(state[name])
            log.info("resumed from %s", self.path)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _write(self) -> None:
        if idist.get_rank() != 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        state = {name: _plain(thing.state_dict()) for name, thing in self.objects.items()}
        with atomic_path(self.path) as partial:
            torch.save(state, partial)


class BestWeightsWriter:
    """Handler of an evaluator: rewrites `model.pt` at each new best validation score.

    Only what inference needs is kept: the deep-supervision heads are left out, and a tensor that
    a network lists under two names (MONAI's DynUNet does) is stored once.

    Args:
        path: File to write.
        network: Network that is validated.
        half: Store in float16: half the size; loading into a float32 network widens it.
    """

    def __init__(self, path: str, network: nn.Module, half: bool = False) -> None:
        self.path = Path(path)
        self.network = network
        self.half = half
        self.best: float | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator that has a key metric.

        Args:
            engine: The evaluator.
        """
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_if_best)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far, for a resume."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the best score of an earlier run.

        Args:
            state: What `state_dict` returned.
        """
        self.best = state["best"]

    def _write_if_best(self, engine: Engine) -> None:
        score = float(engine.state.metrics[engine.state.key_metric_name])
        if self.best is not None and not score > self.best:
            return
        self.best = score
        if idist.get_rank() != 0:
            return
        save_inference_weights(self.network, self.path, half=self.half)
        log.info("new best %.5f: wrote %s", score, self.path)


def save_inference_weights(network: nn.Module, path: Path, *, half: bool = False) -> None:
    """Write the plain weights of a network without its deep-supervision heads.

    Args:
        network: The network.
        path: File to write.
        half: Store floating-point tensors in float16.
    """
    stored: dict[tuple[int, torch.Size], torch.Tensor] = {}
    weights = {}
    for name, tensor in network.state_dict().items():
        if "deep_supervision_heads." in name or ".super_head." in name:
            continue
        key = (tensor.data_ptr(), tensor.shape)
        if key not in stored:
            narrow = half and tensor.is_floating_point()
            stored[key] = (tensor.half() if narrow else tensor).detach().cpu().clone()
        weights[name] = stored[key]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        torch.save(weights, partial)


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    # ignite and torch hand out OrderedDicts and numpy scalars, which weights_only refuses in part
    return {
        name: value.item() if hasattr(value, "item") and not torch.is_tensor(value) else value
        for name, value in state.items()
    }
