"""What two do at one moment: a page and the queue, a server and a worker, an upload and a deletion."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maquette.files import write_json
from maquette.studio import photos, workers
from maquette.studio.job import Job
from maquette.studio.jobs import Queue
from maquette.studio.names import NotFound
from maquette.studio.store import Store
from tests.studio.conftest import photo_bytes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def job_in(folder: Path, **config: Any) -> Job:
    return Job.create(folder / "j", {"kind": "train", "project": "p", "name": "a", "config": config})


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    ending = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ending
        time.sleep(0.02)


def test_other_projects_go_on_while_captions_wait_for_a_project_that_is_busy(fast: None, studio: Any) -> None:
    queue = studio.studio.queue
    queue.make_room = lambda: False
    project = studio.project("Busy", photos=4)
    job = studio.client.post(f"/api/projects/{project}/jobs", json={"kind": "caption"}).json()["id"]
    with studio.studio.store.project(project).lock:
        queue.make_room = lambda: True
        until(lambda: queue.job(job).status()["state"] == "finished")
        time.sleep(1.2)  # the queue has looked, and waits for the project
        other = studio.train(studio.project("Other", photos=4))
        assert queue.job(job).state == "stopping", "its captions are not yet with the photos"
    studio.wait(job, "finished")
    studio.wait(other, "finished")


def test_the_queue_outlives_a_fault(fast: None, studio: Any, caplog: pytest.LogCaptureFixture) -> None:
    queue, faults = studio.studio.queue, ["The disk is full."]
    take = queue.on_finished

    def broken(job: Job) -> None:
        if faults:
            raise OSError(faults.pop())
        take(job)

    queue.on_finished = broken
    project = studio.project(photos=4)
    job = studio.client.post(f"/api/projects/{project}/jobs", json={"kind": "caption"}).json()["id"]
    studio.wait(job, "finished")
    assert not faults and "The disk is full." in caplog.text
    assert all(one["caption"] for one in studio.client.get(f"/api/projects/{project}/photos").json())


def test_a_job_whose_worker_begins_is_stopped_by_its_worker(tmp_path: Path) -> None:
    """A server that wrote the state itself would be overwritten, and start the next job beside it."""
    queue, job = Queue(tmp_path), job_in(tmp_path)
    process = subprocess.Popen(SLEEP)
    queue._child = workers.Child(job, process, None)
    try:
        assert queue.stop(job.id).state == "queued" and job.wishes("stop")
    finally:
        queue._child.kill()
    queue._child.require_begun()
    assert job.state == "failed"


def test_a_second_worker_ends_and_the_first_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a server that was killed when it had just started one."""
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    (tmp_path / "photos").mkdir()
    for number in range(4):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(photo_bytes(number, (64, 64)))
    job = job_in(tmp_path, photos=str(tmp_path / "photos"), subject="zkw robot", steps=100_000)
    first = subprocess.Popen([sys.executable, "-m", workers.MODULE, str(job.path)])
    try:
        until(lambda: job.status().get("step", 0) > 0)
        child = workers.Child.start(job)
        assert child is not None
        until(child.is_over)
        child.require_begun()
        assert job.state == "running" and job.status()["pid"] == first.pid
        workers.end(job)
        assert first.wait(10) < 0 and not job.alive()
    finally:
        first.kill()
        first.wait()


def test_what_was_written_within_a_tick_of_the_clock_is_read(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    now = time.time_ns()
    for place in (1, 2):
        text = (job.path / "job.json").read_text().replace(f'"place": {place - 1}', f'"place": {place}')
        with (job.path / "job.json").open("r+") as file:  # the same file, size and time
            file.write(text)
        os.utime(job.path / "job.json", ns=(now, now))
        assert job.spec.get("place", place) == place


def test_nothing_brings_a_deleted_project_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    project = store.create("Gone")
    read = photos.read_photo

    def deleted_meanwhile(*given: Any) -> Any:
        opened = read(*given)
        project.delete()
        return opened

    monkeypatch.setattr(photos, "read_photo", deleted_meanwhile)
    with pytest.raises(NotFound, match="There is no such project"):
        project.add_photo(photo_bytes(1), "a.jpg")
    with pytest.raises(NotFound):
        project.change(name="Back")
    assert list(tmp_path.iterdir()) == []


def test_a_caption_that_a_killed_removal_left_is_not_the_new_photos(tmp_path: Path) -> None:
    project = Store(tmp_path).create("Robby")
    photo = project.add_photo(photo_bytes(1), "a.jpg")
    photo.set_caption("of the photo that was removed")
    facts = project._facts["photos"].pop(photo.sha256)  # what a kill after the first step of a removal leaves
    project.save()
    assert facts and photo.caption_file.exists()
    assert project.add_photo(photo_bytes(1), "a.jpg").caption == ""


def test_a_job_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: Any) -> None:
        if path.name == "status.json":
            raise OSError("full")
        write_json(path, value)

    monkeypatch.setattr("maquette.studio.job.write_json", full)
    with pytest.raises(OSError, match="full"):
        job_in(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_jobs_find_what_was_named_from_another_folder(
    serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "blip").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model_index.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    studio = serve(base="mine")
    assert workers._environment()["MAQUETTE_MODELS"] == str(tmp_path / "models")
    studio.studio.queue.make_room = lambda: False
    project = studio.project(photos=4)
    job = studio.client.post(f"/api/projects/{project}/jobs", json={"kind": "caption"}).json()["id"]
    assert studio.studio.queue.job(job).spec["config"]["captioner"] == "blip"
    assert studio.studio.queue.job(studio.train(project)).spec["config"]["base"] == str(tmp_path / "mine")


def test_photos_are_cut_while_others_use_the_queue(studio: Any) -> None:
    queue, entered, leave = studio.studio.queue, threading.Event(), threading.Event()

    def prepare(folder: Path) -> None:
        entered.set()
        assert leave.wait(20)

    thread = threading.Thread(target=queue.submit, args=("merge", "p", {}, prepare), kwargs={"name": "a"})
    thread.start()
    assert entered.wait(20) and queue._lock.acquire(timeout=20)
    queue._lock.release()
    leave.set()
    thread.join(20)
    assert len(queue.jobs()) == 1
