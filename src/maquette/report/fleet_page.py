"""The page of `maquette fleet report`: figures, failures by kind, where the time went, tenants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .pages import render, style_sheet


def page(found: dict[str, Any], table: Sequence[tuple[str, str]]) -> str:
    """The text of the page. found: as `StatusResult.to_json` has it. table: its figures in words."""
    whole = sum(found["parts"].values()) or 1.0
    parts = [(name, f"{seconds:.1f} s", f"{seconds / whole:.0%}") for name, seconds in found["parts"].items()]
    states = ("done", "rejected", "failed")
    tenants = [(name, *(counts.get(state, 0) for state in states)) for name, counts in found["by_tenant"].items()]
    kinds = sorted(found["by_kind"].items())
    return render(
        "fleet.html", style=style_sheet("report.css"), found=found, table=table, parts=parts, tenants=tenants,
        states=states, kinds=kinds,
    )  # fmt: skip
