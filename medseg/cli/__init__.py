"""The command line: one thin module a command."""

from medseg.cli.main import main

__all__ = ["main"]
