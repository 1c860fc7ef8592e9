"""Projects and their photos: folders that a person can read, move and delete.

`projects/ID/project.json` has names and choices; `photos/` the photos by the hash of their content, each with its
caption (.txt), mask (.mask.png) beside it. What lies in the folder is the truth.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..config import Kind, TrainConfig
from ..errors import MaquetteError
from ..files import write_json
from ..parsing import read_object
from .examine import Examined, examine
from .names import NotFound, new_id, require_id, shown_name
from .photos import Photo, PhotoFolder

MOST_PROJECTS = 500
GONE = "There is no such project; it may have been deleted."
NAME_LENGTH, SUBJECT_LENGTH, TOKEN_LENGTH = 80, 80, 40
CLASSES: dict[Kind, str] = {"person": "person", "animal": "animal", "object": "object", "style": "style"}


class Project:
    """One thing to teach: its words, photos and settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self.lock = threading.RLock()
        self._gone = False
        self._facts = _read(path / "project.json")
        self._examined: tuple[str, Examined] | None = None
        self._photos = PhotoFolder(path / "photos", self._facts.setdefault("photos", {}), self.save)

    @property
    def name(self) -> str:
        return str(self._facts.get("name", self.id))

    @property
    def kind(self) -> Kind:
        kind: Kind = self._facts.get("kind", "object")
        return kind

    @property
    def subject(self) -> str:
        """Class word or phrase: "robot", "old man"."""
        return str(self._facts.get("subject") or CLASSES.get(self.kind, "object"))

    @property
    def token(self) -> str:
        """The rare word."""
        return str(self._facts.get("token", "zkw"))

    @property
    def phrase(self) -> str:
        """Rare word and class, as captions and `--subject` have it: "zkw robot"."""
        return f"{self.token} {self.subject}"

    @property
    def created(self) -> float:
        return float(self._facts.get("created", 0.0))

    @property
    def settings(self) -> dict[str, Any]:
        """Base, preset and changed keys of the training."""
        return dict(self._facts.get("settings", {}))

    @property
    def changed(self) -> dict[str, Any]:
        """Keys of the training that the user has changed; without what no training can have, as after an edit of the
        file by hand.
        """
        changed = self.settings.get("changed")
        return _possible(TrainConfig.in_new_names(changed)) if isinstance(changed, dict) else {}

    def change(self, **values: Any) -> None:
        """Change name, kind, subject, token or settings. Raises MaquetteError for what they cannot be."""
        with self.lock:
            self._facts |= checked(values)
            self.save()

    def save(self) -> None:
        """Raises NotFound once it was deleted: nothing brings its folder back."""
        with self.lock:
            if self._gone:
                raise NotFound(GONE)
            write_json(self.path / "project.json", self._facts)

    def photos(self) -> list[Photo]:
        """In the order in which they came."""
        with self.lock:
            return self._photos.all()

    def used(self) -> list[Photo]:
        """Those that are trained on."""
        return [photo for photo in self.photos() if not photo.excluded]

    def photo(self, identity: str) -> Photo:
        """Raises NotFound."""
        with self.lock:
            return self._photos.get(identity)

    def add_photo(self, data: bytes, original_name: str) -> Photo:
        """Keep a photo. Raises MaquetteError saying why it cannot be used, or which one it repeats."""
        try:
            return self._photos.add(data, original_name, self.lock)
        finally:
            if self._gone:  # deleted while the photo came
                shutil.rmtree(self.path, ignore_errors=True)

    def remove_photo(self, identity: str) -> None:
        with self.lock:
            self._photos.remove(identity)

    def examined(self, facts: Mapping[str, Any] | None) -> Examined:
        """What is found in the photos, and their frames; looked at again only after a change. facts: of the base."""
        with self.lock:
            photos = [(photo.id, photo.version, photo.excluded) for photo in self.photos()]
            key = repr((photos, self.phrase, self.changed, facts))
            if self._examined is None or self._examined[0] != key:
                self._examined = key, examine(self, facts)
            return self._examined[1]

    def delete(self) -> None:
        """Remove the project with everything in its folder."""
        with self.lock:
            self._gone = True
            away = self.path.with_name(f".{self.id}.old")
            os.replace(self.path, away)
        shutil.rmtree(away)


