"""Jobs: the queue, pause, stop, faults, and what survives the death of server or worker. With the fake engine."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from maquette.studio.job import Job, started
from maquette.studio.jobs import Queue
from tests.studio.conftest import photo_bytes
from tests.studio.process import Process, until


def photos_to(process: Process, count: int = 4) -> str:
    project: str = process.client.post("/api/projects", json={"name": "Robby", "subject": "robot"}).json()["id"]
    files = [("files", (f"{i}.jpg", photo_bytes(i, (96, 96)))) for i in range(count)]
    assert len(process.client.post(f"/api/projects/{project}/photos", files=files).json()["added"]) == count
    return project


def test_pause_lets_the_machine_rest_and_resume_goes_on(studio: Any) -> None:
    first, second = studio.project("A", photos=4), studio.project("B", photos=4)
    job = studio.train(first)
    waiting = studio.train(second)
    studio.wait(job, "running", step=3)
    assert studio.studio.queue.training().id == job
    assert studio.client.post(f"/api/jobs/{job}/pause").json()["state"] in ("stopping", "paused")
    paused = studio.wait(job, "paused")
    assert studio.studio.queue.training() is None and studio.job(waiting)["place"] == 0
    kept = studio.client.get(f"/api/jobs/{job}/results").json()
    assert [file["step"] for file in kept["checkpoints"]][-1] == paused["step"] and kept["file"] is None
    studio.client.post(f"/api/jobs/{job}/resume")
    assert studio.wait(job, "finished")["step"] == 40
    studio.wait(waiting, "running", "finished")
    steps = [
        event["data"]["step"] for _, event in studio.studio.queue.job(job).events_after(0) if event["kind"] == "metric"
    ]
    assert steps == list(range(1, 41))


def test_stop_keeps_the_last_checkpoint(studio: Any) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "running", step=3)
    studio.client.post(f"/api/jobs/{job}/stop")
    stopped = studio.wait(job, "stopped")
    results = studio.client.get(f"/api/jobs/{job}/results").json()
    assert results["file"]["name"] == "robby.safetensors" and results["checkpoints"][-1]["step"] == stopped["step"]
    assert load_file(studio.studio.queue.job(job).run.final)
    longer = studio.client.post(f"/api/jobs/{job}/continue", json={"steps": stopped["step"] + 5})
    assert longer.status_code == 200
    assert studio.wait(job, "finished")["step"] == stopped["step"] + 5


@pytest.mark.heavy
def test_a_paused_job_is_stopped_with_its_file(studio: Any) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "running", step=2)
    studio.client.post(f"/api/jobs/{job}/pause")
    studio.wait(job, "paused")
    studio.client.post(f"/api/jobs/{job}/stop")
    studio.wait(job, "stopped")
    assert studio.client.get(f"/api/jobs/{job}/results").json()["file"]


@pytest.mark.heavy
def test_sample_now(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    studio = serve()
    job = studio.train(studio.project(photos=4), steps=400, save_every_steps=400)
    studio.wait(job, "running", step=2)
    assert studio.client.post(f"/api/jobs/{job}/sample").status_code == 200
    with studio.client.stream("GET", f"/api/jobs/{job}/events") as stream:
        sampled = [line for line in stream_until(stream, "event: sample", 2)]
    assert len(sampled) == 2
    steps = [row["step"] for row in studio.client.get(f"/api/jobs/{job}/samples").json()]
    assert steps[0] == 0 and 1 < steps[1] < 400


def stream_until(stream: Any, wanted: str, times: int) -> list[str]:
    found = []
    for line in stream.iter_lines():
        if line == wanted:
            found.append(line)
            if len(found) == times:
                break
    return found


def test_waiting_jobs_are_reordered_and_stopped(studio: Any) -> None:
    studio.studio.queue.make_room = lambda: False
    jobs = [studio.train(studio.project(name, photos=4)) for name in ("A", "B", "C")]
    assert [job["id"] for job in studio.client.get("/api/jobs").json()] == jobs
    assert studio.client.post(f"/api/jobs/{jobs[2]}/move", json={"place": 0}).json()["place"] == 0
    assert [job["id"] for job in studio.client.get("/api/jobs").json()] == [jobs[2], jobs[0], jobs[1]]
    assert studio.client.post(f"/api/jobs/{jobs[0]}/stop").json()["state"] == "stopped"
    assert studio.client.post(f"/api/jobs/{jobs[0]}/move", json={"place": 0}).status_code == 409
    assert studio.client.post(f"/api/jobs/{jobs[1]}/pause").json() == {
        "error": "This cannot be done with a job that is queued."
    }


@pytest.mark.heavy
def test_go_on_fresh_from_the_weights(studio: Any, fast: None) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "finished")
    fresh = studio.client.post(f"/api/jobs/{job}/continue", json={"steps": 12, "fresh": True}).json()
    assert fresh["id"] != job and "from_lora" not in fresh["config"]
    spec = studio.studio.queue.job(fresh["id"]).spec
    assert spec["config"]["from_lora"] == str(studio.studio.queue.job(job).run.final)
    assert studio.wait(fresh["id"], "finished")["step"] == 12


def test_choice_and_back(studio: Any, fast: None) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "finished")
    run = studio.studio.queue.job(job).run
    recommended = run.final.read_bytes()
    told = studio.client.post(f"/api/jobs/{job}/choice", json={"step": 10}).json()
    assert told["choice"]["step"] == 10
    assert run.final.read_bytes() == run.checkpoints()[10].read_bytes() != recommended
    assert studio.client.post(f"/api/jobs/{job}/choice", json={"step": 11}).status_code == 404
    for steps in (10, 40):
        refused = studio.client.post(f"/api/jobs/{job}/continue", json={"steps": steps})
        assert refused.status_code == 400
        assert refused.json() == {"error": "It has trained 40 steps: give more than that, in all."}
    studio.client.post(f"/api/jobs/{job}/continue", json={"steps": 50})
    studio.wait(job, "finished", step=50)
    assert studio.client.get(f"/api/jobs/{job}/results").json()["choice"] is None  # it was of the shorter training
    recommended = run.final.read_bytes()
    assert studio.client.post(f"/api/jobs/{job}/choice", json={}).json()["choice"] is None
    assert run.final.read_bytes() == recommended


def test_a_new_comparison_takes_the_place_of_ones_own_choice(studio: Any, fast: None) -> None:
    """As its file does: the page would say one checkpoint and give another."""
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "finished")
    studio.client.post(f"/api/jobs/{job}/choice", json={"step": 10})
    again = studio.client.post(f"/api/jobs/{job}/evaluate").json()
    studio.wait(again["id"], "finished")
    told = studio.client.get(f"/api/jobs/{job}/results").json()
    assert told["choice"] is None and told["verdict"]["step"] == 30
    assert studio.client.post(f"/api/jobs/{job}/choice", json={"step": 10}).json()["choice"]["step"] == 10
    studio.client.delete(f"/api/jobs/{again['id']}")
    assert studio.client.get(f"/api/jobs/{job}/results").json()["choice"]["step"] == 10


def test_a_merge_of_nothing_is_refused(studio: Any) -> None:
    answer = studio.client.post("/api/merge", json={"jobs": ["a", "b"], "weights": [0, -0.0]})
    assert answer.status_code == 400 and "the weight 0, so nothing would be merged" in answer.json()["error"]


@pytest.mark.heavy
def test_evaluate_and_merge(studio: Any, fast: None) -> None:
    jobs = [studio.train(studio.project(name, photos=4)) for name in ("A", "B")]
    for job in jobs:
        studio.wait(job, "finished")
    again = studio.client.post(f"/api/jobs/{jobs[0]}/evaluate").json()
    assert studio.wait(again["id"], "finished")["result"]["chosen"] == 30
    merged = studio.client.post("/api/merge", json={"jobs": jobs, "weights": [0.5, 0.8]}).json()
    assert merged["title"] == "A + B" and "loras" not in merged["config"]
    studio.wait(merged["id"], "finished")
    assert studio.client.get(f"/api/jobs/{merged['id']}/results").json()["file"]["name"] == "a-b.safetensors"


FAULTS = {
    "oom": ("The memory does not suffice for a step of this size", "smaller"),
    "disk-full": ("The disk is full. Make room; everything that was saved before is whole.", "room"),
    "crash-1": ("The job's process ended without a word", "resume"),
}


@pytest.mark.parametrize(
    "fault", ["crash-1", *(pytest.param(fault, marks=pytest.mark.heavy) for fault in ("oom", "disk-full"))]
)
def test_faults_are_sentences_and_the_next_training_works(
    fault: str, serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAQUETTE_FAKE", fault)
    studio = serve()
    project = studio.project(photos=4)
    job = studio.train(project)
    failed = studio.wait(job, "failed")
    sentence, remedy = FAULTS[fault]
    assert failed["message"].startswith(sentence) and failed["remedy"] == remedy
    monkeypatch.setenv("MAQUETTE_FAKE", "fast")
    assert studio.client.post(f"/api/jobs/{job}/resume").status_code == 200
    done = studio.wait(job, "finished")
    assert done["message"] is None and done["step"] == 40
    again = studio.train(project)
    assert studio.wait(again, "running", "finished")


def test_a_worker_that_cannot_begin_is_not_tried_for_ever(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maquette.studio.workers.MODULE", "maquette.studio.no_such_worker")
    job = studio.train(studio.project(photos=4))
    failed = studio.wait(job, "failed")
    assert failed["message"] == "The job's process could not begin; its log says why."
    assert "no_such_worker" in studio.client.get(f"/api/jobs/{job}/log").text


def test_a_killed_worker_leaves_no_ghost(studio: Any) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "running", step=12)
    pid = studio.studio.queue.job(job).status()["pid"]
    os.kill(pid, signal.SIGKILL)
    failed = studio.wait(job, "failed")
    saved = re.search(r"Everything until step (\d+) is saved\.$", failed["message"])
    assert saved and int(saved[1]) in (10, 20, 30) and failed["remedy"] == "resume"  # the kill may come a little late
    studio.client.post(f"/api/jobs/{job}/resume")
    assert studio.wait(job, "finished")["step"] == 40


def test_a_running_job_is_deleted_at_once(studio: Any) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "running", step=2)
    pid = studio.studio.queue.job(job).status()["pid"]
    assert studio.client.delete(f"/api/jobs/{job}").status_code == 200
    assert studio.client.get(f"/api/jobs/{job}").status_code == 404
    assert started(pid) is None
    assert not list(studio.studio.queue.folder.iterdir())


@pytest.mark.heavy
def test_a_job_outlives_its_server(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    with Process(data, MAQUETTE_FAKE="slow") as first:
        job = first.client.post(f"/api/projects/{photos_to(first)}/jobs", json={}).json()["id"]
        before = until(first, job, "running", step=1)
        pid = Job(data / "jobs" / job).status()["pid"]
        first.kill()
        with Process(data) as second:
            now = until(second, job, "running", step=before["step"] + 1)
            assert now["state"] == "running" and Job(data / "jobs" / job).status()["pid"] == pid
            second.client.post(f"/api/jobs/{job}/stop")
            until(second, job, "stopped")
            assert second.get(f"/api/jobs/{job}/results")["file"]


@pytest.mark.heavy
def test_a_worker_that_died_with_its_server_has_failed(tmp_path: Path) -> None:
    with Process(tmp_path, MAQUETTE_FAKE="slow") as first:
        job = first.client.post(f"/api/projects/{photos_to(first)}/jobs", json={}).json()["id"]
        until(first, job, "running", step=1)
        pid = Job(tmp_path / "jobs" / job).status()["pid"]
        first.kill()
    os.kill(pid, signal.SIGKILL)
    with Process(tmp_path) as second:
        assert until(second, job, "failed")["remedy"] == "resume"


@pytest.mark.heavy
def test_ctrl_c_ends_the_server_and_says_that_jobs_go_on(tmp_path: Path) -> None:
    with Process(tmp_path) as process:
        assert process.end() == 130
    assert "Traceback" not in "".join(process.told)
    assert "Ctrl-C ends it; jobs go on." in "".join(process.told)


def test_what_a_kill_left_half_made_is_cleared(tmp_path: Path) -> None:
    (tmp_path / ".x.new").mkdir()
    (tmp_path / ".y.old/deep").mkdir(parents=True)
    queue = Queue(tmp_path)
    queue.open()
    queue.close()
    assert not list(tmp_path.iterdir())


def test_a_cut_event_is_passed_over_and_numbers_stay(tmp_path: Path) -> None:
    job = Job.create(tmp_path / "j", {"kind": "train", "project": "p", "config": {}})
    job.tell("metric", {"step": 1})
    with job.events.open("ab") as file:
        file.write(b'{"kind": "met')
    assert [number for number, _ in job.events_after(0)] == [1, 2]
    job.tell("metric", {"step": 2})
    assert [(number, event["data"].get("step")) for number, event in job.events_after(1)] == [(2, 1), (4, 2)]
