"""A safetensors file written tensor by tensor, by several threads, into a place that was reserved beforehand.

What is written is never in memory as a whole. The file has no name until it is complete, so that a kill at any moment,
`kill -9` and a power cut included, leaves nothing behind where the file system knows nameless files (O_TMPFILE).
"""

from __future__ import annotations

import errno
import math
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..errors import MaquetteError
from ..files import shown_bytes, sync_folder, umask, unfinished
from .safetensors import head, layout, tensor_bytes

MEMORY = 160_000_000
"""Bytes that tensors which are computed as a whole may need at a time, all threads together, unless one needs more."""

TILE = 1 << 18
"""Numbers that are calculated with at a time: as float32 1 MB, so that what a formula holds of two or three models
stays in the cache of a processor's core, and memory that was freed serves the next tile; of a quarter as many, threads
wait for Python's lock as long as they calculate.
"""


@dataclass(frozen=True)
class Entry:
    """A tensor to be written: dtype and shape in the file, and its numbers as pieces that follow one another.

    pieces: of any floating-point type and shape; together they have as many numbers as the shape says. memory: bytes
    that computing it takes, where that is more than a tile.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Callable[[], Iterable[Tensor]]
    memory: int = 0

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write(
    entries: Mapping[str, Entry],
    path: str | Path,
    metadata: Mapping[str, str],
    finish: Callable[[], Mapping[str, str]] | None = None,
    beside: Sequence[Callable[[], None]] = (),
    threads: int = 1,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Write a safetensors file. Same entries and metadata, same bytes, whatever the number of threads.

    finish: the metadata as it is known only after everything was read (hashes); it must be as long as `metadata`.
    beside: other work, as of `run_all`. on_bytes: called with the bytes of each tensor when it is
    written, by one thread at a time. Raises MaquetteError when the disk is too full, before anything is written, and
    whatever computing a tensor raises; then nothing is left.
    """
    names = layout({name: entry.dtype for name, entry in entries.items()})
    described = {name: (entries[name].dtype, entries[name].shape) for name in names}
    start = len(head(described, metadata))
    places, size = {}, start
    for name in names:
        places[name], size = size, size + entries[name].nbytes
    with filled(path, size, on_bytes) as file:
        run_all([partial(file.put, entries[name], places[name], name) for name in names], threads, beside)
        final = head(described, finish() if finish else metadata, start)
        if len(final) != start:
            raise ValueError("the metadata changed its length")
        file.write(final, 0)


class Filled:
    """A file of a fixed size whose places several threads fill. on_bytes: as of `write`. flusher: is told of bytes."""

    def __init__(self, handle: int, flusher: Flusher, on_bytes: Callable[[int], None] | None = None) -> None:
        self.handle, self.flusher, self.budget = handle, flusher, Budget(MEMORY)
        self.on_bytes, self._reporting = on_bytes, threading.Lock()

    def write(self, raw: bytes | memoryview, place: int) -> None:
        """Write bytes at a place."""
        left = memoryview(raw)
        while left:
            written = _write_at(self.handle, left, place)
            self.flusher.wrote(written)
            left, place = left[written:], place + written

    def put(self, entry: Entry, place: int, name: str, checksum: Callable[[memoryview, int], int] | None = None) -> int:
        """Compute an entry and write it at its place. Returns the checksum over its bytes, or 0."""
        end, summed = place + entry.nbytes, 0
        with self.budget.of(entry.memory):
            for raw in _raw(entry):
                if place + len(raw) > end:
                    raise ValueError(f"{name} has more numbers than its shape says")
                self.write(raw, place)
                place += len(raw)
                summed = checksum(raw, summed) if checksum else 0
        if place != end:
            raise ValueError(f"{name} has fewer numbers than its shape says")
        if self.on_bytes is not None:
            with self._reporting:
                self.on_bytes(entry.nbytes)
        return summed


@contextmanager
def filled(path: str | Path, size: int, on_bytes: Callable[[int], None] | None = None) -> Iterator[Filled]:
    """A file of `size` bytes to be filled; see `reserved`. Raises MaquetteError when the disk has too little room."""
    require_room(Path(path), size)
    with reserved(path, size) as handle, Flusher(handle) as flusher:
        yield Filled(handle, flusher, on_bytes)


FLUSHED = 1 << 27
"""Bytes after which the disk is asked to write."""


