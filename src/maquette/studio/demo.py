"""The drawn photos as a project, for whoever has none at hand."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..demo.mascot import SUBJECT, write_photos
from .store import Project, Store


def project(store: Store) -> Project:
    """A new project with the fourteen photos of a small robot and their captions."""
    token, _, subject = SUBJECT.partition(" ")
    made = store.create("Robot", "object", subject, token)
    with tempfile.TemporaryDirectory(dir=store.folder, prefix=".demo") as folder:
        for path in write_photos(Path(folder, "photos")):
            photo = made.add_photo(path.read_bytes(), path.name)
            with made.lock:
                photo.set_caption(path.with_suffix(".txt").read_text(encoding="utf-8"))
    return made
