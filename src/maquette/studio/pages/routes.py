"""Routes that answer with pages: what is missing becomes a page with a way on, not JSON."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from ..names import NotFound
from .shell import html


class PageRoute(APIRoute):
    """A route whose NotFound is a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        usual = super().get_route_handler()

        async def handler(request: Request) -> Response:
            if request.method == "GET":
                with suppress(NotFound):  # what was deleted while the page was made is not looked for a second time
                    return await usual(request)
            try:
                return await usual(request)
            except NotFound as missing:
                return not_here(request, str(missing))

        return handler


def not_here(request: Request, text: str) -> Response:
    """The page for what there is not. text: a sentence."""
    return html(request, "message.html", status=404, heading="Not here", text=text)


def page_router() -> APIRouter:
    """A router of pages, which the description of the API leaves out."""
    return APIRouter(route_class=PageRoute, include_in_schema=False)
