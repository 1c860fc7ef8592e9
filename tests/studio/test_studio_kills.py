"""Fifty kills of the server and fifty of the worker at random moments: nothing that was answered is lost, no ghost."""

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from safetensors.numpy import load

from maquette.errors import MaquetteError
from maquette.studio.job import Job
from tests.studio.conftest import photo_bytes
from tests.studio.process import Process, until
from tests.studio.test_jobs import photos_to

pytestmark = pytest.mark.heavy
KILLS = int(os.environ.get("MAQUETTE_KILLS", "50"))


class Writer(threading.Thread):
    """Adds photos, writes captions and removes photos until the server is gone; `truth` is what was answered, and
    `open` what was asked for and not answered: that may have happened or not.
    """

    def __init__(self, process: Process, project: str, truth: dict[str, str], chance: random.Random) -> None:
        super().__init__()
        self.process, self.project, self.truth, self.chance = process, project, truth, chance
        self.open: tuple[str, str | None] | None = None  # id or "" of a new one; caption, None of a removal
        self.fault: Exception | None = None  # what went wrong though the server was there

    def run(self) -> None:
        try:
            self._write()
        except (httpx.HTTPError, RuntimeError):  # the server is gone; the client is closed
            return
        except Exception as error:
            self.fault = error

    def _write(self) -> None:
        client, address = self.process.client, f"/api/projects/{self.project}/photos"
        while True:
            known = sorted(self.truth)
            dice = self.chance.random()
            if dice < 0.4 or not known:
                data = photo_bytes(self.chance.randrange(10**9), (32, 32))
                self.open = "", ""
                added = client.post(address, files={"files": ("a.jpg", data)}).json()["added"]
                self.truth |= {one["id"]: "" for one in added}
            elif dice < 0.9:
                photo, caption = self.chance.choice(known), f"caption {self.chance.randrange(10**9)}"
                self.open = photo, caption
                assert client.patch(f"{address}/{photo}", json={"caption": caption}).status_code == 200
                self.truth[photo] = caption
            else:
                photo = self.chance.choice(known)
                self.open = photo, None
                assert client.delete(f"{address}/{photo}").status_code == 200
                del self.truth[photo]
            self.open = None


def check(found: dict[str, str], truth: dict[str, str], unanswered: tuple[str, str | None] | None) -> None:
    photo, caption = unanswered or ("none", "")
    for identity, text in truth.items():
        if identity == photo and caption is None:
            continue
        assert identity in found
        assert found[identity] in ((text, caption) if identity == photo else (text,))
    assert len(found.keys() - truth.keys()) <= (1 if photo == "" else 0)


def test_kills_of_the_server(tmp_path: Path) -> None:
    chance, truth = random.Random(7), dict[str, str]()
    project, unanswered = "", None
    for _ in range(KILLS):
        process = Process(tmp_path)
        if not project:
            project = process.client.post("/api/projects", json={"name": "Robby"}).json()["id"]
        told = process.get(f"/api/projects/{project}/photos")
        found = {one["id"]: one["caption"] for one in told}
        check(found, truth, unanswered)
        truth.clear()
        truth |= found
        for one in told:
            assert process.client.get(one["thumbnail"]).status_code == 200
        writer = Writer(process, project, truth, chance)
        writer.start()
        time.sleep(chance.uniform(0.0, 0.5))
        process.process.kill()
        writer.join()
        process.kill()
        assert writer.fault is None
        unanswered = writer.open
    assert truth


def worker_of(process: Process) -> psutil.Process:
    """The process of the job that a server has started, as soon as there is one."""
    server = psutil.Process(process.process.pid)
    while not (found := server.children()):
        time.sleep(0.01)
    return found[0]


def test_kills_of_the_worker(tmp_path: Path) -> None:
    """At any moment: while it begins, trains, writes checkpoints and pictures. What was saved stays as it was."""
    chance, saved, begun = random.Random(9), dict[int, bytes](), 0
    with Process(tmp_path) as process:
        project, settings = photos_to(process), {"steps": 100_000, "save_every_steps": 4}
        job = process.client.post(f"/api/projects/{project}/jobs", json={"settings": settings}).json()["id"]
        for _ in range(KILLS):
            worker = worker_of(process)
            time.sleep(chance.uniform(0.0, 3.0))
            begun += Job(tmp_path / "jobs" / job).status().get("pid") == worker.pid
            worker.kill()
            told = until(process, job, "failed")
            assert told["remedy"] == "resume"
            assert not Job(tmp_path / "jobs" / job).alive()
            there = {step: file.read_bytes() for step, file in Job(tmp_path / "jobs" / job).run.checkpoints().items()}
            assert saved.items() <= there.items()
            for step in there.keys() - saved.keys():
                assert load(there[step])
            saved = there
            assert [one["id"] for one in process.get("/api/jobs")] == [job]
            assert process.client.post(f"/api/jobs/{job}/resume").status_code == 200
        assert begun > KILLS / 4 and len(saved) > begun / 4
        until(process, job, "running")


def test_kills_of_the_server_while_jobs_begin(tmp_path: Path) -> None:
    """Every job that was answered is there, begins once, and ends with its file."""
    chance, answered, projects = random.Random(13), set[str](), list[str]()
    for _ in range(KILLS // 2):
        process = Process(tmp_path, MAQUETTE_FAKE="fast")
        projects = projects or [photos_to(process) for _ in range(3)]
        jobs = {one["id"] for one in process.get("/api/jobs")}
        assert answered <= jobs and len(jobs - answered) <= 1
        answered = jobs
        for project in chance.sample(projects, 2):
            answer = process.client.post(f"/api/projects/{project}/jobs", json={})
            assert answer.status_code in (201, 409), "409: it has such a job already"
            answered |= {answer.json()["id"]} if answer.status_code == 201 else set()
            time.sleep(chance.uniform(0.0, 1.0))
        process.kill()
    with Process(tmp_path) as process:
        for job in answered:
            assert until(process, job, "finished", "failed")["state"] == "finished"
            events = [event["data"] for _, event in Job(tmp_path / "jobs" / job).events_after(0)]
            assert [data["state"] for data in events if "state" in data] == ["queued", "running", "finished"]
            assert load(Job(tmp_path / "jobs" / job).run.final.read_bytes())
        assert {one["id"] for one in process.get("/api/jobs")} == answered and len(answered) > KILLS / 10


def test_kills_of_the_server_while_a_job_works(tmp_path: Path) -> None:
    """The job goes on through all of them, under one pid, and no second worker begins."""
    chance = random.Random(11)
    job, pids, step = "", set[Any](), 0
    for _ in range(max(2, KILLS // 5)):
        process = Process(tmp_path)
        if not job:
            settings = {"steps": 100_000, "save_every_steps": 100_000}
            project = photos_to(process)
            job = process.client.post(f"/api/projects/{project}/jobs", json={"settings": settings}).json()["id"]
        told = until(process, job, "running", step=step + 1)
        assert told["step"] > step
        step = told["step"]
        pids.add(Job(tmp_path / "jobs" / job).status()["pid"])
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
    assert len(pids) == 1
    with Process(tmp_path) as process:
        assert process.client.delete(f"/api/jobs/{job}").status_code == 200
    with pytest.raises(MaquetteError):
        assert Job(tmp_path / "jobs" / job).spec
