"""A MONAI Label app whose models are the bundles of medseg.

    monailabel start_server --app scripts/monailabel --studies STUDIES --host 127.0.0.1 \
        --conf bundles phantom_ct,hippocampus_mri --conf device cpu

STUDIES is a folder of images or the address of a DICOMweb server. `bundles` names bundles or their
folders; left out, they are all those on the search path that have weights. Masks lie on the grid of
the image that the server hands out. Models are run, not trained. See docs/slicer.md.
"""

import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from fastapi import HTTPException
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.utils.others.generic import device_list, file_ext, name_to_device

import medseg
from medseg.bundle import Bundle, list_bundles
from medseg.errors import BundleError, GeometryError, InputError, MedsegError, UsageError
from medseg.geometry import axis_codes
from medseg.io.nifti import read_nifti_info, write_nifti_mask
from medseg.report.labels import label_statistics
from medseg.volume import Label, Segmentation, Volume, grid_difference, reoriented, size_text

log = logging.getLogger(__name__)

NIFTI = (".nii.gz", ".nii")
ITK = (".nrrd", ".mha")
HTTP_NOT_FOUND = 404
HTTP_UNPROCESSABLE = 422


class MedsegApp(MONAILabelApp):
    """The server's side of it: which bundles there are, and what they answer."""

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        super().__init__(
            app_dir,
            studies,
            dict(conf or {}),
            name="medseg",
            description="The bundles of medseg. Not a medical device.",
            version=medseg.__version__,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Return a task a bundle; one that cannot be read is an error where it is named."""
        is_dicom = isinstance(self.datastore(), DICOMWebDatastore)
        device = self.conf.get("device", "auto")
        return {
            bundle.name: BundleTask(bundle, device=device, is_dicom=is_dicom)
            for bundle in chosen_bundles(self.conf.get("bundles", ""))
        }

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": Random(), "first": First()}

    def infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Run a task; what goes wrong reaches the client as a sentence, not as an empty 500."""
        try:
            self._fetch(request.get("image"))
            return dict(super().infer(request, datastore))
        except MONAILabelException as error:
            raise HTTPException(HTTP_NOT_FOUND, error.msg) from error
        except MedsegError as error:
            raise HTTPException(HTTP_UNPROCESSABLE, f"{error.code}: {error}") from error

    def batch_infer(self, request: dict[str, Any], datastore: Any = None) -> dict[str, Any]:
        """Run a task on many images; MONAI Label 0.8.5 divides by the number of GPUs if let."""
        several = torch.cuda.is_available() and request.get("multi_gpu", True)
        return dict(super().batch_infer({**request, "multi_gpu": several}, datastore))

    def _fetch(self, image: Any) -> None:
        """Fetch a series from a DICOMweb server.

        MONAI Label 0.8.5 names a temporary copy the first time it is asked for a series, and the
        NIfTI beside the series' folder from then on: `series_of` needs the latter.
        """
        store = self.datastore()
        if not isinstance(store, DICOMWebDatastore) or not image or Path(image).exists():
            return
        try:
            store.get_image_uri(image)
        except IndexError as error:  # the server has no such series
            msg = f"image must be the UID of a series on the DICOMweb server, got {image!r}."
            raise HTTPException(HTTP_NOT_FOUND, msg) from error


class BundleTask(InferTask):
    """One bundle; its weights are loaded at the first request and stay in memory."""

    def __init__(self, bundle: Bundle, *, device: str, is_dicom: bool) -> None:
        devices = dict.fromkeys([device, "auto", *device_list(), "cpu"])
        super().__init__(
            type=InferType.SEGMENTATION,
            labels={label.name: label.index for label in bundle.labels},
            dimension=bundle.input_rule.dims,
            description=bundle.description,
            config={"device": list(devices), "tta": False},
        )
        self.bundle = bundle
        self.is_dicom = is_dicom
        self._predictors: dict[tuple[str, bool], medseg.Predictor] = {}
        self._lock = Lock()

    def info(self) -> dict[str, Any]:
        return {
            **super().info(),
            "version": self.bundle.version,
            "label_colors": colors_of(self.bundle.labels),
        }

    def is_valid(self) -> bool:
        return self.bundle.has_weights

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment an image.

        Args:
            request: `image`, a path; and, where the client says so, `device`, `tta` and
                `result_extension`.

        Returns:
            The file of the mask, which the server deletes once it is sent, and what is to be said.
        """
        if not request["image"]:
            msg = "image must be one of the server's; GET /datastore/ lists their ids."
            raise MONAILabelException(MONAILabelError.INVALID_INPUT, msg)
        image = Path(request["image"])
        suffix = request.get("result_extension") or default_suffix(image)
        series = series_of(image) if self.is_dicom else None
        require_rule(series or image, self.bundle)
        volume = medseg.read(series or image, channels=self.bundle.input_rule.channels)
        require_fit(suffix, volume)
        with self._lock:
            segmentation = self._predictor(request)(volume)
        if series is not None and suffix != ".dcm":
            segmentation = on_grid_of(segmentation, image)
        answer = {
            "label_names": names_by_value(segmentation.labels),
            "label_colors": colors_of(segmentation.labels),
            "labels": label_statistics(segmentation),
            "warnings": [problem.as_json() for problem in segmentation.source.problems],
            "bundle": {"name": self.bundle.name, "version": self.bundle.version},
        }
        return str(written(segmentation, suffix, self.bundle)), answer

    def _predictor(self, request: Mapping[str, Any]) -> medseg.Predictor:
        asked = request.get("device") or self._config["device"]
        device = asked if isinstance(asked, str) else asked[0]
        device = device if device == "auto" else name_to_device(device)
        tta = str(request.get("tta", False)).lower() in ("true", "1", "yes")
        key = (device, tta)
        if key not in self._predictors:
            self._predictors[key] = medseg.Predictor(self.bundle, device=device, tta=tta)
        return self._predictors[key]


def chosen_bundles(named: str) -> list[Bundle]:
    """Return the bundles that are named, with commas between; all that can be used otherwise."""
    if named:
        bundles = [medseg.load_bundle(name.strip()) for name in named.split(",")]
        wrong = [bundle.name for bundle in bundles if bundle.finds_objects]
        if wrong:
            msg = f"bundles must segment classes, got {', '.join(wrong)}, which find objects."
            raise UsageError(msg)
        return bundles
    found = []
    for name, root in list_bundles().items():
        try:
            bundle = medseg.load_bundle(root)
            bundle.require_weights()
        except BundleError as error:
            log.warning("bundle %s is left out: %s", name, error)
            continue
        if not bundle.finds_objects:
            found.append(bundle)
    return found


def names_by_value(labels: Sequence[Label]) -> dict[str, int]:
    """Return the values of a mask by name, with a stand-in for each value that none has.

    3D Slicer's plug-in takes the names in order and gives the first to value 1, the second to 2.
    It passes over names that it did not get from the server before, as these stand-ins.
    """
    names = {label.index: label.name for label in labels}
    return {names.get(value, f"(no label {value})"): value for value in range(1, max(names) + 1)}


def colors_of(labels: Sequence[Label]) -> dict[str, list[int]]:
    """Return red, green and blue of each label; 0 to 255."""
    return {label.name: list(label.color) for label in labels}


def series_of(image: Path) -> Path | None:
    """Return the folder of DICOM files of which a DICOMweb store made a NIfTI file."""
    if image.is_dir():
        return None
    suffix = next((suffix for suffix in NIFTI if image.name.endswith(suffix)), "")
    folder = image.with_name(image.name.removesuffix(suffix))
    return folder if suffix and folder.is_dir() else None


def on_grid_of(segmentation: Segmentation, image: Path) -> Segmentation:
    """Return a mask in the order of voxels of an image that has the same ones.

    OHIF's plug-in takes the voxels as they come, in the order of the image that the server keeps.
    """
    info = read_nifti_info(image)
    mask = Volume(segmentation.array[None], segmentation.affine)
    turned = reoriented(mask, axis_codes(info.affine))
    grid = Volume(np.broadcast_to(np.uint8(0), (1, *info.shape[:3])), info.affine)
    if difference := grid_difference(turned, grid):
        msg = (
            "the server's NIfTI must have the grid of its DICOM series, got"
            f" {difference}. Ask for the result as .dcm, or use medseg segment."
        )
        raise GeometryError(msg, code="grid-mismatch")
    return replace(segmentation, array=turned.array[0], affine=info.affine)


def default_suffix(image: Path) -> str:
    """Return the file type of an image where a mask can have it, as clients expect."""
    suffix = file_ext(image.name).lower()
    return suffix if image.is_file() and suffix in (*NIFTI, *ITK, ".png") else ".nii.gz"


def require_rule(path: Path, bundle: Bundle) -> None:
    """Refuse a DICOM series that a bundle is not meant for, as `medseg segment` does."""
    series = medseg.find_series(path).series if path.is_dir() else ()
    volumes = [volume for one in series for volume in one.volumes if volume.usable]
    for reason in filter(None, map(bundle.input_rule.reason_against, volumes)):
        msg = f"image must be one that {bundle.name} is meant for, but {reason}."
        raise InputError(msg, code="no-usable-volume")


def require_fit(suffix: str, volume: Volume) -> None:
    """Refuse a file type that a mask of an image cannot have, before any compute."""
    fitting = [*NIFTI, *([".png"] if volume.is_2d else [".seg.nrrd", *ITK])]
    fitting += [".dcm"] if volume.source.format == "dicom" else []
    if suffix not in fitting:
        msg = (
            f"result_extension must be among {', '.join(fitting)} for this"
            f" {volume.source.format} image of {size_text(volume.shape)}, got {suffix!r}."
        )
        raise UsageError(msg)


def written(segmentation: Segmentation, suffix: str, bundle: Bundle) -> Path:
    """Write a mask to a temporary file."""
    writers = {
        **dict.fromkeys(NIFTI, write_nifti_mask),
        **dict.fromkeys(ITK, write_itk_mask),
        ".seg.nrrd": write_segments,
        ".png": write_palette,
        ".dcm": partial(write_dicom, bundle=bundle),
    }
    handle, name = tempfile.mkstemp(suffix=suffix, prefix="medseg-")
    os.close(handle)
    try:
        writers[suffix](segmentation, Path(name))
    except MedsegError:
        Path(name).unlink()
        raise
    return Path(name)


def write_itk_mask(segmentation: Segmentation, path: Path) -> None:
    """Write a mask with SimpleITK: NRRD without compression, as OHIF's plug-in reads it."""
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory() as folder:
        nifti = Path(folder) / "mask.nii"
        write_nifti_mask(segmentation, nifti)
        sitk.WriteImage(sitk.ReadImage(str(nifti)), str(path))


def write_segments(segmentation: Segmentation, path: Path) -> None:
    from medseg.io.seg_nrrd import write_seg_nrrd

    write_seg_nrrd(segmentation, path)


def write_palette(segmentation: Segmentation, path: Path) -> None:
    from medseg.io.raster import write_palette_png

    write_palette_png(segmentation.array, segmentation.labels, path)


def write_dicom(segmentation: Segmentation, path: Path, *, bundle: Bundle) -> None:
    from medseg.io.dicom.algorithm import Algorithm
    from medseg.io.dicom.seg_write import write_segmentation

    weights = {"weights_sha256": bundle.weights_sha256() or ""}
    write_segmentation(path, segmentation, Algorithm(bundle.name, bundle.version, weights))
