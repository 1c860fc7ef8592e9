"""The worker on the real engine with pocket: train, pause, go on, stop and keep, sample now, describe, merge."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

pytestmark = pytest.mark.heavy
SHORT: dict[str, Any] = {
    "steps": 12, "batch_size": 2, "rank": 2, "sample_steps": 2, "save_every_steps": 6, "method": "lora",
    "sample_prompts": ["a photo of zkw robot"],
}  # fmt: skip


def test_a_training_is_paused_tried_and_finished(
    serve: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    studio = serve(real=True)
    project = studio.client.post("/api/demo", json={}).json()["id"]
    job = studio.train(project, **SHORT)
    studio.wait(job, "running", step=2, seconds=120)
    told = [event["kind"] for _, event in studio.studio.queue.job(job).events_after(0)]
    assert told.index("sample") < told.index("metric"), "the base's pictures come before the first step"
    assert studio.client.post(f"/api/jobs/{job}/pause").status_code == 200
    paused = studio.wait(job, "paused", seconds=120)
    assert 2 <= paused["step"] < 12
    results = studio.client.get(f"/api/jobs/{job}/results").json()
    assert results["checkpoints"] and results["file"] is None
    assert studio.studio.queue.training() is None  # so that the engine draws
    assert studio.client.post(f"/api/jobs/{job}/resume").status_code == 200
    done = studio.wait(job, "finished", seconds=200)
    assert done["step"] == 12
    assert done["result"]["chosen"] in (6, 12, paused["step"])  # too short to choose itself: roughly compared
    assert not list((tmp_path / "cache").rglob("*latent*"))  # encoded photos go with their project
    results = studio.client.get(f"/api/jobs/{job}/results").json()
    assert results["verdict"]["reasons"] and results["verdict"]["step"] == done["result"]["chosen"]
    tensors = load(studio.client.get(results["file"]["url"]).content)
    assert all(key.startswith("lora_unet_") for key in tensors)
    assert b"/tmp" not in studio.client.get(results["file"]["url"]).content[:20_000]


def test_stop_keeps_the_last_checkpoint_and_it_goes_on(serve: Callable) -> None:
    studio = serve(real=True)
    project = studio.client.post("/api/demo", json={}).json()["id"]
    job = studio.train(project, **SHORT | {"steps": 300, "save_every_steps": 300})
    assert studio.client.get("/api/jobs").json()[0]["id"] == job
    studio.wait(job, "running", step=2, seconds=120)
    assert studio.client.post(f"/api/jobs/{job}/sample").status_code == 200
    ending = time.monotonic() + 120
    while len(studio.client.get(f"/api/jobs/{job}/samples").json()) < 2:  # the base's, and those asked for
        assert time.monotonic() < ending
        time.sleep(0.1)
    assert studio.client.post(f"/api/jobs/{job}/stop").status_code == 200
    stopped = studio.wait(job, "stopped", seconds=120)
    results = studio.client.get(f"/api/jobs/{job}/results").json()
    assert results["file"]["name"] == "robot.safetensors" and len(results["checkpoints"]) == 2
    more = studio.client.post(f"/api/jobs/{job}/continue", json={"steps": stopped["step"] + 3})
    assert more.status_code == 200
    assert studio.wait(job, "finished", seconds=200)["step"] == stopped["step"] + 3
    fresh = studio.client.post(f"/api/jobs/{job}/continue", json={"steps": 2, "fresh": True}).json()
    assert studio.wait(fresh["id"], "finished", seconds=200)["step"] == 2
    merged = studio.client.post("/api/merge", json={"jobs": [job, fresh["id"]], "weights": [0.5, 0.5]}).json()
    studio.wait(merged["id"], "finished", seconds=120)
    file = studio.client.get(f"/api/jobs/{merged['id']}/results").json()["file"]
    assert load(studio.client.get(file["url"]).content)


def test_photos_are_described(serve: Callable) -> None:
    studio = serve(real=True)
    project = studio.project(photos=4)
    job = studio.client.post(f"/api/projects/{project}/jobs", json={"kind": "caption"}).json()["id"]
    studio.wait(job, "finished", seconds=120)
    photos = studio.client.get(f"/api/projects/{project}/photos").json()
    assert {photo["caption"] for photo in photos} == {"a photo of zkw robot"}
