"""What is rare: very many photos, a base that is gone, a killed server, a closed tab, names Windows does not take."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from safetensors.numpy import load

from maquette.studio.names import file_stem
from tests.studio.browser.conftest import CUT_OFF, Watched, files
from tests.studio.conftest import Running, photo_bytes
from tests.studio.process import Process, until

LEGAL_ON_WINDOWS = re.compile(r'(?!(?:con|prn|aux|nul|com\d|lpt\d)\.)[^<>:"/\\|?*\x00-\x1f]+[^. ]')


@pytest.mark.heavy
def test_151_photos_are_trained_and_the_201st_is_refused_in_a_sentence(
    visit: Callable[..., Page], studio: Running, watched: Watched
) -> None:
    watched.refusals = True
    project = studio.project("Very many")
    page = visit(f"/p/{project}/photos")
    page.get_by_test_id("file-input").set_input_files(
        files(*((f"{i:03}.jpg", photo_bytes(i, (64, 64))) for i in range(151)))
    )
    expect(page.get_by_test_id("photo")).to_have_count(151, timeout=120_000)
    page.goto(f"{studio.address}/p/{project}/train")
    expect(page.get_by_test_id("preflight-photos")).to_contain_text("151 photos")
    page.get_by_test_id("train").click()
    page.wait_for_url("**/results")
    page.goto(f"{studio.address}/p/{project}/photos")
    page.get_by_test_id("file-input").set_input_files(
        files(*((f"{i:03}.jpg", photo_bytes(i, (64, 64))) for i in range(151, 201)))
    )
    expect(page.get_by_test_id("skipped")).to_have_count(1)
    expect(page.get_by_test_id("skipped")).to_contain_text(
        "was not added: a project holds 200 photos; 10 to 50 are enough."
    )
    expect(page.get_by_test_id("photo")).to_have_count(200)


def test_a_base_that_is_gone_is_said_and_another_one_trains(
    visit: Callable[..., Page], studio: Running, watched: Watched
) -> None:
    watched.refusals = True
    project = studio.project("Its base is gone", photos=5)
    base = studio.studio.settings.bases_folder / "mine"
    base.mkdir(parents=True)
    (base / "model_index.json").write_text("{}")
    page = visit(f"/p/{project}/train")
    with page.expect_navigation():
        page.get_by_test_id("base").select_option("mine")
    page.get_by_test_id("prompt").first.fill("a photo of zkw robot by the sea")
    page.get_by_test_id("prompt").nth(1).focus()
    (base / "model_index.json").unlink()
    base.rmdir()
    page.get_by_test_id("train").click()
    expect(page.get_by_test_id("toasts")).to_contain_text("There is no model 'mine'; there are pocket")
    expect(page.get_by_test_id("preflight-base")).to_contain_text("Choose another base.")
    expect(page.get_by_test_id("prompt").first).to_have_value("a photo of zkw robot by the sea")
    with page.expect_navigation():
        page.get_by_test_id("base").select_option("pocket")
    expect(page.get_by_test_id("prompt").first).to_have_value("a photo of zkw robot by the sea")
    page.get_by_test_id("train").click()
    page.wait_for_url("**/results")


@pytest.mark.heavy
def test_a_closed_tab_finds_the_training_further_along(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("The tab is closed", photos=5)
    job = studio.train(project, steps=400)
    page = visit(f"/p/{project}/train")
    expect(page.get_by_test_id("live-words")).to_contain_text("step ")
    step = studio.job(job)["step"]
    context = page.context
    page.close()
    studio.wait(job, "running", step=step + 40)
    page = context.new_page()
    page.goto(f"{studio.address}/p/{project}/train")
    expect(page.get_by_test_id("live")).to_have_attribute("data-state", "running")
    shown = re.search(r"step (\d+)/400", page.get_by_test_id("live-words").inner_text())
    assert shown is not None and int(shown[1]) >= step + 40
    studio.client.delete(f"/api/jobs/{job}")


@pytest.mark.heavy
def test_a_server_that_is_killed_leaves_the_training_to_the_next(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context()
    faults: list[str] = []

    def entered(process: Process, project: str) -> Page:
        context.add_cookies([{"name": "maquette", "value": process.token, "url": process.address}])
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda m: faults.append(m.text) if m.type == "error" and not any(c in m.text for c in CUT_OFF) else None,
        )
        page.goto(f"{process.address}/p/{project}/train")
        return page

    process = Process(tmp_path)
    project = process.client.post("/api/projects", json={"name": "Killed", "kind": "object"}).json()["id"]
    photos = [("files", (f"{i}.jpg", photo_bytes(i))) for i in range(5)]
    assert len(process.client.post(f"/api/projects/{project}/photos", files=photos).json()["added"]) == 5
    job = process.client.post(f"/api/projects/{project}/jobs", json={"settings": {"steps": 600}}).json()["id"]
    page = entered(process, project)
    expect(page.get_by_test_id("live-words")).to_contain_text("step ")
    step, status = until(process, job, "running", step=5)["step"], tmp_path / "jobs" / job / "status.json"
    pid = json.loads(status.read_text())["pid"]
    process.kill()
    expect(page.get_by_test_id("offline")).to_be_visible()
    page.close()
    with Process(tmp_path) as process:
        page = entered(process, project)
        expect(page.get_by_test_id("live")).to_have_attribute("data-state", "running")
        told = json.loads(status.read_text())
        assert told["pid"] == pid and told["step"] >= step
        until(process, job, "running", step=told["step"] + 10)
        page.get_by_test_id("stop").click()
        page.wait_for_url("**/results")
        assert [each["state"] for each in process.get("/api/jobs")] == ["stopped"], "one job, and no ghost of it"
        file = process.get(f"/api/jobs/{job}/results")["file"]
        assert load(process.client.get(file["url"]).content)
    context.close()
    assert faults == []


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["CON", "aux. ", 'a<b>:"|?*', "..\\..\\Zoë 猫", "C:\\Users\\zoë\\robot "])
def test_names_that_windows_does_not_take_make_files_that_it_does(
    visit: Callable[..., Page], studio: Running, name: str
) -> None:
    page = visit("/")
    page.get_by_test_id("file-input").set_input_files(
        files(
            ("CON.jpg", photo_bytes(1)), ("C:\\Fotos\\robot?.jpg", photo_bytes(2)), ("aux.jpg", photo_bytes(3)),
            ("lpt1.jpg", photo_bytes(4)), ("dot..jpg", photo_bytes(5)), ("CON.txt", b"a robot, from a console"),
        )
    )  # fmt: skip
    page.wait_for_url("**/photos")
    expect(page.get_by_test_id("photo")).to_have_count(5)
    card = page.locator("[data-testid=photo][aria-label*='CON.jpg']")
    expect(card.get_by_test_id("caption")).to_have_value("a robot, from a console")
    page.get_by_test_id("name").fill(name)
    page.get_by_test_id("kind-object").click()
    page.get_by_test_id("continue").click()
    page.wait_for_url("**/train")
    page.get_by_test_id("train").click()
    page.wait_for_url("**/results")
    with page.expect_download() as download:
        page.get_by_test_id("download").click()
    assert LEGAL_ON_WINDOWS.fullmatch(download.value.suggested_filename), download.value.suggested_filename
    for path in studio.studio.folder.rglob("*"):
        assert LEGAL_ON_WINDOWS.fullmatch(path.name), path
        assert not path.stem.lower().startswith("..")


@pytest.mark.parametrize(
    ("text", "stem"),
    [("CON", "con-lora"), ("Lpt1", "lpt1-lora"), ("nul.", "nul-lora"), ("Console", "console"), ("猫", "lora"),
     ("Zoë's robot", "zoe-s-robot"), ("com10", "com10")],
)  # fmt: skip
def test_a_name_as_that_of_a_file(text: str, stem: str) -> None:
    assert file_stem(text, "lora") == stem
