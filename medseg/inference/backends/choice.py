"""Which library runs a network: the fastest that gives what torch gives in float32."""

import logging
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch

from medseg.bundle.export_network import PACKAGES, require_packages
from medseg.bundle.export_parity import Parity, Trial, compare
from medseg.errors import UsageError
from medseg.inference.backends.runners import Kind, Network, Subject, build, require_tensorrt

log = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "compile", "openvino", "onnx", "cudagraph", "tensorrt")
"""What a user can ask for."""

GPU_BACKENDS = ("auto", "torch", "compile", "cudagraph", "tensorrt")
CPU_BACKENDS = ("auto", "torch", "compile", "openvino", "onnx")

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""What a user can ask for; fp16 is for GPUs."""

LEAST_AGREEMENT = 0.999
"""Share of the voxels of the first window that must get the same label as in float32."""

LEAST_FOREGROUND_DICE = 0.99
"""Dice of everything but background, against float32; a small structure weighs little above."""

FEWEST_FOREGROUND_VOXELS = 200
"""With fewer, a single voxel on the edge of a structure decides the Dice above."""

LARGEST_RELATIVE_DIFFERENCE = 0.1
"""Of outputs in half precision, as a share of the largest output: more is not rounding."""

REFUSED_SECONDS = 1e9
"""Noted of a way that cannot be taken: it comes last."""

REFERENCE = Kind("torch", "fp32")


@dataclass(frozen=True)
class Probe:
    """How one way to run a network did on a window.

    Attributes:
        kind: The way.
        seconds: Of one window, once warm; s. NaN where nothing was to be chosen.
        parity: Against float32 in torch; None for that itself.
        foreground_dice: Of all but background, against the same; NaN with too few voxels.
    """

    kind: Kind
    seconds: float
    parity: Parity | None = None
    foreground_dice: float = math.nan

    @property
    def reason_against(self) -> str | None:
        """Say why the way cannot be taken; None where it can."""
        parity = self.parity
        if parity is None:
            return None
        gap = parity.max_abs_difference
        if self.kind.precision == "fp32":
            return None if parity.holds else f"its outputs differ by {gap:.3g} from torch's"
        rounding = LARGEST_RELATIVE_DIFFERENCE * max(1.0, parity.largest_output)
        against = {
            f"its outputs differ by {gap:.3g} from float32": not gap <= rounding,
            f"{parity.label_agreement:.4%} of voxels get the label of float32": (
                parity.label_agreement < LEAST_AGREEMENT
            ),
            f"its structures have Dice {self.foreground_dice:.4f} with those of float32": (
                self.foreground_dice < LEAST_FOREGROUND_DICE
            ),
        }
        return next((reason for reason, holds in against.items() if holds), None)

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        parity = self.parity
        return {
            "backend": self.kind.library,
            "precision": self.kind.precision,
            "window_seconds": None if math.isnan(self.seconds) else self.seconds,
            "max_difference": None if parity is None else parity.max_abs_difference,
            "largest_output": None if parity is None else parity.largest_output,
            "label_agreement": None if parity is None else parity.label_agreement,
            "foreground_dice": None if math.isnan(self.foreground_dice) else self.foreground_dice,
        }


@dataclass(frozen=True)
class Choice:
    """A network ready to run, and why in this way.

    Attributes:
        network: Maps (B, C, *window) to (B, classes, *window); its output is valid until its next
            call.
        probe: How it did.
        refused: Ways that were tried and cannot be taken, and why.
    """

    network: Network
    probe: Probe
    refused: tuple[tuple[Kind, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        refused = [{"backend": str(kind), "reason": reason} for kind, reason in self.refused]
        return {**self.probe.as_json(), "refused": refused}


@dataclass(frozen=True)
class Chooser:
    """Chooses how networks are run.

    Attributes:
        backend: One of `BACKENDS`.
        precision: One of `PRECISIONS`.
        regions: Channels are regions, on where their logit is above 0; not classes.
    """

    backend: str = "auto"
    precision: str = "auto"
    regions: bool = False

    def kinds(self, device: torch.device) -> list[Kind]:
        """Return the ways that are worth a try, the most promising first.

        Args:
            device: That the network is on.

        Returns:
            The ways.

        Raises:
            UsageError: If what is asked for does not run on the device (`bad-backend`).
            DependencyError: If a library that was asked for is not installed.
        """
        gpu = device.type == "cuda"
        if self.backend not in (GPU_BACKENDS if gpu else CPU_BACKENDS):
            where, known = ("a GPU", GPU_BACKENDS) if gpu else ("the CPU", CPU_BACKENDS)
            msg = f"backend must be one of {', '.join(known)} on {where}, got {self.backend}."
            raise UsageError(msg, code="bad-backend")
        if self.backend in PACKAGES:
            require_packages(self.backend)
        if self.backend == "tensorrt":
            require_tensorrt()
        if (self.backend, self.precision) == ("torch", "fp32"):
            return [REFERENCE]
        half = "fp16" if gpu and not torch.cuda.is_bf16_supported() else "bf16"
        precisions = (half, "fp32") if self.precision == "auto" else (self.precision,)
        kinds = [
            Kind(library, precision)
            for library in self._libraries(gpu)
            for precision in precisions
            if (library != "onnx" or precision == "fp32") and (gpu or precision != "fp16")
        ]
        if not kinds:
            where = "a GPU" if gpu else "the CPU"
            msg = f"backend {self.backend} must run {self.precision} on {where}, and does not."
            raise UsageError(msg, code="bad-backend")
        return kinds

    def _libraries(self, gpu: bool) -> Sequence[str]:
        if self.backend not in ("auto", "torch"):
            return (self.backend,)
        if self.backend == "torch" or gpu:
            return ("torch", "channels_last")
        # ONNX Runtime converts for longer and runs slower: only where it is all there is
        installed = [name for name in ("openvino", "onnx") if _is_installed(name)]
        return (*installed[:1], "torch") if installed else ("torch", "channels_last")

    def choose(self, subject: Subject, window: torch.Tensor, kinds: Sequence[Kind] = ()) -> Choice:
        """Choose by a window: every way must agree there with torch in float32.

        What is fastest is measured once for each network on each machine and noted in the store;
        whether it agrees is seen each time.

        Args:
            subject: The network.
            window: (1, C, *window), best one with something to be found in it.
            kinds: Ways to choose among; those of `kinds` when empty.

        Returns:
            The choice; torch in float32 where nothing else can be taken.
        """
        kinds = kinds or self.kinds(window.device)
        reference = build(REFERENCE, subject)
        if list(kinds) == [REFERENCE]:
            return Choice(reference, Probe(REFERENCE, math.nan))
        trial = Trial(window, _output(reference, window).clone())
        topic = f"speed {_conditions(window.device, subject)}"
        noted = subject.store.read(topic) if subject.store is not None else {}
        contest = _Contest(subject, trial, self.regions, noted)
        if all(str(kind) in noted for kind in kinds):
            for kind in sorted(kinds, key=lambda kind: float(noted[str(kind)])):
                if contest.enter(kind):
                    break
        else:
            for kind in kinds:
                contest.enter(kind)
            if subject.store is not None:
                subject.store.note(topic, noted | contest.seconds)
        probe, network = min(
            contest.accepted,
            key=lambda pair: pair[0].seconds,
            default=(Probe(REFERENCE, math.nan), reference),
        )
        return Choice(network, probe, tuple(contest.refused))


class _Contest:
    """Ways to run a network, tried on the same window."""

    def __init__(
        self, subject: Subject, trial: Trial, regions: bool, noted: dict[str, Any]
    ) -> None:
        self.subject = subject
        self.trial = trial
        self.regions = regions
        self.noted = noted
        self.seconds: dict[str, float] = {}
        self.accepted: list[tuple[Probe, Network]] = []
        self.refused: list[tuple[Kind, str]] = []

    def enter(self, kind: Kind) -> bool:
        """Try one way; whether it can be taken."""
        try:
            probe, network = self._probe(kind)
            reason = probe.reason_against
        except Exception as error:  # a library can fail in any way
            log.debug("%s failed", kind, exc_info=True)
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if reason is not None:
            self.refused.append((kind, reason))
            self.seconds[str(kind)] = REFUSED_SECONDS
            return False
        self.accepted.append((probe, network))
        self.seconds[str(kind)] = probe.seconds
        return True

    def _probe(self, kind: Kind) -> tuple[Probe, Network]:
        network = build(kind, self.subject)
        parity, dice = None, math.nan
        if kind != REFERENCE:  # which has run already
            found = _output(network, self.trial.image).clone()
            parity = compare(lambda _: found, [self.trial], regions=self.regions)
            dice = _foreground_dice(found, self.trial.expected, self.regions)
        seconds = self.noted.get(str(kind))
        if seconds is None:
            started = time.perf_counter()
            _output(network, self.trial.image)
            seconds = time.perf_counter() - started
        return Probe(kind, float(seconds), parity, dice), network


def _output(network: Network, window: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        output = network(window).float()
    if output.device.type == "cuda":
        torch.cuda.synchronize(output.device)
    return output


def _foreground_dice(found: torch.Tensor, expected: torch.Tensor, regions: bool) -> float:
    """Return the Dice of all that is not background; NaN where that is next to nothing."""
    if regions:
        a, b = found > 0, expected > 0
        both = a & b
    else:
        labels = found.argmax(dim=1), expected.argmax(dim=1)
        a, b = (one > 0 for one in labels)
        both = a & b & (labels[0] == labels[1])
    total = int(a.sum()) + int(b.sum())
    return 2 * int(both.sum()) / total if total >= 2 * FEWEST_FOREGROUND_VOXELS else math.nan


def _conditions(device: torch.device, subject: Subject) -> str:
    """Return what decides how fast a network runs."""
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    names = [subject.name(Kind(library, "")) for library in ("openvino", "onnx", "torch")]
    return " ".join([machine, str(subject.threads), *names])


def _is_installed(name: str) -> bool:
    return all(find_spec(package) is not None for package in PACKAGES[name])
