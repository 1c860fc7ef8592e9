"""A real Chromium on a studio with the fake engine. Every page fails on what no page may do."""

from __future__ import annotations

import base64
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.studio.conftest import Running

playwright = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, BrowserContext, Page, expect  # noqa: E402

from maquette.config.studio import StudioSettings  # noqa: E402
from maquette.studio.serve import Served  # noqa: E402

PATIENCE = 60_000  # milliseconds that a page is waited for: the machine may have other work
expect.set_options(timeout=PATIENCE)
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
# A refusal is a sentence on the page; Chromium prints a line of its own about each.
REFUSED = "Failed to load resource: the server responded with a status of 4"
CUT_OFF = ("net::ERR_", "htmx:")  # what Chromium and htmx print of a connection that is gone


class Watched:
    """What a page did that it may not do: errors on the console, requests to elsewhere, answers of 500 or more."""

    def __init__(self, address: str) -> None:
        self.address, self.faults = address, list[str]()
        self.refusals = self.offline = False  # whether a refusal (400 to 499), or a lost connection, is expected

    def follow(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error in a script: {error}"))
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: Any) -> None:
        expected = (self.refusals and message.text.startswith(REFUSED)) or (
            self.offline and any(part in message.text for part in CUT_OFF)
        )
        if message.type in ("error", "warning") and not expected:
            self.faults.append(f"on the console: {message.text} {message.location.get('url', '')}")

    def _request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.address:
            self.faults.append(f"a request to {request.url}")

    def _response(self, response: Any) -> None:
        if response.status >= 500:
            self.faults.append(f"{response.status} of {response.url}")


@contextmanager
def serving(data: Path, keep: bool = False, **settings: Any) -> Iterator[Running]:
    """A studio with the fake engine in a thread; its jobs end with it, unless they are kept."""
    served = Served(StudioSettings(**{"data": data, "port": 0} | settings))
    thread = threading.Thread(target=served.run, daemon=True)
    thread.start()
    running = Running(served)
    try:
        yield running
    finally:
        running.client.close()
        running.stranger.close()
        for job in [] if keep else running.studio.queue.jobs():
            running.studio.queue.delete(job.id)
        served.end()
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all; without one the tests are skipped."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One studio for the tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAQUETTE_ENGINE", "fake")
        with serving(tmp_path_factory.mktemp("studio") / "data") as running:
            yield running


@pytest.fixture
def watched(studio: Running) -> Iterator[Watched]:
    """What the pages of this test do; at its end none may have done what it may not."""
    found = Watched(studio.address)
    yield found
    assert found.faults == []


@pytest.fixture
def visit(browser: Browser, studio: Running, watched: Watched) -> Iterator[Callable[..., Page]]:
    """A function that opens a page of a browser of its own, which has entered the studio."""
    contexts: list[BrowserContext] = []

    def opened(path: str = "/", width: int = 1280, height: int = 800, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(PATIENCE)
        context.add_cookies([{"name": "maquette", "value": studio.token, "url": studio.address}])
        contexts.append(context)
        page = context.new_page()
        watched.follow(page)
        page.goto(studio.address + path)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(visit: Callable[..., Page]) -> Page:
    """Home, at the size of a desk."""
    return visit()


def settled(page: Page, address: str = "") -> None:
    """Go to the address, or load the page again, and wait until nothing has been on its way for a tenth of a second.

    As Playwright's "networkidle", which waits for half a second each time.
    """
    open_requests: set[Any] = set()

    def begun(request: Any) -> None:
        if request.resource_type != "eventsource":  # which never ends
            open_requests.add(request)

    def over(request: Any) -> None:
        open_requests.discard(request)

    page.on("request", begun)
    page.on("requestfinished", over)
    page.on("requestfailed", over)
    page.goto(address) if address else page.reload()
    quiet = 0
    while quiet < 4:
        page.wait_for_timeout(25)
        quiet = 0 if open_requests else quiet + 1
    page.remove_listener("request", begun)
    page.remove_listener("requestfinished", over)
    page.remove_listener("requestfailed", over)


def files(*named: tuple[str, bytes]) -> list[dict[str, Any]]:
    """Files for an input of a page."""
    return [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in named]


def drop(page: Page, selector: str, picture: bytes) -> None:
    """Let a PNG fall on an element."""
    page.evaluate(
        """([selector, text]) => {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0)), told = new DataTransfer();
            told.items.add(new File([bytes], "picture.png", { type: "image/png" }));
            document.querySelector(selector).dispatchEvent(
                new DragEvent("drop", { dataTransfer: told, bubbles: true, cancelable: true }));
        }""",
        [selector, base64.b64encode(picture).decode()],
    )


def captions_of(page: Page) -> dict[str, str]:
    """Photo's id -> the caption that its card shows."""
    script = """() => Object.fromEntries([...document.querySelectorAll('#cards [data-id]')]
        .map(card => [card.dataset.id, card.querySelector('[data-caption]').value]))"""
    told: dict[str, str] = page.evaluate(script)
    return told


def axe(page: Page) -> list[str]:
    """What axe-core finds of serious and critical barriers, a line each."""
    import axe_core_python

    text = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text("utf-8")
    page.evaluate(text)  # by the debugger, which the page's own rules for scripts do not stop
    told = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']}: {node['target']} {json.dumps(node['any'][:1])[:300]}"
        for fault in told["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
