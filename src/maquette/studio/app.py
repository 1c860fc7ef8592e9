"""The web application: routes, pages, errors, behind the guard."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from .. import __version__
from ..config.studio import StudioSettings
from ..errors import MaquetteError
from .core import Studio
from .names import Busy, NotFound
from .pages.routes import not_here
from .security import Guard

ROUTERS = ("api", "pages", "sdapi", "openai")  # modules of this room with a `router`
PROGRAMS = ("sdapi", "openai")  # those for other programs
_log = logging.getLogger("maquette.studio")


def create_app(settings: StudioSettings, routers: Sequence[str] = ROUTERS) -> FastAPI:
    """The application, with the data folder taken until it ends. routers: those of ROUTERS that it has.

    Raises MaquetteError where another studio has the folder.
    """
    studio = Studio.open(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.ending = asyncio.Event()
        try:
            yield
        finally:
            app.state.ending.set()
            await run_in_threadpool(studio.close)

    app = FastAPI(
        title="maquette studio", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        openapi_url="/api/openapi.json", redirect_slashes=False,
    )  # fmt: skip
    app.state.studio = studio
    app.state.streams = 0  # pages that listen to events
    app.state.ending = asyncio.Event()
    for name in routers:
        if importlib.util.find_spec(f".{name}", __package__) is not None:
            module = importlib.import_module(f".{name}", __package__)
            if hasattr(module, "router"):
                app.include_router(module.router)
            getattr(module, "mount", _nothing)(app)
    _answer_errors(app, "pages" in routers)
    app.add_middleware(Guard, studio=studio)
    return app


def _nothing(app: FastAPI) -> None:
    """Of a module that mounts nothing."""


def _answer_errors(app: FastAPI, pages: bool) -> None:
    """Every error is JSON with one sentence; no traceback leaves the machine. pages: a browser that asks for what there
    is not gets a page.
    """

    @app.exception_handler(MaquetteError)
    async def refused(request: Request, error: MaquetteError) -> JSONResponse:
        status = 404 if isinstance(error, NotFound) else 409 if isinstance(error, Busy) else 400
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> Response:
        if pages and error.status_code == 404 and "text/html" in request.headers.get("accept", ""):
            return not_here(request, "There is no such page.")
        return JSONResponse({"error": str(error.detail)}, error.status_code, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first: dict[str, Any] = dict(error.errors()[0]) if error.errors() else {}
        where = ".".join(str(part) for part in first.get("loc", ())[1:])
        sentence = f"{where or 'The request'}: {first.get('msg', 'is not understood')}."
        return JSONResponse({"error": sentence}, 422)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> JSONResponse:
        return JSONResponse({"error": "The request was cut off; send it again."}, 400)  # nobody reads it

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> JSONResponse:
        _log.error("fault in %s %s", request.method, request.url.path, exc_info=error)
        return JSONResponse({"error": "An unexpected fault in the studio; its log says where it arose."}, 500)
