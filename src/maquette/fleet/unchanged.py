"""What a comparison began with: photos, captions and files of its settings, told apart by their contents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import TrainConfig
from ..data.images import is_photo, walk
from ..errors import MaquetteError
from ..files import write_json
from ..parsing import read_object
from . import keys

RECORD = "contents.json"
WORDS = (".txt", ".caption", ".json", ".jsonl", ".toml")  # captions and descriptions of photos


def require(out: Path, configs: Sequence[TrainConfig]) -> None:
    """Write down what the trainings read, or see that it is as it was when the comparison began.

    Raises MaquetteError naming what is another now: old results and new ones would not be of the same thing.
    """
    now, place = _contents(configs), out / RECORD
    if not place.exists():
        if None not in now.values():  # else the training says what is missing, and it may yet be put there
            write_json(place, now)
        return
    before = read_object(place)
    if other := next((name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)), None):
        fault = "is new" if other not in before else "has changed" if now.get(other) else "is gone"
        remedy = "take it away" if other not in before else "put it back as it was"
        raise MaquetteError(
            f"{other} {fault} since the comparison in {out} began, and what is trained is of what was there before: "
            f"{remedy}, or choose another --out."
        )


def _contents(configs: Sequence[TrainConfig]) -> dict[str, str | None]:
    """Path -> digest of each photo, caption, base and other file that the trainings read; None for what is missing."""
    digests = keys.Digests()
    folders = {folder for config in configs for folder in (config.photos, config.reg) if folder is not None}
    places = {str(place) for config in configs for place in (config.base, config.vae, config.from_lora) if place}
    endings = {*WORDS, *(f".{one.lstrip('.')}" for config in configs if (one := config.caption_extension))}
    found: dict[str, str | None] = {}
    for folder in folders:
        files = [path for path in walk(folder) if is_photo(path) or path.suffix.lower() in endings]
        found |= {str(path): digests.of(str(path)) for path in files}
        if not files:
            found[str(folder)] = None
    for place in places:
        if not keys.is_name(place):
            found[place] = digests.of(place) if Path(place).exists() else None
    return found
