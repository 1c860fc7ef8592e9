"""Server-sent events: what draws, trains and waits is told to the pages that listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from fastapi import Request
from fastapi.responses import StreamingResponse

from ..names import Busy

MOST_STREAMS = 20
HEARTBEAT = 15.0  # seconds of silence after which a sign of life is sent
News = tuple[Sequence[str], bool]
"""Events as they are sent, and whether they are the last."""


def event_stream(request: Request, look: Callable[[], Awaitable[News]], pause: float) -> StreamingResponse:
    """Ask `look` every `pause` seconds for what is new, as long as somebody listens. Raises Busy where too many do."""
    if request.app.state.streams >= MOST_STREAMS:
        raise Busy(f"{MOST_STREAMS} pages listen already; close some of them.")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_sent(request, look, pause), media_type="text/event-stream", headers=headers)


async def _sent(request: Request, look: Callable[[], Awaitable[News]], pause: float) -> AsyncIterator[str]:
    state, quiet = request.app.state, 0.0
    state.streams += 1
    try:
        yield "retry: 2000\n\n"
        while not await request.is_disconnected() and not state.ending.is_set():
            events, over = await look()
            for event in events:
                quiet = 0.0
                yield event
            if over:
                return
            quiet += pause
            if quiet >= HEARTBEAT:
                quiet = 0.0
                yield ": still here\n\n"
            await asyncio.sleep(pause)
    finally:
        state.streams -= 1
