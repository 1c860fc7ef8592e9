"""Many trainings on one machine or a cluster: rows of a file become results in an object store, each exactly once.

    from maquette import fleet
    fleet.plan(jobs="jobs.jsonl", root="results").new
    fleet.run(jobs="jobs.jsonl", root="results", workers=2)
    fleet.status(root="results").done

The functions are those of `maquette fleet`, and their keywords its options (`config.fleet.FleetConfig`). Nothing here
imports torch before a worker trains.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..config.fleet import FleetConfig

if TYPE_CHECKING:
    from ..events import Event
    from .executor import Executor
    from .keeping import KeptResult
    from .planning import PlanResult
    from .reporting import StatusResult
    from .tally import RunResult

__all__ = ["cancel", "gc", "plan", "report", "retry", "run", "status"]


def plan(**options: Any) -> PlanResult:
    """Say what a run would do; nothing is written."""
    from .planning import plan as planned

    return planned(_config(options))


def run(
    on_event: Callable[[Event], None] | None = None,
    cancel: threading.Event | None = None,
    executor: Executor | None = None,
    **options: Any,
) -> RunResult:
    """Run every job that has no result yet. Setting `cancel`, from any thread, drains: the same call goes on.

    executor: who works, instead of what `address` says.
    """
    from ..events import ignore
    from .driving import run as driven

    return driven(_config(options), on_event or ignore, cancel, executor)


def status(**options: Any) -> StatusResult:
    """What has become of all jobs that were submitted to the root."""
    from .reporting import status as read

    return read(_config(options))


def report(**options: Any) -> StatusResult:
    """`status`, and its page."""
    from .reporting import report as written

    return written(_config(options))


def retry(**options: Any) -> KeptResult:
    """Let the next run try jobs again that were rejected, failed or cancelled."""
    from .keeping import retry as taken_back

    return taken_back(_config(options))


def cancel(**options: Any) -> KeptResult:
    """Say that jobs are not to be run, also to a run at work."""
    from .keeping import cancel as called_off

    return called_off(_config(options))


def gc(**options: Any) -> KeptResult:
    """List, and with yes=True remove, what attempts left behind."""
    from .keeping import gc as collected

    return collected(_config(options))


def _config(options: dict[str, Any]) -> FleetConfig:
    return FleetConfig.parse(options, "fleet")
