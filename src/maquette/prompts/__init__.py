"""A1111's prompt language: comments, emphasis, schedules, AND, network tags. `encode` turns it into what the denoiser
is told. No parser works longer than n log n of a prompt's length, and none reads one of more than MAX_CHARACTERS.
"""

from __future__ import annotations

from .attention import WeightError, parse_attention
from .chunks import tokenize
from .comments import strip_comments
from .composable import parse_composable
from .limits import MAX_CHARACTERS
from .networks import Network, malformed_tag, parse_networks, replace_networks
from .schedule import parse_schedule

__all__ = [
    "MAX_CHARACTERS",
    "Network",
    "WeightError",
    "malformed_tag",
    "parse_attention",
    "parse_composable",
    "parse_networks",
    "parse_schedule",
    "replace_networks",
    "strip_comments",
    "tokenize",
]
