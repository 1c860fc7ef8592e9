"""Without a mouse, without colours, without motion: axe-core on every screen, state and theme; the road by keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.studio.browser.conftest import axe, files
from tests.studio.conftest import Running, photo_bytes


@pytest.fixture(scope="module")
def project(studio: Running) -> str:
    """A project with a photo left out, one too small and a training that has ended."""
    made = studio.project("Robby", photos=6)
    studio.upload(made, ("tiny.jpg", photo_bytes(60, (40, 36))))
    photo = studio.client.get(f"/api/projects/{made}/photos").json()[0]["id"]
    studio.client.patch(f"/api/projects/{made}/photos/{photo}", json={"excluded": True, "caption": "robot, red"})
    studio.wait(studio.train(made), "finished")
    return made


@pytest.mark.parametrize("theme", ["light", pytest.param("dark", marks=pytest.mark.heavy)])
def test_no_screen_has_a_barrier(visit: Callable[..., Page], studio: Running, project: str, theme: str) -> None:
    page = visit("/", color_scheme=theme)
    for path in ("/", f"/p/{project}/photos", f"/p/{project}/train", f"/p/{project}/results", "/queue", "/play"):
        page.goto(studio.address + path)
        assert axe(page) == [], f"{path} in {theme}"


@pytest.mark.heavy
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_state_has_a_barrier(
    visit: Callable[..., Page], studio: Running, project: str, theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit("/", color_scheme=theme, reduced_motion="reduce")
    for opener, path in (("settings-button", "/"), ("keys-button", "/"), ("advanced-button", f"/p/{project}/train")):
        page.goto(studio.address + path)
        page.get_by_test_id(opener).click()
        expect(page.locator("dialog[open] .body").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        assert axe(page) == [], f"{opener} in {theme}"
    page.goto(f"{studio.address}/p/{project}/results")
    page.get_by_test_id("cell").nth(0).click()
    page.get_by_test_id("cell").nth(2).click()
    assert axe(page) == [], f"the comparison in {theme}"
    page.goto(f"{studio.address}/p/{project}/photos")
    page.get_by_test_id("photo").nth(1).focus()
    page.keyboard.press("m")
    expect(page.get_by_test_id("mask-dialog")).to_be_visible()
    assert axe(page) == [], f"the mask in {theme}"
    monkeypatch.setenv("MAQUETTE_FAKE", "slow")
    job = studio.train(project, steps=3000)
    studio.train(waiting := studio.project(f"Waits {theme}", photos=4))
    studio.wait(job, "running")
    for path, state in ((f"/p/{project}/train", "running"), (f"/p/{waiting}/train", "queued")):
        page.goto(studio.address + path)
        expect(page.get_by_test_id("live")).to_have_attribute("data-state", state)
        assert axe(page) == [], f"{state} in {theme}"
    page.goto(f"{studio.address}/p/{project}/train")
    page.get_by_test_id("pause").click()
    studio.wait(job, "paused")
    page.goto(f"{studio.address}/p/{project}/train")
    expect(page.get_by_test_id("live")).to_have_attribute("data-state", "paused")
    assert axe(page) == [], f"paused in {theme}"
    monkeypatch.delenv("MAQUETTE_FAKE")
    for each in studio.client.get("/api/jobs").json():
        if each["state"] in ("queued", "paused", "running"):
            studio.client.delete(f"/api/jobs/{each['id']}")
    monkeypatch.setenv("MAQUETTE_FAKE", "oom")
    studio.wait(studio.train(project), "failed")
    page.goto(f"{studio.address}/p/{project}/train")
    assert axe(page) == [], f"failed in {theme}"
    empty = studio.project("Empty")
    page.goto(f"{studio.address}/p/{empty}/photos")
    assert axe(page) == [], f"no photos in {theme}"


@pytest.mark.heavy
def test_the_road_by_keys_alone(page: Page, studio: Running) -> None:
    page.get_by_test_id("file-input").set_input_files(files(*((f"{i}.jpg", photo_bytes(40 + i)) for i in range(6))))
    page.wait_for_url("**/photos")
    expect(page.get_by_test_id("photo")).to_have_count(6)
    page.get_by_test_id("name").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("By keys")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")  # another kind
    expect(page.locator("h1")).to_have_text("By keys")
    page.get_by_test_id("photo").first.focus()
    outline = "() => getComputedStyle(document.activeElement).outlineStyle"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(outline) != "none"
    expect(page.get_by_test_id("photo").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("robot, on a table")
    page.keyboard.press("Control+Enter")  # saves, and the next caption
    page.keyboard.type("robot, in the grass")
    page.keyboard.press("Escape")
    expect(page.locator("[data-tag=robot]")).to_contain_text("2")
    page.keyboard.press("x")
    expect(page.get_by_test_id("enough")).to_contain_text("5 used")
    page.keyboard.press("Control+z")
    expect(page.get_by_test_id("enough")).not_to_contain_text("used")
    page.keyboard.press("?")
    expect(page.get_by_test_id("keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("keys")).to_be_hidden()
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/train")
    page.get_by_test_id("advanced-button").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("advanced-search")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("advanced-button")).to_be_focused()
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/results")
    page.get_by_test_id("cell").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    expect(page.get_by_test_id("slider")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("cell").nth(1)).to_be_focused()
