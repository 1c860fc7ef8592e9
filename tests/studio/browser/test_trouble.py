"""What goes wrong, and what the page says of it; a lost connection; a page of somebody else."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Error, Page, expect

from tests.studio.browser.conftest import CHROMIUM, Watched, drop, files
from tests.studio.conftest import Running, photo_bytes

XSS = "<img src=x onerror=window.hit=1>\"'><script>window.hit=1</script>"


def test_files_that_are_no_photos_are_named_in_a_sentence(page: Page, watched: Watched, tmp_path: Path) -> None:
    watched.refusals = True
    whole = photo_bytes(1)
    page.get_by_test_id("file-input").set_input_files(files(("good.jpg", photo_bytes(5))))
    page.wait_for_url("**/photos")
    given = {"half.jpg": whole[: len(whole) // 3], "nothing.jpg": b"", "page.html": b"<h1>hello</h1>"}
    given |= {"good.jpg": photo_bytes(5), "fine.jpg": photo_bytes(6)}
    for name, data in given.items():
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "huge.jpg").open("wb") as huge:
        huge.truncate(41_000_000)
    page.get_by_test_id("file-input").set_input_files(sorted(tmp_path.iterdir()))
    skipped = page.get_by_test_id("skipped")
    expect(skipped).to_have_count(5)
    told = " | ".join(skipped.all_text_contents())
    for part in ("half.jpg", "nothing.jpg is empty", "huge.jpg", "40 MB", "page.html is no photo", "same file"):
        assert part in told, told
    expect(page.get_by_test_id("photo")).to_have_count(2)


@pytest.mark.parametrize(
    ("fault", "sentence", "button"),
    [("oom", "memory does not suffice", "smaller"),
     pytest.param("crash-1", "ended without a word", "resume", marks=pytest.mark.heavy),
     pytest.param("disk-full", "disk is full", "resume", marks=pytest.mark.heavy)],
)  # fmt: skip
def test_a_failed_training_says_what_helps_and_the_next_one_works(
    visit: Callable[..., Page], studio: Running, monkeypatch: pytest.MonkeyPatch, fault: str, sentence: str, button: str
) -> None:
    project = studio.project(f"Fails by {fault}", photos=6)
    page = visit(f"/p/{project}/train")
    prompt = page.get_by_test_id("prompt").first
    prompt.fill("a photo of zkw robot at sea")
    monkeypatch.setenv("MAQUETTE_FAKE", fault)
    page.get_by_test_id("train").click()
    ended = page.get_by_test_id("ended")
    expect(ended).to_contain_text(sentence)
    assert "exit code" not in ended.inner_text().lower()
    expect(page.get_by_test_id("prompt").first).to_have_value("a photo of zkw robot at sea")
    monkeypatch.delenv("MAQUETTE_FAKE")
    again = page.get_by_test_id(button)
    (again if again.count() else page.get_by_test_id("train")).click()
    page.wait_for_url("**/results")
    expect(page.get_by_test_id("chosen")).to_be_visible()


def test_too_few_photos_hold_the_training_up(visit: Callable[..., Page], studio: Running, watched: Watched) -> None:
    watched.refusals = True
    page = visit(f"/p/{studio.project('Lonely', photos=2)}/train")
    expect(page.get_by_test_id("preflight-photos")).to_contain_text("2 photos are too few")
    page.get_by_test_id("train").click()
    expect(page.get_by_test_id("toasts")).to_contain_text("too few")


def test_a_lost_connection_is_said_and_nothing_is_missed(
    visit: Callable[..., Page], studio: Running, watched: Watched
) -> None:
    watched.offline = True
    project = studio.project("Off the net", photos=6)
    page = visit(f"/p/{project}/photos")
    job = studio.train(project, steps=1600)
    page.goto(f"{studio.address}/p/{project}/train")
    expect(page.get_by_test_id("live")).to_have_attribute("data-state", "running")
    page.wait_for_function("() => studio.ids.length > 3")
    page.context.set_offline(True)
    expect(page.get_by_test_id("offline")).to_be_visible()
    before = page.evaluate("studio.last")
    studio.wait(job, "running", step=60)
    page.context.set_offline(False)
    expect(page.get_by_test_id("offline")).to_be_hidden()
    page.wait_for_function(f"() => studio.last > {before} + 20")
    ids = page.evaluate("studio.ids")
    assert ids == list(range(ids[0], ids[0] + len(ids))), "no event is missed and none comes twice"
    studio.client.post(f"/api/jobs/{job}/stop")
    page.wait_for_url("**/results")


@pytest.fixture
def elsewhere(studio: Running) -> Iterator[str]:
    """The address of a page of another origin that attacks the studio."""
    target = studio.address
    body = f"""<form id=f method=post enctype=multipart/form-data action="{target}/api/projects">
        <input name=name value=evil></form>
        <iframe src="{target}/"></iframe><script>
        fetch("{target}/api/projects", {{method: "POST", mode: "no-cors", credentials: "include",
            headers: {{"Content-Type": "text/plain"}}, body: '{{"name": "evil"}}'}}).catch(() => 0)
            .then(() => {{ document.title = "tried"; f.submit(); }});</script>"""

    class Attack(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"" if self.path == "/quiet" else body.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Attack)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_page_of_somebody_else_changes_nothing(browser: Browser, studio: Running, elsewhere: str) -> None:
    before = {project["id"] for project in studio.client.get("/api/projects").json()}
    context = browser.new_context()
    context.add_cookies([{"name": "maquette", "value": studio.token, "url": studio.address, "sameSite": "Strict"}])
    page = context.new_page()
    with page.expect_response(lambda answer: answer.request.method == "POST" and answer.status > 0) as sent:
        page.goto(elsewhere)
    assert sent.value.status in (401, 403)
    assert {project["id"] for project in studio.client.get("/api/projects").json()} == before
    context.close()


def test_a_window_that_somebody_else_opened_is_not_let_in(browser: Browser, studio: Running, elsewhere: str) -> None:
    """Another page opens pages of the studio, some of which would change things, and looks at what it got."""
    project = studio.project("Opened from elsewhere", photos=4)
    before = studio.client.get("/api/projects").json(), studio.client.get("/api/jobs").json()
    context = browser.new_context()
    context.add_cookies([{"name": "maquette", "value": studio.token, "url": studio.address, "sameSite": "Strict"}])
    page = context.new_page()
    page.goto(f"{elsewhere}quiet")
    for path in ("/", f"/p/{project}/train", f"/ui/p/{project}/start", f"/api/projects/{project}/jobs", "/api/demo"):
        with context.expect_event("response") as answered, page.expect_popup() as opened:
            page.evaluate("url => { window.got = open(url); }", studio.address + path)
        assert answered.value.url == studio.address + path and answered.value.status in (401, 403, 405)
        opened.value.wait_for_load_state()
        with pytest.raises(Error, match="SecurityError"):
            page.evaluate("() => got.document.body.innerText")
        opened.value.close()
    assert (studio.client.get("/api/projects").json(), studio.client.get("/api/jobs").json()) == before
    context.close()


def test_markup_in_the_text_of_a_picture_is_text(visit: Callable[..., Page]) -> None:
    told = PngInfo()
    told.add_text(
        "parameters",
        f"{XSS} <lora:{XSS}:0.5>\nNegative prompt: {XSS}\n"
        f'Steps: 5, Sampler: {XSS}, CFG scale: 7, Seed: 7, Size: 64x64, Model: "{XSS}"',
    )
    stream = BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "PNG", pnginfo=told)
    page = visit("/play")
    drop(page, "main", stream.getvalue())
    expect(page.get_by_test_id("prompt")).to_have_value(re.compile(re.escape(XSS)))
    expect(page.get_by_test_id("negative")).to_have_value(XSS)
    expect(page.get_by_test_id("chips")).not_to_be_empty()
    assert page.locator("main img[src=x], main script:not([src])").count() == 0
    assert page.evaluate("window.hit") is None


def test_a_name_that_was_bound_to_this_computer_is_refused(browser: Browser, studio: Running) -> None:
    port = studio.address.rpartition(":")[2]
    rules = "--host-resolver-rules=MAP evil.test 127.0.0.1"
    rebound = browser.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox", rules])
    answer = rebound.new_page().goto(f"http://evil.test:{port}/?token={studio.token}")
    assert answer is not None and answer.status == 421
    rebound.close()


def test_names_and_captions_are_text(visit: Callable[..., Page], studio: Running) -> None:
    project = studio.project(XSS[:70], photos=4)
    photo = studio.client.get(f"/api/projects/{project}/photos").json()[0]
    studio.client.patch(f"/api/projects/{project}/photos/{photo['id']}", json={"caption": XSS})
    studio.upload(project, (f"{XSS}.jpg", photo_bytes(77)))
    settings = {"settings": {"prompts": [XSS, "", ""]}}
    assert studio.client.patch(f"/api/projects/{project}", json=settings).status_code == 200
    page = visit("/")
    for path in ("/", f"/p/{project}/photos", f"/p/{project}/train", "/queue"):
        page.goto(studio.address + path)
        page.get_by_test_id("settings-button").click()
        expect(page.get_by_test_id("settings")).to_be_visible()
        expect(page.get_by_test_id(f"delete-{project}")).to_be_visible()
        assert page.evaluate("window.hit") is None, path
        page.keyboard.press("Escape")
    studio.wait(studio.train(project), "finished")
    page.goto(f"{studio.address}/p/{project}/results")
    expect(page.get_by_test_id("grid")).to_contain_text("<img src=x")
    assert page.evaluate("window.hit") is None
