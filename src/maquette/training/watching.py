"""A training that watches itself: each checkpoint is measured as it is saved, on photos that are not trained on."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..evaluation.choice import Row
from ..evaluation.measures import measure_items
from ..evaluation.panel import QUICK, Panel, build_panel
from ..evaluation.rule import RULE
from ..evaluation.stopping import ending
from ..evaluation.validated import require_measurable
from ..events import Event, Listener
from ..fast import compiled
from ..files import write_json
from ..parsing import read_object
from .defaults import subject_of
from .verdicts import examples

if TYPE_CHECKING:
    from pathlib import Path

    from ..run_folder import RunFolder
    from .checkpoint_writer import CheckpointWriter
    from .job import Job


class Watcher:
    """Measures checkpoints on a panel, without drawing, and says when to end. What it saw lies in measured.json, so
    that a resumed run ends where an uninterrupted one does.
    """

    def __init__(self, job: Job, writer: CheckpointWriter, folder: RunFolder, on_event: Listener) -> None:
        """Raises MaquetteError where nothing can be measured: a flow base, or no word for the subject."""
        self.job, self.writer, self.folder, self.on_event = job, writer, folder, on_event
        subject = subject_of(job.config, job.dataset)
        if subject is None:
            raise MaquetteError('stop = auto needs to know the subject: name it (--subject "ohwx man").')
        require_measurable(job.base)
        self.subject = subject
        self.panel: Panel | None = None
        self.rows: dict[int, Row] = {}

    def start(self, step: int) -> None:
        """Take up what was measured until `step`, and measure what a kill left unmeasured."""
        self.rows = {row.step: row for row in _read(self.folder) if row.step <= step}
        for at, file in self.folder.checkpoints().items():
            if at <= step and at not in self.rows:
                self.look(at, file)

    def look(self, step: int, file: Path) -> None:
        """Measure a checkpoint at weight 1."""
        with ExitStack() as stack:
            stack.enter_context(self.job.attached.suspended())
            if self.job.config.compile:
                stack.enter_context(compiled.off())
            base = stack.enter_context(self.writer.base_model())
            if self.panel is None:
                photos, config = examples(self.job.dataset, base), self.job.config
                self.panel = build_panel(
                    base, photos, self.subject, kind=config.kind, size=QUICK, seed=config.seed,
                    clip_skip=config.clip_skip, cfg_scale=config.sample_cfg_scale,
                )  # fmt: skip
            row = Row.of(step, 1.0, measure_items(base, file, 1.0, self.panel, drawings=False))
        self.rows[step] = row
        records = [{**row.to_json(), "items": dict(row.items)} for _, row in sorted(self.rows.items())]
        write_json(self.folder.measured, {"rows": records})
        self.on_event(Event("measured", row.to_json()))

    def ending(self) -> str | None:
        """Why training should end now, else None."""
        rows = [row for _, row in sorted(self.rows.items())]
        return ending(rows, RULE if self.panel is None else self.panel.rule)


def _read(folder: RunFolder) -> list[Row]:
    """The rows of measured.json; none of a file that is damaged: they are measured again."""
    if not folder.measured.exists():
        return []
    try:
        rows = read_object(folder.measured).get("rows")
    except MaquetteError:
        return []
    return [_row(row) for row in rows if _is_row(row)] if isinstance(rows, list) else []


def _row(record: dict[str, Any]) -> Row:
    return Row.of(record["step"], 1.0, {name: [float(v) for v in values] for name, values in record["items"].items()})


def _is_row(record: Any) -> bool:
    items = record.get("items") if isinstance(record, dict) else None
    if not isinstance(items, dict) or type(record.get("step")) is not int:
        return False
    return all(isinstance(v, list) and v and all(type(x) in (int, float) for x in v) for v in items.values())
