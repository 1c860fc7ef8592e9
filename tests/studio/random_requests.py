"""Requests that nobody should send: made from the API's own description, and then damaged."""

from __future__ import annotations

import http.client
import json
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import requests

from tests.studio.process import Process
from tests.studio.test_jobs import photos_to

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, -(2**63), 10**40, 1e308, 0.1, "", " ", "\x00", "\u202e", "猫" * 300, "a" * 5000, [],
    {},
    [[]], "../../etc/passwd", "..\\..\\x", "C:\\x", "NUL", "/etc/passwd", "file:///etc/passwd", "http://127.0.0.1/x",
    "<img src=x onerror=alert(1)>", "{{7*7}}", "$(touch x)", "'; --", "%00", "\ufeff", "<lora:x:1>", "((((((", "[a:b:",
    "1e999", ["a"] * 500, {"a": {"b": {"c": {"d": {}}}}},
)  # fmt: skip
HEADERS = (
    {"Range": "bytes=0-3"}, {"Range": "bytes=-99999999999"}, {"Range": "bytes=5-1,,-"}, {"If-None-Match": "*"},
    {"If-Modified-Since": "yesterday"}, {"Last-Event-ID": "-1"}, {"Last-Event-ID": "9" * 20}, {"Accept": "x/y"},
    {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}, {"Content-Encoding": "gzip"},
    {"Content-Type": "application/json; charset=utf-16"}, {"Cookie": "a=b; \xff; maquette=1"}, {"Origin": "null"},
    {"Accept-Encoding": "\xff"}, {"HX-Request": "true"}, {"Expect": "100-continue"}, {"Authorization": "Bearer x"},
)  # fmt: skip
SMALL = {"width": 64, "height": 64, "steps": 3, "n_iter": 1, "batch_size": 1, "hr_resize_x": 96, "hr_resize_y": 96,
         "hr_second_pass_steps": 2, "upscaling_resize_w": 96, "upscaling_resize_h": 96}  # fmt: skip
IDLE = 30  # seconds that a connection is kept without a request; the studio keeps it for 75
STREAM = re.compile(r"/events$")  # without an end


