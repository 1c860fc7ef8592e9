"""How quickly the studio is there: the first page from a cold command, the board of 200 photos, a small answer.

    python -m benchmarks.studio

start: from `maquette studio` to the browser's first paint (the browser is open already). board: from the page's load
event until 200 cards answer to a key, and until a caption that was typed is kept. Needs a Chromium and playwright.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

PHOTOS = 200
NAMES = ("chromium", "chromium-browser", "google-chrome")
PAINTED = "() => performance.getEntriesByName('first-contentful-paint').length > 0"
ASKED = 200  # requests of which the median is told


@contextmanager
def studio(data: Path) -> Iterator[tuple[str, str]]:
    """Address and token of a studio of its own process."""
    command = [sys.executable, "-m", "maquette", "studio", "--data", str(data), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"Studio: (http://[^/]+)/\?token=(\S+)", line):
                break
        else:
            raise SystemExit("The studio did not start.")
        try:
            yield match[1], match[2]
        finally:
            process.terminate()


def photo(number: int) -> bytes:
    """A JPEG of 1600 x 1200 pixels that differs from the others."""
    small = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(small).resize((1600, 1200), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def first_paint(browser: Browser, data: Path) -> float:
    """Seconds from the command to what a person sees first."""
    began = time.perf_counter()
    with studio(data) as (address, token):
        page = browser.new_page()
        page.goto(f"{address}/?token={token}", wait_until="commit")
        page.wait_for_function(PAINTED)
        seconds = time.perf_counter() - began
        page.close()
    return seconds


def board(page: Page, address: str, project: str) -> tuple[float, float]:
    """Seconds after the load event until the cards answer to keys, and until a caption is kept."""
    page.goto(f"{address}/p/{project}/photos", wait_until="load")
    began = time.perf_counter()
    page.locator("[data-testid=photo]").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.activeElement === document.querySelectorAll('[data-testid=photo]')[1]")
    keys = time.perf_counter() - began
    page.keyboard.press("Enter")
    page.keyboard.type(f"robot, {began}")
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):
        page.keyboard.press("Escape")
    return keys, time.perf_counter() - began


def filled(client: httpx.Client) -> str:
    """A project with 200 photos."""
    project = client.post("/api/projects", json={"name": "Many", "subject": "robot"}).json()["id"]
    for start in range(0, PHOTOS, 20):
        files = [("files", (f"{n}.jpg", photo(n))) for n in range(start, start + 20)]
        assert len(client.post(f"/api/projects/{project}/photos", files=files).json()["added"]) == 20
    return str(project)


def answered(client: httpx.Client) -> float:
    """Seconds of a small request over a connection that is open, the median."""
    times = []
    for _ in range(ASKED):
        began = time.perf_counter()
        client.get("/api/state").raise_for_status()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def told(name: str, values: list[float]) -> None:
    shown = ", ".join(f"{value:.2f}" for value in sorted(values))
    print(f"{name}: median {statistics.median(values):.2f} s of {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    chromium = next((path for name in NAMES if (path := shutil.which(name))), None)
    print(f"load before: {os.getloadavg()[0]:.1f}")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        told("start to first paint", [first_paint(browser, Path(folder, "start")) for _ in range(repeats)])
        with studio(Path(folder, "board")) as (address, token):
            headers: dict[str, Any] = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=address, headers=headers, timeout=120, trust_env=False) as client:
                project = filled(client)
                print(f"an answer: median {1000 * answered(client):.1f} ms")
            page = browser.new_page()
            page.goto(f"{address}/?token={token}")
            rows = [board(page, address, project) for _ in range(repeats)]
        told("board of 200 photos, load event to keys", [keys for keys, _ in rows])
        told("board of 200 photos, load event to a kept caption", [kept for _, kept in rows])
        browser.close()


if __name__ == "__main__":
    main()
