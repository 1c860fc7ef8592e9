"""Results, and a training in the hands of its user: pause, stop, sample now, queue; a server that dies meanwhile."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.studio.browser.conftest import serving
from tests.studio.conftest import Running

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def project(studio: Running) -> str:
    made = studio.project("Judged", photos=6)
    studio.wait(studio.train(made), "finished")
    return made


def test_results_are_compared_overridden_and_given_away(
    visit: Callable[..., Page], studio: Running, project: str, tmp_path: Path
) -> None:
    page = visit(f"/p/{project}/results", has_touch=True)
    cells = page.get_by_test_id("cell")
    assert cells.count() % 5 == 0, "the base and four checkpoints, for each prompt"
    assert page.evaluate("() => [...document.querySelectorAll('[data-cell] img')].every(i => i.complete || i.loading)")
    cells.nth(0).click()
    cells.nth(3).click()
    slider, area = page.get_by_test_id("slider"), page.locator("[data-compare]")
    expect(slider).to_have_value("50")
    box = area.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 60)
    page.mouse.up()
    assert 22 < float(slider.input_value()) < 28
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 50)
    assert 77 < float(slider.input_value()) < 83
    page.mouse.move(0, 0)
    finger = page.context.new_cdp_session(page)
    for kind, across in (("touchStart", 0.8), ("touchMove", 0.7), ("touchMove", 0.5), ("touchMove", 0.3)):
        point = {"x": box["x"] + across * box["width"], "y": box["y"] + 50 + 40 * (0.8 - across)}
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert 28 < float(slider.input_value()) < 32, "the divider follows a finger"
    page.touchscreen.tap(box["x"] + 0.8 * box["width"], box["y"] + 50)
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert 76 < float(slider.input_value()) < 82
    clip = page.locator("[data-clip]").get_attribute("x")
    assert clip == slider.input_value()
    page.keyboard.press("Escape")
    chosen = page.get_by_test_id("chosen").get_attribute("data-step")
    page.get_by_test_id("choose-40").click()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-step", "40")
    expect(page.get_by_test_id("reason")).to_contain_text(f"would keep step {chosen}")
    page.reload()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-step", "40")
    with page.expect_download() as download:
        page.get_by_test_id("zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = archive.namelist()
        card = next(name for name in names if name.lower().endswith("readme.md"))
        text = archive.read(card).decode()
    assert any(name.endswith(".safetensors") for name in names) and "zkw robot" in text
    page.get_by_test_id("choose-back").click()
    expect(page.get_by_test_id("chosen")).to_have_attribute("data-step", str(chosen))
    page.get_by_test_id("more-steps").fill("60")
    page.get_by_test_id("go-longer").click()
    page.wait_for_url("**/results")
    expect(page.get_by_test_id("grid")).to_contain_text("Step 60")


def test_a_merge_shows_the_weights_that_it_gives(visit: Callable[..., Page], studio: Running, project: str) -> None:
    other = studio.project("Other", photos=4)
    studio.wait(studio.train(other), "finished")
    page = visit(f"/p/{project}/results")
    form = page.get_by_test_id("merge")
    this, others = form.locator("output").all()
    expect(this).to_have_text(f"{float(form.locator('[name=a]').input_value()):.2f}")
    expect(others).to_have_text("0.80")
    form.locator("[name=b]").fill("0.35")
    expect(others).to_have_text("0.35")


def test_pause_stop_and_sample(
    visit: Callable[..., Page], studio: Running, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = studio.train(project, steps=2000, save_every_steps=500)
    page = visit(f"/p/{project}/train")
    expect(page.get_by_test_id("live-words")).to_contain_text("step ")
    page.get_by_test_id("sample-now").click()
    expect(page.get_by_test_id("samples").locator("thead th")).to_have_count(3)
    page.get_by_test_id("pause").click()
    page.wait_for_url(f"**/play?job={job}")
    page.goto(f"{studio.address}/p/{project}/train")
    expect(page.get_by_test_id("live")).to_have_attribute("data-state", "paused")
    page.get_by_test_id("resume").click()
    expect(page.get_by_test_id("live")).to_have_attribute("data-state", "running")
    expect(page.get_by_test_id("pause")).to_be_enabled()
    page.get_by_test_id("stop").click()
    page.wait_for_url("**/results")
    with page.expect_download() as download:
        page.get_by_test_id("download").click()
    from safetensors.numpy import load

    assert load(download.value.path().read_bytes())
    page.goto(f"{studio.address}/p/{project}/train")
    expect(page.get_by_test_id("ended")).to_contain_text("Stopped")
    expect(page.get_by_test_id("train")).to_be_enabled()


def test_the_queue_is_put_in_another_order(visit: Callable[..., Page], studio: Running, project: str) -> None:
    first = studio.train(project, steps=1000)
    studio.wait(first, "running")
    names = ["Alpha", "Beta"]
    jobs = [studio.train(studio.project(name, photos=4)) for name in names]
    page = visit("/queue")
    queued = page.locator("[data-testid=job][data-state=queued]")
    expect(queued.locator("a")).to_have_text(names)
    queued.nth(1).get_by_test_id("up").click()
    expect(queued.locator("a")).to_have_text(["Beta", "Alpha"])
    for job in (*jobs, first):
        studio.client.post(f"/api/jobs/{job}/stop")
    expect(queued).to_have_count(0)


def test_a_server_that_dies_leaves_the_training_to_the_next(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAQUETTE_ENGINE", "fake")
    data = tmp_path / "a data folder with spaces"
    with serving(data, keep=True) as running:
        project = running.project("Zoë 猫 🐈", photos=5)
        job = running.train(project, steps=300)
        context = browser.new_context()
        context.add_cookies([{"name": "maquette", "value": running.token, "url": running.address}])
        page = context.new_page()
        page.goto(f"{running.address}/p/{project}/train")
        expect(page.get_by_test_id("live-words")).to_contain_text("step ")
        step = running.wait(job, "running", step=5)["step"]
        pid = running.studio.queue.job(job).status()["pid"]
    page.close()
    with serving(data) as running:
        context.add_cookies([{"name": "maquette", "value": running.token, "url": running.address}])
        page = context.new_page()
        page.goto(f"{running.address}/p/{project}/train")
        expect(page.get_by_test_id("project-title")).to_have_text("Zoë 猫 🐈")
        expect(page.get_by_test_id("live")).to_have_attribute("data-state", "running")
        now = running.studio.queue.job(job).status()
        assert now["pid"] == pid and now["step"] >= step
        page.get_by_test_id("stop").click()
        page.wait_for_url("**/results")
        shown = page.get_by_test_id("chosen").inner_text()
        assert re.match(r"Step \d+", shown)
    context.close()


@pytest.fixture(autouse=True)
def idle(studio: Running) -> Iterator[None]:
    """No job of one test disturbs the next."""
    yield
    for job in studio.client.get("/api/jobs").json():
        if job["state"] in ("queued", "running", "paused", "stopping"):
            studio.client.delete(f"/api/jobs/{job['id']}")
