import ctypes
import json
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from medseg.cli import console
from medseg.cli.console import Mode, Progress, jsonable, plain, print_table, run, say
from medseg.errors import BundleError, InputError


@dataclass
class Fake:
    document: dict[str, Any] = field(default_factory=lambda: {"schema": 1})
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        return self.document


def shows_nothing(_: object) -> None:
    """Show a result of which there is nothing to say."""


def no_show(result: Fake) -> None:  # noqa: ARG001
    raise AssertionError("nothing is to be shown")


def fails_with(error: BaseException) -> Any:
    def work(progress: Progress) -> Fake:  # noqa: ARG001
        raise error

    return work


def test_numbers_that_are_not_finite_become_null() -> None:
    document = {"a": float("inf"), "b": [np.float32("nan"), np.int16(3)], 1: np.True_}
    assert (
        json.dumps(jsonable(document), allow_nan=False) == '{"a": null, "b": [null, 3], "1": true}'
    )


def test_text_of_a_file_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b]0;owned\x07\nb\x9b") == "a?]0;owned??b?"
    assert plain("a\nb\r", keep_lines=True) == "a\nb?"


def test_a_table_shows_brackets_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", ("name", "n>"), [("[red]x[/red]", 1), (None, 2)])
    assert "[red]x[/red]" in capsys.readouterr().out


@pytest.mark.parametrize("error", [InputError("x must be y.", code="odd"), BundleError("no.")])
def test_an_error_that_ends_the_work_is_exit_code_2(
    error: InputError, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fails_with(error), no_show, Mode()) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == f"error: {error} [{error.code}]\n"


def test_an_error_is_a_document_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails_with(InputError("x.", code="odd")), no_show, Mode(as_json=True)) == 2
    document = json.loads(capsys.readouterr().out)
    assert document == {"schema": 1, "error": {"code": "odd", "message": "x."}}


@pytest.mark.parametrize(
    ("error", "code"),
    [(ZeroDivisionError("by zero"), "internal"), (MemoryError(), "out-of-memory")],
)
def test_a_defect_is_one_line_and_exit_code_1(
    error: Exception, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(fails_with(error), no_show, Mode()) == 1
    text = capsys.readouterr().err
    assert text.endswith(f"[{code}]\n")
    assert text.count("\n") == 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    run(fails_with(InputError("x.")), no_show, Mode(debug=True))
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_interrupt_is_one_line_and_exit_code_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(fails_with(KeyboardInterrupt()), no_show, Mode()) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_failed_case_is_exit_code_1_and_still_a_document(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(lambda _: Fake({"schema": 1, "x": 2}, 1), no_show, Mode(as_json=True)) == 1
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "x": 2}


def test_quiet_shows_no_table_and_still_says_what_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def show(_: object) -> None:
        print_table("Cases", ("case",), [("a",)])
        print("mask  a.nii.gz")
        say("a: warning: odd [odd]")

    assert run(lambda _: Fake(), show, Mode(quiet=True)) == 0
    assert capsys.readouterr() == ("", "a: warning: odd [odd]\n")


def test_no_bar_is_shown_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(shown=True)
    progress._start_s -= 10
    progress(1, 2, "reading")
    progress.close()
    assert capsys.readouterr().err == ""


def test_a_bar_appears_on_a_terminal_once_the_work_takes_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress(shown=True)
    progress(1, 4, "early")
    assert capsys.readouterr().err == ""
    progress._start_s -= console.PROGRESS_AFTER_S
    progress(3, 4, "reading")
    progress.close()
    shown = capsys.readouterr().err
    assert "reading" in shown
    assert "3/4" in shown


def test_what_libraries_say_is_kept_from_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    def talk(progress: Progress) -> Fake:  # noqa: ARG001
        warnings.warn("invalid value 'Doe^John'", stacklevel=1)
        logging.getLogger("pydicom").warning("Doe^John again")
        logging.getLogger("medseg.io").debug("a detail")
        return Fake()

    run(talk, shows_nothing, Mode(quiet=True))
    assert capfd.readouterr().err == ""
    with pytest.warns(UserWarning, match="Doe"):
        run(talk, shows_nothing, Mode(quiet=True, debug=True))
    said = capfd.readouterr().err
    assert "Doe^John again" in said
    assert "a detail" in said


def noisy(progress: Progress) -> Fake:  # noqa: ARG001
    """Print the way libraries do: Python, C's buffered stream, the bare descriptor."""
    sys.stdout.write("from python\n")
    if os.name == "posix":
        ctypes.CDLL(None).printf(b"from C\n")
    os.write(1, b"from the descriptor\n")
    subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
    return Fake()


def test_nothing_but_the_document_reaches_stdout() -> None:
    code = (
        "from tests.cli.test_console import noisy, no_show;"
        "from medseg.cli.console import Mode, run;"
        "import sys; sys.exit(run(noisy, no_show, Mode(as_json=True)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"schema": 1}
    for who in ("python", "C", "the descriptor", "a child"):
        assert f"from {who}" in done.stderr
