"""Fill a cache in several processes, also from a script without `if __name__ == "__main__"`."""

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from medseg.data.limits import useful_threads
from medseg.data.ranks import processes_of_this_machine
from medseg.errors import MedsegError, OutputError

_LENGTH_BYTES = 8
_WORTH_STARTING_S = 20.0  # a process needs about five seconds to import what it runs
_ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ),
    "1",
)
_START = "from medseg.data.prepare import serve; serve()"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Failure:
    """A case that could not be preprocessed.

    Attributes:
        index: Position in the data.
        code: Of the error.
        message: Names the case and the cause.
        is_output: Whether it could not be written, rather than read.
    """

    index: int
    code: str
    message: str
    is_output: bool = False

    @classmethod
    def of(cls, index: int, error: MedsegError) -> "Failure":
        """Make the record of an error.

        Args:
            index: Position in the data.
            error: What was raised.

        Returns:
            The record.
        """
        return cls(index, error.code, str(error), isinstance(error, OutputError))

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON."""
        return asdict(self)


class Preparable(Protocol):
    """What `fill` needs of a dataset; it is pickled for the other processes."""

    data: list[dict[str, Any]]
    workers: int | None

    @property
    def portable(self) -> bool:
        """Whether another process can import all that it is made of."""

    def entry(self, index: int) -> Any:
        """Return what is there of a case, or None."""

    def prepare_case(self, index: int) -> Any:
        """Make it."""


def fill(
    dataset: Preparable,
    indices: Sequence[int],
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> list[Failure]:
    """Preprocess cases, and go on after those that fail.

    Without a number of workers it starts in this process, and takes others once the rest of the
    work is worth starting them.

    Args:
        dataset: The dataset.
        indices: Cases to do.
        progress: Called with the cases done and their total.
        stop: Asked after each case whether to leave the rest.

    Returns:
        The cases that failed.
    """
    turn = os.getpid() % max(1, len(indices))  # two processes at once start at different cases
    todo = [*indices[turn:], *indices[:turn]]
    report = progress or (lambda done, total: None)  # noqa: ARG005
    report(0, len(todo))
    workers = min(dataset.workers or _cores(), len(todo))
    if not dataset.portable or workers < 2:
        return _fill_here(dataset, todo, report, float("inf"), stop)[0]
    worth_s = _WORTH_STARTING_S if dataset.workers is None else -1.0
    failures, done = _fill_here(dataset, todo, report, worth_s, stop)
    if done == len(todo):
        return failures
    with closing(_Pool(dataset, todo[done:]).run(workers)) as results:
        for number, failure in enumerate(results, start=done + 1):
            failures += [failure] if failure else []
            if (failure and failure.is_output) or stop():  # a full disk fails every other case too
                break
            report(number, len(todo))
    return failures


def _cores() -> int:
    return max(1, useful_threads() // processes_of_this_machine())


def _fill_here(
    dataset: Preparable,
    todo: Sequence[int],
    report: Progress,
    worth_s: float,
    stop: Callable[[], bool],
) -> tuple[list[Failure], int]:
    """Do cases in this process until the rest would take longer than `worth_s` seconds."""
    failures: list[Failure] = []
    start_s = time.monotonic()
    for done in range(len(todo)):
        spent_s = time.monotonic() - start_s
        if worth_s < 0 or (done and spent_s / done * (len(todo) - done) > worth_s):
            return failures, done
        failure = _do(dataset, todo[done])
        failures += [failure] if failure else []
        if (failure and failure.is_output) or stop():  # a full disk fails every other case too
            break
        report(done + 1, len(todo))
    return failures, len(todo)


def _do(dataset: Preparable, index: int) -> Failure | None:
    try:
        if dataset.entry(index) is None:  # another process may have made it meanwhile
            dataset.prepare_case(index)
    except MedsegError as error:
        return Failure.of(index, error)
    return None


class _Pool:
    """Processes that preprocess cases one by one, as they are told.

    multiprocessing would import the caller's script again in each of them, and run it where it
    has no guard; these import medseg alone.
    """

    def __init__(self, dataset: Preparable, todo: Sequence[int]) -> None:
        self._payload = pickle.dumps(dataset)
        self._names = {index: dataset.data[index]["case"] for index in todo}
        self._todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[Failure | None] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ended = threading.Event()
        for index in todo:
            self._todo.put(index)

    def run(self, workers: int) -> Generator[Failure | None, None, None]:
        """Yield a failure or None for each case, as they come."""
        threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            for _ in self._names:
                yield self._results.get()
        finally:
            self._ended.set()
            for process in self._processes:
                process.kill()  # only one that is still at work, when the caller was interrupted
            for thread in threads:
                thread.join()

    def _feed(self) -> None:
        """Keep one process busy, and start another one when it dies."""
        process: subprocess.Popen[bytes] | None = None
        for index in self._remaining():
            process = process or self._start()
            answer = self._ask(process, index)
            if answer is None:
                code = _close(process)
                process = None
                self._results.put(self._death(index, code))
                if code > 0:  # it came to no answer on its own: the next one would not either
                    for other in self._remaining():
                        self._results.put(self._death(other, code))
            else:
                error = answer["failure"]
                self._results.put(Failure(**error) if error else None)
        if process is not None:
            _close(process)

    def _remaining(self) -> Iterator[int]:
        while not self._ended.is_set():
            try:
                yield self._todo.get_nowait()
            except queue.Empty:
                return

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": path},
        )
        self._processes.append(process)
        return process

    def _ask(self, process: subprocess.Popen[bytes], index: int) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if not getattr(process, "told", False):
                process.stdin.write(len(self._payload).to_bytes(_LENGTH_BYTES, "big"))
                process.stdin.write(self._payload)
                process.told = True  # type: ignore[attr-defined]
            process.stdin.write(b"%d\n" % index)
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # the pipe of a process that died
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def _death(self, index: int, code: int) -> Failure:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        hint = " There may be too little memory: use fewer workers." if code == -9 else ""
        message = f"case {self._names[index]}: the process preprocessing it ended with {how}.{hint}"
        return Failure(index, "worker-died", message)


def _close(process: subprocess.Popen[bytes]) -> int:
    for stream in (process.stdin, process.stdout):
        try:
            if stream is not None:
                stream.close()
        except OSError:  # what was left to write to a dead process
            continue
    return process.wait()


def serve() -> None:
    """Be one of the processes: take a dataset and indices from stdin, answer on stdout."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends this
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    requests = sys.stdin.buffer
    length = int.from_bytes(requests.read(_LENGTH_BYTES), "big")
    dataset = pickle.loads(requests.read(length))
    for line in requests:
        failure = _do(dataset, int(line))
        answers.write(json.dumps({"failure": failure.as_json() if failure else None}).encode())
        answers.write(b"\n")
        answers.flush()
