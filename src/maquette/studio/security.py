"""Who may ask what: one piece of middleware in front of every route, mount and stream, without exceptions by prefix.

In this order: the Host must be ours (421), a request that changes something must come from our own page (403), the
client must have the token or the password (401), the body must be of a size and kind that the route takes (413, 415).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.exceptions import HTTPException

from .refused import HEADINGS, POLICY, page

if TYPE_CHECKING:
    from .core import Studio

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

COOKIE = "maquette"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
BODY, PICTURE_BODY, UPLOAD_BODY = 1_000_000, 100_000_000, 2_000_000_000  # bytes of requests
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
        "form-action 'self'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_API = re.compile(r"/(sdapi/v1|v1|internal|controlnet)(/|$)")  # of programs that speak A1111's or OpenAI's API
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?")


class TooLarge(HTTPException):
    """A body is larger than its route takes."""

    def __init__(self) -> None:
        super().__init__(413, "This is larger than the studio takes.")


class Guard:
    """The middleware."""

    def __init__(self, app: Any, studio: Studio) -> None:
        self.app, self.studio = app, studio

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return None
        if scope["type"] != "http":  # there are no web sockets here
            return None
        request = Asked(scope)
        send = _with_headers(send)
        refused = self._refusal(request)
        if refused is not None:
            status, text, headers = refused
            if status in HEADINGS and "text/html" in request.header("accept"):
                headers |= {"content-type": "text/html; charset=utf-8", "content-security-policy": POLICY}
                return await _answer(send, status, page(status, text), headers)
            return await _answer(send, status, text.encode(), headers)
        if request.method == "GET" and "token" in request.query:
            return await self._enter(request, send)
        await self.app(scope, _limited(receive, limit_of(request)), send)

    def _refusal(self, request: Asked) -> tuple[int, str, dict[str, str]] | None:
        """Status, sentence and further headers; None for what may pass."""
        if not self._is_ours(request.host):
            return 421, "This address is not the studio's.", {}
        if request.method not in SAFE and not self._same_origin(request):
            return 403, "This came from another page, and was refused.", {}
        if not self._known(request):
            if self.studio.settings.password:
                asked = {"www-authenticate": 'Basic realm="maquette"'}
                return 401, "Give the studio's password. A browser asks for it when the page is loaded again.", asked
            return 401, "Open the studio by the address that `maquette studio` printed.", {}
        length = request.header("content-length")
        if length and (not length.isdigit() or int(length) > limit_of(request)):
            return 413, "This is larger than the studio takes.", {}
        if request.method not in SAFE and request.has_body and not request.content_type_is_ours:
            return 415, "Send JSON or multipart/form-data.", {}
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this computer, with any port."""
        name = host_name(host)
        if name is None:
            return False
        if name in ("localhost", "127.0.0.1", "::1"):
            return True
        settings = self.studio.settings
        if is_address(name):  # a page that was rebound to this computer still says its own name
            return settings.lan or name == settings.address
        own = socket.gethostname().lower()
        return settings.lan and name in (own, f"{own}.local", (settings.name or own).lower())

    def _same_origin(self, request: Asked) -> bool:
        site = request.header("sec-fetch-site")
        if site and site not in ("same-origin", "none"):
            return False
        origin = request.header("origin")
        if not origin:
            return True  # no browser
        return urlsplit(origin).netloc == request.host and urlsplit(origin).scheme in ("http", "https")

    def _known(self, request: Asked) -> bool:
        """Whether the client has the token or the password, or speaks an API that is open to this computer."""
        studio = self.studio
        if any(_equal(given, studio.token) for given in request.tokens):
            return True
        password = studio.settings.password
        if password is not None:
            return request.password is not None and _equal(request.password, password)
        return bool(_API.match(request.path)) and studio.settings.api and request.is_local

    async def _enter(self, request: Asked, send: Send) -> None:
        """The token in the address becomes a cookie, and goes out of the address."""
        rest = urlencode([(key, value) for key, value in request.query_items if key != "token"])
        where = quote(request.path) if request.path.startswith("/") and not request.path.startswith("//") else "/"
        cookie = f"{request.cookie}={self.studio.token}; HttpOnly; SameSite=Strict; Path=/"
        await _answer(send, 303, b"", {"location": where + (f"?{rest}" if rest else ""), "set-cookie": cookie})


class Asked:
    """What the guard reads of a request."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query_items = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        self.query = dict(self.query_items)
        self._headers = [(key.lower().decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]]

    def header(self, name: str) -> str:
        return next((value.strip() for key, value in self._headers if key == name), "")

    @property
    def host(self) -> str:
        """ "" where there are several."""
        hosts = [value for key, value in self._headers if key == "host"]
        return hosts[0].strip() if len(hosts) == 1 else ""

    @property
    def cookie(self) -> str:
        """Name of the cookie that is set: a browser keeps one of a name for all ports, and there may be two studios."""
        return f"{COOKIE}-{self.host.rpartition(':')[2]}"

    @property
    def has_body(self) -> bool:
        return bool(self.header("transfer-encoding")) or self.header("content-length") not in ("", "0")

    @property
    def content_type_is_ours(self) -> bool:
        kind = self.header("content-type").partition(";")[0].strip().lower()
        return kind in ("application/json", "multipart/form-data")

    @property
    def is_local(self) -> bool:
        client = self.scope.get("client")
        try:
            return client is not None and ipaddress.ip_address(client[0]).is_loopback
        except ValueError:
            return False

    @property
    def tokens(self) -> Iterable[str]:
        """Those of the cookie, the header Authorization and the address."""
        for part in self.header("cookie").split(";"):  # by hand: another program's odd cookie hides none
            name, _, value = part.strip().partition("=")
            if name.startswith(COOKIE):
                yield value
        kind, _, value = self.header("authorization").partition(" ")
        if kind.lower() == "bearer":
            yield value.strip()
        if self.method == "GET" and "token" in self.query:
            yield self.query["token"]

    @property
    def password(self) -> str | None:
        """Of HTTP Basic; the user's name is of no matter."""
        kind, _, value = self.header("authorization").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return None


def limit_of(request: Asked) -> int:
    """Bytes that a request's body may have."""
    if request.path.startswith("/api/projects/") and request.path.endswith("/photos"):
        return UPLOAD_BODY
    if _API.match(request.path) or request.path.startswith("/api/draw") or request.path.endswith("/mask"):
        return PICTURE_BODY
    return BODY


def host_name(host: str) -> str | None:
    """The name in a Host header, without its port: "[::1]:7860" -> "::1". None for what is none."""
    match = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](:\d{1,5})?|([^:\[\]]+)(:\d{1,5})?", host)
    if match is None:
        return None
    if match[1] is not None:
        return match[1].lower()
    name = match[3].lower()
    return name if _NAME.fullmatch(name) else None


def is_address(name: str) -> bool:
    """Whether a host is an IP address, not a name that somebody can let point anywhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _equal(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _limited(receive: Receive, most: int) -> Receive:
    """Count a body while it comes."""
    seen = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > most:
                raise TooLarge
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {key.lower() for key, _ in message.get("headers", [])}
            extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in given]
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    sent = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body)), "cache-control": "no-store"}
    sent |= headers or {}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