class Store:
    """The projects of a data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._open: dict[str, Project] = {}
        for left in folder.glob(".*"):
            if left.name.endswith((".new", ".old")) or left.name.startswith(".demo"):
                shutil.rmtree(left, ignore_errors=True)
        for left in folder.rglob(".*.part"):  # files that a kill left half written
            left.unlink(missing_ok=True)

    def projects(self) -> list[Project]:
        """All of them, the newest first; a folder that cannot be read is passed over."""
        found = []
        for path in self.folder.iterdir():
            if path.name[0] != "." and (path / "project.json").exists():
                try:
                    found.append(self.project(path.name))
                except MaquetteError:
                    continue
        return sorted(found, key=lambda project: -project.created)

    def project(self, identity: str) -> Project:
        """Raises NotFound."""
        path = self.folder / require_id(identity, "project")
        with self._lock:
            if not (path / "project.json").exists():
                self._open.pop(identity, None)
                raise NotFound(GONE)
            if identity not in self._open:
                self._open[identity] = Project(path)
            return self._open[identity]

    def delete(self, identity: str) -> None:
        """Remove a project with everything in its folder. Raises NotFound."""
        self.project(identity).delete()
        with self._lock:
            self._open.pop(identity, None)

    def create(self, name: str, kind: Kind = "object", subject: str = "", token: str = "zkw") -> Project:
        """A new project. Raises MaquetteError for words that cannot be, and where there are too many."""
        facts = checked({"name": name, "kind": kind, "subject": subject, "token": token})
        with self._lock:
            if len(self.projects()) >= MOST_PROJECTS:
                raise MaquetteError(f"There are {MOST_PROJECTS} projects already; delete some first.")
            identity = new_id(name, "project")
            making = self.folder / f".{identity}.new"
            (making / "photos").mkdir(parents=True)
            write_json(
                making / "project.json", facts | {"created": round(time.time(), 3), "photos": {}, "settings": {}}
            )
            os.replace(making, self.folder / identity)
        return self.project(identity)


def _read(file: Path) -> dict[str, Any]:
    """What project.json says. Raises MaquetteError naming file and key where somebody has damaged it."""
    facts = read_object(file)
    kinds = {"created": (int, float), "settings": (dict,), "photos": (dict,)}
    wrong = [key for key, kind in kinds.items() if key in facts and type(facts[key]) not in kind]
    if facts.get("kind", "object") not in tuple(CLASSES):
        wrong.append("kind")
    if not wrong and not all(_is_photo(photo) for photo in facts.get("photos", {}).values()):
        wrong.append("photos")
    if wrong:
        raise MaquetteError(f"{file} is damaged: its {wrong[0]} cannot be read; mend it, or remove the folder.")
    return facts


def _is_photo(facts: Any) -> bool:
    kinds = {"name": str, "ending": str, "width": int, "height": int}
    return isinstance(facts, dict) and all(type(facts.get(key)) is kind for key, kind in kinds.items())


def _possible(changed: dict[str, Any]) -> dict[str, Any]:
    """The keys and values that a training can have."""
    try:
        TrainConfig.model_validate({**changed, "photos": "photos", "subject": "zkw thing"})
    except ValidationError as error:
        wrong = {fault["loc"][0] for fault in error.errors() if fault["loc"]}
        return {key: value for key, value in changed.items() if key not in wrong}
    return changed


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Words as they are kept. Raises MaquetteError in one sentence."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if key == "name":
            kept[key] = shown_name(str(value), NAME_LENGTH)
            if not kept[key]:
                raise MaquetteError("Give the project a name.")
        elif key == "kind":
            if value not in CLASSES:
                raise MaquetteError(f"What it is must be one of {', '.join(CLASSES)}.")
            kept[key] = value
        elif key == "subject":
            kept[key] = " ".join(str(value).split())[:SUBJECT_LENGTH]
        elif key == "token":
            words = str(value).split()
            if len(words) != 1 or len(words[0]) > TOKEN_LENGTH:
                raise MaquetteError(f"The rare word is one word of up to {TOKEN_LENGTH} letters, such as zkw.")
            kept[key] = words[0]
        else:
            kept[key] = value
    return kept
