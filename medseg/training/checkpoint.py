"""Two kinds of weight file: all that a resume needs, and plain weights for inference."""

import errno
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from medseg.errors import OutputError, TrainingError
from medseg.io.atomic import atomic_path, output_errors, remove_left_parts
from medseg.training.failures import first_line
from medseg.training.processes import rank
from medseg.training.randomness import random_states, set_random_states
from medseg.training.stopping import STOP

log = logging.getLogger(__name__)

PARTS = {"iteration", "objects", "random"}
"""What a checkpoint holds."""

LEAST_FREE_BYTES = 2**20
"""A disk with less than this is taken for full when writing fails."""


class CheckpointKeeper:
    """Handler of a trainer: writes `checkpoint.pt` as it goes, and resumes from it.

    It is written at the end of an epoch, every few minutes, when the process is asked to stop
    (SIGTERM, SIGUSR1), and at the end. The file is replaced in one step and the one before it kept
    as `checkpoint_previous.pt`: a run killed at any moment leaves a complete one, and a damaged
    file is not the end. Of several processes only the first writes; all resume.

    Attach it last: what the other handlers hold is then up to date.

    Args:
        path: File to write.
        objects: Name to object with `state_dict` and `load_state_dict`: network, optimizer,
            schedule ...
        starts: Objects with `start_at(iteration)`: the sampler, the log.
        every_minutes: Between two checkpoints within an epoch.
        resume: Load the file before the first iteration if it is there.
    """

    def __init__(
        self,
        path: str,
        objects: Mapping[str, Any],
        starts: Sequence[Any] = (),
        every_minutes: float = 10.0,
        resume: bool = True,
    ) -> None:
        self.path = Path(path)
        self.objects = dict(objects)
        self.starts = tuple(starts)
        self.every_s = 60.0 * every_minutes
        self.resume = resume
        self._damaged = False
        self._written_at = -1
        self._resumed_at = 0
        self._last = 0.0

    @property
    def previous(self) -> Path:
        """The checkpoint before the last."""
        return self.path.with_stem(f"{self.path.stem}_previous")

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, and load its checkpoint if there is one.

        Args:
            engine: The trainer; its iteration is saved and restored too.

        Raises:
            TrainingError: If the checkpoint is of another network or plan
                (`checkpoint-mismatch`), or no checkpoint that is there can be read
                (`bad-checkpoint`).
        """
        if rank() == 0 and self.path.parent.is_dir():
            remove_left_parts(self.path.parent)
        if self.resume:
            state = self._read()
            if state is not None:
                self._restore(engine, state)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_or_warn)
        engine.add_event_handler(Events.COMPLETED, self._complete)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._give_up)

    def _read(self) -> dict[str, Any] | None:
        there = [path for path in (self.path, self.previous) if path.is_file()]
        for path in there:
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                if not set(state) >= PARTS:
                    msg = f"no {', '.join(sorted(PARTS - set(state)))}"
                    raise ValueError(msg)  # as any other damage
            except Exception as error:  # noqa: BLE001  # torch raises several kinds
                log.warning("%s cannot be read (%s)", path.name, first_line(error))
                self._damaged = self._damaged or path == self.path
                continue
            log.info("resumed from %s, iteration %d", path.name, state["iteration"])
            return state
        if there:
            names = " and ".join(path.name for path in there)
            msg = f"checkpoint must be readable, got damaged {names}. Train anew with --overwrite."
            raise TrainingError(msg, code="bad-checkpoint")
        return None

    def _restore(self, engine: Engine, state: Mapping[str, Any]) -> None:
        missing = sorted(set(self.objects) ^ set(state["objects"]))
        try:
            for name, thing in self.objects.items():
                _load(thing, state["objects"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            parts = f" (parts that one of them lacks: {', '.join(missing)})" if missing else ""
            msg = (
                f"checkpoint must be of this bundle, got one that does not fit{parts}:"
                f" {first_line(error)} Train anew with --overwrite."
            )
            raise TrainingError(msg, code="checkpoint-mismatch") from error
        iteration = int(state["iteration"])
        engine.state.iteration = iteration
        engine.state.epoch = iteration // engine.state.epoch_length
        for thing in self.starts:
            thing.start_at(iteration)
        set_random_states(state["random"])
        self._written_at = self._resumed_at = iteration

    def _start(self, engine: Engine) -> None:
        self._last = time.monotonic()
        STOP.listen()
        if engine.state.iteration != self._resumed_at:
            # ignite starts a training that is complete from the beginning
            engine.state.iteration = self._resumed_at
            engine.state.epoch = self._resumed_at // engine.state.epoch_length
            engine.terminate()

    def _after_iteration(self, engine: Engine) -> None:
        if STOP.wanted:
            self._write(engine)
            log.info("asked to stop: checkpoint written at iteration %d", engine.state.iteration)
            engine.terminate()
        elif time.monotonic() - self._last > self.every_s:
            self._write_or_warn(engine)

    def _complete(self, engine: Engine) -> None:
        STOP.ignore()
        self._write(engine)

    def _give_up(self, engine: Engine, error: BaseException) -> None:  # noqa: ARG002
        STOP.ignore()
        raise error

    def _write_or_warn(self, engine: Engine) -> None:
        """Write; a disk that is full for a while is no reason to lose a training."""
        try:
            self._write(engine)
        except OutputError as error:
            log.warning("no checkpoint at iteration %d: %s", engine.state.iteration, error)
            self._last = time.monotonic()

    def _write(self, engine: Engine) -> None:
        self._last = time.monotonic()
        if rank() != 0:
            return
        state = {
            "iteration": engine.state.iteration,
            "objects": {name: _plain(thing.state_dict()) for name, thing in self.objects.items()},
            "random": random_states(),
        }
        with output_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.path, sync=True) as partial:
            save(state, partial)
            newer = engine.state.iteration != self._written_at
            if self.path.is_file() and newer and not self._damaged:
                self.path.replace(self.previous)
        self._damaged = False
        self._written_at = engine.state.iteration


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
        if math.isnan(score) and self.best is None and not self.path.is_file():
            log.warning("no validation case holds a label: %s has no score", self.path.name)
        elif math.isnan(score) or (self.best is not None and score <= self.best):
            return
        else:
            self.best = score
        if rank() != 0:
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
        save(weights, partial)


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values with torch, a full disk being an `OSError`.

    torch's writer raises a `RuntimeError` that names a line of C++ instead.

    Args:
        state: What to write.
        path: File to write.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        torch.save(state, path)
    except RuntimeError as error:
        full = shutil.disk_usage(path.parent).free < LEAST_FREE_BYTES
        raise OSError(errno.ENOSPC if full else errno.EIO, first_line(error)) from error


def _load(thing: Any, state: Mapping[str, Any]) -> None:
    """Load a state; of an optimizer its moments, while its settings stay those of the configs."""
    if not isinstance(thing, torch.optim.Optimizer):
        thing.load_state_dict(state)
        return
    own = [{k: v for k, v in g.items() if k != "params"} for g in thing.param_groups]
    for mine, other in zip(own, state["param_groups"], strict=True):
        strange = sorted(set(mine) ^ (set(other) - {"params"}))
        if strange:
            msg = f"the optimizer is another one: {', '.join(strange)}."
            raise ValueError(msg)
    thing.load_state_dict(dict(state))
    for group, mine in zip(thing.param_groups, own, strict=True):
        group.update(mine)


def _plain(state: Mapping[str, Any]) -> dict[str, Any]:
    # ignite and torch hand out OrderedDicts and numpy scalars, which weights_only refuses in part
    return {
        name: value.item() if hasattr(value, "item") and not torch.is_tensor(value) else value
        for name, value in state.items()
    }
