"""Files: what a user or a stranger left on disk is read within a budget; what is written appears whole or not at all.

Only ordinary files are read, and nothing is waited for. What systems do differently is here too: Windows has no flock.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import MaquetteError

_RESERVED = re.compile(r"\A(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|\Z))", re.IGNORECASE)
NAME_BYTES = 200  # of a name that is made; systems take 255, of which endings and temporary names want a part
_KINDS = {
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: str | Path, name: str | None = None) -> BinaryIO:
    """Open an ordinary file (or a link to one) for reading bytes.

    Raises MaquetteError, calling the file `name` where given, when it cannot be read and for pipes, devices, sockets
    and folders, which are not touched: opening a pipe would wait for its other end.
    """
    name = name or str(path)
    try:
        _require_regular(os.stat(path).st_mode, name)
        # Not to wait even when the file is replaced by a pipe between the two calls.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            _require_regular(os.fstat(handle).st_mode, name)
            return os.fdopen(handle, "rb")
        except BaseException:
            os.close(handle)
            raise
    except OSError as error:
        raise MaquetteError(f"{name} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # a null character in the path
        raise MaquetteError(f"{name} cannot be read: {error}.") from error


def _require_regular(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something special")
        raise MaquetteError(f"{name} is {kind}, not an ordinary file; it was not read.")


def lock(handle: int) -> None:
    """Lock an open file for this process alone until it is closed. Raises OSError where another process holds it."""
    try:
        import fcntl
    except ImportError:  # Windows, which locks ranges of bytes, also beyond the end
        msvcrt: Any = importlib.import_module("msvcrt")
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_regular(path: str | Path) -> bool:
    """Whether it is an ordinary file or a link to one. Opens nothing."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def read_bytes(path: str | Path, most: int, what: str, name: str | None = None) -> bytes:
    """The content of an ordinary file of at most `most` bytes. `what` it should be stands in the refusal: "caption"."""
    name = name or str(path)
    with open_regular(path, name) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = b"" if size > most else file.read(most + 1)
        except OSError as error:
            raise MaquetteError(f"{name} cannot be read: {error.strerror or error}.") from error
    if max(size, len(data)) > most:
        raise MaquetteError(f"{name} is larger than any {what} ({shown_bytes(most)} at most); it was not read.")
    return data


def read_text(path: str | Path, most: int, what: str, name: str | None = None) -> str:
    """The text of a UTF-8 file (with or without byte-order mark) of at most `most` bytes."""
    data = read_bytes(path, most, what, name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MaquetteError(f"{name or path} is not UTF-8 text (byte {error.start + 1}); save it as UTF-8.") from error


def shown_bytes(size: int) -> str:
    """2_000_000 -> "2 MB"."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"


def at_home(path: str | Path) -> Path:
    """A path in which ~ is the home folder that it means; as it is where it means none ("~nobody/photos")."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def named_cache() -> Path | None:
    """$MAQUETTE_CACHE, where the user names a folder for everything that is kept between runs."""
    named = os.environ.get("MAQUETTE_CACHE")
    return at_home(named) if named else None


def cache_of_user() -> Path:
    """Where things that belong to no folder of runs are kept: $MAQUETTE_CACHE, or `maquette` in the system's folder for
    caches. Raises RuntimeError for a user without a home.
    """
    if sys.platform == "win32":
        system = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        system = Path.home() / "Library" / "Caches"
    else:
        system = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return named_cache() or system / "maquette"


def slug(text: str, otherwise: str = "run") -> str:
    """A file name without what prompts give a meaning (`:`, `,`, `>`, `=`, space): "zkw robot" -> "zkw-robot";
    `otherwise` where nothing is left. Every system takes it: see `portable`.
    """
    return portable(re.sub(r"[^\w.-]+", "-", text).strip("-.") or otherwise)


def portable(name: str) -> str:
    """The name of a file or folder as every system takes it: "con.v2" -> "con_.v2", for Windows keeps CON, NUL, COM1
    and others to itself with whatever ending, and drops dots and spaces at an end. A long one is cut to NAME_BYTES,
    with a mark of the whole, so that two stay two.
    """
    name = _RESERVED.sub(r"\g<0>_", name).rstrip(" .")
    content = name.encode(errors="ignore")  # halves of surrogate pairs, which arguments may hold
    if len(content) <= NAME_BYTES:
        return content.decode()
    mark = hashlib.sha256(content).hexdigest()[:8]
    return f"{content[: NAME_BYTES - 9].decode(errors='ignore')}-{mark}"


def require_place(folder: Path) -> None:
    """Raise MaquetteError where files cannot be written into a folder, which need not be there yet: known before hours
    of work and not behind them.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise MaquetteError(f"{there} is no folder, and files are to be written into {folder}; give another --out.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise MaquetteError(f"Nothing can be written into {there}: permission denied; give another --out.")


class NameTakenError(MaquetteError):
    """A name that was to be a new file's has a file already."""


@contextmanager
def atomic_writer(path: str | Path, new: bool = False) -> Iterator[BinaryIO]:
    """Binary file that appears under its name only when complete. Raises MaquetteError where it cannot be written.

    new: raises NameTakenError rather than replace a file, also one that another process makes meanwhile.
    """
    try:
        with whole_file(Path(path), link_new if new else None) as file:
            yield file
    except OSError as error:
        if new and isinstance(error, FileExistsError) and os.path.lexists(path):
            raise NameTakenError(f"{path} exists already.") from error
        raise MaquetteError(f"{path} cannot be written: {error.strerror or error}.") from error


def unfinished(path: Path) -> str:
    """What the name of a temporary file beside `path` begins with: cut, for a name has 255 bytes at most."""
    return f".{os.fsencode(path.name)[:200].decode('utf-8', 'ignore')}."


@contextmanager
def whole_file(path: Path, place: Callable[[Path, Path], object] | None = None) -> Iterator[BinaryIO]:
    """The same, raising OSError: a temporary file beside it, fsync, then `place` (`os.replace`) gives it the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=unfinished(path), suffix=".part", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        (place or os.replace)(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def link_new(source: Path, target: Path) -> None:
    """Give a whole file a name that nothing has: of many processes one succeeds. Raises FileExistsError."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with os.fdopen(handle, "wb") as file, open(source, "rb") as whole:
                shutil.copyfileobj(whole, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable and atomic."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def umask() -> int:
    """The permissions that this process takes from new files."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets a folder be opened: Windows does not."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
