"""What every drawing process does, whoever draws in it: read wishes, hand pictures over, end with its parent."""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any, Protocol

from ..errors import MaquetteError
from ..events import Event, Listener
from . import frames

if TYPE_CHECKING:
    from PIL.Image import Image

OnPicture = Callable[["Image", Mapping[str, Any]], None]
"""(picture, its facts: seed, infotext, prompt, negative_prompt)."""


class Artist(Protocol):
    """A base that is open and draws."""

    def facts(self) -> dict[str, Any]:
        """What the studio may want to know of the base: hash."""

    def draw(
        self,
        settings: dict[str, Any],
        loras: Mapping[str, str],
        on_picture: OnPicture,
        on_event: Listener,
        interrupt: threading.Event,
    ) -> None:
        """Draw by the keys of DrawSettings. loras: name -> path. Raises MaquetteError."""

    def close(self) -> None:
        """Let go of what is open."""


Opener = Callable[[Mapping[str, Any]], Artist]
"""Opens a base by the keys of BaseSettings."""


Tell = Callable[[Mapping[str, Any], bytes], None]
"""(message, picture of it)."""


class Easel:
    """A base that stays open from wish to wish. One drawing at a time; `tell` hears all of it."""

    def __init__(self, opener: Opener, tell: Tell) -> None:
        self.opener, self.tell = opener, tell
        self.artist: Artist | None = None
        self.opened: Mapping[str, Any] | None = None

    def answer(self, wish: dict[str, Any], interrupt: threading.Event) -> None:
        """Draw; the last message is "done" or "error"."""
        try:
            self._draw(wish, interrupt)
        except MaquetteError as error:
            self._send({"event": "error", "kind": "input", "message": str(error)})
        except Exception as error:  # whatever it is, the process goes on and says it
            traceback.print_exc()
            memory = is_out_of_memory(error)
            if memory:
                self._let_go()
            message = OUT_OF_MEMORY if memory else f"Drawing failed: {type(error).__name__}: {error}"
            self._send({"event": "error", "kind": "memory" if memory else "internal", "message": message})
        else:
            self._send({"event": "done"})
        gc.collect()

    def _draw(self, wish: dict[str, Any], interrupt: threading.Event) -> None:
        base: Mapping[str, Any] = wish["base"]
        if self.opened != base or self.artist is None:
            self._let_go()
            self._send({"event": "loading"})
            self.artist, self.opened = self.opener(base), base
        self._send({"event": "opened", **self.artist.facts()})
        self.artist.draw(wish["settings"], wish["loras"], self._picture, self._event, interrupt)

    def _let_go(self) -> None:
        if self.artist is not None:
            self.artist.close()
        self.artist, self.opened = None, None
        gc.collect()

    def _picture(self, image: Image, facts: Mapping[str, Any]) -> None:
        self._send({"event": "picture", "width": image.width, "height": image.height, **facts}, png(image, facts))

    def _event(self, event: Event) -> None:
        data = dict(event.data)
        if event.kind == "preview":
            import base64

            first = data["pictures"][0].partition(",")[2]
            self._send({"event": "preview", "step": data["step"]}, base64.b64decode(first))
        else:
            self._send({"event": event.kind, **data})

    def _send(self, message: Mapping[str, Any], data: bytes = b"") -> None:
        self.tell(message, data)


class Child:
    """The loop of a drawing process. A thread reads, so that an interruption is heard."""

    def __init__(self, opener: Opener, source: IO[bytes], target: IO[bytes]) -> None:
        self.source, self.target = source, target
        self.easel = Easel(opener, lambda message, data: frames.write(target, message, data))
        self._wishes: queue.Queue[tuple[dict[str, Any], threading.Event]] = queue.Queue()

    def serve(self) -> None:
        """Draw until the parent closes its end, which ends the process at once."""
        threading.Thread(target=self._listen, daemon=True).start()
        frames.write(self.target, {"event": "ready"})
        while True:
            self.easel.answer(*self._wishes.get())

    def _listen(self) -> None:
        latest = threading.Event()
        try:
            while (message := frames.read(self.source)) is not None:
                wish = message[0]
                if wish["do"] == "interrupt":
                    latest.set()
                elif wish["do"] == "draw":
                    latest = threading.Event()
                    self._wishes.put((wish, latest))
        finally:
            os._exit(0)  # the parent is gone, however it went: nobody wants the picture at work


OUT_OF_MEMORY = "Memory ran out while drawing. Draw a smaller picture or fewer at once, or close other programs."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says so, in main memory or on a card."""
    message = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in message or "can't allocate memory" in message


def png(image: Image, facts: Mapping[str, Any]) -> bytes:
    """The picture as a PNG file with its text."""
    from ..formats.png import save_png

    stream = BytesIO()
    save_png(image, stream, str(facts["infotext"]))
    return stream.getvalue()


def run(opener: Opener) -> None:
    """Serve on this process's own input and output. What else is printed goes to the error stream."""
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    Child(opener, sys.stdin.buffer, target).serve()
