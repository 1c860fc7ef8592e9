"""What a browser shows that is not let in: a page of its own, as nothing of the studio is given to it."""

from __future__ import annotations

from markupsafe import Markup

from ..report.pages import source_of
from .templating import TEMPLATES, render

HEADINGS = {401: "This studio is locked", 421: "This is not the studio's address"}
STYLE = (TEMPLATES / "refused.css").read_text(encoding="utf-8")  # colours and sizes are those of studio.css
_OWN = source_of(STYLE)
POLICY = f"default-src 'none'; style-src {_OWN}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


def page(status: int, text: str) -> bytes:
    """The page of a refusal, in UTF-8. status: one of `HEADINGS`. It needs POLICY as its content security policy."""
    return render("refused.html", heading=HEADINGS[status], text=text, style=Markup(STYLE)).encode()
