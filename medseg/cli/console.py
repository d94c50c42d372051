"""What commands say: documents on stdout, everything else on stderr."""

import contextlib
import ctypes
import io
import json
import logging
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medseg.errors import MedsegError

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

SCHEMA = 1
"""Version of the JSON documents."""

DONE = 0
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130

PROGRESS_AFTER_S = 2.0
"""Work shorter than this shows no progress bar."""

LEAST_WIDTH = 100
"""Tables are laid out for this many columns where the output is not a terminal."""


@dataclass(frozen=True)
class Mode:
    """How a command talks.

    Attributes:
        as_json: One JSON document on stdout, and nothing else there.
        debug: Show the traceback of an error.
        quiet: No progress bars and no tables; warnings and errors all the same.
    """

    as_json: bool = False
    debug: bool = False
    quiet: bool = False

    @classmethod
    def of_arguments(cls, arguments: Sequence[str]) -> "Mode":
        """Read the mode off raw arguments, for errors met while parsing them.

        Args:
            arguments: The command line, program name left out.

        Returns:
            The mode.

        Examples:
            >>> Mode.of_arguments(["inspect", "--json", "--nonsense"]).as_json
            True
        """
        options = set(arguments)
        return cls("--json" in options, "--debug" in options, "--quiet" in options)


class Result(Protocol):
    """What a workflow gives back to its command."""

    def as_json(self) -> dict[str, Any]:
        """Return the document of `--json`."""

    @property
    def exit_code(self) -> int:
        """0 when everything was done, 1 when at least one case failed."""


class Progress:
    """A progress bar on stderr that appears once the work has taken a while.

    Called as `progress(done, total)` or `progress(done, total, "what")`; a total of 0 means that
    it is not known. Nothing is shown unless stderr is a terminal.

    Args:
        shown: Whether a bar may be shown at all.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown and sys.stderr.isatty()
        self._start_s = time.monotonic()
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Say how far the work is.

        Args:
            done: Steps done.
            total: All steps; 0 when not known.
            what: What is being done.
        """
        if not self._shown or time.monotonic() - self._start_s < PROGRESS_AFTER_S:
            return
        if self._bar is None or self._task is None:
            self._bar, self._task = self._open()
        self._bar.update(
            self._task, completed=done, total=total or None, description=plain(what) or "working"
        )

    def close(self) -> None:
        """Remove the bar from the screen."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _open(self) -> tuple["RichProgress", "TaskID"]:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=sys.stderr),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        bar.start()
        return bar, bar.add_task("working", total=None)


def run(
    work: Callable[[Progress], Result],
    show: Callable[[Any], None],
    mode: Mode,
) -> int:
    """Do a command's work, print its result and return the exit code.

    While the work runs, whatever libraries print goes to stderr. An error of medseg's own that
    ends the work means that nothing was started: exit code 2.

    Args:
        work: Calls one workflow with the progress bar; imports what is slow to import.
        show: Prints the result for a person.
        mode: How to talk.

    Returns:
        Exit code.
    """
    progress = Progress(shown=not mode.quiet)
    try:
        with stdout_kept_clean(), libraries_kept_quiet(debug=mode.debug):
            try:
                result = work(progress)
            finally:
                progress.close()
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except MedsegError as error:
        return fail(error.code, str(error), mode, WRONG_USAGE)
    except MemoryError:
        return fail("out-of-memory", "the work needs more memory than there is.", mode, FAILED)
    except Exception as error:  # noqa: BLE001 -- the last resort: a defect becomes one line
        text = f"{type(error).__name__}: {error}. This is a defect: --debug shows where."
        return fail("internal", text, mode, FAILED)
    if mode.as_json:
        print_json(result.as_json())
    else:  # what goes wrong is said on stderr, to the quiet as well
        with contextlib.redirect_stdout(io.StringIO() if mode.quiet else sys.stdout):
            show(result)
    return result.exit_code


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send everything written to stdout to stderr, from Python and from C libraries alike.

    Yields:
        Nothing; the two streams are as before afterwards.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        with contextlib.suppress(OSError):  # a closed descriptor has nothing to keep clean
            kept = os.dup(1)
            stack.callback(os.close, kept)
            os.dup2(2, 1)
            stack.callback(os.dup2, kept, 1)
            stack.callback(_flush_c_streams)
        yield


@contextlib.contextmanager
def libraries_kept_quiet(*, debug: bool) -> Iterator[None]:
    """Keep warnings and log lines of libraries from the screen, or show them with `debug`.

    They quote header fields as they are, names of patients included. What a user has to know is in
    the problems and errors of the result.

    Args:
        debug: Show them, and the log of medseg itself.

    Yields:
        Nothing.
    """
    logger = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr) if debug else logging.NullHandler()
    own = logging.getLogger("medseg")
    level = own.level
    with warnings.catch_warnings():
        if debug:
            own.setLevel(logging.DEBUG)
        else:
            warnings.simplefilter("ignore")
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            own.setLevel(level)


def _flush_c_streams() -> None:
    if os.name == "posix":  # what C code has printed but not sent yet belongs to stderr as well
        ctypes.CDLL(None).fflush(None)


def fail(code: str, message: str, mode: Mode, exit_code: int) -> int:
    """Report an error: a line for a person, or the document of `--json`.

    Args:
        code: Stable name of the error.
        message: What is wrong and what to do.
        mode: How to talk; with `debug` the traceback of the error being handled is shown.
        exit_code: What to return.

    Returns:
        The exit code given.
    """
    if mode.debug and sys.exc_info()[0] is not None:
        traceback.print_exc()
    if mode.as_json:
        print_json({"schema": SCHEMA, "error": {"code": code, "message": message}})
    say(f"error: {message} [{code}]")
    return exit_code


def say(text: str) -> None:
    """Write one message to stderr.

    Args:
        text: The message.
    """
    print(plain(text, keep_lines=True), file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Write a document to stdout: NaN and infinities become null.

    Args:
        document: Dictionaries, lists, paths, numbers, text.
    """
    print(json.dumps(jsonable(document), indent=2, allow_nan=False), flush=True)


