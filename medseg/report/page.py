"""The page of one case: planes, labels and numbers in a single file that any browser opens.

The file asks nothing of any network: its policy forbids it, scripts and styles are named by their
hashes, and image and labels lie in the page itself.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from medseg.io.atomic import write_text
from medseg.report import page_tables as tables
from medseg.report.objects import object_counts, shown_labels
from medseg.report.page_levels import choose_levels
from medseg.report.page_pixels import Encoded, encode
from medseg.report.page_viewer import (
    PageCase,
    Row,
    base64_text,
    intensity_unit,
    stored_text,
    viewer_data,
)
from medseg.report.planes import refuse_other_grid
from medseg.report.regions import listed_statistics
from medseg.report.report import report_document
from medseg.volume import Segmentation, Volume, size_text

SCRIPTS = ("volume.js", "paint.js", "pane.js", "viewer.js")
"""In the order in which the page runs them."""


def write_page(
    path: Path,
    volume: Volume,
    segmentation: Segmentation,
    *,
    statistics: Sequence[Row],
    context: Mapping[str, Any],
) -> None:
    """Write the page of a case: three linked planes with their labels, and all that was measured.

    It is one HTML file that opens from a disk without a network. Image and labels are reduced
    until it stays under 15 MB, and the page says by how much; what was measured is of all voxels.
    Nothing of `source` that could name a patient, a date, a place, a device or a UID is in it.

    Args:
        path: The file to write.
        volume: The image that was segmented; channel 0 is shown (three channels of a 2D image as
            colour).
        segmentation: Its labels, on the same grid.
        statistics: What `label_statistics(segmentation)` returned; `intensity`, `box`,
            `largest_diameter_mm`, `in_plane_diameter_mm`, `in_plane_short_mm` and `confidence` of
            a row are shown where they are there.
        context: As `write_report`; also `case`, `findings` (`message`, `label`) and
            `intensity_unit`.

    Raises:
        ValueError: If image and segmentation do not lie on the same grid.
        OutputError: If the file cannot be written.
    """
    refuse_other_grid(volume, segmentation)
    rows = statistics if "regions" not in context else listed_statistics(statistics)
    counts = object_counts(segmentation)
    if counts:
        rows = [{**row, "objects": counts[row["index"]]} for row in rows]
    numbers, painted = shown_labels(segmentation)
    image = volume.array[0]
    if volume.is_2d:
        colour = volume.channels == 3
        image = np.moveaxis(volume.array, 0, -1)[None] if colour else volume.array
        image, numbers = (image if colour else image[:1]), numbers[None]
    case = PageCase(volume, segmentation, rows, image, numbers, painted, context)
    levels = choose_levels(volume)
    spacing = (1.0, *volume.spacing_mm) if volume.is_2d else volume.spacing_mm
    encoded = encode(image, numbers, spacing, levels)
    document = report_document(volume, segmentation, statistics, context)
    viewer = viewer_data(case, encoded, levels)
    write_text(path, _filled(case, document, viewer, encoded, stored_text(case, encoded, levels)))


def _asset(name: str) -> str:
    return files("medseg.report").joinpath("assets", name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return "sha256-" + base64_text(hashlib.sha256(text.encode()).digest())


def _filled(
    case: PageCase,
    document: Mapping[str, Any],
    viewer: Mapping[str, Any],
    encoded: Encoded,
    stored: str,
) -> str:
    """Put all parts into the page."""
    scripts = "\n".join(_asset(name) for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{scripts}\n}})();'
    style = _asset("page.css")
    name = str(case.context.get("case") or document["input"] or "Segmentation")
    maker = document["bundle"].get("name") or case.context.get("method", {}).get("name")
    labels = {label.index: label for label in case.segmentation.labels}
    unit = intensity_unit(case)
    numbers = tables.measurements(case.rows, labels, is_2d=case.volume.is_2d, unit=unit)
    if not case.rows and "regions" in case.context:
        numbers = tables.region_facts(case.context["regions"])
    return Template(_asset("page.html")).substitute(
        title=escape(f"{name} - medseg"),
        heading=escape(name),
        subtitle=escape(f"Segmentation by {maker}" if maker else "Segmentation"),
        style=style,
        style_hash=_sha256(style),
        script=script,
        script_hash=_sha256(script),
        notices=tables.notices(
            case.context.get("findings") or (), document["warnings"], found=bool(document["found"])
        ),
        stored=escape(stored),
        numbers=numbers,
        facts=_facts(case, document),
        # a name may hold the end of a script element
        data=json.dumps(viewer, allow_nan=False).replace("<", "\\u003c"),
        chunks=_chunks(encoded),
    )


def _chunks(encoded: Encoded) -> str:
    return "\n".join(
        f'<script type="text/plain" class="slices" data-first="{chunk.first}">'
        + "\n".join(map(base64_text, (chunk.labels, *chunk.slices)))
        + "</script>"
        for chunk in encoded.chunks
    )


def _facts(case: PageCase, document: Mapping[str, Any]) -> str:
    source, bundle = document["source"], document["bundle"]
    method = case.context.get("method") or {}
    image = {
        "Input": document["input"],
        "Modality": source["modality"],
        "Size": size_text(source["size"]),
        **_lengths(source),
        "Orientation": source["orientation"],
        "Channels": source["channels"],
        "Format": source["format"],
    }
    made = {
        "Bundle": bundle["name"],
        "Version": bundle["version"] or method.get("version"),
        "Weights (SHA-256)": bundle["weights_sha256"],
        "Method": method.get("name"),
    } | ({} if bundle["name"] else dict(case.context.get("settings") or {}))
    checked = document.get("plausibility", {}).get("checked")
    made["Plausibility"] = "held against the training data" if checked else "not checked"
    made["Computed"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    cards = (
        ("Image", image),
        ("Made by", made),
        ("Time spent", tables.seconds_text(document["seconds"])),
        ("Software", document["versions"]),
    )
    return "\n".join(tables.card(title, content) for title, content in cards)


def _lengths(source: Mapping[str, Any]) -> dict[str, str]:
    """Return spacing and field of view as they are read."""
    spacing = source["spacing_mm"]
    if not spacing:
        return {"Spacing": "unknown"}
    whole = [n * mm for n, mm in zip(source["size"], spacing, strict=True)]
    return {
        "Spacing": " x ".join(f"{value:.4g}" for value in spacing) + " mm",
        "Field of view": " x ".join(f"{value:.4g}" for value in whole) + " mm",
    }
