"""Cases preprocessed once: an on-disk cache, mapped into memory, that all processes share."""

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from medseg.data.content import MEMO_FOLDER, ContentDigests
from medseg.data.entry import ENTRY_FORMAT, Entry, open_entry, prepared_case, write_entry
from medseg.data.prepare import Failure, fill
from medseg.data.ranks import gathered, rank_and_world
from medseg.data.signature import describe_transforms, text_digest
from medseg.data.threads import one_thread
from medseg.errors import InputError, MedsegError, OutputError, UsageError
from medseg.io.atomic import output_errors, remove_left_parts

_LISTED_FAILURES = 20
_LONGEST_CASE = 80  # characters of the case id in a folder's name
_PARTS_KEPT_S = 3600.0  # another machine may still be writing what is younger
_ENTRY_NAME = re.compile(r".+-[0-9a-f]{24}$")

Progress = Callable[[int, int], None]


class CachedDataset(Dataset[dict[str, Any]]):
    """Preprocessed cases, each computed once and kept on disk.

    An entry is found by the transforms, their code and the contents of the case's files: whatever
    changes makes a new entry, so that an old one is never taken for it. Items are memory-mapped
    copy-on-write: nothing is read before it is touched, workers share the pages, and writing into
    an item changes neither the file nor the next item.

    Args:
        data: Cases: `{"case": id, "image": path or one path a channel, "label": path}`. A path is
            a file or a DICOM folder.
        transforms: Instantiated transforms that load and preprocess `image` and `label`, and draw
            nothing at random.
        folder: Where the entries lie; may be shared by other datasets, ranks and trainings.
        workers: Processes that `prepare` uses; left out, as many as there are cores and work for.

    Raises:
        UsageError: If `data` or `transforms` cannot be used as they are.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transforms: Sequence[Callable[[Any], Any]],
        folder: str | Path,
        workers: int | None = None,
    ) -> None:
        if callable(transforms) or not transforms:
            msg = f"transforms must be a list of transforms, got {transforms!r}. List them."
            raise UsageError(msg)
        if workers is not None and workers < 1:
            msg = f"workers must be at least 1, got {workers!r}. Leave it out to have it chosen."
            raise UsageError(msg)
        self.data = _checked(data)
        self.transforms = tuple(transforms)
        self.folder = Path(folder).absolute()
        self.workers = workers
        self.description = describe_transforms(self.transforms)
        self._signature = text_digest(self.description)
        self._contents = ContentDigests(self.folder / MEMO_FOLDER)
        self._entries: dict[int, Path] = {}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a case, preprocessed now if it was not yet.

        Args:
            index: Position in `data`.

        Returns:
            `case`: id; `image`: (C, *spatial) float32; `label`: (1 or regions, *spatial) uint8 or
            uint16; `foreground`: (N, axes) voxel coordinates by class present.

        Raises:
            InputError: If the case cannot be preprocessed; names it.
            OutputError: If the entry cannot be written.
        """
        entry = self.entry(index) or self.prepare_case(index)
        return {
            "case": self.data[index]["case"],
            "image": entry.image(),
            "label": entry.label(),
            "foreground": entry.foreground(),
        }

    def entry_folder(self, index: int) -> Path:
        """Return where the entry of a case lies, or will.

        Args:
            index: Position in `data`.

        Returns:
            The folder.

        Raises:
            InputError: If a file of the case cannot be read; names the case.
        """
        if index not in self._entries:
            item = self.data[index]
            with _naming(item["case"]):
                contents = [self._contents.digest(item[key]) for key in ("image", "label")]
            key = text_digest([ENTRY_FORMAT, self._signature, item["case"], contents])
            name = re.sub(r"[^A-Za-z0-9._-]", "_", item["case"])[:_LONGEST_CASE].lstrip(".")
            self._entries[index] = self.folder / f"{name or 'case'}-{key[:24]}"
        return self._entries[index]

    def entry(self, index: int) -> Entry | None:
        """Return the entry of a case, if there is one.

        Args:
            index: Position in `data`.

        Returns:
            The entry or None.

        Raises:
            InputError: If a file of the case cannot be read.
        """
        return open_entry(self.entry_folder(index))

    def prepare_case(self, index: int) -> Entry:
        """Preprocess a case and write its entry.

        Args:
            index: Position in `data`.

        Returns:
            The entry.

        Raises:
            InputError: If that fails; names the case and the cause.
            OutputError: If the entry cannot be written.
        """
        folder = self.entry_folder(index)
        item = self.data[index]
        with _naming(item["case"]), one_thread():
            data = _apply(self.transforms, item)
            case = prepared_case(item["case"], data)
        before = self._entries.pop(index)
        if self.entry_folder(index) != before:
            msg = f"case {item['case']} must stay as it is while it is read, got changed files."
            raise InputError(msg)
        # What is there and is not whole was cut short by the system, and has to go.
        write_entry(folder, case, keep=not folder.exists() or open_entry(folder) is not None)
        entry = open_entry(folder)
        if entry is None:
            msg = f"{folder} must stay as it was written, got it removed or changed."
            raise OutputError(msg)
        return entry

    def prepare(
        self, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Preprocess every case that has no entry yet.

        The ranks of a distributed run share the work and wait for each other.

        Args:
            progress: Called with the cases done and their total, of this rank.
            stop: Asked after each case whether this rank is to leave the rest of its share; the
                ranks still wait for each other.

        Raises:
            InputError: If cases cannot be preprocessed; the message lists all of them.
            OutputError: If entries cannot be written.
        """
        rank, world = rank_and_world()
        remove_left_parts(self.folder, older_than_s=_PARTS_KEPT_S)
        failures = self._read_all(range(rank, len(self), world))
        gathered(None)  # the other ranks' digests are remembered from here on
        missing = [i for i in self._readable() if self.entry(i) is None]
        gathered(None)  # nobody writes before all have looked, so all see the same list
        failures += fill(self, missing[rank::world], progress, stop)
        _raise([failure for one in gathered(failures) for failure in one], len(self))

    @property
    def portable(self) -> bool:
        """Whether another process can import all that the transforms are made of."""
        return "__main__" not in self.description["code"]

    def _read_all(self, indices: Iterable[int]) -> list[Failure]:
        failures = []
        for index in indices:
            try:
                self.entry_folder(index)
            except MedsegError as error:
                failures.append(Failure.of(index, error))
        return failures

    def _readable(self) -> Iterator[int]:
        for index in range(len(self)):
            try:
                self.entry_folder(index)
            except InputError:
                continue  # reported by the rank whose turn it was
            yield index


def unused_entries(datasets: Sequence[CachedDataset]) -> tuple[Path, ...]:
    """Find the entries beside those of these datasets: of older transforms, of files changed since.

    Entries of other datasets, folds and trainings with the same folder count as unused: name them
    all.

    Args:
        datasets: Datasets whose entries are used.

    Returns:
        Folders of entries that none of them uses, of all their cache folders.

    Raises:
        InputError: If a file of a case cannot be read.
    """
    used = {one.entry_folder(index) for one in datasets for index in range(len(one))}
    folders = {one.folder for one in datasets}
    found = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
    return tuple(
        sorted(
            path
            for path in found - used
            if _ENTRY_NAME.fullmatch(path.name) and (path / "meta.json").is_file()
        )
    )


def remove_unused(datasets: Sequence[CachedDataset]) -> tuple[Path, ...]:
    """Remove what `unused_entries` finds.

    Args:
        datasets: Datasets whose entries stay.

    Returns:
        Folders of the entries that were removed.

    Raises:
        InputError: If a file of a case cannot be read; nothing is removed.
        OutputError: If an entry cannot be removed.
    """
    unused = unused_entries(datasets)
    for folder in unused:
        with output_errors(folder):
            shutil.rmtree(folder)
    return unused


def _checked(data: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = []
    for number, item in enumerate(data):
        if set(item) != {"case", "image", "label"}:
            msg = f"data[{number}] must have case, image and label, got {sorted(item)}."
            raise UsageError(msg)
        cases.append(
            {
                "case": str(item["case"]),
                "image": _paths(item["image"], f"data[{number}]['image']"),
                "label": _paths(item["label"], f"data[{number}]['label']"),
            }
        )
    counts = Counter(case["case"] for case in cases)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        msg = f"data must have each case once, got {', '.join(twice)} more than once."
        raise UsageError(msg)
    return cases


def _paths(value: Any, where: str) -> list[Path]:
    values = [value] if isinstance(value, str | Path) else value
    if not isinstance(values, Sequence) or not values:
        msg = f"{where} must be a path or a list of paths, got {value!r}."
        raise UsageError(msg)
    return [Path(one).absolute() for one in values]


def _apply(transforms: Sequence[Callable[[Any], Any]], item: Mapping[str, Any]) -> dict[str, Any]:
    paths = {key: [str(path) for path in item[key]] for key in ("image", "label")}
    data: Any = {key: one[0] if len(one) == 1 else one for key, one in paths.items()}
    with torch.inference_mode(False), torch.no_grad():
        for transform in transforms:
            data = transform(data)
            if not isinstance(data, Mapping):
                name = type(transform).__name__
                msg = f"{name} must return one case, got {type(data).__name__}. Leave it out here."
                raise InputError(msg)
    return dict(data)


@contextmanager
def _naming(case_id: str) -> Iterator[None]:
    """Name the case in whatever a transform raises."""
    try:
        yield
    except OutputError:
        raise
    except MedsegError as error:
        msg = f"case {case_id}: {error}"
        raise InputError(msg, code=error.code) from error
    except MemoryError as error:
        msg = f"case {case_id}: preprocessing needs more memory than there is."
        raise InputError(msg, code="out-of-memory") from error
    except Exception as error:
        msg = f"case {case_id}: {type(error).__name__}: {error}"
        raise InputError(msg, code="preprocessing") from error


def _raise(failures: list[Failure], total: int) -> None:
    if not failures:
        return
    failures = sorted(failures, key=lambda failure: failure.index)
    listed = [failure.message for failure in failures[:_LISTED_FAILURES]]
    if len(failures) > _LISTED_FAILURES:
        listed.append(f"... and {len(failures) - _LISTED_FAILURES} more")
    codes = {failure.code for failure in failures}
    code = codes.pop() if len(codes) == 1 else None
    msg = "\n  ".join([f"{len(failures)} of {total} cases cannot be preprocessed:", *listed])
    if len(failures) == 1:
        msg = failures[0].message
    kind = OutputError if all(failure.is_output for failure in failures) else InputError
    raise kind(msg, code=code)
