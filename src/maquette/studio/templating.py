"""The studio's templates: what is put into them is escaped."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


def marked(text: str) -> Markup:
    """Text as HTML, with what stands between grave accents as code."""
    return Markup(re.sub("`(.+?)`", r"<code>\1</code>", escape(text)))


def render(template: str, **context: Any) -> str:
    """A template of the folder with its values. Raises jinja2.UndefinedError for one that is missing."""
    return _templates.get_template(template).render(**context)


_templates = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_templates.filters["marked"] = marked
