"""`medseg doctor`: what this machine has, what is missing, and how to add it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.console import Mode, Progress, print_table, run, say
from medseg.cli.options import AsJson, Debug, Quiet

if TYPE_CHECKING:
    from medseg.workflows.doctor import DoctorResult


def command(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder that results will be written to."),
    ] = Path(),
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Say what is installed, what the machine has, and the command that adds what is missing."""

    def work(progress: Progress) -> "DoctorResult":
        from medseg.workflows.doctor import DoctorOptions, doctor

        return doctor(DoctorOptions(output), progress=progress)

    return run(work, _show, Mode(as_json, debug, quiet))


def _show(result: "DoctorResult") -> None:
    document = result.as_json()
    for title in ("software", "devices", "cpu", "threads", "memory"):
        facts = [(key.replace("_", " "), _cell(key, item)) for key, item in document[title].items()]
        print_table(title, ("what", "value"), facts)
    rows = [
        (item["name"], "yes" if item["works"] else "NO", item["message"])
        for item in document["decoders"]
    ]
    print_table("DICOM decoders, each tried on a small image", ("encoding", "works", ""), rows)
    bundles = [
        (item["name"], "yes" if item["has_weights"] else "NO", item["root"])
        for item in document["bundles"]
    ]
    print_table("bundles", ("bundle", "weights", "folder"), bundles)
    absent = [(item["what"], item["for"], item["command"]) for item in document["missing"]]
    title = "missing" if absent else "nothing is missing"
    print_table(title, ("what", "what for", "command that adds it"), absent)
    for item in document["problems"]:
        say(f"error: {item['step']}: {item['message']}")


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "none" if key.endswith("limit") else "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
