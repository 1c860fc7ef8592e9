"""The studio's server from end to end, with the fake engine."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from safetensors.numpy import load

from maquette.config.studio import StudioSettings
from maquette.errors import MaquetteError
from maquette.studio.core import Studio


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
    script = (
        "import sys\nfrom maquette.config.studio import StudioSettings\nfrom maquette.studio.app import create_app\n"
        f"app = create_app(StudioSettings(data={str(tmp_path / 'd')!r}))\napp.openapi()\n"
        "print('torch' in sys.modules)\napp.state.studio.close()"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "False"


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
