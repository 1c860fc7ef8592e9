"""What commands share: events as progress bars on stderr, results as JSON on stdout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..run import Event


def print_json(result: Any) -> None:
    """The result of a stage on stdout, for programs."""
    print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))


def given(**options: Any) -> dict[str, Any]:
    """The options that were given: the others keep their defaults, which are written in the stage's configuration."""
    return {key: value for key, value in options.items() if value is not None}


class Display:
    """Events as progress bars (where stderr is no terminal: lines), warnings and notes."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self._console,
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
            left = data.get("remaining_seconds")
            self._show(data["what"], data["done"], data["of"], "" if left is None else f"{clock(left)} left")
        elif event.kind == "metric":
            loss = data["loss"]
            self._smooth = loss if self._smooth is None else 0.95 * self._smooth + 0.05 * loss
            facts = f"loss {self._smooth:.4f}  {data['images_per_second']:.1f} images/s"
            facts += f"  {clock(data['remaining_seconds'])} left"
            self._show("training", data["step"], data["steps"], facts)
        elif event.kind in ("warning", "finding"):
            self._console.print(f"[yellow]warning:[/] {_plain(data['message'])}")
        elif event.kind == "saved":
            self._console.print(f"saved {_plain(data['path'])}")

    def _show(self, what: str, done: int, of: int, facts: str) -> None:
        if not self._console.is_interactive:
            return self._log(what, done, of, facts)
        self._bar.start()  # here, because a bar without a task would leave an empty line; started twice, it goes on
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=of, facts=facts)
        self._bar.update(self._tasks[what], completed=done, total=of, facts=facts)

    def _log(self, what: str, done: int, of: int, facts: str) -> None:
        """In a file or pipe: a line for every tenth."""
        tenth = 10 * done // max(1, of)
        if tenth != self._tasks.get(what, 0):
            self._tasks[what] = tenth
            self._console.print(f"{what} {done}/{of}  {facts}".rstrip(), markup=False)


def clock(seconds: float) -> str:
    """3725 -> "1:02:05"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
