"""The frame of every page: templates, theme, keyboard list, the strip of the job at work."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse

from ..templating import render

THEMES = ("light", "dark")  # anything else follows the system
KEYS: tuple[tuple[str, tuple[tuple[tuple[str, ...], str], ...]], ...] = (
    (
        "Everywhere",
        (
            (("Ctrl", "Enter"), "The page's main button; ⌘ on a Mac"),
            (("?",), "This list"),
            (("Esc",), "Close, or leave a field"),
        ),
    ),
    (
        "Photos",
        (
            (("←", "→", "↑", "↓"), "From card to card"),
            (("Enter",), "Edit the caption"),
            (("Ctrl", "Enter"), "In a caption: save it and go to the next"),
            (("Space",), "Select"),
            (("Ctrl", "A"), "Select all"),
            (("X",), "Leave the photo out, or take it in again"),
            (("M",), "Paint a mask"),
            (("Shift", "←→↑↓"), "Move the crop frame"),
            (("Ctrl", "Z"), "Undo"),
        ),
    ),
    (
        "Results",
        (
            (("←", "→", "↑", "↓"), "From picture to picture"),
            (("C",), "Compare with the base"),
            (("1", "…", "9"), "Keep that checkpoint"),
        ),
    ),
    ("Playground", ((("Ctrl", "↑↓"), "Weigh the word, or the LoRA, at the cursor"),)),
    ("Mask", ((("[", "]"), "Size of the brush"), (("E",), "Erase"), (("Ctrl", "Z"), "Undo the last stroke"))),
)


def theme(request: Request) -> str:
    """ "light", "dark", or "" for the system's; kept in a cookie so that no page flashes in the other one."""
    value = request.cookies.get("theme", "")
    return value if value in THEMES else ""


def html(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page or a piece of one. A page that extends base.html needs `place`: home, play, queue or project."""
    from .jobs import running

    shell = {"theme": theme(request), "keys": KEYS, "place": "", "running": running(request.app.state.studio)}
    return HTMLResponse(render(template, **(shell | context)), status_code=status)
