"""Files that come from a browser: written to disk while they come, counted, decoded, and kept by their content."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from ..data.captions import decode, same_name
from ..data.images import EXTENSIONS, OTHER_PICTURES, is_hidden
from ..errors import MaquetteError
from ..limits import CAPTION_BYTES
from .archives import ZIP, Entry, unpacked
from .photos import MOST_BYTES, MOST_PHOTOS, Photo
from .store import Project

MOST_FILES = 2 * MOST_PHOTOS + 10  # of one request: photos with their texts
ARCHIVE_BYTES = 2_000_000_000


@dataclass
class Incoming:
    """A file that came, in the folder for what comes in. fault: why it is not used."""

    name: str
    path: Path
    size: int = 0
    fault: str | None = None


@dataclass
class Outcome:
    """What became of an upload."""

    added: list[Photo] = field(default_factory=list)
    captions: int = 0  # text files that found their photo
    skipped: list[dict[str, str]] = field(default_factory=list)  # name and message of what was not used

    def skip(self, name: str, message: str) -> None:
        self.skipped.append({"name": name, "message": message})


class Receiver:
    """Writes the files of a multipart body into a folder while it comes."""

    def __init__(self, content_type: str, folder: Path) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise MaquetteError("Send the files as multipart/form-data.")
        self.folder, self.files = folder, list[Incoming]()
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._open: IO[bytes] | None = None
        callbacks: Any = {
            "on_part_begin": self._begin, "on_header_field": self._field, "on_header_value": self._more,
            "on_header_end": self._header_end, "on_headers_finished": self._start, "on_part_data": self._data,
            "on_part_end": self._end,
        }  # fmt: skip
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, chunk: bytes) -> None:
        """Raises MaquetteError for a body that is none, or of too many files."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MaquetteError("The upload was cut off or is not multipart/form-data; send it again.") from error

    def close(self) -> None:
        self._end()

    def _begin(self) -> None:
        self._headers, self._header, self._value = {}, b"", b""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _more(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _start(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"filename")
        if name is None:
            return  # a plain field
        if len(self.files) >= MOST_FILES:
            raise MaquetteError(f"Send at most {MOST_FILES} files at once.")
        incoming = Incoming(name.decode("utf-8", "replace"), self.folder / str(len(self.files)))
        self.files.append(incoming)
        self._open = incoming.path.open("wb")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._open is None:
            return
        file, piece = self.files[-1], data[start:end]
        if not file.size and piece:
            file.size = 0
        file.size += len(piece)
        if file.fault is None and file.size > (ARCHIVE_BYTES if is_archive(file.name) else MOST_BYTES):
            file.fault = f"{shown(file.name)} is larger than {MOST_BYTES // 10**6} MB; save it smaller."
            self._open.truncate(0)
        if file.fault is None:
            self._open.write(piece)

    def _end(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def is_archive(name: str) -> bool:
    return name.lower().endswith(".zip")


def shown(name: str) -> str:
    from .names import shown_file

    return shown_file(name) or "a file"


async def take(project: Project, content_type: str, body: AsyncIterator[bytes], incoming: Path) -> Outcome:
    """Receive the files of a request, and add them to a project."""
    incoming.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=incoming))
    try:
        receiver = Receiver(content_type, folder)
        try:
            async for chunk in body:
                await run_in_threadpool(receiver.feed, chunk)
        except OSError as error:
            raise MaquetteError(f"The upload could not be kept: {error.strerror or error}.") from error
        finally:
            receiver.close()
        return await run_in_threadpool(add, project, receiver.files)
    finally:
        await run_in_threadpool(shutil.rmtree, folder, True)


def add(project: Project, files: Iterable[Incoming]) -> Outcome:
    """Photos first, then the texts of the same names."""
    outcome, texts = Outcome(), list[Entry]()
    for file in files:
        if file.fault is not None:
            outcome.skip(shown(file.name), file.fault)
            continue
        with file.path.open("rb") as opened:
            archive = opened.read(4) == ZIP
        if archive:
            _add_archive(project, file, outcome, texts)
        else:
            _add_one(project, Entry(file.name, file.path.read_bytes()), outcome, texts)
        file.path.unlink()
    for text in texts:
        _add_text(project, text, outcome)
    return outcome


def _add_archive(project: Project, file: Incoming, outcome: Outcome, texts: list[Entry]) -> None:
    try:
        for entry in unpacked(file.path, shown(file.name)):
            _add_one(project, entry, outcome, texts)
    except MaquetteError as error:
        outcome.skip(shown(file.name), str(error))


def _add_one(project: Project, entry: Entry, outcome: Outcome, texts: list[Entry]) -> None:
    """A photo is added, a text is remembered; what a system leaves in folders is passed over."""
    parts = PurePosixPath(entry.name.replace("\\", "/")).parts
    if any(is_hidden(part) for part in parts if part not in (".", "..")):
        return
    name = shown(entry.name)
    suffix = Path(name).suffix.lower()
    if suffix in (".txt", ".caption"):
        texts.append(entry)
        return
    if suffix not in EXTENSIONS and suffix not in OTHER_PICTURES and re.fullmatch(r"\.\w{1,8}", suffix):
        outcome.skip(name, f"{name} is no photo; photos, text files and zip archives are taken.")
        return
    try:
        outcome.added.append(project.add_photo(entry.data, name))
    except MaquetteError as error:
        outcome.skip(name, str(error))


def _add_text(project: Project, entry: Entry, outcome: Outcome) -> None:
    name = shown(entry.name)
    stem = same_name(Path(name).stem)
    fits = [p for p in project.photos() if stem in (same_name(Path(p.original_name).stem), same_name(p.original_name))]
    if not fits:
        return outcome.skip(name, f"{name} belongs to no photo here: its name is that of none.")
    try:
        if len(entry.data) > CAPTION_BYTES:
            raise MaquetteError(f"{name} is larger than any caption.")
        text, _ = decode(entry.data, name)
        with project.lock:
            fits[-1].set_caption(text)
        outcome.captions += 1
    except MaquetteError as error:
        outcome.skip(name, str(error))
