"""What is written of a case as DICOM."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import InputError, Problem
from medseg.report.notice import with_notice
from medseg.report.pdf import draw_pdf
from medseg.report.planes import RGB
from medseg.report.preview import draw_preview
from medseg.volume import Segmentation, Source, Volume

if TYPE_CHECKING:  # highdicom and scikit-image take a second
    import datetime

    from medseg.io.dicom.algorithm import Algorithm
    from medseg.io.dicom.derived import Made
    from medseg.io.dicom.seg_write import Profile

DICOM_FILES = {
    "seg": "segmentation.dcm",
    "seg-labelmap": "segmentation_labelmap.dcm",
    "seg-fractional": "segmentation_fractional.dcm",
    "rtstruct": "rtstruct.dcm",
    "sc": "secondary_capture.dcm",
    "sr": "measurements.dcm",
    "pdf": "report_pdf.dcm",
}
"""Kind of output to its file, in the order in which they are made."""

STATED = ("name", "version")
"""What a SEG has fields of its own for."""

DICOM_OUTPUTS = tuple(DICOM_FILES)
"""Outputs that only a DICOM source can have."""


def require_dicom(outputs: Sequence[str], source: Source) -> None:
    """Refuse DICOM outputs of what is no DICOM, before any compute.

    Args:
        outputs: Kinds of output.
        source: Of the image.

    Raises:
        InputError: If there is no DICOM to refer to (`no-dicom-source`).
    """
    asked = [kind for kind in outputs if kind in DICOM_OUTPUTS]
    if asked and source.format != "dicom":
        msg = (
            f"outputs must be without {' and '.join(asked)} for a {source.format} image, which is"
            " no DICOM that they could refer to. Leave them out, or give the DICOM files."
        )
        raise InputError(msg, code="no-dicom-source")


def write_dicom(
    folder: Path,
    result: tuple[Volume, Segmentation],
    outputs: Sequence[str],
    statistics: Sequence[dict[str, Any]],
    context: Mapping[str, Any],
) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """Write the DICOM outputs of a case.

    Args:
        folder: Where the files go.
        result: A DICOM volume or picture, and its segmentation.
        outputs: Kinds of output.
        statistics: Of each label.
        context: As `results.write` has it; `deidentifier` is called on every object.

    Returns:
        Kind of output to file name, and warnings.

    Raises:
        DicomError: If the source cannot be referred to.
        OutputError: If a file cannot be written.
    """
    asked = [kind for kind in DICOM_FILES if kind in outputs]
    if not asked:
        return {}, ()
    from medseg.io.dicom.derived import now, save_object  # noqa: PLC0415  # slow to import

    objects = _Objects(*result, statistics, context, now())
    problems: dict[Problem, None] = {}
    for kind in asked:
        made = objects.make(kind)
        problems |= dict.fromkeys(made.problems)
        if (deidentifier := context.get("deidentifier")) is not None:
            deidentifier(made.dataset)
        save_object(made.dataset, folder / DICOM_FILES[kind])
    return {kind: DICOM_FILES[kind] for kind in asked}, tuple(problems)


@dataclass(frozen=True, eq=False)
class _Objects:
    """The DICOM objects of a case."""

    volume: Volume
    segmentation: Segmentation
    statistics: Sequence[dict[str, Any]]
    context: Mapping[str, Any]
    made_at: "datetime.datetime"
    seg: list["Made"] = field(default_factory=list)
    """What others refer to of the DICOM SEG, once it is made."""

    def make(self, kind: str) -> "Made":
        """Make one."""
        makers: dict[str, Callable[[], Made]] = {
            "seg": self._seg,
            "seg-labelmap": lambda: self._other_seg("labelmap"),
            "seg-fractional": lambda: self._other_seg("fractional"),
            "rtstruct": self._structure_set,
            "sc": self._secondary_capture,
            "sr": self._measurements,
            "pdf": self._document,
        }
        return makers[kind]()

    @cached_property
    def algorithm(self) -> "Algorithm":
        """What made the segmentation."""
        from medseg.io.dicom.algorithm import Algorithm  # noqa: PLC0415

        made_by = self.context.get("bundle") or self.context.get("method") or {}
        return Algorithm(
            name=str(made_by.get("name", "medseg")),
            version=str(made_by.get("version", "1")),
            parameters={
                key: text
                for key, text in made_by.items()
                if isinstance(text, str) and key not in STATED
            },
            automatic=bool(self.context.get("bundle")),
        )

    @cached_property
    def picture(self) -> RGB:
        """The preview."""
        return draw_preview(self.volume, self.segmentation, statistics=self.statistics)

    def _seg(self) -> "Made":
        from medseg.io.dicom.seg_write import reference_to, segmentation_object  # noqa: PLC0415

        made = segmentation_object(self.segmentation, self.algorithm, made_at=self.made_at)
        self.seg.append(reference_to(made))
        return made

    def _other_seg(self, profile: "Profile") -> "Made":
        from medseg.io.dicom.seg_write import segmentation_object  # noqa: PLC0415

        return segmentation_object(self.segmentation, self.algorithm, profile, made_at=self.made_at)

    def _structure_set(self) -> "Made":
        from medseg.io.dicom.rtstruct import structure_set  # noqa: PLC0415

        return structure_set(self.segmentation, self.algorithm, made_at=self.made_at)

    def _secondary_capture(self) -> "Made":
        from medseg.io.dicom.derived import NOTICE  # noqa: PLC0415
        from medseg.io.dicom.secondary_capture import secondary_capture  # noqa: PLC0415

        return secondary_capture(
            with_notice(self.picture, NOTICE),
            self.segmentation.source,
            self.algorithm,
            made_at=self.made_at,
        )

    def _measurements(self) -> "Made":
        from medseg.io.dicom.measurements import measurement_report  # noqa: PLC0415

        return measurement_report(
            self.segmentation,
            self.statistics,
            self.algorithm,
            seg=self.seg[0] if self.seg else None,
            made_at=self.made_at,
        )

    def _document(self) -> "Made":
        from medseg.io.dicom.derived import NOTICE  # noqa: PLC0415
        from medseg.io.dicom.pdf import encapsulated_pdf  # noqa: PLC0415

        return encapsulated_pdf(
            draw_pdf(
                self.picture,
                self.segmentation.labels,
                self.statistics,
                self.context,
                notice=NOTICE,
            ),
            self.segmentation.source,
            self.algorithm,
            made_at=self.made_at,
        )
