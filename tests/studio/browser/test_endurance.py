"""Many photos, many events: the board is quick, and neither page nor server grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.studio.conftest import Running, photo_bytes

pytestmark = pytest.mark.heavy
EVENTS = 3600  # of an hour, one a second


def _heap(page: Page) -> float:
    """Bytes of the page's objects, after what is not needed was thrown away."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    return used


def _resident() -> int:
    """Bytes of this process, which the server is a thread of."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def test_two_hundred_photos_can_be_worked_with_at_once(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Many", photos=4)
    for start in range(4, 200, 28):
        studio.upload(project, *[(f"{i}.jpg", photo_bytes(i)) for i in range(start, start + 28)])
    page = visit("/")
    pictures: list[str] = []
    page.on("request", lambda request: pictures.append(request.url) if "/picture" in request.url else None)
    answer = page.goto(f"{studio.address}/p/{project}/photos")
    assert answer is not None and len(answer.body()) < 1_000_000
    assert len(pictures) < 100, "pictures far below come when they are scrolled to"
    expect(page.get_by_test_id("photo")).to_have_count(200)
    page.get_by_test_id("photo").first.focus()
    page.keyboard.press("End")
    page.locator(".cards > li:nth-child(150) [data-caption]").fill("robot, the hundred and fiftieth")
    page.locator("h1").click()
    expect(page.locator("[data-tag=robot]")).to_be_visible()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell memory")
def test_an_hour_of_events_leaves_page_and_server_as_they_were(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project("Long", photos=5)
    job = studio.train(project, steps=400_000, save_every_steps=100_000)
    page = visit(f"/p/{project}/train")
    expect(page.get_by_test_id("live-words")).to_contain_text("step ")
    page.wait_for_function("() => studio.ids.length > 20")
    folder = studio.studio.queue.job(job)

    def tell(count: int) -> None:
        for at in range(count):
            folder.tell("progress", {"what": "waiting", "done": at, "of": count})
        last = sum(1 for _ in folder.events_after(0))
        page.wait_for_function(f"() => studio.last >= {last}")

    tell(300)
    heap, resident = _heap(page), _resident()
    for _ in range(6):
        tell(EVENTS // 6)
    assert _heap(page) - heap < 20e6
    assert _resident() - resident < 50e6
    assert page.evaluate("() => studio.breaks") <= 2
    studio.client.delete(f"/api/jobs/{job}")
