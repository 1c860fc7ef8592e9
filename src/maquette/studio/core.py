"""The studio itself: its settings, its folder, its queue and whoever draws for it."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from ..config.studio import StudioSettings
from ..errors import MaquetteError
from .engine import DrawingEngine
from .facts import Facts
from .jobs import Job, Queue
from .kept_settings import keep, with_kept
from .names import NotFound
from .plans import take_captions
from .presets import base_of
from .store import Project, Store

if TYPE_CHECKING:
    from fastapi import Request


class Studio:
    """What the requests share. `open` it once; `close` it at the end: jobs go on."""

    def __init__(self, settings: StudioSettings, lock: int) -> None:
        self.folder = settings.folder
        self.settings, self.notes = with_kept(settings)  # notes: sentences to print at the beginning
        self.token = secrets.token_urlsafe(24)
        self._lock = lock
        self.store = Store(self.folder / "projects")
        self.queue = Queue(self.folder / "jobs")
        self.facts = Facts(self.folder, fake_engine())
        self._engine: DrawingEngine | None = None
        self._making, self._changing = threading.Lock(), threading.Lock()  # requests come on several threads
        self.queue.make_room = self._make_room

    @classmethod
    def open(cls, settings: StudioSettings) -> Studio:
        """Take the data folder. Raises MaquetteError where another studio has it."""
        folder = settings.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.chmod(folder, 0o700)
        except OSError as error:
            raise MaquetteError(
                f"The data folder {folder} cannot be used: {error.strerror or error}; choose another with --data."
            ) from error
        studio = cls(settings, _locked(folder))
        _clear(folder)
        studio.queue.on_finished = studio._finished
        studio.queue.open()
        return studio

    def change_settings(self, changes: Mapping[str, Any]) -> None:
        """Change settings from now on, and for the studios that come. Raises MaquetteError where the disk is full."""
        with self._changing:
            keep(self.folder, changes)
            self.settings = self.settings.model_copy(update=dict(changes))

    def close(self) -> None:
        """Let go of the data folder. Running jobs outlive the studio."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self.queue.close()
        os.close(self._lock)

    def _make_room(self) -> bool:
        """End the drawing process before a job begins; whether it is gone."""
        return self._engine is None or self._engine.make_room()

    @property
    def engine(self) -> DrawingEngine:
        """The drawing engine, made at its first use."""
        with self._making:
            if self._engine is None:
                self._engine = DrawingEngine.of(self)
            return self._engine

    def _finished(self, job: Job) -> None:
        """Take what a finished job made for its project."""
        if job.spec["kind"] == "caption":
            with suppress(NotFound):  # the project was deleted
                take_captions(self.store.project(job.spec["project"]), job)
        elif job.spec["kind"] == "evaluate":
            with suppress(NotFound):  # the training was deleted
                self.queue.job(job.spec["of"]).change_spec(choice=None)  # its file is the recommended one now

    def known_facts(self, project: Project) -> dict[str, Any] | None:
        """What is known of a project's base; None where that is being found out, and of a base that is gone."""
        try:
            base = base_of(self, project)
        except MaquetteError:
            return None
        found = self.facts.known_base(base)
        if found is None:
            self.facts.learn(base)
        return found

    def delete_project(self, identity: str) -> None:
        """Remove a project with its photos, captions, jobs and files; nothing of it is left."""
        project = self.store.project(identity)
        with project.lock:  # no job of it is queued meanwhile
            self.queue.delete_of(identity)
            self.store.delete(identity)


def studio_of(request: Request) -> Studio:
    """The studio that a request is for."""
    studio: Studio = request.app.state.studio
    return studio


def fake_engine() -> bool:
    """Whether jobs and pictures are made by the fake engine, for tests: MAQUETTE_ENGINE=fake."""
    return os.environ.get("MAQUETTE_ENGINE") == "fake"


def _clear(folder: Path) -> None:
    """Remove what a server that was killed left half written."""
    shutil.rmtree(folder / "incoming", ignore_errors=True)
    for place in (folder, folder / "pictures"):
        for left in place.glob(".*.part"):
            left.unlink(missing_ok=True)


def _locked(folder: Path) -> int:
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        files.lock(handle)
    except OSError as error:
        os.close(handle)
        raise MaquetteError(
            f"Another studio works in {folder} already: use its page, end it first, or choose another folder with "
            "--data."
        ) from error
    return handle
