"""The studio's server from end to end, with the fake engine."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from safetensors.numpy import load

from maquette.config.studio import StudioSettings
from maquette.errors import MaquetteError
from maquette.studio.core import Studio

# Visits every page and reads the description; tells whether torch was imported, and which addresses were reached for.
VISIT = """
import json, sys
from pathlib import Path
reached = []

def watch(event, given):
    if event in ("socket.connect", "socket.getaddrinfo"):
        reached.append(str(given))

sys.addaudithook(watch)
from starlette.testclient import TestClient
from maquette.config.studio import StudioSettings
from maquette.studio.app import create_app
app = create_app(StudioSettings(data=Path(sys.argv[1])))
headers = {"Host": "localhost", "Authorization": "Bearer " + app.state.studio.token}
with TestClient(app, headers=headers) as client:
    project = client.post("/api/demo", json={}).json()["id"]
    pages = ["/", "/queue", "/play", "/ui/settings", "/api/openapi.json"]
    pages += [f"/p/{project}/{place}" for place in ("photos", "train", "results")]
    pages += [f"/ui/p/{project}/advanced", f"/api/projects/{project}/presets", f"/api/projects/{project}/check"]
    statuses = {client.get(page).status_code for page in pages}
print(json.dumps({"torch": "torch" in sys.modules, "reached": reached, "statuses": sorted(statuses)}))
"""


def test_from_photos_to_a_file_that_loads(fast: None, studio) -> None:
    project = studio.project(photos=5)
    job = studio.train(project)
    done = studio.wait(job, "finished")
    assert done["step"] == done["steps"] == 40 and done["percent"] == 100
    results = studio.client.get(f"/api/jobs/{job}/results").json()
    assert results["verdict"]["step"] == results["verdict"]["rows"][0]["step"] * 3 == 30
    assert [file["step"] for file in results["checkpoints"]] == [10, 20, 30, 40]
    file = studio.client.get(results["file"]["url"])
    assert file.headers["content-disposition"] == 'attachment; filename="robby.safetensors"'
    assert {key.rpartition(".")[2] for key in load(file.content)} == {"weight", "alpha"}
    samples = studio.client.get(f"/api/jobs/{job}/samples").json()
    assert [row["step"] for row in samples] == [0, 10, 20, 30, 40]
    assert studio.client.get(samples[0]["pictures"][0]).headers["content-type"] == "image/png"


def test_events_are_numbered_and_resumed_behind_the_last(fast: None, studio) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "finished")
    with studio.client.stream("GET", f"/api/jobs/{job}/events", headers={"Last-Event-ID": "3"}) as stream:
        numbers = []
        for line in stream.iter_lines():
            if line.startswith("id:"):
                numbers.append(int(line[3:]))
            if line.startswith("event: status"):
                break
    assert numbers == list(range(4, 4 + len(numbers))) and len(numbers) > 50


def test_a_second_studio_on_the_folder_is_refused(studio) -> None:
    with pytest.raises(MaquetteError, match="Another studio works in"):
        Studio.open(StudioSettings(data=studio.studio.folder))


def test_the_server_never_imports_torch(tmp_path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", VISIT, str(tmp_path / "data")], capture_output=True, text=True, check=True,
        env=os.environ | {"MAQUETTE_ENGINE": "fake"},
    )  # fmt: skip
    assert json.loads(told.stdout) == {"torch": False, "reached": [], "statuses": [200]}


def test_a_training_needs_four_photos(studio) -> None:
    project = studio.project(photos=3)
    answer = studio.client.post(f"/api/projects/{project}/jobs", json={})
    assert answer.status_code == 400
    assert answer.json() == {"error": "A training needs 4 photos or more; this project has 3 in use."}


def test_two_presses_of_train_make_one_job(serve: Callable, monkeypatch) -> None:
    monkeypatch.setenv("MAQUETTE_FAKE", "slow")
    studio = serve()
    project = studio.project(photos=4)
    studio.train(project)
    again = studio.client.post(f"/api/projects/{project}/jobs", json={})
    assert again.status_code == 409
    assert len(studio.client.get("/api/jobs").json()) == 1
