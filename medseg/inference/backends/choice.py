"""Which library runs a network: the fastest that gives what torch gives in float32."""

import logging
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from medseg.bundle.export_network import PACKAGES, require_packages
from medseg.data.limits import give_back_freed_memory
from medseg.errors import UsageError
from medseg.inference.backends.probe import Demand, Examiner, Probe, output_of, parts_of
from medseg.inference.backends.runners import Kind, Network, Subject, build, require_tensorrt

log = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "compile", "openvino", "onnx", "cudagraph", "tensorrt")
"""What a user can ask for."""

GPU_BACKENDS = ("auto", "torch", "compile", "cudagraph", "tensorrt")
CPU_BACKENDS = ("auto", "torch", "compile", "openvino", "onnx")

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
"""What a user can ask for; fp16 is for GPUs."""

REFUSAL_S = 24 * 3600.0
"""How long it is remembered that a way gave other values; s. What failed is tried each time."""

REFERENCE = Kind("torch", "fp32")

RESHAPED = ("openvino", "torch", "channels_last")
"""Libraries that run windows of another size with what they have of a network."""

CONVERTED = ("openvino", "onnx", "tensorrt")
"""Libraries that run a converted copy of a network."""


@dataclass(frozen=True)
class Choice:
    """A network ready to run, and why in this way.

    Attributes:
        network: Maps (B, C, *window) to (B, classes, *window); its output is valid until its next
            call.
        probe: How it did.
        refused: Ways that were tried and cannot be taken, and why.
        is_final: False where half precision could not be compared on structures, since the window
            had none: another image may decide otherwise.
    """

    network: Network
    probe: Probe
    refused: tuple[tuple[Kind, str], ...] = ()
    is_final: bool = True

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
        demand: What is asked for beyond what a probe asks.
    """

    backend: str = "auto"
    precision: str = "auto"
    regions: bool = False
    demand: Demand = field(default_factory=Demand)

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

    def choose(
        self, subject: Subject, windows: Sequence[torch.Tensor], kinds: Sequence[Kind] = ()
    ) -> Choice:
        """Choose by a window: every way must agree there with torch in float32.

        What is fastest is measured once for each network on each machine and noted in the store;
        whether it agrees is seen each time. Half precision is taken only where structures were
        compared, unless it is asked for.

        Args:
            subject: The network.
            windows: (1, C, *window) each; the first in which something is found decides.
            kinds: Ways to choose among; those of `kinds` when empty.

        Returns:
            The choice; torch in float32 where nothing else can be taken.
        """
        device = windows[0].device
        kinds = kinds or self.kinds(device)
        reference = build(REFERENCE, subject)
        if list(kinds) == [REFERENCE]:
            return Choice(reference, Probe(REFERENCE, math.nan))
        give_back_freed_memory()  # by preprocessing, and by each library that has run
        topic = f"speed {_conditions(device, subject)}, {self._asked}"
        notes = _Notes.of({} if subject.store is None else subject.store.read(topic))
        known = all(notes.seconds(kind) or notes.refusal(kind) for kind in kinds)
        if known and (quick := self._quick(subject, reference, windows, kinds, notes)) is not None:
            return quick
        examiner = Examiner(reference, windows, regions=self.regions)
        contest = self._contest(subject, examiner, notes)
        for kind in sorted(kinds, key=lambda kind: notes.seconds(kind) or 0) if known else kinds:
            give_back_freed_memory()
            if contest.enter(kind) and known:
                break
        if subject.store is not None and not known:
            subject.store.note(topic, notes.kinds)
        give_back_freed_memory()
        probe, network = contest.best or (Probe(REFERENCE, math.nan), reference)
        return Choice(network, probe, tuple(contest.refused), not contest.unproven)

    @property
    def _asked(self) -> str:
        """What is asked of ways: what one demand refuses may be good enough for another."""
        return f"{'any' if self.precision == 'auto' else 'fp32'} by {self.demand}"

    def _contest(self, subject: Subject, examiner: Examiner, notes: "_Notes") -> "_Contest":
        proof = self.precision == "auto"
        return _Contest(subject, examiner, notes, proof=proof, demand=self.demand)

    def _quick(
        self,
        subject: Subject,
        reference: Network,
        windows: Sequence[torch.Tensor],
        kinds: Sequence[Kind],
        notes: "_Notes",
    ) -> Choice | None:
        """Take what was fastest before, if it agrees on parts of large windows; else None.

        It agreed on whole windows when it was measured. Torch in float32 takes gigabytes for a
        large window, and a good part of a minute where there are few cores.
        """
        kind = min(
            (one for one in kinds if notes.seconds(one)),
            key=lambda one: notes.seconds(one) or 0,
            default=REFERENCE,
        )
        several = parts_of(windows)
        if kind.library not in RESHAPED or not several:
            return None
        size = tuple(several[0].shape[1:])
        part = replace(subject, shape=size, traced=subject.traced or subject.shape)
        try:
            examiner = Examiner(reference, several, regions=self.regions)
            contest = self._contest(part, examiner, _Notes(dict(notes.kinds)))
            if not contest.enter(kind) or contest.best is None:
                return None
            probe = contest.best[0]
            del contest, examiner
            give_back_freed_memory()
            network = build(kind, subject)
        except Exception:  # a network need not take other sizes
            log.debug("parts of windows could not be compared", exc_info=True)
            return None
        refused = [(one, notes.refusal(one)) for one in kinds]
        return Choice(
            network, probe, tuple((one, f"{why} (seen before)") for one, why in refused if why)
        )


class _Notes:
    """What earlier processes found out about ways to run a network."""

    def __init__(self, kinds: dict[str, dict[str, Any]]) -> None:
        self.kinds = kinds

    @classmethod
    def of(cls, document: dict[str, Any]) -> "_Notes":
        """Read a note; what is not as it should be is left out."""
        return cls({name: note for name, note in document.items() if isinstance(note, dict)})

    def seconds(self, kind: Kind) -> float | None:
        """Return the time of one window."""
        value = self.kinds.get(str(kind), {}).get("seconds")
        return float(value) if isinstance(value, int | float) else None

    def refusal(self, kind: Kind) -> str | None:
        """Return why a way was not taken lately."""
        note = self.kinds.get(str(kind), {})
        when = note.get("refused_at")
        if not isinstance(when, int | float) or not 0 <= time.time() - when < REFUSAL_S:
            return None
        return str(note.get("reason"))

    def is_new(self, kind: Kind) -> bool:
        """Whether a way was never measured."""
        return self.seconds(kind) is None

    def accept(self, kind: Kind, seconds: float) -> None:
        """Note the time of one window."""
        self.kinds[str(kind)] = {"seconds": seconds}

    def refuse(self, kind: Kind, reason: str) -> None:
        """Note that other values were given."""
        self.kinds[str(kind)] = {"refused_at": time.time(), "reason": reason}


class _Contest:
    """Ways to run a network, tried on the same window; the best so far is kept."""

    def __init__(
        self, subject: Subject, examiner: Examiner, notes: _Notes, *, proof: bool, demand: Demand
    ) -> None:
        self.subject = subject
        self.examiner = examiner
        self.notes = notes
        self.proof = proof
        self.demand = demand
        self.best: tuple[Probe, Network] | None = None
        self.refused: list[tuple[Kind, str]] = []
        self.unproven = False

    def enter(self, kind: Kind) -> bool:
        """Try one way; whether it can be taken."""
        if (noted := self.notes.refusal(kind)) is not None:
            self.refused.append((kind, f"{noted} (seen before)"))
            return False
        try:
            network = build(kind, self.subject)
            probe = self._probed(kind, network)
        except Exception as error:  # a library can fail in any way
            log.debug("%s failed", kind, exc_info=True)
            self.refused.append((kind, f"{type(error).__name__}: {_last_line(error)}"))
            return False
        reason = probe.reason_against
        asked = self.proof or kind.precision == "fp32"
        if reason is None and asked:
            reason = self.demand.reason_against(probe)
        if reason is not None:
            self.notes.refuse(kind, reason)
        elif asked and not self.demand.is_proven(probe):
            self.unproven = True
            reason = (
                "too little was found in the window to compare structures"
                if probe.is_proven
                else "nothing was found in the window, so that structures could not be compared"
            )
        if reason is not None:
            self.refused.append((kind, reason))
            return False
        self.notes.accept(kind, probe.seconds)
        if self.best is None or probe.seconds < self.best[0].seconds:
            self.best = probe, network
        return True

    def _probed(self, kind: Kind, network: Network) -> Probe:
        probe = Probe(kind, math.nan)
        if kind != REFERENCE:  # which has run already
            converted = kind.library in CONVERTED and self.notes.is_new(kind)
            probe = self.examiner.examined(kind, network, converted=converted)
        seconds = self.notes.seconds(kind)
        if seconds is None and probe.reason_against is None:
            started = time.perf_counter()
            output_of(network, self.examiner.trial.image)
            seconds = time.perf_counter() - started
        return replace(probe, seconds=math.nan if seconds is None else seconds)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no message"


def _conditions(device: torch.device, subject: Subject) -> str:
    """Return what decides how fast a network runs."""
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = f"{platform.machine()} {_processor()}"
    names = [subject.name(Kind(library, "")) for library in ("openvino", "onnx", "torch")]
    return " ".join([machine, str(subject.threads), *names])


def _processor() -> str:
    """Return the processor's name, as far as it is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name} {torch.backends.cpu.get_cpu_capability()}"


def _is_installed(name: str) -> bool:
    return all(find_spec(package) is not None for package in PACKAGES[name])
