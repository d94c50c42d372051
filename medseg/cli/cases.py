"""What commands that go through cases say of them."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from medseg.cli.console import counted, plain, print_table, say

NAMED = 3
"""Cases up to which a warning that they share is said of each."""


def show_cases(document: dict[str, Any], rows: Sequence[tuple[str, str, str]]) -> None:
    """Print cases, their files and problems, and how many files were left out.

    Args:
        document: The JSON document of `segment` or `classical`.
        rows: Name, status and what was found of each case.
    """
    print_table("Cases", ("case", "status", "found"), rows)
    for case in document["cases"]:
        outputs = case.get("outputs") or {}
        width = max(map(len, outputs), default=0)
        for kind, path in outputs.items():
            print(plain(f"{kind:{width}} {path}"))
    say_problems(document["cases"])
    for problem in document.get("problems") or ():
        say(f"error: {problem['message']} [{problem['code']}]")
    rejected = document.get("rejected") or ()
    masks = [item for item in rejected if item["code"] == "masks"]
    if masks:
        say(
            f"Left out: {counted(len(masks), 'folder')} of masks beside images, {masks[0]['path']}."
        )
    left_out = [item for item in rejected if item["code"] not in ("result", "masks")]
    if left_out:
        say(
            f"Left out, for being no image: {counted(len(left_out), 'file')}."
            " medseg inspect says why."
        )


def say_problems(cases: Sequence[dict[str, Any]]) -> None:
    """Say the warnings and errors of cases; a warning that many of them share once.

    Args:
        cases: As in the JSON document of a command.
    """
    shared: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case in cases:
        for warning in case.get("warnings") or ():
            shared[warning["message"], warning["code"]].append(case["case"])
    for (message, code), names in shared.items():
        whom = names if len(names) <= NAMED else [f"{names[0]} and {len(names) - 1} more"]
        for name in whom:
            say(f"{name}: warning: {message} [{code}]")
    for case in cases:
        if error := case.get("error"):
            say(f"{case['case']}: error: {error['message']} [{error['code']}]")


def found_text(case: dict[str, Any]) -> str:
    """Say what was found in a case.

    Args:
        case: As in the JSON document.

    Returns:
        Such as `liver 1500.0 ml`, in 2D `car 1200 pixels`; of objects `3 x car, 1 x person`.
    """
    if objects := case.get("objects"):
        return ", ".join(
            f"{number} x {name}" for name, number in objects["classes"].items() if number
        )
    labels = [label for label in case.get("labels") or () if label["voxels"]]
    return ", ".join(map(amount_text, labels))


def amount_text(label: dict[str, Any]) -> str:
    """Say how much of a label was found.

    Args:
        label: As in the JSON document.

    Returns:
        Such as `liver 1500.0 ml`, in 2D `car 1200 pixels`.
    """
    volume = label["volume_ml"]
    amount = f"{label['voxels']} pixels" if volume is None else f"{volume:.1f} ml"
    return f"{label['name']} {amount}"
