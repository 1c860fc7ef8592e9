"""What commands share: events as progress bars on stderr, results as JSON on stdout."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from ..shown import finite_json, visible, visible_json
from .terminal import Screen

if TYPE_CHECKING:
    from ..events import Event

KINDS = {"adapter": "LoRA:", "embedding": "Word:", "model": "Model:"}  # of products, as `methods.METHODS` has them


def print_json(result: Any) -> None:
    """The result of a stage on stdout, for programs: valid JSON in whatever encoding stdout has."""
    value = finite_json(result.to_json())
    text = visible_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


class Display:
    """Events as progress bars (where stderr is no terminal: lines), warnings and notes."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._screen = Screen(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            console=self._screen.console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, Any] = {}
        self._smooth: float | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar.live.is_started:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        data = event.data
        if event.kind == "progress":
            left, speed = data.get("remaining_seconds"), data.get("gb_per_second")
            rates = [] if speed is None else [f"{speed:.2f} GB/s"]
            rates += [] if left is None else [f"{clock(left)} left"]
            what = f"{data['what']}, {data['unit']}" if "unit" in data else data["what"]
            self._show(what, data["done"], data["of"], "  ".join(rates))
        elif event.kind == "metric":
            loss = data["loss"]
            self._smooth = loss if self._smooth is None else 0.95 * self._smooth + 0.05 * loss
            facts = f"loss {self._smooth:.4f}  {data['images_per_second']:.1f} images/s"
            facts += f"  {clock(data['remaining_seconds'])} left"
            self._show("training", data["step"], data["steps"], facts)
        elif event.kind in ("warning", "finding"):
            self._screen.line(data["message"], style="yellow", before="warning:")
        elif event.kind == "saved":
            self._screen.line(f"saved {data['path']}")

    def _show(self, what: str, done: int, of: int, facts: str) -> None:
        if not self._screen.console.is_interactive:
            return self._log(what, done, of, facts)
        self._bar.start()  # here, because a bar without a task would leave an empty line; started twice, it goes on
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(visible(what), total=of, facts=facts)
        self._bar.update(self._tasks[what], completed=done, total=of, facts=facts)

    def _log(self, what: str, done: int, of: int, facts: str) -> None:
        """In a file or pipe: a line for every tenth."""
        tenth = 10 * done // max(1, of)
        if tenth != self._tasks.get(what, 0):
            self._tasks[what] = tenth
            self._screen.line(f"{what} {done}/{of}  {facts}".rstrip())


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
