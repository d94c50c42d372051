"""SIGTERM and SIGUSR1: finish the iteration, write a checkpoint, leave with exit code 0."""

import signal
import threading
from types import FrameType
from typing import Any

import torch

from medseg.training.processes import largest, several_processes

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class StopRequest:
    """Whether the process was asked to stop; a scheduler gives a minute or two for it."""

    def __init__(self) -> None:
        self._asked = False
        self._agreed = False
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def wanted(self) -> bool:
        """Whether to stop; of several processes, whether all know of it."""
        return self._agreed if several_processes() else self._asked

    @property
    def asked(self) -> bool:
        """Whether this process was asked, whatever the others know."""
        return self._asked

    def listen(self) -> None:
        """Take note of the signals from here on; does nothing outside the main thread."""
        if self._previous:
            return
        self._asked = self._agreed = False
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)

    def ignore(self) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def agree(self, device: torch.device) -> None:
        """Tell all processes what one of them was told; every process must call it.

        Args:
            device: Device of this process.
        """
        if several_processes():
            self._agreed = largest([float(self._asked)], device)[0] > 0

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._asked = True


STOP = StopRequest()
"""Signals reach a process, not an object: there is one request a process."""


def outlive_signals(worker: int) -> None:  # noqa: ARG001  # torch's signature
    """Keep a data loader's process alive when a scheduler signals all processes of a job at once.

    The training still needs its samples until it has come to the end of the iteration. A second
    SIGTERM ends the process: torch and Python send one when they clean up.

    Args:
        worker: Number of the process; not used.
    """

    def once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        signal.signal(number, signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, once if number == signal.SIGTERM else signal.SIG_IGN)
