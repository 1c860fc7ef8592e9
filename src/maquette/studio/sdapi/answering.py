"""Answers and errors in A1111's form, and how a request reaches what draws."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException

from ...errors import MaquetteError
from ..drawings import DrawingFailed, Refused
from ..engine import DrawingEngine


class Answer(Response):
    """JSON in plain ASCII, which any text can be written in."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode()


class A1111Route(APIRoute):
    """A route whose errors are answered as A1111 answers them: {"error", "detail", "body", "errors"}."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except (StarletteHTTPException, RequestValidationError, MaquetteError) as error:
                return self.failed(error)

        return answered

    def failed(self, error: Exception) -> Response:
        """The answer to a request that went wrong."""
        return failure(error)


def failure(error: Exception) -> Answer:
    """The answer to a request that went wrong. What was sent is not sent back."""
    status, name, detail, headers = parts_of(error)
    content = {"error": name, "detail": detail, "body": "", "errors": detail}
    return Answer(content, status, headers=headers)


def parts_of(error: Exception) -> tuple[int, str, str, dict[str, str]]:
    """(status, name, sentence, headers) of an error."""
    if isinstance(error, StarletteHTTPException):
        return error.status_code, type(error).__name__, str(error.detail), dict(error.headers or {})
    if isinstance(error, RequestValidationError):
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"] if part != "body") or "the body"
        return 422, "ValidationError", f"{place}: {fault['msg']}.", {}
    if isinstance(error, Refused):
        return 503, "Busy", str(error), {"Retry-After": str(error.retry_after)}
    if isinstance(error, DrawingFailed):
        name = "OutOfMemoryError" if error.kind == "memory" else "DrawingFailed"
        return 500, name, str(error), {}
    return 422, "ValueError", str(error), {}


def engine_of(request: Request) -> DrawingEngine:
    """Who draws in this application."""
    engine: DrawingEngine = request.app.state.studio.engine
    return engine
