"""What a look at every screen found: places that jump, pictures that are small, sentences of nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.studio.browser.conftest import Watched, axe
from tests.studio.conftest import Running, photo_bytes


def test_the_drawer_of_options_stays_where_it_was(visit: Callable[..., Page], studio: Running) -> None:
    page = visit(f"/p/{studio.project('Drawer', photos=4)}/train")
    page.get_by_test_id("advanced-button").click()
    rank = page.get_by_test_id("option-rank").locator("input")
    rank.fill("12")
    rank.press("Tab")
    expect(page.get_by_test_id("reset-rank")).to_be_visible()
    expect(rank).to_be_in_viewport()


def test_words_for_a_terminal_are_code(visit: Callable[..., Page], studio: Running) -> None:
    page = visit(f"/p/{studio.project('Code', photos=4)}/train")
    page.get_by_test_id("advanced-button").click()
    expect(page.get_by_test_id("option-choose").locator("code")).to_have_text("maquette evaluate")
    assert "`" not in page.get_by_test_id("advanced-form").inner_text()


@pytest.mark.parametrize("width", [360, 1440])
def test_a_small_photo_is_painted_large(visit: Callable[..., Page], studio: Running, width: int) -> None:
    project = studio.project(f"Small {width}")
    studio.upload(project, ("small.jpg", photo_bytes(1, (96, 96))))
    page = visit(f"/p/{project}/photos", width, 800)
    page.get_by_test_id("photo").first.focus()
    page.keyboard.press("m")
    box = page.get_by_test_id("mask").bounding_box()
    assert box is not None and min(box["width"], box["height"]) > 300
    expect(page.get_by_test_id("save-mask")).to_be_in_viewport()


def test_an_edit_that_changes_nothing_offers_no_undo(visit: Callable[..., Page], studio: Running) -> None:
    page = visit(f"/p/{studio.project('Tags', photos=4)}/photos")
    for tag, action, told in (
        ("boat", "replace", "None of the photos has “boat”."),
        ("sea", "add", "Added “sea” on 4 photos."),
        ("sea", "add", "All photos have “sea” already."),
    ):
        if action == "add":
            page.get_by_test_id("new-tag").fill(tag)
            page.get_by_test_id("add-tag").click()
        else:
            page.get_by_text("Find and replace").click()
            page.get_by_test_id("find").fill(tag)
            page.get_by_test_id("do-replace").click()
        toast = page.get_by_test_id("toasts").locator(".toast").last
        expect(toast).to_contain_text(told)
        expect(toast.get_by_role("button")).to_have_count(1 if told.startswith("Added") else 0)


def test_a_tag_being_typed_outlives_a_new_list_of_tags(visit: Callable[..., Page], studio: Running) -> None:
    page = visit(f"/p/{studio.project('Typed', photos=2)}/photos")
    page.get_by_text("Find and replace").click()
    page.get_by_test_id("find").fill("old")
    page.get_by_test_id("new-tag").press_sequentially("ha")
    with page.expect_response("**/tags"):
        page.evaluate("document.body.dispatchEvent(new Event('studio:tags'))")
    page.wait_for_function("!document.querySelector('#tags.htmx-request')")
    page.keyboard.type("t")
    expect(page.get_by_test_id("new-tag")).to_have_value("hat")
    expect(page.get_by_test_id("find")).to_have_value("old")
    expect(page.get_by_test_id("find")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_of_who_is_not_let_in(
    visit: Callable[..., Page], studio: Running, watched: Watched, theme: str
) -> None:
    watched.refusals = True
    page = visit("/queue", color_scheme=theme)
    page.context.clear_cookies()
    page.goto(f"{studio.address}/queue")
    expect(page.locator("h1")).to_have_text("This studio is locked")
    expect(page.locator("code")).to_have_text("maquette studio")
    red = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert int(red) > 240 if theme == "light" else int(red) < 40, "the policy lets its style in"
    assert axe(page) == []


def test_a_warning_goes_with_its_picture(visit: Callable[..., Page], studio: Running) -> None:
    page = visit("/play")
    page.get_by_test_id("prompt").fill("a robot <lora:nobody:1>")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("warnings")).to_contain_text("There is no LoRA 'nobody'")
    expect(page.get_by_test_id("generate")).to_have_text("Generate")
    page.get_by_test_id("prompt").fill("a robot")
    page.get_by_test_id("generate").click()
    expect(page.get_by_test_id("warnings")).to_be_hidden()
    expect(page.get_by_test_id("generate")).to_have_text("Generate")
    expect(page.get_by_test_id("warnings")).to_be_hidden()
