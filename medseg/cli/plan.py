"""`medseg plan`: a labelled dataset in, a trainable bundle out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.console import Mode, Progress, plain, print_table, run, say
from medseg.cli.options import AsJson, Debug, Overwrite, Quiet, Strict

if TYPE_CHECKING:
    from medseg.workflows.plan import PlanResult


def command(
    dataset: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET",
            show_default=False,
            help="Folder with dataset.json, of images and labels, or of DICOM series and SEG;"
            " or manifest (.csv, .json).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", show_default=False, help="Folder of the new bundle.")
    ],
    name: Annotated[str, typer.Option(show_default="the folder's", help="Name.")] = "",
    network: Annotated[
        str,
        typer.Option(
            help="dynunet, unet or segresnet; for pictures also fcn8s, segnet, unet_resnet,"
            " deeplabv3plus, pspnet and others."
        ),
    ] = "dynunet",
    memory_gb: Annotated[
        float, typer.Option(help="Memory of the GPU that trains, or RAM to spend; GB.")
    ] = 8.0,
    configuration: Annotated[
        str, typer.Option(help="auto, 2d (slice by slice), 3d or 3d_lowres.")
    ] = "auto",
    folds: Annotated[int, typer.Option(help="Folds for cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 12345,
    overwrite: Overwrite = False,
    strict: Strict = False,
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Plan a network for a dataset and write it as a MONAI bundle."""

    def work(progress: Progress) -> "PlanResult":
        from medseg.workflows.plan import PlanOptions, plan

        options = PlanOptions(
            dataset=dataset,
            output=output,
            name=name,
            network=network,
            memory_gb=memory_gb,
            configuration=configuration,  # type: ignore[arg-type]  # checked by plan
            folds=folds,
            seed=seed,
            overwrite=overwrite,
            strict=strict,
        )
        return plan(options, progress=progress)

    return run(work, _show, Mode(as_json, debug, quiet))


def _show(result: "PlanResult") -> None:
    rows = [
        (name, _short(choice.value), choice.rule) for name, choice in result.plan.choices.items()
    ]
    print_table("Plan", ("choice", "value", "rule"), rows)
    print(plain(f"bundle  {result.bundle}"))
    print(plain(f"next    medseg train {result.bundle} --dataset DIR"))
    for problem in result.problems:
        say(f"{problem.case}: warning: {problem.message} [{problem.code}]")


def _short(value: Any) -> str:
    if isinstance(value, dict):
        if "_target_" in value:
            widths = value.get("filters") or value.get("channels") or value.get("init_filters")
            return f"{value['_target_'].rpartition('.')[2]} {widths}"
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_short(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
