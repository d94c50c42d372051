"""The `medseg` command: parse, run one command, return an exit code."""

import sys
from typing import Annotated, Never

import typer

from medseg._version import __version__
from medseg.cli import bundle, classical, convert, doctor, evaluate, inspect, plan, segment, train
from medseg.cli.console import INTERRUPTED, WRONG_USAGE, Mode, fail, say
from medseg.data.process_end import end_process

app = typer.Typer(
    name="medseg",
    help="Segment medical images: DICOM, NIfTI and pictures in, masks that line up out.",
    epilog="Exit codes: 0 all done; 1 at least one case failed; 2 wrong usage, nothing started.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("segment")(segment.command)
app.command("inspect")(inspect.command)
app.command("convert")(convert.command)
app.command("plan")(plan.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.add_typer(bundle.app, name="bundle")
app.add_typer(classical.app, name="classical")
app.command("doctor")(doctor.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"medseg {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    pass


def call(arguments: list[str], *, own_process: bool = False) -> int:
    """Run one command line.

    Args:
        arguments: The command line, program name left out.
        own_process: The process ends after it, so that it need not suit anything else.

    Returns:
        Exit code: 0 all done, 1 at least one case failed, 2 wrong usage and nothing was started,
        130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # file names need not be valid text
            stream.reconfigure(errors="backslashreplace")
    if not arguments:
        app(["--help"], prog_name="medseg", standalone_mode=False)
        return WRONG_USAGE
    try:
        code = app(arguments, prog_name="medseg", standalone_mode=False, obj=own_process)
    except typer.TyperException as error:
        hint = "Run the command with --help to see what it takes."
        text = f"{error.format_message().rstrip('.')}. {hint}"
        return fail("usage", text, Mode.of_arguments(arguments), WRONG_USAGE)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def main() -> Never:
    """Run the command line of this process and leave with its exit code."""
    try:
        code = call(sys.argv[1:], own_process=True)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of stdout, such as `head`, has seen enough
        sys.stdout = None  # nothing is left to flush at exit
        code = 0
    if "torch" in sys.modules:
        end_process(code)
    sys.exit(code)
