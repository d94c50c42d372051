"""One fold trained by several processes of this machine, started and watched from here.

`torch.distributed.run` does not hand on SIGUSR1 and ends the others at once when one fails; here
each is left the time for its checkpoint and for its own words.
"""

import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from medseg.data.limits import useful_threads
from medseg.errors import MedsegError, Problem, TrainingError
from medseg.workflows.train_fold import WEIGHTS, FoldJob, FoldResult, Progress, train_fold

FORWARDED = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGUSR1") if hasattr(signal, n))
GRACE_S = 20.0
"""What the others get to end by themselves when one process has failed."""
POLL_S = 0.2
LAST_LINES = 20
"""Of what a process wrote to stderr before it died."""
_LENGTH_BYTES = 8
_START = "from medseg.workflows.launch import serve; serve()"


@dataclass(frozen=True)
class _Answer:
    """What a process left behind.

    Attributes:
        result: Of its training.
        raised: Error with which it could not even be started.
        time_ns: When it was written.
    """

    result: FoldResult | None
    raised: MedsegError | None = None
    time_ns: int = 0

    @property
    def failed(self) -> bool:
        return self.result is None or self.result.status == "failed"


def launch_fold(job: FoldJob, count: int, tell: Progress) -> FoldResult:
    """Train one fold in several processes, and wait for all.

    SIGTERM and SIGUSR1 go on to all of them. When one fails the others are ended, and its own
    error is the result.

    Args:
        job: The fold.
        count: Number of processes.
        tell: Told how far the first of them is.

    Returns:
        What came of it.

    Raises:
        MedsegError: If it could not be started.
    """
    with tempfile.TemporaryDirectory(prefix="medseg-") as name:
        ranks = _Ranks(job, count, Path(name))
        try:
            with _forwarding(ranks.processes) as sent:
                codes = ranks.wait(tell)
            answers = [ranks.answer(number) for number in range(count)]
            problem = _problem(ranks, codes, answers)
        finally:
            ranks.end()
    if any(-code in sent for code in codes):  # asked to stop before there was anything to keep
        return _stopped_early(job)
    raised = next((answer.raised for answer in _by_time(answers) if answer.raised), None)
    if raised is not None and problem is None:
        raise raised
    first = answers[0].result
    if problem is None:
        assert first is not None
        return first
    if first is None:
        raise TrainingError(problem.message, code=problem.code)
    return replace(first, status="failed", error=problem)


def _stopped_early(job: FoldJob) -> FoldResult:
    weights = job.models / WEIGHTS
    return FoldResult(
        fold=job.number,
        status="interrupted",
        iterations=0,
        seconds=0.0,
        best_score=None,
        waiting=0.0,
        weights=weights if weights.is_file() else None,
        logs=job.logs,
    )


def _problem(ranks: "_Ranks", codes: Sequence[int], answers: Sequence[_Answer]) -> Problem | None:
    """Return what went wrong first: a process that died says nothing, the others suffer for it."""
    for number, code in enumerate(codes):
        if answers[number].result is None and answers[number].raised is None:
            if number in ranks.ended_here:
                continue
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            last = ranks.last_line(number) if code > 0 else ""  # Python's own words
            hint = " There may be too little memory." if code == -9 else ""
            message = f"process {number} of {len(codes)} died with {how}.{hint} {last}".strip()
            return Problem("process-died", f"{message} --resume goes on.")
    for answer in _by_time(answers):
        if answer.raised is not None:
            return None
        if answer.result is not None and answer.result.error is not None:
            error = answer.result.error
            number = answers.index(answer)
            return Problem(error.code, f"process {number} of {len(codes)}: {error.message}")
    return None


def _by_time(answers: Sequence[_Answer]) -> list[_Answer]:
    failed = [answer for answer in answers if answer.failed and (answer.raised or answer.result)]
    return sorted(failed, key=lambda answer: answer.time_ns)


