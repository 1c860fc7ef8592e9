"""The studio's side of drawing: starts the drawing process when it is needed, and asks it one picture at a time."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.serve import ServeSettings
from ..errors import MaquetteError
from ..files import at_home
from . import frames
from .drawings import Drawing, DrawingFailed, Picture, Progress, Refused, failure_of, filed
from .library import Library, Weights

if TYPE_CHECKING:
    from .core import Studio

MOST_WAITING = 8
PREVIEW_EVERY = 2  # steps
_LOG_TAIL = 2000
_PATIENCE = 3.0  # seconds that a process has to end


OnProgress = Callable[[Progress], None]
Answer = tuple[dict[str, Any], bytes]
"""A message of who draws, and the picture of it."""


class DrawingEngine:
    """Draws with one base at a time in a process of its own, which ends with this one.

    folder: where pictures lie while they are drawn from; fake: draw without torch; blocked: says why nothing can be
    drawn now, such as a job that trains.
    """

    at_once = 1  # drawings

    def __init__(
        self,
        library: Library,
        folder: Path,
        *,
        fake: bool | None = None,
        blocked: Callable[[], str | None] = lambda: None,
        opening: Mapping[str, Any] | None = None,
    ) -> None:
        self.library, self.folder, self.blocked = library, folder, blocked
        self.fake = os.environ.get("MAQUETTE_ENGINE") == "fake" if fake is None else fake
        self.opening = dict(opening or {})
        self.model = library.model(library.first)
        self.vae: str | None = None
        self.options: dict[str, Any] = {}
        self.hashes: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Semaphore(self.at_once)
        self._writing, self._counting = threading.Lock(), threading.Lock()
        self._waiting = 0
        self._progress = Progress()
        self._interrupt = threading.Event()
        self._closed = False
        shutil.rmtree(self.temporary, ignore_errors=True)  # of a server that was killed

    @classmethod
    def of(cls, studio: Studio) -> DrawingEngine:
        """Of a studio: its bases, its LoRAs and those its jobs have trained. It draws unless a job computes."""
        settings, queue = studio.settings, studio.queue

        def blocked() -> str | None:
            job = queue.training()
            return None if job is None else f"{job.spec.get('title') or 'A job'} has the machine: pause it to draw."

        loras, upscalers = [queue.folder, *map(at_home, settings.loras)], [studio.folder / "upscalers"]
        library = Library([settings.bases_folder], loras, settings.base, upscalers)
        if isinstance(settings, ServeSettings) and settings.replicas > 1:
            from .replicas import ReplicaEngine

            return ReplicaEngine(library, studio.folder, settings.replicas, settings.cluster)
        return cls(library, studio.folder, blocked=blocked)

    @property
    def temporary(self) -> Path:
        """Folder of pictures that requests bring, which is gone after a kill too."""
        return self.folder / "drawing"

    @property
    def pid(self) -> int | None:
        """Of the drawing process; None where none runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def progress(self) -> Progress:
        """Where the drawing at work stands."""
        return self._progress

    def set_model(self, name: str) -> Weights:
        """Draw with this base from now on; it is opened by the next drawing. Raises MaquetteError."""
        self.model = self.library.model(name)
        return self.model

    def interrupt(self) -> None:
        """End the drawing at work after its step; what is drawn so far is its result."""
        self._interrupt.set()
        process = self._process
        if self._progress.job_count and process is not None:
            with suppress(OSError, ValueError):
                self._write(process, {"do": "interrupt"})
                self._progress = replace(self._progress, interrupted=True)

    def require_free(self) -> None:
        """Raises Refused where nothing can be drawn now."""
        self._require_open()
        if self._waiting >= MOST_WAITING:
            raise Refused(f"{self._waiting} drawings wait already; try again when some are done.", 5)

    def _require_open(self) -> None:
        if self._closed:
            raise Refused("The studio is closing.")
        if reason := self.blocked():
            raise Refused(reason)

    def draw(self, request: Mapping[str, Any], on_progress: OnProgress = lambda progress: None) -> Drawing:
        """Draw by the keys of DrawSettings, of which `init_image`, `mask` and each control's `image` are bytes of
        pictures; `base` and `vae` name others than the chosen ones. Waits for the drawings before it.

        Raises Refused, DrawingFailed, and MaquetteError for what the request gets wrong.
        """
        with self._counting:
            self.require_free()
            self._waiting += 1
        try:
            with self._turn:
                self._require_open()  # again, after waiting
                try:
                    return self._draw(dict(request), on_progress)
                finally:
                    self._progress = Progress()
        finally:
            with self._counting:
                self._waiting -= 1

    def release(self) -> None:
        """End the drawing process, so that a job has its memory; the next drawing starts another."""
        self.interrupt()
        with self._turn:
            self._end()

    def make_room(self) -> bool:
        """End the drawing process for a job, without waiting. Returns whether it is gone; ask again where it is not."""
        self.interrupt()
        if not self._turn.acquire(blocking=False):
            return False
        try:
            self._end()
        finally:
            self._turn.release()
        return True

    def close(self) -> None:
        """End for good, in the middle of a drawing too."""
        self._closed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
        with self._turn:
            self._end()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _draw(self, request: dict[str, Any], on_progress: OnProgress) -> Drawing:
        self._interrupt.clear()
        model = self.library.model(request.pop("base", None) or self.model.name)
        vae = request.pop("vae", self.vae)
        batches = request.get("batch_count", 1)
        self._show(on_progress, Progress("draw", batches, began=time.monotonic(), text="Starting"))
        base = {**self.opening, "base": model.path, **({"vae": vae} if vae else {})}
        place = self.temporary / secrets.token_hex(8)
        try:
            settings = self._settings({"preview_every": PREVIEW_EVERY, "lenient": True, **request}, place)
            wish = {"do": "draw", "base": base, "settings": settings, "loras": self.library.lora_paths()}
            return self._ask(wish, model, batches, on_progress)
        except MaquetteError as error:  # pictures are called by what they are, not by where they lay
            error.args = (str(error).replace(f"{place}{os.sep}", ""),)
            raise
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _settings(self, request: dict[str, Any], place: Path) -> dict[str, Any]:
        """A request as who draws reads it."""
        return filed(request, place)

    def _ask(self, wish: Mapping[str, Any], model: Weights, batches: int, on_progress: OnProgress) -> Drawing:
        process = self._running()
        try:
            self._write(process, wish)
            if self._interrupt.is_set():
                self._write(process, {"do": "interrupt"})
            answers = iter(lambda: frames.read(_piped(process.stdout)), None)
            if (drawing := self._gathered(answers, model, batches, on_progress)) is not None:
                return drawing
        except OSError:
            pass  # it ended while it was asked: said below
        raise self._death(process)

    def _gathered(
        self, answers: Iterable[Answer | None], model: Weights, batches: int, on_progress: OnProgress
    ) -> Drawing | None:
        """What the answers to a wish come to; None where they end before it is done."""
        pictures: list[Picture] = []
        warnings: list[str] = []
        for message, data in filter(None, answers):
            kind = message.pop("event")
            if kind == "done":
                hashed = self.hashes.get(model.path, "")
                return Drawing(pictures, list(dict.fromkeys(warnings)), model, hashed, self._interrupt.is_set())
            if kind == "error":
                raise failure_of(message)
            if kind == "picture":
                pictures.append(Picture.of(message, data))
            elif kind in ("warning", "finding"):
                warnings.append(message["message"])
            elif kind == "opened":
                self.hashes[model.path] = message["hash"]
            self._follow(kind, message, data, batches, on_progress)
        return None

    def _follow(self, kind: str, message: Mapping[str, Any], data: bytes, batches: int, on: OnProgress) -> None:
        now = self._progress
        if kind == "loading":
            self._show(on, replace(now, text="Loading the base"))
        elif kind == "opened":
            self._show(on, replace(now, text="Drawing", began=time.monotonic()))
        elif kind == "progress" and message.get("what") == "drawing":
            done, of = message["done"], message["of"]
            job = min(batches - 1, (done * batches - 1) // of) if done else 0
            self._show(on, replace(now, step=max(now.step, done), steps=of, job_no=max(now.job_no, job)))
        elif kind == "preview":
            self._show(on, replace(now, preview=data))

    def _show(self, on_progress: OnProgress, progress: Progress) -> None:
        self._progress = replace(progress, interrupted=self._interrupt.is_set())
        on_progress(self._progress)

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, started where none runs."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        name = "fake_drawer" if self.fake else "drawer"
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "drawing.log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.{name}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=-1,
            )
        if self._closed:
            self._process.kill()
        return self._process

    def _write(self, process: subprocess.Popen[bytes], message: Mapping[str, Any]) -> None:
        with self._writing:
            frames.write(_piped(process.stdin), message)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(OSError):
            _piped(process.stdin).close()  # at which it ends
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _piped(process.stdout).close()

    def _death(self, process: subprocess.Popen[bytes]) -> MaquetteError:
        """The process is gone, or says what it never says."""
        self._end()
        if self._closed:
            return Refused("The studio is closing.")
        code = process.returncode
        how = f"signal {-code}" if code and code < 0 else f"code {code}"
        killed = " Often memory ran out: draw a smaller picture." if code == -9 else ""
        message = f"The drawing process ended by itself ({how}).{killed} The next picture starts it again."
        return DrawingFailed(message + _tail(self.folder / "drawing.log"), "died")


def _piped(stream: Any) -> Any:
    assert stream is not None  # all of the process's streams are pipes
    return stream


def _tail(log: Path) -> str:
    """The last line that the process wrote, for whoever has to find out."""
    try:
        lines = log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return ""
    return f" Its last words: {lines[-1].strip()}" if lines else ""
