"""Who may ask what: the security list of the studio, item by item (uploads have a file of their own)."""

import base64
import hashlib
import html
import json
import os
import re
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from maquette.config.studio import StudioSettings
from maquette.errors import MaquetteError
from maquette.studio.security import HEADERS, host_name

SERVED = ["/", "/api/state", "/api/jobs/x/events", "/sdapi/v1/options", "/static/studio.css", "/nowhere"]


def request(studio: Any, method: str, path: str, **headers: str) -> httpx.Response:
    """With the token unless headers say otherwise; a header that is "" is left out."""
    told = {"Authorization": f"Bearer {studio.token}"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    return studio.stranger.request(method, path, headers={key: value for key, value in told.items() if value})


# 1
def test_binds_loopback_only(studio: Any) -> None:
    assert studio.served.socket.getsockname()[0] == "127.0.0.1"


def test_lan_needs_a_password() -> None:
    with pytest.raises(MaquetteError, match="lan lets other computers in: give a password"):
        StudioSettings.parse({"lan": True}, "the command line")
    with pytest.raises(MaquetteError, match="8 characters"):
        StudioSettings.parse({"password": "short"}, "the command line")


def test_a_password_is_never_shown(studio: Any) -> None:
    assert "long enough" not in repr(StudioSettings(password="long enough"))
    assert studio.client.get("/api/settings").json()["password"] is False


def test_lan_warns_and_takes_addresses_and_its_own_name(serve: Callable[..., Any]) -> None:
    studio = serve(lan=True, password="long enough", name="studio.home", host="127.0.0.1")
    told = "\n".join(studio.served.greeting())
    assert "can be read by others in the network: there is no TLS" in told
    for host, status in (("192.168.7.7:7860", 200), ("studio.home", 200), ("evil.example", 421)):
        assert request(studio, "GET", "/api/state", Host=host).status_code == status
    basic = base64.b64encode(b"me:long enough").decode()
    assert request(studio, "GET", "/api/state", Authorization=f"Basic {basic}").status_code == 200
    wrong = request(studio, "GET", "/api/state", Authorization="Basic " + base64.b64encode(b"me:other").decode())
    assert wrong.status_code == 401 and wrong.headers["www-authenticate"].startswith("Basic")


def test_a_browser_that_is_not_let_in_sees_a_page(serve: Callable[..., Any]) -> None:
    studio = serve(password="long enough")
    asked = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    locked = studio.stranger.get("/p/x/train", headers=asked)
    foreign = studio.stranger.get("/", headers=asked | {"Host": "evil.example"})
    for answer, status, heading in ((locked, 401, "This studio is locked"), (foreign, 421, "not the studio's address")):
        assert answer.status_code == status and answer.headers["content-type"] == "text/html; charset=utf-8"
        assert heading in html.unescape(answer.text) and studio.token not in answer.text
        (style,) = re.findall(r"<style>(.*)</style>", answer.text, re.DOTALL)
        allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and f"'sha256-{allowed}'" in policy and "unsafe" not in policy
        assert "http" not in answer.text
    assert locked.headers["www-authenticate"].startswith("Basic") and "password" in locked.text
    assert studio.stranger.get("/").headers["content-type"] == "text/plain; charset=utf-8"


# 2
@pytest.mark.parametrize("path", SERVED)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "10.0.0.1", ""])
def test_foreign_host_421(studio: Any, path: str, host: str) -> None:
    with socket.create_connection(("127.0.0.1", studio.served.port)) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert raw.makefile("rb").readline().split()[1] == b"421"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:99", "[::1]:7860", "LOCALHOST"])
def test_own_hosts_with_any_port(studio: Any, host: str) -> None:
    assert request(studio, "GET", "/api/state", Host=host).status_code == 200


def test_host_names() -> None:
    assert host_name("[::1]:7860") == "::1" and host_name("[::1]") == "::1"
    assert host_name("a.b:1") == "a.b"
    for wrong in ("::1", "a:b:c", "a b", "user@host", "[::1", "a/b", "", "a:999999"):
        assert host_name(wrong) is None


