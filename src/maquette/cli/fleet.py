"""maquette fleet: many trainings, on one machine or a cluster."""

from __future__ import annotations

import shlex
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.fleet import FleetConfig
from ..files import shown_bytes
from .common import Display, clock, print_json
from .interrupt import interruptible
from .options import options_from
from .start import INTERRUPTED
from .terminal import Screen

if TYPE_CHECKING:
    from ..fleet.keeping import KeptResult
    from ..fleet.planning import PlanResult
    from ..fleet.reporting import StatusResult
    from ..fleet.tally import RunResult

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def command() -> None:
    """Train many LoRAs from a file of jobs, each exactly once, on one machine or a cluster.

    Examples:

      maquette fleet plan jobs.jsonl --root results

      maquette fleet run jobs.jsonl --root results --workers 2

      maquette fleet status --root results --json
    """


@options_from(FleetConfig, "jobs", only=("jobs", "root", "settings", "workers", "devices", "submit"))
def plan(values: dict[str, Any], json_output: Json = False) -> None:
    """What a run would do: which jobs are new, done and invalid, how long it takes and what it costs.

    Examples:

      maquette fleet plan jobs.jsonl --root results

      maquette fleet plan jobs.toml --settings fleet.toml --workers 4
    """
    from ..fleet.planning import plan as planned

    found = planned(FleetConfig.parse(values, "fleet plan"))
    print_json(found) if json_output else show_plan(found)


RUN_KEYS = (
    "jobs", "root", "settings", "address", "workers", "devices", "slots", "attempts", "delete_photos", "scratch",
)  # fmt: skip


@options_from(FleetConfig, "jobs", only=RUN_KEYS)
def run(values: dict[str, Any], json_output: Json = False) -> None:
    """Train every job of JOBS that has no result yet. Ctrl-C stops at the next step; the same command goes on.

    Examples:

      maquette fleet run jobs.jsonl --root results --workers 2

      maquette fleet run jobs.jsonl --root s3://shop/fleet --address auto --workers 8
    """
    from ..fleet.driving import run as driven

    cancel = threading.Event()
    with interruptible(cancel, "Stopping the workers after their step …"), Display() as display:
        found = driven(FleetConfig.parse(values, "fleet run"), display, cancel)
    print_json(found) if json_output else show_run(found)
    if found.status == "stopped":
        raise typer.Exit(INTERRUPTED)
    if found.invalid or found.problems:
        raise typer.Exit(1)


@options_from(FleetConfig, only=("root", "settings"))
def status(values: dict[str, Any], json_output: Json = False) -> None:
    """What has become of all jobs that were submitted, how long they took and what they cost.

    Examples:

      maquette fleet status --root results
    """
    from ..fleet.reporting import status as read_status

    found = read_status(FleetConfig.parse(values, "fleet status"))
    print_json(found) if json_output else show_status(found)


@options_from(FleetConfig, only=("root", "settings", "out"))
def report(values: dict[str, Any], json_output: Json = False) -> None:
    """Write the status as a page.

    Examples:

      maquette fleet report --root results --out report.html
    """
    from ..fleet.reporting import report as written

    found = written(FleetConfig.parse(values, "fleet report"))
    if json_output:
        return print_json(found)
    Screen().line(f"Report: {found.report}")


@options_from(FleetConfig, only=("root", "failed", "ids"))
def retry(values: dict[str, Any], json_output: Json = False) -> None:
    """Let the next run try jobs again that were rejected, failed or cancelled.

    Examples:

      maquette fleet retry --root results --failed oom

      maquette fleet retry --root results --ids anna
    """
    from ..fleet.keeping import retry as taken_back

    _show_kept(taken_back(FleetConfig.parse(values, "fleet retry")), json_output)


