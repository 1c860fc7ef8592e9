"""Rows of a part: printed as they come, kept as JSON, and judged at the end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


class Rows:
    """Rows of one part. `end` raises SystemExit when one of them is wrong."""

    def __init__(self, name: str, out: Path) -> None:
        self.path = out / f"{name}.json"
        self.rows: list[dict[str, Any]] = []

    def add(self, right: bool | None = None, **values: Any) -> None:
        """Add and print a row. `right`: whether it is as it should be; None for a plain figure."""
        row = values if right is None else {**values, "right": right}
        self.rows.append(row)
        mark = {None: " ", True: "ok", False: "WRONG"}[right]
        print(f"{mark:>5} " + "  ".join(f"{key} {_shown(value)}" for key, value in values.items()), flush=True)
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n")

    def end(self) -> None:
        """Exit with 1 when a row was wrong."""
        wrong = sum(row.get("right") is False for row in self.rows)
        if wrong:
            sys.exit(f"{wrong} of {len(self.rows)} rows are wrong")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list):
        return "[" + " ".join(_shown(item) for item in value) + "]"
    return str(value)
