"""Every screen at the width of a phone, a tablet and a desk: nothing runs out of it, everything can be touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.studio.conftest import Running

LEAST = 44  # pixels of a side of what is touched
# What can be touched, with the label or line that widens it; text links within sentences are of the sentence's height.
SMALL = """least => [...document.querySelectorAll('button, a, input, select, textarea, summary')]
    .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.closest('p, li.line, .hidden-label, .skip'))
    .map(e => [e, (e.closest('label, .file-button') || e).getBoundingClientRect()])
    .filter(([e, box]) => box.width && (box.height < least - .5 || box.width < least - .5))
    .map(([e, box]) => `${e.tagName} ${e.dataset.testid || e.className || e.name} ${box.width} x ${box.height}`)"""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def project(studio: Running) -> str:
    """A project whose training has ended."""
    made = studio.project("Zoë with a name that is a good deal longer than others", photos=9)
    studio.wait(studio.train(made), "finished")
    return made


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_every_screen_fits(visit: Callable[..., Page], studio: Running, project: str, width: int) -> None:
    page = visit("/", width, 740, has_touch=width < 1000, is_mobile=width < 500)
    for path in ("/", f"/p/{project}/photos", f"/p/{project}/train", f"/p/{project}/results", "/queue", "/play"):
        page.goto(studio.address + path)
        assert page.evaluate(WIDER) <= 0, path
        if width < 1000:
            assert page.evaluate(SMALL, LEAST) == [], path
        main = page.locator("[data-main]")
        if path.endswith(("photos", "train")):
            expect(main).to_be_in_viewport()


def test_a_phone_shows_two_cards_a_row_and_full_width_drawers(
    visit: Callable[..., Page], studio: Running, project: str
) -> None:
    page = visit(f"/p/{project}/photos", 360, 740, has_touch=True, is_mobile=True)
    tops = [card.bounding_box()["y"] for card in page.get_by_test_id("photo").all()[:4]]  # type: ignore[index]
    assert tops[0] == tops[1] and tops[2] == tops[3] > tops[0]
    page.get_by_test_id("settings-button").tap()
    box = page.get_by_test_id("settings").bounding_box()
    assert box is not None and box["width"] == 360
    assert page.evaluate(SMALL, LEAST) == []
    page.goto(f"{studio.address}/p/{project}/train")
    page.get_by_test_id("advanced-button").tap()
    page.get_by_test_id("advanced-search").fill("learning rate")
    expect(page.get_by_test_id("option-learning_rate")).to_be_visible()
    expect(page.get_by_test_id("option-rank")).to_be_hidden()
    assert page.evaluate(WIDER) <= 0 and page.evaluate(SMALL, LEAST) == []


def test_the_theme_is_chosen_and_kept(visit: Callable[..., Page]) -> None:
    page = visit("/", color_scheme="light")
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_test_id("theme-toggle").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    page.get_by_test_id("settings-button").click()
    page.get_by_role("button", name="As the system").click()
    page.reload()
    assert page.evaluate(ground) == light
