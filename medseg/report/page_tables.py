"""The parts of a page that are text: measurements, warnings and facts as HTML.

Every name and message is escaped here: none of them is trusted.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from medseg.volume import Label

Row = Mapping[str, Any]

CUT_OFF = "cut off by the edge of the image"
ABSENT = "not found"
_STAGE_UNIT = "s"


@dataclass(frozen=True)
class _Column:
    """One column of the measurements.

    Attributes:
        title: Its head.
        keys: What a row must have, at least one row of all, for the column to be shown.
        text: Its cell, of a row that has the keys.
        long: Whether a cell may take several lines.
    """

    title: str
    keys: tuple[str, ...]
    text: Callable[[Row], str]
    long: bool = False


def number(value: float) -> str:
    """Return a measured number with three digits, or one decimal from 100 on.

    Args:
        value: The number.

    Examples:
        >>> number(0.123456), number(1234.56), number(-104.0)
        ('0.123', '1234.6', '-104')
    """
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 100 else f"{value:.3g}"


def measurements(
    rows: Sequence[Row], labels: Mapping[int, Label], *, is_2d: bool, unit: str
) -> str:
    """Return the table of all labels.

    Args:
        rows: What `label_statistics` returned, and what else was measured: columns of which no row
            has a value are left out.
        labels: Labels by index.
        is_2d: Voxels are called pixels.
        unit: Of intensities; may be empty.

    Returns:
        HTML.
    """
    columns = [c for c in _columns(is_2d, unit) if any(_has(row, c.keys) for row in rows)]
    remarked = any(_remark(row) for row in rows)
    heads = '<th scope=col class="words">Remarks</th>' if remarked else ""
    heads += "".join(f"<th scope=col>{escape(c.title)}</th>" for c in columns)
    ordered = sorted(rows, key=lambda row: not row["voxels"])  # what was found, then the rest
    body = "\n".join(_row(row, labels.get(row["index"]), columns, remarked) for row in ordered)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="numbers-title"><table>'
        f"<thead><tr><th scope=col>Label</th>{heads}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _remark(row: Row) -> str:
    if not row["voxels"]:
        return ABSENT
    return CUT_OFF if row.get("touches_border") else ""


def _has(row: Row, keys: Iterable[str]) -> bool:
    return all(row.get(key) is not None for key in keys)


def _columns(is_2d: bool, unit: str) -> tuple[_Column, ...]:
    intensity = f"ntensity ({unit})" if unit else "ntensity"
    return (
        _Column("Objects", ("objects",), lambda row: str(row["objects"])),
        _Column("Pixels" if is_2d else "Voxels", ("voxels",), lambda row: f"{row['voxels']:,}"),
        _Column("Area (mm²)", ("area_mm2",), lambda row: number(row["area_mm2"])),
        _Column("Volume (ml)", ("volume_ml",), lambda row: number(row["volume_ml"])),
        _Column("Parts", ("components",), lambda row: str(row["components"])),
        _Column(
            "Largest diameter (mm)",
            ("largest_diameter_mm",),
            lambda row: number(row["largest_diameter_mm"]),
        ),
        _Column(
            "In one slice (mm)",
            ("in_plane_diameter_mm", "in_plane_short_mm"),
            lambda row: (
                f"{number(row['in_plane_diameter_mm'])} × {number(row['in_plane_short_mm'])}"  # noqa: RUF001
            ),
        ),
        _Column(
            "Mean probability",
            ("confidence",),
            lambda row: number(row["confidence"]["probability"]),
        ),
        _Column("Mean entropy", ("confidence",), lambda row: number(row["confidence"]["entropy"])),
        _Column(
            f"Mean i{intensity}",
            ("intensity",),
            lambda row: f"{number(row['intensity']['mean'])} ± {number(row['intensity']['sd'])}",
        ),
        _Column(
            f"I{intensity} 5 / 25 / 50 / 75 / 95 %",
            ("intensity",),
            lambda row: " / ".join(
                number(row["intensity"][key]) for key in ("p05", "p25", "p50", "p75", "p95")
            ),
            long=True,
        ),
        _Column(
            f"I{intensity} range",
            ("intensity",),
            lambda row: f"{number(row['intensity']['min'])} to {number(row['intensity']['max'])}",
        ),
        _Column("Rows, columns" if is_2d else "Slices i, j, k", ("box",), _box, long=True),
    )


def _box(row: Row) -> str:
    spans = zip(row["box"]["first"], row["box"]["last"], strict=True)
    return ", ".join(f"{first + 1} to {last + 1}" for first, last in spans)


def _row(row: Row, label: Label | None, columns: Sequence[_Column], remarked: bool) -> str:
    name = escape(str(row["name"]))
    remark = f'<td class="words">{_remark(row)}</td>' if remarked else ""
    if not row["voxels"]:
        return f'<tr class="absent"><td>{name}</td>{remark}{"<td></td>" * len(columns)}</tr>'
    cells = "".join(_cell(row, column) for column in columns)
    color = f"#{bytes(label.color).hex()}" if label else "#ffffff"
    swatch = (
        '<svg class="swatch" viewBox="0 0 8 8" aria-hidden="true">'
        f'<rect width="8" height="8" fill="{color}"/></svg>'
    )
    go = f'<button type="button" class="go" data-label="{int(row["index"])}">{name}</button>'
    return f"<tr><td>{swatch}{go}</td>{remark}{cells}</tr>"


def _cell(row: Row, column: _Column) -> str:
    text = escape(column.text(row)) if _has(row, column.keys) else ""
    return f'<td class="long">{text}</td>' if column.long else f"<td>{text}</td>"


def region_facts(summary: Mapping[str, Any]) -> str:
    """Describe numbered regions that are too many to list.

    Args:
        summary: What `region_summary` returned.

    Returns:
        HTML.
    """
    sizes = summary["voxels"]
    return facts(
        {
            "Regions": summary["count"],
            "Smallest": f"{sizes['smallest']} voxels" if sizes["smallest"] else None,
            "Median": f"{sizes['median']:g} voxels" if sizes["median"] else None,
            "Largest": f"{sizes['largest']} voxels" if sizes["largest"] else None,
            "Of several parts": summary["scattered"],
        }
    )


def notices(
    findings: Sequence[Mapping[str, Any]], warnings: Sequence[Mapping[str, Any]], *, found: bool
) -> str:
    """Return what the reader must see first.

    Args:
        findings: Doubts about the result: `message`, and `label` or None.
        warnings: Met on the way: `message`.
        found: Whether any label was found.

    Returns:
        HTML; empty where there is nothing to say.
    """
    said = {str(item["message"]) for item in findings}  # a doubt may be among the warnings too
    others = [str(item["message"]) for item in warnings if str(item["message"]) not in said]
    parts = [
        _notice("Check this result", [_doubt(item) for item in findings], "notice findings"),
        _notice("Warnings", others, "notice"),
    ]
    if not found:
        parts.append('<p class="notice"><strong>Nothing found.</strong> No voxel has a label.</p>')
    return "\n".join(part for part in parts if part)


def _doubt(finding: Mapping[str, Any]) -> str:
    label, message = str(finding.get("label") or ""), str(finding["message"])
    return message if label in message else f"{label}: {message}"


def _notice(title: str, messages: Sequence[str], kind: str) -> str:
    if not messages:
        return ""
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    head = f"<strong>{title}</strong>"
    return f'<section class="{kind}" aria-label="{title}">{head}<ul>{items}</ul></section>'


def card(title: str, content: Mapping[str, Any]) -> str:
    """Return a titled list of facts.

    Args:
        title: Its head.
        content: Name to value; what is None or empty is left out.

    Returns:
        HTML; empty where nothing is left.
    """
    listed = facts(content)
    return f'<section class="card"><h2>{escape(title)}</h2>{listed}</section>' if listed else ""


def facts(content: Mapping[str, Any]) -> str:
    """Return a list of facts.

    Args:
        content: Name to value; what is None or empty is left out.

    Returns:
        HTML; empty where nothing is left.
    """
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
        for name, value in content.items()
        if value is not None and value not in ("", [], {})
    )
    return f"<dl>{items}</dl>" if items else ""


def seconds_text(seconds: Mapping[str, float]) -> dict[str, str]:
    """Return the time of each stage as it is read.

    Args:
        seconds: By stage; s.
    """
    return {stage: f"{value:.2f} {_STAGE_UNIT}" for stage, value in seconds.items()}
