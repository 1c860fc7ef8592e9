"""/api/draw, kept pictures, and that no page and no drawing brings torch into the server."""

import base64
import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from maquette.studio.api.draw import settings_of
from tests.studio.conftest import Running

CAT = {"prompt": "a cat", "steps": 2, "seed": 4, "width": 64, "height": 64}


def test_draws_keeps_reads_and_deletes(studio: Running) -> None:
    told = studio.client.post("/api/draw", json={**CAT, "n_iter": 2, "sampler_name": "DPM++ 2M Karras"}).json()
    assert told["warnings"] == [] and told["interrupted"] is False
    assert [picture["seed"] for picture in told["pictures"]] == [4, 5]
    names = [picture["name"] for picture in told["pictures"]]
    listed = [picture["name"] for picture in studio.client.get("/api/draw/pictures").json()]
    assert set(listed) == set(names)
    answer = studio.client.get(told["pictures"][0]["url"])
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(BytesIO(answer.content)).info["parameters"] == told["pictures"][0]["infotext"]
    read = studio.client.post("/api/draw/read", json={"image": base64.b64encode(answer.content).decode()}).json()
    wanted = {"prompt": "a cat", "steps": 2, "seed": 4, "width": 64, "height": 64, "cfg_scale": 4.0}
    assert read["settings"] == wanted | {"negative_prompt": "", "sampler_name": "DPM++ 2M", "scheduler": "Karras"}
    assert studio.client.delete(told["pictures"][0]["url"]).status_code == 200
    assert studio.client.get(told["pictures"][0]["url"]).status_code == 404
    assert studio.client.delete(told["pictures"][0]["url"]).status_code == 404
    assert len(list((studio.studio.folder / "pictures").iterdir())) == 1


@pytest.mark.parametrize(
    "name", ["../job.json", "..\\.lock", ".lock", "/etc/passwd", "a.png", "20260101-000000-1.png\n"]
)
def test_names_are_of_kept_pictures_alone(studio: Running, name: str) -> None:
    (studio.studio.folder / "pictures").mkdir(exist_ok=True)
    for method in ("GET", "DELETE"):
        assert studio.client.request(method, f"/api/draw/pictures/{quote(name, safe='')}").status_code in (404, 405)


def test_a_link_among_the_pictures_is_not_followed(studio: Running, tmp_path: Path) -> None:
    folder = studio.studio.folder / "pictures"
    folder.mkdir(exist_ok=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "20260101-000000-1.png").symlink_to(tmp_path / "secret")
    assert studio.client.get("/api/draw/pictures/20260101-000000-1.png").status_code == 404


def test_refusals_are_sentences(studio: Running) -> None:
    for body, status, sentence in (
        ({"sampler_name": "Magic"}, 400, "Sampler not found"),
        ({"init_images": ["http://localhost/x.png"]}, 400, "init_images[0] is an address, and nothing is fetched"),
        ({"x_axis": "seed"}, 400, "Write an axis as NAME=VALUES"),
        ({"steps": 0}, 422, "steps: "),
    ):
        answer = studio.client.post("/api/draw", json={**CAT, **body})
        assert answer.status_code == status and answer.json()["error"].startswith(sentence)


def test_another_base_is_drawn_with_at_once(studio: Running) -> None:
    folder = studio.studio.settings.bases_folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.ckpt").write_bytes(b"x")
    first = studio.client.post("/api/draw", json=CAT).json()["pictures"][0]
    assert studio.client.patch("/api/settings", json={"base": str(folder / "mine.ckpt")}).status_code == 200
    other = studio.client.post("/api/draw", json=CAT).json()["pictures"][0]
    assert "Model: pocket" in first["infotext"] and "Model: mine" in other["infotext"]


def test_a_training_is_tried_at_the_weight_that_is_recommended(fast: None, studio: Running) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "finished")
    run = studio.studio.queue.job(job).run
    verdict = json.loads(run.evaluation.read_text())
    run.evaluation.write_text(json.dumps(verdict | {"weight": 0.85}))
    assert "&lt;lora:robby:0.85&gt;" in studio.client.get(f"/play?job={job}").text
    studio.client.post(f"/api/jobs/{job}/choice", json={"step": 10, "weight": 0.7})
    assert "&lt;lora:robby:0.7&gt;" in studio.client.get(f"/play?job={job}").text
    studio.studio.queue.job(job).set_status(state="paused")  # in a longer training, whose last checkpoint is tried
    assert "&lt;lora:robby-000040:1&gt;" in studio.client.get(f"/play?job={job}").text


def test_what_another_programs_text_says() -> None:
    text = "a cat\nNegative prompt: a dog\nSteps: 30, Sampler: DPM fast, CFG scale: x, Seed: 7, Size: 512x768, Model: m"
    wanted = {"prompt": "a cat", "negative_prompt": "a dog", "steps": 30, "seed": 7, "width": 512, "height": 768}
    assert settings_of(text) == wanted  # a sampler that is not here and a number that is none are left out
    assert settings_of("") == {}


PAGES = """
import sys
from pathlib import Path
from fastapi.testclient import TestClient
from maquette.config.studio import StudioSettings
from maquette.studio.app import create_app
app = create_app(StudioSettings(data=Path(sys.argv[1])))
head = {"Authorization": f"Bearer {app.state.studio.token}"}
client = TestClient(app, base_url="http://localhost", headers=head)
project = client.post("/api/projects", json={"name": "Robby", "kind": "object", "subject": "robot"}).json()["id"]
for page in ("/", "/play", "/queue", f"/p/{project}/photos", f"/p/{project}/train", f"/p/{project}/results"):
    assert client.get(page).status_code == 200, page
assert client.post("/api/draw", json={"prompt": "a cat", "steps": 1}).json()["pictures"]
assert client.get("/sdapi/v1/loras").status_code == client.get("/sdapi/v1/sd-models").status_code == 200
print("torch" in sys.modules)
app.state.studio.close()
"""


@pytest.mark.heavy
def test_no_page_and_no_drawing_brings_torch_into_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    done = subprocess.run([sys.executable, "-c", PAGES, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("False", 0), done.stderr
