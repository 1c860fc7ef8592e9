"""A studio on a free port with the fake engine, and photos to give it."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from maquette.config.studio import StudioSettings
from maquette.studio.serve import Served


class Running:
    """A served studio: `url` (with token), `address`, `studio`, and a client that has entered."""

    def __init__(self, served: Served) -> None:
        self.served, self.studio = served, served.studio
        self.url, self.address, self.token = served.url, served.address, served.studio.token
        self.client = httpx.Client(
            base_url=served.address, headers={"Authorization": f"Bearer {self.token}"}, timeout=60, trust_env=False
        )
        self.stranger = httpx.Client(base_url=served.address, timeout=60, trust_env=False)

    def project(self, name: str = "Robby", photos: int = 0, **words: Any) -> str:
        """A new project's id."""
        answer = self.client.post("/api/projects", json={"name": name, "kind": "object", "subject": "robot"} | words)
        assert answer.status_code == 201, answer.text
        if photos:
            assert (
                len(self.upload(answer.json()["id"], *[(f"{i}.jpg", photo_bytes(i)) for i in range(photos)])["added"])
                == photos
            )
        return str(answer.json()["id"])

    def lose_base(self, project: str) -> None:
        """Give a project a base that is not there any more."""
        base = self.studio.folder / "bases" / "gone"
        base.mkdir(parents=True)
        (base / "model_index.json").write_text("{}")
        answer = self.client.patch(f"/api/projects/{project}", json={"settings": {"base": str(base)}})
        assert answer.status_code == 200, answer.text
        shutil.rmtree(base)

    def upload(self, project: str, *files: tuple[str, bytes]) -> dict[str, Any]:
        """What became of files, given as names and bytes."""
        answer = self.client.post(f"/api/projects/{project}/photos", files=[("files", file) for file in files])
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def job(self, identity: str) -> dict[str, Any]:
        answer = self.client.get(f"/api/jobs/{identity}")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def train(self, project: str, **settings: Any) -> str:
        """A queued training's id."""
        answer = self.client.post(f"/api/projects/{project}/jobs", json={"preset": "good", "settings": settings})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def wait(self, job: str, *states: str, step: int = 0, seconds: float = 60) -> dict[str, Any]:
        """The job once it is in one of the states (and at that step): by its events, not by asking again and again."""
        with self.client.stream("GET", f"/api/jobs/{job}/events", timeout=seconds) as stream:
            kind, ending = "", time.monotonic() + seconds
            for line in stream.iter_lines():
                if line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:") and kind == "status":
                    told: dict[str, Any] = httpx.Response(200, text=line.removeprefix("data:")).json()
                    if told["state"] in states and told["step"] >= step:
                        return told
                    if told["state"] in ("failed", "finished", "stopped") and not set(states) & {"queued", "running"}:
                        break
                assert time.monotonic() < ending, f"still {told['state']}"
        raise AssertionError(f"the job is {told}\n{self.client.get(f'/api/jobs/{job}/log').text}")


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    """A function that serves a studio with some settings, on the real engine where asked; all end with the test."""
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    running: list[tuple[Running, threading.Thread]] = []

    def start(real: bool = False, **settings: Any) -> Running:
        if real:
            monkeypatch.delenv("MAQUETTE_ENGINE", raising=False)
        served = Served(StudioSettings(**{"data": tmp_path / "data", "port": 0} | settings))
        thread = threading.Thread(target=served.run, daemon=True)
        thread.start()
        running.append((Running(served), thread))
        return running[-1][0]

    yield start
    for one, thread in running:
        one.client.close()
        one.stranger.close()
        for job in one.studio.queue.jobs() if one.studio.folder.exists() else []:
            one.studio.queue.delete(job.id)
        one.served.end()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def studio(serve: Callable[..., Running]) -> Running:
    """A studio with the fake engine."""
    return serve()


def photo_bytes(number: int, size: tuple[int, int] = (512, 384), kind: str = "JPEG", **options: Any) -> bytes:
    """A photo that differs from those of other numbers: noise of a few colours, sharp enough to be no fault."""
    random = np.random.default_rng(number)
    small = random.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.NEAREST).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def photo() -> bytes:
    """A good photo."""
    return photo_bytes(1)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of fake trainings take no time."""
    monkeypatch.setenv("MAQUETTE_FAKE", "fast")