def jsonable(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    Args:
        value: Dictionaries, sequences, paths, numbers, text, None.

    Returns:
        The same with text keys, lists, and None for numbers that are not finite.

    Examples:
        >>> jsonable({"dice": float("nan"), "size": (1, 2)})
        {'dice': None, 'size': [1, 2]}
    """
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item") and not isinstance(value, str):  # a numpy scalar
        return jsonable(value.item())
    return value


def plain(text: str, *, keep_lines: bool = False) -> str:
    r"""Take out what would steer a terminal: text read from files is not trusted.

    Args:
        text: Any text.
        keep_lines: Keep line breaks.

    Returns:
        The text with every control character replaced by a question mark.

    Examples:
        >>> plain("CHEST\x1b[2J 1.0")
        'CHEST?[2J 1.0'
    """
    kept = "\n" if keep_lines else ""
    return "".join(char if char.isprintable() or char in kept else "?" for char in text)


def counted(number: int, what: str) -> str:
    """Return a number with its noun.

    Args:
        number: How many.
        what: The noun in the singular.

    Returns:
        Both, the noun in the plural unless it is one.

    Examples:
        >>> counted(1, "file"), counted(2, "file")
        ('1 file', '2 files')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    whole: Sequence[str] = (),
) -> None:
    """Print a table on stdout; only its title where there are no rows.

    Args:
        title: Stands above the table.
        columns: Headings; one that ends in `>` is right-aligned.
        rows: Cells; None is left empty.
        whole: Headings of columns whose cells are never broken into lines.
    """
    if not rows:
        print(f"{plain(title)}\n")
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, "bold"),
        box=SIMPLE_HEAD,
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(
            column.rstrip(">"),
            justify="right" if column.endswith(">") else "left",
            overflow="fold",
            no_wrap=column in whole,
        )
    for row in rows:
        table.add_row(*(Text("" if cell is None else plain(str(cell))) for cell in row))
    width = None if sys.stdout.isatty() else LEAST_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(table)
