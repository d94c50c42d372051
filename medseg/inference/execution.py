"""How networks are run on this machine: library, precision, memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medseg.bundle.build import InferenceParts
from medseg.bundle.find import cache_folder
from medseg.data.limits import useful_threads
from medseg.errors import UsageError
from medseg.inference.backends import BACKENDS, PRECISIONS, REFERENCE, Choice, Chooser, Subject
from medseg.inference.backends.runners import Network
from medseg.inference.backends.store import ModelStore
from medseg.inference.memory import Load, activation_bytes, free_bytes, free_gpu_bytes
from medseg.inference.tta import mirrored
from medseg.inference.windows import Windows

MOST_SHAPES = 2
"""Sizes of windows that networks are kept ready for; further sizes are run by torch."""

LIBRARY_BYTES = 200 << 20
"""Memory that OpenVINO takes beside a network, about."""

MOST_ATTEMPTS = 8
"""Images on which half precision is tried, where nothing was found in those before."""


@dataclass(frozen=True)
class Execution:
    """How networks are run.

    Attributes:
        backend: `auto` takes the fastest that agrees with torch in float32; or `torch`, `compile`
            (torch.compile), `openvino`, `onnx`, and on a GPU `cudagraph`, `tensorrt`.
        precision: `auto`, `fp32`, `bf16`, or `fp16` on a GPU.
        skip_empty: Run a network once for all windows of the same one value.
        memory_gb: Memory that a case may take, GiB; what is free when None.
        cache: Folder of converted networks; None to convert them in each process.
    """

    backend: str = "auto"
    precision: str = "auto"
    skip_empty: bool = True
    memory_gb: float | None = None
    cache: Path | None = field(default_factory=lambda: cache_folder() / "networks")

    def __post_init__(self) -> None:
        for name, value, known in (
            ("backend", self.backend, BACKENDS),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                msg = f"{name} must be among {', '.join(known)}, got {value!r}."
                raise UsageError(msg)
        if self.memory_gb is not None and not self.memory_gb > 0:
            msg = f"memory_gb must be above 0, got {self.memory_gb!r}."
            raise UsageError(msg)

    def budget_bytes(self, device: torch.device) -> tuple[int, int | None]:
        """Return the memory that a case may take.

        Args:
            device: That networks run on.

        Returns:
            Bytes of the computer, and of the GPU or None; a budget given by hand is that of the
            GPU where there is one.
        """
        own, gpu = free_bytes(), free_gpu_bytes(device)
        if self.memory_gb is None:
            return own, gpu
        given = int(self.memory_gb * (1 << 30))
        return (given, None) if gpu is None else (own, min(given, gpu))


class Networks:
    """The networks of one bundle; the way they are run is chosen on the first window.

    Args:
        parts: Of each weight file.
        device: That they are on.
        chooser: Chooses.
        execution: How they are run.
        tta: Average over mirrorings.
        mirror_axes: Spatial axes that are mirrored; all when None.
    """

    def __init__(
        self,
        parts: Sequence[InferenceParts],
        device: torch.device,
        chooser: Chooser,
        execution: Execution,
        *,
        tta: bool = False,
        mirror_axes: Sequence[int] | None = None,
    ) -> None:
        self.parts = parts
        self.device = device
        self.chooser = chooser
        self.store = ModelStore(execution.cache)
        self.tta = tta
        self.mirror_axes = mirror_axes
        self.seconds = 0.0
        self._attempts = 0
        self._shapes: set[tuple[int, ...]] = set()
        self._choices: dict[tuple[int, ...], list[Choice]] = {}
        self._activations: dict[tuple[int, ...], int] = {}

    def load(self, windows: Windows, channels: int, outputs: int) -> Load:
        """Return what is asked of them for one case.

        Args:
            windows: Where windows lie.
            channels: Of the image.
            outputs: Class maps.

        Returns:
            What is asked.
        """
        shape = (channels, *windows.size)
        if shape not in self._activations:
            self._activations[shape] = self._foreseen_activations(shape)
        libraries = 0
        if shape not in self._choices:  # weights of the networks that are compared
            weights = sum(p.numel() * p.element_size() for p in self.parts[0].network.parameters())
            libraries = LIBRARY_BYTES + 2 * weights * len(self.parts)
        return Load(
            windows,
            channels,
            outputs,
            len(self.parts),
            self._activations[shape],
            tta=self.tta,
            libraries=libraries,
        )

    def _foreseen_activations(self, shape: tuple[int, ...]) -> int:
        """Return `activation_bytes`, noted for later processes: torch imports much to answer."""
        part = self.parts[0]
        name = f"activations of {part.key} for {shape}, torch {torch.__version__}"
        known = self.store.read(name).get("bytes") if part.key else None
        if isinstance(known, int) and known > 0:
            return known
        found = activation_bytes(part.network, shape)
        if found and part.key:
            self.store.note(name, {"bytes": found})
        return found

    def ready(self, image: torch.Tensor, windows: Windows) -> list[Network]:
        """Return the networks, each ready to run; the first call for a size of window chooses.

        Args:
            image: (C, *spatial).
            windows: Where windows lie.

        Returns:
            One a weight file: maps (B, C, *window) to (B, classes, *window).
        """
        shape = (len(image), *windows.size)
        known = self._choices.get(shape, [])
        if not known or (
            self._attempts < MOST_ATTEMPTS and not all(choice.is_final for choice in known)
        ):
            started = time.perf_counter()
            self._attempts = self._attempts + 1 if known else 1
            probed = [window.to(self.device) for window in windows.liveliest(image)]
            self._choices.pop(shape, None)
            while len(self._choices) >= MOST_SHAPES:  # compiled networks take memory
                self._choices.pop(next(iter(self._choices)))
            self._choices[shape] = self._chosen(shape, probed)
            self._shapes.add(shape)
            self.seconds += time.perf_counter() - started
        networks = [choice.network for choice in self._choices[shape]]
        return [self.augmented(network) for network in networks]

    def augmented(self, network: Network) -> Network:
        """Return a network averaged over mirrorings, if that is asked for.

        Args:
            network: Maps (B, C, *window) to (B, classes, *window).
        """
        return mirrored(network, self.mirror_axes) if self.tta else network

    def _chosen(self, shape: tuple[int, ...], windows: Sequence[torch.Tensor]) -> list[Choice]:
        threads = useful_threads() if self.device.type == "cpu" else None
        choices: list[Choice] = []
        for part in self.parts:
            subject = Subject(part.network, shape, part.key, self.store, threads)
            kinds = [choices[0].probe.kind] if choices else []
            if len(self._shapes) > MOST_SHAPES:  # each image is a window of its own
                kinds = [REFERENCE]
            choices.append(self.chooser.choose(subject, windows, kinds))
        return choices

    def as_json(self) -> list[dict[str, Any]]:
        """Return how each network is run, of the last size of window."""
        choices = list(self._choices.values())
        return [choice.as_json() for choice in choices[-1]] if choices else []
