"""Every screen at the width of a phone, a tablet and a desk: nothing runs out of it, everything can be touched."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.studio.browser.conftest import axe, settled
from tests.studio.conftest import Running

LEAST = 44  # pixels of a side of what is touched
# What can be touched, with the label or line that widens it; text links within sentences are of the sentence's height.
SMALL = """least => [...document.querySelectorAll('button, a, input, select, textarea, summary')]
    .filter(e => e.checkVisibility({visibilityProperty: true}) && !e.closest('p, li.line, .hidden-label, .skip'))
    .map(e => [e, (e.closest('label, .file-button') || e).getBoundingClientRect()])
    .filter(([e, box]) => box.width && (box.height < least - .5 || box.width < least - .5))
    .map(([e, box]) => `${e.tagName} ${e.dataset.testid || e.className || e.name} ${box.width} x ${box.height}`)"""
# What would move: elements with an animation, or a transition that takes time.
MOVING = """() => [...document.querySelectorAll('*')].filter(e => { const s = getComputedStyle(e);
    return s.animationName !== 'none' || s.transitionDuration.split(', ').some(t => parseFloat(t) > 0); })
    .map(e => e.tagName + '.' + e.className)"""
# Texts of which a part is not to be seen, and that do not say so by an ellipsis.
CUT = """() => [...document.querySelectorAll('body *')].filter(e => {
    const style = getComputedStyle(e);
    return e.checkVisibility({visibilityProperty: true, opacityProperty: true}) && !e.children.length
        && e.textContent.trim() && e.clientWidth && e.scrollWidth > e.clientWidth + 1 && style.display !== 'inline'
        && !/auto|scroll/.test(style.overflowX) && style.textOverflow !== 'ellipsis'
        && !e.closest('.hidden-label, .skip');
    }).map(e => `${e.tagName} ${e.className}: ${e.textContent.trim().slice(0, 50)}`)"""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def project(studio: Running) -> str:
    """A project whose training has ended."""
    made = studio.project("Zoë with a name that is a good deal longer than others", photos=9)
    studio.wait(studio.train(made), "finished")
    return made


@pytest.mark.parametrize("width", [360, pytest.param(768, marks=pytest.mark.heavy), 1440])
def test_every_screen_fits(visit: Callable[..., Page], studio: Running, project: str, width: int) -> None:
    page = visit("/", width, 740, has_touch=width < 1000, is_mobile=width < 500)
    for path in ("/", f"/p/{project}/photos", f"/p/{project}/train", f"/p/{project}/results", "/queue", "/play"):
        page.goto(studio.address + path)
        assert page.evaluate(WIDER) <= 0 and page.evaluate(CUT) == [], path
        if width < 1000:
            assert page.evaluate(SMALL, LEAST) == [], path
        main = page.locator("[data-main]")
        if path.endswith(("photos", "train")):
            expect(main).to_be_in_viewport()
    for name in ("width", "height"):
        page.get_by_test_id(name).fill("1024")
        assert page.get_by_test_id(name).evaluate("field => field.scrollWidth <= field.clientWidth"), name
    page.get_by_test_id("settings-button").click()
    expect(page.get_by_test_id(f"delete-{project}")).to_be_visible()
    assert page.evaluate(CUT) == []


# Where everything that is seen lies, in pixels.
PLACES = """() => [...document.querySelectorAll('body *')].filter(e => e.checkVisibility())
    .map(e => [e, e.getBoundingClientRect()])
    .map(([e, box]) => `${e.tagName} ${e.className} ${[box.x, box.y, box.width, box.height].map(Math.round)}`)"""
# Photos and drawn pictures are the same in both themes.
WITHOUT_PICTURES = "() => document.querySelectorAll('img, svg image').forEach(e => { e.style.visibility = 'hidden'; })"


def shot(page: Page) -> np.ndarray:
    """A screenshot without its pictures, as numbers 0 to 255 (height, width, 3)."""
    page.evaluate(WITHOUT_PICTURES)
    return np.asarray(Image.open(BytesIO(page.screenshot(animations="disabled"))).convert("RGB"), np.int16)


@pytest.mark.parametrize("width", [360, pytest.param(768, marks=pytest.mark.heavy), 1440])
def test_light_and_dark_differ_in_their_colours_alone(
    visit: Callable[..., Page], studio: Running, project: str, width: int
) -> None:
    light, dark = (visit("/", width, 740, color_scheme=theme, reduced_motion="reduce") for theme in ("light", "dark"))
    for path in ("/", f"/p/{project}/photos", f"/p/{project}/train", f"/p/{project}/results", "/queue", "/play"):
        for page in (light, dark):
            settled(page, studio.address + path)
        assert light.evaluate(PLACES) == dark.evaluate(PLACES), path
        bright, dim = shot(light), shot(dark)
        assert bright.mean() > 200 and dim.mean() < 80, f"{path}: {bright.mean()}, {dim.mean()}"
        settled(light)
        changed = (abs(shot(light) - bright).max(axis=2) > 24).mean()
        assert changed < 0.005, f"{path} looks another way the second time: {changed:.1%} of its pixels"


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
    asked = page.get_by_test_id("as-kohya")
    expect(asked.locator("pre")).to_have_count(0)
    with page.expect_response(lambda answer: answer.url.endswith("/kohya") and answer.status == 200):
        asked.locator("summary").tap()
    expect(asked.locator("pre")).to_have_text("Kohya's trainer has no equal of the pocket base.")
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


@pytest.mark.heavy
@pytest.mark.parametrize("zoom", [1.25, 2, 4])
def test_zoomed_pages_fit_without_motion(
    visit: Callable[..., Page], studio: Running, project: str, zoom: float
) -> None:
    """A browser that zooms has a window of fewer, larger pixels; 400 % of 1440 x 900 is a phone (WCAG 1.4.10)."""
    page = visit("/", round(1440 / zoom), round(900 / zoom), device_scale_factor=zoom, reduced_motion="reduce")
    job = studio.train(other := studio.project(f"At work {zoom}", photos=4), steps=3000)
    studio.wait(job, "running", step=1)
    screens = [f"/p/{project}/photos", f"/p/{project}/train", f"/p/{project}/results", f"/p/{other}/train"]
    for path in ("/", *screens, "/queue", "/play"):
        page.goto(studio.address + path)
        assert page.evaluate(WIDER) <= 0, path
        assert page.evaluate(MOVING) == [], path
        assert axe(page) == [], path
        if path.endswith("photos"):
            expect(page.locator("[data-main]")).to_be_in_viewport()
    page.goto(f"{studio.address}/p/{project}/train")
    page.get_by_test_id("advanced-button").click()
    expect(page.get_by_test_id("advanced-search")).to_be_visible()
    assert page.evaluate(WIDER) <= 0 and page.evaluate(MOVING) == []
    studio.client.delete(f"/api/jobs/{job}")


def test_motion_is_there_for_those_who_take_it(visit: Callable[..., Page]) -> None:
    """So that the check above can fail."""
    page = visit("/")
    assert page.evaluate(MOVING) != []