# 3
def test_cross_origin_multipart_rejected_and_nothing_on_disk(studio: Any, photo: bytes) -> None:
    project = studio.project()
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{studio.served.port + 1}", "file://"):
        answer = studio.client.post(
            f"/api/projects/{project}/photos", files={"files": ("a.jpg", photo)}, headers={"Origin": origin}
        )
        assert answer.status_code == 403
    answer = studio.client.post(
        f"/api/projects/{project}/photos", files={"files": ("a.jpg", photo)}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403
    folder = studio.studio.folder
    assert not list((folder / "projects" / project / "photos").iterdir())
    assert not (folder / "incoming").exists() or not list((folder / "incoming").iterdir())


@pytest.mark.parametrize("method", ["POST", "DELETE", "PATCH", "PUT"])
def test_same_origin_and_no_origin_pass(studio: Any, method: str) -> None:
    for origin, status in ((studio.address, 404), ("", 404), ("null", 403)):
        assert request(studio, method, "/api/projects/gone/nothing", Origin=origin).status_code == status


# 4
def test_preflight_denied(studio: Any) -> None:
    for path in ("/api/projects", "/sdapi/v1/txt2img"):
        answer = request(studio, "OPTIONS", path, Origin="http://evil.example", Access_Control_Request_Method="POST")
        assert answer.status_code in (401, 404, 405)
        assert not [name for name in answer.headers if name.startswith("access-control")]


# 5
def every_route(routes: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """Method and path of every route, those of mounted applications too."""
    for route in routes:
        if hasattr(route, "effective_route_contexts"):  # FastAPI keeps included routers as they are
            yield from every_route(route.effective_route_contexts(), before)
            continue
        path = before + route.path
        if getattr(route, "routes", None):
            yield from every_route(route.routes, path)
        if hasattr(route, "app") and not getattr(route, "methods", None):
            yield "GET", f"{path}/studio.css"
        for method in getattr(route, "methods", None) or ():
            yield method, re.sub(r"\{[^}]*\}", "1", path)


def test_every_route_needs_auth(studio: Any) -> None:
    found = sorted(set(every_route(studio.served.app.routes)))
    assert len(found) > 60 and ("GET", "/static/studio.css") in found
    studio.studio.settings = studio.studio.settings.model_copy(update={"api": False})
    for method, path in found:
        answer = studio.stranger.request(method, path)
        assert answer.status_code == 401, (method, path)
        assert studio.token not in answer.text


def test_the_api_of_other_programs_is_open_to_this_computer_when_it_is_switched_on(studio: Any) -> None:
    assert studio.stranger.get("/sdapi/v1/samplers").status_code == 401
    assert studio.client.patch("/api/settings", json={"api": True}).json()["api"] is True
    assert studio.stranger.get("/sdapi/v1/samplers").status_code == 200
    assert studio.stranger.get("/sdapi/v1/samplers", headers={"Authorization": "Basic"}).status_code == 200
    assert studio.stranger.get("/api/projects").status_code == 401
    assert studio.stranger.get("/sdapi/../api/projects").status_code in (401, 404)


def test_with_a_password_programs_give_that(serve: Callable[..., Any]) -> None:
    studio = serve(api=True, password="long enough")
    assert studio.stranger.get("/sdapi/v1/samplers").status_code == 401
    assert studio.stranger.get("/sdapi/v1/samplers", auth=("api", "long enough")).status_code == 200


def test_the_token_becomes_a_cookie_and_leaves_the_address(studio: Any) -> None:
    answer = studio.stranger.get(f"/p/x/train?a=1&token={studio.token}")
    assert answer.status_code == 303 and answer.headers["location"] == "/p/x/train?a=1"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"maquette-{studio.served.port}=")  # cookies go to every port of a host
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and answer.headers["referrer-policy"] == "no-referrer"
    assert studio.stranger.get("/api/state").status_code == 200  # with the cookie that the client kept
    assert studio.stranger.get("/?token=wrong").status_code in (200, 303, 401)


def test_a_redirect_never_leads_elsewhere(studio: Any) -> None:
    answer = studio.stranger.get(f"//evil.example/x?token={studio.token}")
    assert answer.headers.get("location", "/")[:2] != "//"
    odd = studio.stranger.get(f"/p/%0d%0aSet-Cookie:a=b%00%5c%e7%8c%ab?token={studio.token}&b=%0a")
    assert odd.status_code == 303 and odd.headers["location"] == "/p/%0D%0ASet-Cookie%3Aa%3Db%00%5C%E7%8C%AB?b=%0A"


# 6
def test_no_mutating_get(studio: Any) -> None:
    safe = {"GET", "HEAD", "OPTIONS"}
    for method, path in every_route(studio.served.app.routes):
        if method not in safe:
            assert studio.client.get(path).status_code in (404, 405, 200), path
    project = studio.project()
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"Content-Type": kind, "Authorization": f"Bearer {studio.token}"}
        answer = studio.stranger.post("/api/projects", content='{"name": "x"}', headers=headers)
        assert answer.status_code == 415
    assert [one["id"] for one in studio.client.get("/api/projects").json()] == [project]


# 9
@pytest.mark.parametrize("part", ["%2e%2e%2f", "..%5c", "%2fetc", "..", "CON", "a.b", "%00", "x" * 65, "-x", "X"])
def test_traversal(studio: Any, part: str) -> None:
    for path in (f"/api/projects/{part}", f"/api/jobs/{part}", f"/api/files/{part}/x", f"/api/jobs/{part}/log"):
        assert studio.client.get(path).status_code in (404, 405, 422), path


