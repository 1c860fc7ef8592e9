"""A caption stays with its photo, whatever is added, left out, removed, reloaded or edited elsewhere."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.studio.browser.conftest import Watched, captions_of, files
from tests.studio.conftest import Running, photo_bytes


def _captions(studio: Running, project: str) -> dict[str, str]:
    return {photo["id"]: photo["caption"] for photo in studio.client.get(f"/api/projects/{project}/photos").json()}


def _write(page: Page, studio: Running, project: str, photo: str, text: str) -> None:
    field = page.locator(f"#photo-{photo} [data-caption]")
    field.fill(text)
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        field.blur()


def test_captions_keep_to_their_photos(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Order", photos=12)
    page, chance = visit(f"/p/{project}/photos"), random.Random(3)
    photos = [photo["id"] for photo in studio.client.get(f"/api/projects/{project}/photos").json()]
    model = dict.fromkeys(photos, "")
    for number in range(14):
        photo = chance.choice([each for each in photos if each in model])
        act = chance.choice(["write", "write", "exclude", "remove", "add", "reload"])
        if act == "write":
            model[photo] = f"robot number {number}, seen from {chance.choice(['left', 'right'])}"
            _write(page, studio, project, photo, model[photo])
        elif act == "exclude":
            page.locator(f"#photo-{photo}").hover()
            with page.expect_response("**/cards"):
                page.locator(f"#photo-{photo} [data-exclude]").click()
        elif act == "remove" and len(model) > 6:
            studio.client.delete(f"/api/projects/{project}/photos/{photo}")
            del model[photo]
            page.reload()
        elif act == "add":
            told = studio.upload(project, (f"{number}.jpg", photo_bytes(100 + number)))
            model[told["added"][0]["id"]] = ""
            page.reload()
        else:
            page.reload()
        expect(page.get_by_test_id("photo")).to_have_count(len(model))
    assert captions_of(page) == model == _captions(studio, project)
    page.reload()
    assert captions_of(page) == model


def test_tags_are_counted_filtered_changed_and_taken_back(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Tags", photos=6)
    ids = list(_captions(studio, project))
    for at, photo in enumerate(ids):
        text = "robot, garden" if at % 2 else "robot, kitchen"
        studio.client.patch(f"/api/projects/{project}/photos/{photo}", json={"caption": text})
    page = visit(f"/p/{project}/photos")
    expect(page.get_by_test_id("tag")).to_contain_text(["robot 6", "garden 3", "kitchen 3"])
    page.locator("[data-tag=garden]").click()
    expect(page.locator("#cards [data-id]:visible")).to_have_count(3)
    page.locator("[data-tag=garden]").click()
    page.get_by_test_id("new-tag").fill("sunny")
    page.get_by_test_id("add-tag").click()
    expect(page.locator("[data-tag=sunny]")).to_contain_text("6")
    assert set(_captions(studio, project).values()) == {"robot, garden, sunny", "robot, kitchen, sunny"}
    page.locator(f"#photo-{ids[0]} [data-select]").check(force=True)
    page.locator("[data-remove-tag=sunny]").click()
    expect(page.locator("[data-tag=sunny]")).to_contain_text("5")
    page.keyboard.press("Control+z")
    expect(page.locator("[data-tag=sunny]")).to_contain_text("6")
    page.get_by_test_id("tags").locator("summary").click()
    page.locator(f"#photo-{ids[0]} [data-select]").uncheck(force=True)
    page.get_by_test_id("find").fill("kitchen")
    page.get_by_test_id("replace").fill("workshop")
    page.get_by_test_id("do-replace").click()
    expect(page.locator("[data-tag=workshop]")).to_contain_text("3")
    page.get_by_test_id("undo").click()
    expect(page.locator("[data-tag=kitchen]")).to_contain_text("3")
    page.get_by_test_id("undo").click()
    expect(page.locator("[data-tag=sunny]")).to_have_count(0)
    assert set(_captions(studio, project).values()) == {"robot, garden", "robot, kitchen"}


@pytest.mark.heavy
def test_two_pages_agree(visit: Callable[..., Page], studio: Running, watched: Watched) -> None:
    project = studio.project("Two", photos=6)
    first, second = visit(f"/p/{project}/photos"), visit(f"/p/{project}/photos")
    photo, other = list(_captions(studio, project))[:2]
    _write(first, studio, project, photo, "by the first")
    expect(second.locator(f"#photo-{photo} [data-caption]")).to_have_value("by the first")
    second.locator(f"#photo-{other} [data-caption]").fill("typed in the second")
    _write(first, studio, project, other, "the first was quicker")
    with second.expect_response(lambda answer: answer.request.method == "PATCH"):
        second.locator(f"#photo-{other} [data-caption]").blur()
    expect(second.locator(f"#photo-{other} [data-saved]")).to_contain_text("Another page")
    expect(first.locator(f"#photo-{other} [data-caption]")).to_have_value("typed in the second")
    assert _captions(studio, project)[photo] == "by the first"
    for page in (first, second):
        page.goto(f"{studio.address}/p/{project}/train")
    watched.refusals = True
    for page in (first, second):
        with page.expect_response("**/start"):
            page.get_by_test_id("train").click()
    expect(second.get_by_test_id("toasts")).to_contain_text("such a job already")
    expect(first.get_by_test_id("live")).to_be_visible()
    jobs = [job for job in studio.client.get("/api/jobs").json() if job["project"] == project]
    assert len(jobs) == 1
    second.reload()
    second.get_by_test_id("stop").click()
    first.wait_for_url("**/results")


@pytest.mark.heavy
def test_fifty_photos_in_any_order_keep_their_captions(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Fifty", photos=1)
    page, chance = visit(f"/p/{project}/photos"), random.Random(5)
    photos = {f"many {i}.jpg": photo_bytes(300 + i) for i in range(49)}
    names = list(photos)
    page.get_by_test_id("file-input").set_input_files(files(*photos.items()))
    expect(page.get_by_test_id("photo")).to_have_count(50)
    model = dict(captions_of(page))
    for number, photo in enumerate(chance.sample(list(model), 12)):
        model[photo] = f"caption {number}"
        _write(page, studio, project, photo, model[photo])
    for _ in range(3):
        told = studio.client.get(f"/api/projects/{project}/photos").json()
        gone = chance.sample([photo for photo in told if photo["name"] in photos], 10)
        for photo in gone:
            studio.client.delete(f"/api/projects/{project}/photos/{photo['id']}")
            model[photo["id"]] = ""
        chance.shuffle(names)
        again = [photo["name"] for photo in gone]
        order = [name for name in names if name in again]
        page.get_by_test_id("file-input").set_input_files(files(*((name, photos[name]) for name in order)))
        page.reload()
        page.get_by_test_id("file-input").set_input_files(files(*((name, photos[name]) for name in order)))
        expect(page.locator("[data-uploads] progress")).to_have_count(0)
        expect(page.get_by_test_id("photo"), str(page.get_by_test_id("skipped").all_text_contents())).to_have_count(50)
        assert captions_of(page) == model == _captions(studio, project)
