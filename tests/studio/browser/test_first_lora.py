"""From photos to a LoRA by a person who reads nothing, and the same view after every reload."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from safetensors.numpy import load

from tests.studio.browser.conftest import Watched, files
from tests.studio.conftest import Running, photo_bytes

COUNT_CLICKS = """addEventListener('click', event => {
    if (event.isTrusted && event.detail) sessionStorage.clicks = 1 + +(sessionStorage.clicks || 0); }, true)"""


def turned(number: int) -> bytes:
    """A photo that says it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    Image.open(io.BytesIO(photo_bytes(number))).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def heic(number: int) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    buffer = BytesIO()
    heif.from_pillow(Image.open(io.BytesIO(photo_bytes(number)))).save(buffer)
    return buffer.getvalue()


def test_the_demo_photos_make_a_project(page: Page, studio: Running) -> None:
    page.get_by_test_id("demo").click()
    page.wait_for_url("**/photos")
    expect(page.get_by_test_id("photo")).to_have_count(14)
    expect(page.get_by_test_id("enough")).to_contain_text("enough")
    expect(page.get_by_test_id("caption").first).not_to_have_value("")
    page.goto("about:blank")  # pictures that are still on their way would be gone
    for project in studio.client.get("/api/projects").json():
        studio.client.delete(f"/api/projects/{project['id']}")


def test_first_lora_takes_four_clicks_and_three_fields(page: Page, studio: Running) -> None:
    page.context.add_init_script(COUNT_CLICKS)
    page.reload()
    expect(page.get_by_test_id("drop")).to_contain_text("Drop 8 to 50 photos")
    photos = [(f"robot {i}.jpg", photo_bytes(i)) for i in range(10)]
    odd = [("phone.heic", heic(90)), ("side.jpg", turned(91)), ("copy.jpg", photo_bytes(0)),
           ("tiny.jpg", photo_bytes(93, (48, 40))), ("robot 3.txt", b"a robot in a garden, sunny")]  # fmt: skip
    with page.expect_file_chooser() as chooser:
        page.get_by_test_id("file-input").click()  # 1
    chooser.value.set_files(files(*photos, *odd))
    page.wait_for_url("**/photos")
    expect(page.get_by_test_id("photo")).to_have_count(13)

    def card(name: str) -> object:
        return page.locator(f"[data-testid=photo][aria-label*='{name}']")

    expect(card("side.jpg").get_by_test_id("problem")).to_contain_text(["turned upright"])
    expect(card("phone.heic").get_by_test_id("problem").first).to_contain_text("HEIC")
    expect(card("tiny.jpg").get_by_test_id("problem").first).to_contain_text("small")
    expect(card("robot 3.jpg").get_by_test_id("caption")).to_have_value("a robot in a garden, sunny")
    fields = page.evaluate("""() => [...new Set([...document.querySelectorAll('[data-about] input')]
        .filter(field => field.checkVisibility()).map(field => field.name))]""")
    assert fields == ["name", "kind"], "and the photos: three fields"
    page.get_by_test_id("name").fill("My robot")
    page.get_by_test_id("kind-object").click()  # 2
    page.get_by_test_id("continue").click()  # 3
    page.wait_for_url("**/train")
    expect(page.get_by_test_id("preflight")).to_have_attribute("data-ready", "yes")
    page.get_by_test_id("train").click()  # 4
    expect(page.get_by_test_id("samples").locator("img").first).to_be_visible()
    page.wait_for_url("**/results")
    assert int(page.evaluate("sessionStorage.clicks")) <= 4
    expect(page.get_by_test_id("chosen")).to_contain_text("Step 30")
    expect(page.get_by_test_id("reason").first).to_contain_text("still follow prompts")
    with page.expect_download() as download:
        page.get_by_test_id("download").click()
    assert download.value.suggested_filename == "my-robot.safetensors"
    tensors = load(download.value.path().read_bytes())
    assert len(tensors) == 24 and all(key.startswith("lora_unet_") for key in tensors)


def test_a_reload_during_an_upload_loses_nothing_that_came(
    visit: Callable[..., Page], studio: Running, watched: Watched
) -> None:
    watched.offline = True  # files that are on their way are cut off
    project = studio.project("Cut off")
    page = visit(f"/p/{project}/photos")
    photos = files(*((f"{i}.jpg", photo_bytes(700 + i, (900, 700))) for i in range(16)))
    page.get_by_test_id("file-input").set_input_files(photos)
    page.wait_for_function("() => document.querySelector('[data-uploads] progress')?.value >= 2")
    page.reload()
    came = len(studio.client.get(f"/api/projects/{project}/photos").json())
    assert came >= 2
    expect(page.locator("[data-uploads] progress")).to_have_count(0)
    page.get_by_test_id("file-input").set_input_files(photos)
    expect(page.get_by_test_id("photo")).to_have_count(16)
    expect(page.get_by_test_id("skipped").first).to_contain_text("is here already")


def test_descriptions_at_work_are_the_same_after_a_reload(
    visit: Callable[..., Page], studio: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slowly = tmp_path / "slowly"
    slowly.touch()
    monkeypatch.setenv("MAQUETTE_FAKE", "slow")
    monkeypatch.setenv("MAQUETTE_FAKE_SLOW_WHILE", str(slowly))
    project = studio.project("Described", photos=30)
    page = visit(f"/p/{project}/photos")
    page.get_by_test_id("describe").click()
    for _ in range(2):
        expect(page.get_by_test_id("strip")).to_contain_text("Captions")
        page.reload()
    [job] = [each for each in studio.client.get("/api/jobs").json() if each["project"] == project]
    assert job["state"] == "running"
    slowly.unlink()
    expect(page.get_by_test_id("strip")).to_have_count(0, timeout=90_000)
    expect(page.get_by_test_id("caption").last).to_have_value(re.compile("^a photo of zkw robot"))
    page.reload()
    expect(page.get_by_test_id("caption").last).to_have_value(re.compile("^a photo of zkw robot"))


def test_every_state_is_the_same_after_a_reload(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Reloaded", photos=8)
    page = visit(f"/p/{project}/photos")
    page.reload()
    expect(page.get_by_test_id("photo")).to_have_count(8)
    first, second = studio.train(project, steps=6000), studio.train(studio.project("Waits", photos=4))
    pid = studio.wait(first, "running", step=2) and studio.studio.queue.job(first).status()["pid"]
    page.goto(f"{studio.address}/p/{studio.studio.queue.job(second).spec['project']}/train")
    expect(page.get_by_test_id("live")).to_have_attribute("data-state", "queued")
    page.reload()
    expect(page.get_by_test_id("live")).to_have_attribute("data-state", "queued")
    page.goto(f"{studio.address}/p/{project}/train")
    seen = []
    for _ in range(3):
        expect(page.get_by_test_id("live")).to_have_attribute("data-state", "running")
        seen.append(int(page.get_by_test_id("live").get_attribute("data-percent") or 0))
        assert page.get_by_test_id("strip").is_visible()
        assert studio.studio.queue.job(first).status()["pid"] == pid
        page.reload()
    assert seen == sorted(seen), "steps never go backwards"
    studio.client.post(f"/api/jobs/{first}/stop")
    page.wait_for_url("**/results")
    page.reload()
    expect(page.get_by_test_id("chosen")).to_be_visible()
    studio.client.delete(f"/api/jobs/{second}")