class Flusher:
    """Has the disk write while the rest is computed, by a thread of its own: else many a system begins when a tenth of
    the memory waits, or at the very end. What the disk answers is raised when the block ends.
    """

    def __init__(self, handle: int) -> None:
        self.handle, self.waiting, self.closed = handle, 0, False
        self.error: OSError | None = None
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Flusher:
        if hasattr(os, "fdatasync"):
            self.thread.start()
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify()
        if self.thread.ident is not None:
            self.thread.join()
        if self.error is not None and kind is None:
            raise self.error

    def wrote(self, size: int) -> None:
        """So many bytes more were given to the system."""
        with self.changed:
            self.waiting += size
            if self.waiting >= FLUSHED:
                self.changed.notify()

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.closed or self.waiting >= FLUSHED)
                if self.closed:
                    return
                self.waiting = 0
            try:
                os.fdatasync(self.handle)
            except OSError as error:
                self.error = error
                return


def _raw(entry: Entry) -> Iterator[memoryview]:
    """The entry's bytes, in portions; what has to be converted is so tile by tile."""
    for piece in entry.pieces():
        if piece.dtype == entry.dtype:
            yield tensor_bytes(piece)
        else:
            yield from (tensor_bytes(tile.to(entry.dtype)) for tile in tiles(piece))


def tiles(tensor: Tensor, numbers: int = TILE) -> Sequence[Tensor]:
    """The tensor in rows, views of about so many numbers each; a row is never cut."""
    if tensor.numel() <= numbers or tensor.ndim == 0:
        return (tensor,)
    return torch.split(tensor, max(1, numbers * len(tensor) // tensor.numel()))


_SEEKING = threading.Lock()


def _write_at(file: int, raw: memoryview, place: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, raw, place)
    with _SEEKING:  # Windows has one position for all threads
        os.lseek(file, place, os.SEEK_SET)
        return os.write(file, raw)


def require_room(path: Path, size: int) -> None:
    """Raise MaquetteError when the disk has not `size` bytes left for a file."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise MaquetteError(
            f"{path} needs {shown_bytes(size)}, but its disk has {shown_bytes(free)} left; make room or choose another "
            "place with --out. Nothing was written."
        )


@contextmanager
def reserved(path: str | Path, size: int) -> Iterator[int]:
    """File descriptor of a file of `size` bytes that gets its name, and takes the place of an older file, only when the
    block ends well. Raises MaquetteError naming the path when it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{unfinished(path)}{secrets.token_hex(4)}.part")
    named = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, named = _open(path, temporary)
        try:
            _reserve(file, size)
            yield file
            os.fsync(file)
            if not named:
                os.link(f"/proc/self/fd/{file}", temporary, src_dir_fd=file)  # a descriptor's link is followed
                named = True
        finally:
            os.close(file)
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
        named = False
        sync_folder(path.parent)
    except OSError as error:
        raise MaquetteError(f"{path} cannot be written: {error.strerror or error}.") from error
    finally:
        if named:
            temporary.unlink(missing_ok=True)


def _open(path: Path, temporary: Path) -> tuple[int, bool]:
    """A new file for writing, and whether it has a name yet."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        with suppress(OSError):  # not known to this file system; any other fault meets the file with a name too
            return os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o600), False
    return os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o600), True


def _reserve(file: int, size: int) -> None:
    try:
        os.posix_fallocate(file, 0, size)
    except (OSError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(file, size)


class Budget:
    """Memory that several threads share: whoever needs more than is left waits, unless it is alone."""

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self.changed = threading.Condition()

    @contextmanager
    def of(self, size: int) -> Iterator[None]:
        if size == 0:
            yield
            return
        with self.changed:
            self.changed.wait_for(lambda: self.used == 0 or self.used + size <= self.most)
            self.used += size
        try:
            yield
        finally:
            with self.changed:
                self.used -= size
                self.changed.notify_all()


def run_all(tasks: Sequence[Callable[[], object]], threads: int, beside: Sequence[Callable[[], object]] = ()) -> None:
    """Do every task, in order, by so many threads of one processor each. The first error ends all and is raised.

    beside: tasks of another kind, by as many threads more, so that a file that both kinds read is read from the disk
    once; with one thread they come first.
    """
    if threads <= 1:
        for task in [*beside, *tasks]:
            task()
        return
    lock, stop = threading.Lock(), threading.Event()

    def work(left: Iterator[Callable[[], object]]) -> None:
        while not stop.is_set():
            with lock:
                task = next(left, None)
            if task is None:
                return
            try:
                task()
            except BaseException:
                stop.set()
                raise

    queues = [iter(tasks)] * threads + [iter(beside)] * min(threads, len(beside))
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of each of ours, which ask for it when they begin
    try:
        with ThreadPoolExecutor(len(queues)) as pool:
            try:
                for future in [pool.submit(work, queue) for queue in queues]:
                    future.result()
            finally:
                stop.set()
    finally:
        torch.set_num_threads(before)
