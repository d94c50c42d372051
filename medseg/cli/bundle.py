"""`medseg bundle`: which bundles there are, what one says about itself, and what is wrong."""

from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli import export, import_nnunet
from medseg.cli.console import Mode, Progress, counted, plain, print_table, run
from medseg.cli.options import AsJson, Debug, Quiet

if TYPE_CHECKING:
    from medseg.workflows.bundles import BundleCard, BundleList
    from medseg.workflows.check import CheckResult

app = typer.Typer(help="List, show, check, export and import bundles.", rich_markup_mode="rich")


@app.command("list")
def list_command(as_json: AsJson = False, debug: Debug = False, quiet: Quiet = False) -> int:
    """List the bundles on the search path."""

    def work(_: Progress) -> "BundleList":
        from medseg.workflows.bundles import describe_bundles

        return describe_bundles()

    return run(work, _show_list, Mode(as_json, debug, quiet))


@app.command("show")
def show_command(
    name: Annotated[
        str, typer.Argument(metavar="BUNDLE", show_default=False, help="Folder or name.")
    ],
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """Show a bundle's card: labels, input, scores, licence."""

    def work(_: Progress) -> "BundleCard":
        from medseg.workflows.bundles import describe_bundle

        return describe_bundle(name)

    return run(work, _show_card, Mode(as_json, debug, quiet))


@app.command("check")
def check_command(
    name: Annotated[
        str, typer.Argument(metavar="BUNDLE", show_default=False, help="Folder or name.")
    ],
    as_json: AsJson = False,
    debug: Debug = False,
    quiet: Quiet = False,
) -> int:
    """List everything that is wrong with a bundle. Offline; runs none of its code.

    Exit code 2 with errors, 0 with warnings alone.
    """

    def work(_: Progress) -> "CheckResult":
        from medseg.workflows.check import check

        return check(name)

    return run(work, _show_faults, Mode(as_json, debug, quiet))


def _show_faults(result: "CheckResult") -> None:
    for fault in result.faults:
        print("\n".join(plain(line) for line in fault.lines()), end="\n\n")
    for one in result.inapplicable:
        print(plain(f"does not apply: {one.command}: {one.reason}"))
    counts = f"{counted(result.errors, 'error')}, {counted(result.warnings, 'warning')}"
    print(f"{plain(result.root.name)}: {counts}")


def _show_list(result: "BundleList") -> None:
    rows = []
    for bundle in result.as_json()["bundles"]:
        if error := bundle["error"]:
            rows.append((bundle["name"], "", "", f"error: {error['message']} [{error['code']}]"))
            continue
        labels = ", ".join(label["name"] for label in bundle["labels"])
        weights = "yes" if bundle["has_weights"] else "NO"
        rows.append((bundle["name"], weights, labels, bundle["description"]))
    columns = ("bundle", "weights", "labels", "what it does")
    print_table(counted(len(rows), "bundle"), columns, rows, whole=("bundle",))


def _show_card(result: "BundleCard") -> None:
    bundle = result.as_json()["bundle"]
    rows = [(key.replace("_", " "), _cell(value)) for key, value in bundle.items() if key != "card"]
    print_table(bundle["name"], ("what", "value"), [row for row in rows if row[1]])
    print(plain(bundle["card"], keep_lines=True))


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, dict):
        if set(value) >= {"index", "name"}:
            return f"{value['index']} {value['name']}"
        return ", ".join(f"{key}: {_cell(item)}" for key, item in value.items())
    return "" if value is None else str(value)


app.command("export")(export.command)
app.command("import-nnunet")(import_nnunet.command)
