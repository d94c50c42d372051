"""Find the objects of images and volumes with one bundle."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medseg.bundle import Bundle, load_bundle
from medseg.bundle.build import build_inference
from medseg.data.limits import give_back_freed_memory
from medseg.errors import BundleError, Problem, UsageError
from medseg.inference.execution import Execution
from medseg.inference.intake import Intake, has_fixed_scale, said
from medseg.inference.objects.link import link
from medseg.inference.objects.paste import onto_between
from medseg.inference.objects.tiles import Detect, ObjectInferer
from medseg.inference.predictor import require_overlap, resolve_device
from medseg.inference.preprocess import LARGE_PICTURE_BYTES, affine_of, preprocessed
from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.volume import Volume, mask_dtype


class ObjectPredictor:
    """Find object instances with one bundle, as `Predictor` segments with others.

    Args:
        bundle: The bundle, its folder, or its name.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        overlap: Share of a tile that the next one sees as well; the bundle's own when left out.
        least_score: Objects of a lower score are candidates and no more.
        execution: How the network is run; here torch in float32 or bfloat16 alone.
        trust: Run whatever the bundle's configs name, its own code included.

    Raises:
        BundleError: If the bundle finds no objects (`no-objects`), or cannot be built.
        UsageError: If the device is not there, another library is asked for, or the overlap is out
            of range.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        *,
        device: str = "auto",
        overlap: float | None = None,
        least_score: float = 0.5,
        execution: Execution | None = None,
        trust: bool = False,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
        self.bundles = (self.bundle,)
        if not self.bundle.finds_objects:
            msg = f"bundle must find objects, got {self.bundle.name}, which segments classes."
            raise BundleError(msg, code="no-objects")
        execution = execution or Execution()
        if execution.backend not in ("auto", "torch"):
            msg = (
                f"backend must be torch for {self.bundle.name}, which finds objects, got"
                f" {execution.backend!r}."
            )
            raise UsageError(msg)
        require_overlap(overlap)
        self.device = resolve_device(device)
        self.least_score = float(least_score)
        self.precision = "bf16" if execution.precision == "bf16" else "fp32"
        self._parts = build_inference(self.bundle, self.device, overlap=overlap, trust=trust)
        if not isinstance(self._parts.inferer, ObjectInferer):
            kind = type(self._parts.inferer).__name__
            msg = f"inferer of {self.bundle.name} must be an ObjectInferer, got {kind}."
            raise BundleError(msg, code="bad-config")
        self.inferer: ObjectInferer = self._parts.inferer
        self.intake = Intake(self.bundle, None, has_fixed_scale(self._parts))

    def __call__(
        self, volume: Volume, *, tell: Callable[[str], None] | None = None
    ) -> ObjectSegmentation:
        """Find the objects of one image, or of a volume slice by slice.

        Args:
            volume: (C, rows, columns), or (C, I, J, K), of which the slices along K are taken, with
                J down and I across.
            tell: Told which slice is being looked at.

        Returns:
            The objects, on the grid of the volume.

        Raises:
            InputError: As `Predictor`.
            GeometryError: If preprocessing turns or flips the image.
        """
        volume = self.intake.taken(volume)
        started = time.perf_counter()
        planes = [volume] if volume.is_2d else [_slice(volume, k) for k in range(volume.shape[2])]
        candidates = []
        network = _Watched(self._parts.network, self.least_score)
        for number, plane in enumerate(planes):
            if tell is not None and len(planes) > 1:
                tell(f"slice {number + 1} of {len(planes)}")
            candidates.append(self._objects(plane, network))
        if volume.is_2d and volume.array.nbytes > LARGE_PICTURE_BYTES // 4:
            give_back_freed_memory()  # what the network took lies in pieces
        slices = [own.chosen(own.scores >= self.least_score) for own in candidates]
        numbers = link(slices)
        classes = [objects.painted(objects.classes) for objects in slices]
        array = classes[0] if volume.is_2d else np.stack([one.T for one in classes], axis=-1)
        ran = {"backend": "torch", "precision": self.precision, "name": self.bundle.name}
        return ObjectSegmentation(
            array=array.astype(mask_dtype(int(array.max(initial=0)))),
            affine=volume.affine,
            labels=self.bundle.labels,
            source=said(volume, network.problems).source,
            seconds={"network": time.perf_counter() - started},
            inference={"networks": [ran], "objects": sum(len(own) for own in slices)},
            slices=tuple(slices),
            numbers=numbers,
            candidates=tuple(candidates),
        )

    def _objects(self, plane: Volume, network: "_Watched") -> ObjectInstances:
        image = preprocessed(plane, self._parts, is_ct=self.intake.is_ct)
        rows, columns = plane.shape
        onto = onto_between(affine_of(image), plane.affine, (int(rows), int(columns)))
        tensor = image.as_tensor().to(self.device)
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), half:
            return self.inferer.find(tensor, network, onto)


class _Watched:
    """A network, and in how many tiles it found as many objects as it can."""

    def __init__(self, network: Detect, least_score: float) -> None:
        self.network = network
        self.least_score = least_score
        self.most: int | None = getattr(network, "most_objects", None)
        self.full = 0

    def __call__(self, batch: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        found = self.network(batch)
        for scores in (detected["scores"] for detected in found):
            if self.most is not None and len(scores) >= self.most:
                self.full += bool(scores.min() >= self.least_score)
        return found

    @property
    def problems(self) -> tuple[Problem, ...]:
        if not self.full:
            return ()
        text = (
            f"in {self.full} tile{'s' * (self.full > 1)} there are as many objects as the network"
            f" can find, {self.most}: others may be missing (network_def#most_objects)"
        )
        return (Problem("too-many-objects", text, "warning"),)


def _slice(volume: Volume, number: int) -> Volume:
    """Return a slice as a picture: the second axis down, the first across."""
    spacing = np.linalg.norm(volume.affine[:3, :3], axis=0)
    affine = np.diag([spacing[1], spacing[0], 1.0])
    array = np.ascontiguousarray(volume.array[..., number].transpose(0, 2, 1))
    return replace(volume, array=array, affine=affine)
