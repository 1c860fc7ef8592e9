"""Comments in A1111's prompt language (since 1.8): from `#` to the end of the line."""

from __future__ import annotations

import re

from .limits import require_bounded

_LINE = re.compile(r"(^|\n)#[^\n]*(\n|$)")
_REST_OF_LINE = re.compile(r"#[^\n]*(\n|$)")


def strip_comments(prompt: str) -> str:
    """Take out comments: "a # b" -> "a \\n", and of a line that is nothing else the line as well.

    A colour such as #ff0000 or a trigger word with # is a comment too. Raises MaquetteError for a prompt that is too
    long. The expressions are those whose results A1111's `enable_prompt_comments` gives.
    """
    require_bounded(prompt)
    return _REST_OF_LINE.sub("\n", _LINE.sub("\n", prompt))