class _Ranks:
    """The processes of one fold."""

    def __init__(self, job: FoldJob, count: int, folder: Path) -> None:
        self.folder = folder
        self.ended_here: set[int] = set()
        self.processes: list[subprocess.Popen[bytes]] = []
        self._told: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        payload = pickle.dumps(job)
        common = {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(_threads(count))),
            "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path),  # noqa: PTH100
        }
        try:
            for rank in range(count):
                own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                self.processes.append(self._start(rank, own, payload))
        except BaseException:
            self.end()
            raise

    def _start(self, rank: int, own: dict[str, str], payload: bytes) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", _START, str(self._answer_path(rank))]
        with self._stderr_path(rank).open("wb") as errors:
            process = subprocess.Popen(
                command,
                env={**os.environ, **own},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is this process's matter
            )
        assert process.stdin is not None
        process.stdin.write(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)
        process.stdin.flush()  # left open: its end tells the process that nobody waits any more
        threading.Thread(target=self._listen, args=(rank, process.stdout), daemon=True).start()
        return process

    def _listen(self, rank: int, stream: BinaryIO) -> None:
        for line in stream:
            if rank == 0:
                self._told.put(json.loads(line))

    def wait(self, tell: Progress) -> list[int]:
        """Wait until all have ended; those that others keep waiting are ended.

        Returns:
            Exit codes.
        """
        until = float("inf")
        while any(process.poll() is None for process in self.processes):
            with suppress(queue.Empty):
                tell(*self._told.get(timeout=POLL_S))
            codes = [process.poll() for process in self.processes]
            if any(codes) and until == float("inf"):
                until = time.monotonic() + (0 if self._not_started() else GRACE_S)
            if time.monotonic() > until:
                self.ended_here |= {n for n, code in enumerate(codes) if code is None}
                self.end()
        return [process.wait() for process in self.processes]

    def _not_started(self) -> bool:
        """Whether one has said that it cannot start: the others wait for it in vain."""
        return any(self.answer(number).raised for number in range(len(self.processes)))

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def answer(self, rank: int) -> _Answer:
        """Return what a process left behind; nothing where it died."""
        path = self._answer_path(rank)
        if not path.is_file():
            return _Answer(None)
        kind, *content = pickle.loads(path.read_bytes())  # written by `serve`
        time_ns = path.stat().st_mtime_ns
        if kind == "result":
            return _Answer(content[0], time_ns=time_ns)
        return _Answer(None, content[0](content[1], code=content[2]), time_ns)

    def last_line(self, rank: int) -> str:
        """Return the last words of a process."""
        text = self._stderr_path(rank).read_text(errors="replace").strip()
        lines = [line for line in text.splitlines()[-LAST_LINES:] if line[:1].strip()]
        return f"Its last words: {lines[-1]}" if lines else ""

    def _answer_path(self, rank: int) -> Path:
        return self.folder / f"answer_{rank}"

    def _stderr_path(self, rank: int) -> Path:
        return self.folder / f"stderr_{rank}"


@contextmanager
def _forwarding(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[set[int]]:
    sent: set[int] = set()

    def forward(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        sent.add(int(number))
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield sent
        return
    previous = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        yield sent
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _threads(count: int) -> int:
    return max(1, useful_threads() // count)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve() -> None:
    """Be one of the processes: take a job from stdin, tell the progress on stdout."""
    for number in FORWARDED:  # until torch is there; nothing is lost by leaving now
        signal.signal(number, signal.SIG_DFL)
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not look like progress
    length = int.from_bytes(sys.stdin.buffer.read(_LENGTH_BYTES), "big")
    job = pickle.loads(sys.stdin.buffer.read(length))
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(done: int, total: int, what: str = "") -> None:
        lines.write(json.dumps([done, total, what]) + "\n")

    answer: tuple[Any, ...]
    try:
        result = train_fold(job, tell)
        answer, failed = ("result", result), result.status == "failed"
    except MedsegError as error:
        answer, failed = ("raised", type(error), str(error), error.code), True
    path = Path(sys.argv[1])
    part = path.with_suffix(".part")
    part.write_bytes(pickle.dumps(answer))
    part.replace(path)
    sys.stderr.flush()
    os._exit(int(failed))  # a process that failed must not wait for its peers in torch's clean-up


def _end_with_parent() -> None:
    """Leave when the process that started this one is gone: two trainings must not write one file.

    Its end closes the pipe.
    """
    # not sys.stdin.buffer: a thread that holds its lock would stop the interpreter from ending
    while os.read(0, 1):
        pass
    os._exit(1)
