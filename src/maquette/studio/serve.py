"""A server of the studio: its port, its address, its end."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn

from ..config.studio import StudioSettings
from ..errors import MaquetteError
from ..files import at_home
from .app import ROUTERS, create_app

TRIES = 20
KEPT = 75  # seconds that an idle connection is kept: a client that asks every five finds it open


class Server(uvicorn.Server):
    """uvicorn, whose streams of events end when it is asked to end."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        app: Any = self.config.app
        app.state.ending.set()
        super().handle_exit(sig, frame)


class Served:
    """The application on a port that is already open: `url` to open it, `run` to serve until it is ended."""

    def __init__(self, settings: StudioSettings, routers: Sequence[str] = ROUTERS) -> None:
        """routers: see `create_app`.

        Raises MaquetteError where the data folder is another studio's, what is named is not there, or no port is free.
        """
        require_there(settings)
        self.app = create_app(settings, routers)
        self.studio = self.app.state.studio
        try:
            self.socket = bind(settings)
        except BaseException:
            self.studio.close()
            raise
        self.port = int(self.socket.getsockname()[1])
        config = uvicorn.Config(
            self.app, log_level="warning", access_log=False, server_header=False, date_header=False,
            timeout_graceful_shutdown=3, timeout_keep_alive=KEPT, h11_max_incomplete_event_size=64 * 1024,
            loop="asyncio", http="h11",  # also where Ray Serve brought others
        )  # fmt: skip
        self.server = Server(config)

    @property
    def address(self) -> str:
        """Of the page, for this computer."""
        host = self.studio.settings.address
        name = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.port}"

    @property
    def url(self) -> str:
        """The address with the token, which lets a browser in."""
        return f"{self.address}/?token={self.studio.token}"

    def greeting(self) -> list[str]:
        """What to print when the studio begins."""
        settings = self.studio.settings
        lines = list(self.studio.notes)
        if settings.port not in (0, self.port):
            lines.append(f"Port {settings.port} is taken (A1111 uses 7860 too); the studio has {self.port}.")
        if settings.lan:
            name = settings.name or socket.gethostname()
            lines.append(f"Other computers of the network: http://{name}:{self.port} (with the password).")
            lines.append("What they send, the password too, can be read by others in the network: there is no TLS.")
        return [*lines, f"Studio: {self.url}", f"Everything lies in {self.studio.folder}. Ctrl-C ends it; jobs go on."]

    def run(self) -> None:
        """Serve until a signal comes or `end` is called."""
        self.server.run(sockets=[self.socket])

    def end(self) -> None:
        """From another thread: end the server."""
        self.server.should_exit = True
        self.app.state.ending.set()


def require_there(settings: StudioSettings) -> None:
    """Raise MaquetteError for a base or a folder that is named and is not there."""
    named = settings.base != "pocket" and not settings.base.startswith("hf:")
    if named and not Path(settings.base).exists():
        raise MaquetteError(f"There is no base {settings.base}: name a file or a diffusers folder that is there.")
    for key in ("bases", "loras"):
        if key in settings.model_fields_set:
            value = getattr(settings, key)
            for folder in value if isinstance(value, list) else [value]:
                if folder is not None and not at_home(folder).is_dir():
                    raise MaquetteError(f"There is no folder {folder} (--{key}): name one that is there, or make it.")


def bind(settings: StudioSettings) -> socket.socket:
    """A socket on the wanted port, or the next that is free; port 0 is any. Raises MaquetteError for none."""
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    for port in range(settings.port, min(65_535, settings.port + TRIES) + 1):
        # By its protocol asyncio knows that small answers shall not wait for the client's acknowledgement.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((settings.address, port))
            made.listen(128)
        except OSError as error:
            made.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise MaquetteError(f"{settings.address} cannot be listened on: {error.strerror}.") from error
        else:
            return made
    raise MaquetteError(f"No port from {settings.port} to {settings.port + TRIES} is free; give another with --port.")
