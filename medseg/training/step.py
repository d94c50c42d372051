"""One iteration of training, for MONAI's SupervisedTrainer."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Literal

import torch
from monai.engines.utils import IterationEvents
from torch import nn

from medseg.errors import TrainingError, UsageError
from medseg.training.average import WeightAverage
from medseg.training.failures import first_line
from medseg.training.processes import gathered, largest, rank, several_processes
from medseg.training.schedule import Schedule
from medseg.training.stopping import STOP

log = logging.getLogger(__name__)

MOST_NON_FINITE = 3
"""Losses in a row that may be NaN or infinite before training stops."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, None: torch.float32}


class TrainingStep:
    """Forward, loss, backward and update, for `SupervisedTrainer(iteration_update=...)`.

    Beside MONAI's own iteration: autocast on a CPU as on a GPU (MONAI 1.6 enters
    `autocast("cuda")` whatever the device), gradient clipping, the learning rate by iteration or
    time, the moving average, random numbers that depend on seed and iteration alone, and losses
    that are not finite.

    Args:
        schedule: Sets the learning rate.
        average: Moving average of the weights; none when left out.
        amp: `bf16`, `fp16` (GPU only), or None for float32.
        clip_norm: Largest norm of the gradient; none when None. Source: nnU-Net uses 12.
        seed: Of what the network draws (dropout).
        channels_last: Keep channels innermost, which most convolutions are faster with.
        compile: Compile the network with `torch.compile`: half a minute once, then faster; left
            out with a warning where it does not work (no C++ compiler, for example).

    Raises:
        UsageError: If `amp` is unknown.
    """

    def __init__(
        self,
        schedule: Schedule,
        average: WeightAverage | None = None,
        amp: Literal["bf16", "fp16"] | None = "bf16",
        clip_norm: float | None = 12.0,
        seed: int = 0,
        channels_last: bool = True,
        compile: bool = False,  # noqa: A002  # torch's word
    ) -> None:
        if amp not in _DTYPES:
            msg = f"amp must be bf16, fp16 or null, got {amp!r}."
            raise UsageError(msg)
        self.schedule = schedule
        self.average = average
        self.amp = amp
        self.clip_norm = clip_norm
        self.seed = seed
        self.channels_last = channels_last
        self.compile = compile
        self._network: Any = None
        scaled = amp == "fp16" and torch.cuda.is_available()
        self.scaler = torch.amp.GradScaler("cuda", enabled=scaled)
        self._bad_cases: list[list[str]] = []

    def __call__(self, engine: Any, batchdata: Mapping[str, Any]) -> dict[str, Any]:
        """Train on one batch.

        Args:
            engine: The trainer, with `network`, `optimizer` and `loss_function`.
            batchdata: `image` (B, C, *spatial), `label` (B, C, *spatial) and `case`, B ids.

        Returns:
            `loss` as a number on the CPU; NaN where the step was left out.

        Raises:
            TrainingError: If three losses in a row are not finite (`non-finite-loss`).
        """
        device = engine.state.device
        self._check_device(device)
        iteration = engine.state.iteration - 1
        self._agree_on_time(iteration, device)
        image = _plain(batchdata["image"]).to(device, non_blocking=True)
        label = _plain(batchdata["label"]).to(device, non_blocking=True)
        engine.state.output = {"image": image, "label": label}
        if self._network is None:
            self._prepare(engine)
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(engine, iteration)
        bad = largest([float(not torch.isfinite(loss.detach()).item())], device)[0] > 0
        if not bad:
            bad = not self._backward_and_update(engine, loss)
        self._watch(bad, batchdata, iteration)
        STOP.agree(device)
        engine.state.output["loss"] = float("nan") if bad else loss.detach().item()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return {"loss": engine.state.output["loss"]}

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an earlier run.

        Args:
            state: What `state_dict` returned.
        """
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])

    def _check_device(self, device: torch.device) -> None:
        if self.amp == "fp16" and device.type != "cuda":
            msg = f"amp must be bf16 or null on {device.type}, got 'fp16'. Use --set amp=bf16."
            raise UsageError(msg)

    def _agree_on_time(self, iteration: int, device: torch.device) -> None:
        elapsed_s = self.schedule.elapsed_s
        if several_processes() and self.schedule.time_budget_s is not None:
            elapsed_s = largest([elapsed_s], device)[0]
        self.schedule.advance(iteration, elapsed_s)

    def _prepare(self, engine: Any) -> None:
        self._network = engine.network
        if self.channels_last:
            # DistributedDataParallel has laid out its gradients by then
            if not isinstance(engine.network, nn.parallel.DistributedDataParallel):
                channels_innermost(engine.network)
            if self.average is not None:
                channels_innermost(self.average.module)
        if self.compile:
            self._network = torch.compile(engine.network)

    def _loss(self, engine: Any, iteration: int) -> torch.Tensor:
        try:
            return self._forward(engine, iteration)
        except Exception as error:
            if self._network is engine.network:
                raise
            log.warning("the network cannot be compiled and runs as it is: %s", first_line(error))
            self._network = engine.network
            return self._forward(engine, iteration)

    def _forward(self, engine: Any, iteration: int) -> torch.Tensor:
        image, label = engine.state.output["image"], engine.state.output["label"]
        if self.channels_last:
            image = image.to(memory_format=_memory_format(image))
        device = image.device
        devices = [device] if device.type == "cuda" else []
        half = torch.autocast(device.type, dtype=_DTYPES[self.amp]) if self.amp else nullcontext()
        with torch.random.fork_rng(devices=devices):
            # a resumed run draws what an uninterrupted one would: no state is carried along
            torch.manual_seed((self.seed * 1_000_003 + iteration) * 4096 + rank())
            with half:
                pred = self.predict(self._network, image, label)
        engine.state.output["pred"] = pred
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        loss: torch.Tensor = engine.loss_function(pred, label).mean()
        engine.state.output["loss"] = loss
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        return loss

    def predict(self, network: Any, image: torch.Tensor, label: torch.Tensor) -> Any:  # noqa: ARG002
        """Return what the loss is computed of; to be replaced where a network needs more.

        Args:
            network: As it is trained.
            image: (B, C, *spatial).
            label: Of the batch.

        Returns:
            Its prediction.
        """
        return network(image)

    def _backward_and_update(self, engine: Any, loss: torch.Tensor) -> bool:
        """Return whether the gradient was finite, or the scaler deals with it."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if self.clip_norm is not None:
            self.scaler.unscale_(engine.optimizer)
            norm = nn.utils.clip_grad_norm_(engine.network.parameters(), self.clip_norm)
            # under fp16 the scaler leaves out such a step itself and lowers its factor
            if not self.scaler.is_enabled() and not torch.isfinite(norm):
                return False
        self.scaler.step(engine.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        return True

    def _watch(self, bad: bool, batchdata: Mapping[str, Any], iteration: int) -> None:
        if not bad:
            self._bad_cases.clear()
            return
        own = [str(case) for case in batchdata.get("case", ())]
        cases = sorted({case for cases in gathered(own) for case in cases})
        log.warning("iteration %d left out: loss or gradient not finite (%s)", iteration + 1, cases)
        self._bad_cases.append(cases)
        if len(self._bad_cases) >= MOST_NON_FINITE:
            listed = "; ".join(", ".join(cases) for cases in self._bad_cases)
            msg = (
                f"loss must be finite, got {MOST_NON_FINITE} in a row that are not, the last at"
                f" iteration {iteration + 1}. Look at these cases, or lower the learning rate with"
                f" --set lr=...: {listed}."
            )
            raise TrainingError(msg, code="non-finite-loss")


def _memory_format(tensor: torch.Tensor) -> torch.memory_format:
    return torch.channels_last_3d if tensor.ndim == 5 else torch.channels_last


def channels_innermost(network: nn.Module) -> nn.Module:
    """Lay the weights of convolutions out channels last; values stay.

    A network that is to be wrapped in `DistributedDataParallel` needs it before: gradients of
    another layout than the one it finds are copied into the wrong places.

    Args:
        network: Changed in place.

    Returns:
        The same network.
    """
    for parameter in network.parameters():
        if parameter.ndim in (4, 5):
            layout = _memory_format(parameter)
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without MONAI's metadata, which every operation would carry along."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
