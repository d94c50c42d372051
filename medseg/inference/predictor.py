"""Predictor: a bundle's weights loaded once, called on volumes."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from medseg.bundle import Bundle, load_bundle
from medseg.bundle.build import InferenceParts, build_inference
from medseg.bundle.ending import Ending
from medseg.errors import BundleError, UsageError
from medseg.inference.backends import Chooser, Demand
from medseg.inference.confidence import CertaintyMap, label_confidence
from medseg.inference.execution import Execution, Networks
from medseg.inference.inferers import EvenInferer, StreamingInferer
from medseg.inference.intake import Intake, has_fixed_scale, said, spatial_dims
from medseg.inference.maps import ClassMaps, StreamedMaps, WholeMaps, require_class_maps
from medseg.inference.memory import Foreseen, foresee
from medseg.inference.own_steps import OwnMask, labels_of, own_mask
from medseg.inference.postprocess import postprocessed
from medseg.inference.preprocess import affine_of, preprocessed
from medseg.inference.previous_stage import PreviousStaged, StageRun
from medseg.inference.restore import Meaning, Restoring, restore_mask
from medseg.inference.stream import Streaming, Work
from medseg.inference.windows import Windows, whole_image, windows_of
from medseg.io.probabilities import ProbabilityStore
from medseg.volume import Segmentation, Volume

log = logging.getLogger(__name__)

PLANES_AT_ONCE = 8
"""Planes of class maps that are made probabilities together: what takes memory beside them."""

MADE_ELSEWHERE = Demand(agreement=0.9999, label_dice=0.9995, voxels=20_000)
"""Of a bundle that other software made, whose users compare masks with those they had."""

IMPORTED = Demand(label_dice=0.9995, voxels=20_000)
"""Of a model that was imported, likewise."""

BundleLike = Bundle | str | Path


class Predictor:
    """Segment volumes with one bundle.

    The weights are loaded once. Calling it spawns no process and changes no global state.

    Args:
        bundle: The bundle, its folder, or its name; of several the probabilities are averaged.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.
        overlap: Overlap of the sliding window, 0 to below 1; the bundle's own when left out.
        tta: Average over mirrorings: eight times the work in 3D, four times in 2D.
        execution: How the networks are run; the fastest way that agrees with torch when left out.
        trust: Run whatever the bundles' configs name, their own code included.

    Raises:
        BundleError: If a bundle cannot segment, needs trust (`needs-trust`), or several do not
            find the same labels in the same channels (`ensemble-mismatch`).
        UsageError: If the device is not there, or does not run what is asked for.

    Examples:
        >>> predictor = Predictor("hippocampus_mri")  # doctest: +SKIP
        >>> segmentation = predictor(medseg.read("scan.nii.gz"))  # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: BundleLike | Sequence[BundleLike],
        *,
        device: str = "auto",
        overlap: float | None = None,
        tta: bool = False,
        execution: Execution | None = None,
        trust: bool = False,
    ) -> None:
        several = [bundle] if isinstance(bundle, Bundle | str | Path) else list(bundle)
        self.bundles = tuple(b if isinstance(b, Bundle) else load_bundle(b) for b in several)
        _require_agreement(self.bundles)
        self.bundle = self.bundles[0]
        self.device = resolve_device(device)
        require_overlap(overlap)
        self.execution = execution or Execution()
        chooser = Chooser(
            self.execution.backend,
            self.execution.precision,
            self.bundle.regions,
            _demand(self.bundles),
        )
        chooser.kinds(self.device)  # refuses what the device does not run
        self._members = [
            Networks(
                [
                    build_inference(one, self.device, overlap=overlap, weights=weights, trust=trust)
                    for weights in one.weight_files
                ],
                self.device,
                chooser,
                self.execution,
                tta=tta,
                mirror_axes=one.mirror_axes,
            )
            for one in self.bundles
        ]
        for stage in self.previous_stages:
            stage.run = StageRun(str(self.device), execution, tta)
        fixed = any(has_fixed_scale(networks.parts[0]) for networks in self._members)
        self.intake = Intake(self.bundle, _common_dims(self._members), fixed)
        every = [part for networks in self._members for part in networks.parts]
        self._problems = tuple(dict.fromkeys(p for part in every for p in part.problems))
        self._own = _own_ending(self.bundle, every)
        activated = any(part.ending and part.ending.activated for part in every)
        self._averaged = len(every) > 1 or activated

    def __call__(
        self,
        volume: Volume,
        *,
        tell: Callable[[str], None] | None = None,
        probabilities: Path | None = None,
    ) -> Segmentation:
        """Segment one volume.

        Args:
            volume: (C, I, J, K), or (C, rows, columns) for a bundle of 2D images, with as many
                channels as the bundle expects (of pictures see `Intake.taken`); not changed.
            tell: Told, before the networks run, how much memory is foreseen.
            probabilities: Folder on a disk with room for the probabilities of all classes, 2 bytes
                a voxel and class; they are not kept when left out.

        Returns:
            The mask on the grid of the volume.

        Raises:
            InputError: If the volume has other dimensions (`wrong-dimensions`) or channels
                (`wrong-channels`), goes to a CT bundle without being Hounsfield units
                (`not-hu-like`), or does not fit in memory (`too-large`).
            BundleError: If the network returns other classes than the metadata names.
            GeometryError: If preprocessing rotates the grid.
        """
        volume = said(self.intake.taken(volume), self._problems)
        self._require_room_for(probabilities)
        started = time.perf_counter()
        images = [
            preprocessed(volume, networks.parts[0], is_ct=self.intake.is_ct)
            for networks in self._members
        ]
        seconds = {"preprocess": time.perf_counter() - started, "network": 0.0}
        tasks = [
            _Task.of(image, networks, self.device)
            for image, networks in zip(images, self._members, strict=True)
        ]
        foreseen = self._foreseen(volume, tasks)
        store = None if probabilities is None else self._store(volume, probabilities)
        if tell is not None:
            tell(str(foreseen))
        try:
            mask, work, certain = self._mask(volume, tasks, foreseen.how, seconds, store)
        except torch.cuda.OutOfMemoryError:
            log.warning("the GPU's memory does not suffice: class maps are added up off it")
            torch.cuda.empty_cache()
            how = replace(foreseen.how, half=True, device=torch.device("cpu"), batch_size=1)
            mask, work, certain = self._mask(volume, tasks, how, seconds, store)
        result = Segmentation(
            array=mask.array,
            affine=volume.affine,
            labels=self.bundle.labels,
            source=volume.source,
            seconds=seconds,
            inference={
                "networks": [one for networks in self._members for one in networks.as_json()],
                "windows": work.windows,
                "windows_skipped": work.repeated,
                "memory": foreseen.as_json(),
            },
        )
        if self._own is not None:
            labels, problems = labels_of(mask, self.bundle)
            result = replace(result, labels=labels, source=said(volume, problems).source)
        result = postprocessed(result, self.bundle.postprocessing)
        started = time.perf_counter()
        # numbers of the bundle's own are no channels, of which the networks could be sure
        certain = [] if mask.numbered else certain
        confidence = label_confidence(result, self.bundle.labels, certain)
        seconds["confidence"] = time.perf_counter() - started
        return replace(result, confidence=confidence, probabilities=store)

    @property
    def previous_stages(self) -> list[PreviousStaged]:
        """The steps of preprocessing that run the first network of a cascade."""
        steps = [step for one in self._members for step in one.parts[0].preprocessing]
        return [step for step in steps if isinstance(step, PreviousStaged)]

    def _require_room_for(self, probabilities: Path | None) -> None:
        if probabilities is not None and self._own is not None:
            msg = (
                f"probabilities must be left out for {self.bundle.name}, whose own postprocessing"
                " makes the mask."
            )
            raise UsageError(msg)

    def _store(self, volume: Volume, folder: Path) -> ProbabilityStore:
        names = {label.index: label.name for label in self.bundle.labels}
        channels = [(value, names.get(value, "background")) for value in self.bundle.values]
        exclusive = not self.bundle.regions
        return ProbabilityStore(volume.shape, channels, exclusive=exclusive, folder=folder)

    def _foreseen(self, volume: Volume, tasks: Sequence["_Task"]) -> Foreseen:
        outputs = len(self.bundle.values)
        loads = [
            replace(
                task.networks.load(
                    task.windows or whole_image(task.image.shape[1:]), len(task.image), outputs
                ),
                mean=self._averaged,
                streamed=task.windows is not None,
                noted=outputs if self.bundle.regions else 3,
            )
            for task in tasks
        ]
        own, gpu = self.execution.budget_bytes(self.device)
        batches = [int(t.inferer.sw_batch_size) for t in tasks if t.windows is not None]
        # a processor is no faster with several at once
        batch = min(batches, default=1) if self.device.type == "cuda" else 1
        how = Streaming(
            batch,
            self.execution.skip_empty,
            half=all(t.windows is not None and t.windows.half_sums for t in tasks),
            regions=self.bundle.regions,
        )
        return foresee(loads, volume.shape, how, budget_bytes=own, gpu_budget_bytes=gpu)

    def _mask(
        self,
        volume: Volume,
        tasks: Sequence["_Task"],
        how: Streaming,
        seconds: dict[str, float],
        store: ProbabilityStore | None,
    ) -> tuple[OwnMask, Work, list[CertaintyMap]]:
        """Return the mask on the grid of the volume, what was done for it, and how sure it is."""
        before = sum(networks.seconds for networks in self._members)
        work = Work()
        certain = [self._certainty(task.image) for task in tasks]
        maps = [
            self._class_maps(task, how, seconds, work, watcher)
            for task, watcher in zip(tasks, certain, strict=True)
        ]
        seconds["choose"] = sum(networks.seconds for networks in self._members) - before
        started, earlier = time.perf_counter(), seconds["network"]
        level = 0.5 if self._averaged else 0.0
        rules = self.bundle.restoring
        restoring = None if rules is None else Restoring(**rules)
        meaning = Meaning(
            self.bundle.values, self.bundle.regions, level, not self._averaged, restoring
        )
        shape, affine = volume.shape, volume.affine
        (first, *_), (task, *_) = maps, tasks
        if self._own is not None and isinstance(first, WholeMaps):
            mask = own_mask(self._own, task.image, first.maps, volume, self.bundle)
        else:
            mask = OwnMask(
                restore_mask(maps, shape, affine, meaning, strips=how.strips, sink=store)
            )
        # the networks run while the mask is made
        running = seconds["network"] - earlier
        seconds["restore"] = time.perf_counter() - started - running
        return mask, work, certain

    def _certainty(self, image: MetaTensor) -> CertaintyMap:
        return CertaintyMap.empty(
            image.shape[1:],
            affine_of(image),
            self.bundle.values,
            regions=self.bundle.regions,
            logits=not self._averaged,
        )

    def _class_maps(
        self,
        task: "_Task",
        how: Streaming,
        seconds: dict[str, float],
        work: Work,
        watcher: CertaintyMap,
    ) -> ClassMaps:
        """Return what the networks of one bundle say on average; logits where it is one alone."""
        affine = affine_of(task.image)
        image = task.image.as_tensor()
        if task.windows is not None:
            networks = task.networks.ready(image, task.windows)
            return StreamedMaps(
                image, networks, task.windows, affine, how, self._checked, seconds, work, watcher
            )
        started = time.perf_counter()
        inputs = image[None].to(self.device)
        with torch.inference_mode():
            maps = [
                task.inferer(inputs, task.networks.augmented(part.network))
                for part in task.networks.parts
            ]
        seconds["network"] += time.perf_counter() - started
        joined = self._checked([one[0] for one in maps])
        watcher.note(0, 0, joined)
        return WholeMaps(joined, affine)

    def _checked(self, several: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the maps of one network, or the mean of the probabilities of several."""
        for maps in several:
            require_class_maps(maps, len(self.bundle.values), self.bundle.name)
        if not self._averaged:
            return several[0]
        result = several[0].new_empty(several[0].shape, dtype=torch.float32)
        for first in range(0, result.shape[1], PLANES_AT_ONCE):
            part = result.narrow(1, first, min(PLANES_AT_ONCE, result.shape[1] - first))
            part.zero_()
            for maps in several:
                part += self._probabilities(maps.narrow(1, first, part.shape[1]))
            part /= len(several)
        return result

    def _probabilities(self, maps: torch.Tensor) -> torch.Tensor:
        maps = maps.float()
        return maps.sigmoid() if self.bundle.regions else maps.softmax(dim=0)


@dataclass(frozen=True)
class _Task:
    """One image and the networks of one bundle that get it; windows where they can be streamed."""

    image: MetaTensor
    networks: Networks
    windows: Windows | None

    @classmethod
    def of(cls, image: MetaTensor, networks: Networks, device: torch.device) -> "_Task":
        inferer = networks.parts[0].inferer  # folds of a bundle differ in their weights alone
        # not one that does more than MONAI's
        plain = type(inferer) in (SlidingWindowInferer, StreamingInferer, EvenInferer)
        ending = networks.parts[0].ending
        whole = ending is not None and bool(ending.steps)
        if plain and not whole and not getattr(inferer, "with_coord", False):
            return cls(image, networks, windows_of(inferer, image.shape[1:], device))
        return cls(image, networks, None)

    @property
    def inferer(self) -> Any:
        return self.networks.parts[0].inferer


def _demand(bundles: Sequence[Bundle]) -> Demand:
    """Return what is asked of the way that networks are run, beyond what is asked for our own."""
    if any(bundle.is_foreign for bundle in bundles):
        return MADE_ELSEWHERE
    return IMPORTED if any(bundle.is_imported for bundle in bundles) else Demand()


def _own_ending(bundle: Bundle, parts: Sequence[InferenceParts]) -> Ending | None:
    """Return the bundle's own ending, where medseg's does not take its place."""
    endings = [part.ending for part in parts if part.ending and part.ending.steps]
    if endings and len(parts) > 1:
        msg = (
            "bundles must end in activation, Invertd and AsDiscreted to be averaged, got"
            f" {bundle.name} with postprocessing of its own."
        )
        raise BundleError(msg, code="ensemble-mismatch")
    return endings[0] if endings else None


def _require_agreement(bundles: Sequence[Bundle]) -> None:
    if not bundles:
        msg = "bundle must name at least one bundle, got none."
        raise UsageError(msg)
    first = bundles[0]
    wanted = _signature(first)
    for other in bundles[1:]:
        if _signature(other) != wanted:
            msg = (
                "bundles must find the same labels in the same channels, and restore them alike,"
                f" got {first.name} with {wanted} and {other.name} with {_signature(other)}."
            )
            raise BundleError(msg, code="ensemble-mismatch")


def _common_dims(members: Sequence[Networks]) -> int | None:
    found = {spatial_dims(networks.parts[0]) for networks in members} - {None}
    if len(found) > 1:
        msg = "bundles must all be of 2D images or all of 3D volumes, got both."
        raise BundleError(msg, code="ensemble-mismatch")
    return found.pop() if found else None


def _signature(bundle: Bundle) -> dict[str, Any]:
    return {
        "labels": {label.name: label.index for label in bundle.labels},
        "regions": bundle.regions,
        "channels": bundle.input_rule.channels,
        "channel_names": [name for name, _ in bundle.input_rule.channel_rules],
        "modality": bundle.input_rule.modality,
        "postprocessing": bundle.postprocessing,
        "restoring": bundle.restoring,
    }


def require_overlap(overlap: float | None) -> None:
    """Refuse an overlap of windows or tiles that is out of range.

    Args:
        overlap: Share of a window; None for the bundle's own.

    Raises:
        UsageError: If it is below 0, or 1 or more.
    """
    if overlap is not None and not 0 <= overlap < 1:
        msg = f"overlap must be at least 0 and below 1, got {overlap!r}."
        raise UsageError(msg)


def resolve_device(name: str) -> torch.device:
    """Return the device that a name stands for.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The device.

    Raises:
        UsageError: If the name is none of these or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        msg = f"device must be auto, cpu, cuda or cuda:N, got {name!r}."
        raise UsageError(msg)
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        msg = f"device must be there, got {name!r} with {count} CUDA devices. Use --device cpu."
        raise UsageError(msg)
    return torch.device(name)
