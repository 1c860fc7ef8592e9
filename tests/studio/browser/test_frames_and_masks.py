"""The frame that is trained, moved by mouse and keys; a mask painted by hand."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.studio.conftest import Running


def test_the_frame_is_moved_and_put_back(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Frames", photos=4)
    photo = studio.client.get(f"/api/projects/{project}/photos").json()[0]
    assert photo["frame"][0] + photo["frame"][2] / 2 == pytest.approx(256, abs=4), "the middle of 512 x 384"
    width = int(photo["frame"][2])
    page = visit(f"/p/{project}/photos")
    frame = page.locator(f"#photo-{photo['id']} .crop rect")
    box = frame.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 30, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 30, steps=4)  # to the right edge, and no further
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.mouse.up()
    url = f"/api/projects/{project}/photos/{photo['id']}"
    assert studio.client.get(url).json()["crop"] == [512 - width, 0, width, 384]
    page.get_by_test_id("photo").first.focus()
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.keyboard.press("Shift+ArrowLeft")
    assert studio.client.get(url).json()["crop"][0] == 512 - width - 19
    for left in (512 - width, None):
        with page.expect_response("**/undo"):
            page.get_by_test_id("undo").click()
        crop = studio.client.get(url).json()["crop"]
        assert (crop[0] if crop else None) == left


def test_a_mask_lies_where_it_was_painted(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Masks", photos=4)
    photo = studio.client.get(f"/api/projects/{project}/photos").json()[0]["id"]
    page = visit(f"/p/{project}/photos", device_scale_factor=2)
    page.locator(f"#photo-{photo}").hover()
    page.locator(f"#photo-{photo}").get_by_test_id("mask-button").click()
    expect(page.get_by_test_id("mask-dialog")).to_be_visible()
    canvas = page.get_by_test_id("mask")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.25, steps=5)
    page.mouse.up()
    page.get_by_test_id("save-mask").click()
    expect(page.locator(f"#photo-{photo}").get_by_test_id("mask-button")).to_have_attribute("aria-pressed", "true")
    mask = Image.open(BytesIO(studio.client.get(f"/api/projects/{project}/photos/{photo}/mask").content)).convert("L")
    assert mask.size == (512, 384)
    inside, outside = ((256, 96), (130, 96), (380, 96)), ((256, 200), (20, 96))
    assert [mask.getpixel(at) for at in (*inside, *outside)] == [255, 255, 255, 0, 0]
    page.locator(f"#photo-{photo}").get_by_test_id("mask-button").click()
    expect(page.get_by_test_id("mask-dialog")).to_be_visible()
    painted = "() => brush.pen.getImageData(brush.canvas.width / 2, brush.canvas.height / 4, 1, 1).data[3]"
    assert page.evaluate(painted) > 200, "what was painted before is there again"
    page.locator("[data-clear]").click()
    page.get_by_test_id("save-mask").click()
    expect(page.locator(f"#photo-{photo}").get_by_test_id("mask-button")).not_to_have_attribute("aria-pressed", "true")
    assert studio.client.get(f"/api/projects/{project}/photos/{photo}/mask").status_code == 404
