"""Names of the studio's own folders and files. What a client sends is looked up by them, never used as a path."""

from __future__ import annotations

import re
import secrets
import time
import unicodedata

from ..errors import MaquetteError
from ..files import portable

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class NotFound(MaquetteError):
    """What was asked for is not there; HTTP 404."""


class Busy(MaquetteError):
    """It cannot be done now; HTTP 409."""


def is_id(text: str) -> bool:
    """Whether a text may be the id of a project, photo or job: nothing else reaches the file system."""
    return _ID.fullmatch(text) is not None


def require_id(text: str, what: str) -> str:
    """The id. Raises NotFound for what cannot be one."""
    if not is_id(text):
        raise NotFound(f"There is no such {what}.")
    return text


def folded(text: str) -> str:
    """A text as the beginning of an id: "Zoë 猫" -> "zoe"; "" where nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:40].strip("-")


def file_stem(text: str, otherwise: str) -> str:
    """A text as the name of a file, without ending, that every system takes (see `files.portable`)."""
    stem = folded(text) or otherwise
    return stem if portable(stem) == stem else f"{stem}-{otherwise}"


def new_id(text: str, otherwise: str) -> str:
    """A new id that tells a person what it is of."""
    return f"{folded(text) or otherwise}-{secrets.token_hex(3)}"


def new_job_id() -> str:
    """A new job's id, whose order is that of time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def shown_name(text: str, most: int = 120) -> str:
    """A name that a person typed, as text to show: one line, no control or direction marks, not long."""
    kept = " ".join("".join(c for c in text if unicodedata.category(c)[0] != "C").split())
    return kept if len(kept) <= most else kept[: most - 1] + "…"


def shown_file(path: str) -> str:
    """The name of a file that came with a path of any system, as text to show."""
    return shown_name(path.replace("\\", "/").rsplit("/", 1)[-1])
