"""`maquette caption`: write a caption beside each photo that has none, and edit many captions at once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config.photos import CaptionConfig
from ..data.caption_edit import Edits, name_subject, parse_replacements, parse_tags
from ..data.caption_options import CaptionOptions
from ..data.captions import caption_for_class, caption_for_subject, same_name
from ..data.dataset import Dataset, Photo, Problem
from ..data.doctor import examine_captions
from ..data.layouts import read_folder
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, until
from ..files import write_text
from .captioners import Captioner, open_captioner
from .check import tokenizer

_DRAWS = 32  # among which different orders of a caption's tags are looked for


@dataclass(frozen=True)
class Captioned:
    """One photo's caption before and after; `file` is relative to the folder."""

    photo: str
    file: str
    before: str | None
    after: str
    backup: str | None = None
    shuffled: tuple[str, ...] = ()  # orders of its tags that training may read

    @property
    def changed(self) -> bool:
        return self.before != self.after


@dataclass
class CaptionResult:
    """What was written, or would be."""

    folder: str
    captioner: str
    dry_run: bool
    captions: list[Captioned] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def written(self) -> list[Captioned]:
        return [caption for caption in self.captions if caption.changed]

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"written": len(self.written)}


def run(config: CaptionConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> CaptionResult:
    """Write and edit captions. Emits "progress".

    Raises MaquetteError when the folder holds no photo, a caption cannot be read, the subject is needed and not named,
    or the captioner's weights are missing.
    """
    on_event = until(cancel, on_event)
    edits = Edits(
        parse_replacements(config.replace),
        parse_tags("remove", config.remove),
        parse_tags("add", config.add),
        " ".join(config.prefix.split()),
        " ".join(config.suffix.split()),
    )
    dataset = read_folder(config.photos, config.subject, template=config.template, keep_lines=True)
    for problem in dataset.problems:
        if problem.blocking:
            raise MaquetteError(problem.message)
    wanted = [photo for photo in dataset.photos if config.overwrite or not _is_written(photo)]
    captioner = _captioner(config, wanted)
    dry = config.dry_run or config.shuffle > 0
    result = CaptionResult(str(config.photos), config.captioner, dry)
    places = _Places(dataset.photos)
    for done, photo in enumerate(dataset.photos, 1):
        before = photo.caption if _is_written(photo) else None
        fresh = before is None or config.overwrite
        text = captioner(photo) if fresh else before
        assert text is not None
        result.captions.append(_keep(config, places.of(photo, fresh), photo, before, edits.apply_to_lines(text)))
        on_event(Event("progress", {"what": "captions", "done": done, "of": len(dataset.photos)}))
    result.problems = [*dataset.problems, *_doubts(config, dataset, result)]
    return result


def _doubts(config: CaptionConfig, dataset: Dataset, result: CaptionResult) -> list[Problem]:
    """What `maquette check` would warn of in the captions as they are now."""
    photos = [
        replace(photo, caption=new.after, caption_source=Path(new.file).name)
        for photo, new in zip(dataset.photos, result.captions, strict=True)
    ]
    found = examine_captions(replace(dataset, photos=photos), config.subject, tokenizer())
    return [replace(problem, blocking=False) for problem in found]


def _is_written(photo: Photo) -> bool:
    """By a text file, or in a metadata file (which is never changed: a text file beside the photo comes before it)."""
    return photo.caption_source != "subject"


def _captioner(config: CaptionConfig, wanted: list[Photo]) -> Captioner:
    """What makes the captions; weights are opened only when a caption is wanted."""
    if config.captioner == "template" or not wanted:
        nameless = [photo for photo in wanted if not photo.subject]
        if nameless:
            name = nameless[0].name
            why = f"{name} would get a new caption" if _is_written(nameless[0]) else f"{name} has no caption"
            raise MaquetteError(f"{why} and no subject is named: give --subject 'ohwx man'.")
        return lambda photo: _made_up(photo, config.template)
    describe = open_captioner(config.captioner, config.model)
    return lambda photo: name_subject(describe(photo), photo.subject)


def _made_up(photo: Photo, template: str) -> str:
    """What training would read without a caption file."""
    if not _is_written(photo):
        return photo.caption
    return caption_for_class(photo.subject) if photo.role == "class" else caption_for_subject(photo.subject, template)


class _Places:
    """Which file a photo's caption is written to: never one that another photo reads or gets too."""

    def __init__(self, photos: Sequence[Photo]) -> None:
        self._stems = Counter(same_name(str(path.with_suffix(""))) for path in {photo.path for photo in photos})
        self._files = Counter({photo.path: photo.caption_file for photo in photos}.values())

    def of(self, photo: Photo, fresh: bool) -> Path:
        """The caption file; for a fresh caption a.jpg.txt where a.png lies beside a.jpg."""
        if photo.caption_file and not (fresh and self._files[photo.caption_file] > 1):
            return photo.caption_file
        if self._stems[same_name(str(photo.path.with_suffix("")))] > 1:
            return photo.path.with_name(photo.path.name + photo.caption_extension)
        return photo.path.with_suffix(photo.caption_extension)


def _keep(config: CaptionConfig, file: Path, photo: Photo, before: str | None, after: str) -> Captioned:
    """Write the caption if it is new or changed; what it replaces is copied to a .bak file first."""
    backup = None
    if before != after and not config.dry_run and not config.shuffle:
        edited = file.exists() and file.read_bytes() == (after + "\n").encode()  # for another photo that shares it
        if file.exists() and not edited:
            backup = _free_backup(file)
            shutil.copy2(file, backup)
        write_text(file, after + "\n")
    folder = Path(photo.name).parent
    return Captioned(
        photo.name,
        (folder / file.name).as_posix(),
        before,
        after,
        (folder / backup.name).as_posix() if backup else None,
        _orders(config, photo, after),
    )


def _orders(config: CaptionConfig, photo: Photo, text: str) -> tuple[str, ...]:
    """Different draws of the caption, as a training run with the same options makes them."""
    shown = replace(photo, caption=text, options=CaptionOptions(shuffle=True, keep_tokens=config.keep_tokens))
    return shown.some_captions(_DRAWS)[: config.shuffle] if config.shuffle else ()


def _free_backup(file: Path) -> Path:
    """a.txt -> a.txt.bak, or a.txt.bak2, .bak3 … where earlier ones lie."""
    number, backup = 1, file.with_name(file.name + ".bak")
    while backup.exists():
        number += 1
        backup = file.with_name(f"{file.name}.bak{number}")
    return backup
