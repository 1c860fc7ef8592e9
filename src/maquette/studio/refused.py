"""What a browser shows that is not let in: a page of its own, as nothing of the studio is given to it."""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape

HEADINGS = {401: "This studio is locked", 421: "This is not the studio's address"}
# Colours and sizes are those of studio.css.
_LIGHT, _DARK = "#f7f5f2;color:#211d1a", "#161412;color:#f1ece6"
STYLE = (
    f"body{{margin:0;min-height:100dvh;display:grid;place-items:center;text-align:center;background:{_LIGHT};"
    "font:.9375rem/1.5 ui-sans-serif,system-ui,'Segoe UI',Roboto,'Helvetica Neue','Noto Sans',Arial,sans-serif}"
    "main{max-width:34rem;padding:1.5rem}svg{width:3rem;height:3rem}p{margin:0}"
    "h1{margin:1rem 0 .5rem;font-size:clamp(1.75rem,4.2vw,2.5rem);line-height:1.15;letter-spacing:-.02em;"
    "font-weight:650;text-wrap:balance}"
    f"@media(prefers-color-scheme:dark){{body{{color-scheme:dark;background:{_DARK}}}}}"
)
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_SIGN = (
    '<svg viewBox="0 0 32 32" aria-hidden="true"><path d="M16 2.5 28 9v14l-12 6.5L4 23V9z" fill="#b4542f"/>'
    '<path d="M16 16 28 9v14l-12 6.5z" fill="#8a3a1f"/><path d="M16 2.5 28 9l-12 7L4 9z" fill="#e09a78"/></svg>'
)


def marked(text: str) -> str:
    """Text as HTML, with what stands between grave accents as code."""
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text))


def page(status: int, text: str) -> bytes:
    """The page of a refusal, in UTF-8. status: one of `HEADINGS`. It needs POLICY as its content security policy."""
    heading = escape(HEADINGS[status])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading} · maquette</title><style>{STYLE}</style></head>"
        f"<body><main>{_SIGN}<h1>{heading}</h1><p>{marked(text)}</p></main></body></html>\n"
    ).encode()