@dataclass(frozen=True)
class Wire:
    """A request as it is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    stream: bool = False


def wire_of(case: Any, chance: random.Random) -> Wire | None:
    """A generated case as it is sent; None for what no client can send."""
    if isinstance(case.body, dict) and chance.random() < 0.98:  # large pictures would be all that it does
        for key, most in SMALL.items():
            if isinstance(case.body.get(key), int | float) and case.body[key] > most:
                case.body[key] = most
    try:
        made = requests.Request(**case.as_transport_kwargs(base_url="http://127.0.0.1")).prepare()
    except (requests.RequestException, ValueError):
        return None
    body = made.body.encode() if isinstance(made.body, str) else bytes(made.body or b"")
    headers = {name: value for name, value in made.headers.items() if name.lower() not in ("content-length", "host")}
    return Wire(made.method or "GET", made.path_url, headers, body, bool(STREAM.search(case.operation.path)))


def damaged(wire: Wire, chance: random.Random) -> Wire:
    """The same with a fault in it."""
    return chance.choice((_odd_value, _other_bytes, _other_header, _other_query))(wire, chance)


def _odd_value(wire: Wire, chance: random.Random) -> Wire:
    """One value of a JSON body becomes another."""
    try:
        value = json.loads(wire.body)
    except ValueError:
        return _other_query(wire, chance)
    holders = [holder for holder in _holders(value) if holder]
    if not holders:
        return replace(wire, body=json.dumps(chance.choice(ODD)).encode())
    holder = chance.choice(holders)
    key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
    holder[key] = chance.choice(ODD)
    return replace(wire, body=json.dumps(value).encode())


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)


def _other_bytes(wire: Wire, chance: random.Random) -> Wire:
    """Bytes of the body are cut off, doubled or changed."""
    if not wire.body:
        return replace(wire, body=chance.randbytes(chance.randrange(200)))
    at, data = chance.randrange(len(wire.body)), bytearray(wire.body)
    match chance.randrange(4):
        case 0:
            return replace(wire, body=bytes(data[:at]))
        case 1:
            return replace(wire, body=bytes(data[:at] + data[at // 2 :]))
        case 2:
            data[at] = chance.randrange(256)
        case _:
            data[at:at] = chance.choice((b"\x00", b"\xff\xfe", b"\\ud800", b"NaN", b"[" * 2000, b"\r\n--"))
    return replace(wire, body=bytes(data))


def _other_header(wire: Wire, chance: random.Random) -> Wire:
    return replace(wire, headers=wire.headers | chance.choice(HEADERS))


def _other_query(wire: Wire, chance: random.Random) -> Wire:
    odd = chance.choice(("after=-1", "after=1e9", "size=huge", "job=../x", "token=x", "%00=%ff", "a" * 3000, "a=" * 50))
    mark = "&" if "?" in wire.path else "?"
    path = wire.path + (mark + odd if chance.random() < 0.7 else chance.choice(("/", "%2e%2e", "/..%2f", "%00", ";a")))
    return replace(wire, path=path)


@dataclass
class Sender:
    """Sends requests over one connection, and counts the answers. `ids`: half of the ids in paths are real ones."""

    process: Process
    chance: random.Random
    ids: dict[str, str] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    count: int = 0
    _connection: http.client.HTTPConnection | None = None
    _used: float = 0.0

    def put_ids(self, case: Any) -> None:
        for name in case.path_parameters or {}:
            if name in self.ids and self.chance.random() < 0.6:
                case.path_parameters[name] = self.ids[name]

    def send(self, wire: Wire) -> None:
        """Raises AssertionError for an answer that says that the studio is at fault."""
        host, _, port = self.process.address.removeprefix("http://").partition(":")
        if self._connection and time.monotonic() - self._used > IDLE:  # the server may be closing it just now
            self._connection.close()
            self._connection = None
        connection = self._connection or http.client.HTTPConnection(host, int(port), timeout=60)
        self._connection, self._used = connection, time.monotonic()
        headers = {"Authorization": f"Bearer {self.process.token}"} | wire.headers
        shown = wire.method, wire.path, wire.headers, wire.body[:2000]
        try:
            connection.request(wire.method, wire.path, wire.body or None, headers)
        except (UnicodeError, http.client.InvalidURL, ValueError):  # what no client can send
            connection.close()
            return
        except ConnectionError:  # it answered before it had read the whole
            pass
        try:
            answer = connection.getresponse()
            text = b"" if wire.stream and answer.status == 200 else answer.read()
        except (http.client.HTTPException, OSError) as error:
            raise AssertionError(f"{error!r}: {shown}") from error
        self.count += 1
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if wire.stream or answer.will_close:
            connection.close()
            self._connection = None
        # 503: a job trains, draw later.
        assert answer.status < 500 or answer.status == 503, (*shown, text[:300])

    def tidy(self) -> None:
        """Keep a few projects, jobs and pictures, so that lists stay short; learn ids that are there."""
        process = self.process
        for one in process.get("/api/projects")[3:]:
            process.client.delete(f"/api/projects/{one['id']}")
        for one in process.get("/api/jobs")[6:]:
            process.client.delete(f"/api/jobs/{one['id']}")
        for one in process.get("/api/draw/pictures")[10:]:
            process.client.delete(one["url"])
        projects = process.get("/api/projects")
        project = projects[0]["id"] if projects and projects[0]["photos"] else photos_to(process)
        photos, jobs = process.get(f"/api/projects/{project}/photos"), process.get("/api/jobs")
        self.ids = {"project_id": project, "photo_id": photos[0]["id"]} | ({"job_id": jobs[0]["id"]} if jobs else {})
        pictures = process.get("/api/draw/pictures")
        self.ids |= {"name": pictures[0]["name"]} if pictures else {}
