"""What the store knows of finished jobs, read quickly: parts with many results each, and what is not in one yet."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import layout
from .records import read_result
from .store import Store

AT_ONCE = 1000  # results in a part


class Parts:
    """Collects lines and writes them as parts. What a kill loses is read from the results themselves."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lines: list[bytes] = []

    def add(self, line: dict[str, Any]) -> None:
        self._lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        if len(self._lines) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            name = f"{layout.PARTS}/part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
            self.store.write(name, b"".join(self._lines))
            self._lines = []


def alias(result: dict[str, Any], mark: str, row: str, job: str) -> dict[str, Any]:
    """A line that says: this job too is done by that result."""
    return {"alias": result["key"], "tenant": result["tenant"], "mark": mark, "row": row, "job": job,
            "status": result["status"], "finished": result["finished"]}  # fmt: skip


def retried(result: dict[str, Any]) -> dict[str, Any]:
    """A line that takes a result back."""
    return {"retried": result["key"], "tenant": result["tenant"], "finished": result["finished"]}


def lines(store: Store) -> Iterator[dict[str, Any]]:
    """Every line of the parts that was not taken back; results and aliases."""
    names = [entry.name for entry in store.files(layout.PARTS) if entry.name.endswith(".jsonl")]
    back: set[tuple[str, float]] = set()
    for name in names:
        for line in store.read(name).splitlines():
            if line.startswith(b'{"retried"'):
                written = json.loads(line)
                back.add((written["retried"], written["finished"]))
    for name in names:
        for line in store.read(name).splitlines():
            if not line.startswith(b'{"retried"'):
                written = json.loads(line)
                if (written.get("key") or written.get("alias"), written["finished"]) not in back:
                    yield written


def results(store: Store) -> Iterator[dict[str, Any]]:
    """Every committed result once, and the aliases that are known."""
    seen: set[tuple[str, str]] = set()
    for line in lines(store):
        if "alias" in line:
            yield line
        elif (line["tenant"], line["key"]) not in seen:
            seen.add((line["tenant"], line["key"]))
            yield line
    for tenant, key in runs(store):
        if (tenant, key) not in seen:
            try:
                committed = read_result(store.read(layout.result(tenant, key)))
            except (FileNotFoundError, NotADirectoryError):
                continue
            if committed is not None:
                yield committed


def runs(store: Store) -> Iterator[tuple[str, str]]:
    """Tenant and key of everything that was begun."""
    for tenant in store.folders(layout.RUNS):
        for prefix in store.folders(f"{layout.RUNS}/{tenant}"):
            for key in store.folders(f"{layout.RUNS}/{tenant}/{prefix}"):
                yield tenant, key


@dataclass
class Index:
    """States of jobs by their cheap key, and by their row alone for those whose photos are gone."""

    marks: dict[tuple[str, str], str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)  # by base: number of results, seconds of all

    @classmethod
    def read(cls, store: Store) -> Index:
        found = cls()
        for line in results(store):
            found.add(line)
        return found

    def add(self, line: dict[str, Any]) -> None:
        """A result or an alias."""
        self.marks[line["tenant"], line["mark"]] = self.rows[line["row"]] = line["status"]
        if line["status"] == "done" and "seconds" in line:
            count = self.seconds.setdefault(line["base"], [0.0, 0.0])
            count[0] += 1
            count[1] += sum(line["seconds"].values())

    def usual_seconds(self, base: str) -> float | None:
        """The mean of results on a base; None before there is one."""
        count, total = self.seconds.get(base, (0.0, 0.0))
        return total / count if count else None
