"""A1111's prompt language: emphasis, schedules, AND, network tags. `encode` turns it into what the denoiser is told."""

from __future__ import annotations

from .attention import parse_attention
from .composable import parse_composable
from .networks import Network, parse_networks
from .schedule import parse_schedule

__all__ = ["Network", "parse_attention", "parse_composable", "parse_networks", "parse_schedule"]
