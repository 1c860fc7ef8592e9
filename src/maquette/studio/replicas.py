"""Drawing by several replicas of Ray Serve at once, behind the same interfaces: each keeps its base open, LoRAs hot.

The server keeps what it keeps with one process: options, names, files. Ray Serve has no door of its own here; it starts
replicas, watches them and gives each wish to one that is free. A replica that dies is made anew, and its wish fails.
"""

from __future__ import annotations

import contextlib
import importlib
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..fleet.on_ray import import_ray, join_cluster
from .drawing_child import Easel, Opener
from .drawings import Drawing, DrawingFailed, Refused, filed
from .engine import Answer, DrawingEngine, OnProgress
from .library import Library, Weights

APPLICATION = "maquette"


class Stops:
    """An actor that counts interruptions, for replicas to look at; Ray Serve tells a replica nothing while it draws."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1

    def seen(self) -> int:
        return self.count


class Replica:
    """What runs on a node: an easel, for one wish at a time."""

    def __init__(self, stops: Any, fake: bool) -> None:
        self._count = stops.seen
        self._answers: queue.Queue[Answer] = queue.Queue()
        self.easel = Easel(_opener(fake), lambda message, data: self._answers.put((dict(message), data)))

    def draw(self, wish: dict[str, Any]) -> Iterator[Answer]:
        """The answers to a wish as they come. Its pictures are bytes."""
        place = Path(tempfile.mkdtemp(prefix="maquette-drawing-"))
        interrupt, begun = threading.Event(), self._stops()
        settings = filed(wish["settings"], place)
        drawing = threading.Thread(target=self.easel.answer, args=({**wish, "settings": settings}, interrupt))
        drawing.start()
        try:
            kind = ""
            while kind not in ("done", "error"):
                message, data = self._answers.get()
                kind = message["event"]
                if kind in ("progress", "opened") and self._stops() > begun:
                    interrupt.set()
                if kind == "error":  # pictures are called by what they are, not by where they lay
                    message["message"] = message["message"].replace(f"{place}/", "")
                yield message, data
        finally:
            interrupt.set()  # where nobody wants the answers any more
            drawing.join()
            self._answers = queue.Queue()
            shutil.rmtree(place, ignore_errors=True)

    def _stops(self) -> int:
        import ray

        found: int = ray.get(self._count.remote())
        return found


def _opener(fake: bool) -> Opener:
    if fake:
        from .fake_drawer import FakeArtist

        return FakeArtist
    from .drawer import PipelineArtist

    return PipelineArtist


class ReplicaEngine(DrawingEngine):
    """Draws in replicas of Ray Serve, as many pictures at once as there are replicas."""

    def __init__(
        self, library: Library, folder: Path, replicas: int, cluster: str = "local", *, fake: bool | None = None
    ) -> None:  # fmt: skip
        """cluster: see ServeSettings. Raises MaquetteError where Ray Serve is not installed or there is no cluster."""
        self.at_once = replicas
        super().__init__(library, folder, fake=fake)
        self.ray = import_ray()
        try:
            serve: Any = importlib.import_module("ray.serve")
        except ImportError as error:
            raise MaquetteError(f"Replicas need Ray Serve: pip install 'maquette-lora[serve]' ({error}).") from error
        self.serve = serve
        self._ours = join_cluster(self.ray, cluster)
        cards = self.ray.cluster_resources().get("GPU", 0) > 0
        self._stops = self.ray.remote(num_cpus=0)(Stops).remote()
        made = serve.deployment(Replica).options(
            num_replicas=replicas, max_ongoing_requests=1,
            ray_actor_options={"num_gpus": 1 if cards else 0, "num_cpus": 1},
        )  # fmt: skip
        serve.start(proxy_location="Disabled")
        handle = serve.run(made.bind(self._stops, self.fake), name=APPLICATION, route_prefix=None)
        self._handle = handle.options(stream=True)

    def interrupt(self) -> None:
        """End the drawings at work after their step."""
        self._interrupt.set()
        if self._progress.job_count:
            self.ray.get(self._stops.add.remote())
            self._progress = replace(self._progress, interrupted=True)

    def release(self) -> None:
        """Replicas keep their bases: no job waits for their memory."""

    def make_room(self) -> bool:
        return True

    def close(self) -> None:
        """End the replicas, in the middle of a drawing too."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):  # the cluster may be gone already
            self.serve.delete(APPLICATION)
            self.ray.kill(self._stops)
            if self._ours:
                self.serve.shutdown()
                self.ray.shutdown()

    def _settings(self, request: dict[str, Any], place: Path) -> dict[str, Any]:
        """With pictures as bytes, since a replica may run elsewhere."""
        return request

    def _ask(self, wish: Mapping[str, Any], model: Weights, batches: int, on_progress: OnProgress) -> Drawing:
        try:
            drawing = self._gathered(self._handle.draw.remote(dict(wish)), model, batches, on_progress)
        except MaquetteError:
            raise
        except Exception as error:  # a replica or its node is gone, or Ray is
            if self._closed:
                raise Refused("The studio is closing.") from error
            message = f"A drawing replica ended by itself ({type(error).__name__}). The next picture has another."
            raise DrawingFailed(message, "died") from error
        if drawing is None:
            raise DrawingFailed("A drawing replica ended before its picture was done.", "died")
        return drawing
