"""Exponential moving average of a network's weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class WeightAverage:
    """Average the weights of a network over its last iterations.

    The decay grows with the number of updates, (1 + n) / (10 + n) up to `decay`, so that a short
    training is not judged by its random start.

    Args:
        network: Network that is trained; not a wrapper of several processes.
        decay: Share of the old average that an update keeps, 0 (no averaging) to below 1.

    Raises:
        ValueError: If the decay is out of range.

    Source:
        Tarvainen and Valpola, Mean teachers, NeurIPS 2017; the growing decay is TensorFlow's
        `ExponentialMovingAverage(num_updates)`.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            msg = f"decay must be at least 0 and below 1, got {decay!r}"
            raise ValueError(msg)
        self.decay = decay
        self._network = network
        self._updates = 0
        self._averaged = AveragedModel(network, multi_avg_fn=self._mix)
        self._averaged.eval()
        self._averaged.requires_grad_(requires_grad=False)

    @property
    def module(self) -> nn.Module:
        """The averaged network, in evaluation mode."""
        return self._averaged.module

    def update(self) -> None:
        """Take in the weights as they are; the first time they are copied."""
        self._averaged.update_parameters(self._network)
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"updates": self._updates, "averaged": self._averaged.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the average of an earlier run.

        Args:
            state: What `state_dict` returned.
        """
        self._updates = int(state["updates"])
        self._averaged.load_state_dict(state["averaged"])

    def _mix(
        self,
        averaged: Sequence[torch.Tensor],
        current: Sequence[torch.Tensor],
        number: torch.Tensor | int,  # noqa: ARG002  # torch's signature
    ) -> None:
        keep = min(self.decay, (1 + self._updates) / (10 + self._updates))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged), list(current), 1 - keep)  # as torch's own does