def test_a_file_is_served_by_a_name_of_the_list_only(fast: None, studio: Any) -> None:
    job = studio.train(studio.project(photos=4))
    studio.wait(job, "finished")
    for name in ("job.json", "..%2fjob.json", "%2e%2e/%2e%2e/job.json", "run.toml", "log.txt", "%2fetc%2fpasswd"):
        assert studio.client.get(f"/api/files/{job}/{name}").status_code == 404, name
    run = studio.studio.queue.job(job).run
    run.final.unlink()
    run.final.symlink_to("/etc/passwd")
    assert studio.client.get(f"/api/files/{job}/{run.final.name}").status_code == 404


# 11
def test_name_with_shell_metachars(fast: None, studio: Any) -> None:
    place = Path(tempfile.gettempdir()) / f"owned{os.getpid()}"  # short: a name has at most 80 characters
    name = f"$(touch {place}); `id` && --help\u202e <b>"
    project = studio.project(name, photos=4, subject="--robot; rm -rf /")
    job = studio.train(project)
    assert studio.wait(job, "finished")["title"].startswith(name.replace("\u202e", ""))
    assert not place.exists()
    assert re.fullmatch(r"[a-z0-9-]+", project)


# 13
def test_headers_of_every_answer(studio: Any) -> None:
    for path in ("/", "/api/state", "/nowhere", "/static/studio.css"):
        answer = studio.client.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (path, name)
    assert studio.stranger.get("/").headers["x-content-type-options"] == "nosniff"
    csp = HEADERS["content-security-policy"]
    assert "default-src 'self'" in csp and "frame-ancestors 'none'" in csp and "unsafe" not in csp


def test_text_is_shown_as_text(studio: Any) -> None:
    evil = "<img src=x onerror=alert(1)>"
    project = studio.project(evil, photos=4)
    photo = studio.client.get(f"/api/projects/{project}/photos").json()[0]["id"]
    studio.client.patch(f"/api/projects/{project}/photos/{photo}", json={"caption": evil})
    for page in ("/", f"/p/{project}/photos", f"/p/{project}/train"):
        text = studio.client.get(page).text
        assert "<img src=x" not in text and "&lt;img src=x" in text, page


# 14
def test_limits(studio: Any) -> None:
    assert studio.client.post("/api/projects", json={"name": "x" * 2_000_000}).status_code == 413
    assert studio.client.post("/api/projects", json={"name": "x" * 100}).status_code == 422

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    answer = studio.client.post("/api/projects", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    project = studio.project(photos=4)
    nested = "[" * 50_000
    answer = studio.client.patch(
        f"/api/projects/{project}", content=f'{{"settings": {nested}', headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    studio.served.app.state.streams = 20
    job = studio.train(project)
    assert studio.client.get(f"/api/jobs/{job}/events").status_code == 409
    studio.served.app.state.streams = 0


def test_the_queue_is_bounded(studio: Any) -> None:
    queue = studio.studio.queue
    queue.make_room = lambda: False  # nothing begins
    for _ in range(50):
        queue.submit("train", "p", {})
    with pytest.raises(MaquetteError, match="50 jobs wait already"):
        queue.submit("train", "p", {})


# 15
def test_no_paths_in_artifacts(fast: None, studio: Any, tmp_path: Path) -> None:
    job = studio.train(studio.project(photos=4))
    done = studio.wait(job, "finished")
    answer = studio.client.get(f"/api/jobs/{job}/zip")
    assert answer.headers["content-disposition"] == 'attachment; filename="robby.zip"'
    archive = zipfile.ZipFile(BytesIO(answer.content))
    assert {"robby.safetensors", "robby.json", "README.md", "images/0.png"} <= set(archive.namelist())
    for name in archive.namelist():
        assert str(tmp_path).encode() not in archive.read(name), name
    assert "zkw robot" in archive.read("README.md").decode()
    told = json.dumps([done, studio.client.get(f"/api/jobs/{job}/results").json()])
    events = [event for _, event in studio.studio.queue.job(job).events_after(0)]
    assert str(tmp_path) not in told + json.dumps(events)


# 17
def test_delete_leaves_nothing(studio: Any) -> None:
    kept = studio.project("Kept", photos=4)
    project = studio.project("Gone", photos=4)
    job = studio.train(project)
    studio.wait(job, "running", step=3)
    assert studio.client.delete(f"/api/projects/{project}").status_code == 200
    folder = studio.studio.folder
    left = [path for path in folder.rglob("*") if project in str(path) or job in str(path)]
    assert left == []
    texts = [p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".jsonl", ".txt")]
    assert not any(b"Gone" in text for text in texts)
    assert [one["id"] for one in studio.client.get("/api/projects").json()] == [kept]
    assert folder.stat().st_mode & 0o077 == 0


# 18
def test_500_has_no_traceback(studio: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def broken() -> None:
        raise RuntimeError("secret /home/someone")

    monkeypatch.setattr(studio.studio.store, "projects", broken)
    answer = studio.client.get("/api/projects")
    assert answer.status_code == 500
    assert answer.json() == {"error": "An unexpected fault in the studio; its log says where it arose."}
    assert "RuntimeError" in caplog.text
