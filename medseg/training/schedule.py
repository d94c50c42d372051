"""Learning rate over the share of training that is done, in iterations or in time."""

import math
import time
from collections.abc import Mapping
from typing import Any, Literal

import torch

POLY_POWER = 0.9
"""Exponent of the polynomial decay. Source: nnU-Net, Nature Methods 2021, supplementary note 4."""

Shape = Literal["poly", "cosine"]


class Schedule:
    """Set the learning rate from the share of training that is done.

    The share is that of the iterations or, with a time budget, of the time if that is further. A
    run under a budget thus goes through the whole decay however fast the machine is.

    Args:
        optimizer: Whose learning rates are set; those it has now are the base rates.
        iterations: Iterations of the whole training.
        shape: `poly`: (1 - share)^0.9; `cosine`: half a cosine after the warm-up.
        time_budget_s: Time that the whole training may take, validation included; s.
        warmup: Share of the training in which the rate rises linearly from a hundredth.

    Raises:
        ValueError: If a number is out of range or the shape is unknown.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        iterations: int,
        shape: Shape = "poly",
        time_budget_s: float | None = None,
        warmup: float = 0.0,
    ) -> None:
        if iterations < 1 or (time_budget_s is not None and time_budget_s <= 0):
            msg = (
                "iterations and time_budget_s must be positive,"
                f" got {iterations!r} and {time_budget_s!r}"
            )
            raise ValueError(msg)
        if shape not in ("poly", "cosine") or not 0 <= warmup < 1:
            msg = (
                "shape must be poly or cosine and warmup at least 0 and below 1,"
                f" got {shape!r} and {warmup!r}"
            )
            raise ValueError(msg)
        self.optimizer = optimizer
        self.iterations = iterations
        self.shape = shape
        self.time_budget_s = time_budget_s
        self.warmup = warmup
        self.reserve_s = 0.0
        self._base = [float(group["lr"]) for group in optimizer.param_groups]
        self._earlier_s = 0.0
        self._elapsed_s = 0.0
        self._started: float | None = None
        self._iteration = 0

    def start(self) -> None:
        """Start the clock; time before it does not count, but for that of an earlier run."""
        if self._started is None:
            self._started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Time spent in training so far, earlier runs included; s."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self._earlier_s + running

    @property
    def lr(self) -> float:
        """Learning rate of the first group of parameters."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def share(self) -> float:
        """Share of the training that is done, 0 to 1, as of the last `advance`."""
        of_iterations = self._iteration / self.iterations
        if self.time_budget_s is None:
            return min(1.0, of_iterations)
        # what the last validation will need is not training time
        trainable_s = max(self.time_budget_s - self.reserve_s, 0.05 * self.time_budget_s)
        return min(1.0, max(of_iterations, self._elapsed_s / trainable_s))

    @property
    def finished(self) -> bool:
        """Whether nothing is left but the last validation."""
        return self.share >= 1.0

    def advance(self, iteration: int, elapsed_s: float | None = None) -> None:
        """Set the learning rate for the next iteration.

        Args:
            iteration: Iterations that are done.
            elapsed_s: Time spent; s. Several processes agree on one; the own clock when left out.
        """
        self._iteration = iteration
        self._elapsed_s = self.elapsed_s if elapsed_s is None else elapsed_s
        factor = self.factor(self.share)
        for base, group in zip(self._base, self.optimizer.param_groups, strict=True):
            group["lr"] = base * factor

    def factor(self, share: float) -> float:
        """Return what the base rate is multiplied by.

        Args:
            share: Share of the training that is done, 0 to 1.

        Returns:
            0 to 1.
        """
        if share < self.warmup:
            return 0.01 + 0.99 * share / self.warmup
        rest = (share - self.warmup) / (1 - self.warmup)
        if self.shape == "poly":
            return float((1 - rest) ** POLY_POWER)
        return 0.5 * (1 + math.cos(math.pi * rest))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"elapsed_s": self.elapsed_s, "iteration": self._iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over time and iterations of an earlier run.

        Args:
            state: What `state_dict` returned.
        """
        self._earlier_s = float(state["elapsed_s"])
        self._elapsed_s = self._earlier_s
        self._iteration = int(state["iteration"])
