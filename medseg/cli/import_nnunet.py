"""`medseg bundle import-nnunet`: an nnU-Net v2 results folder as a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.console import Mode, Progress, plain, print_table, run, say
from medseg.cli.options import AsJson, Debug, Overwrite, Quiet, names

if TYPE_CHECKING:
    from medseg.workflows.import_nnunet import ImportResult


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="Results of one configuration, with plans.json, dataset.json and fold_*; or a zip"
            " of it.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", show_default=False, help="Folder of the bundle."),
    ],
    folds: Annotated[
        str,
        typer.Option(
            show_default="every numbered fold", help="Such as 0,1 or all; logits are averaged."
        ),
    ] = "",
    checkpoint: Annotated[
        str | None,
        typer.Option(show_default="final, else best", help="final, best or latest."),
    ] = None,
    orientation: Annotated[
        str,
        typer.Option(
            show_default="as nnU-Net reads it",
            help="Turn images to this before the network, such as RAS: for models whose training"
            " images all lay so, and DICOM.",
        ),
    ] = "",
    previous_stage: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            show_default="that beside FOLDER",
            help="Results of the stage before, of a cascade.",
        ),
    ] = None,
    postprocessing: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default="none",
            help="A postprocessing.json of nnU-Net: what it found worth removing is removed.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Make a bundle of a model that nnU-Net v2 trained. Runs nothing of the folder."""

    def work(progress: Progress) -> "ImportResult":
        from medseg.workflows.import_nnunet import ImportOptions, import_nnunet

        options = ImportOptions(
            source,
            output,
            folds=names(folds),
            checkpoint=checkpoint,
            orientation=orientation.upper(),
            previous_stage=previous_stage,
            postprocessing=postprocessing,
            overwrite=overwrite,
        )
        return import_nnunet(options, progress=progress)

    return run(work, _show, Mode(as_json, debug, quiet))


def _show(result: "ImportResult") -> None:
    document = result.as_json()
    rows = [
        ("dataset", document["dataset"]),
        ("configuration", document["configuration"]),
        ("previous stage", document["previous_stage"] or "none"),
        ("folds", ", ".join(document["folds"])),
        ("labels", ", ".join(f"{one['index']} {one['name']}" for one in document["labels"])),
        ("orientation", document["orientation"] or "as in the file"),
        ("bundle", document["bundle"]),
    ]
    print_table(result.bundle.name, ("what", "value"), rows)
    for one in document["warnings"]:
        say(plain(f"warning: not taken over: {one['message']} [{one['code']}]"))
