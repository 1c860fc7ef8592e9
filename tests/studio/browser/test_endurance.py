"""Many photos, many events: the board is quick, and neither page nor server grow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.studio.conftest import Running, photo_bytes
from tests.studio.process import Process
from tests.studio.test_jobs import photos_to

pytestmark = pytest.mark.heavy
EVENTS = 3600  # of an hour, one a second
MINUTES = float(os.environ.get("MAQUETTE_MINUTES", "0"))  # of a training that is watched by the clock


def _heap(page: Page) -> float:
    """Bytes of the page's objects, after what is not needed was thrown away."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    return used


def _resident(pid: int) -> int:
    """Bytes of a process in memory."""
    return int(psutil.Process(pid).memory_info().rss)


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
    heap, resident = _heap(page), _resident(os.getpid())
    for _ in range(6):
        tell(EVENTS // 6)
    assert _heap(page) - heap < 20e6
    assert _resident(os.getpid()) - resident < 50e6
    assert page.evaluate("() => studio.breaks") <= 2
    studio.client.delete(f"/api/jobs/{job}")


@pytest.mark.skipif(not MINUTES, reason="MAQUETTE_MINUTES says how many minutes are watched")
def test_an_hour_by_the_clock_leaves_page_and_server_as_they_were(browser: Browser, tmp_path: Path) -> None:
    """A training of a step a second, whose live view is open all the time."""
    with Process(tmp_path, MAQUETTE_FAKE="slow") as process:
        project, steps = photos_to(process), int(MINUTES * 60) + 600
        wish = {"settings": {"steps": steps, "save_every_steps": 300}}
        job = process.client.post(f"/api/projects/{project}/jobs", json=wish).json()["id"]
        context = browser.new_context()
        context.add_cookies([{"name": "maquette", "value": process.token, "url": process.address}])
        page = context.new_page()
        page.goto(f"{process.address}/p/{project}/train")
        page.wait_for_function("() => studio.ids.length > 30", timeout=120_000)
        begun, rows = time.monotonic(), list[tuple[float, float, int, int]]()
        while not rows or rows[-1][0] < MINUTES:
            page.wait_for_timeout(min(300_000, MINUTES * 60_000 / 4) if rows else 0)
            minutes = (time.monotonic() - begun) / 60
            rows.append((round(minutes, 1), _heap(page), _resident(process.process.pid), page.evaluate("studio.last")))
            print(json.dumps(rows[-1]), flush=True)
        assert rows[-1][1] - rows[0][1] < 20e6 and rows[-1][2] - rows[0][2] < 50e6
        assert rows[-1][3] - rows[0][3] > MINUTES * 60 * 0.9, "events came all the time"
        assert page.evaluate("() => studio.breaks") <= 2
        assert process.get(f"/api/jobs/{job}")["state"] == "running"
        context.close()