@options_from(FleetConfig, only=("root", "ids", "all"))
def cancel(values: dict[str, Any], json_output: Json = False) -> None:
    """Say that jobs are not to be run, also to a run that is at work.

    Examples:

      maquette fleet cancel --root results --ids anna --ids bert
    """
    from ..fleet.keeping import cancel as called_off

    _show_kept(called_off(FleetConfig.parse(values, "fleet cancel")), json_output)


@options_from(FleetConfig, only=("root", "yes"))
def gc(values: dict[str, Any], json_output: Json = False) -> None:
    """List what attempts left behind that no result refers to, and with --yes remove it.

    Examples:

      maquette fleet gc --root results --yes
    """
    from ..fleet.keeping import gc as collected

    _show_kept(collected(FleetConfig.parse(values, "fleet gc")), json_output)


@options_from(FleetConfig, only=("root", "workers"))
def templates(
    values: dict[str, Any],
    name: Annotated[str, typer.Argument(metavar="NAME", help="ray, kuberay, skypilot or slurm.")],
) -> None:
    """Print a file that runs the fleet elsewhere: by Ray's launcher, KubeRay, SkyPilot or Slurm.

    Examples:

      maquette fleet templates kuberay --root s3://shop/fleet --workers 8 > kuberay.yaml

      maquette fleet templates slurm --root /shared/fleet --workers 4 > slurm.sh
    """
    from ..fleet.printing import template

    print(template(name, FleetConfig.parse(values, "fleet templates")), end="")


def show_plan(found: PlanResult) -> None:
    """Print counts, faults, time and cost."""
    screen = Screen()
    for bad in found.bad:
        screen.line(f"{bad['place']}: {bad['why']}", style="yellow", before="invalid:")
    if found.invalid > len(found.bad):
        screen.line(f"and {found.invalid - len(found.bad)} more that are invalid.")
    counts = [(name, getattr(found, name)) for name in ("new", "done", "failed", "cancelled", "invalid", "jobs")]
    screen.table(counts)
    if found.seconds is None:
        screen.line("How long a job takes is not known yet: run a few, or give seconds_per_job in fleet.toml.")
        return
    screen.line(
        f"The new ones take about {clock(found.seconds)} of workers, {clock((found.hours or 0) * 3600)} in all."
    )
    if found.cost is not None:
        screen.line(f"That costs about {found.currency}{found.cost:.2f}.")


def show_run(found: RunResult) -> None:
    """Print what was done and what is left."""
    screen = Screen()
    names = ("done", "rejected", "failed", "known", "cancelled", "late", "held", "invalid")
    screen.table([(name, getattr(found, name)) for name in names if getattr(found, name)])
    if found.held:
        screen.line("Held are jobs of tenants whose budget in fleet.toml is used up, or cannot be counted.")
    if found.status == "stopped":
        screen.line("Stopped; the same command goes on.")
    screen.line(f"Results: {found.root}   (maquette fleet status --root {shlex.quote(found.root)})")


def show_status(found: StatusResult) -> None:
    """Print the figures, and the failures."""
    from ..fleet.reporting import table

    screen = Screen()
    screen.table(table(found))
    if found.failures:
        screen.line()
        rows = [(one["job"], one["kind"], one["message"]) for one in found.failures]
        screen.table(rows, ("failed", "kind", "why"))


def _show_kept(found: KeptResult, json_output: bool) -> None:
    if json_output:
        return print_json(found)
    screen = Screen()
    if found.what == "gc":
        for name in found.names:
            screen.line(name)
        verb = "removed" if found.removed else "would be removed (--yes does it)"
        return screen.line(f"{found.jobs} attempts, {shown_bytes(found.bytes)}, {verb}.")
    what = {"retry": "will be tried again", "cancel": "will not be run"}[found.what]
    screen.line(f"{found.jobs} job{'' if found.jobs == 1 else 's'} {what}.")


COMMANDS = {
    "plan": plan, "run": run, "status": status, "retry": retry, "cancel": cancel, "report": report, "gc": gc,
    "templates": templates,
}  # fmt: skip
