"""Pages that people open in a browser, from the templates beside this file.

What stands on them comes from names, captions and run folders of strangers. So every value is escaped, control
characters are shown as what they are, and the browser is told to run and to load nothing.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...shown import visible

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, style: str, **values: Any) -> str:
    """The text of a page whose style sheet is `style`. Raises an error for a value that the template lacks."""
    from markupsafe import Markup

    policy = Markup('<meta http-equiv="Content-Security-Policy" content="{}">').format(policy_of(style))
    return _environment().get_template(template).render(style=Markup(style), policy=policy, **values)


def style_sheet(name: str) -> str:
    """A style sheet beside the templates."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def policy_of(style: str) -> str:
    """The policy of a page: this very style sheet and pictures inside the page; no script, frame, form or request."""
    return f"default-src 'none'; img-src data:; style-src {source_of(style)}; base-uri 'none'; form-action 'none'"


def source_of(style: str) -> str:
    """How a policy names this very style sheet."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value, lines=True) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
